"""Each patch of a series built and tested with what it requires, and without the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchwheel.environment.upstream_tests import find_tests, run_tests
from patchwheel.kit import PatchwheelError
from patchwheel.series import load_series, patch_alone, project_with
from patchwheel.wheel import build_wheels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from patchwheel.manifest import Fork
    from patchwheel.project import Project


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """What became of a patch that was tested without the others; `required` came with it."""

    name: str
    required: tuple[str, ...]
    error: PatchwheelError | None


def try_patches_alone(project: Project, fork: Fork, arguments: Sequence[str]) -> Iterator[Alone]:
    """Build and test each patch of a fork with what it requires."""
    for patch in load_series(fork.patches).patches:
        required: tuple[str, ...] = ()
        error: PatchwheelError | None = None
        with project.store.scratch() as folder:
            try:
                needed = patch_alone(project, fork, patch.name).series.patches
                required = tuple(p.name for p in needed if p != patch)
                copy = project_with(project, fork, needed, folder)
                forks = copy.manifest.forks
                tree, files = find_tests(copy, forks[fork.name])
                wheels, _ = build_wheels(copy, list(forks.values()))
                run_tests(copy, tree, files, wheels, arguments)
            # It does not keep the others from being tested.
            except PatchwheelError as err:
                error = err
        yield Alone(name=patch.name, required=required, error=error)
