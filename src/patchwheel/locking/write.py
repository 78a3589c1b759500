"""Writes forks.lock: the one place where anything is resolved. Entries that are current are kept."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

from patchwheel.build.backend import check_machine
from patchwheel.kit.errors import MachineError, ManifestError
from patchwheel.locking.reach import write_reach
from patchwheel.locking.resolve import is_current, lock_environment, lock_fork
from patchwheel.manifest.lock import Lock, environment_inputs, environment_key, save_lock

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from patchwheel.manifest.lock import EnvironmentLock, ForkLock
    from patchwheel.project import Project


def write_lock(project: Project, names: Sequence[str] = (), *, force: bool = False) -> Lock:
    """Lock the named forks, all of them for none, and the environment; write and return forks.lock.

    A pin that was configured before, with the same settings, is not configured again unless `force`
    is set; nor is the environment resolved again.
    """
    manifest = project.manifest
    chosen = {fork.name for fork in manifest.select(names)}
    old = None
    # A lock that is missing, or damaged by a merge, is written anew.
    with contextlib.suppress(ManifestError):
        old = project.lock
    forks = _lock_forks(project, old, chosen, force=force)
    environments: dict[str, EnvironmentLock] = {}
    variants = (None, *manifest.other_variants)
    for python, variant in itertools.product(manifest.environment.python, variants):
        chosen_project = project.with_variant(variant)
        inside = chosen_project.manifest
        if any(fork.lock_key not in forks for fork in inside.forks.values()):
            continue
        key = environment_key(inside, python)
        last = old.environments.get(key) if old else None
        again = force and not names
        if last and not again and last.inputs == environment_inputs(inside):
            environments[key] = last
        else:
            environments[key] = lock_environment(chosen_project, python, forks)
    lock = Lock(path=manifest.lock_path, environments=environments, forks=forks)
    save_lock(lock)
    write_reach(project, lock, chosen, force=force)
    return lock


def _lock_forks(
    project: Project, old: Lock | None, chosen: Collection[str], *, force: bool
) -> dict[str, ForkLock]:
    entries: dict[str, ForkLock] = {}
    pythons = {*project.manifest.environment.python}
    for fork in project.manifest.all_variants:
        entry = old.forks.get(fork.lock_key) if old else None
        complete = entry and is_current(entry, fork) and entry.builds.keys() >= pythons
        if entry and complete and fork.name not in chosen:
            entries[fork.lock_key] = entry
            continue
        again = force and fork.name in chosen
        try:
            check_machine(fork, store=project.store)
            entries[fork.lock_key] = lock_fork(project, fork, None if again else entry)
        except MachineError as err:
            # Another variant's toolchain is seldom on the same machine.
            if not fork.variant:
                raise
            project.progress.say(f"{fork.lock_key} is not locked here: {err.message}")
            if entry:
                entries[fork.lock_key] = entry
    return entries
