"""init, add and remove: a project and its forks."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from patchwheel import upstream
from patchwheel.cli import options
from patchwheel.cli.console import CONSOLE
from patchwheel.kit import MachineError, find_interpreter

if TYPE_CHECKING:
    from patchwheel.manifest import Fork
    from patchwheel.project import Project


@click.command()
@click.option("--label", default="patched", show_default=True, help="Marks the versions of wheels.")
@options.option(
    "--python",
    metavar="VERSION",
    default=".".join(map(str, sys.version_info[:2])),
    show_default=True,
    help="Python version of the wheels.",
)
def init(*, label: str, python: str) -> None:
    """Start a project here: manifest, patches/, noxfile.py."""
    from patchwheel.manifest import Label, PythonTag, new_project

    for name, value, kind in (("--label", label, Label), ("--python", python, PythonTag)):
        _, rule = get_args(kind)
        if not rule.allows(value):
            raise click.BadParameter(f"{value!r}: expected {rule.expected}", param_hint=name)
    CONSOLE.lines(new_project(Path("forks.toml"), label=label, python=python))
    try:
        find_interpreter(python, progress=CONSOLE, install=False)
    except MachineError as err:
        get = f"`uv python install {python}`, or name another in forks.toml"
        CONSOLE.say(f"warning: {err.message}, and `patchwheel add` needs it: {get}")
    CONSOLE.say("next: `patchwheel add NAME` pins a project of the index, and locks it")


@click.command()
@click.argument("what", metavar="NAME[==VERSION]|URL@REF")
@options.project
def add(project: Project, what: str) -> None:
    """Add a fork: find its pin, write it to the manifest, and lock it."""
    fork = upstream.add_fork(project, what)
    CONSOLE.result(fork.name)
    name, work = fork.name, os.path.relpath(project.work_folder(fork))
    CONSOLE.say(
        f"{name} {fork.version} is in {project.manifest_path}; next: `patchwheel dev {name}`, "
        f"edit and commit in {work}, `patchwheel export {name}`, then `patchwheel env`"
    )


@click.command()
@options.fork
@click.option("--force", is_flag=True, help="Also when it has patches.")
@options.project
def remove(project: Project, fork: Fork, *, force: bool) -> None:
    """Remove FORK from manifest and lock, with its series."""
    upstream.remove_fork(project, fork, force=force)
    CONSOLE.say(f"{fork.name} is removed; its wheels in dist/ and its work tree stay")
