"""Takes a source and a patch series and gives a patched tree, in memory, all or nothing.

It also keeps the work tree of `dev` and writes its commits back to the series.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
