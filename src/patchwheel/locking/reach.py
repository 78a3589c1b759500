"""Writes forks.inventory: what each built output of a pin is made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchwheel.build.configure import can_follow
from patchwheel.build.inputs import BuildInputs
from patchwheel.kit.errors import MachineError
from patchwheel.manifest.inventory import load_reach, save_reach
from patchwheel.plan.pin_reach import reach_of_pin
from patchwheel.source.download import download_file
from patchwheel.source.fetch import fetch_pin
from patchwheel.wheelfile.read import output_names, read_wheel

if TYPE_CHECKING:
    from collections.abc import Collection

    from patchwheel.kit.context import Context
    from patchwheel.manifest.inventory import Reach
    from patchwheel.manifest.lock import ForkBuild, Lock
    from patchwheel.manifest.model import Fork
    from patchwheel.project import Project


def write_reach(project: Project, lock: Lock, chosen: Collection[str], *, force: bool) -> None:
    """Configure the pins of `chosen` forks that the file does not cover, and write it."""
    path, found = project.manifest.inventory_path, {}
    for fork in project.manifest.all_variants:
        entry = lock.forks.get(fork.lock_key)
        for python, build in entry.builds.items() if entry else ():
            old = None if force and fork.name in chosen else load_reach(path, fork.lock_key, python)
            current = old and entry and (old.tree, old.settings) == (entry.tree, entry.settings)
            if fork.name in chosen and not current:
                context = project.context.for_python(python)
                if reach := _reach(context, fork, build):
                    found[fork.lock_key, python] = reach
    save_reach(path, found, keep=lock.forks)


def _reach(context: Context, fork: Fork, build: ForkBuild) -> Reach | None:
    source = fetch_pin(context, fork)
    # A project of another backend, or a pure one: every change of it is a compile, or copied.
    if not can_follow(source) or not build.inventory.built:
        return None
    inputs = BuildInputs(context=context, fork=fork, build=build, epoch=source.epoch)
    try:
        _ = inputs.tools
    except MachineError as err:
        # Another variant's toolchain is seldom on the same machine.
        if not fork.variant:
            raise
        context.progress.say(f"{fork.lock_key}: not followed here: {err.message}")
        return None
    present: Collection[str] = ()
    if build.base:
        name = fork.distribution
        wheel = read_wheel(download_file(context, name, build.base.filename, build.base.sha256))
        present = output_names(wheel.entries, wheel.name)
    context.progress.say(f"{fork.lock_key}: following what its built files are made from")
    return reach_of_pin(source, inputs, present)
