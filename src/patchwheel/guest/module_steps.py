"""Beside inspect_build.py in a build environment: makes modules, notes how, and repeats that.

What is noted are the calls of Cython and the commands of compilers, and which files each reads.
Made by them alone, a module needs neither the project's configuration nor what that looks for.
"""

# It deals with paths as the strings that commands have.
# ruff: noqa: PTH100, PTH103, PTH110, PTH118, PTH120, PTH122

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import json
import os
import shlex
import subprocess  # noqa: TID251
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

NOTES = "notes"
METADATA = "embedded_metadata"
SOURCES = (".pyx", ".py", ".c", ".cc", ".cpp", ".cxx")
# What Cython reads of a project and of packages; what it is made of itself, its version tells.
READ = (".pyx", ".pxd", ".pxi")
COMPILERS = {"$CC": "CC", "$CXX": "CXX"}
# Of the header search, these alone are no part of the command.
PATHS = ("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH")


# Set where a project's own code fails on fewer modules than it declares: all stay in its lists.
WHOLE = "PATCHWHEEL_ALL_MODULES"
CONFUSED = (ValueError, LookupError, TypeError, AttributeError, AssertionError)


class Done(BaseException):
    """No error: all that is wanted was built. The backend ignores SystemExit."""


def build_modules(build_wheel: Callable[[], object], out: str, mode: str, asked: str) -> object:
    """Build extension modules with the project's code, note how, or repeat what was noted."""
    if mode == "replay":
        return replay(json.loads(Path(asked).read_bytes()))
    wanted = set(json.loads(asked))
    build_only(build_wheel, out, wanted, record if mode == "record" else None)
    return noted_steps(out) if mode == "record" else sorted(wanted)


def build_only(
    build_wheel: Callable[[], object],
    out: str,
    wanted: set[str],
    before: Callable[[Any, str], None] | None,
) -> None:
    """Ask for a wheel, and stop when the wanted extension modules are built."""
    distribution: Any = importlib.import_module("setuptools.dist").Distribution
    real = distribution.run_command

    def run_command(self: Any, name: str) -> None:
        if name != "bdist_wheel":
            real(self, name)
            return
        command = self.get_command_obj("build_ext")
        command.ensure_finalized()
        # As build_ext itself has it while it runs, whatever setup.cfg says.
        command.build_lib, command.inplace = os.path.join(out, ""), False

        def is_wanted(extension: Any) -> bool:
            return os.path.relpath(command.get_ext_fullpath(extension.name), out) in wanted

        if not (whole := WHOLE in os.environ):
            # A project may go over either list, to run Cython on it or to build it.
            found = [extension for extension in command.extensions if is_wanted(extension)]
            self.ext_modules[:] = command.extensions[:] = found
        if before:
            before(command, out)
        build = command.build_extension
        command.build_extension = lambda extension: is_wanted(extension) and build(extension)
        try:
            real(self, "build_ext")
        except CONFUSED:
            if whole:
                raise
            sys.stdout.flush()
            os.execve(sys.executable, sys.orig_argv, {**os.environ, WHOLE: ""})  # noqa: S606
        raise Done

    distribution.run_command = run_command
    with contextlib.suppress(Done):
        build_wheel()


def record(command: Any, out: str) -> None:
    """Let a build_ext command note the steps of its modules; of compiles, only what they read."""
    current, notes = threading.local(), os.path.join(out, NOTES)
    build, build_all = command.build_extension, command.build_extensions
    # Other sources may have a program that does more than to compile.
    command.extensions[:] = [
        e for e in command.extensions if all(os.fspath(p).endswith(SOURCES) for p in e.sources)
    ]

    def build_extensions() -> None:
        # Now it has its compiler. Older releases of setuptools have `spawn` only.
        name = "call" if hasattr(command.compiler, "call") else "spawn"
        setattr(command.compiler, name, functools.partial(noted, getattr(command.compiler, name)))
        build_all()

    def build_extension(extension: Any) -> None:
        output = os.path.relpath(command.get_ext_fullpath(extension.name), out)
        current.output, current.step = output, 0
        build(extension)
        current.output = ""

    def noted(spawn: Any, words: Iterable[Any], *args: Any, **options: Any) -> None:
        argv, output = [*map(os.fspath, words)], getattr(current, "output", "")
        if not output:
            spawn(argv, *args, **options)
            return
        target, read = argv[argv.index("-o") + 1], list[str]()
        if "-c" in argv:
            spawn([*argv, "-M", "-MF", f"{target}.d"], *args, **options)
            read = _prerequisites(f"{target}.d")
        Path(target).touch()
        current.step += 1
        _note(notes, {"output": output, "step": current.step, "argv": argv, "read": read})

    command.build_extension, command.build_extensions = build_extension, build_extensions
    if importlib.util.find_spec("Cython"):
        _watch_cython(notes)


