"""The files that ccache made for one fork, and how new ones come there from a build."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from patchwheel.kit import (
    BuildError,
    Store,
    copy_untrusted,
    file_sha256,
    rmtree,
    sealed,
    stamp,
    unsealed,
    walk,
    write_atomically,
)

KIND: Final = "compiles"
# As ccache names what it keeps in a folder: anything else there is not taken.
PART, REST = re.compile(r"[0-9a-f]{2}"), re.compile(r"[0-9a-f]{38}")
# Bytes of an entry, and entries that one build may add.
LARGEST, MOST = 256 << 20, 20_000
# In a build directory: where a build adds entries, and beside it, out of its reach, whose they are.
LAYER, NOTE = "compiled", "compiles"


@dataclass(slots=True, kw_only=True)
class Index:
    """The sha256 and the stat of each entry, and how many steps were replayed and were not."""

    rows: dict[str, list[Any]] = field(default_factory=dict)
    hits: int = 0
    misses: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The compile cache of one fork at one level of the sandbox."""

    store: Store
    name: str

    @property
    def folder(self) -> Path:
        return self.store.root / KIND / self.name

    @property
    def entries(self) -> Path:
        return self.folder / "entries"

    @property
    def index(self) -> Path:
        """Where the host keeps what the entries are; no build sees it."""
        return self.folder / "index.json"

    def read(self) -> Index:
        """Return what is known of the entries: nothing, if that was lost or damaged."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Index(**unsealed(self.index, self.place))
        return Index()

    def prepare(self) -> Path:
        """Return the folder that builds read, checked, and with what killed ones left."""
        self.check()
        for note in (self.store.root / "tmp").glob(f"*/{NOTE}"):
            # A build that ends just now removes its folder, after it took the entries itself.
            with contextlib.suppress(FileNotFoundError):
                if note.read_text() == self.name:
                    self.merge(note.parent / "work")
        return self.entries

    def check(self, *, hashed: bool = False, older_than: float = 0) -> list[str]:
        """Remove what is not as it was stored, or was stored before a time; return the damaged.

        Unless all is to be `hashed`, only an entry whose stat has changed is read.
        """
        with self.store.lock(f"{KIND}-{self.name}"):
            for path in (self.folder.parent, self.folder, self.entries):
                if path.is_symlink():
                    rmtree(path)
                path.mkdir(parents=True, exist_ok=True)
            index = self.read()
            known, index.rows, damaged = index.rows, {}, list[str]()
            for name, info in list(walk(self.entries)):
                path, row = self.entries / name, known.get(name)
                if stat.S_ISDIR(info.st_mode):
                    continue
                if info.st_mtime < older_than:
                    path.unlink()
                elif row and (self._same(path, info, row, hashed=hashed)):
                    index.rows[name] = [row[0], *stamp(name, info)]
                else:
                    rmtree(path)
                    damaged.append(name)
            if index.rows != known:
                self._write(index)
        if damaged:
            more = f"{len(damaged)} damaged or foreign"
            self.store.say(f"store: {KIND}/{self.name}: {more}; removed, and compiled again")
        return damaged

    def merge(self, work: Path, *, hits: int = 0, misses: int = 0) -> None:
        """Take the entries that a build left in its folder, which is not trusted."""
        with self.store.lock(f"{KIND}-{self.name}"), self.store.scratch() as folder:
            index = self.read()
            index.hits, index.misses = index.hits + hits, index.misses + misses
            for name in list(itertools.islice(_left(work / LAYER), MOST)):
                target = self.entries / name
                # Never over another: a build changes nothing that was there before it.
                if os.path.lexists(target):
                    continue
                with contextlib.suppress(FileNotFoundError, BuildError):
                    taken = folder / name.replace("/", "")
                    copy_untrusted(work, f"{LAYER}/{name}", taken, limit=LARGEST)
                    target.parent.mkdir(exist_ok=True)
                    sha256 = file_sha256(taken)
                    taken.rename(target)
                    index.rows[name] = [sha256, *stamp(name, target.lstat())]
            self._write(index)

    def size(self) -> tuple[int, int]:
        """Return the number of entries and their bytes."""
        rows = self.read().rows.values()
        return len(rows), sum(row[3] for row in rows)

    def prune(self, *, older_than_days: float) -> tuple[int, int]:
        """Remove entries that were stored so long ago; return their number and bytes."""
        count, size = self.size()
        self.check(older_than=time.time() - older_than_days * 86400)
        left, rest = self.size()
        return count - left, size - rest

    @property
    def place(self) -> str:
        """What it is called in the store."""
        return f"{KIND}/{self.name}"

    def _same(self, path: Path, info: os.stat_result, row: list[Any], *, hashed: bool) -> bool:
        if not hashed and row[1:] == [*stamp(row[1], info)]:
            return True
        # A file of another size need not be read.
        regular = stat.S_ISREG(info.st_mode) and info.st_size == row[3]
        with contextlib.suppress(OSError):
            return regular and file_sha256(path) == row[0]
        return False

    def _write(self, index: Index) -> None:
        content = {"rows": index.rows, "hits": index.hits, "misses": index.misses}
        write_atomically(self.index, sealed(self.place, content))


def all_shared(store: Store) -> list[Shared]:
    """Return the compile caches of all forks in a store."""
    root = store.root / KIND
    found = [] if root.is_symlink() else sorted(root.glob("*/index.json"))
    return [Shared(store=store, name=path.parent.name) for path in found]


def _left(layer: Path) -> Iterator[str]:
    """Name what may be entries in a folder that a build left; opening them is another matter."""
    with contextlib.suppress(OSError), os.scandir(layer) as folders:
        for folder in folders:
            if PART.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False):
                with os.scandir(folder.path) as files:
                    names = [file.name for file in files if REST.fullmatch(file.name)]
                yield from (f"{folder.name}/{name}" for name in names)
