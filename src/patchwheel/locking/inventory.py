"""Configure a pin once, to see what its wheel holds and what the build reads."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from patchwheel.build import (
    absence,
    list_outputs,
    missing_tools,
    open_session,
    without_missing_tools,
)
from patchwheel.kit import BuildError, Repository, blob_id
from patchwheel.manifest import ANYTHING, BuildInventory
from patchwheel.plan import base_mismatch
from patchwheel.wheel import CYTHON, NUMPY
from patchwheel.wheelfile import check_record, output_names, read_wheel

if TYPE_CHECKING:
    from pathlib import Path

    from patchwheel.build import ListedOutputs
    from patchwheel.kit import Context
    from patchwheel.manifest import Fork
    from patchwheel.source import Source
    from patchwheel.wheelfile import WheelFile

# What decides the build of a project, at its top.
CONFIGURATION = ("pyproject.toml", "setup.cfg", "setup.py", "MANIFEST.in", "CMakeLists.txt")
OPENBLAS = re.compile(rb"OpenBLAS (\d+(?:\.\d+)+)")
PATTERNS = {
    "cython": CYTHON,
    "numpy-target": NUMPY,
    "cuda": re.compile(rb"release (\d+\.\d+), V\d"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PinInventory:
    """With a `mismatch`, a difference of the base from the pin's own build, there is no graft."""

    inventory: BuildInventory
    mismatch: str | None


def inventory_of_pin(
    context: Context, source: Source, environment: Path, *, base: Path | None
) -> PinInventory:
    """Configure the pin in its build environment, and compare it with the checked base."""
    fork, repo = source.fork, Repository(source.git_dir)
    context.progress.say(f"configuring {fork.name} to see what it builds and reads")
    files = repo.files(source.tree)
    wheel = read_wheel(base) if base else None
    try:
        found = _listed(context, source, environment)
    except BuildError as err:
        gone = missing_tools(fork)
        if wheel is None or "meson.build" in files:
            raise (absence([fork.name, "cannot be configured"], gone) if gone else err) from err
        context.progress.say(f"{err.message}: its wheel says what it holds")
        return _by_wheel(source, wheel)
    outputs = {
        name: path
        for name, path in found.outputs.items()
        if ".dist-info/" not in name and not name.endswith("/")
    }
    plain = {path for path, blob in files.items() if blob.mode.startswith("100")}
    verbatim = {name: path for name, path in outputs.items() if path in plain}
    reads = {*found.reads, *(p for paths in found.opened.values() for p in paths)} & files.keys()
    present: dict[str, str] = {}
    differs: list[str] = []
    built = set(outputs) - verbatim.keys()
    if wheel:
        check_record(wheel)
        present = output_names(wheel.entries, wheel.name)
        if gone := missing_tools(fork):
            # Only upstream's wheel shows what they make.
            built |= {name for name in present.keys() - outputs.keys() if name.endswith(".so")}
            context.progress.say(f"{fork.name}: configured without {' and '.join(gone)}")
        changed = {
            name
            for name, path in verbatim.items()
            if name in present
            and blob_id(wheel.entries[present[name]].content()) != files[path].oid
        }
        meant = {name for name in changed if _is_meant(name, fork)}
        differs = sorted(f"its {n} is not the pin's {verbatim[n]}" for n in changed - meant)
        # One that is meant to differ counts as read, and its output as built.
        reads |= {verbatim.pop(name) for name in changed}
        built |= meant
    inventory = BuildInventory(
        verbatim=verbatim,
        built=frozenset(built),
        reads=frozenset(reads),
        opened={
            script: kept
            for script, paths in found.opened.items()
            if (kept := paths & {*files, ANYTHING})
        },
    )
    if scripts := inventory.unwatched:
        context.progress.say(
            f"{fork.name}: not run without bubblewrap: {', '.join(scripts)}; as nobody knows what "
            "these scripts read, any change counts as reaching what they make"
        )
    mismatch = base_mismatch(present, inventory, fork) if base else None
    return PinInventory(inventory=inventory, mismatch=next(iter(differs), mismatch))


def _is_meant(name: str, fork: Fork) -> bool:
    """Whether the manifest says that upstream's wheel has another file than the pin there."""
    globs = fork.upstream_wheel.only_in_base if fork.upstream_wheel else ()
    return any(fnmatchcase(name, glob) for glob in globs)


def _listed(context: Context, source: Source, environment: Path) -> ListedOutputs:
    fork, epoch = without_missing_tools(source.fork), source.epoch
    with open_session(context, fork, environment, epoch=epoch, step="survey") as session:
        session.checkout(source, source.tree)
        return list_outputs(session, generate=True)


def _by_wheel(source: Source, wheel: WheelFile) -> PinInventory:
    """Take the wheel's word: a file that the source has too, at the same place, is a copy of it."""
    check_record(wheel)
    repo = Repository(source.git_dir)
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path, blob in repo.files(source.tree).items():
        if blob.mode.startswith("100"):
            places[blob.oid].append(path)
    verbatim = {}
    outputs = output_names(wheel.entries, wheel.name)
    for name, member in outputs.items():
        known = places.get(blob_id(wheel.entries[member].content()), ())
        if same := [p for p in known if f"/{p}".endswith(f"/{name}")]:
            verbatim[name] = min(same, key=len)
    # From git nobody has filled in anything: another file at its place is of another commit.
    paths = [] if source.fork.sdist else [f"/{path}" for found in places.values() for path in found]
    differs = sorted(
        name
        for name in outputs.keys() - verbatim.keys()
        if not _is_meant(name, source.fork) and any(p.endswith(f"/{name}") for p in paths)
    )
    shipped = {*verbatim.values()}
    texts = repo.files(source.tree, *CONFIGURATION).values()
    text = b"\n".join(repo.read([blob.oid for blob in texts]).values()).decode(errors="replace")
    # What the build's own files name is read by them, whatever for.
    reads = {path for path in shipped if _named(path, text)}
    inventory = BuildInventory(
        verbatim=verbatim,
        built=frozenset(outputs.keys() - verbatim.keys() - {*differs}),
        reads=frozenset(reads),
    )
    mismatch = next((f"its {name} is not the pin's" for name in differs), None)
    return PinInventory(inventory=inventory, mismatch=mismatch)


def _named(path: str, text: str) -> bool:
    name = path.rpartition("/")[2]
    stem = re.escape(name.partition(".")[0])
    return name in text or bool(re.search(rf"\b(?:import|from)\b.*\b{stem}\b", text))


def made_with(wheel: WheelFile) -> dict[str, str]:
    """Return the most frequent version of each tool that made the libraries of a wheel."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for entry in wheel.entries.values():
        if not re.search(r"\.so(\.|$)", entry.name):
            continue
        data = entry.content()
        patterns = PATTERNS
        if entry.name.partition("/")[0].endswith(".libs"):
            patterns = {"openblas": OPENBLAS}
            if OPENBLAS.search(data):
                found["blas"][entry.name.rpartition("/")[2]] += 1
        for tool, pattern in patterns.items():
            # Cython writes 3_2_4.
            found[tool].update(v.decode().replace("_", ".") for v in pattern.findall(data))
    return {tool: versions.most_common(1)[0][0] for tool, versions in found.items() if versions}
