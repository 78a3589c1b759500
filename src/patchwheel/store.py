"""The content-addressed cache: an entry is a folder that is complete from the moment it exists.

Layout: `<root>/<kind>/<key>/…`, each entry with an `entry.json` that lists its files with size and sha256;
`memo/<kind>/<key>.json` remembers small answers; `tmp/` holds what is being made, `locks/` who makes it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from patchwheel.digest import file_sha256
from patchwheel.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MANIFEST = "entry.json"
CACHEDIR_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by patchwheel.\n"
# A venv is used in place and its interpreter writes into it; it is remade from hashed wheels, not verified.
UNHASHED = frozenset({"environments", "build-envs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    kind: str
    key: str
    path: Path

    def broken(self) -> str | None:
        """Say how the entry differs from what was published, or None."""
        try:
            listed = json.loads((self.path / MANIFEST).read_text())
        except (OSError, ValueError):
            return f"{MANIFEST} cannot be read"
        if self.kind in UNHASHED:
            return None
        found = {name for name, _ in _files(self.path)}
        if extra := sorted(found - listed.keys()):
            return f"{extra[0]} was added"
        for name, (size, sha256) in listed.items():
            if name not in found:
                return f"{name} is missing"
            file = self.path / name
            if file.stat().st_size != size or file_sha256(file) != sha256:
                return f"{name} has other bytes than when it was stored"
        return None


class Store:
    """The cache under `root`; `say` receives one line when something waits or is healed."""

    def __init__(
        self, root: Path, *, say: Callable[[str], None] = lambda _line: None
    ) -> None:
        self.root = root
        self.say = say

    def path(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def find(self, kind: str, key: str) -> Path | None:
        """Return the entry's folder without reading what is in it, or None."""
        path = self.path(kind, key)
        return path if (path / MANIFEST).exists() else None

    def checked(self, kind: str, key: str) -> Path | None:
        """Return the entry's folder after hashing it; a broken entry is removed and reported."""
        path = self.find(kind, key)
        if path is None:
            return None
        if why := Entry(kind=kind, key=key, path=path).broken():
            self.say(f"store: {kind}/{key[:12]}: {why}; making it again")
            self.remove(kind, key)
            return None
        return path

    def get(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """Return the entry, made by `make(folder)` if it is not there; one maker per key at a time."""
        if path := self.checked(kind, key):
            return path
        with self.lock(f"{kind}-{key}"):
            if path := self.checked(kind, key):
                return path
            with self.scratch() as folder:
                make(folder)
                return self._publish(kind, key, folder)

    def remove(self, kind: str, key: str) -> None:
        # Renamed first: nobody can see half an entry, even if the removal is interrupted.
        with self.scratch() as folder, contextlib.suppress(FileNotFoundError):
            self.path(kind, key).rename(folder / "removed")

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder below the store that is removed on leaving; a full disk becomes one clear error."""
        self.ensure()
        try:
            folder = Path(tempfile.mkdtemp(dir=self.root / "tmp"))
            try:
                yield folder
            finally:
                _rmtree(folder)
        except OSError as err:
            if err.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}:
                raise self._unusable(err) from err
            raise

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock `name`; a process that was killed holds nothing."""
        self.ensure()
        lock = filelock.FileLock(self.root / "locks" / f"{name[:120]}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            self.say(
                f"waiting for another patchwheel that is making {name.partition('-')[0]}"
            )
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def memo(self, kind: str, key: str) -> dict[str, object] | None:
        try:
            answer = json.loads(self._memo_path(kind, key).read_text())
        except (OSError, ValueError):
            return None
        return answer if isinstance(answer, dict) else None

    def remember(self, kind: str, key: str, answer: dict[str, object]) -> None:
        path = self._memo_path(kind, key)
        self.ensure()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(answer, sort_keys=True).encode())

    def ensure(self) -> None:
        """Make the store's skeleton, or raise MachineError when its place cannot be written."""
        if (self.root / "locks").is_dir() and os.access(self.root / "tmp", os.W_OK):
            return
        try:
            for name in ("tmp", "locks", "logs"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            (self.root / "CACHEDIR.TAG").write_text(CACHEDIR_TAG)
            with tempfile.NamedTemporaryFile(dir=self.root / "tmp"):
                pass
        except OSError as err:
            raise self._unusable(err) from err

    def log(self, *parts: str) -> Path:
        """Return the path of a log file for one step; the folder exists."""
        self.ensure()
        path = self.root.joinpath("logs", *parts).with_suffix(".log")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        return path

    def entries(self) -> Iterator[Entry]:
        for kind in sorted(p for p in self.root.glob("*") if p.is_dir()):
            if kind.name in {"tmp", "locks", "logs", "memo", "git"}:
                continue
            for path in sorted(kind.iterdir()):
                yield Entry(kind=kind.name, key=path.name, path=path)

    def prune(self, *, older_than_days: float) -> tuple[int, int]:
        """Remove entries that were not used for so long, and leftovers; return their count and bytes.

        An environment that a link still points to stays.
        """
        limit = time.time() - older_than_days * 86400
        count = freed = 0
        for entry in list(self.entries()):
            if last_use(entry.path) > limit or linked(entry.path):
                continue
            freed += sum(size for _, size in _files(entry.path))
            self.remove(entry.kind, entry.key)
            count += 1
        for left in (self.root / "tmp").glob("*"):
            if left.stat().st_mtime < min(limit, time.time() - 86400):
                _rmtree(left)
        return count, freed

    def _memo_path(self, kind: str, key: str) -> Path:
        return self.root / "memo" / kind / f"{key}.json"

    def _publish(self, kind: str, key: str, folder: Path) -> Path:
        listed = {}
        if kind not in UNHASHED:
            for name, size in _files(folder):
                file = folder / name
                listed[name] = (size, file_sha256(file))
                _fsync(file)
        write_atomically(
            folder / MANIFEST, json.dumps(listed, sort_keys=True, indent=0).encode()
        )
        folder.chmod(0o755)
        path = self.path(kind, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self.remove(kind, key)
        folder.rename(path)
        _fsync(path.parent)
        return path

    def _unusable(self, err: OSError) -> MachineError:
        free = shutil.disk_usage(_existing(self.root)).free
        return MachineError(
            f"the store cannot be used: {err.strerror}",
            where=err.filename or self.root,
            expected=f"a folder that can be written, with room ({free >> 20} MiB are free)",
            hint="free some room (`patchwheel cache prune`), or set PATCHWHEEL_STORE to another folder",
        )


def default_root() -> Path:
    """Return PATCHWHEEL_STORE, or the user's cache folder for patchwheel."""
    if place := os.environ.get("PATCHWHEEL_STORE"):
        return Path(place).absolute()
    import platformdirs

    return platformdirs.user_cache_path("patchwheel")


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds all of it or what it held before, a power cut included."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
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
    _fsync(path.parent)


def last_use(path: Path) -> float:
    marker = path / MANIFEST
    return marker.stat().st_mtime if marker.exists() else path.stat().st_mtime


def linked(environment: Path) -> bool:
    """Say whether a link recorded in the environment's `links` file still points to it."""
    try:
        links = (environment / "links").read_text().splitlines()
    except OSError:
        return False
    return any(Path(link).resolve() == environment.resolve() for link in links)


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        if stat.S_ISREG(info.st_mode) and path != folder / MANIFEST:
            yield str(path.relative_to(folder)), info.st_size


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _rmtree(path: Path) -> None:
    def writable(function: Callable[..., object], name: str, _err: object) -> None:
        # Sources may hold read-only folders; anything else is left for `prune`.
        with contextlib.suppress(OSError):
            Path(name).parent.chmod(0o700)
            function(name)

    if sys.version_info >= (3, 12):
        shutil.rmtree(path, onexc=writable)
    else:
        shutil.rmtree(path, onerror=writable)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
