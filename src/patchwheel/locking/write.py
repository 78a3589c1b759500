"""Writes forks.lock: the one place where anything is resolved. What did not change since the last lock is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchwheel.build.backend import check_machine
from patchwheel.kit.errors import MachineError
from patchwheel.locking.resolve import Locker, current
from patchwheel.manifest.lock import Lock, environment_inputs, save_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from patchwheel.build.sandbox import Wanted
    from patchwheel.kit.interpreter import Interpreter
    from patchwheel.kit.progress import Report
    from patchwheel.kit.store import Store
    from patchwheel.manifest.model import Fork, Manifest
    from patchwheel.source.index import IndexConfig


def write_lock(
    manifest: Manifest,
    old: Lock | None,
    *,
    forks: Sequence[Fork] = (),
    interpreter: Callable[[str], Interpreter],
    store: Store,
    index: Callable[[], IndexConfig],
    report: Report,
    offline: bool = False,
    sandbox: Wanted = "auto",
    force: bool = False,
) -> Lock:
    """Lock `forks`, all of them for none, and the environment; write forks.lock and return it.

    A pin that was configured before, with the same settings, is not configured again unless `force` is set; nor is
    the environment resolved again. `interpreter` finds the Python of a version.
    """
    locker = Locker(
        manifest=manifest,
        interpreter=interpreter,
        store=store,
        index=index,
        report=report,
        offline=offline,
        sandbox=sandbox,
    )
    chosen = {fork.name for fork in forks} or set(manifest.forks)
    pythons = manifest.environment.python
    found = {}
    for fork in manifest.every:
        entry = old.forks.get(fork.locked_as) if old else None
        complete = entry and current(entry, fork) and entry.builds.keys() >= {*pythons}
        if entry and complete and fork.name not in chosen:
            found[fork.locked_as] = entry
            continue
        again = force and fork.name in chosen
        try:
            check_machine(fork, store=store)
            found[fork.locked_as] = locker.fork(fork, None if again else entry)
        except MachineError as err:
            # Another variant's toolchain is seldom on the same machine.
            if not fork.variant:
                raise
            report.say(f"{fork.locked_as} is not locked here: {err.message}")
            if entry:
                found[fork.locked_as] = entry
    environments = {}
    for python in pythons:
        last = old.environments.get(python) if old else None
        again = force and not forks
        if last and not again and last.inputs == environment_inputs(manifest):
            environments[python] = last
        else:
            environments[python] = locker.environment(python, found)
    lock = Lock(path=manifest.lock_path, environments=environments, forks=found)
    save_lock(lock)
    return lock
