"""Wheels as files: reads what is sound, writes a true RECORD, edits metadata.

It takes paths and bytes and gives entries and records; it knows nothing of how a wheel is made.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
