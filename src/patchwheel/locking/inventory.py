"""Configure a pin once, to see what its wheel holds and what the build reads."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from patchwheel import build
from patchwheel.kit import BuildError, Context, Repository, blob_id, first
from patchwheel.manifest import ANYTHING, BuildInventory, Fork
from patchwheel.plan import base_mismatch, find_copies
from patchwheel.source import Source
from patchwheel.wheel import CYTHON, NUMPY
from patchwheel.wheelfile import WheelFile, output_names

# The end of the tags of a wheel that fits any platform.
PURE = "-any"
OPENBLAS = re.compile(rb"OpenBLAS (\d+(?:\.\d+)+)")
PATTERNS = {
    "cython": CYTHON,
    "numpy-target": NUMPY,
    "cuda": re.compile(rb"release (\d+\.\d+), V\d"),
}


def inventory_of_pin(
    context: Context, source: Source, environment: Path, *, base: WheelFile | None
) -> tuple[BuildInventory, str | None]:
    """Configure the pin in its build environment, and compare it with the checked base.

    With a difference of the base from the pin's own build, which is returned, there is no graft.
    """
    fork, kind = source.fork, build.backend_kind(source)
    pure = base is not None and base.name.tags.endswith(PURE)
    if base and not (kind.listed_by or kind.copies or pure):
        return _by_wheel(source, base)
    try:
        found = _listed(context, source, environment)
    except BuildError as err:
        if base is None:
            gone = build.missing_tools(fork)
            raise (
                build.absence([fork.name, "cannot be configured"], gone) if gone else err
            ) from err
        why = next((line for line in err.tail if "ERROR" in line), (err.tail or [""])[-1]).strip()
        context.progress.say(f"{err.message} ({why}): its wheel says what it holds")
        return _by_wheel(source, base)
    if base and kind.listed_by and not _describes(found.outputs, base):
        context.progress.say(f"{fork.name} names no module of its wheel: that says what it holds")
        return _by_wheel(source, base)
    inventory, differs = _compared(context, source, found, base)
    if scripts := inventory.unwatched:
        context.progress.say(
            f"{fork.name}: not run without bubblewrap: {', '.join(first(scripts, 5))}; as nobody "
            "knows what these scripts read, any change counts as reaching what they make"
        )
    if inventory.pure and base and not pure:
        what = "upstream's wheel has compiled code, a build has none"
        context.progress.say(f"{fork.name}: {what}")
    if inventory.pure or base is None:
        return inventory, None
    mismatch = base_mismatch(output_names(base.entries, base.name), inventory, fork)
    return inventory, next(iter(differs), mismatch)


def _compared(
    context: Context, source: Source, found: build.ListedOutputs, base: WheelFile | None
) -> tuple[BuildInventory, list[str]]:
    """Return what a build lists, and of which copies in it the base has other content."""
    fork, files = source.fork, Repository(source.git_dir).files(source.tree)
    outputs = {
        name: path
        for name, path in found.outputs.items()
        if ".dist-info/" not in name and not name.endswith("/")
    }
    plain = {path for path, blob in files.items() if blob.mode.startswith("100")}
    verbatim = {name: path for name, path in outputs.items() if path in plain}
    built = outputs.keys() - verbatim.keys()
    present = output_names(base.entries, base.name) if base else {}
    if base and build.backend_kind(source).listed_by and (gone := build.missing_tools(fork)):
        # Only upstream's wheel shows what they make.
        built |= {name for name in present.keys() - outputs.keys() if name.endswith(".so")}
        context.progress.say(f"{fork.name}: configured without {' and '.join(gone)}")
    theirs = {n: base.entries[present[n]] for n in verbatim.keys() & present.keys()} if base else {}
    changed = {n for n, e in theirs.items() if blob_id(e.content()) != files[verbatim[n]].oid}
    meant = {name for name in changed if _is_meant(name, fork)}
    differs = sorted(f"its {n} is not the pin's {verbatim[n]}" for n in changed - meant)
    # One that is meant to differ counts as read, and its output as built.
    reads = found.reads.union(*found.opened_by_script.values(), map(verbatim.pop, changed))
    built |= meant
    made = found.wheel or (base.path.name if base else "")
    inventory = BuildInventory(
        pure=made.endswith(f"{PURE}.whl") and not any(name.endswith(".so") for name in built),
        verbatim=verbatim,
        built=frozenset(built),
        reads=frozenset(reads & files.keys()),
        opened={
            script: kept
            for script, paths in found.opened_by_script.items()
            if (kept := paths & {*files, ANYTHING})
        },
    )
    return inventory, differs


def _is_meant(name: str, fork: Fork) -> bool:
    """Whether the manifest says that upstream's wheel has another file than the pin there."""
    globs = fork.upstream_wheel.only_in_base if fork.upstream_wheel else ()
    return any(fnmatchcase(name, glob) for glob in globs)


def _describes(outputs: Iterable[str], wheel: WheelFile) -> bool:
    """Whether what is listed can be of the wheel; h5py names one module, and builds others."""
    theirs = {name for name in output_names(wheel.entries, wheel.name) if name.endswith(".so")}
    ours = {name for name in outputs if name.endswith(".so")}
    return not (ours and theirs) or not ours.isdisjoint(theirs)


def _listed(context: Context, source: Source, environment: Path) -> build.ListedOutputs:
    fork, epoch = build.without_missing_tools(source.fork), source.epoch
    listed = build.backend_kind(source).listed_by
    doing = f"{'configuring' if listed else 'building'} {fork.name} to see what it builds and reads"
    with (
        context.progress.step(doing),
        build.open_session(context, fork, environment, epoch=epoch, step="inspect") as session,
    ):
        session.checkout(source, source.tree)
        found = build.list_outputs(session, generate=True)
        if listed:
            return found
        # A finished wheel tells what is in it, not where it is from.
        wheel = session.take_wheel(f"out/{found.wheel}")
    copies, reads, _ = find_copies(source, wheel)
    outputs = {name: copies.get(name, path) for name, path in found.outputs.items()}
    return replace(found, outputs=outputs, reads=found.reads | reads)


def _by_wheel(source: Source, wheel: WheelFile) -> tuple[BuildInventory, str | None]:
    """Take the wheel's word: a file that the source has too, at the same place, is a copy of it."""
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
    return inventory, next((f"its {name} is not the pin's" for name in differs), None)


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
