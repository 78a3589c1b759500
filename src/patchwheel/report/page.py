"""The page about a build: one file, which needs no other and no network; its figures beside it."""

from __future__ import annotations

import datetime as dt
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import patchwheel
from patchwheel.kit import Event, Recording, Store, write_atomically
from patchwheel.report.weights import STEPS

# Raised whenever the figures change their form.
SCHEMA = 1
# How many pages a store keeps, of the last builds.
KEPT = 20
FOLDER = "reports"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What became of a fork: its wheel, how and why it was made, or what was wrong."""

    fork: str
    version: str = ""
    state: str = "made"
    how: str = ""
    why: Sequence[str] = ()
    file: str = ""
    size: int = 0
    seconds: float = 0
    # Of the compile cache, when the wheel was made: `hits` and `misses`.
    replayed: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The figures of a build; `critical` are the events of its longest chain, by number."""

    schema: int = SCHEMA
    patchwheel: str = patchwheel.__version__
    date: str
    python: str
    cores: int
    jobs: int
    seconds: float
    cpu: float
    made: Sequence[Made]
    events: Sequence[Event]
    critical: Sequence[int]


def make_report(recording: Recording, made: Sequence[Made], *, python: str, jobs: int) -> Report:
    """Return the figures of the run that ends now."""
    events = sorted(recording.events, key=lambda event: (event.start, event.end))
    took = sum(event.cpu for event in events if event.kind == "run")
    return Report(
        date=dt.datetime.now(dt.UTC).isoformat(" ", "seconds"),
        python=python,
        cores=len(os.sched_getaffinity(0)),
        jobs=jobs,
        seconds=round(time.monotonic() - recording.start, 3),
        cpu=round(time.process_time() + took, 2),
        made=made,
        events=events,
        critical=longest_chain(events),
    )


def longest_chain(events: Sequence[Event]) -> list[int]:
    """Return the steps, by number, that take longest one after the other, each needing the last."""
    steps = sorted((e.end, number) for number, e in enumerate(events) if e.kind in STEPS)
    by_name: dict[tuple[str, str], int] = {}
    length: dict[int, float] = {}
    before: dict[int, int] = {}
    for end, number in steps:
        step = events[number]
        # What has not ended before is of another run, or a claim of its log.
        needs = [by_name[step.fork, need] for need in step.needs if (step.fork, need) in by_name]
        length[number] = end - step.start
        if needs:
            before[number] = max(needs, key=length.__getitem__)
            length[number] += length[before[number]]
        by_name[step.fork, step.what] = number
    chain = [max(length, key=length.__getitem__)] if length else []
    while chain and chain[-1] in before:
        chain.append(before[chain[-1]])
    return chain[::-1]


def style() -> str:
    """Return the style that all our pages share."""
    return _file("style.css")


def write_page(report: Report, path: Path) -> None:
    """Write the page, and beside it its figures; a path that ends in .json gets these alone.

    A link, a device or a pipe, as /dev/stdout, is written to, not replaced, and gets one of them.
    """
    figures = json.dumps(asdict(report), separators=(",", ":"))
    special = path.is_symlink() or (path.exists() and not path.is_file())
    write = Path.write_bytes if special else write_atomically
    if path.suffix != ".json":
        head, _, rest = _file("report.html").partition("/* style */")
        middle, _, end = rest.partition("{}")
        # Nothing in it may end the script that it is in.
        inside = figures.replace("<", "\\u003c")
        page = f"{head}{style()}{middle}{inside}{end}"
        write(path, page.encode())
        if special:
            return
    write(path.with_suffix(".json"), figures.encode())


def keep_page(report: Report, store: Store) -> Path:
    """Write the page into the store, remove the oldest ones there, and return its path."""
    store.ensure()
    folder = store.root / FOLDER
    folder.mkdir(exist_ok=True)
    name = "".join(c if c.isdigit() else "-" for c in report.date.partition("+")[0])
    path = folder / f"{name}-{os.getpid()}.html"
    write_page(report, path)
    for old in sorted(folder.glob("*.html"), reverse=True)[KEPT:]:
        old.unlink(missing_ok=True)
        old.with_suffix(".json").unlink(missing_ok=True)
    return path


def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
