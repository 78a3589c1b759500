"""build, plan, env and test: from the manifest to wheels and an environment."""

from __future__ import annotations

import functools
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from patchwheel import environment, wheel
from patchwheel import plan as planning
from patchwheel.cli import options, tables
from patchwheel.cli.console import CONSOLE
from patchwheel.cli.making import build_on, build_reported, say_unexported, wheels_of_all
from patchwheel.kit import BuildError, CheckError

if TYPE_CHECKING:
    from patchwheel.manifest import Fork
    from patchwheel.project import Project


# What `env` needs, too, to take the wheels that were just built.
ENV_FLAGS = {"from_source": "--from-source", "dev": "--dev"}


@click.command()
@options.forks
@options.from_source
@options.variant
@options.option(
    "--release",
    is_flag=True,
    help="Compile for publishing, in the sandbox unless --sandbox says otherwise, with "
    "provenance, SHA256SUMS and pylock.toml.",
)
@options.dev
@click.option(
    "--without-patches", is_flag=True, help="Build the pins as they are, into dist/unpatched."
)
@options.option(
    "-k", "--keep-going", is_flag=True, help="Continue with other forks after a failure."
)
@options.option(
    "--keep-failed", is_flag=True, help="Keep the folder of a failed build for `patchwheel shell`."
)
@options.option(
    "--strict-tag", is_flag=True, help="Fail if a graft's platform tag is above upstream's."
)
@click.option(
    "--platform",
    "platforms",
    metavar="TAG",
    multiple=True,
    help="Graft upstream's wheels for a platform, such as win_amd64, into dist/platforms.",
)
@click.option("--all-platforms", is_flag=True, help="The same of every wheel of the pin.")
@options.report
@click.option(
    "--cluster",
    metavar="ADDRESS|FILE",
    help="Build on the workers of this scheduler, for each Python and variant of the manifest.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Show the plan instead.")
@options.as_json
@options.project
def build(
    project: Project,
    names: Sequence[str],
    *,
    variant: str | None,
    keep_going: bool,
    strict_tag: bool,
    platforms: tuple[str, ...],
    all_platforms: bool,
    report: Path | None,
    cluster: str | None,
    dry_run: bool,
) -> None:
    """Build the patched wheels into dist/. Release wheels go to dist/release/."""
    kind = project.release + project.dev + project.without_patches
    if platforms or all_platforms:
        if kind or project.from_source or dry_run:
            raise click.UsageError("--platform and --all-platforms are for grafts of the series")
        forks = project.manifest.select(names, variant)
        _build_platforms(project, forks, () if all_platforms else platforms)
        return
    if kind > 1:
        raise click.UsageError("--release, --dev and --without-patches cannot be combined")
    if project.release:
        project = _for_release(project)
    forks = project.manifest.select(names, variant)
    if dry_run:
        _show_plans(project, forks)
        return
    how = {"keep_going": keep_going, "strict_tag": strict_tag}
    if cluster:
        wheels, failures = build_on(cluster, project, names, variant, report, **how)
    else:
        _say_python(project)
        wheels, failures = build_reported(project, forks, report, **how)
    # SHA256SUMS and the rest are of the whole folder, and so of a whole release.
    if project.release and not failures:
        from patchwheel.release import complete_release

        complete_release(project.dist, project.store, wheels)
    # The copies in dist/; the store is no place to take wheels from.
    copies = [replace(wheel, path=project.dist / wheel.path.name) for wheel in wheels]
    options.emit(copies, lambda copies: CONSOLE.lines(wheel.path for wheel in copies))
    if not (project.release or project.without_patches):
        _say_next(project, wheels)
    if failures:
        CONSOLE.say("\n".join(f"error: {name}: {err}" for name, err in failures.items()))
        raise BuildError(f"{len(failures)} of {len(wheels) + len(failures)} builds failed")


def _for_release(project: Project) -> Project:
    """Compile all of it, in the sandbox and without a cache unless the user says otherwise."""
    given = click.get_current_context().get_parameter_source
    if given("sandbox") is ParameterSource.DEFAULT:
        project = replace(project, sandbox="required")
    if given("compile_cache") is ParameterSource.DEFAULT:
        project = replace(project, compile_cache="off")
    return replace(project, from_source=True)


def _build_platforms(project: Project, forks: Sequence[Fork], platforms: Sequence[str]) -> None:
    # Here it selects among upstream's wheels; no interpreter is needed.
    pythons = [python for python in re.split("[ ,]+", project.python_option or "") if python]
    project = replace(project, python_option=None)
    found = wheel.build_platforms(project, forks, platforms, pythons)
    tables.platforms(found)
    say_unexported(project, forks)
    folder = wheel.platforms_folder(project)
    made = [folder / row.wheel.path.name for row in found if row.wheel]
    options.emit(found, lambda _: CONSOLE.lines(made))
    if not made:
        hint = "run `patchwheel build` on such a machine; the table says what is in the way"
        raise BuildError("no wheel could be grafted without a compiler", hint=hint)


@click.command()
@options.fork
@options.project
def shell(project: Project, fork: Fork) -> None:
    """Open a shell where `build --keep-failed` of FORK failed. The sandbox is the same."""
    from patchwheel.build import open_shell

    sys.exit(open_shell(project.context, fork.name))


