"""Where a fork stands: its pin, its patches one by one, what was made of it and what is newer upstream."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from patchwheel.kit.errors import InputError, PatchError
from patchwheel.patch.lint import warnings
from patchwheel.patch.simulate import MisfitError
from patchwheel.series.apply import apply_series, replay
from patchwheel.series.files import check_patch, load_series
from patchwheel.source.fetch import fetch_source
from patchwheel.source.index import latest_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from patchwheel.kit.store import Store
    from patchwheel.manifest.model import Fork
    from patchwheel.patch.simulate import Replay
    from patchwheel.project import Project
    from patchwheel.series.files import Patch, Series
    from patchwheel.source.fetch import Source

State = Literal["clean", "offset", "fails", "landed", "malformed"]
FINE = ("clean", "offset")


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchStatus:
    """`offset` is the largest distance, in lines, between where a hunk says it is and where it landed.

    What does not apply is left out for the patches after it; `problem` and `where` say why and at which line.
    """

    name: str
    state: State
    subject: str = ""
    upstream: str = ""
    requires: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    offset: int = 0
    problem: str | None = None
    where: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkStatus:
    """`tree` is None when a patch fails; `newest` is None where nobody could be asked.

    `warnings` name what is odd in patches that are not malformed; nothing fails because of them.
    """

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

    @property
    def ok(self) -> bool:
        return self.tree is not None

    def to_json(self) -> dict[str, object]:
        return {**dataclasses.asdict(self), "ok": self.ok}


def status_of_fork(project: Project, fork: Fork) -> ForkStatus:
    """Try every patch of a fork, and ask the index for upstream's newest version unless offline."""

    def newest() -> str | None:
        offline = project.context.offline
        return None if offline else latest_version(project.context.index, fork.name)

    return fork_status(
        fetch_source(project, fork),
        load_series(fork.patches),
        store=project.store,
        commit=project.lock.forks[fork.name].commit,
        wheel=next((p.name.split("-")[1] for p in project.wheels_of(fork)), None),
        newest=newest,
    )


def fork_status(
    source: Source,
    series: Series,
    *,
    store: Store,
    commit: str | None = None,
    wheel: str | None = None,
    newest: Callable[[], str | None] = lambda: None,
) -> ForkStatus:
    """Try every patch of a series, also those after one that fails.

    `commit` is the one that the remote confirmed, `wheel` the last that was made;
    `newest` is asked for upstream's newest version, and may fail or return None.
    """
    patches, odd = _patches(source, series)
    fine = all(patch.state in FINE for patch in patches)
    latest = _ask(newest)
    confirmed = source.commit or commit
    return ForkStatus(
        fork=source.fork.name,
        version=source.fork.version,
        tag=source.fork.tag,
        commit=confirmed or source.fork.commit,
        commit_verified=confirmed is not None,
        source_tree=source.tree,
        tree=apply_series(source, series, store=store).tree if fine else None,
        patches=patches,
        warnings=odd,
        wheel=wheel,
        newest=latest,
        outdated=latest is not None and _newer(latest, source.fork.version),
    )


def _patches(source: Source, series: Series) -> tuple[tuple[PatchStatus, ...], tuple[str, ...]]:
    found: dict[str, PatchStatus] = {}
    sound: list[Patch] = []
    for patch in series.patches:
        try:
            check_patch(patch)
            sound.append(patch)
        except PatchError as err:
            found[patch.name] = PatchStatus(
                name=patch.name,
                state="malformed",
                problem=err.message,
                where=str(err.where),
            )
    follow = replay(source, sound)
    for patch in sound:
        found[patch.name] = try_patch(follow, patch)
    odd = tuple(warnings(sound, follow.files))
    return tuple(found[patch.name] for patch in series.patches), odd


def try_patch(follow: Replay, patch: Patch) -> PatchStatus:
    """Apply a patch to what is followed, if it applies, and tell how it did."""
    state: State = "clean"
    offset, problem, where = 0, None, None
    try:
        landings = follow.apply(patch)
        offset = max((x.offset for x in landings), key=abs, default=0)
        state = "offset" if offset else "clean"
    except MisfitError as err:
        state = "landed" if err.landed else "fails"
        problem, where = err.message, str(err.where)
    return PatchStatus(
        name=patch.name,
        state=state,
        subject=patch.mail.subject,
        upstream=patch.trailer("Upstream-Status")[0],
        requires=tuple(patch.trailer("Requires")),
        paths=tuple(diff.path for diff in patch.diffs),
        offset=offset,
        problem=problem,
        where=where,
    )


def _ask(newest: Callable[[], str | None]) -> str | None:
    try:
        return newest()
    except InputError:
        return None


def _newer(one: str, other: str) -> bool:
    from packaging.version import Version

    return Version(one) > Version(other)
