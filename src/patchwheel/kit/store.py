"""The content-addressed cache: an entry is a folder that is complete from the moment it exists.

Layout: `<root>/<kind>/<key>/...`, each entry with an `entry.json` that lists its files with size
and sha256; `memo/<kind>/<key>.json` keeps small results; `tmp/` holds what is being made.
A folder without the marker `CACHEDIR.TAG` is not touched, unless it is empty.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from patchwheel.kit import files
from patchwheel.kit.errors import MachineError
from patchwheel.kit.files import file_sha256, fsync, regular_files, rmtree, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from cattrs import Converter

T = TypeVar("T")
Kind = Literal["build-envs", "configured", "environments", "files", "unpacked", "wheels"]
# A venv is made and used in place, and its interpreter writes into it. It is not verified, but
# remade from wheels that are.
IN_PLACE = frozenset({"environments", "build-envs", "unpacked"})
MANIFEST = "entry.json"

MARKER = "CACHEDIR.TAG"
CACHEDIR_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by patchwheel.\n"
KEY = re.compile(r"[0-9a-f]{64}")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
UNUSABLE = frozenset({*FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One folder of the store, and whether its files are those that were stored."""

    kind: Kind
    key: str
    path: Path

    def broken(self) -> str | None:
        """Say how the entry differs from what was stored, or None."""
        try:
            manifest = json.loads((self.path / MANIFEST).read_text())
            if manifest["entry"] != f"{self.kind}/{self.key}":
                return f"is {manifest['entry']}, moved here"
            if self.kind in IN_PLACE:
                python = self.path / "bin" / "python"
                gone = python.is_symlink() and not python.exists()
                return f"its interpreter {python.readlink()} is gone" if gone else None
            return self._differs(manifest["files"])
        except OSError as err:
            return f"{err.filename} cannot be read: {err.strerror}"
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{MANIFEST} is damaged"

    def _differs(self, listed: dict[str, list[object]]) -> str | None:
        found = dict(regular_files(self.path))
        del found[MANIFEST]
        if extra := sorted(found.keys() - listed.keys()):
            return f"{extra[0]} was added"
        for name, (size, sha256) in listed.items():
            if name not in found:
                return f"{name} is missing"
            if found[name] != size or file_sha256(self.path / name) != sha256:
                return f"{name} has changed since it was stored"
        return None

    def last_use(self) -> float:
        marker = self.path / MANIFEST
        return (marker if marker.exists() else self.path).stat().st_mtime

    def linked(self) -> bool:
        """Say whether a link recorded in the environment's `links` file still points to it."""
        with contextlib.suppress(OSError):
            links = (self.path / "links").read_text().splitlines()
            return any(Path(link).resolve() == self.path.resolve() for link in links)
        return False


