"""Runs in a build environment: lists what a backend would put into a wheel, and what it reads.

Its arguments are the backend, a folder for the answer, the config settings as JSON, and a word.
`requires` and `wheel` call the hooks of PEP 517; `wheel installed` makes only what is installed. Of
`generate`, `list` and `configure`, only the first runs the project's generators, the second only
names their scripts. After it comes how to ask: `meson` configures the project, for `setuptools` the
extension modules stay empty: nothing is compiled. Otherwise the backend builds the wheel, which
tells. With `build` and a JSON list of their paths in the wheel, setuptools builds these extension
modules into the folder, and nothing else; with `record`, it is noted how it would. With `replay`
and a JSON file of such steps, these make the modules. This is what module_steps.py does.
"""

# It watches paths as the strings that are opened, and backends show no more than this.
# ruff: noqa: PTH100, PTH101, PTH103, PTH113, PTH118, PTH120, PTH123, SLF001

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shlex
import subprocess  # noqa: TID251
import sys
import traceback
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

LOG = "PATCHWHEEL_INSPECT_LOG"
ROOT = "PATCHWHEEL_INSPECT_ROOT"
BACKEND_PATH = "PATCHWHEEL_BACKEND_PATH"
# As the inventory says it of a script that was not run.
ANYTHING = "*"
# A transpiler's product is not needed to see what generators read, and costs minutes.
TRANSPILERS = ("cython", "cython3", "pythran")
STUB = """#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in
    -o|--output-file) shift; : > "$1";;
    -o?*) : > "${1#-o}";;
    --output-file=*) : > "${1#*=}";;
  esac
  shift
done
"""
# Meson's rules for what custom_target() and generator() make. It runs itself by other rules too, on
# a finished library for example: with a vendored meson that would pass for a script of the project.
GENERATOR_RULES = ("CUSTOM_COMMAND", "CUSTOM_COMMAND_DEP")


def list_meson(settings: dict[str, Any], out: str, mode: str) -> dict[str, Any]:
    """Return meson-python's outputs by origin, and the files that decide or feed the build.

    The idle ones are scripts of the project that were not run: nobody knows what they read.
    """
    mesonpy: Any = importlib.import_module("mesonpy")
    found = {}

    def install(_self: object, _wheel: object, origin: Any, name: Any, *_: object) -> None:
        found[name.as_posix()] = os.fspath(origin)

    mesonpy.Project.build = lambda _self: None
    mesonpy._is_native = lambda _path: False
    mesonpy._WheelBuilder._install_path = install
    mesonpy.build_wheel(out, settings)
    build = settings["build-dir"]
    with open(f"{build}/meson-info/intro-buildsystem_files.json") as stream:
        read = set(json.load(stream))
    idle: list[str] = []
    if mode != "configure":
        inputs, idle = _generate(build, found.values(), run=mode == "generate")
        read |= inputs
    return {"outputs": found, "read": [os.path.join(build, path) for path in read], "idle": idle}


def list_cmake(backend: str, settings: dict[str, Any], out: str, mode: str) -> dict[str, Any]:
    """Return scikit-build-core's outputs by origin, as list_meson does, and what its wheel says."""
    cmake: Any = importlib.import_module("inspect_cmake")
    build_wheel, build = _hooks(backend).build_wheel, settings["build-dir"]
    found: dict[str, Any] = cmake.listed(build_wheel, settings, out, os.environ[ROOT])
    if mode != "configure" and Path(build, "build.ninja").exists():
        inputs, idle = _generate(build, found["outputs"].values(), run=mode == "generate")
        found["read"] += inputs
        found["idle"] += idle
    return found


def _generate(build: str, installed: Iterable[str], *, run: bool) -> tuple[set[str], list[str]]:
    """Run the generators, return the inputs of all of ninja's commands, and scripts left alone."""
    paths, rows = _ruled(build, installed), json.loads("".join(_told(build, "compdb")))
    # Any other command there may install, delete or publish: no build runs it unasked.
    needed = {*_told(build, "commands", "all", *paths)}
    scripts = {
        row["output"]: _inside(path)
        for row in json.loads("".join(_told(build, "compdb", *GENERATOR_RULES)))
        if row["command"] in needed
        for words in (shlex.split(row["command"]),)
        # CMake has each run in a folder, by `cd FOLDER &&`.
        for word in (words[3:5] if words[0] == "cd" else words[:2])
        for path in (os.path.join(build, word),)
        if _inside(path) and os.path.isfile(path)
    }
    if run and scripts:
        _run_generators(build, scripts)
    read = {word for row in rows for word in shlex.split(row["command"])}
    return read | {*_told(build, "inputs", "all")}, [] if run else [*scripts.values()]


