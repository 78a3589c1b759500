"""Results as tables, for people."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from patchwheel.cli.console import CONSOLE
from patchwheel.kit import first

if TYPE_CHECKING:
    from patchwheel import upstream
    from patchwheel.build import Finding
    from patchwheel.compilecache import Shared
    from patchwheel.environment import Alone
    from patchwheel.plan import Outlook, Plan
    from patchwheel.release import ReleaseCheck
    from patchwheel.report import Estimate
    from patchwheel.series import ExportResult, ForkStatus, PatchStatus
    from patchwheel.source import PinReport
    from patchwheel.wheel import PlatformWheel

ISSUE = r"https://github\.com/[\w.-]+/([\w.-]+)/(?:issues|pull)/(\d+)"
# Rows of a plan; a person reads no more, and --json has them all.
SHOWN = 30
# Terminals in which the rows of `status` fit so.
COMPACT = range(78, 118)
# Lines of one conflict: a file that was rewritten may be one from its first to its last line.
LONG = 80
# Seconds from which on minutes are said.
MINUTES = 100


def platforms(found: Sequence[PlatformWheel]) -> None:
    """Show of each of upstream's wheels what was remade and how long it took, or why it was not."""
    rows = []
    for row in found:
        plan = row.wheel.plan if row.wheel else None
        built = f" ({len(plan.built)} built)" if plan and plan.built else ""
        remade = f"{len(plan.outputs)}{built}" if plan else f"skipped, needs {row.needs}"
        rows.append((row.base, remade, f"{row.seconds:.1f}"))
    CONSOLE.table(("upstream's wheel", "remade", "s"), rows, note=True)
    # Most are skipped for one reason, which may be long.
    for why in dict.fromkeys(row.skipped for row in found if row.skipped):
        names = [row.base for row in found if row.skipped == why]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        CONSOLE.say(f"skipped {names[0]}{more}: {why}")


def status(found: Sequence[ForkStatus]) -> None:
    rows = []
    for fork in found:
        pin = f"{fork.version} ({fork.tag or 'no tag'})"
        commit = (fork.commit or "unknown")[:12]
        verified = "" if fork.commit_verified else ", unverified"
        newest = f"{fork.newest}, newer" if fork.outdated else fork.newest or "not asked"
        count, tree, wheel = str(len(fork.patches)), (fork.tree or "-")[:12], fork.wheel
        rows.append([fork.fork, pin, commit + verified, count, tree, wheel or "none yet", newest])
    columns = ["fork", "pin", "commit", "patches", "tree", "last wheel", "upstream"]
    if sys.stdout.isatty() and shutil.get_terminal_size().columns in COMPACT:
        # What has two parts has a line for each, and the tree has no room.
        rows = [[re.sub(r"(?<=,) | (?=\()|(?=\.h)", "\n", cell) for cell in row] for row in rows]
        for row in (columns, *rows):
            del row[4]
    CONSOLE.table(columns, rows)
    for fork in found:
        columns = ["patch", "applies", "upstream-status", "subject"]
        told = [[p.name, _applies(p), _upstream(p), p.subject] for p in fork.patches]
        if sys.stdout.isatty():
            # Below the name there is room for it.
            told = [[f"{name}\n  {subject}", *cells] for name, *cells, subject in told]
            columns.pop()
        CONSOLE.table(columns, told, title=fork.fork)
    _warnings(line for fork in found for line in fork.warnings)


def _warnings(lines: Iterable[str]) -> None:
    for line in lines:
        CONSOLE.say(f"warning: {line}")


def _upstream(patch: PatchStatus) -> str:
    # As people write it, which leaves room for the subject.
    told = re.sub(ISSUE, r"\1#\2", patch.upstream) if sys.stdout.isatty() else patch.upstream
    return f"{told}, drop when {patch.drop_when}" if patch.drop_when else told


def _applies(patch: PatchStatus) -> str:
    if patch.state == "offset":
        return f"{patch.offset:+} lines"
    if patch.problem:
        return f"{patch.state}: {patch.problem} ({patch.where})"
    return patch.state


def forecasts(found: Mapping[str, Sequence[upstream.Forecast]], *, only_changes: bool) -> None:
    if only_changes and not any(ref.patches for rows in found.values() for ref in rows):
        CONSOLE.say("no changes since the last run")
        return
    rows = [
        (f"{name}/{verdict.name}", forecast.ref, verdict.state, *_reason(verdict))
        for name, each in found.items()
        for forecast in each
        for verdict in forecast.patches
    ]
    CONSOLE.table(("patch", "at", "is", "since", "because"), rows)


