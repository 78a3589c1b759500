"""Results as tables, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchwheel.console import CONSOLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchwheel.doctor import Finding
    from patchwheel.export import ExportResult
    from patchwheel.plan import Plan
    from patchwheel.status import ForkStatus, PatchStatus
    from patchwheel.verify import PinReport
    from patchwheel.wheel import Wheel

SHOWN = 30


def wheels(made: Sequence[Wheel]) -> None:
    """Show what was remade, what was taken, from where, and how long it took."""
    rows = []
    for wheel in made:
        plan = wheel.plan
        graft = plan.base is not None
        rows.append(
            (
                wheel.fork,
                wheel.version,
                "reused" if wheel.cached else plan.route,
                _remade(plan) if graft else "all",
                str(plan.taken) if graft else "0",
                _origin(plan),
                f"{wheel.seconds:.1f}",
            )
        )
    CONSOLE.table(("fork", "wheel", "made by", "remade", "taken", "from", "s"), rows)


def _remade(plan: Plan) -> str:
    compiled = f" ({len(plan.built)} built)" if plan.built else ""
    return f"{len(plan.outputs)}{compiled}"


def status(found: Sequence[ForkStatus]) -> None:
    rows = []
    for fork in found:
        pin = f"{fork.version} ({fork.tag or 'no tag'})"
        commit = (fork.commit or "unknown")[:12]
        verified = "" if fork.commit_verified else ", unverified"
        newest = (
            f"{fork.newest}, newer" if fork.outdated else fork.newest or "not asked"
        )
        rows.append(
            (
                *(fork.fork, pin, commit + verified, str(len(fork.patches))),
                *((fork.tree or "-")[:12], fork.wheel or "none yet", newest),
            )
        )
    headings = ("fork", "pin", "commit", "patches", "tree", "last wheel", "upstream")
    CONSOLE.table(headings, rows)
    CONSOLE.table(
        ("patch", "applies", "upstream-status", "subject"),
        [
            (
                f"{fork.fork}/{patch.name}",
                _applies(patch),
                patch.upstream,
                patch.subject,
            )
            for fork in found
            for patch in fork.patches
        ],
    )


def _applies(patch: PatchStatus) -> str:
    if patch.state == "offset":
        return f"{patch.offset:+} lines"
    if patch.problem:
        return f"{patch.state}: {patch.problem} ({patch.where})"
    return patch.state


def _origin(plan: Plan) -> str:
    if plan.base is None:
        return "source"
    made = {"upstream": "upstream's wheel", "built": "a wheel built here"}
    return f"{made[plan.base.kind]} ({plan.base.sha256[:12]})"


def plans(found: Sequence[Plan]) -> None:
    for plan in found:
        CONSOLE.say(
            f"{plan.fork.name} {plan.version}: {plan.cost}, from {_origin(plan)}"
        )
        rows = [
            (o.action, o.path, o.source.removeprefix("//"), o.why) for o in plan.outputs
        ]
        if rows:
            CONSOLE.table(("", "output", "made from", "because of"), rows[:SHOWN])
        if len(rows) > SHOWN:
            CONSOLE.say(f"  and {len(rows) - SHOWN} more; --json has them all")
        for why in plan.why:
            CONSOLE.say(f"  {why}")


def export(fork: str, result: ExportResult, *, check: bool) -> None:
    verb = "would be " if check else ""
    for what, names in (("written", result.written), ("removed", result.removed)):
        for name in names:
            CONSOLE.say(f"{verb}{what}: {name}")
    CONSOLE.say(f"{fork}: {len(result.kept)} of the series' patches keep their bytes")
    if result.range_diff:
        CONSOLE.say(result.range_diff)


def pin(report: PinReport) -> None:
    CONSOLE.say(
        f"{report.sdist} and commit {report.commit}: {report.equal} files are equal, none differs unexplained"
    )
    for path, why in report.explained.items():
        CONSOLE.say(f"  {path}: {why}")
    CONSOLE.table(
        ("only in the repository", "files", "because"),
        [(row.folder, str(row.count), row.why) for row in report.left_out],
    )


def findings(found: Sequence[Finding]) -> None:
    def state(finding: Finding) -> str:
        if finding.ok:
            return "ok"
        return "missing" if finding.needed else "for a compile"

    rows = [(f.fork or "all", f.what, state(f), f.detail, f.fix) for f in found]
    CONSOLE.table(("for", "what", "", "found", "to get it"), rows)
