"""Wheels for a command: built now, with a report on that, or taken from a folder."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from patchwheel import series, wheel
from patchwheel.kit import PatchwheelError, process

if TYPE_CHECKING:
    from patchwheel.build import OwnWheel
    from patchwheel.manifest import Fork
    from patchwheel.project import Project


def build_reported(
    project: Project, forks: Sequence[Fork], report: Path | None = None, **how: bool
) -> tuple[list[wheel.BuiltWheel], dict[str, PatchwheelError]]:
    """Make wheels, and report on that if anything was made, or a report is asked for."""

    def tell(wheels: Sequence[wheel.BuiltWheel], failures: Mapping[str, PatchwheelError]) -> None:
        # A no-op imports little.
        if report or failures or not all(wheel.cached for wheel in wheels):
            from patchwheel.cli.page import report_build

            report_build(project, wheels, failures, report)

    # Before anything else is started.
    process.delegated_group()
    try:
        found = wheel.build_wheels(project, forks, elsewhere=None, **how)
    except PatchwheelError as err:
        named = (fork.name for fork in forks if err.message.startswith(f"{fork.name}: "))
        tell((), {next(named, "the build"): err})
        raise
    tell(*found)
    say_unexported(project, forks)
    return found


def say_unexported(project: Project, forks: Sequence[Fork]) -> None:
    """Say of each fork how many files were edited in its work tree, which wheels do not have."""
    if not (project.dev or project.without_patches):
        for fork in forks:
            folder = project.work_folder(fork)
            if folder.exists() and (lacks := series.unexported_files(folder)):
                more = "or add `--dev`, which takes work trees as they are"
                project.progress.say(f"{fork.name}: {lacks}; {more}")


def wheels_of_all(project: Project, folder: Path | None) -> Sequence[OwnWheel]:
    """Return a wheel of each fork, from a folder or built now."""
    if folder is None:
        forks = list(project.manifest.forks.values())
        return build_reported(project, forks)[0]
    # Wheels in a folder were made elsewhere; nothing is built beside them.
    if project.from_source or project.dev:
        raise click.UsageError("--wheels cannot be combined with --from-source or --dev")
    return wheel.wheels_in(project, folder)


def build_on(
    place: str,
    project: Project,
    names: Sequence[str],
    variant: str | None,
    report: Path | None,
    **how: bool,
) -> tuple[list[wheel.BuiltWheel], dict[str, PatchwheelError]]:
    """Make wheels on a cluster: of each fork for each Python and variant that are not chosen."""
    if project.release or project.dev or report or project.compile_cache != "write":
        words = "--release, --dev, --report, --untrusted and --no-compile-cache"
        raise click.UsageError(f"{words} are for builds on this machine")
    from patchwheel.cluster import open_cluster

    given, manifest = re.findall("[^ ,]+", project.python_option or ""), project.manifest
    projects = [replace(project, python_option=p) for p in given or manifest.environment.python]
    forks = manifest.select(names, variant)
    if variant is None:
        every = [v for fork in forks for v in (fork.variants or {"": fork}).values()]
        # One that is built for something that nobody named here is for another machine.
        forks = [v for v in every if not v.variant or all(map(os.environ.get, v.required_env))]
        for v in every:
            if v not in forks:
                project.progress.say(f"{v.lock_key} is left out: {v.required_env[0]} is not set")
    say_unexported(project, forks)
    with open_cluster(place, projects[0]) as cluster:
        calls = [
            functools.partial(wheel.build_wheels, p, forks, elsewhere=cluster.build, **how)
            for p in projects
        ]
        done = [wait(None) for wait in [process.started(call) for call in calls]]
    failures: dict[str, PatchwheelError] = {}
    for p, (_, failed) in zip(projects, done, strict=True):
        failures |= {f"{name} for Python {p.python}": err for name, err in failed.items()}
    return [wheel for wheels, _ in done for wheel in wheels], failures
