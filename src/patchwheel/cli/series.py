"""status, dev, export and rebase: the work on a patch series."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from patchwheel import patch as patches
from patchwheel import series, upstream
from patchwheel.cli import options, tables
from patchwheel.cli.console import CONSOLE
from patchwheel.kit import CheckError, PatchError, PatchwheelError, process

if TYPE_CHECKING:
    from patchwheel.manifest import Fork
    from patchwheel.project import Project

T = TypeVar("T")
# What --fail-on may name, and the states that it stands for.
FAIL_ON = {
    "conflict": {"conflict"},
    "landed": {"landed", "reworked", "moot"},
    "reverted": {"reverted"},
    "unknown": {"unknown"},
}


def _states(_ctx: click.Context, _option: click.Parameter, value: str | None) -> list[str]:
    states = value.split(",") if value else []
    if wrong := [state for state in states if state not in FAIL_ON]:
        raise click.BadParameter(f"{wrong[0]!r} is not one of {', '.join(FAIL_ON)}")
    return states


@click.command()
@options.forks
@click.option(
    "--against",
    metavar="REF",
    multiple=True,
    help="Follow the series to a tag, branch, commit or release; may be repeated.",
)
@click.option("--changes", is_flag=True, help="With --against: only changes since the last run.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --against: also write the table to this file.",
)
@click.option(
    "--fail-on",
    metavar="STATES",
    callback=_states,
    help="With --against: fail if a patch is one of these: conflict, landed, reverted, unknown.",
)
@options.as_json
@options.project
def status(
    project: Project,
    names: Sequence[str],
    *,
    against: Sequence[str],
    changes: bool,
    html: Path | None,
    fail_on: Sequence[str],
) -> None:
    """Show pins, patches and newer releases.

    Exits with 3 when a patch does not apply, and with --fail-on conflict when one conflicts with
    a REF; with 6 for another state of --fail-on.
    """
    forks = project.manifest.select(names)
    if html and not html.absolute().parent.is_dir():
        raise click.UsageError(f"--html: there is no folder {html.parent}")
    if against:
        shown = _show_forecasts(project, forks, against, changes=changes, html=html)
        _fail_on(shown, fail_on)
        return
    if changes or html or fail_on:
        raise click.UsageError("--changes, --html and --fail-on need --against")
    results, failed = _each(forks, lambda fork: series.status_of_fork(project, fork))
    found = [*results.values()]
    options.emit(found, tables.status)
    options.raise_failed(failed, "no status")
    # After the table, so that it is seen even if this raises.
    patches.check_requires(series.load_all_series(project))
    if broken := [fork.fork for fork in found if not fork.ok]:
        raise PatchError(
            f"the series does not apply: {', '.join(broken)}",
            hint="the table says where; correct the patch, then `patchwheel dev FORK`",
        )


@click.command()
@options.fork
@click.option("--detach", is_flag=True, help="Only write the patched sources, without git.")
@options.project
def dev(project: Project, fork: Fork, *, detach: bool) -> None:
    """Open a work tree of FORK in work/FORK, one commit per patch."""
    folder = project.work_folder(fork)
    series.check_no_rebase(folder)
    tree = series.light_tree(project, fork)
    resumed = series.open_work(tree, folder, store=project.store, detach=detach)
    if not detach:
        count = len(tree.series.patches)
        each = f"{count} patch{'es' * (count != 1)}, one commit each" if count else "no patches yet"
        CONSOLE.say(
            f"{each}{' (as it was left)' if resumed else ''}; edit and commit, "
            f"then `patchwheel test {fork.name} --dev` and `patchwheel export {fork.name}`"
        )
    CONSOLE.result(folder)


@click.command()
@options.fork
@click.option(
    "--check", is_flag=True, help="Write nothing; fail if an export would change something."
)
@click.option("--exact", is_flag=True, help="Write and renumber unchanged patches too.")
@options.as_json
@options.project
def export(project: Project, fork: Fork, *, check: bool, exact: bool) -> None:
    """Write the commits of work/FORK to patches/FORK. Unchanged patches keep their bytes."""
    result = series.export_series(project, fork, check=check, exact=exact)
    options.emit(result, lambda result: tables.export(fork.name, result, check=check))
    if result.changed and not check:
        _offer_commit(project, fork, fork.patches)
    # For CI: the series must be what the work tree exports.
    if check and result.changed:
        raise CheckError(
            f"{fork.name}: an export would change the series",
            where=fork.patches,
            hint=f"patchwheel dev {fork.name} && patchwheel export {fork.name}",
        )


@click.command("import")
@options.fork
@click.argument("places", nargs=-1, required=True, metavar="PATH|URL|URL@BRANCH|COMMIT...")
@click.option("-p", "strip", type=click.IntRange(0, 9), help="Folders to strip off the paths.")
@options.as_json
@options.project
def import_(project: Project, fork: Fork, *, places: Sequence[str], strip: int | None) -> None:
    """Add foreign patches to FORK's series, all or none of them."""
    result = upstream.import_patches(project, fork, places, strip=strip)
    options.emit(result, tables.imported)
    _offer_commit(project, fork, fork.patches, exported=False)


