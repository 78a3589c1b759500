"""Reads forks.toml, forks.lock and forks.inventory into frozen records, and writes them.

A record that was read is valid: unknown keys, wrong types and stale entries are ManifestErrors.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
