"""Composes wheels and locked distributions into a virtual environment, and checks it.

A link is moved only to an environment that passed. Upstream's tests run in one as well.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
