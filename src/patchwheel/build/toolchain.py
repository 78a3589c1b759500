"""Which compilers, linker and CUDA compiler a build uses, identified by all that they consist of.

`gcc` is only a driver: the version that it prints can stay while cc1plus changes. So a tool's
identity is its version and the sha256 of every program and library that it brings into a build.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchwheel.kit import MachineError, Store, digest, file_sha256, process, state
from patchwheel.manifest import Fork

OS_RELEASE = Path("/etc/os-release")
ALWAYS = ("gcc", "g++")
# Programs of a manifest that mean a whole toolkit, and how a library is named among them.
CUDA, HIPCC = "cuda", "hipcc"
LIBRARY = "pkg-config:"
# Rust, whose compiler stands beside it.
CARGO = "cargo"
RUSTUP = ("RUSTUP_HOME", "RUSTUP_TOOLCHAIN")
CARGO_CONFIG = """\
source.crates-io.replace-with = "vendored"
source.vendored.directory = {}
net.offline = true
"""
# The sums of a crate's files, in its folder.
CRATE = ".cargo-checksum.json"
# The variable that names another program, for us and for builds.
VARIABLES = {"gcc": "CC", "g++": "CXX", "gfortran": "FC"}
# Those of CPython's own release builds.
OPTIMISED = "-fno-strict-overflow -DNDEBUG -O3 -g0"
# The passes behind each driver, and the libraries that it links into results.
PASSES = {
    "gcc": ("cc1", "as", "ld", "collect2", "lto1"),
    "g++": ("cc1plus",),
    "gfortran": ("f951",),
}
LIBRARIES = {
    "gcc": ("libc.so.6", "libgcc_s.so.1", "libgomp.so", "crti.o"),
    "g++": ("libstdc++.so",),
    "gfortran": ("libgfortran.so", "libquadmath.so"),
}
# What is read or run beside the program: backends take settings from the interpreter's own build.
BESIDE = {
    "nvcc": ("bin/*", "nvvm/bin/*"),
    "cargo": ("bin/rustc", "lib/librustc_driver-*.so", "lib/rustlib/*/lib/libstd-*"),
    "hipcc": ("include/hip/hip_version.h", "lib/llvm/bin/clang-[0-9]*"),
    "python": (
        "lib/python3*/_sysconfigdata*.py",
        "include/python3*/pyconfig.h",
        "include/python3*/patchlevel.h",
    ),
}
# Debian's and Red Hat's package of each program; another program is its own package.
PACKAGES = {
    "apt": {"gcc": "gcc libc6-dev", "g++": "g++", "bwrap": "bubblewrap"},
    "dnf": {"gcc": "gcc", "g++": "gcc-c++", "gfortran": "gcc-gfortran"},
}
PACKAGES["dnf"] |= {"bwrap": "bubblewrap", "pkg-config": "pkgconf-pkg-config"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program of the toolchain; `words` start it and may hold a launcher or flags."""

    words: tuple[str, ...]
    program: Path
    version: str
    identity: str


def find(name: str) -> tuple[tuple[str, ...], Path] | None:
    """Return the words that start a tool, by CC, CXX or FC, and its program; None if missing.

    A library such as pkg-config:geos is there when pkg-config has it.
    """
    if name.startswith(LIBRARY):
        place = find("pkg-config")
        argv = [*(place[0] if place else ()), "--exists", name.removeprefix(LIBRARY)]
        return place if place and _answer(argv) is not None else None
    if name == CARGO:
        # rustup's program of this name only starts that of a toolchain.
        env = {key: os.environ[key] for key in RUSTUP if key in os.environ}
        sysroot = _answer(["rustc", "--print", "sysroot"], **env)
        cargo = Path(sysroot or "", "bin", name)
        return ((str(cargo),), cargo) if sysroot and cargo.exists() else None
    words = tuple(shlex.split(os.environ.get(VARIABLES.get(name, ""), "")) or [name])
    programs = [shutil.which(word) for word in words]
    found = [Path(program) for program in programs if program]
    # A launcher such as ccache comes first, and flags are no programs.
    return (words, found[-1]) if programs[0] else None


def _answer(argv: Sequence[str], **env: str) -> str | None:
    """Return what a program says, None where it fails or is not there."""
    with contextlib.suppress(process.CommandError, MachineError):
        return process.capture(argv, cwd=Path("/"), env=process.base_env(**env)).decode().strip()
    return None


