"""Wheels as files: reads what is sound, writes a true RECORD, edits metadata.

It takes paths and bytes and gives entries and records. What a wheel was made from is one of these
records, `patchwheel.json`; making it is the business of `wheel`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
