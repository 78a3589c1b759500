"""lock, doctor, cache and cluster: what builds rest on."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from patchwheel import build, compilecache, kit, locking, report
from patchwheel import plan as planning
from patchwheel.cli import options, tables
from patchwheel.cli.console import CONSOLE
from patchwheel.kit import CheckError, MachineError, PatchwheelError

if TYPE_CHECKING:
    from patchwheel.manifest import Fork
    from patchwheel.project import Project

SAME = "nothing changed"
# What dask serves besides, reaches nobody.
QUIET = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")
to_dask = click.argument("more", nargs=-1, metavar="[-- DASK_OPTIONS]")


@click.command()
@options.forks
@click.option("--force", is_flag=True, help="Configure unchanged pins again too.")
@click.option(
    "--upgrade",
    metavar="[NAME]",
    multiple=True,
    is_flag=False,
    flag_value="",
    help="Take newer versions: of the distribution NAME, or of all.",
)
@click.option("--diff", is_flag=True, help="Lock nothing; say what changed since the last commit.")
@click.option(
    "--costs",
    is_flag=True,
    help="Lock nothing; write what builds took here to forks.costs, for estimates elsewhere.",
)
@options.project
def lock(
    project: Project,
    names: Sequence[str],
    *,
    force: bool,
    upgrade: Sequence[str],
    diff: bool,
    costs: bool,
) -> None:
    """Resolve and pin third-party dependencies, into forks.lock."""
    if (diff or costs) and (names or force or upgrade or (diff and costs)):
        raise click.UsageError("--diff and --costs are of the whole lock, and go with no other")
    if costs:
        forks = [fork.name for fork in project.manifest.select(())]
        CONSOLE.result(report.write_costs(project.store, project.root, forks))
        return
    if diff:
        new = project.lock
        CONSOLE.lines(locking.changes(locking.committed_lock(project), new) or [SAME])
        return
    moving = [name.lower() for name in upgrade if name] if upgrade else None
    old = locking.lock_before(project)
    new = locking.write_lock(project, names, force=force, upgrade=moving)
    CONSOLE.say("\n".join(locking.changes(old, new) or [SAME]))
    CONSOLE.say("next: `patchwheel plan`; `lock --diff` compares with the last commit")
    CONSOLE.result(new.path)


@click.command()
@options.forks
@options.variant
@options.as_json
@options.project
def doctor(project: Project, names: Sequence[str], *, variant: str | None) -> None:
    """Show what builds need that this machine lacks, and how to get it."""
    # Only for a named fork something may be downloaded.
    offline = project.offline or not names
    project = dataclasses.replace(project, variant=variant, offline=offline)
    uses = {}
    for fork in project.manifest.select(names):
        with contextlib.suppress(PatchwheelError):
            uses[fork.name] = _compiled_as(project, fork)
    findings = build.diagnose(project, names, uses)
    rows = [{**dataclasses.asdict(finding), "ok": finding.ok} for finding in findings]
    options.emit(rows, lambda _: tables.findings(findings))
    if any(finding.needed and not finding.ok for finding in findings):
        raise MachineError("required tools are missing", hint="run the commands in the table")


def _compiled_as(project: Project, fork: Fork) -> Fork | None:
    """Return the fork as its next build compiles it; None if that compiles nothing."""
    plan = planning.plan_fork(project, fork)
    if plan.route == "compile":
        return fork if plan.inventory.compiles(fork) else None
    if not (plan.built or plan.undecided or plan.configured):
        return None
    return build.without_missing_tools(fork)


@click.group(invoke_without_command=True)
@click.pass_context
def cache(ctx: click.Context) -> None:
    """Show, check and shrink the store."""
    if ctx.invoked_subcommand is None:
        store = kit.Store(kit.default_root())
        sizes: dict[str, list[int]] = {}
        for entry in store.entries():
            size = sum(info.st_size for _, info in kit.walk(entry.path))
            sizes.setdefault(entry.kind, []).append(size)
        tables.store(sizes, compilecache.all_shared(store))


@cache.command("dir")
def cache_dir() -> None:
    """Print the store's folder."""
    CONSOLE.result(kit.default_root())


@cache.command("verify")
@options.as_json
def cache_verify() -> None:
    """Hash everything in the store; damaged entries are removed, and made again when needed."""
    store = kit.Store(kit.default_root())
    broken = dict(kit.damage(store))
    for shared in compilecache.all_shared(store):
        broken |= {f"{shared.place}/{n}": "damaged; removed" for n in shared.check(hashed=True)}
    options.emit(broken, lambda broken: CONSOLE.lines(f"{e}: {why}" for e, why in broken.items()))
    if not broken:
        CONSOLE.say(f"{store.root}: no entry is damaged")
    else:
        raise CheckError(f"{len(broken)} entries of the store were damaged", where=store.root)


@cache.command("prune")
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Days since the last use.",
)
def cache_prune(older_than: float) -> None:
    """Remove what was not used for a while, except environments that a link points to.

    Of the compile cache it removes what was stored so long ago, used or not.
    """
    # A linked environment may be in use, whatever its age.
    store = kit.Store(kit.default_root())
    pruned = [store.prune(older_than_days=older_than)]
    pruned += [
        shared.prune(older_than_days=older_than) for shared in compilecache.all_shared(store)
    ]
    count, freed = map(sum, zip(*pruned, strict=True))
    CONSOLE.say(f"removed {count} entries, {freed / 1e6:,.0f} MB")


@click.group()
def cluster() -> None:
    """Start a scheduler or a worker for `build --cluster`."""


@cluster.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--host",
    metavar="ADDRESS",
    default="tcp://127.0.0.1",
    show_default=True,
    help="Where to listen; beyond the loopback it is tls://HOST.",
)
@to_dask
def scheduler(file: Path, *, host: str, more: tuple[str, ...]) -> None:
    """Start a scheduler of dask, which writes its address to FILE."""
    from patchwheel.cluster import check_address

    given = ["--host", check_address(host), "--scheduler-file", str(file), *QUIET]
    from distributed.cli import dask_scheduler

    dask_scheduler.main.main([*given, *more])


@cluster.command()
@click.argument("place", metavar="ADDRESS|FILE")
@options.option("-j", "--jobs", type=click.IntRange(1), help="Number of compiler processes.")
@to_dask
def worker(place: str, *, jobs: int | None, more: tuple[str, ...]) -> None:
    """Start a worker of dask: one build at a time, with the toolchain and sandbox that are here."""
    from patchwheel.cluster import advertised, scheduler_address

    given = [scheduler_address(place), "--nthreads", "1", "--memory-limit", "0", *QUIET]
    # One whose scheduler does not come, or back, ends.
    given += ["--death-timeout", "60"]
    found = [
        f"{name}={amount}" for name, amount in advertised(kit.Store(kit.default_root())).items()
    ]
    from distributed.cli import dask_worker

    if jobs:
        os.environ["PATCHWHEEL_JOBS"] = str(jobs)
    dask_worker.main.main([*given, "--resources", " ".join(found), *more])