@click.command()
@options.fork
@click.option("--onto", metavar="REF", help="A release, tag, branch or commit.")
@click.option("--dry-run", is_flag=True, help="Only show what would conflict.")
@click.option("--continue", "how", flag_value="continue", help="Continue after resolving.")
@click.option("--skip", "how", flag_value="skip", help="Drop the patch that conflicts.")
@click.option("--abort", "how", flag_value="abort", help="Undo the rebase.")
@options.as_json
@options.project
def rebase(
    project: Project, fork: Fork, *, onto: str | None, dry_run: bool, how: str | None
) -> None:
    """Move FORK's series to another pin. Pin, lock and series change together at the end."""
    if (onto is None) == (how is None) or (dry_run and how):
        raise click.UsageError("give --onto REF, or one of --continue, --skip and --abort")
    if onto and dry_run:
        _show_merge(project, fork, onto)
        return
    manifest = project.manifest
    changed = (manifest.path, manifest.lock_path, manifest.inventory_path, fork.patches)
    # What HEAD does not have as it is now, it cannot give back.
    words = ("status", "--porcelain", "-uall", "--ignored", "--", *_relative(project, changed))
    committed = _asked(project, *words) == ""
    move = upstream.start_rebase if onto else upstream.proceed_rebase
    result = move(project, fork, onto or str(how))
    if result is None:
        CONSOLE.say(f"{fork.name}: the rebase is undone; pin and series never changed")
        return
    options.emit(result, lambda result: tables.export(fork.name, result, check=False))
    CONSOLE.say(f"pin, lock and series of {fork.name} are changed")
    lost = "git cannot undo it: pin, lock and series were not committed as they were"
    undo = f"undo: `{_undo(project, changed)} && patchwheel dev {fork.name}`"
    CONSOLE.say(undo if committed else lost)
    _offer_commit(project, fork, *changed)


@click.command()
@options.fork
@click.option("--onto", metavar="REF", help="Another state than upstream's newest release.")
@options.as_json
@options.project
def propose(project: Project, fork: Fork, *, onto: str | None) -> None:
    """Put the rebased series on a branch of the project. Pushes nothing."""
    made = upstream.propose_upgrade(project, fork, onto)
    options.emit(made, tables.proposal)
    if made is None:
        CONSOLE.say(f"{fork.name}: no newer release than {fork.version}")
        return
    remote = min((_asked(project, "remote") or "URL").split(), key=lambda name: name != "origin")
    CONSOLE.say(
        f"next: `{_git(project)} push --force {remote} {made.branch}`, then `gh pr create --fill "
        f"--head {made.branch}`, or what your forge has: the commit's message is the description"
    )


@click.command()
@options.fork
@click.argument("patch")
@click.option("--base", metavar="REF", help="Another state of upstream than its main branch.")
@click.option("--test", is_flag=True, help="Build it there, and run upstream's tests.")
@options.as_json
@options.project
def submit(project: Project, fork: Fork, patch: str, *, base: str | None, test: bool) -> None:
    """Prepare a branch of upstream with PATCH and what it requires. Pushes nothing."""
    made = upstream.submit_patch(project, fork, patch, base=base, test=test)
    options.emit(made, tables.submission)
    CONSOLE.say(
        f"when it is there, let {patch} say `Upstream-Status: Submitted [URL]`: "
        f"`patchwheel dev {fork.name}`, git commit --amend, `patchwheel export {fork.name}`"
    )


def _show_merge(project: Project, fork: Fork, onto: str) -> None:
    merged = upstream.preview_rebase(project, fork, onto)
    options.emit(merged, tables.preview)
    if stuck := [patch.name for patch in merged if patch.state == "conflict"]:
        raise PatchError(
            f"{len(stuck)} of {len(merged)} patches of {fork.name} conflict: {', '.join(stuck)}",
            hint=f"`patchwheel rebase {fork.name} --onto {onto}` stops at each, to resolve it",
        )


