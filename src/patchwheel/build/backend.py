"""Calls a project's PEP 517 backend in a room: with a fixed environment, and every path the same on every machine."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from patchwheel.build import cuda, rocm, toolchain
from patchwheel.build.requirements import build_system, site_packages
from patchwheel.build.sandbox import detect, open_room
from patchwheel.kit import process
from patchwheel.kit.errors import BuildError, MachineError, ManifestError
from patchwheel.manifest.lock import RELOCK

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyproject_hooks import BuildBackendHookCaller

    from patchwheel.build.requirements import BuildSystem, Shop
    from patchwheel.build.sandbox import Room
    from patchwheel.build.toolchain import Tool
    from patchwheel.kit.progress import Report
    from patchwheel.kit.store import Store
    from patchwheel.manifest.model import Fork

NINJA = re.compile(r"\[(\d+)/(\d+)\] ")
# Behind the prefix of a logger in newer setuptools.
BUILDING = re.compile(r"\bbuilding '[\w.]+' extension")
CUDA = "cuda"
# A library that build steps load before all others, for comparing builds. Not for users.
CLOCK = "PATCHWHEEL_CLOCK"
HIPCC = "hipcc"
# Those of CPython's own release builds.
OPTIMISED = "-fno-strict-overflow -DNDEBUG -O3 -g0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """A room with a build environment, and what its steps are started with.

    Put the sources into `source` (a folder of the host) first.
    """

    fork: Fork
    room: Room
    python: Path
    variables: Mapping[str, str]
    tools: Mapping[str, Tool]
    jobs: int
    log: Path
    report: Report

    @property
    def source(self) -> Path:
        return self.room.work / "src"

    def system(self) -> BuildSystem:
        return build_system(self.source)

    def step(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        what: str | None = None,
    ) -> None:
        """Run one command in the room, the sources by default; its output goes to the log and to the progress.

        Raises BuildError that says `what` went wrong when it fails.
        """
        with self._translated(what or f"{Path(argv[0]).name} failed"):
            self._run(argv, cwd=cwd or self.source)

    def dynamic_requirements(self) -> list[str]:
        """Ask the backend what else it needs to build a wheel; that runs the project's code, in the room."""
        with self._translated("the build requirements cannot be asked for"):
            answer = self._hooks().get_requires_for_build_wheel(self.settings())
        return [str(line) for line in answer]

    def build_wheel(self) -> Path:
        """Build the wheel and return its path on the host."""
        out = str(self.room.inside / "out")
        with self._translated("the build failed"):
            name = self._hooks().build_wheel(out, self.settings())
        wheel = self.room.work / "out" / Path(name).name
        if not wheel.is_file():
            raise BuildError(
                f"{self.fork.name}: the backend says that it built {name}, which is not there",
                log=self.log,
            )
        return wheel

    def settings(self) -> dict[str, str | list[str]]:
        """Return the config settings: the manifest's, and for meson-python where and how parallel to build."""
        found: dict[str, str | list[str]] = {
            key: self.expanded(value)
            if isinstance(value, str)
            else [self.expanded(v) for v in value]
            for key, value in self.fork.config_settings.items()
        }
        if self.system().is_meson:
            # Without it every build has a random folder, which ends up in what it makes.
            found.setdefault("build-dir", str(self.room.inside / "meson"))
            found.setdefault("compile-args", f"-j{self.jobs}")
        return found

    def expanded(self, value: str) -> str:
        return value.replace("{jobs}", str(self.jobs))

    def _hooks(self) -> BuildBackendHookCaller:
        from pyproject_hooks import BuildBackendHookCaller

        system = self.system()
        # It computes with these paths and never opens them: they are the room's.
        return BuildBackendHookCaller(
            str(self.room.inside / "src"),
            system.backend,
            list(system.backend_path),
            runner=self._hook,
            python_executable=str(self.python),
        )

    def _hook(
        self,
        cmd: Sequence[str],
        cwd: str | None = None,  # noqa: ARG002  (always the sources)
        extra_environ: Mapping[str, str] | None = None,
    ) -> None:
        script, exchange = Path(cmd[1]), Path(cmd[3])
        copy = self.room.work / script.name
        copy.write_bytes(script.read_bytes())
        words = [cmd[0], str(self.room.see(copy)), *cmd[2:]]
        self._run(words, cwd=self.source, env=extra_environ or {}, write=[exchange])

    def _flags(self) -> dict[str, str]:
        """Return the compiler flags for backends that take them from the interpreter's own build.

        That build's run paths and debug information lead into this machine; meson has flags of its own.
        """
        if self.system().is_meson:
            return {}
        flags = {"LDSHARED": f"{self.variables['CC']} -shared"}
        flags["LDCXXSHARED"] = f"{self.variables['CXX']} -shared"
        for name in ("CFLAGS", "CXXFLAGS"):
            flags[name] = f"{OPTIMISED} {self.variables.get(name, '')}".strip()
        return flags

    def _run(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path,
        env: Mapping[str, str] = MappingProxyType({}),
        write: Sequence[Path] = (),
    ) -> None:
        progress = Progress(self.fork.name, self.report)
        try:
            self.room.run(
                argv,
                cwd=cwd,
                env={**self.variables, **self._flags(), **env},
                log=self.log,
                on_line=progress,
                write=write,
            )
        finally:
            progress.end()

    @contextlib.contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        from pyproject_hooks import BackendUnavailable

        try:
            yield
        except BackendUnavailable as err:
            raise ManifestError(
                f"{self.fork.name}: the build environment has no backend {self.system().backend}",
                tail=str(err).splitlines()[-5:],
                hint=RELOCK,
            ) from err
        except process.CommandError as err:
            raise BuildError(
                f"{self.fork.name}: {what}",
                tail=err.tail,
                log=err.log,
                hint="correct what the log points to; `patchwheel doctor` checks the machine",
            ) from err


