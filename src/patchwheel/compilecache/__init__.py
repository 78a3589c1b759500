"""What compilers and transpilers made: a step that ran once is not run again.

Each fork has a folder of its own at each level of the sandbox. Builds read it and never write it:
what they add lies in their own build directory, and is taken from there when they end.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
