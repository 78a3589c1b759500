"""Configures a pin once: which files its wheel holds, what they are copies of, and what the build reads."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from patchwheel.backend import open_workplace
from patchwheel.digest import blob_id
from patchwheel.errors import BuildError
from patchwheel.lock import Survey
from patchwheel.plan import find_gap
from patchwheel.repo import Repository
from patchwheel.wheelfile import check_record, output_names, read_wheel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from patchwheel.backend import Workplace
    from patchwheel.interpreter import Interpreter
    from patchwheel.report import Report
    from patchwheel.sandbox import Wanted
    from patchwheel.source import Source
    from patchwheel.store import Store
    from patchwheel.wheelfile import WheelFile

SURVEYOR = Path(__file__).with_name("surveyor.py")
CYTHON = re.compile(rb"_cython_(\d+_\d+_\w+)\b")
# What a compiled module says when the NumPy that it meets is older than the one that it was compiled for.
NUMPY = re.compile(rb"\(NumPy (\d[\d.]*)\)")
OPENBLAS = re.compile(rb"OpenBLAS (\d+(?:\.\d+)+)")
CUDA = re.compile(rb"release (\d+\.\d+), V\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """`gap` says in what the base differs from the pin's own build; while there is one there is no graft."""

    survey: Survey
    made_with: Mapping[str, str]
    gap: str | None


def survey_pin(
    source: Source,
    environment: Path,
    *,
    base: Path | None,
    interpreter: Interpreter,
    store: Store,
    report: Report,
    sandbox: Wanted = "auto",
) -> Surveyed:
    """Configure the pin in its build environment and compare it with the base, every byte of which is checked.

    Raises BuildError when the project cannot be configured, InputError when the base is no sound wheel.
    """
    fork = source.fork
    report.say(f"configuring {fork.name} to see what it builds and reads")
    files = Repository(source.git_dir).files(source.tree)
    with open_workplace(
        fork,
        environment,
        interpreter=interpreter,
        epoch=source.epoch,
        store=store,
        report=report,
        sandbox=sandbox,
        jobs=None,
        step="survey",
    ) as workplace:
        Repository(source.git_dir).checkout(source.tree, workplace.source)
        found, opened = _observe(workplace)
    plain = {path for path, blob in files.items() if blob.mode.startswith("100")}
    outputs = {
        name: path
        for name, path in found.items()
        if ".dist-info/" not in name and not name.endswith("/")
    }
    verbatim = {n: s for n, s in outputs.items() if s in plain}
    survey = Survey(
        verbatim=verbatim,
        built=tuple(sorted(outputs.keys() - verbatim.keys())),
        reads=frozenset(opened & files.keys()),
    )
    if base is None:
        return Surveyed(survey=survey, made_with={}, gap=None)
    wheel = read_wheel(base)
    check_record(wheel)
    blobs = {path: blob.oid for path, blob in files.items()}
    survey = _compared(survey, wheel, blobs)
    gap = find_gap(output_names(wheel.entries, wheel.name), survey, fork)
    return Surveyed(survey=survey, made_with=made_with(wheel), gap=gap)


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


def _observe(workplace: Workplace) -> tuple[dict[str, str], set[str]]:
    """Run the surveyor in the room; return its outputs with what they are made from, and all files that were read."""
    room, work = workplace.room, workplace.room.work
    text = SURVEYOR.read_text(encoding="utf-8")
    trace = work / "trace"
    trace.mkdir()
    log = trace / "log"
    log.touch()
    for path in (work / "surveyor.py", trace / "sitecustomize.py"):
        path.write_text(text, encoding="utf-8")
    system, inside = workplace.system(), room.see(workplace.source)
    places = [room.see(trace), *(inside / path for path in system.backend_path)]
    variables = {
        "PYTHONPATH": ":".join(map(str, places)),
        "PATCHWHEEL_SURVEY_LOG": str(room.see(log)),
        "PATCHWHEEL_SURVEY_ROOT": str(inside),
    }
    watched = replace(workplace, variables={**workplace.variables, **variables})
    out = work / "out"
    watched.step(
        [
            *(workplace.python, room.see(work / "surveyor.py")),
            *(system.backend, room.see(out)),
            json.dumps(workplace.settings()),
        ]
    )
    answer = json.loads((out / "survey.json").read_text(encoding="utf-8"))
    if not answer["outputs"]:
        raise BuildError(
            f"{workplace.fork.name}: its backend names no files for the wheel",
            log=workplace.log,
        )
    opened = log.read_bytes().decode(errors="surrogateescape").split("\0")
    return answer["outputs"], {*opened, *answer["read"]}


def _compared(survey: Survey, wheel: WheelFile, blobs: Mapping[str, str]) -> Survey:
    """Keep as verbatim only what is the same in the base; a source that someone changed on the way counts as read."""
    present = output_names(wheel.entries, wheel.name)
    odd = {
        name
        for name, source in survey.verbatim.items()
        if name in present
        and blob_id(wheel.entries[present[name]].content()) != blobs[source]
    }
    return Survey(
        verbatim={n: s for n, s in survey.verbatim.items() if n not in odd},
        built=tuple(sorted({*survey.built, *odd})),
        reads=survey.reads | {survey.verbatim[name] for name in odd},
    )
