"""What a build of one fork depends on besides its tree: the rest of the node key, and its means."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchwheel import wheelfile
from patchwheel.build import cuda, rocm, toolchain
from patchwheel.build.requirements import (
    build_environment,
    env_key,
    environment_key,
    name_of,
)
from patchwheel.build.sandbox import SandboxLevel, detect_sandbox
from patchwheel.kit import Context, Distribution, MachineError, Store, digest
from patchwheel.manifest import Fork, ForkBuild, build_settings

if TYPE_CHECKING:
    from patchwheel.build.backend import BuildSession
    from patchwheel.build.toolchain import Tool

# Raised whenever the same inputs would make different bytes than before.
RECIPE = 3
INTERFACE = (".pxd", ".pxi", ".h", ".hh", ".hpp", ".hxx", ".a")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnWheel:
    """A finished wheel of one of the forks, wherever it was made."""

    fork: str
    path: Path
    sha256: str
    version: str


@dataclass(frozen=True, kw_only=True)
class BuildInputs:
    """The locked inputs of a build; each part is looked up once, when it is first needed."""

    context: Context
    # With the settings that the build uses: a graft's leave out tools that it can do without.
    fork: Fork
    build: ForkBuild
    # The wheels of other forks that it compiles against.
    needs: Sequence[OwnWheel] = ()
    epoch: int

    @functools.cached_property
    def compilers(self) -> dict[str, Tool]:
        """The programs that steps start; raises MachineError for those that are missing."""
        names, store = toolchain.compilers(self.fork), self.context.store
        if not self.build.inventory.compiles(self.fork):
            return {}
        return toolchain.identify(names, store=store, fork=self.fork.lock_key)

    @functools.cached_property
    def tools(self) -> dict[str, Tool]:
        """The whole toolchain: the compilers, Python, and nvcc where the machine has CUDA."""
        programs = {"python": self.context.interpreter.path}
        if toolchain.CUDA in self.fork.programs and cuda.COMPILER not in self.versions:
            programs["nvcc"] = cuda.complete_toolkit() / "bin" / "nvcc"
        return self.compilers | {
            name: toolchain.identify_program(name, [str(path)], path, store=self.context.store)
            for name, path in programs.items()
        }

    @property
    def sandbox(self) -> SandboxLevel | None:
        """The level that steps will run at; None where the required one does not work."""
        with contextlib.suppress(MachineError):
            return detect_sandbox(self.context.sandbox).level
        return None

    @property
    def environment(self) -> Path:
        """The build environment that the lock names; wheels of ours in it are those in `needs`."""
        # A cached_property of Python 3.11 would let the builds of all forks wait for one.
        if "_environment" not in (kept := vars(self)):
            kept["_environment"] = build_environment(self.context, *self._held)
        return Path(kept["_environment"])

    @property
    def has_environment(self) -> bool:
        """Whether the build environment is in the store."""
        if "_environment" not in (kept := vars(self)):
            key = environment_key(self.context, *self._held)
            found = self.context.store.find("build-envs", key)
            # Looking at it takes a stat of each of its files.
            kept |= {"_environment": found} if found else {}
        return "_environment" in kept

    @property
    def _held(self) -> tuple[list[Distribution], list[Path]]:
        ours = self._own_versions()
        locked = [d for d in self.build.build_requires if d.name not in ours]
        return locked, [need.path for need in self.needs]

    @property
    def versions(self) -> dict[str, str]:
        """The versions in the build environment, by normalised name."""
        locked = {d.name: d.version for d in self.build.build_requires}
        return locked | self._own_versions()

    @functools.cached_property
    def toolchain_parts(self) -> dict[str, str]:
        """The parts of the node key that need no other wheel."""
        # A wheel from a weaker sandbox must never answer for one from a stronger.
        level = detect_sandbox(self.context.sandbox).level
        flags = self.flags(self.fork, level)
        return {"env": self.env, "toolchain": toolchain.key(self.tools), "flags": flags}

    @property
    def env(self) -> str:
        return env_key(self.build.build_requires, self.context.interpreter.tag)

    def flags(self, fork: Fork, level: str) -> str:
        """Digest the settings that a build has; MachineError for a variable that is not set."""
        flags: list[object] = [RECIPE, build_settings(fork), self.epoch, level]
        if toolchain.CUDA in fork.programs:
            flags.append(cuda.LAYOUT)
        if fork.required_env:
            flags.append(toolchain.required_variables(fork))
        if folder := toolchain.crates(fork):
            flags.append(toolchain.crates_part(folder))
        if toolchain.HIPCC in fork.programs:
            flags.append(rocm.target(fork))
        return digest(*flags)

    def session(
        self, step: str, *, serial: bool = False
    ) -> contextlib.AbstractContextManager[BuildSession]:
        """Open an empty build directory with the build environment; its log is named `step`."""
        # A plan needs no session: a no-op imports little.
        from patchwheel.build.backend import open_session

        # First, as a missing compiler is found in an instant and an environment takes a while.
        tools = self.compilers
        of = (self.context, self.fork, self.environment)
        return open_session(*of, epoch=self.epoch, step=step, tools=tools, serial=serial)

    def _own_versions(self) -> dict[str, str]:
        return {name_of(need.path.name.partition("-")[0]): need.version for need in self.needs}


def interface_part(wheels: Sequence[OwnWheel], store: Store) -> str:
    """Return the part of the node key for the wheels that a build compiles against."""
    return digest([interface(wheel.path, store) for wheel in wheels])


def interface(wheel: Path, store: Store) -> str:
    """Digest what a compile against a wheel can see: headers, .pxd files, static libraries."""

    def compute() -> str:
        entries = sorted(wheelfile.read_wheel(wheel).entries.items())
        return digest([(n, e.sha256) for n, e in entries if n.endswith(INTERFACE)])

    info = wheel.stat()
    inputs = [str(wheel), info.st_size, info.st_mtime_ns]
    return store.cached("interface", str, inputs, compute)


def build_record(inputs: BuildInputs, session: BuildSession) -> wheelfile.CompileRecord:
    """Return how something was compiled; the caller adds what was built."""
    fork = session.fork
    return wheelfile.CompileRecord(
        build_requirements=inputs.build.build_requires,
        # Not the wheels: a wheel with another label and the same interface leads to the same bytes.
        compiled_against={
            need.fork: interface(need.path, inputs.context.store) for need in inputs.needs
        },
        toolchain={
            name: wheelfile.ToolRecord(version=tool.version, identity=tool.identity)
            for name, tool in inputs.tools.items()
        },
        sandbox=session.build_dir.sandbox.level,
        # As in the manifest: the number of jobs and the folder make no difference.
        config_settings=fork.config_settings,
        env={**fork.env, **toolchain.required_variables(fork)},
        source_date_epoch=session.variables["SOURCE_DATE_EPOCH"],
        built={},
    )
