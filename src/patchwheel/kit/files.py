"""Write files and replace folders so that a power cut leaves no half of them; digests."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Never, Union, get_args, get_origin, get_type_hints

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


def parsed(text: str | bytes) -> Any:
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


class PlainReader:
    """Makes records of data that is as their types say; to import cattrs alone takes longer.

    Anything else is a ValueError without a place: a converter of cattrs then takes it, or says
    what is wrong. `hooks` read types that are written in a way of their own.
    """

    def __init__(
        self,
        hooks: Mapping[Any, Callable[[Any, Any], object]] = MappingProxyType({}),
        key: Callable[[str], str] = str,
    ) -> None:
        self._hooks, self._key = {Path: lambda path, _: Path(str(path)), **hooks}, key

    def structure(self, value: Any, hint: Any) -> Any:  # noqa: PLR0911
        if type(value) is hint:
            return value  # as most are: strings and numbers
        if hook := self._hooks.get(hint):
            return hook(value, self)
        origin, inner = get_origin(hint), get_args(hint)
        if origin is Annotated:
            found = self.structure(value, inner[0])
            rules = [note for note in inner[1:] if not isinstance(note, str)]
            return found if all(rule.allows(found) for rule in rules) else _refuse(value)
        if origin in {Union, UnionType}:
            for arm in inner:
                with contextlib.suppress(ValueError):
                    return self.structure(value, arm)
        if isinstance(value, dict):
            return self._record(value, hint) if is_dataclass(hint) else self._table(value, hint)
        if isinstance(value, list) and origin in {tuple, list, frozenset}:
            hints = inner if origin is tuple and inner[-1] is not ... else inner[:1] * len(value)
            return origin(self.structure(*row) for row in zip(value, hints, strict=True))
        # The others are constants. 1 == True.
        good = any(c == value and type(c) is type(value) for c in inner)
        return value if good else _refuse(value)

    def _record(self, value: dict[str, Any], record: Any) -> object:
        known = _fields(record, self._key)
        if not {k for k, row in known.items() if row[2]} <= value.keys() <= known.keys():
            _refuse(value)
        return record(**{known[k][0]: self.structure(v, known[k][1]) for k, v in value.items()})

    def _table(self, value: dict[Any, Any], hint: object) -> object:
        if (origin := get_origin(hint)) not in {Mapping, dict}:
            _refuse(value)
        key, item = get_args(hint)
        rows = {self.structure(k, key): self.structure(v, item) for k, v in value.items()}
        return rows if origin is dict else MappingProxyType(rows)


@cache
def _fields(record: Any, key: Callable[[str], str]) -> dict[str, tuple[str, Any, bool]]:
    """Return by their keys the name and type of a record's fields, and whether each is needed."""
    hints = get_type_hints(record, include_extras=True)
    return {
        key(f.name): (f.name, hints[f.name], f.default is MISSING and f.default_factory is MISSING)
        for f in fields(record)
    }


def _refuse(value: object) -> Never:
    raise ValueError(value)


def digest(*parts: object) -> str:
    """Return the sha256 of JSON-like `parts`, independent of the order of mapping keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's content, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def state(path: Path) -> tuple[int, ...]:
    """Return what changes with a file; () where there is none."""
    try:
        info = path.stat()
    except OSError:
        return ()
    return (info.st_size, info.st_mtime_ns, info.st_ino)


def blob_id(data: bytes) -> str:
    """Return the id that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0%s" % (len(data), data), usedforsecurity=False).hexdigest()


def _new(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.new")


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")
