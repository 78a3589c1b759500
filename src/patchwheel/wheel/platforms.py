"""Makes grafts on every wheel that upstream published of a pin, for a team's other machines."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchwheel.kit import GraftNotPossible
from patchwheel.manifest import Fork
from patchwheel.plan import PlatformPlanner, machine, platform_bases, published_base
from patchwheel.project import Project
from patchwheel.series import patched_tree
from patchwheel.wheel.build import published, putting
from patchwheel.wheel.make import BuiltWheel, make_wheel


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformWheel:
    """A wheel of upstream's and its graft; without one, `skipped` says why."""

    base: str
    wheel: BuiltWheel | None
    seconds: float
    skipped: str

    @property
    def needs(self) -> str:
        """What a compile takes in the place of a graft that was skipped."""
        return machine(self.base) if self.skipped else ""

    def to_json(self) -> dict[str, object]:
        names = ("base", "seconds", "skipped", "needs")
        made = self.wheel and self.wheel.to_json()
        return {**{name: getattr(self, name) for name in names}, "wheel": made}


def build_platforms(
    project: Project, forks: Sequence[Fork], platforms: Sequence[str], pythons: Sequence[str]
) -> list[PlatformWheel]:
    """Graft the series on upstream's wheels that fit, all for none, into dist/platforms.

    Wheels that a series reaches deeper than copies go are skipped.
    """
    chosen = platform_bases(project, forks, platforms, pythons)
    found: list[PlatformWheel] = []
    for fork, bases in chosen:
        rows = [*_regraft(project, fork, bases)]
        _publish(project, fork, [row.wheel for row in rows if row.wheel])
        found += rows
    return found


def _regraft(project: Project, fork: Fork, bases: dict[str, str]) -> Iterator[PlatformWheel]:
    tree = patched_tree(project, fork)
    # Of these no wheel need be downloaded.
    hopeless = PlatformPlanner(project, tree).hopeless
    for number, (filename, sha256) in enumerate(bases.items(), 1):
        start, wheel, skipped = time.monotonic(), None, "; ".join(hopeless)
        project.progress.progress(f"{fork.name}: {filename}", number, len(bases))
        try:
            if not hopeless:
                base = published_base(project, fork, filename, sha256, kind="platform")
                plan = PlatformPlanner(project, tree, base=base).graft(base)
                wheel = make_wheel(plan, project.store)
                for line in plan.warnings:
                    project.context.note(f"warning: {fork.name}: {line}")
        except GraftNotPossible as err:
            skipped = err.message
        took = round(time.monotonic() - start, 2)
        yield PlatformWheel(base=filename, wheel=wheel, seconds=took, skipped=skipped)


def _publish(project: Project, fork: Fork, wheels: Sequence[BuiltWheel]) -> None:
    """Copy wheels into dist/platforms, and remove those of another version that were put there."""
    folder = platforms_folder(project)
    versions = {wheel.version for wheel in wheels}
    with putting(project, folder, wheels):
        for old in project.wheels_of(fork, folder):
            if old.name.split("-")[1] not in versions and published(project.store, old):
                old.unlink()


def platforms_folder(project: Project) -> Path:
    """Return where these grafts go: `build` and `env` look for none of them in dist/ itself."""
    return project.root / "dist" / "platforms"