def _reason(verdict: upstream.Verdict) -> tuple[str, str]:
    from patchwheel.upstream import since

    return since(verdict).removeprefix("since "), reasons(verdict)


def reasons(verdict: upstream.Verdict) -> str:
    """Say in a line why a patch is judged so."""
    why = [*verdict.evidence, *filter(None, [verdict.problem])]
    if verdict.state == "offset":
        why.append(f"{verdict.offset:+} lines")
    if verdict.moved:
        why.append(f"the file went to {verdict.moved}")
    return "; ".join(why)


def _origin(plan: Plan) -> str:
    if plan.base is None:
        return "source"
    made = "a wheel built here" if plan.base.kind == "built" else "upstream's wheel"
    return f"{made} ({plan.base.sha256[:12]})"


def plan(now: Outlook) -> None:
    plan = now.plan
    past = f" in {now.seconds:.1f} s" if now.seconds is not None else ""
    would = {
        "up-to-date": f"up to date, made{past}",
        "stored": "made before, only copied to dist/",
        "to-make": "to be made",
    }
    CONSOLE.result(f"{plan.fork.name} {plan.version}: {would[now.state]}")
    CONSOLE.lines([f"  {plan.description}", f"  from {_origin(plan)}"])
    CONSOLE.lines(f"  {line}" for line in _cost(now.cost))
    if now.state != "up-to-date" and now.last:
        parts = {"pin": [now.pin] if now.pin else [], "patch": now.patches, "key part": now.parts}
        parts["file"] = now.files
        rows = first([f"{kind} {row}" for kind, found in parts.items() for row in found])
        CONSOLE.result(f"  since the last build ({now.last}, made{past}):")
        CONSOLE.lines(f"    {row}" for row in rows or ["how it is made"])
    by: dict[str, list[str]] = {}
    for output in plan.outputs:
        source = output.source.removeprefix("//")
        copy = output.action == "remove" or source.endswith(output.path)
        origin = "" if copy else f" from {source}"
        by.setdefault(output.why, []).append(f"    {output.action:6} {output.path}{origin}")
    rows = [row for why, rows in by.items() for row in [f"  because of {why}:", *rows]]
    CONSOLE.lines(rows[:SHOWN])
    if len(rows) > SHOWN:
        CONSOLE.result("  and more, which --json has")
    from patchwheel.plan import IDLE

    idle = [line for line in plan.why if line.endswith(IDLE)]
    CONSOLE.lines(f"  {line}" for line in plan.why if line not in idle)
    if idle:
        them = "files: nothing is remade for them" if idle[1:] else "file: nothing is remade for it"
        CONSOLE.result(f"  {len(idle)} changed test, documentation or similar {them}")
    _warnings(f"{plan.fork.name}: {line}" for line in [*plan.warnings, *plan.may_rise()])
    CONSOLE.lines(f"  needs a configured tree: {line}" for line in plan.undecided)
    if plan.candidates:
        CONSOLE.result(f"  may be compiled: {', '.join(first(plan.candidates))}")
    if plan.sandbox:
        CONSOLE.result(f"  sandbox: {plan.sandbox}")
    CONSOLE.lines(f"  pending: {line}" for line in plan.pending)


def _cost(cost: Estimate | None) -> Iterator[str]:
    """Say what a build will take, by what was measured."""
    if cost:
        where = "measured on this machine" if cost.here else "by what it took elsewhere"
        cores = "1 core" if cost.cores == 1 else f"{cost.cores} cores"
        yield f"about {_span(cost.cpu)} of CPU, {_span(cost.wall)} on {cores}, {where}, {cost.date}"
        if cost.replayed is not None:
            yield f"about {_span(cost.replayed)} of CPU if the compile cache has every step"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < MINUTES else f"{seconds / 60:.0f} min"


def preview(merged: Sequence[upstream.MergeResult]) -> None:
    from patchwheel.upstream import describe

    rows = [
        (
            patch.name,
            patch.state,
            "; ".join(f"{c.path}: {c.why}" for c in patch.conflicts),
            ", ".join(f"{old} is now {new}" for old, new in patch.moved),
            *(_reason(patch.verdict) if patch.verdict else ("", "")),
        )
        for patch in merged
    ]
    CONSOLE.table(("patch", "is", "conflicts", "moved", "since", "because"), rows)
    for patch in merged:
        if patch.verdict and patch.verdict.hunks:
            CONSOLE.lines([f"--- {patch.name}", *describe(patch.verdict)])
        for conflict in patch.conflicts:
            CONSOLE.result(f"--- {patch.name}: {conflict.path}: {conflict.why}")
            CONSOLE.lines(_marked(conflict))


