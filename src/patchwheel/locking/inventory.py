"""Configure a pin once, to see what its wheel holds and what the build reads."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchwheel.build import list_outputs, open_session
from patchwheel.kit import Repository, blob_id
from patchwheel.manifest import BuildInventory
from patchwheel.plan import base_mismatch
from patchwheel.wheel import CYTHON, NUMPY
from patchwheel.wheelfile import check_record, output_names, read_wheel

if TYPE_CHECKING:
    from pathlib import Path

    from patchwheel.kit import Context
    from patchwheel.source import Source
    from patchwheel.wheelfile import WheelFile

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
    with open_session(context, fork, environment, epoch=source.epoch, step="survey") as session:
        session.checkout(source, source.tree)
        found = list_outputs(session, generate=True)
    outputs = {
        name: path
        for name, path in found.outputs.items()
        if ".dist-info/" not in name and not name.endswith("/")
    }
    plain = {path for path, blob in files.items() if blob.mode.startswith("100")}
    verbatim = {name: path for name, path in outputs.items() if path in plain}
    reads = {*found.reads, *(p for paths in found.opened.values() for p in paths)} & files.keys()
    present: dict[str, str] = {}
    if base:
        wheel = read_wheel(base)
        check_record(wheel)
        present = output_names(wheel.entries, wheel.name)
        changed = {
            name
            for name, path in verbatim.items()
            if name in present
            and blob_id(wheel.entries[present[name]].content()) != files[path].oid
        }
        # A source that someone changed on the way counts as read, and its output as built.
        reads |= {verbatim.pop(name) for name in changed}
    inventory = BuildInventory(
        verbatim=verbatim,
        built=frozenset(outputs.keys() - verbatim.keys()),
        reads=frozenset(reads),
        opened={s: kept for s, paths in found.opened.items() if (kept := paths & files.keys())},
    )
    mismatch = base_mismatch(present, inventory, fork) if base else None
    return PinInventory(inventory=inventory, mismatch=mismatch)


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
