"""Patch files as text: diff, mail, lint, and a simulation of `git apply`.

It takes bytes and gives parsed diffs, mails and placements of hunks; git is not used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
