"""What is published beside the wheels, and how wheels and folders of them are verified.

It takes compiled wheels and gives sums, lock, index, provenance and reports. A graft is never part
of a release, nor of an index.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