def _ruled(build: str, paths: Iterable[str]) -> list[str]:
    """Return those of some paths that ninja has a rule for, from the build folder."""
    ruled = {row.rpartition(": ")[0] for row in _told(build, "targets", "all")}
    place = os.path.realpath(build)
    return sorted(ruled.intersection(os.path.relpath(os.path.realpath(p), place) for p in paths))


def _ninja(build: str) -> list[str]:
    return [os.environ.get("NINJA", "ninja"), "-C", build]


def _told(build: str, *words: str) -> list[str]:
    return subprocess.check_output([*_ninja(build), "-t", *words], text=True).splitlines()


def _run_generators(build: str, outputs: Iterable[str]) -> None:
    """Run the commands that are scripts of the project, so that what they read is seen."""
    stubs = os.path.join(os.path.dirname(os.environ[LOG]), "stubs")
    os.makedirs(stubs)
    for name in TRANSPILERS:
        path = os.path.join(stubs, name)
        with open(path, "w") as stream:
            stream.write(STUB)
        os.chmod(path, 0o700)
    env = {**os.environ, "PATH": f"{stubs}:{os.environ['PATH']}"}
    # One may want what only a real build makes and fail: what it had read by then was seen.
    subprocess.run([*_ninja(build), "-k", "0", *outputs], env=env, check=False)


def list_other(backend: str, settings: dict[str, Any], out: str, listed_by: str) -> dict[str, Any]:
    """Return the outputs with what setuptools copies them from, its extension modules, the wheel.

    Of another backend, only the wheel tells.
    """
    sources: dict[str, str] = {}
    steps: list[dict[str, Any]] = []
    read: list[str] = []
    if listed_by == "setuptools":
        _follow_setuptools(sources, steps, out)
    file = _hooks(backend).build_wheel(out, settings)
    with zipfile.ZipFile(os.path.join(out, file)) as wheel:
        if sources:
            # What is read from here on is no part of the build.
            importlib.import_module("sitecustomize").__dict__["comparing"] = True
            read += _beside(wheel, sources, out)
            # What it changes on the way is no copy: versioneer writes the version into a file.
            copied = [n for n in sources.keys() & wheel.namelist() if os.path.isfile(sources[n])]
            for name in (n for n in copied if Path(sources[n]).read_bytes() != wheel.read(n)):
                read.append(sources[name])
                sources[name] = out
        found = {name: sources.get(name, out) for name in wheel.namelist()}
    return {"outputs": found, "read": read, "steps": steps if listed_by else None, "wheel": file}


def _beside(wheel: zipfile.ZipFile, sources: dict[str, str], out: str) -> Iterator[str]:
    """Find the copies beside the packages, such as headers; give the sources of scripts.

    A script has another first line in the wheel.
    """
    root = Path(os.environ[ROOT])
    for name in (name for name in wheel.namelist() if ".data/" in name and name not in sources):
        found = (path for path in root.rglob(Path(name).name) if path.is_file())
        named = [path for path in found if root / "build" not in path.parents]
        content = wheel.read(name)
        if len(same := [path for path in named if path.read_bytes() == content]) == 1:
            sources[name] = str(same[0])
        elif content.startswith(b"#!python\n") and len(named) == 1:
            sources[name] = os.path.join(out, name)
            yield str(named[0])


def _hooks(backend: str) -> Any:
    module, _, attribute = backend.partition(":")
    hooks = importlib.import_module(module)
    return getattr(hooks, attribute) if attribute else hooks


def _follow_setuptools(sources: dict[str, str], steps: list[dict[str, Any]], out: str) -> None:
    watcher: Any = importlib.import_module("sitecustomize")
    distribution: Any = importlib.import_module("setuptools.dist").Distribution
    real = distribution.run_command

    def run_command(self: Any, name: str) -> None:
        command = self.get_command_obj(name)
        command.ensure_finalized()
        if name in {"build_ext", "build_clib"} and not self.have_run.get(name):
            self.have_run[name] = True
            if name == "build_clib":
                for _, library in command.libraries or ():
                    inputs = list(map(os.fspath, library["sources"]))
                    steps.append({"outputs": [], "inputs": inputs})
            for extension in getattr(command, "extensions", None) or ():
                path = command.get_ext_fullpath(extension.name)
                output = os.path.relpath(path, command.build_lib)
                steps.append({"outputs": [f"//{output}"], **_describe(extension)})
                sources[output] = os.path.join(out, output)
            for path in command.get_outputs() if name == "build_ext" else ():
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb"):
                    pass
        watcher.shipping = name == "build_py" or watcher.shipping
        real(self, name)
        if name == "build_py":
            watcher.shipping = False
            for path, source in command.get_output_mapping().items():
                output = os.path.relpath(path, command.build_lib)
                sources[output] = os.path.abspath(source)

    distribution.run_command = run_command


