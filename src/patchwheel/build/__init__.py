"""Runs a project's build backend in a sandbox, with locked inputs.

It takes a fork, its lock and a tree; it gives configured trees, build sessions and the parts of the
node key that depend on tools. Nothing here decides what is built.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
