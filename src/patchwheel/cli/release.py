"""verify, index, release and ci: checking and publishing wheels."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from patchwheel import release as releases
from patchwheel import source as sources
from patchwheel.cli import options, tables
from patchwheel.cli.console import CONSOLE
from patchwheel.kit import CheckError

if TYPE_CHECKING:
    from patchwheel.project import Project


@click.command()
@click.argument("what", metavar="PATH|FORK")
@click.option(
    "--pin",
    is_flag=True,
    help="Compare the pinned commit with the sdist, else with upstream's wheel.",
)
@click.option(
    "--from-source",
    "compiled",
    is_flag=True,
    help="Compare the graft with a compile of the same tree; takes as long as one or two compiles.",
)
@click.option(
    "--rebuild",
    is_flag=True,
    help="Compile again under varied conditions, and compare with the release wheel.",
)
@click.option(
    "--trust",
    metavar="NAME:KEY",
    multiple=True,
    help="SHA256SUMS must be signed by this Ed25519 key, 64 hex digits, or another trusted one.",
)
@options.variant
@click.option("--dev", is_flag=True, help="With --from-source: use the open work tree.")
@options.as_json
@options.project
def verify(
    project: Project,
    what: str,
    *,
    pin: bool,
    compiled: bool,
    rebuild: bool,
    trust: tuple[str, ...],
    variant: str | None,
) -> None:
    """Check a wheel or a folder of wheels offline. With an option, check the inputs of a fork."""
    # Each is a long check with a result of its own.
    if pin + compiled + rebuild > 1:
        raise click.UsageError("give one of --pin, --from-source and --rebuild")
    if not (pin or compiled or rebuild):
        _refuse("variant", "dev", *options.PROJECT_NAMES, why="wheels are checked as they are")
        _verify_path(Path(what), _keys(trust))
        return
    # What follows asks about the inputs of a fork, and not about a file. It believes no cache.
    project = replace(project, compile_cache="off")
    _refuse("trust", why="only SHA256SUMS beside wheels is signed")
    if not compiled:
        _refuse("dev", why="it goes with --from-source")
    [fork] = project.manifest.select([what], variant)
    if pin:
        options.emit(sources.check_pin(project, fork), tables.pin)
        return
    proof: releases.EquivalenceCheck | releases.RebuildResult
    check = releases.check_reproducible if rebuild else releases.check_equivalence
    proof = check(project, fork)
    options.emit(proof, lambda proof: CONSOLE.result(proof.summary))
    proof.check()


def _refuse(*names: str, why: str) -> None:
    """Refuse options on the command line that would do nothing."""
    context = click.get_current_context()
    for option in context.command.params:
        name = option.name or ""
        if name in names and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[-1]} does nothing here: {why}")


def _keys(trust: tuple[str, ...]) -> dict[str, str]:
    """Return the keys by name; `verify` tries each."""
    if wrong := [text for text in trust if not re.fullmatch("(?s:.+):[0-9a-f]{64}", text)]:
        expected = "NAME:KEY, as `patchwheel release sign` prints the key"
        raise click.UsageError(f"--trust {wrong[0]}: is no name with a key; expected {expected}")
    return {name: key for name, _, key in (text.rpartition(":") for text in trust)}


def _verify_path(path: Path, trusted: dict[str, str]) -> None:
    if not path.exists():
        raise click.UsageError(
            f"there is no file or folder {path}; "
            "to verify a fork, give one of --pin, --from-source and --rebuild"
        )
    checked = releases.check_release(path, trusted=trusted)
    options.emit(checked, tables.checked)
    checked.check(path)


@click.command()
@click.argument("wheels", metavar="FOLDER", type=options.folder())
@click.option(
    "--grafts", is_flag=True, help="Index the grafts of --all-platforms, for a team: never public."
)
def index(wheels: Path, *, grafts: bool) -> None:
    """Write a simple index over the release wheels in FOLDER.

    It goes to FOLDER/simple. Of dist, the wheels in dist/release are indexed, with --grafts those
    in dist/platforms.
    """
    # Beside the wheels of plain builds, which are never published.
    inside = "platforms" if grafts else "release"
    if (wheels / inside).is_dir() and not (wheels / "SHA256SUMS").exists():
        wheels /= inside
    elif wheels.absolute().name == "dist" and (wheels.absolute().parent / "forks.toml").exists():
        kind = "all-platforms" if grafts else "release"
        hint = f"`patchwheel build --{kind}` fills {wheels / inside}, then index that"
        raise CheckError("the wheels of plain builds are not indexed", where=wheels, hint=hint)
    names = releases.make_index(wheels, grafts=grafts)
    CONSOLE.say(f"an index of {', '.join(names)}")
    CONSOLE.result(wheels / "simple")


@click.group()
def release() -> None:
    """Gather the release wheels of CI, try them, and sign them."""


@release.command()
@click.argument("source", type=options.folder())
@click.argument("staged", type=options.folder(exists=False))
@click.option(
    "--earlier",
    metavar="FOLDER",
    type=options.folder(exists=False),
    help="Wheels of earlier releases, for the index.",
)
@options.project
def stage(project: Project, source: Path, staged: Path, *, earlier: Path | None) -> None:
    """Write the folder STAGED from the wheels and reports that the cells left below SOURCE."""
    from patchwheel.ci import workflows

    # A cell that failed leaves nothing, so the folder alone does not tell what is missing.
    expected = {
        cell.name: (cell.forks[0], cell.python)
        for cell in workflows.cells(project.manifest)
        if cell.kind == "release"
    }
    count = releases.stage_release(source, staged, expected, earlier=earlier)
    CONSOLE.say(f"staged: {count} wheel{'s' * (count != 1)}")
    CONSOLE.result(staged)


@release.command()
@click.argument("staged", type=options.folder())
def validate(staged: Path) -> None:
    """Check the files in STAGED, and install them with pip and with uv from the index."""
    releases.validate_release(staged.absolute(), CONSOLE)
    CONSOLE.close()


@release.command()
@click.argument("folder", type=options.folder())
@click.option(
    "--key",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="An Ed25519 private key in PEM.",
)
def sign(folder: Path, key: Path) -> None:
    """Sign SHA256SUMS in FOLDER, and print the public key that `verify --trust` takes."""
    CONSOLE.result(releases.sign_sums(folder, key))


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; fail if a file would change.")
@click.option("--matrix", is_flag=True, help="Print the cells by kind, as JSON.")
@click.option("--cells", is_flag=True, help="Print the names of all cells.")
@click.option("--cell", metavar="NAME", help="Print what ci/run-cell reads of a cell.")
@options.project
def ci(project: Project, *, check: bool, matrix: bool, cells: bool, cell: str | None) -> None:
    """Write the CI workflows, and into ci/ the scripts that they call."""
    from patchwheel.ci import workflows

    manifest = project.manifest
    if check + matrix + cells + (cell is not None) > 1:
        raise click.UsageError("give one of --check, --matrix, --cells and --cell")
    manifest.select(())
    if matrix:
        lines = [json.dumps(workflows.matrix(manifest, project.lock))]
    elif cells:
        lines = [found.name for found in workflows.cells(manifest)]
    elif cell is not None:
        lines = [workflows.find_cell(manifest, cell).line]
    else:
        lines = [str(path) for path in workflows.write_workflows(manifest, check=check)]
    CONSOLE.lines(lines)