def identify(names: Iterable[str], *, store: Store, fork: str = "") -> dict[str, Tool]:
    """Return the named tools; raises one MachineError for all that are missing."""
    places = {name: find(name) for name in names}
    if absent := [name for name, place in places.items() if place is None]:
        raise absence([*filter(None, [fork]), "cannot compile"], absent)
    return {n: identify_program(n, *place, store=store) for n, place in places.items() if place}


def places(tools: Mapping[str, Tool]) -> Iterator[Path]:
    """Give the folders that hold tools, with what belongs to them."""
    for tool in tools.values():
        # Below the folder that a link such as /opt/rocm names, and below the one that it leads to.
        yield from (tool.program.parent.parent, tool.program.resolve().parent.parent)


def plain_flags(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the flags for backends that take them from the interpreter's own build."""
    # Run paths and debug information of the interpreter's build lead into this machine.
    return {
        "LDSHARED": f"{variables.get('CC', 'gcc')} -shared",
        "LDCXXSHARED": f"{variables.get('CXX', 'g++')} -shared",
        "CFLAGS": f"{OPTIMISED} {variables.get('CFLAGS', '')}".strip(),
        "CXXFLAGS": f"{OPTIMISED} {variables.get('CXXFLAGS', '')}".strip(),
    }


def absence(what: Sequence[str], absent: Sequence[str]) -> MachineError:
    """Return the error for programs that are missing, and for what."""
    verb = "is" if len(absent) == 1 else "are"
    named = ", ".join([*absent[:-2], " and ".join(absent[-2:])])
    hint = f"{install_command(absent)}; `patchwheel doctor` shows everything that is missing"
    return MachineError(f"{': '.join(what)}: {named} {verb} not installed", hint=hint)


def install_command(names: Sequence[str]) -> str:
    """Return the command that installs programs and libraries on this distribution."""
    manager = _manager()
    packages = " ".join(_package(manager, name) for name in names)
    if not manager:
        return f"install {packages} with your distribution's package manager"
    return f"sudo {'apt-get' if manager == 'apt' else manager} install {packages}"


def _package(manager: str, name: str) -> str:
    library = name.removeprefix(LIBRARY)
    if library == name:
        return PACKAGES.get(manager, {}).get(name, name)
    # Red Hat's packages say which files of pkg-config they have; Debian's names follow a habit.
    debian = f"pkg-config lib{library.removeprefix('lib')}-dev"
    return {"apt": debian, "dnf": f"'pkgconfig({library})'"}.get(manager, library)


def key(tools: Mapping[str, Tool]) -> str:
    return digest({name: tool.identity for name, tool in tools.items()})


def identify_program(name: str, words: Sequence[str], program: Path, *, store: Store) -> Tool:
    """Return a tool whose place is known."""
    # gcc takes these from PATH where it has none of its own.
    helpers = [shutil.which(helper) for helper in ("as", "ld")]
    version, files = store.cached(
        "tools",
        tuple[str, dict[str, tuple[tuple[int, ...], str]]],
        [2, name, list(words), str(program.resolve()), state(program), helpers],
        lambda: (_version(name, words), _contents(name, words, program)),
        valid=lambda known: all(state(Path(p)) == then for p, (then, _) in known[1].items()),
    )
    # Where the files lie does not matter, what they are called and hold does.
    contents = sorted((Path(path).name, sha256) for path, (_, sha256) in files.items())
    return Tool(
        words=tuple(words),
        program=program,
        version=version,
        identity=digest([Path(word).name for word in words], version, contents),
    )


def _contents(
    name: str, words: Sequence[str], program: Path
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return what it consists of, with the state and the sha256 of each file."""
    paths = {program.resolve()}
    asked = [f"-print-prog-name={part}" for part in PASSES.get(name, ())]
    asked += [f"-print-file-name={part}" for part in LIBRARIES.get(name, ())]
    for option in asked:
        answer = Path(_ask([*words, option]))
        if not answer.is_absolute() and (other := shutil.which(str(answer))):
            answer = Path(other)
        if answer.is_absolute() and answer.exists():
            paths.add(answer.resolve())
    if name.startswith(LIBRARY):
        paths |= _library(words, name.removeprefix(LIBRARY))
    prefix = program.resolve().parent.parent
    for pattern in BESIDE.get(name, ()):
        paths |= {path for path in prefix.glob(pattern) if path.is_file()}
    return {str(path): (state(path), file_sha256(path)) for path in sorted(paths)}


def _library(words: Sequence[str], name: str) -> set[Path]:
    """Return a library's file of pkg-config, and what is linked with."""
    folder, place = (_ask([*words, f"--variable={v}", name]) for v in ("pcfiledir", "libdir"))
    links = _ask([*words, "--libs-only-l", name]).split()
    paths = [Path(folder, f"{name}.pc"), *(Path(place, f"lib{x[2:]}.so") for x in links)]
    return {path.resolve() for path in paths if path.is_file()}


def _version(name: str, words: Sequence[str]) -> str:
    library = name.startswith(LIBRARY)
    asked = ["--modversion", name.removeprefix(LIBRARY)] if library else ["--version"]
    lines = [line for line in _ask([*words, *asked]).splitlines() if line.strip()]
    return next((line for line in lines if "release" in line), lines[0] if lines else "unknown")


def _ask(words: Sequence[str]) -> str:
    try:
        out = process.capture(words, cwd=Path("/"), env=process.base_env())
    except process.CommandError as err:
        hint = "install it again, or point CC, CXX or FC to another"
        raise MachineError(f"{words[0]} does not work", tail=err.tail, hint=hint) from err
    return out.decode(errors="replace").strip()


def _manager() -> str:
    try:
        text = OS_RELEASE.read_text()
    except OSError:
        return ""
    if "debian" in text or "ubuntu" in text:
        return "apt"
    if any(word in text for word in ("fedora", "rhel", "centos")):
        return "dnf"
    return ""


def compilers(fork: Fork) -> list[str]:
    return list(dict.fromkeys([*ALWAYS, *(name for name in fork.programs if name != CUDA)]))


def missing_tools(fork: Fork) -> list[str]:
    """Return the compilers, programs and libraries that this machine lacks."""
    return [name for name in compilers(fork) if find(name) is None]


def crates(fork: Fork, *, needed: bool = True) -> Path | None:
    """Return the folder of the fork's vendored crates; where it is `needed`, or MachineError."""
    if fork.crates is None:
        return None
    folder = fork.patches.parent.parent / fork.crates
    if next(folder.glob(f"*/{CRATE}"), None) is None:
        if not needed:
            return None
        raise MachineError(
            f"{fork.lock_key}: there are no crates in the folder that forks.toml names",
            where=folder,
            expected="one folder a crate, as `cargo vendor` writes them",
            hint=f"in the project's source: cargo vendor --locked {folder}",
        )
    return folder.resolve()


def use_crates(folder: Path | None, home: Path) -> None:
    """Let cargo take crates from a folder, with a home in which no step has run yet."""
    if folder:
        (home / ".cargo").mkdir()
        # A string of JSON is one of TOML.
        text = CARGO_CONFIG.format(json.dumps(str(folder)))
        (home / ".cargo" / "config.toml").write_text(text)


def crates_part(folder: Path) -> str:
    """Digest what is in a folder of crates; cargo compares their files with these sums."""
    return digest({str(p.parent.name): file_sha256(p) for p in folder.glob(f"*/{CRATE}")})


def check_machine(fork: Fork, *, store: Store) -> None:
    """Raise MachineError when a compile of the fork lacks variables or programs here."""
    required_variables(fork)
    identify(compilers(fork), store=store, fork=fork.lock_key)


def required_variables(fork: Fork) -> dict[str, str]:
    """Return the variables in `required-env`; raises MachineError for one that is not set."""
    if unset := [name for name in fork.required_env if not os.environ.get(name)]:
        raise MachineError(
            f"{fork.lock_key}: {' and '.join(unset)} must be set",
            expected="what to build for: `required-env` in forks.toml names it, nothing is guessed",
            hint=f"run the command again with {unset[0]}=VALUE",
        )
    return {name: os.environ[name] for name in fork.required_env}


def without_missing_tools(fork: Fork) -> Fork:
    """Return the fork without the tools that this machine lacks and that a graft can do without."""
    gone = [t for t in compilers(fork) if t in fork.without and find(t) is None]
    settings = dict(fork.config_settings)
    for tool in gone:
        for key, value in fork.without[tool].items():
            parts = [(v,) if isinstance(v, str) else v for v in (settings.get(key, ()), value)]
            settings[key] = (*parts[0], *parts[1])
    programs = tuple(tool for tool in fork.programs if tool not in gone)
    return replace(fork, config_settings=settings, programs=programs)
