"""A team's store of wheels: what CI built, another machine takes, if somebody trusted signed it.

The names are those of bazel-remote, `cas/<sha256>` for files and `ac/<key>` for what is said of
them, so that any web server, a bucket or a folder is one.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
