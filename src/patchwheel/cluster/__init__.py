"""Builds cells on other machines, by dask.distributed.

A cell is a fork for a Python and as a variant. A task is data, and a worker builds it by
`patchwheel build` in a process of its own; the wheel comes through the shared store.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
