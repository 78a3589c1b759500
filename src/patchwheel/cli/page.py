"""The page of `status --against --html`, a row for each patch; and what the one of `build` tells.

Without other files: they are looked at as an artifact of CI, by mail and on paper.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from patchwheel.cli.console import CONSOLE
from patchwheel.cli.tables import reasons
from patchwheel.kit import MachineError, Recording, first
from patchwheel.report import Made, keep_page, learn, make_report, style, write_page

if TYPE_CHECKING:
    from patchwheel.kit import PatchwheelError
    from patchwheel.manifest import Fork
    from patchwheel.project import Project
    from patchwheel.upstream import Forecast, Verdict
    from patchwheel.wheel import BuiltWheel

# Of the reasons for a wheel, so many are told.
REASONS = 8

# Each state has a sign of its own, and the color of what it asks for.
SIGNS = {
    "clean": ("✓", "fine"),
    "offset": ("↕", "fine"),
    "merged": ("⋈", "fine"),
    "conflict": ("✗", "work"),
    "landed": ("●", "drop"),
    "reworked": ("◐", "drop"),
    "moot": ("○", "drop"),
    "reverted": ("↺", "look"),
    "unknown": ("?", "look"),
}
PAGE = Path(__file__).with_name("page.html")


def forecast_page(forks: Sequence[Fork], found: Mapping[str, Sequence[Forecast]]) -> str:
    """Draw patch by release, and for each patch the commits that matter."""
    summary = "".join(_summary(fork, found[fork.name]) for fork in forks)
    key = " ".join(
        f'<span class="key {kind}">{sign} {state}</span>' for state, (sign, kind) in SIGNS.items()
    )
    tables = "".join(_table(fork, found[fork.name]) for fork in forks)
    page = Template(PAGE.read_text(encoding="utf-8"))
    return page.substitute(style=style(), summary=summary, key=key, tables=tables)


def _summary(fork: Fork, found: Sequence[Forecast]) -> str:
    """Count the states at each ref, what asks for work first."""
    order = ["conflict", *reversed(SIGNS)]
    lines = []
    for at in found:
        states = Counter(v.state for v in at.patches)
        counts = ", ".join(
            f"{n} {s}" for s, n in sorted(states.items(), key=lambda x: order.index(x[0]))
        )
        lines.append(f"at {escape(at.ref)}: {counts or 'no patches'}")
    return (
        f"<li><strong>{escape(fork.name)} {escape(fork.version)}</strong> {'; '.join(lines)}</li>\n"
    )


def _table(fork: Fork, found: Sequence[Forecast]) -> str:
    heads = "".join(f"<th>{escape(at.ref)}</th>" for at in found)
    rows = ""
    for cells in zip(*(at.patches for at in found), strict=True):
        signs = [(verdict.state, *SIGNS[verdict.state]) for verdict in cells]
        drawn = "".join(f'<td class="state {k}"><b>{c}</b>{state}</td>' for state, c, k in signs)
        why = "".join(_why(fork, [at.ref for at in found], cells))
        name = escape(cells[0].name)
        rows += f'<tr><th>{name}</th>{drawn}<td class="why">{why}</td></tr>\n'
    title = escape(f"{fork.name} {fork.version}")
    head = f"<thead><tr><th>patch</th>{heads}<th>because of</th></tr></thead>"
    table = f'<table style="--refs: {len(found)}">{head}\n<tbody>\n{rows}</tbody></table>'
    return f'<h2>{title}</h2>\n<div class="wide">{table}</div>\n'


def _why(fork: Fork, refs: Sequence[str], cells: Sequence[Verdict]) -> Iterator[str]:
    """Tell each commit that matters to a patch once, with what is said of it where it came."""
    seen = set()
    for ref, verdict in zip(refs, cells, strict=True):
        key = verdict.commit.oid if verdict.commit else reasons(verdict)
        if not key or key in seen:
            continue
        seen.add(key)
        since = ""
        if commit := verdict.commit:
            told = escape(commit.oid[:12])
            if (fork.git or "").startswith("https://"):
                told = f'<a href="{escape(f"{fork.git}/commit/{commit.oid}")}">{told}</a>'
            release = f"first in {verdict.release}" if verdict.release else "in no release yet"
            since = f"{told} {commit.when[:10]} {escape(commit.author)}: {escape(commit.subject)}"
            since += f" <strong>{escape(release)}</strong>"
        # The row has its name.
        why = reasons(verdict).removeprefix(f"{verdict.name} does not apply: ")
        yield f"<p>{verdict.state} at {escape(ref)}: {since}"
        yield f"<br><small>{escape(why)}</small></p>"
        if verdict.hunks:
            hunks = "".join(f"<pre>{escape(hunk)}</pre>" for hunk in verdict.hunks)
            yield f"<details><summary>the patch, and that commit</summary>{hunks}</details>"


def report_build(
    project: Project,
    wheels: Sequence[BuiltWheel],
    failures: Mapping[str, PatchwheelError],
    path: Path | None,
) -> None:
    """Write the page about a build, to `path` or into the store, and say where; or why not."""
    recording = project.progress
    assert isinstance(recording, Recording)  # noqa: S101  (of every command)
    if not (path or wheels or any(event.kind == "run" for event in recording.events)):
        # What was wrong was seen before anything ran.
        return
    made = [_made(wheel) for wheel in wheels]
    made += [Made(fork=name, state="failed", problem=err.message) for name, err in failures.items()]
    jobs = project.context.pool.total
    report = make_report(recording, made, python=project.python, jobs=jobs)
    try:
        if path:
            write_page(report, path)
        path = path or keep_page(report, project.store)
        for wheel in wheels:
            if not wheel.cached:
                learn(project.store, wheel.fork, wheel.plan.route, report.events, wheel.replayed)
    except (MachineError, OSError) as err:
        CONSOLE.say(f"warning: no report: {err}")
        return
    CONSOLE.say(f"report: {path}")


def _made(wheel: BuiltWheel) -> Made:
    plan = wheel.plan
    causes = Counter((output.why, output.action) for output in plan.outputs)
    because = (f"{why}: {n} to {action}" for (why, action), n in causes.items())
    return Made(
        fork=wheel.fork,
        version=wheel.version,
        state="up to date" if wheel.cached else "made",
        how=plan.description,
        why=first([*because, *plan.why], REASONS),
        file=wheel.path.name,
        size=wheel.path.stat().st_size,
        seconds=wheel.seconds,
        replayed=wheel.replayed,
    )
