"""Write files and replace folders so that a power cut leaves no half of them; digests."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from patchwheel.kit import process

MAX_DOTS = 10_000


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` so that `path` always holds all of it or what it held before."""
    handle, name = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes it private.
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as err:
        temporary.unlink(missing_ok=True)
        # Writing to a full disk does not name the file.
        if isinstance(err, OSError) and err.filename is None:
            err.filename = str(path)
        raise
    fsync(path.parent)


def new_folder(folder: Path) -> Path:
    """Return the path where a replacement of `folder` is to be made; remove older leftovers."""
    finish_replacement(folder)
    rmtree(_old(folder))
    rmtree(_new(folder))
    return _new(folder)


def replace_folder(folder: Path) -> None:
    """Put the finished replacement in the folder's place and remove the old folder."""
    # A folder cannot be replaced in one step: who reads it calls `finish_replacement` first.
    new, old = _new(folder), _old(folder)
    for path in [*new.rglob("*"), new]:
        if not path.is_symlink():
            fsync(path)
    folder.rename(old)
    # A reader may have finished it already.
    with contextlib.suppress(FileNotFoundError):
        new.rename(folder)
    fsync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def finish_replacement(folder: Path) -> None:
    """Finish a replacement that was interrupted between its two renames."""
    if folder.exists() or not _old(folder).exists():
        return
    # The replacement was complete before the first rename. Another reader may be quicker.
    with contextlib.suppress(FileNotFoundError):
        (_new(folder) if _new(folder).exists() else _old(folder)).rename(folder)


@contextlib.contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder; released if the process dies."""
    # filelock would leave its lock file in the user's folder; this leaves nothing.
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems have no such locks.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def fsync(path: Path) -> None:
    """Have the file, or the names in the folder, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync(folder: Path) -> None:
    """Have everything on the folder's file system on the disk: for many files at any place."""
    import ctypes

    handle = os.open(folder, os.O_RDONLY)
    try:
        ctypes.CDLL(None).syncfs(handle)
    finally:
        os.close(handle)


def rmtree(path: Path) -> None:
    """Remove a folder, a file or a link if it is there, read-only folders included."""
    # A link is removed, never what it points to.
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    # Sources may hold read-only folders; what cannot be removed is left for `prune`.
    try:
        with contextlib.suppress(OSError):
            path.chmod(0o700)
        for folder, inner, _ in os.walk(path):
            # Before it is entered, and never through a link.
            for place in (Path(folder, name) for name in inner):
                with contextlib.suppress(OSError):
                    if not place.is_symlink():
                        place.chmod(0o700)
        shutil.rmtree(path, ignore_errors=True)
    except RecursionError:
        # A build left folders of any depth, which these programs can walk.
        for words in (("chmod", "-R", "u+rwx"), ("rm", "-rf")):
            argv = [*words, "--", path]
            process.capture(argv, cwd=path.parent, env=process.base_env(), ok=(0, 1))


def parsed(text: str | bytes) -> Any:  # noqa: ANN401
    """Read JSON that others wrote; raises ValueError if it is none."""
    try:
        return json.loads(text)
    except RecursionError as err:
        raise ValueError("it is nested too deeply") from err


def parsed_toml(text: str) -> dict[str, Any]:
    """Read TOML that others wrote; raises ValueError if it is none."""
    import tomllib

    # The time of tomllib grows with the square of the parts of a key.
    if any(line.count(".") > MAX_DOTS for line in text.splitlines()):
        raise ValueError(f"a line has more than {MAX_DOTS:,} dots")
    try:
        return tomllib.loads(text)
    except RecursionError as err:
        raise ValueError("it is nested too deeply") from err


def digest(*parts: object) -> str:
    """Return the sha256 of JSON-like `parts`, independent of the order of mapping keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's content, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def blob_id(data: bytes) -> str:
    """Return the id that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0%s" % (len(data), data), usedforsecurity=False).hexdigest()


def _new(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.new")


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")
