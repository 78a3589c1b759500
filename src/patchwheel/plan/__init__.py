"""Decides what to remake of a wheel, and names the wheel by its node key.

What it cannot prove unaffected is remade or compiled. It makes no wheel and needs no compiler.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
