"""Configure a pin once, to see what its wheel holds and what the build reads."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from patchwheel.build import (
    absence,
    backend_kind,
    list_outputs,
    missing_tools,
    open_session,
    without_missing_tools,
)
from patchwheel.kit import BuildError, Repository, blob_id
from patchwheel.manifest import ANYTHING, BuildInventory
from patchwheel.plan import base_mismatch, find_copies
from patchwheel.wheel import CYTHON, NUMPY
from patchwheel.wheelfile import check_record, output_names, read_wheel

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from patchwheel.build import ListedOutputs
    from patchwheel.kit import Context
    from patchwheel.manifest import Fork
    from patchwheel.source import Source
    from patchwheel.wheelfile import WheelFile

# The end of the tags of a wheel that fits any platform.
PURE = "-any"
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
    files, kind = repo.files(source.tree), backend_kind(source)
    wheel = read_wheel(base) if base else None
    pure = wheel is not None and wheel.name.tags.endswith(PURE)
    if wheel and not (kind.listed_by or kind.copies or pure):
        return _by_wheel(source, wheel)
    doing = "configuring" if kind.listed_by else "building"
    try:
        with context.progress.step(f"{doing} {fork.name} to see what it builds and reads"):
            found = _listed(context, source, environment)
    except BuildError as err:
        gone = missing_tools(fork)
        if wheel is None:
            raise (absence([fork.name, "cannot be configured"], gone) if gone else err) from err
        why = next((line for line in err.tail if "ERROR" in line), (err.tail or [""])[-1]).strip()
        context.progress.say(f"{err.message} ({why}): its wheel says what it holds")
        return _by_wheel(source, wheel)
    if wheel and kind.listed_by and not _describes(found.outputs, wheel):
        context.progress.say(f"{fork.name} names no module of its wheel: that says what it holds")
        return _by_wheel(source, wheel)
    outputs = {
        name: path
        for name, path in found.outputs.items()
        if ".dist-info/" not in name and not name.endswith("/")
    }
    plain = {path for path, blob in files.items() if blob.mode.startswith("100")}
    verbatim = {name: path for name, path in outputs.items() if path in plain}
    reads = {
        *found.reads,
        *(p for paths in found.opened_by_script.values() for p in paths),
    } & files.keys()
    present: dict[str, str] = {}
    differs: list[str] = []
    built = set(outputs) - verbatim.keys()
    if wheel:
        check_record(wheel)
        present = output_names(wheel.entries, wheel.name)
        if kind.listed_by and (gone := missing_tools(fork)):
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
    made = found.wheel or (wheel.path.name if wheel else "")
    inventory = BuildInventory(
        pure=made.endswith(f"{PURE}.whl") and not any(name.endswith(".so") for name in built),
        verbatim=verbatim,
        built=frozenset(built),
        reads=frozenset(reads),
        opened={
            script: kept
            for script, paths in found.opened_by_script.items()
            if (kept := paths & {*files, ANYTHING})
        },
    )
    if scripts := inventory.unwatched:
        context.progress.say(
            f"{fork.name}: not run without bubblewrap: {', '.join(scripts)}; as nobody knows what "
            "these scripts read, any change counts as reaching what they make"
        )
    if inventory.pure:
        if wheel and not pure:
            what = "upstream's wheel has compiled code, a build has none"
            context.progress.say(f"{fork.name}: {what}")
        return PinInventory(inventory=inventory, mismatch=None)
    mismatch = base_mismatch(present, inventory, fork) if base else None
    return PinInventory(inventory=inventory, mismatch=next(iter(differs), mismatch))


def _is_meant(name: str, fork: Fork) -> bool:
    """Whether the manifest says that upstream's wheel has another file than the pin there."""
    globs = fork.upstream_wheel.only_in_base if fork.upstream_wheel else ()
    return any(fnmatchcase(name, glob) for glob in globs)


def _describes(outputs: Iterable[str], wheel: WheelFile) -> bool:
    """Whether what is listed can be of the wheel; h5py names one module, and builds others."""
    theirs = {name for name in output_names(wheel.entries, wheel.name) if name.endswith(".so")}
    ours = {name for name in outputs if name.endswith(".so")}
    return not (ours and theirs) or not ours.isdisjoint(theirs)


def _listed(context: Context, source: Source, environment: Path) -> ListedOutputs:
    fork, epoch = without_missing_tools(source.fork), source.epoch
    with open_session(context, fork, environment, epoch=epoch, step="inspect") as session:
        session.checkout(source, source.tree)
        found = list_outputs(session, generate=True)
        if backend_kind(source).listed_by:
            return found
        # A finished wheel tells what is in it, not where it is from.
        wheel = session.take_wheel(f"out/{found.wheel}")
    copies, reads, _ = find_copies(source, wheel)
    outputs = {name: copies.get(name, path) for name, path in found.outputs.items()}
    return replace(found, outputs=outputs, reads=found.reads | reads)


def _by_wheel(source: Source, wheel: WheelFile) -> PinInventory:
    """Take the wheel's word: a file that the source has too, at the same place, is a copy of it."""
    check_record(wheel)
    verbatim, reads, changed = find_copies(source, wheel)
    # From git nobody has filled in anything: another file at its place is of another commit.
    differs = [] if source.fork.sdist else [n for n in changed if not _is_meant(n, source.fork)]
    # auditwheel's folder of bundled libraries is in no build's own output.
    members = [name for name in wheel.entries if not name.partition("/")[0].endswith(".libs")]
    outputs = output_names(members, wheel.name)
    inventory = BuildInventory(
        verbatim=verbatim,
        built=frozenset(outputs.keys() - verbatim.keys() - {*differs}),
        reads=reads,
    )
    mismatch = next((f"its {name} is not the pin's" for name in differs), None)
    return PinInventory(inventory=inventory, mismatch=mismatch)


def built_with(wheel: WheelFile) -> dict[str, str]:
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
