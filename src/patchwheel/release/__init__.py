"""What is published beside the wheels, and how wheels and folders of them are verified.

Nothing that was grafted is ever published.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
