"""Wheels for a command: built now, with a report on that, or taken from a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from patchwheel.kit import PatchwheelError

if TYPE_CHECKING:
    from patchwheel.build import OwnWheel
    from patchwheel.manifest import Fork
    from patchwheel.project import Project
    from patchwheel.wheel import BuiltWheel


def build_reported(
    project: Project, forks: Sequence[Fork], report: Path | None = None, **how: bool
) -> tuple[list[BuiltWheel], dict[str, PatchwheelError]]:
    """Make wheels, and report on that if anything was made, or a report is asked for."""
    from patchwheel.wheel import build_wheels

    def tell(wheels: Sequence[BuiltWheel], failures: Mapping[str, PatchwheelError]) -> None:
        # A no-op imports little.
        if report or failures or not all(wheel.cached for wheel in wheels):
            from patchwheel.cli.page import report_build

            report_build(project, wheels, failures, report)

    try:
        found = build_wheels(project, forks, **how)
    except PatchwheelError as err:
        named = (fork.name for fork in forks if err.message.startswith(f"{fork.name}: "))
        tell((), {next(named, "the build"): err})
        raise
    tell(*found)
    return found


def wheels_of_all(project: Project, folder: Path | None) -> Sequence[OwnWheel]:
    """Return a wheel of each fork, from a folder or built now."""
    from patchwheel.wheel import wheels_in

    if folder is None:
        forks = list(project.manifest.forks.values())
        return build_reported(project, forks)[0]
    # Wheels in a folder were made elsewhere; nothing is built beside them.
    if project.from_source or project.dev:
        raise click.UsageError("--wheels cannot be combined with --from-source or --dev")
    return wheels_in(project, folder)