def _describe(extension: Any) -> dict[str, Any]:
    """Return what an extension module is made from, the macros apart: not every file uses them."""
    known = {k: v for k, v in vars(extension).items() if not k.startswith("_")}
    inputs = [os.fspath(path) for k in ("sources", "depends") for path in known.pop(k, ())]
    # None is another value than "", a name alone undefines it, and some give numbers or versions.
    defined = known.pop("define_macros", ())
    macros = [[name, json.dumps(value, default=str)] for name, *value in defined]
    command = json.dumps(known, sort_keys=True, default=str)
    return {"inputs": inputs, "macros": macros, "command": command}


def main() -> None:
    backend, out, given, mode, *more = sys.argv[1:]
    settings: dict[str, Any] = json.loads(given)
    # Before all else: a project may bring a backend by the name of a well-known one.
    sys.path[:0] = filter(None, os.environ.get(BACKEND_PATH, "").split(":"))
    answer: object
    if mode in {"requires", "wheel"}:
        answer = call(backend, settings, out, mode, *more)
    elif mode in {"generate", "list", "configure"}:
        answer = listed(backend, settings, out, mode, *more)
    else:
        beside: Any = importlib.import_module("module_steps")
        answer = beside.build_modules(
            lambda: _hooks(backend).build_wheel(out, settings), out, mode, *more
        )
    with open(os.path.join(out, "answer.json"), "w") as stream:
        json.dump(answer, stream)


def call(backend: str, settings: dict[str, Any], out: str, mode: str, *only: str) -> object:
    """Return what a hook of PEP 517 returns."""
    try:
        hooks = _hooks(backend)
    except ImportError:
        traceback.print_exc()
        sys.exit(os.EX_UNAVAILABLE)
    if mode == "wheel":
        if only:
            only_installed(settings["build-dir"])
        return str(hooks.build_wheel(out, settings))
    # It need not have this one.
    hook: Any = getattr(hooks, "get_requires_for_build_wheel", None)
    return [*map(str, hook(settings))] if hook else []


def only_installed(build: str) -> None:
    """Let meson-python make what is installed: `all` is also what only tests and benchmarks use.

    For SciPy that is a sixth of all steps.
    """
    mesonpy: Any = importlib.import_module("mesonpy")
    real = mesonpy.Project.build

    def build_installed(self: Any) -> None:
        installed = json.loads(Path(build, "meson-info/intro-installed.json").read_text("utf-8"))
        # One that configuring made has no rule. With none of them, ninja would make all.
        if wanted := _ruled(build, installed):
            self._meson_args["compile"].extend(wanted)
            real(self)

    mesonpy.Project.build = build_installed


def listed(
    backend: str, settings: dict[str, Any], out: str, mode: str, listed_by: str
) -> dict[str, Any]:
    """Return the outputs, by where they are from, what is read, and what is done."""
    if listed_by == "meson":
        found = list_meson(settings, out, mode)
    elif listed_by == "cmake":
        found = list_cmake(backend, settings, out, mode)
    else:
        found = list_other(backend, settings, out, listed_by)
    steps, read = found.get("steps"), found["read"]
    build = os.path.join(os.path.realpath(settings.get("build-dir", out)), "")
    origins = {}
    for name, path in found["outputs"].items():
        whole = os.path.realpath(path)
        if whole.startswith(build):
            origins[name] = "//" + whole.removeprefix(build)
        else:
            origins[name] = _inside(path) or "//"
    for step in steps or ():
        # One that is not there is made on the way, nobody knows from what.
        step["inputs"] = [_inside(p) or p for p in step["inputs"] if not _of_machine(p, out)]
        if mode != "configure":
            read.extend(step["inputs"])
    opened: dict[str, set[str]] = {}
    for row in Path(os.environ[LOG]).read_bytes().decode(errors="surrogateescape").split("\0")[:-1]:
        script, _, name = row.partition("\n")
        opened.setdefault(script, set()).add(name)
    opened |= {script: {ANYTHING} for script in found.get("idle", ())}
    return {
        "outputs": origins,
        "reads": sorted({*map(_inside, read), *opened.pop("", ())}),
        "opened_by_script": {script: sorted(names) for script, names in opened.items()},
        "steps": steps,
        **{name: found[name] for name in ("wheel", "metadata", "stripped") if name in found},
    }


def _of_machine(path: str, out: str) -> bool:
    """Whether it is a header of the system or of the environment, which no change of ours makes."""
    made = os.path.realpath(path).startswith(os.path.join(os.path.realpath(out), ""))
    return Path(path).is_absolute() and os.path.isfile(path) and not (made or _inside(path))


def _inside(path: str) -> str:
    """Return a path relative to the source root, or nothing when it is elsewhere."""
    root = os.path.join(os.path.realpath(os.environ[ROOT]), "")
    path = os.path.realpath(path)
    return path.removeprefix(root) if path.startswith(root) else ""


if __name__ == "__main__":
    main()