class Progress:
    """Turns the lines of ninja, or of Cython and setuptools, into progress."""

    def __init__(self, name: str, report: Report) -> None:
        self.what = f"compiling {name}"
        self.report = report
        self.done = self.built = 0

    def __call__(self, line: str) -> None:
        total = None
        if match := NINJA.match(line):
            self.done, total = int(match[1]), int(match[2])
        elif BUILDING.search(line):
            # Cython, which counts as ninja does, went before.
            self.done = self.built = self.built + 1
        else:
            return
        self.report.progress(self.what, self.done, total)

    def end(self) -> None:
        if self.done:
            self.report.progress(self.what, self.done, self.done)


@contextlib.contextmanager
def open_workplace(
    fork: Fork, environment: Path, shop: Shop, *, epoch: int, step: str
) -> Iterator[Workplace]:
    """Give an empty workplace with a build environment; raises MachineError when a compiler is missing."""
    interpreter, store = shop.interpreter, shop.store
    tools = toolchain.identify(compilers(fork), store=store)
    toolkit = None
    if CUDA in fork.system:
        toolkit = cuda.complete_toolkit(site_packages(environment))
    read = [interpreter.path.parent.parent]
    programs = [tool.program for tool in tools.values()]
    # Below the folder that a link such as /opt/rocm names, and below the one that it leads to.
    read += [p.parent.parent for one in programs for p in (one, one.resolve())]
    if toolkit and not toolkit.is_relative_to(environment):
        read.append(toolkit)
    if HIPCC in fork.system:
        read.append(rocm.home(fork))
    level = detect(shop.sandbox)
    with open_room(fork.name, sandbox=level, store=store, env=environment, read=read) as room:
        inside = room.see(environment)
        workers = toolchain.worker_count(shop.jobs)
        variables = _variables(room, tools, epoch)
        if library := os.environ.get(CLOCK):
            preloaded = shutil.copy(library, room.work)
            variables["LD_PRELOAD"] = str(room.see(Path(preloaded)))
        if toolkit:
            seen = room.see(toolkit)
            for key, value in cuda.variables(seen).items():
                variables[key] = f"{variables.get(key, '')} {value}".strip()
            variables["PATH"] = f"{seen}/bin:{variables['PATH']}"
        if HIPCC in fork.system:
            variables |= rocm.variables(fork)
        for key, value in {**fork.env, **demanded(fork)}.items():
            variables[key] = value.replace("{jobs}", str(workers))
        yield Workplace(
            fork=fork,
            room=room,
            python=inside / "bin" / "python",
            variables=variables,
            tools=tools,
            jobs=workers,
            log=store.log(fork.name, step),
            report=shop.report,
        )


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


def compilers(fork: Fork) -> list[str]:
    return [*toolchain.ALWAYS, *(name for name in fork.system if name != CUDA)]


def check_machine(fork: Fork, *, store: Store) -> None:
    """Raise MachineError for what a compile of the fork lacks here: variables that it demands, or programs."""
    demanded(fork)
    toolchain.identify(compilers(fork), store=store)


def demanded(fork: Fork) -> dict[str, str]:
    """Return the variables that the fork demands; raises MachineError for one that is not set: none is guessed."""
    if unset := [name for name in fork.demands if not os.environ.get(name)]:
        raise MachineError(
            f"{fork.locked_as}: {' and '.join(unset)} must be set",
            expected="what to build for, as forks.toml demands; it is never guessed from this machine",
            hint=f"set {unset[0]}, such as {unset[0]}=VALUE, and run the command again",
        )
    return {name: os.environ[name] for name in fork.demands}


def _variables(room: Room, tools: Mapping[str, Tool], epoch: int) -> dict[str, str]:
    env = room.env_inside
    assert room.env is not None  # noqa: S101  (a workplace always has one)
    folders = [str(tool.program.parent) for tool in tools.values()]
    packages = sorted(room.env.glob("**/pkgconfig"))
    found = {
        "PATH": ":".join(dict.fromkeys([f"{env}/bin", *folders, "/usr/bin", "/bin"])),
        "HOME": str(room.inside / "home"),
        "TMPDIR": str(room.inside / "tmp"),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SOURCE_DATE_EPOCH": str(epoch),
        # A tree below somebody's checkout must not be taken for a part of it.
        "GIT_CEILING_DIRECTORIES": str(room.inside),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        # Libraries of the environment, such as OpenBLAS, and not the machine's, unless there is no other.
        "PKG_CONFIG_PATH": ":".join(str(room.see(path)) for path in packages),
    }
    for name, variable in toolchain.VARIABLES.items():
        if name in tools:
            # Said explicitly, so that meson does not put a ccache that it finds in front.
            found[variable] = " ".join(tools[name].words)
    if room.sandbox.level != "bwrap":
        mapped = f"-ffile-prefix-map={room.inside}=/build"
        found |= dict.fromkeys(("CFLAGS", "CXXFLAGS", "FFLAGS"), mapped)
        found["NVCC_APPEND_FLAGS"] = f"-Xcompiler={mapped}"
    return found
