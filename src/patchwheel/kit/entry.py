"""Whether what was stored is still what it was: compared by stat, and hashed where that differs."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from patchwheel.kit.errors import BusyError, InputError
from patchwheel.kit.files import digest, file_sha256, parsed, write_atomically

Kind = Literal["build-envs", "configured", "environments", "files", "shared", "unpacked", "wheels"]
# A venv is made and used in place; hashing its thousands of files each time would take a second.
IN_PLACE = frozenset({"environments", "build-envs", "unpacked"})
# Users may install something into these, and their interpreter adds bytecode.
GROWING = frozenset({"environments", "unpacked"})
# `MANIFEST` says what the files' stat was, `FILES` what they hold. The others are written later.
MANIFEST, FILES = "entry.json", "files.json"
LATER = frozenset({MANIFEST, FILES, "links", "checked", "pylock.toml"})
BYTECODE = "__pycache__"
MARKER = "CACHEDIR.TAG"
CACHEDIR_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by patchwheel.\n"
# What a memo, a lock or a log may be called: never a path that leads elsewhere.
NAME = re.compile(r"[A-Za-z0-9][\w.:+-]*")
Row = tuple[str, os.stat_result]


def sealed(place: str, content: object) -> bytes:
    """Return JSON whose damage, or move to another place, `unsealed` notices."""
    record = {"place": place, "content": content, "seal": digest(place, content)}
    return json.dumps(record, sort_keys=True).encode()


def unsealed(path: Path, place: str) -> Any:
    """Return what was sealed; ValueError when it is damaged, OSError when it cannot be read."""
    try:
        record = parsed(path.read_bytes())
        there, content, seal = record["place"], record["content"], record["seal"]
    except (ValueError, KeyError, TypeError) as err:
        raise ValueError(f"{path.name} is damaged") from err
    if there != place:
        raise ValueError(f"is {there}, moved here")
    if seal != digest(place, content):
        raise ValueError(f"{path.name} is damaged")
    return content


def walk(folder: Path, *, bytecode: bool = True) -> Iterator[Row]:
    """Yield all that is below a folder, by relative path; links are not followed."""
    pending, start = [str(folder)], len(str(folder)) + 1
    while pending:
        with os.scandir(pending.pop()) as found:
            for entry in found:
                # It may go while it is looked at.
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name == BYTECODE and not bytecode:
                            continue
                        pending.append(entry.path)
                    yield entry.path[start:], entry.stat(follow_symlinks=False)


def stamp(name: str, info: os.stat_result) -> tuple[object, ...]:
    """Return what changes with a file; of a folder its mode, as its files are listed themselves."""
    if stat.S_ISDIR(info.st_mode):
        return (name, info.st_mode)
    times = (info.st_mtime_ns, info.st_ctime_ns)
    return (name, info.st_mode, info.st_size, *times, info.st_ino)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One folder of the store, and whether its files are those that were stored."""

    kind: Kind
    key: str
    path: Path

    @property
    def place(self) -> str:
        return f"{self.kind}/{self.key}"

    def broken(self, *, hashed: bool = True) -> str | None:
        """Say how the entry differs from what was stored, or None; `hashed` reads every file."""
        try:
            then = unsealed(self.path / MANIFEST, self.place)
            python = self.path / "bin" / "python"
            if self.kind in IN_PLACE and python.is_symlink() and not python.exists():
                return f"its interpreter {python.readlink()} is gone"
            now = self._stamp()
            if now == then and not hashed:
                return None
            why = self._differs()
            if not why and now != then:
                # Copied as a whole, or grown: known from now on, where it can be written down.
                with contextlib.suppress(OSError):
                    self._write(MANIFEST, now)
        except OSError as err:
            return f"{err.filename} cannot be read: {err.strerror}"
        except ValueError as err:
            return str(err)
        else:
            return why

    def listed(self) -> dict[str, list[Any]]:
        """Return kind, mode, size and sha256 of its files, as they were when it was stored."""
        found: dict[str, list[Any]] = unsealed(self.path / FILES, self.place)
        return found

    def record(self) -> None:
        """Write down what is in the folder; from now on it is an entry."""
        self._write(FILES, {name: self._content(name, info) for name, info in self._rows()})
        self._write(MANIFEST, self._stamp())

    def last_use(self) -> float:
        marker = self.path / MANIFEST
        return (marker if marker.exists() else self.path).stat().st_mtime

    def linked(self) -> bool:
        """Say whether a link recorded in the environment's `links` file still points to it."""
        with contextlib.suppress(OSError, ValueError):
            links = (self.path / "links").read_text().splitlines()
            return any(Path(link).resolve() == self.path.resolve() for link in links)
        return False

    def _rows(self) -> list[Row]:
        found = walk(self.path, bytecode=self.kind not in GROWING)
        return sorted(
            row for row in found if row[0] not in LATER or not stat.S_ISREG(row[1].st_mode)
        )

    def _stamp(self) -> str:
        rows = [*self._rows(), (FILES, (self.path / FILES).lstat())]
        text = repr([stamp(name, info) for name, info in rows])
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()

    def _content(self, name: str, info: os.stat_result) -> list[Any]:
        """Return what of a file, a folder or a link must not change."""
        kind, mode = stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode)
        if stat.S_ISREG(info.st_mode):
            return [kind, mode, info.st_size, file_sha256(self.path / name)]
        target = str((self.path / name).readlink()) if stat.S_ISLNK(info.st_mode) else ""
        return [kind, mode, 0, target]

    def _differs(self) -> str | None:
        listed, found = self.listed(), dict(self._rows())
        if self.kind == "files" and {row[3] for row in listed.values()} != {self.key}:
            return "holds another file than its sha256 says"
        if self.kind not in GROWING and (extra := sorted(found.keys() - listed.keys())):
            return f"{extra[0]} was added"
        if other := sorted(LATER & found.keys()):
            return f"{other[0]} is no regular file"
        for name, then in listed.items():
            if name not in found:
                return f"{name} is missing"
            # A file of another size need not be read.
            size = found[name].st_size if stat.S_ISREG(found[name].st_mode) else 0
            if size != then[2] or self._content(name, found[name]) != then:
                return f"{name} has changed since it was stored"
        return None

    def _write(self, name: str, content: object) -> None:
        write_atomically(self.path / name, sealed(self.place, content))


class Hold:
    """A shared lock on a folder that this process uses, until the object is gone."""

    def __init__(self, folder: Path, *, alone: bool = False) -> None:
        """Take the lock; raises BusyError, `alone` for an exclusive one that another prevents."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self.handle = os.open(folder, flags)
        try:
            fcntl.flock(self.handle, fcntl.LOCK_NB | (fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
        except BlockingIOError as err:
            raise BusyError("another patchwheel uses it", where=folder) from err
        except OSError:
            # Some network file systems have no such locks.
            return
        if not os.path.samestat(os.fstat(self.handle), folder.lstat()):
            raise FileNotFoundError(f"{folder} was replaced")

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            os.close(self.handle)


def safe_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot be a name in the store")
    return name


def is_store(folder: Path) -> bool:
    """Say whether a folder has the marker of a store that patchwheel made."""
    marker = folder / MARKER
    return marker.is_file() and marker.read_bytes() == CACHEDIR_TAG.encode()
