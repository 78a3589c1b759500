"""Write forks.lock and forks.inventory; entries that are current are kept."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

from patchwheel.build import BuildInputs, can_follow, required_variables, without_missing_tools
from patchwheel.kit import BuildError, MachineError, ManifestError
from patchwheel.locking.resolve import base_wheel, is_current, lock_environment, lock_fork
from patchwheel.manifest import (
    Lock,
    environment_inputs,
    environment_key,
    load_pin_graph,
    save_lock,
    save_pin_graph,
)
from patchwheel.plan import graph_of_pin
from patchwheel.source import fetch_pin
from patchwheel.wheelfile import output_names, read_wheel

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from patchwheel.kit import Context
    from patchwheel.manifest import EnvironmentLock, Fork, ForkBuild, ForkLock, PinGraph
    from patchwheel.project import Project


def write_lock(project: Project, names: Sequence[str] = (), *, force: bool = False) -> Lock:
    """Lock the named forks, all of them for none, and the environment; write and return forks.lock.

    With `force`, pins are configured and the environment is resolved again although unchanged.
    """
    manifest = project.manifest
    chosen = {fork.name for fork in manifest.select(names)}
    old = Lock(path=manifest.lock_path, environments={}, forks={})
    # A lock that is missing, or damaged by a merge, is written anew.
    with contextlib.suppress(ManifestError):
        old = project.lock
    forks = _lock_forks(project, old, chosen, force=force)
    environments: dict[str, EnvironmentLock] = {}
    variants = (None, *manifest.other_variants)
    for python, variant in itertools.product(manifest.environment.python, variants):
        chosen_project = replace(project, variant=variant) if variant else project
        inside = chosen_project.manifest
        # A variant that was not locked here has no environment either.
        if {fork.lock_key for fork in inside.forks.values()} <= forks.keys():
            key = environment_key(inside, python)
            entry = old.environments.get(key)
            if not entry or entry.inputs != environment_inputs(inside) or (force and not names):
                entry = lock_environment(chosen_project, python, forks)
            environments[key] = entry
    lock = Lock(path=manifest.lock_path, environments=environments, forks=forks)
    save_lock(lock)
    _write_inventory(project, lock, chosen, force=force)
    return lock


def _lock_forks(
    project: Project, old: Lock, chosen: Collection[str], *, force: bool
) -> dict[str, ForkLock]:
    entries: dict[str, ForkLock] = {}
    pythons = {*project.manifest.environment.python}
    for fork in project.manifest.all_variants:
        entry = old.forks.get(fork.lock_key)
        complete = entry and is_current(entry, fork) and entry.builds.keys() >= pythons
        if fork.name in chosen or not complete:
            again = force and fork.name in chosen
            try:
                required_variables(fork)
                entry = lock_fork(project, fork, None if again else entry)
            except MachineError as err:
                # Another variant's toolchain is seldom on the same machine.
                if not fork.variant:
                    raise
                project.progress.say(f"{fork.lock_key} is not locked here: {err.message}")
        if entry:
            entries[fork.lock_key] = entry
    return entries


def _write_inventory(project: Project, lock: Lock, chosen: Collection[str], *, force: bool) -> None:
    """Configure the pins of `chosen` forks that the file does not cover, and write it."""
    path = project.manifest.inventory_path
    found: dict[tuple[str, str], PinGraph] = {}
    for fork in project.manifest.all_variants:
        entry = lock.forks.get(fork.lock_key)
        for python, build in entry.builds.items() if entry else ():
            old = (
                None
                if force and fork.name in chosen
                else load_pin_graph(path, fork.lock_key, python)
            )
            current = old and entry and (old.tree, old.settings) == (entry.tree, entry.settings)
            if fork.name in chosen and not current:
                pin_graph = _pin_graph(project.context.for_python(python), fork, build)
                found |= {(fork.lock_key, python): pin_graph} if pin_graph else {}
    save_pin_graph(path, found, keep=lock.forks)


def _pin_graph(context: Context, fork: Fork, build: ForkBuild) -> PinGraph | None:
    source = fetch_pin(context, fork)
    # A project of another backend, or a pure one: every change of it is a compile, or copied.
    if not can_follow(source) or not build.inventory.built:
        return None
    configured = without_missing_tools(fork)
    inputs = BuildInputs(context=context, fork=configured, build=build, epoch=source.epoch)
    present: Collection[str] = ()
    if build.base:
        wheel = read_wheel(base_wheel(context, fork, build.base))
        present = output_names(wheel.entries, wheel.name)
    context.progress.say(f"{fork.lock_key}: following what its built files are made from")
    try:
        return graph_of_pin(source, inputs, present)
    except (BuildError, MachineError) as err:
        # Wheels without a change of compiled code need neither.
        context.progress.say(f"{fork.lock_key}: not followed here: {err.message}")
        return None
