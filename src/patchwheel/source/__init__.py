"""Takes a pin and gives its files as a git tree in the store, from the sdist or from git.

A source that is returned matches its sha256 or commit; one that is stored needs no network.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
