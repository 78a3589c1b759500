"""The content-addressed cache: an entry is a folder that is complete from the moment it exists.

Layout: `<root>/<kind>/<key>/...`, each entry with a `files.json` that lists its files with mode,
size and sha256; `memo/<kind>/<key>.json` keeps small results; `tmp/` holds what is being made.
A folder without the marker `CACHEDIR.TAG` is not touched, unless it is empty.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeVar, get_args

from patchwheel.kit import files
from patchwheel.kit.entry import (
    CACHEDIR_TAG,
    IN_PLACE,
    MANIFEST,
    MARKER,
    Entry,
    Hold,
    Kind,
    is_store,
    safe_name,
    sealed,
    unsealed,
    walk,
)
from patchwheel.kit.errors import FULL, UNUSABLE, BusyError, InputError, MachineError
from patchwheel.kit.files import fsync, rmtree, sync, write_atomically

T = TypeVar("T")
KEY = re.compile(r"[0-9a-f]{64}")
# Seconds: what forks of one build wait for is most often done by then.
PATIENCE = 5.0
READER = files.PlainReader()


class Store:
    """The cache under `root`; `say` receives one line when something waits or is healed."""

    def __init__(self, root: Path, *, say: Callable[[str], None] = lambda _line: None) -> None:
        self.root = root
        self.say = say
        self.show_logs = False
        self.held: dict[Path, Hold] = {}
        # The git repositories that were looked at in this run.
        self.sound: set[Path] = set()

    def path(self, kind: Kind, key: str) -> Path:
        """Return the place of an entry; raises InputError for a key that is no sha256."""
        if not KEY.fullmatch(key):
            raise InputError(f"{key!r} is no sha256", expected="64 hexadecimal digits")
        return self.root / kind / key

    def find(self, kind: Kind, key: str, *, hashed: bool = False) -> Path | None:
        """Return the entry's folder, or None; this counts as a use.

        Unless it is to be `hashed`, it is read only if the stat of a file differs from what it was.
        If it is damaged, that is said, and it is removed.
        """
        path = self._look(kind, key, hashed=hashed)
        if path or not (self.path(kind, key) / MANIFEST).exists():
            return path
        # Another process may have made it again meanwhile.
        with self.lock(f"{kind}-{key}"):
            return self._look(kind, key, hashed=hashed, heal=True)

    def get(self, kind: Kind, key: str, make: Callable[[Path], None]) -> Path:
        """Return the entry; if it is missing, one process at a time makes it by `make(folder)`."""
        hashed = kind not in IN_PLACE
        if path := self._look(kind, key, hashed=hashed):
            return path
        with self.lock(f"{kind}-{key}"):
            if path := self._look(kind, key, hashed=hashed, heal=True):
                return path
            try:
                return self._make(kind, key, make)
            except BaseException:
                self.remove(kind, key)
                raise

    def _look(self, kind: Kind, key: str, *, hashed: bool, heal: bool = False) -> Path | None:
        path = self.path(kind, key)
        try:
            os.utime(path / MANIFEST)
        except FileNotFoundError:
            return None
        except OSError:
            # On a read-only disk nothing counts as a use.
            pass
        # Held before it is looked at: `prune` must not take it away afterwards.
        with contextlib.suppress(OSError, BusyError):
            self.held[path] = Hold(path)
            why = Entry(kind=kind, key=key, path=path).broken(hashed=hashed)
            if why and heal:
                self.say(f"store: {kind}/{key[:12]}: {why}; making it again")
                self.remove(kind, key)
            return None if why else path
        return None

    def remove(self, kind: Kind, key: str) -> None:
        path = self.path(kind, key)
        self.held.pop(path, None)
        # Renamed first: nobody can see half an entry, even if the removal is interrupted. Through
        # a link in the place of the folder, something else would be removed.
        with self.scratch() as folder, contextlib.suppress(FileNotFoundError):
            if not path.parent.is_symlink():
                path.rename(folder / "removed")

    def discard(self, entry: Entry) -> bool:
        """Remove an entry unless it is being made, or used by another process."""
        self.held.pop(entry.path, None)
        try:
            with self.lock(f"{entry.kind}-{entry.key}", busy="it is being made"):
                _alone = Hold(entry.path, alone=True)
                self.remove(entry.kind, entry.key)
        except (BusyError, FileNotFoundError):
            return False
        return True

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a temporary folder in the store; MachineError when the disk is full."""
        self.ensure()
        with self._usable():
            folder = Path(tempfile.mkdtemp(dir=self.root / "tmp"))
            _held = Hold(folder)
            try:
                yield folder
            finally:
                rmtree(folder)

    @contextlib.contextmanager
    def lock(self, name: str, *, busy: str | None = None) -> Iterator[None]:
        """Wait for the lock `name` and hold it; with `busy`, raise MachineError instead."""
        self.ensure()
        import filelock

        lock = filelock.FileLock(self.root / "locks" / f"{safe_name(name[:120])}.lock")
        try:
            with self._usable():
                held = lock.acquire(timeout=0 if busy else PATIENCE)
        except filelock.Timeout as err:
            if busy:
                raise BusyError(busy, hint="try again when it has ended") from err
            self.say(f"waiting for another build, which is at work on {name.partition('-')[0]}")
            held = lock.acquire()
        with held:
            yield

    def cached(
        self,
        kind: str,
        record: type[T],
        inputs: Sequence[object],
        compute: Callable[[], T],
        *,
        valid: Callable[[T], bool] = lambda _record: True,
    ) -> T:
        """Return what was computed from `inputs`, again if lost or damaged; kept if `valid`."""
        # The JSON-like inputs include a version, raised when `compute` changes its results.
        key = files.digest(*inputs)
        if kept := self.memo(kind, key):
            with contextlib.suppress(ValueError, KeyError):
                known: T = READER.structure(kept["answer"], record)
                if valid(known):
                    return known
        if valid(computed := compute()):
            self.remember(kind, key, {"answer": files.plain_data(computed)})
        return computed

    def memo(self, kind: str, key: str) -> dict[str, object] | None:
        path = self._memo(kind, key)
        try:
            answer = unsealed(path, _place(path))
        except (OSError, ValueError):
            return None
        return answer if isinstance(answer, dict) else None

    def remember(self, kind: str, key: str, answer: dict[str, object]) -> None:
        path = self._memo(kind, key)
        self.ensure()
        with self._usable():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                rmtree(path)
            write_atomically(path, sealed(_place(path), answer))

    def _memo(self, kind: str, key: str) -> Path:
        return self.root / "memo" / safe_name(kind) / f"{safe_name(key)}.json"

    def ensure(self) -> None:
        """Make the store's skeleton; MachineError for a place with other files or not writable."""
        with self._usable(errno.errorcode):
            # First and whole: even if this is interrupted, no store has files and no marker.
            if not self._marked():
                self.root.mkdir(parents=True, exist_ok=True)
                write_atomically(self.root / MARKER, CACHEDIR_TAG.encode())
            for name in ("tmp", "locks", "logs"):
                (self.root / name).mkdir(parents=True, exist_ok=True)

    def log(self, *parts: str) -> Path:
        """Return the path of a log file for one step; the folder exists."""
        self.ensure()
        path = self.root.joinpath("logs", *map(safe_name, parts)).with_suffix(".log")
        with self._usable():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        if self.show_logs:
            self.say(f"log: {path}")
        return path

    def entries(self) -> Iterator[Entry]:
        """Yield the entries of known kinds; raise MachineError when this is not a store."""
        self._marked()
        for kind in get_args(Kind):
            for path in _inside(self.root / kind):
                # A link leads out of the store, and only a key is a name that patchwheel gave.
                if KEY.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                    yield Entry(kind=kind, key=path.name, path=path)

    def prune(self, *, older_than_days: float) -> tuple[int, int]:
        """Remove leftovers, and entries unused for so long; return the entries' count and bytes."""
        limit = time.time() - older_than_days * 86400
        count = freed = 0
        for entry in list(self.entries()):
            # An environment that a link still points to stays.
            if entry.last_use() <= limit and not entry.linked():
                size = sum(info.st_size for _, info in walk(entry.path))
                if self.discard(entry):
                    count, freed = count + 1, freed + size
        # Nothing that is being made is a day old.
        limit = min(limit, time.time() - 86400)
        logs = [path for path in _inside(self.root / "logs", "**/*.log") if path.is_file()]
        for left in [*_inside(self.root / "tmp"), *logs]:
            with contextlib.suppress(FileNotFoundError, BusyError):
                if left.lstat().st_mtime < limit:
                    _alone = stat.S_ISDIR(left.lstat().st_mode) and Hold(left, alone=True)
                    rmtree(left)
        return count, freed

    def _marked(self) -> bool:
        """Say whether the folder has the marker; MachineError for one with other files instead."""
        foreign = set[str]()
        with self._usable(errno.errorcode), contextlib.suppress(FileNotFoundError):
            # Listed before the marker is read: another process may be making the store just now.
            foreign = {path.name for path in self.root.iterdir()}
            if is_store(self.root):
                return True
        # A new file system has `lost+found`, and an unfinished marker has a temporary name.
        foreign = {n for n in foreign if n != "lost+found" and not n.startswith(f".{MARKER}.")}
        if foreign:
            raise MachineError(
                f"the folder is not a store of patchwheel: it holds {min(foreign)}, no {MARKER}",
                where=self.root,
                expected="an empty folder, or a store that patchwheel made",
                hint="set PATCHWHEEL_STORE to a new folder, or unset it for the default one",
            )
        return False

    def _make(self, kind: Kind, key: str, make: Callable[[Path], None]) -> Path:
        path = self.path(kind, key)
        # A maker that was killed may have left files; without entry.json they are no entry.
        self.remove(kind, key)
        with self.scratch() as scratch:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A venv cannot be moved afterwards; all else appears when it is whole.
            folder = path if kind in IN_PLACE else scratch
            folder.mkdir(exist_ok=True)
            make(folder)
            if folder == path:
                sync(folder)  # It may have many files, in any place.
            else:
                for name, info in walk(folder):
                    if stat.S_ISREG(info.st_mode):
                        fsync(folder / name)
            Entry(kind=kind, key=key, path=folder).record()
            if folder != path:
                folder.chmod(0o755)
                folder.rename(path)
            fsync(path.parent)
            self.held[path] = Hold(path)
        return path

    @contextlib.contextmanager
    def _usable(self, errors: Collection[int] = UNUSABLE) -> Iterator[None]:
        """Turn what a full or an unwritable disk raises into one clear error."""
        try:
            yield
        except OSError as err:
            elsewhere = err.filename and not Path(err.filename).is_relative_to(self.root)
            if err.errno not in errors or elsewhere:
                raise
            existing = next(path for path in (self.root, *self.root.parents) if path.exists())
            free = shutil.disk_usage(existing).free
            room = "free some room (`patchwheel cache prune`), or " if err.errno in FULL else ""
            raise MachineError(
                f"the store cannot be used: {err.strerror}",
                where=err.filename or self.root,
                expected=f"a folder that can be written, with room ({free >> 20} MiB are free)",
                hint=f"{room}set PATCHWHEEL_STORE to another folder",
            ) from err


def default_root() -> Path:
    """Return PATCHWHEEL_STORE, or the user's cache folder for patchwheel."""
    if place := os.environ.get("PATCHWHEEL_STORE"):
        return Path(place).absolute()
    # As the XDG Base Directory Specification has it: a path that is not absolute is ignored.
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "patchwheel"


def _inside(folder: Path, pattern: str = "*") -> list[Path]:
    """Return what is in a folder of the store; a link in its place is not followed."""
    return [] if folder.is_symlink() else sorted(folder.glob(pattern))


def _place(memo: Path) -> str:
    return f"{memo.parent.name}/{memo.stem}"
