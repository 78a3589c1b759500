"""The status of a fork: its pin, each patch on its own, its last wheel and upstream's newest."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Literal

from patchwheel.kit import Context, InputError, PatchError, Store
from patchwheel.manifest import Fork
from patchwheel.patch import DoesNotApplyError, Patch, Simulation, check_patch, warnings
from patchwheel.project import Project
from patchwheel.series.apply import apply_series, start_simulation
from patchwheel.series.files import Series, load_series
from patchwheel.series.light import light_source
from patchwheel.source import Source, asking, latest_version

State = Literal["clean", "offset", "fails", "landed", "malformed"]
FINE = ("clean", "offset")


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchStatus:
    """How a patch applies; one that does not apply is left out for the patches after it."""

    name: str
    state: State
    subject: str = ""
    upstream: str = ""
    # What the trailer Drop-When says: when it may go.
    drop_when: str = ""
    requires: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    # The largest distance, in lines, from where a hunk should be to where it is.
    offset: int = 0
    problem: str | None = None
    where: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkStatus:
    """`tree` is None when a patch fails; `newest` is None where the index cannot be reached."""

    fork: str
    version: str
    tag: str | None
    commit: str | None
    commit_verified: bool
    source_tree: str
    tree: str | None
    patches: tuple[PatchStatus, ...]
    warnings: tuple[str, ...]
    wheel: str | None
    newest: str | None
    outdated: bool
    ok: bool


def status_of_fork(project: Project, fork: Fork) -> ForkStatus:
    """Try every patch of a fork, and ask the index for upstream's newest version unless offline."""
    return fork_status(
        light_source(project, fork),
        load_series(fork.patches),
        store=project.store,
        commit=locked.commit if (locked := project.locked(fork)) else None,
        wheel=next((p.name.split("-")[1] for p in project.wheels_here(fork)), None),
        newest=newest_version(project.context, fork),
    )


def newest_version(context: Context, fork: Fork) -> str | None:
    """Return the newest release of a fork's upstream; None offline, or where nobody answers."""
    # Without a network the rest of the status is still true.
    with contextlib.suppress(InputError), asking(context, fork.name):
        return None if context.offline else latest_version(context.index, fork.name)
    return None


def fork_status(
    source: Source,
    series: Series,
    *,
    store: Store,
    commit: str | None = None,
    wheel: str | None = None,
    newest: str | None = None,
) -> ForkStatus:
    """Try every patch of a series; `commit` is the one that the remote confirmed."""
    from packaging.version import Version

    fork, confirmed = source.fork, source.commit or commit
    patches, odd = _try_patches(source, series)
    fine = all(patch.state in FINE for patch in patches)
    return ForkStatus(
        fork=fork.name,
        version=fork.version,
        tag=fork.tag,
        commit=confirmed or fork.commit,
        commit_verified=confirmed is not None,
        source_tree=source.tree,
        tree=apply_series(source, series, store=store).tree if fine else None,
        patches=patches,
        warnings=odd,
        wheel=wheel,
        newest=newest,
        outdated=newest is not None and Version(newest) > Version(fork.version),
        ok=fine,
    )


def _try_patches(source: Source, series: Series) -> tuple[tuple[PatchStatus, ...], tuple[str, ...]]:
    """Return the status of each patch, and the warnings about those that are not malformed."""
    statuses: dict[str, PatchStatus] = {}
    for patch in series.patches:
        try:
            check_patch(patch)
        except PatchError as err:
            statuses[patch.name] = PatchStatus(
                name=patch.name, state="malformed", problem=err.message, where=str(err.where)
            )
    sound = [patch for patch in series.patches if patch.name not in statuses]
    simulation = start_simulation(source, sound)
    statuses |= {patch.name: try_patch(simulation, patch) for patch in sound}
    odd = tuple(warnings(sound, simulation.files))
    return tuple(statuses[patch.name] for patch in series.patches), odd


def try_patch(simulation: Simulation, patch: Patch) -> PatchStatus:
    """Apply a patch in the simulation, if it applies, and return how it did."""
    status = PatchStatus(
        name=patch.name,
        state="clean",
        subject=patch.mail.subject,
        upstream=patch.trailer("Upstream-Status")[0],
        drop_when="; ".join(patch.trailer("Drop-When")),
        requires=tuple(patch.trailer("Requires")),
        paths=tuple(diff.path for diff in patch.diffs),
    )
    try:
        offset = max(simulation.apply(patch), key=abs, default=0)
    except DoesNotApplyError as err:
        state: State = "landed" if err.landed else "fails"
        return replace(status, state=state, problem=err.message, where=str(err.where))
    return replace(status, state="offset", offset=offset) if offset else status
