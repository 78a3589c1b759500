"""The pin for work on a series, which needs less than a build: no lock, and not every submodule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchwheel.patch import paths_of
from patchwheel.series.apply import apply_series
from patchwheel.series.files import load_series
from patchwheel.series.worktree import STATE, WorkTree
from patchwheel.source import fetch_light, fetch_pin

if TYPE_CHECKING:
    from collections.abc import Collection

    from patchwheel.manifest import Fork
    from patchwheel.project import Project
    from patchwheel.series.apply import PatchedTree
    from patchwheel.source import Source


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
