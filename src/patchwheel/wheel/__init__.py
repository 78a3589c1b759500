"""Carries plans out: grafts or compiles, then relocates, labels, records and checks.

A wheel that is returned is in the store under its node key and passed its checks.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
