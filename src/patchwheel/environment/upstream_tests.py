"""Upstream's own tests of what a series changes, run in a composed environment."""

from __future__ import annotations

import os
import posixpath
import shutil
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from patchwheel.environment.compose import compose_for_tests
from patchwheel.guest import NOTE_FAILURES
from patchwheel.kit import CheckError, Repository, first, process
from patchwheel.series import patched_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from patchwheel.build import OwnWheel
    from patchwheel.environment.compose import Environment
    from patchwheel.kit import Store
    from patchwheel.manifest import BuildInventory, Fork
    from patchwheel.project import Project
    from patchwheel.series import PatchedTree

FAILURES, NO_TESTS = 1, 5  # of pytest's exit status


def find_tests(
    project: Project, fork: Fork, *, every: bool = False
) -> tuple[PatchedTree, list[str]]:
    """Return the patched tree and upstream's tests to run; raises CheckError when there is none."""
    tree = patched_tree(project, fork)
    files = select_tests(tree, every=every)
    if not files:
        what = "" if every else " of what the series changes"
        raise CheckError(
            f"{fork.name}: upstream has no tests{what}",
            hint="name test files in `tests` of forks.toml, or run pytest in the environment",
        )
    return tree, files


def select_tests(tree: PatchedTree, *, every: bool = False) -> list[str]:
    """Return the test files that the series touches, and those of the modules that it touches.

    Also those that the manifest names, or with `every` all.
    Layouts: `a/tests/test_b.py` for `a/_b.py`, or `tests/a/test_b.py` beside or above the package.
    """
    repo = Repository(tree.source.git_dir)
    present = repo.files(tree.tree)
    globs = (*tree.source.fork.tests, *(("test_*.py", "*/test_*.py") if every else ()))
    found = [path for path in present if any(fnmatchcase(path, glob) for glob in globs)]
    for change in repo.changes(tree.source.tree, tree.tree):
        folder, name = posixpath.split(change.path)
        stem, extension = posixpath.splitext(name)
        if extension == ".py" and name.startswith("test_"):
            found.append(change.path)
        elif extension in {".py", ".pyx"}:
            wanted = {f"test_{stem}.py", f"test_{stem.lstrip('_')}.py"}
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
    inventory, store = project.build(fork).inventory, project.store

    def run(tree: PatchedTree, wheels: Sequence[OwnWheel]) -> tuple[int, set[str]]:
        # In layers: after an edit only the changed files of one wheel are written again.
        environment = compose_for_tests(project, wheels)
        failed: set[str] = set()
        noted = failed if base else None
        status = run_files(
            tree, inventory, environment, files, arguments, store=store, failed=noted, note=note
        )
        return status, failed

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
    tree: PatchedTree,
    inventory: BuildInventory,
    environment: Environment,
    files: Sequence[str],
    arguments: Sequence[str],
    *,
    store: Store,
    variables: Mapping[str, str] | None = None,
    failed: set[str] | None = None,
    note: bool = False,
) -> int:
    """Run pytest on the tree's files of these names, and return its exit status.

    What fails is added to `failed`.
    """
    repo = Repository(tree.source.git_dir)
    present = repo.files(tree.tree)
    files = [f for f in files if f in present]
    installed = {source: path for path, source in inventory.verbatim.items()}
    site = environment.places[tree.source.fork.name]
    with store.scratch() as folder:
        # Upstream's configuration is left out, as it may ask for plug-ins.
        (folder / "pytest.ini").write_text("[pytest]\n")
        # Installed tests run where they are, others from the patched tree.
        if not installed.keys() >= set(files):
            repo.checkout(tree.tree, folder / "tree")
        paths = [site / installed[f] if f in installed else folder / "tree" / f for f in files]
        command: list[str | Path] = [environment.python, "-m", "pytest"]
        command += ["-c", folder / "pytest.ini", "--rootdir", folder]
        command += ["-p", "no:cacheprovider", "--import-mode=importlib", *paths, *arguments]
        # The user's environment, but for what would let Python find other code.
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        env |= {"MPLBACKEND": "agg", "HOME": str(folder), **(variables or {})}
        if failed is None:
            return process.interactive(command, cwd=folder, env=env, note=note)
        plugins, noted = folder / "plugins", folder / "failed"
        plugins.mkdir()
        noted.touch()
        shutil.copy(NOTE_FAILURES, plugins)
        env |= {"PYTHONPATH": str(plugins), "PATCHWHEEL_FAILURES": str(noted)}
        command[3:3] = ["-p", NOTE_FAILURES.stem, "--continue-on-collection-errors"]
        status = process.interactive(command, cwd=folder, env=env, note=note)
        for row in noted.read_text(encoding="utf-8").splitlines():
            path, colons, name = row.partition("::")
            known = dict(zip(map(str, paths), files, strict=True))
            failed.add(known.get(path, path) + colons + name)
        return status
