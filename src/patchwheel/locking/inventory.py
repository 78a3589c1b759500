"""Configures a pin once: which files its wheel holds, what they are copies of, and what the build reads."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchwheel.build.backend import open_session
from patchwheel.build.configure import observe
from patchwheel.kit.digest import blob_id
from patchwheel.kit.repo import Repository
from patchwheel.manifest.inventory import BuildInventory
from patchwheel.plan.base import base_mismatch
from patchwheel.wheel.fit import CYTHON, NUMPY
from patchwheel.wheelfile.read import check_record, output_names, read_wheel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from patchwheel.kit.context import Context
    from patchwheel.source.fetch import Source
    from patchwheel.wheelfile.read import WheelFile

OPENBLAS = re.compile(rb"OpenBLAS (\d+(?:\.\d+)+)")
CUDA = re.compile(rb"release (\d+\.\d+), V\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """`gap` says in what the base differs from the pin's own build; while there is one there is no graft."""

    inventory: BuildInventory
    made_with: Mapping[str, str]
    gap: str | None


def survey_pin(
    context: Context, source: Source, environment: Path, *, base: Path | None
) -> Surveyed:
    """Configure the pin in its build environment and compare it with the base, every byte of which is checked.

    Raises BuildError when the project cannot be configured, InputError when the base is no sound wheel.
    """
    fork = source.fork
    context.progress.say(f"configuring {fork.name} to see what it builds and reads")
    files = Repository(source.git_dir).files(source.tree)
    with open_session(context, fork, environment, epoch=source.epoch, step="survey") as session:
        Repository(source.git_dir).checkout(source.tree, session.source)
        found = observe(session, generate=True)
    plain = {path for path, blob in files.items() if blob.mode.startswith("100")}
    outputs = {
        name: path
        for name, path in found.outputs.items()
        if ".dist-info/" not in name and not name.endswith("/")
    }
    verbatim = {n: s for n, s in outputs.items() if s in plain}
    opened = {p for paths in found.opened.values() for p in paths} & files.keys()
    survey = BuildInventory(
        verbatim=verbatim,
        built=tuple(sorted(outputs.keys() - verbatim.keys())),
        reads=found.reads & files.keys() | opened,
        opened={s: paths & files.keys() for s, paths in found.opened.items()},
    )
    if base is None:
        return Surveyed(inventory=survey, made_with={}, gap=None)
    wheel = read_wheel(base)
    check_record(wheel)
    blobs = {path: blob.oid for path, blob in files.items()}
    survey = _compared(survey, wheel, blobs)
    gap = base_mismatch(output_names(wheel.entries, wheel.name), survey, fork)
    return Surveyed(inventory=survey, made_with=made_with(wheel), gap=gap)


def made_with(wheel: WheelFile) -> dict[str, str]:
    """Return what a wheel's libraries reveal of the tools that made it; the most frequent answer counts."""
    found: dict[str, Counter[str]] = {}

    def note(what: str, values: Iterable[bytes]) -> None:
        found.setdefault(what, Counter()).update({v.decode() for v in values})

    for entry in wheel.entries.values():
        if not re.search(r"\.so(\.|$)", entry.name):
            continue
        data = entry.content()
        if entry.name.partition("/")[0].endswith(".libs"):
            if versions := OPENBLAS.findall(data):
                note("openblas", versions)
                note("blas", [Path(entry.name).name.encode()])
            continue
        note("cython", [v.replace(b"_", b".") for v in CYTHON.findall(data)])
        note("numpy-target", NUMPY.findall(data))
        note("cuda", CUDA.findall(data))
    return {what: seen.most_common(1)[0][0] for what, seen in found.items() if seen}


def _compared(survey: BuildInventory, wheel: WheelFile, blobs: Mapping[str, str]) -> BuildInventory:
    """Keep as verbatim only what is the same in the base; a source that someone changed on the way counts as read."""
    present = output_names(wheel.entries, wheel.name)
    odd = {
        name
        for name, source in survey.verbatim.items()
        if name in present and blob_id(wheel.entries[present[name]].content()) != blobs[source]
    }
    return BuildInventory(
        verbatim={n: s for n, s in survey.verbatim.items() if n not in odd},
        built=tuple(sorted({*survey.built, *odd})),
        reads=survey.reads | {survey.verbatim[name] for name in odd},
        opened=survey.opened,
    )