@click.command()
@options.forks
@options.from_source
@options.variant
@options.dev
@options.as_json
@options.project
def plan(project: Project, names: Sequence[str], *, variant: str | None) -> None:
    """Show what a build would remake, and why. Builds nothing and needs no compiler."""
    _show_plans(project, project.manifest.select(names, variant))


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@options.option("--gpu", is_flag=True, help="Add the CUDA runtime libraries.")
@options.option(
    "--with",
    "added",
    metavar="REQUIREMENT",
    multiple=True,
    help="Add a package, such as jupyter, for as long as this is given; what is locked stays.",
)
@options.variant
@options.from_source
@options.dev
@options.wheels
@click.option("--check", is_flag=True, help="Check the environment even if it was not changed.")
@options.as_json
@options.project
def env(
    project: Project,
    path: Path | None,
    *,
    gpu: bool,
    added: tuple[str, ...],
    variant: str | None,
    wheels: Path | None,
    check: bool,
) -> None:
    """Compose one environment from all wheels. PATH becomes a link to it (.venv-forks)."""
    project = replace(project, variant=variant)
    if str(path) in project.manifest.forks:
        raise click.UsageError(
            f"{path} is a fork: an environment has all of them, and PATH a place"
        )
    link = (path or project.environment_link).absolute()
    # Before the wheels are built, which may take long.
    environment.check_link(link)
    _say_python(project)
    found = wheels_of_all(project, wheels)
    groups, before = ("gpu",) if gpu else (), environment.added_to(link)
    how = {"groups": groups, "added": added}
    made = environment.compose_environment(project, found, link=link, **how)
    # A new one was checked before the link was moved to it.
    if check and made.cached:
        environment.check_environment(project, made)
    CONSOLE.say(f"to activate it: `source {shlex.quote(os.path.relpath(link))}/bin/activate`")
    if before and not added:
        CONSOLE.say(f"without `--with` it no longer has {before}")
    elif not (made.cached or added):
        CONSOLE.say(
            "to add packages: `patchwheel env --with jupyter`; to stay, in `environment.requires` "
            "of forks.toml, and `patchwheel lock`"
        )
    options.emit(made, lambda made: CONSOLE.result(made.link))


@click.command(context_settings={"ignore_unknown_options": True})
@options.fork
@options.from_source
@options.dev
@options.wheels
@click.option("--all", "every", is_flag=True, help="Run all of upstream's tests.")
@click.option(
    "--compare", is_flag=True, help="Count only failures that the unpatched pins do not have."
)
@click.option(
    "--each", is_flag=True, help="Each patch with what it Requires, and without the others."
)
@click.option("--allow-none", is_flag=True, help="Succeed where upstream has no such tests.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGS]...")
@options.project
def test(
    project: Project,
    fork: Fork,
    arguments: Sequence[str],
    *,
    wheels: Path | None,
    every: bool,
    compare: bool,
    each: bool,
    allow_none: bool,
) -> None:
    """Run upstream's tests of what FORK's series changes. ARGS go to pytest."""
    _say_python(project)
    if each:
        if wheels or project.dev or every or compare or allow_none:
            raise click.UsageError("--each is for the series as it is, without such options")
        _test_each(project, fork, arguments)
        return
    # Before anything is built: there may be none.
    try:
        tree, files = environment.find_tests(project, fork, every=every)
    except CheckError as err:
        if not allow_none:
            raise
        CONSOLE.say(err.message)
        return
    found = wheels_of_all(project, wheels)
    pins = replace(project, without_patches=True)
    base = functools.partial(wheels_of_all, pins, None) if compare else None
    environment.run_tests(project, tree, files, found, arguments, base=base)


def _test_each(project: Project, fork: Fork, arguments: Sequence[str]) -> None:
    tried = [*environment.try_patches_alone(project, fork, arguments)]
    tables.alone(tried)
    failed = {row.name: row.error for row in tried if row.error}
    options.raise_failed(failed, f"patches of {fork.name} fail alone")


def _say_python(project: Project) -> None:
    """Say which Python is meant where nobody chose one of several."""
    _, *others = project.manifest.environment.python
    if others and not project.python_option:
        flags = " or ".join(f"`--python {python}`" for python in others)
        CONSOLE.say(f"for Python {project.python}, the manifest's first; {flags} for another")


def _say_next(project: Project, wheels: Sequence[wheel.BuiltWheel]) -> None:
    """Say what was made, and whether the environment has it."""
    made = sum(not wheel.cached for wheel in wheels)
    if made and len(wheels) > 1:
        CONSOLE.say(f"{made} made, {len(wheels) - made} up to date")
    link = project.environment_link
    try:
        held = (link / "pylock.toml").read_text()
    except OSError:
        # A build that made nothing has nothing to tell.
        held = "" if made else "".join(wheel.sha256 for wheel in wheels)
    if older := [wheel.fork for wheel in wheels if wheel.sha256 not in held]:
        why = f"{link.name} has other wheels of {', '.join(older)}" if held else "to use the wheels"
        given = click.get_current_context().params
        words = [flag for name, flag in ENV_FLAGS.items() if given[name]]
        words += ["--variant", given["variant"]] if given["variant"] else []
        words += [w for word in shlex.split(environment.added_to(link)) for w in ("--with", word)]
        CONSOLE.say(f"next: `{shlex.join(['patchwheel', 'env', *words])}` ({why})")


def _show_plans(project: Project, forks: Sequence[Fork]) -> None:
    _say_python(project)
    plans = [planning.plan_fork(project, fork) for fork in forks]
    say_unexported(project, forks)
    options.emit(
        [planning.look_ahead(project, plan) for plan in plans],
        lambda plans: [*map(tables.plan, plans)],
    )
