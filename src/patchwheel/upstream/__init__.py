"""Follows a series through upstream's history, and moves it to another pin.

Pin, lock and series change together, or not at all.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