def _watch_cython(notes: str) -> None:
    module: Any = importlib.import_module("Cython.Build.Dependencies")
    real = module.cythonize_one
    if _options_differ():
        return

    def cythonize_one(*args: Any, **options: Any) -> None:
        given = dict(inspect.signature(real).bind(*args, **options).arguments)
        # Of the options, it sets some itself.
        options_given = {**vars(given["options"]), METADATA: None, "output_file": None}
        given |= {"options": options_given, "fingerprint": None, "cache": None, "progress": ""}
        with opened() as files:
            real(*args, **options)
        try:
            text = json.dumps(given)
        except TypeError:
            return
        # Otherwise it would not be the same call again; the metadata are written as JSON only.
        if {**json.loads(text), METADATA: 0} == {**given, METADATA: 0}:
            _note(notes, {"made": given["c_file"], "argv": ["cython", text], "read": files})

    module.cythonize_one = cythonize_one


def _options_differ() -> bool:
    """Say whether the project changed Cython's own defaults, which no call shows."""
    options: Any = importlib.import_module("Cython.Compiler.Options")
    spec: Any = importlib.util.find_spec("Cython.Compiler.Options")
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    kinds = (bool, int, str, type(None))
    plain = {name for name, value in vars(fresh).items() if isinstance(value, kinds)}
    plain = {name for name in plain if not name.startswith("__")} | {"_directive_defaults"}
    return any(getattr(options, name, None) != getattr(fresh, name) for name in plain)


@contextlib.contextmanager
def opened() -> Iterator[list[str]]:
    """Give the files of interest that this process opens meanwhile."""
    lists, files = _noting(), list[str]()
    lists.append(files)
    try:
        yield files
    finally:
        lists.pop()


@functools.cache
def _noting() -> list[list[str]]:
    """Note such files in the last of the returned lists; Python never takes a hook back."""
    lists: list[list[str]] = []

    def event(event: str, args: Any) -> None:
        if event == "open" and lists and isinstance(args[0], (str, bytes, os.PathLike)):
            path = os.fsdecode(args[0])
            if path.endswith(READ) and "/Cython/Utility/" not in path:
                lists[-1].append(os.path.abspath(path))

    sys.addaudithook(event)
    return lists


def _note(notes: str, row: dict[str, Any]) -> None:
    # Threads and processes write to it; one write is not torn apart.
    stream = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(stream, json.dumps(row).encode() + b"\n")
    os.close(stream)


def _prerequisites(path: str) -> list[str]:
    """Return the files in a rule of make, as compilers write it."""
    text = Path(path).read_text(encoding="utf-8").replace("\\\n", " ").partition(": ")[2]
    return [os.path.abspath(name) for name in text.split()]


def noted_steps(out: str) -> dict[str, Any]:
    """Return what was noted, by output; without a module of which a part is not known."""
    place = Path(out, NOTES)
    text = place.read_text(encoding="utf-8") if place.exists() else ""
    rows = [json.loads(line) for line in text.splitlines()]
    made = {row["made"]: row for row in rows if "made" in row}
    found: dict[str, Any] = {}
    unknown = set[str]()
    for row in sorted((r for r in rows if "output" in r), key=lambda r: int(r["step"])):
        one = found.setdefault(row["output"], {"steps": [], "read": []})
        for step in (*(made[w] for w in row["argv"] if w in made), row):
            one["steps"].append(_portable(step["argv"]))
            one["read"] += step["read"]
        # One that was generated otherwise is not there when it is made again.
        source = row["argv"][row["argv"].index("-c") + 1] if "-c" in row["argv"] else ""
        pyx = f"{os.path.splitext(source)[0]}.pyx"
        if source not in made and os.path.exists(pyx):
            unknown.add(row["output"])
    return {name: one for name, one in found.items() if name not in unknown}


def _portable(argv: list[str]) -> list[str]:
    for mark, variable in COMPILERS.items():
        words = shlex.split(os.environ.get(variable, ""))
        if words and argv[: len(words)] == words:
            set_paths = [f"{n}={os.environ[n]}" for n in PATHS if os.environ.get(n)]
            return [*(["env", *set_paths] if set_paths else []), mark, *argv[len(words) :]]
    return argv


def replay(modules: dict[str, list[list[str]]]) -> dict[str, list[str]]:
    """Make modules by noted steps, and return which files of the project and packages were read."""
    read: dict[str, list[str]] = {}
    for output, steps in modules.items():
        _say(f"building '{output.partition('.')[0].replace('/', '.')}' extension")
        found = set[str]()
        for argv in steps:
            found.update(_cython(json.loads(argv[1])) if argv[0] == "cython" else _run(argv))
        read[output] = sorted(found)
    return read


def _say(line: str) -> None:
    # As setuptools and Cython do, for progress.
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _cython(given: dict[str, Any]) -> list[str]:
    module: Any = importlib.import_module("Cython.Build.Dependencies")
    options = module.CompilationOptions()
    vars(options).clear()
    vars(options).update(given["options"])
    _say(f"Compiling {given['pyx_file']}")
    with opened() as files:
        module.cythonize_one(**{**given, "options": options})
    return files


def _run(argv: list[str]) -> list[str]:
    compilers = {word: shlex.split(os.environ.get(name, "")) for word, name in COMPILERS.items()}
    words = [part for word in argv for part in compilers.get(word, [word])]
    target = argv[argv.index("-o") + 1]
    os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
    if "-c" not in argv:
        subprocess.run(words, check=True)
        return []
    subprocess.run([*words, "-MD", "-MF", f"{target}.d"], check=True)
    return _prerequisites(f"{target}.d")
