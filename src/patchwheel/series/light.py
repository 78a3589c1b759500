"""The pin for work on a series, which needs less than a build: no lock, and not every submodule.

Also a patch alone: the pin with just that patch and what it requires of its series; and what a work
tree has that a build does not take.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from patchwheel.kit import PatchError, PatchwheelError, did_you_mean, rmtree
from patchwheel.manifest import Fork, transaction
from patchwheel.patch import Patch, paths_of, required_patches
from patchwheel.project import Project
from patchwheel.series.apply import PatchedTree, apply_series
from patchwheel.series.files import load_all_series, load_series, write_series
from patchwheel.series.worktree import EXPORTED, STATE, WorkTree
from patchwheel.source import Source, fetch_light, fetch_pin


def light_source(project: Project, fork: Fork, more: Collection[str] = ()) -> Source:
    """Return the pin for work on the fork's series and `more` paths, see `fetch_light`."""
    paths = paths_of(load_series(fork.patches).patches).union(more)
    source, folder = fetch_light(project, fork, paths), project.work_folder(fork)
    if not fork.sdist and (folder / ".git" / STATE).exists():
        # It may have been opened while a submodule was out of reach.
        light = fetch_pin(project.context, fork, only=paths)
        return light if WorkTree(folder).tree == light.tree else source
    return source


def light_tree(project: Project, fork: Fork, more: Collection[str] = ()) -> PatchedTree:
    """Apply the fork's series to the pin for work on it; raises PatchError."""
    source = light_source(project, fork, more)
    return apply_series(source, load_series(fork.patches), store=project.store)


def unexported_files(folder: Path) -> str | None:
    """Say how many files of a work tree the series lacks; None of one that is rebased, or not ours.

    Whoever asks has no need of the work tree, and so one that cannot be read is no error.
    """
    if (folder / ".git" / STATE).exists() and not (folder / transaction.STATE).exists():
        with contextlib.suppress(PatchwheelError):
            work = WorkTree(folder)
            edited = work.edited()
            committed = [] if work.is_exported() else work.repo.changes(EXPORTED, "HEAD")
            count = len({*edited, *(change.path for change in committed)})
            then = f"{'commit, then ' if edited else ''}`patchwheel export {folder.name}`"
            lacks = f"{count} edited file{'s are' if count > 1 else ' is'} not in the series yet"
            return f"{lacks}: {then}" if count else None
    return None


def patch_alone(project: Project, fork: Fork, name: str) -> PatchedTree:
    """Apply a patch with what it requires, and no other; raises PatchError."""
    forks, series = load_all_series(project), load_series(fork.patches)
    patch = next((p for p in series.patches if name in {p.name, p.path.stem}), None)
    if patch is None:
        known = [p.path.stem for p in series.patches]
        problem = f"the series of {fork.name} has no patch {name!r}{did_you_mean(name, known)}"
        expected = f"one of {', '.join(known)}" if known else "a patch"
        hint = None if known else f"`patchwheel dev {fork.name}`, commit, `export`; or `import`"
        raise PatchError(problem, where=series.folder, expected=expected, hint=hint)
    needed = required_patches(forks, patch)
    try:
        chosen = replace(series, patches=tuple(needed))
        return apply_series(light_source(project, fork), chosen, store=project.store)
    except PatchError as err:
        before = series.patches[: series.patches.index(patch)]
        others = [p.name for p in before if p not in needed and paths_of([p]) & paths_of(needed)]
        if others:
            err.hint = f"it may need {' or '.join(others)}: then say so in a trailer of its message"
            err.hint += f", `Requires: {fork.name}/{others[-1].removesuffix('.patch')}`"
        raise


def project_with(project: Project, fork: Fork, patches: Sequence[Patch], folder: Path) -> Project:
    """Copy a project below a folder, there with these patches for the series of a fork."""
    # Not into it: a scratch folder is locked while it is used, and so is one with a manifest.
    root = folder / "project"
    root.mkdir()
    project.copy_to(root)
    target = root / "patches" / fork.name
    rmtree(target)
    write_series(target, load_series(fork.patches), patches)
    return replace(project, manifest_path=root / project.manifest.path.name)
