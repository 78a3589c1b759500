"""The command line: parse, call the pipeline, print. Results on standard output, the rest on standard error."""

from __future__ import annotations

import dataclasses
import functools
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from patchwheel import __version__
from patchwheel.cli import tables
from patchwheel.cli.console import CONSOLE
from patchwheel.kit.errors import (
    BuildError,
    CheckError,
    InputError,
    MachineError,
    PatchError,
    PatchwheelError,
)
from patchwheel.kit.store import Store, default_root
from patchwheel.patch.lint import check_requires
from patchwheel.pipeline import LINK, Options, Pipeline
from patchwheel.upstream import target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from patchwheel.manifest.model import Fork

F = TypeVar("F", bound="Callable[..., Any]")


def option(*names: str, **settings: Any) -> Callable[[F], F]:  # noqa: ANN401
    """Make an option that can also be given as PATCHWHEEL_NAME."""
    name = max(names, key=len).lstrip("-").replace("-", "_").upper()
    return click.option(*names, envvar=f"PATCHWHEEL_{name}", **settings)


def pipeline_options(function: F) -> F:
    """Add the options that every stage understands; the command gets a Pipeline as its first argument."""

    @option(
        "--manifest",
        type=click.Path(path_type=Path),
        default=Path("forks.toml"),
        show_default=True,
        help="The manifest.",
    )
    @option("--python", help="Python version of the wheels, or an interpreter.")
    @option("--offline", is_flag=True, help="Use only what the store holds.")
    @option("-j", "--jobs", type=click.IntRange(1), help="Jobs of a compile.")
    @option(
        "--sandbox",
        type=click.Choice(["auto", "required", "none"]),
        default="auto",
        show_default=True,
        help="Isolation of builds.",
    )
    @option("-v", "--verbose", is_flag=True, help="Say more.")
    @functools.wraps(function)
    def command(
        *,
        manifest: Path,
        python: str | None,
        offline: bool,
        jobs: int | None,
        sandbox: str,
        verbose: bool,
        **rest: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        options = Options(
            manifest=manifest,
            store=default_root(),
            python=python,
            offline=offline,
            jobs=jobs,
            sandbox=sandbox,  # type: ignore[arg-type]
            verbose=verbose,
        )
        return function(Pipeline(options, CONSOLE), **rest)

    return command  # type: ignore[return-value]


wheels_option = click.option(
    "--wheels",
    metavar="FOLDER",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Make none: take the wheel of each fork that lies there.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
forks_argument = click.argument("forks", nargs=-1, metavar="[FORK]...")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def cli() -> None:
    """Keep patched forks of compiled Python libraries alive.

    Exit codes: 0 ok, 1 internal, 2 usage or manifest, 3 patch, 4 input, 5 build, 6 a check failed, 7 the machine.
    """


@cli.command()
@forks_argument
@option("--from-source", is_flag=True, help="Compile, taking nothing from upstream's wheel.")
@option("--variant", help="Build this variant of the forks that have it.")
@option(
    "--release",
    is_flag=True,
    help="Compile for publishing, with statements, SHA256SUMS and pylock.toml.",
)
@click.option("--dev", is_flag=True, help="Build the open work tree, uncommitted edits included.")
@option(
    "-k",
    "--keep-going",
    is_flag=True,
    help="Go on with the other forks after a failure.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Show the plan instead.")
@json_option
@pipeline_options
def build(
    pipeline: Pipeline,
    forks: Sequence[str],
    *,
    from_source: bool,
    variant: str | None,
    release: bool,
    dev: bool,
    keep_going: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make the patched wheels, into dist/."""
    if release and dev:
        raise click.UsageError("--release is of what is committed, without --dev")
    from_source |= release
    selected = pipeline.manifest.select(forks, variant)
    if dry_run:
        show_plans(pipeline, selected, from_source=from_source, dev=dev, as_json=as_json)
        return
    wheels, failures = pipeline.build(
        selected, from_source=from_source, dev=dev, keep_going=keep_going
    )
    if release and not failures:
        from patchwheel.release.check import complete

        complete(pipeline.manifest.root / "dist")
    CONSOLE.close()
    if any(not wheel.cached for wheel in wheels):
        tables.wheels(wheels)
    for wheel in wheels:
        if not as_json:
            click.echo(pipeline.manifest.root / "dist" / wheel.path.name)
    if as_json:
        print_json([wheel.to_json() for wheel in wheels])
    for failure in failures:
        click.echo(f"error: {failure.fork}: {failure.error}", err=True)
    if failures:
        raise BuildError(f"{len(failures)} of {len(selected)} forks failed")


@cli.command()
@forks_argument
@option("--from-source", is_flag=True, help="Plan a compile.")
@click.option("--dev", is_flag=True, help="Plan for the open work tree.")
@json_option
@pipeline_options
def plan(
    pipeline: Pipeline,
    forks: Sequence[str],
    *,
    from_source: bool,
    dev: bool,
    as_json: bool,
) -> None:
    """Show what a build would remake, and why."""
    selected = pipeline.manifest.select(forks)
    show_plans(pipeline, selected, from_source=from_source, dev=dev, as_json=as_json)


@cli.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@option("--gpu", is_flag=True, help="Add the CUDA runtime libraries.")
@option("--from-source", is_flag=True, help="Use wheels that are compiled throughout.")
@click.option("--dev", is_flag=True, help="Use the open work trees.")
@wheels_option
@click.option("--check", is_flag=True, help="Check the environment again, even an existing one.")
@json_option
@pipeline_options
def env(
    pipeline: Pipeline,
    path: Path | None,
    *,
    gpu: bool,
    from_source: bool,
    dev: bool,
    wheels: Path | None,
    check: bool,
    as_json: bool,
) -> None:
    """Compose one environment from all the wheels; PATH becomes a link to it (default: .venv-forks)."""
    from patchwheel.environment.compose import check_environment

    found = pipeline.wheels(wheels, from_source=from_source, dev=dev)
    link = (path or pipeline.manifest.root / LINK).absolute()
    made = pipeline.environment(found, link=link, groups=("gpu",) if gpu else ())
    # One that was just composed was checked before the link was flipped.
    if check and made.cached:
        check_environment(made, manifest=pipeline.manifest, report=CONSOLE)
    CONSOLE.close()
    if as_json:
        print_json(made.to_json())
    else:
        click.echo(link)


@cli.command()
@forks_argument
@click.option("--force", is_flag=True, help="Survey unchanged pins again too.")
@pipeline_options
def lock(pipeline: Pipeline, forks: Sequence[str], *, force: bool) -> None:
    """Resolve and pin what is not ours, into forks.lock."""
    pipeline.write_lock(forks, force=force)
    CONSOLE.close()
    path = pipeline.manifest.lock_path
    CONSOLE.say(f"next: `git diff {path.name}`, then `patchwheel plan` says what follows")
    click.echo(path)


@cli.command()
@forks_argument
@click.option(
    "--against",
    metavar="REF",
    multiple=True,
    help="Follow the series to a tag, branch, commit or release; may be repeated.",
)
@click.option("--changes", is_flag=True, help="With --against: only what was not so last time.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --against: also write the table there.",
)
@json_option
@pipeline_options
def status(
    pipeline: Pipeline,
    forks: Sequence[str],
    *,
    against: Sequence[str],
    changes: bool,
    html: Path | None,
    as_json: bool,
) -> None:
    """Show pins, patches and what is newer upstream. Exits with 3 when a patch does not apply to its pin."""
    selected = pipeline.manifest.select(forks)
    if against:
        show_forecasts(pipeline, selected, against, changes=changes, html=html, as_json=as_json)
        return
    if changes or html:
        raise click.UsageError("--changes and --html go with --against")
    found = [pipeline.status(fork) for fork in selected]
    CONSOLE.close()
    if as_json:
        print_json([fork.to_json() for fork in found])
    else:
        tables.status(found)
    check_requires(pipeline.patches())
    broken = [fork for fork in found if not fork.ok]
    if broken:
        names = ", ".join(fork.fork for fork in broken)
        raise PatchError(
            f"the series does not apply: {names}",
            hint="`patchwheel dev FORK` once it does; the table says where",
        )


def show_forecasts(
    pipeline: Pipeline,
    forks: Sequence[Fork],
    refs: Sequence[str],
    *,
    changes: bool,
    html: Path | None,
    as_json: bool,
) -> None:
    """Tell what each series meets at each ref; what was found is remembered for --changes."""
    found, lacking = {}, []
    for fork in forks:
        try:
            found[fork.name] = target.forecasts(pipeline, fork, refs)
        except InputError as err:
            if len(forks) == 1:
                raise
            CONSOLE.say(f"{fork.name}: {err.message}")
            lacking.append(fork.name)
    forks = [fork for fork in forks if fork.name in found]
    known = {f.name: target.remember_forecasts(pipeline, f, found[f.name]) for f in forks}
    CONSOLE.close()
    if html:
        html.write_text(tables.forecast_page(forks, found), encoding="utf-8")
    if changes:
        found = {
            name: [ref.without(known[name].get(ref.ref, ())) for ref in rows]
            for name, rows in found.items()
        }
    if as_json:
        print_json({n: [ref.to_json() for ref in rows] for n, rows in found.items()})
    elif changes and not any(ref.patches for rows in found.values() for ref in rows):
        CONSOLE.say("nothing is new")
    else:
        tables.forecasts(found)
    if lacking:
        raise InputError(f"not followed: {', '.join(lacking)}", hint="see above for each")


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("fork")
@option("--from-source", is_flag=True, help="Test wheels that are compiled throughout.")
@click.option("--dev", is_flag=True, help="Use the open work trees, uncommitted edits included.")
@wheels_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGS]...")
@pipeline_options
def test(
    pipeline: Pipeline,
    fork: str,
    arguments: Sequence[str],
    *,
    from_source: bool,
    dev: bool,
    wheels: Path | None,
) -> None:
    """Run upstream's tests of what FORK's series changes; ARGS go to pytest."""
    [selected] = pipeline.manifest.select([fork])
    found = pipeline.wheels(wheels, from_source=from_source, dev=dev)
    pipeline.test(selected, arguments, found, dev=dev)


@cli.command()
@click.argument("fork")
@click.option("--detach", is_flag=True, help="Only write the patched sources, without git.")
@pipeline_options
def dev(pipeline: Pipeline, fork: str, *, detach: bool) -> None:
    """Open a work tree of FORK in work/FORK, with one commit per patch."""
    [selected] = pipeline.manifest.select([fork])
    work = pipeline.open_work(selected, detach=detach)
    if not detach:
        CONSOLE.say(
            f"{work.patches} patches, one commit each{' (as it was left)' if work.resumed else ''}; "
            f"edit and commit, then `patchwheel test {fork} --dev` and `patchwheel export {fork}`"
        )
    click.echo(work.folder)


@cli.command()
@click.argument("fork")
@click.option("--onto", metavar="REF", help="A release, tag, branch or commit.")
@click.option("--dry-run", is_flag=True, help="Only show what would conflict.")
@click.option("--continue", "how", flag_value="continue", help="Go on: all is resolved.")
@click.option("--skip", "how", flag_value="skip", help="Drop the patch that stopped.")
@click.option("--abort", "how", flag_value="abort", help="Put everything back.")
@json_option
@pipeline_options
def rebase(
    pipeline: Pipeline,
    fork: str,
    *,
    onto: str | None,
    dry_run: bool,
    how: str | None,
    as_json: bool,
) -> None:
    """Move FORK's series to another pin. Pin, lock and series change together, when all of it is done."""
    if (onto is None) == (how is None) or (dry_run and how):
        raise click.UsageError("say --onto REF, or one of --continue, --skip, --abort")
    [selected] = pipeline.manifest.select([fork])
    if onto and dry_run:
        merged = target.preview_rebase(pipeline, selected, onto)
        CONSOLE.close()
        if as_json:
            print_json([patch.to_json() for patch in merged])
        else:
            tables.preview(merged)
        if stuck := [patch.name for patch in merged if patch.state == "conflict"]:
            raise PatchError(
                f"{len(stuck)} of {len(merged)} patches of {fork} conflict: {', '.join(stuck)}",
                hint=f"`patchwheel rebase {fork} --onto {onto}` stops at each, to resolve it",
            )
        return
    if onto:
        result = target.start_rebase(pipeline, selected, onto)
    else:
        done = target.proceed_rebase(pipeline, selected, str(how))
        if done is None:
            CONSOLE.say(f"{fork}: the rebase is undone; pin and series never changed")
            return
        result = done
    CONSOLE.close()
    if as_json:
        print_json(dataclasses.asdict(result))
    else:
        tables.export(fork, result, check=False)
        CONSOLE.say(f"pin, lock and series of {fork} are changed")
        manifest = pipeline.manifest
        offer_commit(
            pipeline,
            selected,
            *(manifest.path, manifest.lock_path, selected.patches),
        )


def offer_commit(pipeline: Pipeline, fork: Fork, *changed: Path) -> None:
    """Say what comes next; the message holds the range-diff."""
    from patchwheel.series.export import message_of

    root = pipeline.manifest.root
    paths = " ".join(str(path.relative_to(root)) for path in changed)
    message = message_of(pipeline.work_folder(fork)).relative_to(root)
    CONSOLE.say(
        f"next: `patchwheel test {fork.name}`, then `git add {paths} && git commit -e -F {message}`"
    )


@cli.command()
@click.argument("fork")
@click.option(
    "--check",
    is_flag=True,
    help="Write nothing; fail if an export would change something.",
)
@click.option(
    "--exact",
    is_flag=True,
    help="Renumber: also a patch that means the same is written anew.",
)
@json_option
@pipeline_options
def export(pipeline: Pipeline, fork: str, *, check: bool, exact: bool, as_json: bool) -> None:
    """Write the commits of FORK's work tree back to patches/FORK; patches that mean the same keep their bytes."""
    [selected] = pipeline.manifest.select([fork])
    result = pipeline.export(selected, check=check, exact=exact)
    if as_json:
        print_json(dataclasses.asdict(result))
    else:
        tables.export(fork, result, check=check)
        if result.changed and not check:
            offer_commit(pipeline, selected, selected.patches)
    if check and result.changed:
        raise CheckError(
            f"{fork}: the series is not what an export gives",
            where=selected.patches,
            hint=f"patchwheel dev {fork} && patchwheel export {fork}",
        )


@cli.command()
@click.argument("what", metavar="PATH|FORK")
@click.option("--pin", is_flag=True, help="Compare the commit's tree with the sdist.")
@click.option(
    "--from-source",
    is_flag=True,
    help="Compare the graft with a compile of the same tree; takes as long as one, or two.",
)
@click.option(
    "--rebuild",
    is_flag=True,
    help="Compile again under other circumstances, and compare with the release wheel.",
)
@option("--variant", help="Verify this variant of FORK.")
@click.option("--dev", is_flag=True, help="With --from-source: use the open work tree.")
@json_option
@pipeline_options
def verify(
    pipeline: Pipeline,
    what: str,
    *,
    pin: bool,
    from_source: bool,
    rebuild: bool,
    variant: str | None,
    dev: bool,
    as_json: bool,
) -> None:
    """Check what a wheel, or a folder of them, says of itself, offline; with an option, what FORK's wheel rests on."""
    if pin + from_source + rebuild > 1:
        raise click.UsageError("say one of --pin, --from-source and --rebuild")
    if not (pin or from_source or rebuild):
        if not Path(what).exists():
            raise click.UsageError(
                f"there is no file or folder {what}; to verify a fork, say one of --pin, --from-source and --rebuild"
            )
        show_checked(Path(what), as_json=as_json)
        return
    [selected] = pipeline.manifest.select([what], variant)
    if pin:
        from patchwheel.source.compare import check_pin

        report = check_pin(
            selected,
            store=pipeline.store,
            index=lambda: pipeline.index,
            report=CONSOLE,
            offline=pipeline.options.offline,
        )
        CONSOLE.close()
        if as_json:
            print_json(dataclasses.asdict(report))
        else:
            tables.pin(report)
        return
    proof = pipeline.rebuild(selected) if rebuild else pipeline.prove(selected, dev=dev)
    CONSOLE.close()
    if as_json:
        print_json(dataclasses.asdict(proof))
    else:
        click.echo(proof.summary, err=True)
    proof.check()


def show_checked(path: Path, *, as_json: bool) -> None:
    from patchwheel.release.check import inspect

    checked = inspect(path)
    if as_json:
        print_json(checked.to_json())
    else:
        tables.checked(checked)
    checked.check(path)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def index(folder: Path) -> None:
    """Write a simple index over the release wheels in FOLDER, into FOLDER/simple, for pip and uv."""
    from patchwheel.release.check import make_index

    names = make_index(folder)
    CONSOLE.say(f"an index of {', '.join(names)}")
    click.echo(folder / "simple")


@cli.command()
@click.option("--check", is_flag=True, help="Write nothing; fail if a file is not as it would be.")
@click.option("--matrix", is_flag=True, help="Print the cells by kind, as JSON.")
@click.option("--cells", is_flag=True, help="Print the names of all cells.")
@click.option("--cell", metavar="NAME", help="Print what ci/run-cell reads of a cell.")
@pipeline_options
def ci(pipeline: Pipeline, *, check: bool, matrix: bool, cells: bool, cell: str | None) -> None:
    """Write the CI workflows that the manifest gives into .github/workflows."""
    from patchwheel.ci import workflows as rules

    manifest = pipeline.manifest
    if check + matrix + cells + (cell is not None) > 1:
        raise click.UsageError("say one of --check, --matrix, --cells and --cell")
    if matrix:
        click.echo(json.dumps(rules.matrix(manifest, pipeline.lock)))
    elif cells:
        click.echo("\n".join(found.name for found in rules.cells(manifest)))
    elif cell is not None:
        click.echo(rules.find(manifest, cell).line)
    else:
        for path in rules.write_workflows(manifest, check=check):
            click.echo(path)


@cli.command()
@json_option
@pipeline_options
def doctor(pipeline: Pipeline, *, as_json: bool) -> None:
    """Show what this machine lacks, for each fork, and the command that gets it."""
    from patchwheel.build.doctor import diagnose

    known = pipeline.lock if pipeline.manifest.lock_path.exists() else None
    findings = diagnose(pipeline.manifest, known, store=pipeline.store.root)
    if as_json:
        print_json([dataclasses.asdict(finding) for finding in findings])
    else:
        tables.findings(findings)
    if any(finding.needed and not finding.ok for finding in findings):
        raise MachineError("a build needs what is missing", hint="run the commands in the table")


@cli.group()
def cache() -> None:
    """Show, check and shrink the store."""


@cache.command("dir")
def cache_dir() -> None:
    """Print the store's folder."""
    click.echo(default_root())


@cache.command("verify")
@json_option
def cache_verify(*, as_json: bool) -> None:
    """Hash everything in the store; what is broken is removed, and made again when it is needed."""
    store = Store(default_root())
    found = [(entry, why) for entry in store.entries() if (why := entry.broken())]
    for entry, _ in found:
        store.remove(entry.kind, entry.key)
    broken = {f"{entry.kind}/{entry.key}": why for entry, why in found}
    if as_json:
        print_json(broken)
    for name, why in broken.items():
        click.echo(f"{name}: {why}; removed", err=True)
    if broken:
        raise CheckError(f"{len(broken)} entries of the store were broken", where=store.root)


@cache.command("prune")
@click.option("--older-than", default=30.0, show_default=True, help="Days since the last use.")
def cache_prune(older_than: float) -> None:
    """Remove what was not used for a while; environments that a link points to stay."""
    count, freed = Store(default_root()).prune(older_than_days=older_than)
    click.echo(f"removed {count} entries, {freed / 1e6:,.0f} MB", err=True)


def show_plans(
    pipeline: Pipeline,
    forks: Sequence[Fork],
    *,
    from_source: bool,
    dev: bool,
    as_json: bool,
) -> None:
    plans = [pipeline.plan(fork, from_source=from_source, dev=dev)[0] for fork in forks]
    CONSOLE.close()
    if as_json:
        print_json([plan.to_json() for plan in plans])
    else:
        tables.plans(plans)


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=1))


def main() -> None:
    """Run the command line; the one place that turns errors into exit codes."""
    from patchwheel.kit.repo import scrub_environment

    scrub_environment()
    # A CI job that is cancelled gets this signal: end as for Ctrl-C, children included.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cli.main(standalone_mode=False)
    except PatchwheelError as err:
        CONSOLE.close()
        click.echo(f"error: {err}", err=True)
        sys.exit(err.exit_code)
    except click.ClickException as err:
        err.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        CONSOLE.close()
        click.echo("interrupted; nothing is half-written, the same command goes on", err=True)
        sys.exit(130)
