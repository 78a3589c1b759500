"""Write files and replace folders so that a power cut leaves no half of them; digests."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache
from inspect import get_annotations
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, Never, Union, get_args, get_origin, get_type_hints

from patchwheel.kit import process
from patchwheel.kit.errors import did_you_mean

MAX_DOTS = 10_000
# What a message calls the types of JSON.
NAMES = {str: "a string", int: "a number", float: "a number", bool: "true or false"}


def write_atomically(path: Path, data: bytes, *, alone: bool = False, mode: int = 0o644) -> None:
    """Write `data` so that `path` always holds all of it or what it held before."""
    # Who is `alone` in writing it just now removes what one that was killed left.
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp") if alone else ():
        left.unlink()
    handle, name = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes it private.
        temporary.chmod(mode)
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
    new, old = _beside(folder)
    rmtree(old)
    rmtree(new)
    return new


def replace_folder(folder: Path) -> None:
    """Put the finished replacement in the folder's place and remove the old folder."""
    # A folder cannot be replaced in one step: who reads it calls `finish_replacement` first.
    new, old = _beside(folder)
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
    new, old = _beside(folder)
    if folder.exists() or not old.exists():
        return
    # The replacement was complete before the first rename. Another reader may be quicker.
    with contextlib.suppress(FileNotFoundError):
        (new if new.exists() else old).rename(folder)


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


@dataclass(frozen=True)
class Problem:
    """What is wrong with a value; `at` is the path of its key below where it was found."""

    message: str
    expected: str | None = None
    at: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{'.'.join(self.at)} {self.message}"


class InvalidDataError(ValueError):
    """All that is wrong with some data."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems

    def __str__(self) -> str:
        return "; ".join(map(str, self.problems))


class PlainReader:
    """Makes records of data that is as their types say; raises InvalidDataError for other data.

    `hooks` read types that are written in a way of their own. Unless it is `strict`, keys that a
    record does not have are left out.
    """

    def __init__(
        self,
        hooks: Mapping[Any, Callable[[Any, Any], object]] = MappingProxyType({}),
        key: Callable[[str], str] = str,
        *,
        strict: bool = True,
    ) -> None:
        self._hooks, self._key = {Path: lambda path, _: Path(str(path)), **hooks}, key
        self._strict = strict

    def structure(self, value: Any, hint: Any) -> Any:  # noqa: PLR0911
        if type(value) is hint:
            return value  # as most are: strings and numbers
        if hook := self._hooks.get(hint):
            return hook(value, self)
        origin, inner = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return self._ruled(value, *inner)
        if origin in {Union, UnionType}:
            return self._any_of(value, inner)
        if is_dataclass(hint):
            return self.record(value, hint)
        if origin in {Mapping, dict}:
            return self._table(value, origin, *inner)
        if origin in {tuple, list, frozenset}:
            return self._list(value, origin, *inner)
        # JSON may have 1 for 1.0. The others are constants, and 1 == True.
        good = hint is float and type(value) is int
        if not good and not any(c == value and type(c) is type(value) for c in inner):
            refuse(f"is {value!r}", NAMES.get(hint))
        return value

    def record(self, value: Any, record: Any) -> Any:
        """Structure a table as a record, whatever hook there is for it."""
        if not isinstance(value, dict):
            refuse("is not a table")
        known = fields_by_key(record, self._key)
        rows = ((key, value[key], known[key][1]) for key in value if key in known)
        made, wrong = self._each(rows)
        missing = (k for k, (_, _, needed) in known.items() if needed and k not in value)
        wrong += [Problem("is missing", at=(key,)) for key in missing]
        for key in (key for key in value if self._strict and key not in known):
            problem = f"is not a key here{did_you_mean(key, known)}"
            wrong.append(Problem(problem, f"one of {', '.join(known)}", (key,)))
        if wrong:
            raise InvalidDataError(*wrong)
        return record(**{known[key][0]: found for key, found in made.items()})

    def _ruled(self, value: object, hint: object, *notes: Any) -> object:
        found = self.structure(value, hint)
        for rule in (note for note in notes if not isinstance(note, str)):
            if not rule.allows(found):
                refuse(f"is {value!r}" if value else "is empty", rule.expected)
        return found

    def _list(self, value: object, kind: Callable[[Any], Any], *hints: object) -> object:
        if not isinstance(value, list):
            refuse(f"is {value!r}", "a list")
        each = hints if kind is tuple and hints[-1] is not ... else hints[:1] * len(value)
        return kind(self.structure(*row) for row in zip(value, each, strict=True))

    def _table(self, value: object, kind: object, key_hint: object, hint: object) -> object:
        if not isinstance(value, dict):
            refuse("is not a table")
        _, wrong = self._each((key, key, key_hint) for key in value)
        made, others = self._each((key, item, hint) for key, item in value.items())
        if wrong or others:
            raise InvalidDataError(*wrong, *others)
        return made if kind is dict else MappingProxyType(made)

    def _each(self, rows: Iterable[tuple[str, Any, Any]]) -> tuple[dict[str, Any], list[Problem]]:
        """Structure values by their keys; return them, and what is wrong with others."""
        made: dict[str, Any] = {}
        wrong: list[Problem] = []
        for key, value, hint in rows:
            try:
                made[key] = self.structure(value, hint)
            except InvalidDataError as err:
                wrong += [replace(problem, at=(key, *problem.at)) for problem in err.problems]
        return made, wrong

    def _any_of(self, value: object, hints: tuple[object, ...]) -> object:
        if value is None and NoneType in hints:
            return None
        wrong: dict[bool, InvalidDataError] = {}
        for hint in hints:
            try:
                return self.structure(value, hint)
            except InvalidDataError as err:
                # That it is none of the constants says least.
                wrong[hint is NoneType or get_origin(hint) is Literal] = err
        raise wrong[min(wrong)]


@cache
def fields_by_key(record: Any, key: Callable[[str], str]) -> dict[str, tuple[str, Any, bool]]:
    """Return by their keys the name and type of a record's fields, and whether each is needed.

    Its own come before those of the record that it extends.
    """
    hints, own = get_type_hints(record, include_extras=True), get_annotations(record)
    return {
        key(f.name): (f.name, hints[f.name], f.default is MISSING and f.default_factory is MISSING)
        for f in sorted(fields(record), key=lambda f: f.name not in own)
    }


def plain_data(
    value: Any,
    key: Callable[[str], str] = str,
    hooks: Mapping[type, Callable[[Any], object]] = MappingProxyType({}),
) -> Any:
    """Return the data that a PlainReader takes for a value; `hooks` write types their own way."""
    if hook := hooks.get(type(value)):
        value = hook(value)
    if is_dataclass(value):
        value = {key(f.name): getattr(value, f.name) for f in fields(value)}
    if isinstance(value, Mapping):
        return {name: plain_data(item, key, hooks) for name, item in value.items()}
    if isinstance(value, list | tuple | frozenset):
        return [plain_data(item, key, hooks) for item in value]
    return str(value) if isinstance(value, Path) else value


def refuse(message: str, expected: str | None = None, at: tuple[str, ...] = ()) -> Never:
    """Raise InvalidDataError for one problem."""
    raise InvalidDataError(Problem(message, expected, at))


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
    with contextlib.suppress(OSError):
        info = path.stat()
        return (info.st_size, info.st_mtime_ns, info.st_ino)
    return ()


def blob_id(data: bytes) -> str:
    """Return the id that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0%s" % (len(data), data), usedforsecurity=False).hexdigest()


def _beside(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