class Store:
    """The cache under `root`; `say` receives one line when something waits or is healed."""

    def __init__(self, root: Path, *, say: Callable[[str], None] = lambda _line: None) -> None:
        self.root = root
        self.say = say
        self.show_logs = False

    def path(self, kind: Kind, key: str) -> Path:
        return self.root / kind / key

    def find(self, kind: Kind, key: str) -> Path | None:
        """Return the entry's folder unchecked, or None; this counts as a use."""
        path = self.path(kind, key)
        with contextlib.suppress(OSError):
            os.utime(path / MANIFEST)
        return path if (path / MANIFEST).is_file() else None

    def checked(self, kind: Kind, key: str) -> Path | None:
        """Return the entry's folder after hashing it; a broken entry is removed and reported."""
        path = self.find(kind, key)
        if path and (why := Entry(kind=kind, key=key, path=path).broken()):
            self.say(f"store: {kind}/{key[:12]}: {why}; making it again")
            self.remove(kind, key)
            return None
        return path

    def get(self, kind: Kind, key: str, make: Callable[[Path], None]) -> Path:
        """Return the entry; if it is missing, one process at a time makes it by `make(folder)`."""
        if path := self.checked(kind, key):
            return path
        with self.lock(f"{kind}-{key}"):
            if path := self.checked(kind, key):
                return path
            try:
                return self._make(kind, key, make)
            except BaseException:
                self.remove(kind, key)
                raise

    def remove(self, kind: Kind, key: str) -> None:
        # Renamed first: nobody can see half an entry, even if the removal is interrupted.
        with self.scratch() as folder, contextlib.suppress(FileNotFoundError):
            self.path(kind, key).rename(folder / "removed")

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a temporary folder in the store; MachineError when the disk is full."""
        self.ensure()
        with self._usable():
            folder = Path(tempfile.mkdtemp(dir=self.root / "tmp"))
            try:
                yield folder
            finally:
                rmtree(folder)

    @contextlib.contextmanager
    def lock(self, name: str, *, busy: str | None = None) -> Iterator[None]:
        """Wait for the lock `name` and hold it; with `busy`, raise MachineError instead."""
        self.ensure()
        import filelock

        lock = filelock.FileLock(self.root / "locks" / f"{name[:120]}.lock")
        try:
            with self._usable():
                held = lock.acquire(timeout=0)
        except filelock.Timeout as err:
            if busy:
                raise MachineError(busy, hint="try again when it has ended") from err
            self.say(f"waiting for another patchwheel that is making {name.partition('-')[0]}")
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
        """Return the record computed from `inputs`, again if it is lost, damaged or not `valid`."""
        # The JSON-like inputs include a version, raised when `compute` changes its results.
        from cattrs.errors import BaseValidationError

        converter, key = _converter(), files.digest(*inputs)
        if kept := self.memo(kind, key):
            with contextlib.suppress(BaseValidationError):
                if valid(known := converter.structure(kept, record)):
                    return known
        self.remember(kind, key, converter.unstructure(computed := compute()))
        return computed

    def memo(self, kind: str, key: str) -> dict[str, object] | None:
        try:
            answer = files.parsed((self.root / "memo" / kind / f"{key}.json").read_text())
        except (OSError, ValueError):
            return None
        return answer if isinstance(answer, dict) else None

    def remember(self, kind: str, key: str, answer: dict[str, object]) -> None:
        path = self.root / "memo" / kind / f"{key}.json"
        self.ensure()
        with self._usable():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(answer, sort_keys=True).encode())

    def ensure(self) -> None:
        """Make the store's skeleton; MachineError for a place with other files or not writable."""
        marked = self._marked()
        if marked and (self.root / "locks").is_dir() and os.access(self.root / "tmp", os.W_OK):
            return
        with self._usable(errno.errorcode):
            # First and whole: even if this is interrupted, no store has files and no marker.
            if not marked:
                self.root.mkdir(parents=True, exist_ok=True)
                write_atomically(self.root / MARKER, CACHEDIR_TAG.encode())
            for name in ("tmp", "locks", "logs"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.root / "tmp"):
                pass

    def log(self, *parts: str) -> Path:
        """Return the path of a log file for one step; the folder exists."""
        self.ensure()
        path = self.root.joinpath("logs", *parts).with_suffix(".log")
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
                freed += sum(size for _, size in regular_files(entry.path))
                self.remove(entry.kind, entry.key)
                count += 1
        # Nothing that is being made is a day old.
        limit = min(limit, time.time() - 86400)
        logs = [path for path in _inside(self.root / "logs", "**/*.log") if path.is_file()]
        for left in [*_inside(self.root / "tmp"), *logs]:
            with contextlib.suppress(FileNotFoundError):
                if left.lstat().st_mtime < limit:
                    rmtree(left)
        return count, freed

    def _marked(self) -> bool:
        """Say whether the folder has the marker; MachineError for one with other files instead."""
        foreign, marker = set(), self.root / MARKER
        with self._usable(errno.errorcode), contextlib.suppress(FileNotFoundError):
            # Listed before the marker is read: another process may be making the store just now.
            foreign = {path.name for path in self.root.iterdir()}
            if marker.is_file() and marker.read_bytes() == CACHEDIR_TAG.encode():
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
        path, listed = self.path(kind, key), {}
        # A maker that was killed may have left files; without entry.json they are no entry.
        self.remove(kind, key)
        with self.scratch() as scratch:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A venv cannot be moved afterwards; all else appears when it is whole.
            folder = path if kind in IN_PLACE else scratch
            folder.mkdir(exist_ok=True)
            make(folder)
            if folder == path:
                # It may have many files, in any place: one call brings all of them to the disk.
                os.sync()
            else:
                for name, size in regular_files(folder):
                    listed[name] = (size, file_sha256(folder / name))
                    fsync(folder / name)
            record = {"entry": f"{kind}/{key}", "files": listed}
            write_atomically(folder / MANIFEST, json.dumps(record, indent=0).encode())
            if folder != path:
                folder.chmod(0o755)
                folder.rename(path)
            fsync(path.parent)
        return path

    @contextlib.contextmanager
    def _usable(self, errors: Collection[int] = UNUSABLE) -> Iterator[None]:
        """Turn what a full or an unwritable disk raises into one clear error."""
        try:
            yield
        except OSError as err:
            if err.errno not in errors:
                raise
            existing = next(path for path in (self.root, *self.root.parents) if path.exists())
            free = shutil.disk_usage(existing).free
            room = "free some room (`patchwheel cache prune`), or "
            raise MachineError(
                f"the store cannot be used: {err.strerror}",
                where=err.filename or self.root,
                expected=f"a folder that can be written, with room ({free >> 20} MiB are free)",
                hint=f"{room if err.errno in FULL else ''}set PATCHWHEEL_STORE to another folder",
            ) from err


def default_root() -> Path:
    """Return PATCHWHEEL_STORE, or the user's cache folder for patchwheel."""
    if place := os.environ.get("PATCHWHEEL_STORE"):
        return Path(place).absolute()
    # As the XDG Base Directory Specification has it: a path that is not absolute is ignored.
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "patchwheel"


@functools.cache
def _converter() -> Converter:
    # cattrs takes 30 ms to import, and each converter generates code for its records.
    from cattrs.preconf.json import make_converter

    return make_converter(forbid_extra_keys=True)


def _inside(folder: Path, pattern: str = "*") -> list[Path]:
    """Return what is in a folder of the store; a link in its place is not followed."""
    return [] if folder.is_symlink() else sorted(folder.glob(pattern))


def listed(entry: Path) -> dict[str, tuple[int, str]]:
    """Return the files of an entry with size and sha256, as they were when it was stored."""
    files = json.loads((entry / MANIFEST).read_text())["files"]
    return {name: (size, sha256) for name, (size, sha256) in files.items()}