def _marked(conflict: upstream.Conflict) -> Iterator[str]:
    """Give the parts of a file between conflict markers, each with its first line's number."""
    lines = conflict.text.split("\n")
    for start, end in conflict.spans:
        yield "\n".join([f"@@ line {start}", *first(lines[start - 1 : end], LONG)])


def export(fork: str, result: ExportResult, *, check: bool) -> None:
    verb = "would be " if check else ""
    CONSOLE.lines(f"{verb}written: {name}" for name in result.written)
    CONSOLE.lines(f"{verb}removed: {name}" for name in result.removed)
    kept = f"{len(result.kept)} of the series' patches keep their bytes"
    if result.kept or not result.changed:
        nothing = "there is no commit to export, and no patch"
        CONSOLE.result(f"{fork}: {kept if result.kept else nothing}")
    if result.range_diff:
        CONSOLE.result(result.range_diff)
    _warnings(result.warnings)


def imported(result: upstream.ImportResult) -> None:
    rows = [(row.name, row.origin, ", ".join(row.did) or "as it was") for row in result.imported]
    CONSOLE.table(("patch", "from", "what was done"), rows)
    CONSOLE.lines(f"fill in Upstream-Status: {row.name}" for row in result.imported if row.pending)
    _warnings(result.warnings)


def alone(tried: Sequence[Alone]) -> None:
    told = [CONSOLE.again(str(row.error)) if row.error else "passes" for row in tried]
    rows = [
        (row.name, ", ".join(row.required), said) for row, said in zip(tried, told, strict=True)
    ]
    CONSOLE.table(("patch", "with", "alone"), rows)


def submission(made: upstream.Submission) -> None:
    CONSOLE.lines(f"commit: {subject}" for subject in made.commits)
    CONSOLE.lines(f"not needed there, upstream has it: {name}" for name in made.landed)
    CONSOLE.result(f"on {made.base}, as {made.ref} in {made.repository}")
    CONSOLE.lines([f"to push it: {made.push}", "", made.text])


def proposal(made: upstream.Proposal | None) -> None:
    if made:
        CONSOLE.lines([made.title, "", made.text.rstrip()])


def pin(report: PinReport) -> None:
    CONSOLE.result(
        f"{report.sdist} and commit {report.commit}: "
        f"{report.equal} files are equal, and every difference is explained"
    )
    CONSOLE.lines(f"  {path}: {why}" for path, why in report.explained.items())


def checked(found: ReleaseCheck) -> None:
    """Show what wheels are made of."""
    for wheel in found.wheels:
        made, base = wheel.record, wheel.record.base
        pin, sdist = made.pin, made.pin.sdist
        rows = [
            ("sha256", wheel.sha256),
            ("upstream", f"{made.fork} {pin.version} ({pin.tag or 'no tag'})"),
            ("source", f"{sdist.filename} {sdist.sha256}" if sdist else f"{pin.git} {pin.commit}"),
            *(("patch", f"{patch.name} {patch.sha256}") for patch in made.patches),
            ("made by", made.route + (f" on {base.filename}" if base else "")),
            *(("runs by itself", name) for name in made.runs),
        ]
        if compiled := made.compiled:
            requirements = [f"{r.name} {r.version}" for r in compiled.build_requirements]
            rows += [
                ("with", ", ".join(requirements)),
                ("tools", "; ".join(tool.version for tool in compiled.toolchain.values())),
                ("sandbox", compiled.sandbox),
            ]
        rows += [("not checked", what) for what in found.unchecked]
        CONSOLE.table(("", ""), rows, title=wheel.path.name)
    for name in found.signed_by:
        CONSOLE.say(f"SHA256SUMS is signed by {name}")


def findings(found: Sequence[Finding]) -> None:
    rows = []
    for f in found:
        state = "ok" if f.ok else "missing" if f.needed else "for a compile"
        rows.append((f.fork or "all", f.what, state, f.detail, f.fix))
    CONSOLE.table(("for", "what", "", "found", "to get it"), rows)


def store(sizes: Mapping[str, Sequence[int]], compiled: Sequence[Shared]) -> None:
    rows = [(kind, len(found), sum(found), "") for kind, found in sizes.items()]
    for shared in compiled:
        index = shared.read()
        steps = f"{index.hits:,} of {index.hits + index.misses:,} steps replayed"
        rows.append((shared.place, *shared.size(), steps))
    shown = [(what, f"{n:,}", f"{size / 1e6:,.1f} MB", steps) for what, n, size, steps in rows]
    CONSOLE.table(("what", "entries", "size", "so far"), shown)
