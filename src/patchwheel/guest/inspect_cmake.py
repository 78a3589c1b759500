"""Runs beside inspect_build: what scikit-build-core would install, and what configuring reads.

Nothing is compiled. Stand-ins for what ninja would make are installed by CMake and packed by the
backend; each holds its own path, so that the wheel shows what every file of it is.
"""

# It works with paths as CMake and the zip file name them.
# ruff: noqa: PTH107, PTH113, PTH118, PTH119, PTH120

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess  # noqa: TID251
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

MARK = b"stands for "
# These take a file apart as ELF, which a stand-in is not.
RUN_PATHS = re.compile(r"file\(RPATH_[^()]*\)")
# The commands of CMake that read files, or start what does.
READING = frozenset({"configure_file", "execute_process", "file", "install", "try_compile"})
REQUIREMENTS = re.compile(r"(?m)^(Requires-Dist|Provides-Extra):.*\n(?:[ \t].*\n)*")


def listed(
    build_wheel: Callable[..., str], settings: dict[str, Any], out: str, root: str
) -> dict[str, Any]:
    """Let the backend make a wheel of stand-ins; that needs Ninja as CMake's generator."""
    build, trace = settings["build-dir"], os.path.join(out, "trace.json")
    found: dict[str, Any] = {"idle": [], "read": []}
    made: list[str] = []

    def stand_in(self: Any, *_: object, **__: object) -> None:
        made.extend(_stand_ins(build))
        strip = self.settings.install.strip
        release = self.config.build_type in {"Release", "MinSizeRel"}
        found["stripped"] = release if strip is None else strip

    builder: Any = importlib.import_module("scikit_build_core.builder.builder")
    builder.Builder.build = stand_in
    options = f"--trace-expand --trace-format=json-v1 --trace-redirect={trace}"
    os.environ["CMAKE_ARGS"] = f"{os.environ.get('CMAKE_ARGS', '')} {options}"
    found["wheel"] = build_wheel(out, settings)
    for path in made:
        os.remove(path)
    if made:
        # At a change of these, ninja would have CMake configure again.
        rows = _ninja(build, "query", "build.ninja")
        found["read"] += [os.path.join(build, row.strip().removeprefix("| ")) for row in rows]
        _read_trace(trace, os.path.join(os.path.realpath(root), ""), found)
    with zipfile.ZipFile(os.path.join(out, found["wheel"])) as wheel:
        found["outputs"], unsure = _origins(wheel, build, root)
        [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        found["metadata"] = REQUIREMENTS.sub("", wheel.read(name).decode(errors="replace"))
    found["read"] += unsure
    return found


def _ninja(build: str, *words: str) -> list[str]:
    argv = [os.environ.get("NINJA", "ninja"), "-C", build, "-t", *words]
    return subprocess.check_output(argv, text=True).splitlines()


def _stand_ins(build: str) -> Iterator[str]:
    if not Path(build, "build.ninja").exists():
        sys.exit("CMake did not use its generator Ninja, which alone can be followed")
    for line in _ninja(build, "targets", "all"):
        path, _, rule = line.rpartition(": ")
        file = Path(build, path)
        if rule != "phony" and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(MARK + bytes(file))
            yield str(file)
    for script in Path(build).rglob("cmake_install.cmake"):
        script.write_text(RUN_PATHS.sub("", script.read_text("utf-8")), "utf-8")


def _origins(wheel: zipfile.ZipFile, build: str, root: str) -> tuple[dict[str, str], list[str]]:
    """Return where each file of the wheel is from, and sources of which one is, unknown which."""
    by_name: defaultdict[str, list[str]] = defaultdict(list)
    for path in filter(os.path.isfile, map(str, Path(root).rglob("*"))):
        by_name[os.path.basename(path)].append(path)
    outputs: dict[str, str] = {}
    unsure: list[str] = []
    for name in (name for name in wheel.namelist() if not name.endswith("/")):
        content = wheel.read(name)
        same = [p for p in by_name[os.path.basename(name)] if Path(p).read_bytes() == content]
        place = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", name)
        found = [path for path in same if path.endswith(f"/{place}")] or same
        if content.startswith(MARK):
            found = [os.fsdecode(content.removeprefix(MARK))]
        elif len(found) != 1:
            # Configuring made it, or one of these is installed: the content is what counts.
            unsure += found
            file = Path(build, "installed", name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            found = [str(file)]
        [outputs[name]] = found
    return outputs, unsure


def _read_trace(trace: str, root: str, found: dict[str, Any]) -> None:
    """Find the files that CMake's commands name, and the scripts that they ran unwatched."""
    folders = {root}
    for line in Path(trace).read_text("utf-8", "replace").splitlines():
        row = json.loads(line)
        if row.get("file", "").endswith("/CMakeLists.txt"):
            folders.add(os.path.dirname(row["file"]))
        if (command := row.get("cmd", "").lower()) not in READING:
            continue
        words = [word for argument in row["args"] for word in argument.split(";")]
        found["read"] += _files(folders, words)
        # Python's are watched, any other may read what it likes.
        if command == "execute_process":
            started = words[words.index("COMMAND") + 1 :][:2]
            scripts = map(os.path.realpath, _files(folders, started))
            inside = (path.removeprefix(root) for path in scripts if path.startswith(root))
            found["idle"] += (path for path in inside if not path.endswith(".py"))


def _files(folders: Iterable[str], words: Iterable[str]) -> list[str]:
    paths = (os.path.join(folder, word) for word in words for folder in folders)
    return [path for path in paths if os.path.isfile(path)]
