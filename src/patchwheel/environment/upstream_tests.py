"""Upstream's own tests of what a series changes, run in a composed environment."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

from patchwheel.environment.compose import compose_for_tests
from patchwheel.kit import CheckError, Repository, process
from patchwheel.series import patched_tree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from patchwheel.build import OwnWheel
    from patchwheel.environment.compose import Environment
    from patchwheel.kit import Store
    from patchwheel.manifest import BuildInventory, Fork
    from patchwheel.project import Project
    from patchwheel.series import PatchedTree

NO_TESTS = 5  # pytest's exit status when it collected nothing


def select_tests(tree: PatchedTree) -> list[str]:
    """Return the test files that the series touches, and those of the modules that it touches.

    Layouts: `a/tests/test_b.py` for `a/_b.py`, or `tests/a/test_b.py` beside or above the package.
    """
    repo = Repository(tree.source.git_dir)
    present = repo.files(tree.tree)
    found = []
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


def find_tests(project: Project, fork: Fork, *, dev: bool = False) -> list[str]:
    """Return upstream's tests of what a series changes; raises CheckError when there is none."""
    if files := select_tests(patched_tree(project, fork, dev=dev)):
        return files
    raise CheckError(
        f"{fork.name}: upstream has no tests of what the series changes",
        hint="touch a test file in the series, or run pytest in the environment",
    )


def run_tests(
    project: Project,
    fork: Fork,
    wheels: Sequence[OwnWheel],
    files: Sequence[str],
    arguments: Sequence[str],
    *,
    dev: bool = False,
) -> None:
    """Run test files of upstream's in an environment of all the wheels; CheckError if one fails."""
    # In layers: after an edit only the changed files of one wheel are written again.
    environment = compose_for_tests(project, wheels)
    tree = patched_tree(project, fork, dev=dev)
    inventory = project.build(fork).inventory
    status = run_files(tree, inventory, environment, files, arguments, store=project.store)
    if status:
        what = "no test was selected" if status == NO_TESTS else "upstream's tests fail"
        raise CheckError(f"{tree.source.fork.name}: {what}", where=", ".join(files))


def run_files(
    tree: PatchedTree,
    inventory: BuildInventory,
    environment: Environment,
    files: Sequence[str],
    arguments: Sequence[str],
    *,
    store: Store,
    variables: Mapping[str, str] | None = None,
) -> int:
    """Run pytest on the tree's files of these names, and return its exit status."""
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
        return process.interactive(command, cwd=folder, env=env)
