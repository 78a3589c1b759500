"""Writing so that a power cut cannot leave half a file, and removing what resists."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds all of it or what it held before, a power cut included."""
    handle, name = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync(path.parent)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until nobody else is alone with the folder; nothing is left in it, and whoever is killed holds nothing."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems know no such locks.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def files(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the regular files below a folder, by relative path, with their sizes."""
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        if stat.S_ISREG(info.st_mode):
            yield str(path.relative_to(folder)), info.st_size


def fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rmtree(path: Path) -> None:
    def writable(function: Callable[..., object], name: str, _err: object) -> None:
        # Sources may hold read-only folders; anything else is left for `prune`.
        with contextlib.suppress(OSError):
            Path(name).parent.chmod(0o700)
            function(name)

    # A link is removed, never what it points to.
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    elif sys.version_info >= (3, 12):
        shutil.rmtree(path, onexc=writable)
    else:
        shutil.rmtree(path, onerror=writable)
