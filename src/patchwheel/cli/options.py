"""Options and arguments that several commands share, and how a result is printed."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from patchwheel.cli.console import CONSOLE
from patchwheel.kit import PatchwheelError

if TYPE_CHECKING:
    from patchwheel.kit import CacheUse

F = TypeVar("F", bound="Callable[..., Any]")
T = TypeVar("T")


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """Make an option that can also be given as the environment variable PATCHWHEEL_NAME."""
    [name] = [name for name in names if name.startswith("--")]
    variable = name.partition("/")[0].removeprefix("--").replace("-", "_").upper()
    return click.option(*names, envvar=f"PATCHWHEEL_{variable}", **settings)


def folder(*, exists: bool = True) -> click.Path:
    return click.Path(path_type=Path, exists=exists, file_okay=False)


PROJECT_NAMES = ("manifest_path", "python_option", "offline", "jobs", "sandbox")
# Options of some commands that are fields of the project too.
RUN_NAMES = ("from_source", "dev", "keep_failed", "without_patches", "release")
PROJECT_OPTIONS = (
    option(
        "--manifest",
        "manifest_path",
        type=click.Path(path_type=Path),
        default=Path("forks.toml"),
        show_default=True,
        help="The manifest; by default also one above this folder.",
    ),
    option("--python", "python_option", help="Python version of the wheels, or an interpreter."),
    option("--offline", is_flag=True, help="Download nothing."),
    option("-j", "--jobs", type=click.IntRange(1), help="Most build steps at once, of all forks."),
    option(
        "--sandbox",
        type=click.Choice(["auto", "required", "none"]),
        default="auto",
        show_default=True,
        help="Isolation of builds.",
    ),
    option(
        "--compile-cache/--no-compile-cache",
        default=True,
        help="Replay steps of earlier compiles; not for a release, unless asked for.",
    ),
    option("--untrusted", is_flag=True, help="Let builds add nothing to the compile cache."),
)


def project(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every stage understands; the command gets a Project first.

    The argument `fork` is then the fork of that name.
    """

    @option("-v", "--verbose", is_flag=True, help="Show the path of each log.")
    @functools.wraps(function)
    def command(*, verbose: bool, **rest: Any) -> Any:
        from patchwheel.kit import Recording, Store, default_root, scrub_environment
        from patchwheel.project import Project

        # Git hooks and CI set variables that may name another repository.
        scrub_environment()
        store = Store(default_root(), say=CONSOLE.say)
        store.show_logs = verbose
        given = {n: rest.pop(n) for n in (*PROJECT_NAMES, *RUN_NAMES) if n in rest}
        use: CacheUse = "read" if rest.pop("untrusted") else "write"
        given["compile_cache"] = use if rest.pop("compile_cache") else "off"
        source = click.get_current_context().get_parameter_source
        for name, flag in (("manifest_path", "--manifest"), ("python_option", "--python")):
            if source(name) is ParameterSource.COMMANDLINE:
                CONSOLE.given += f" {flag} {shlex.quote(str(given[name]))}"
        if source("manifest_path") is ParameterSource.DEFAULT:
            given["manifest_path"] = _nearest(given["manifest_path"])
        made = Project(store=store, progress=Recording(CONSOLE), **given)
        if "fork" in rest:
            [rest["fork"]] = made.manifest.select([rest["fork"]])
        return function(made, **rest)

    # In reverse, as decorators apply: --help then lists them in their order.
    for add in reversed(PROJECT_OPTIONS):
        command = add(command)
    return command


def _fork_names(ctx: click.Context, _option: click.Parameter, incomplete: str) -> list[str]:
    """Return the forks that an argument may name, for the completion of a shell."""
    import tomllib

    path = _nearest(ctx.params.get("manifest_path") or Path("forks.toml"))
    # While a word is completed, a manifest that cannot be read offers nothing.
    try:
        forks = tomllib.loads(path.read_text(encoding="utf-8")).get("forks")
    except (OSError, ValueError):
        return []
    names = forks if isinstance(forks, dict) else ()
    return [name for name in names if name.startswith(incomplete)]


def _nearest(name: Path) -> Path:
    """Return the manifest here, or else that of the nearest folder above that has one."""
    places = (folder / name for folder in Path.cwd().parents if not name.exists())
    found = (path for path in places if path.is_file())
    # In a folder that others write to, such as /tmp, it might be anybody's.
    return next((path for path in found if path.stat().st_uid == os.getuid()), name)


def _remember(ctx: click.Context, _: click.Parameter, as_json: bool) -> None:  # noqa: FBT001
    # In the context rather than in every command's signature.
    ctx.meta["json"] = as_json


fork = click.argument("fork", shell_complete=_fork_names)
forks = click.argument("names", nargs=-1, metavar="[FORK]...", shell_complete=_fork_names)
as_json = click.option(
    "--json", is_flag=True, expose_value=False, callback=_remember, help="Print JSON."
)
from_source = option(
    "--from-source", is_flag=True, help="Compile everything, without a base wheel."
)
dev = click.option(
    "--dev", is_flag=True, help="Use the open work trees, uncommitted edits included."
)
variant = option("--variant", help="Use this variant of the forks that have it.")
wheels = click.option(
    "--wheels", metavar="FOLDER", type=folder(), help="Use the wheels in FOLDER, do not build."
)
report = option(
    "--report",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page about the build, and its figures as JSON, to FILE instead of the store.",
)


def emit(value: T, show: Callable[[T], object]) -> None:
    """Print a command's result: as JSON with --json, otherwise by `show`."""
    if click.get_current_context().meta["json"]:
        CONSOLE.result(json.dumps(value, indent=1, default=_plain))
    else:
        show(value)


def raise_failed(failed: Mapping[str, PatchwheelError], what: str) -> None:
    """End with the exit status of the first failure."""
    if failed:
        code = next(iter(failed.values())).exit_code
        kinds = (k for k in PatchwheelError.__subclasses__() if k.exit_code == code)
        raise next(kinds, PatchwheelError)(
            f"{what}: {', '.join(failed)}", hint="the reasons are above"
        )


def _plain(record: Any) -> object:
    return record.to_json() if hasattr(record, "to_json") else dataclasses.asdict(record)
