"""Write forks.lock and forks.inventory; entries that are current are kept."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product

from patchwheel import kit, manifest
from patchwheel.build import (
    BuildInputs,
    absence,
    backend_kind,
    missing_tools,
    required_variables,
    without_missing_tools,
)
from patchwheel.locking import resolve
from patchwheel.locking.steps import with_steps
from patchwheel.plan import Planner, graph_of_pin, upstream_base
from patchwheel.project import Project
from patchwheel.series import patched_tree
from patchwheel.source import fetch_pin
from patchwheel.wheelfile import WheelFile, output_names, read_wheel


def write_lock(
    project: Project,
    names: Sequence[str] = (),
    *,
    force: bool = False,
    upgrade: Collection[str] | None = None,
) -> manifest.Lock:
    """Lock the named forks, all of them for none, and the environment; write and return forks.lock.

    With `force`, pins are configured and the environment is resolved again although unchanged.
    What was locked stays where it satisfies; `upgrade` names what need not, all if empty.
    """
    chosen = {fork.name for fork in project.manifest.select(names)}
    old = lock_before(project)
    before = _Before(old, upgrade)
    forks = _lock_forks(project, before, chosen, force=force)
    environments: dict[str, manifest.EnvironmentLock] = {}
    variants = (None, *project.manifest.other_variants)
    for python, variant in product(project.manifest.environment.python, variants):
        chosen_project = replace(project, variant=variant) if variant else project
        inside = chosen_project.manifest
        # A variant that was not locked here, or not for this Python, has no environment either.
        entries = [forks.get(fork.lock_key) for fork in inside.forks.values()]
        if all(entry and python in entry.builds for entry in entries):
            key = manifest.environment_key(inside, python)
            held = old.environments.get(key)
            again = (force and not names) or before.moves("")
            again = again or (
                held is not None and not resolve.has_added(chosen_project, held, python)
            )
            if not held or held.inputs != manifest.environment_inputs(inside) or again:
                held = resolve.lock_environment(chosen_project, python, forks, before.known)
            environments[key] = held
    lock = manifest.Lock(path=project.manifest.lock_path, environments=environments, forks=forks)
    graphs = _known_graphs(project, old, lock)
    manifest.save_lock(lock, graphs)
    known = {} if force else graphs
    if found := _follow(project, lock, chosen, known):
        manifest.save_lock(lock, graphs | found)
    if found := _trace(project, chosen, known | found):
        manifest.save_lock(lock, graphs | found)
    return lock


def lock_before(project: Project) -> manifest.Lock:
    """Return the lock as it is; of one that is missing, or damaged by a merge, what is left."""
    with contextlib.suppress(kit.ManifestError):
        return project.lock
    with contextlib.suppress(kit.ManifestError):
        return manifest.load_lock(project.manifest.lock_path, mend=True)
    return manifest.Lock(path=project.manifest.lock_path, environments={}, forks={})


def committed_lock(project: Project) -> manifest.Lock:
    """Return the lock of the last commit; raises ManifestError where there is none."""
    path, generated = project.manifest.lock_path, project.manifest.inventory_path
    with project.store.scratch() as folder:
        try:
            for name in (path.name, generated.name):
                argv = ("git", "show", f"HEAD:./{name}")
                data = kit.process.capture(argv, cwd=project.root, env=os.environ)
                (folder / name).write_bytes(data)
            return manifest.load_lock(folder / path.name)
        except (kit.process.CommandError, kit.ManifestError) as err:
            why = " ".join([err.message, *err.tail])
            hint = f"commit it together with {generated.name} first"
            problem = f"cannot be compared with that of the last commit: {why}"
            raise kit.ManifestError(problem, where=path, hint=hint) from err


@dataclass(frozen=True)
class _Before:
    """The lock as it was; of the names in `upgrade` the versions may move, of all if it is empty.

    Its entries are those of forks by lock key, and "" for the environment.
    """

    lock: manifest.Lock
    upgrade: Collection[str] | None

    def __post_init__(self) -> None:
        locked = {found.name for *_, found in self._rows()}
        if unknown := [name for name in self.upgrade or () if name not in locked]:
            problem = f"nothing that is locked is called {unknown[0]}"
            hint = "take a name of forks.lock, or none to upgrade everything"
            raise kit.ManifestError(problem, where=self.lock.path, hint=hint)

    def known(self, lock_key: str, python: str) -> list[kit.Distribution]:
        """Return what may not move; a new Python begins with what the others have."""
        rows = [(p == python, d) for k, p, d in self._rows() if k == lock_key]
        rows.sort(key=lambda row: row[0])
        return [*{d.name: d for _, d in rows if not self._moves(d)}.values()]

    def moves(self, lock_key: str) -> bool:
        return any(self._moves(d) for key, _, d in self._rows() if key == lock_key)

    def _moves(self, found: kit.Distribution) -> bool:
        return self.upgrade is not None and (not self.upgrade or found.name in self.upgrade)

    def _rows(self) -> Iterator[tuple[str, str, kit.Distribution]]:
        """Yield all that is locked, with its entry and its Python."""
        for name, entry in self.lock.environments.items():
            for found in chain(entry.packages, *entry.groups.values()):
                yield "", name.partition(":")[0], found
        for lock_key, fork in self.lock.forks.items():
            for python, build in fork.builds.items():
                yield from ((lock_key, python, found) for found in build.build_requires)


def _lock_forks(
    project: Project, before: _Before, chosen: Collection[str], *, force: bool
) -> dict[str, manifest.ForkLock]:
    entries: dict[str, manifest.ForkLock] = {}
    pythons = {*project.manifest.environment.python}
    for fork in project.manifest.all_variants:
        entry = before.lock.forks.get(fork.lock_key)
        complete = entry and resolve.is_current(entry, fork) and entry.builds.keys() >= pythons
        if fork.name in chosen or not complete:
            again = (force or before.moves(fork.lock_key)) and fork.name in chosen
            try:
                required_variables(fork)
                if fork.variant and complete and again and (gone := missing_tools(fork)):
                    # Without them, its entry could only become a worse one.
                    raise absence(["its entry is kept"], gone)
                entry = resolve.lock_fork(project, fork, entry, before.known, again=again)
            except kit.MachineError as err:
                # Another variant's toolchain is seldom on the same machine.
                if not fork.variant:
                    raise
                project.progress.say(f"{fork.lock_key} is not locked here: {err.message}")
        if entry:
            entries[fork.lock_key] = entry
    return entries


def _known_graphs(
    project: Project, old: manifest.Lock, lock: manifest.Lock
) -> dict[tuple[str, str], manifest.PinGraph]:
    """Return what forks.inventory has that is true of the pins and settings in the lock."""
    file, graphs = manifest.InventoryFile.read(project.manifest.inventory_path), {}
    for lock_key, entry in lock.forks.items():
        with contextlib.suppress(kit.ManifestError):
            file.check(lock_key, old.forks[lock_key].inventory if lock_key in old.forks else "")
            for python in entry.builds:
                graph = file.graph(lock_key, python)
                if graph and (graph.tree, graph.settings) == (entry.tree, entry.settings):
                    graphs[lock_key, python] = graph
    return graphs


def _follow(
    project: Project,
    lock: manifest.Lock,
    chosen: Collection[str],
    known: Collection[tuple[str, str]],
) -> dict[tuple[str, str], manifest.PinGraph]:
    """Configure the pins of `chosen` forks, for what is not known."""
    found: dict[tuple[str, str], manifest.PinGraph] = {}
    for fork in project.manifest.all_variants:
        entry = lock.forks.get(fork.lock_key)
        for python, build in entry.builds.items() if entry and fork.name in chosen else ():
            context = project.context.for_python(python)
            if (key := (fork.lock_key, python)) not in known and (
                graph := _pin_graph(context, fork, build)
            ):
                found[key] = graph
    return found


def _trace(
    project: Project, chosen: Collection[str], graphs: Mapping[tuple[str, str], manifest.PinGraph]
) -> dict[tuple[str, str], manifest.PinGraph]:
    """Return all graphs, each with what it lacks of the series; nothing if no series changed."""
    found = dict(graphs)
    for fork in project.manifest.all_variants:
        for python in project.manifest.environment.python if fork.name in chosen else ():
            if graph := graphs.get((fork.lock_key, python)):
                # With the lock that was just written.
                here = replace(project, python_option=python, variant=fork.variant or None)
                traced = _trace_series(here, fork, graph)
                found[fork.lock_key, python] = replace(graph, series=traced)
    return found if found != graphs else {}


def _trace_series(
    project: Project, fork: manifest.Fork, graph: manifest.PinGraph
) -> manifest.SeriesTrace | None:
    """Return what the graph does not tell of the fork's series; None where it tells all."""
    try:
        tree = patched_tree(project, fork)
        if graph.series and graph.series.tree == tree.tree:
            return graph.series
        planner = Planner(project, tree, configure=True)
        if base := upstream_base(project, fork):
            planner.decide(base, planner.repo.changes(tree.source.tree, tree.tree))
    except (
        kit.BuildError,
        kit.InputError,
        kit.MachineError,
        kit.ManifestError,
        kit.PatchError,
    ) as err:
        project.progress.say(f"{fork.lock_key}: its series is not followed here: {err.message}")
        return None
    return planner.traced.noted(tree.tree) if planner.traced else None


def _pin_graph(
    context: kit.Context, fork: manifest.Fork, build: manifest.ForkBuild
) -> manifest.PinGraph | None:
    source = fetch_pin(context, fork)
    # A project of another backend, or a pure one: every change of it is a compile, or copied.
    if not backend_kind(source).steps or build.inventory.pure or not build.inventory.built:
        return None
    configured = without_missing_tools(fork)
    inputs = BuildInputs(context=context, fork=configured, build=build, epoch=source.epoch)
    present: Collection[str] = ()
    wheel: WheelFile | None = None
    if build.base:
        wheel = read_wheel(resolve.base_wheel(context, fork, build.base))
        present = output_names(wheel.entries, wheel.name)
    context.progress.say(f"{fork.lock_key}: following what its built files are made from")
    try:
        graph = graph_of_pin(source, inputs, present)
        scripted = backend_kind(source).steps == "python"
        return with_steps(graph, source, inputs, wheel) if scripted else graph
    except (kit.BuildError, kit.MachineError) as err:
        # Wheels without a change of compiled code need neither.
        why = err.message.removeprefix(f"{fork.lock_key}: ")
        context.progress.say(f"{fork.lock_key}: not followed here: {why}")
        return None
