"""What every stage stands on: errors, processes, files, the store, git, uv and the interpreter.

It knows nothing of forks. Each module is the only door to what it wraps: `process` starts
processes, `repo` uses GitPython, `uv` calls uv.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
