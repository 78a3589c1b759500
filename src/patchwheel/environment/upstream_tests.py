"""Upstream's own tests of what a series changes, run in a composed environment."""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from patchwheel.build import OwnWheel
from patchwheel.environment.compose import Environment, compose_for_tests
from patchwheel.guest import NOTE_FAILURES
from patchwheel.kit import CheckError, PatchwheelError, Repository, first, process
from patchwheel.manifest import Fork
from patchwheel.project import Project
from patchwheel.series import PatchedTree, load_series, patch_alone, patched_tree, project_with
from patchwheel.wheel import build_wheels

FAILURES, NO_TESTS = 1, 5  # of pytest's exit status
# By which pytest finds them; `*` stands for folders too.
TEST_FILES = ("test_*.py", "*/test_*.py", "*_test.py")


def find_tests(
    project: Project, fork: Fork, *, every: bool = False
) -> tuple[PatchedTree, list[str]]:
    """Return the patched tree and upstream's tests to run; raises CheckError when there is none."""
    tree = patched_tree(project, fork)
    files = select_tests(tree, every=every)
    if not files:
        what = "" if every else " of what the series changes"
        hint = "name test files in `tests` of forks.toml, or run pytest in the environment"
        hint = hint if every else f"`patchwheel test {fork.name} --all`, or {hint}"
        raise CheckError(f"{fork.name}: upstream has no tests{what}", hint=hint)
    return tree, files


def select_tests(tree: PatchedTree, *, every: bool = False) -> list[str]:
    """Return the test files that the series touches, and those of the modules that it touches.

    Also those that the manifest names, or with `every` all.
    Layouts: `a/tests/test_b.py` for `a/_b.py`, or `tests/a/test_b.py` beside or above the package.
    """
    repo = Repository(tree.source.git_dir)
    present = repo.files(tree.tree)
    globs = (*tree.source.fork.tests, *(TEST_FILES if every else ()))
    found = [path for path in present if any(fnmatchcase(path, glob) for glob in globs)]
    for change in repo.changes(tree.source.tree, tree.tree):
        folder, name = posixpath.split(change.path)
        stem, extension = posixpath.splitext(name)
        if any(fnmatchcase(name, glob) for glob in TEST_FILES):
            found.append(change.path)
        elif extension in {".py", ".pyx"}:
            stems = {stem, stem.lstrip("_")}
            wanted = {name for s in stems for name in (f"test_{s}.py", f"{s}_test.py")}
            inner = folder.removeprefix("src/")
            for place in (f"{folder}/tests", f"tests/{inner}", f"tests/{inner}_tests"):
                found += [f"{place}/{n}" for n in sorted(wanted)]
    return [path for path in dict.fromkeys(found) if path in present]


def run_tests(
    project: Project,
    tree: PatchedTree,
    files: Sequence[str],
    wheels: Sequence[OwnWheel],
    arguments: Sequence[str],
    *,
    base: Callable[[], Sequence[OwnWheel]] | None = None,
    note: bool = False,
) -> None:
    """Run upstream's tests in an environment of all the wheels; raises CheckError when one fails.

    With `base`, which gives unpatched wheels, only when one fails that passes with those. With
    `note` pytest writes to standard error.
    """
    fork = tree.source.fork
    more = ["--continue-on-collection-errors"] if base else []

    def run(tree: PatchedTree, wheels: Sequence[OwnWheel]) -> tuple[int, set[str]]:
        # In layers: after an edit only the changed files of one wheel are written again.
        environment = compose_for_tests(project, wheels)
        return run_files(project, tree, environment, files, [*more, *arguments], note=note)

    status, failed = run(tree, wheels)
    if not status:
        return
    if base is None or status != FAILURES:
        what = "no test was selected" if status == NO_TESTS else "upstream's tests fail"
        raise CheckError(f"{fork.name}: {what}", where=", ".join(first(files)))
    count = f"{len(failed)} failure{'s' * (len(failed) > 1)}"
    project.progress.say(f"{fork.name}: {count}; the same tests without the series")
    unpatched = patched_tree(replace(project, without_patches=True), fork)
    status, before = run(unpatched, base())
    if status not in {0, FAILURES} or failed - before:
        rows = first(sorted(failed - before)) or ["pytest cannot run on the unpatched base"]
        message = "\n  - ".join([f"{fork.name}: the series makes upstream's tests fail:", *rows])
        raise CheckError(message)
    project.progress.say(f"{fork.name}: all of them fail without the series too")


def run_files(
    project: Project,
    tree: PatchedTree,
    environment: Environment,
    files: Sequence[str],
    arguments: Sequence[str],
    *,
    variables: Mapping[str, str] | None = None,
    note: bool = False,
) -> tuple[int, set[str]]:
    """Run pytest on the tree's files of these names; return its exit status, and what fails."""
    fork, repo = tree.source.fork, Repository(tree.source.git_dir)
    installed = {source: path for path, source in project.build(fork).inventory.verbatim.items()}
    site, present = environment.places[fork.name], repo.files(tree.tree)
    with project.store.scratch() as folder:
        # Upstream's configuration is left out, as it may ask for plug-ins.
        (folder / "pytest.ini").write_text("[pytest]\n")
        # Installed tests run where they are, others from the patched tree.
        names = {
            str(site / installed[f] if f in installed else folder / "tree" / f): f
            for f in files
            if f in present
        }
        if not installed.keys() >= {*names.values()}:
            repo.checkout(tree.tree, folder / "tree")
        plugins, noted = folder / "plugins", folder / "failed"
        plugins.mkdir()
        noted.touch()
        shutil.copy(NOTE_FAILURES, plugins)
        command: list[str | Path] = [environment.python, "-m", "pytest", "-p", NOTE_FAILURES.stem]
        command += ["-c", folder / "pytest.ini", "--rootdir", folder]
        command += ["-p", "no:cacheprovider", "--import-mode=importlib", *names, *arguments]
        # The user's environment, but for what would let Python find other code.
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        env |= {"MPLBACKEND": "agg", "HOME": str(folder), **(variables or {})}
        env |= {"PYTHONPATH": str(plugins), "PATCHWHEEL_FAILURES": str(noted)}
        # It may say nothing for a while, as with -q.
        project.progress.say(f"{fork.name}: pytest runs {len(names)} of upstream's test files")
        status = process.interactive(command, cwd=folder, env=env, note=note)
        rows = [row.partition("::") for row in noted.read_text(encoding="utf-8").splitlines()]
        return status, {names.get(path, path) + colons + name for path, colons, name in rows}


def build_and_test(
    project: Project, fork: Fork, arguments: Sequence[str] = (), *, note: bool = False
) -> None:
    """Build all the wheels, and run upstream's tests of what the fork's series changes."""
    tree, files = find_tests(project, fork)
    wheels, _ = build_wheels(project, [*project.manifest.forks.values()])
    run_tests(project, tree, files, wheels, arguments, note=note)


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
                build_and_test(copy, copy.manifest.forks[fork.name], arguments)
            # It does not keep the others from being tested.
            except PatchwheelError as err:
                error = err
        yield Alone(name=patch.name, required=required, error=error)
