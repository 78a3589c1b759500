"""Options and arguments that several commands share, and how a result is printed."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from patchwheel.cli.console import CONSOLE

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def option(*names: str, **settings: Any) -> Callable[[F], F]:  # noqa: ANN401
    """Make an option that can also be given as the environment variable PATCHWHEEL_NAME."""
    name = max(names, key=len).lstrip("-").replace("-", "_").upper()
    return click.option(*names, envvar=f"PATCHWHEEL_{name}", **settings)


PROJECT_OPTIONS = (
    option(
        "--manifest",
        type=click.Path(path_type=Path),
        default=Path("forks.toml"),
        show_default=True,
        help="The manifest.",
    ),
    option("--python", help="Python version of the wheels, or an interpreter."),
    option("--offline", is_flag=True, help="Download nothing."),
    option("-j", "--jobs", type=click.IntRange(1), help="Number of compiler processes."),
    option(
        "--sandbox",
        type=click.Choice(["auto", "required", "none"]),
        default="auto",
        show_default=True,
        help="Isolation of builds.",
    ),
    option("-v", "--verbose", is_flag=True, help="Show the path of each log."),
)


def project_options(function: F) -> F:
    """Add the options that every stage understands; the command gets a Project first."""

    @functools.wraps(function)
    def command(*, manifest: Path, verbose: bool, **rest: Any) -> Any:  # noqa: ANN401
        from patchwheel.kit import Store, default_root, scrub_environment
        from patchwheel.project import Project

        scrub_environment()
        given = {name: rest.pop(name) for name in ("python", "offline", "jobs", "sandbox")}
        store = Store(default_root(), say=CONSOLE.say)
        store.show_logs = verbose
        return function(Project(manifest, store, CONSOLE, **given), **rest)

    for add in reversed(PROJECT_OPTIONS):
        command = add(command)
    return command  # type: ignore[return-value]


forks_argument = click.argument("names", nargs=-1, metavar="[FORK]...")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
from_source_option = option(
    "--from-source", is_flag=True, help="Compile everything, without a base wheel."
)
dev_option = click.option(
    "--dev", is_flag=True, help="Use the open work trees, uncommitted edits included."
)
variant_option = option("--variant", help="Use this variant of the forks that have it.")
wheels_option = click.option(
    "--wheels",
    metavar="FOLDER",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Use the wheels in FOLDER instead of building.",
)


def emit(value: object, show: Callable[[], object], *, as_json: bool) -> None:
    """Print a command's result: `value` as JSON, or what `show` prints."""
    CONSOLE.close()
    if as_json:
        click.echo(json.dumps(value, indent=1))
    else:
        show()
