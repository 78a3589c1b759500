"""Read what a build left: regular files below one folder, opened without following a link.

A build may put a link, a FIFO or a huge file wherever it can write. The host opens what it takes
from there name by name (`openat` with `O_NOFOLLOW`), so that nothing outside the folder is read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from patchwheel.kit.errors import BuildError

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a FIFO waits for a writer.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
LARGEST = 4 << 30
# In folders and in characters: beyond, neither Python nor the kernel opens a path.
DEEPEST, LONGEST = 100, 2000


@contextlib.contextmanager
def open_untrusted(root: Path, name: str, *, limit: int = LARGEST) -> Iterator[BinaryIO]:
    """Open the regular file `name` of `limit` bytes at most below `root`, a folder of our own.

    Raises FileNotFoundError when it is not there, BuildError for a link, anything that is not a
    regular file, and a larger file.
    """
    *folders, last = _parts(root, name)
    handle = os.open(root, FOLDER)
    try:
        for folder in folders:
            inner = _open(root, name, folder, FOLDER, handle)
            os.close(handle)
            handle = inner
        file = _open(root, name, last, FILE, handle)
    finally:
        os.close(handle)
    info = os.fstat(file)
    if not stat.S_ISREG(info.st_mode):
        os.close(file)
        raise _refused(root, name, "is not a regular file")
    with os.fdopen(file, "rb") as stream:
        if info.st_size > limit:
            raise _refused(root, name, f"has {info.st_size:,} bytes, more than {limit:,}")
        yield stream


def read_untrusted(root: Path, name: str, *, limit: int = LARGEST) -> bytes:
    """Return the content of a file that a build left; raises as `open_untrusted` does."""
    with open_untrusted(root, name, limit=limit) as stream:
        return stream.read(limit + 1)


def read_regular(path: Path) -> bytes:
    """Return a file's content; OSError for a FIFO, which would wait, or a device without an end."""
    if not path.is_file() and not path.is_dir() and path.exists():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path.read_bytes()


def copy_untrusted(root: Path, name: str, target: Path, *, limit: int = LARGEST) -> Path:
    """Copy a file that a build left to a new file `target`, with a plain mode; return `target`."""
    with open_untrusted(root, name, limit=limit) as stream, target.open("xb") as sink:
        # Only the executable bit is kept: no setuid, no capabilities, no extended attributes.
        target.chmod(0o755 if os.fstat(stream.fileno()).st_mode & 0o100 else 0o644)
        shutil.copyfileobj(stream, sink, 1 << 20)
    return target


def copy_untrusted_tree(source: Path, target: Path) -> None:
    """Copy the regular files and folders below `source`; links and special files are left out."""
    for folder, folders, files, _ in os.fwalk(source, follow_symlinks=False):
        inner = os.path.relpath(folder, source)
        if inner.count("/") > DEEPEST or len(inner) > LONGEST:
            raise _refused(source, inner, "lies too deep")
        (target / inner).mkdir(parents=True, exist_ok=True)
        # os.fwalk lists a link to a folder among the folders, and does not enter it.
        folders.sort()
        for name in files:
            if stat.S_ISREG(os.lstat(os.path.join(folder, name)).st_mode):  # noqa: PTH118
                copy_untrusted(source, os.path.normpath(f"{inner}/{name}"), target / inner / name)


def _parts(root: Path, name: str) -> list[str]:
    parts = name.split("/")
    if not name or {"", ".", ".."} & set(parts) or "\0" in name:
        raise _refused(root, name, "is not a path below the build's folder")
    return parts


def _open(root: Path, name: str, part: str, flags: int, handle: int) -> int:
    try:
        return os.open(part, flags, dir_fd=handle)
    except FileNotFoundError:
        raise
    except OSError as err:
        raise _refused(root, name, f"cannot be taken: {err.strerror}") from err


def _refused(root: Path, name: str, why: str) -> BuildError:
    return BuildError(
        f"{name[:200]!r}, which the build left, {why}",
        where=root,
        expected="a regular file below the folder of the build, not reached through a link",
        hint="correct what the project's build writes there",
    )
