"""Decides what to remake of a wheel, and names the wheel by its node key.

It takes a project and a patched tree and gives a plan. What it cannot prove unaffected is remade or
compiled. It makes no wheel; only a build that asks for it has trees configured.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
