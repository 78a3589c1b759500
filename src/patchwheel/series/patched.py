"""A fork's patched tree: its source with the series, or the files of its open work tree."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from patchwheel.series.apply import apply_series
from patchwheel.series.files import load_series
from patchwheel.source import fetch_source

if TYPE_CHECKING:
    from patchwheel.manifest import Fork
    from patchwheel.patch import Patch
    from patchwheel.project import Project
    from patchwheel.series.apply import PatchedTree


def patched_tree(project: Project, fork: Fork, *, dev: bool = False) -> PatchedTree:
    """Return the tree that a build of the fork uses; with `dev` uncommitted edits count.

    Raises PatchError when the series does not apply.
    """
    source = fetch_source(project, fork)
    if dev:
        from patchwheel.series.worktree import work_tree_source

        return work_tree_source(project.work_folder(fork), source, store=project.store)
    series = load_series(fork.patches)
    if project.without_patches:
        series = replace(series, patches=())
    return apply_series(source, series, store=project.store)


def load_all_series(project: Project) -> dict[str, tuple[Patch, ...]]:
    """Return the patches of all forks, which may require one another."""
    forks = project.manifest.forks.values()
    return {fork.name: load_series(fork.patches).patches for fork in forks}
