"""Resolves what is pinned beside the forks and writes forks.lock and forks.inventory.

This is the only stage that resolves anything.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