def _show_forecasts(
    project: Project,
    forks: Sequence[Fork],
    refs: Sequence[str],
    *,
    changes: bool,
    html: Path | None,
) -> Mapping[str, Sequence[upstream.Forecast]]:
    """Show what each series meets at each ref."""
    found, failed = _each(forks, lambda fork: upstream.forecasts(project, fork, refs))
    forks = [fork for fork in forks if fork.name in found]
    # What was found is remembered for the --changes of a later run.
    known = {f.name: upstream.remember_forecasts(project, f, found[f.name]) for f in forks}
    if html:
        from patchwheel.cli.page import forecast_page

        html.write_text(forecast_page(forks, found), encoding="utf-8")
    # In the order of the series: what is dropped first leaves the depth of those after it.
    advice = {
        (fork.name, verdict.name): _how_to_drop(project, fork, verdict.name, len(each) - number)
        for fork in forks
        for each in [[*zip(*(at.patches for at in found[fork.name]), strict=True)]]
        for number, verdicts in enumerate(each)
        for verdict in verdicts
        if verdict.state in FAIL_ON["landed"]
    }
    if changes:
        found = {n: [r.without(known[n].get(r.ref, ())) for r in rows] for n, rows in found.items()}
    options.emit(found, lambda found: tables.forecasts(found, only_changes=changes))
    shown = {(name, p.name) for name, each in found.items() for at in each for p in at.patches}
    for key in [key for key in advice if key in shown]:
        CONSOLE.say(advice[key])
    options.raise_failed(failed, "not followed")
    return found


def _how_to_drop(project: Project, fork: Fork, name: str, depth: int) -> str:
    """Return the command that takes a patch out of a series; `depth` counts from its end."""
    folder = shlex.quote(os.path.relpath(project.work_folder(fork)))
    git = f"git -C {folder} rebase --onto HEAD~{depth} HEAD~{depth - 1}"
    steps = f"patchwheel dev {fork.name} && {git} && patchwheel export {fork.name}"
    return f"if upstream has all that {name} is for, drop it: `{steps}`"


def _each(
    forks: Sequence[Fork], job: Callable[[Fork], T]
) -> tuple[dict[str, T], dict[str, PatchwheelError]]:
    """Return the result for each fork, and the failures; each of several is told at once."""
    found, failed = {}, {}
    for fork in forks:
        try:
            found[fork.name] = job(fork)
        except PatchwheelError as err:
            # Of several, one that fails does not hide the others.
            if len(forks) == 1:
                raise
            CONSOLE.say(f"error: {fork.name}: {err}")
            failed[fork.name] = err
    return found, failed


def _fail_on(shown: Mapping[str, Sequence[upstream.Forecast]], names: Sequence[str]) -> None:
    """Raise an error for the patches in one of the states that the names stand for."""
    wanted = set().union(*(FAIL_ON[name] for name in names))
    rows = [
        (verdict.state, f"{fork}/{verdict.name} is {verdict.state} at {at.ref}")
        for fork, found in shown.items()
        for at in found
        for verdict in at.patches
        if verdict.state in wanted
    ]
    if rows:
        kind = PatchError if any(state == "conflict" for state, _ in rows) else CheckError
        raise kind("; ".join(text for _, text in rows), hint="the table says why")


def _offer_commit(project: Project, fork: Fork, *changed: Path, exported: bool = True) -> None:
    """Say which command comes next."""
    # An export leaves the range-diff as a commit message.
    message = series.message_of(project.work_folder(fork)).relative_to(project.root)
    edited = f"-e -F {message}" if exported else ""
    git, paths = _git(project), shlex.join(_relative(project, changed))
    commit = f"{git} add {paths} && {git} commit {edited}".rstrip()
    known = _asked(project, "status", "--porcelain", "--ignored", "--", project.manifest.path.name)
    # No repository has the project, or one that ignores it.
    if known is None or known.startswith("!!"):
        commit = f"{git} init && {commit}"
    CONSOLE.say(f"next: `patchwheel test {fork.name}`, then `{commit}`")


def _undo(project: Project, changed: Sequence[Path]) -> str:
    """Return the command that puts back what HEAD has of paths that had nothing else."""
    git, paths = _git(project), _relative(project, changed)
    # A patch that the series of HEAD does not list would be an error.
    new = (_asked(project, "ls-files", "-o", "--", f"{paths[-1]}/*.patch") or "").splitlines()
    more = f" && {git} clean -fxq -- {shlex.join(new)}" if new else ""
    return f"{git} checkout HEAD -- {shlex.join(paths)}{more}"


def _asked(project: Project, *words: str) -> str | None:
    """Return what the user's git says of the project; None where it has no repository."""
    with contextlib.suppress(process.CommandError):
        return os.fsdecode(process.capture(("git", *words), cwd=project.root, env=os.environ))
    return None


def _git(project: Project) -> str:
    """Return how git is called for the project: from a work tree, it would act there."""
    return "git" if project.root == Path.cwd() else f"git -C {shlex.quote(str(project.root))}"


def _relative(project: Project, changed: Sequence[Path]) -> list[str]:
    return [str(path.relative_to(project.root)) for path in changed if path.exists()]
