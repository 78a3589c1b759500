"""What a build says: its steps, why it failed and where; and a shell in the folder of one."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from collections.abc import Iterable
from pathlib import Path

from patchwheel.build.sandbox import STEP, BuildDir, detect_sandbox, kept_folder
from patchwheel.kit import BuildError, Context, Progress, plain, process, rmtree

DAY = 86400
AGAIN = "again"
NINJA = re.compile(r"\[ *(\d+)/(\d+)\] (.*)")
# Newer setuptools puts the prefix of a logger in front.
BUILDING = re.compile(r"\bbuilding '([\w.]+)' extension|^ *Compiling ([\w-]+) v\d")
# What Meson and CMake add to the path of a source for that of its object.
ADDED = re.compile(
    r"^/build/(?:src|meson)/|(?:CMakeFiles/)?[^/]+\.(?:p|dir)/(?:meson-generated_(?:\.\._)*)?"
    r"|\.cpython-[\w-]+(?=\.so$)|\.o$"
)
# As gcc, clang and Meson write an error, nvcc does, and Cython.
ERROR = re.compile(
    r"(?P<file>[^\s:()]+)(?::(?P<line>\d+)(?::\d+)?:|\((?P<row>\d+)\):) "
    r"(?:fatal )?error(?: #\S+)?: (?P<why>.+)|"
    r"(?P<pyx>\S+\.p(?:yx|xd|xi)):(?P<at>\d+):\d+: (?P<what>.+)",
    re.IGNORECASE,
)
# gfortran and Python write the place in a line before the error, rustc in one after it.
PLACE = re.compile(r"(?:--> )?([^\s:]+):(\d+):\d+:?|File \"([^\"]+)\", line (\d+).*")
REASON = re.compile(
    r"(?:Fatal )?(?:\w*[Ee]rror(?:\[\w+\])?): (.+)|"
    r".*((?:undefined reference to|multiple definition of) .+)"
)
# As far back as a log is read.
READ = 4 << 20


def open_shell(context: Context, name: str) -> int:
    """Open a shell where the last build of a fork failed, contained as it was; return its status.

    Raises BuildError when no such build was kept within a day.
    """
    sandbox = detect_sandbox(context.sandbox)
    root = kept_folder(name, sandbox, context.store.root / "tmp")
    note = root / STEP
    if note.exists() and time.time() - note.stat().st_mtime > DAY:
        rmtree(root)
    if not note.exists():
        hint = f"`patchwheel build {name} --keep-failed`, with the same --sandbox"
        raise BuildError(f"no failed build of {name} was kept within a day", hint=hint)
    step = json.loads(note.read_text())
    read, env = tuple(map(Path, step["read"])), Path(step["environment"])
    build_dir = BuildDir(name=name, sandbox=sandbox, root=root, env=env, read=read)
    again = build_dir.scripts / AGAIN
    again.write_text(f"cd {shlex.quote(step['cwd'])} && exec {shlex.join(step['argv'])}\n")
    command = f"sh {shlex.quote(str(build_dir.path_inside(again)))}"
    context.progress.say(f"sandbox: {sandbox.level}; the step that failed: {command}")
    folder = build_dir.work / "src"
    write = [root / "exchange"] if (root / "exchange").is_dir() else []
    argv = build_dir.wrapped(["/bin/sh"], cwd=folder, write=write)
    # bubblewrap goes to the sources inside; outside, a build may have put anything in their place.
    cwd = build_dir.scripts if sandbox.level == "bwrap" else folder
    return process.interactive(argv, cwd=cwd, env=step["env"])


def explained(
    err: process.CommandError, message: str, places: tuple[Path, Path], work: Path | None
) -> BuildError:
    """Return the error of a failed step, with the first one of its output as the headline.

    `places` are its sources, and the folder that steps see; `work` is where the fork is edited.
    """
    source, inside = places
    start = re.escape(f"{inside}/src/")

    def shown(found: re.Match[str]) -> str:
        # Steps also name what they make, and the compiler's own files.
        path = found["path"]
        if not (source / path).is_file():
            return found[0]
        return str(work / path) if work and (work / path).is_file() else path

    paths = re.compile(rf"(?<![\w./-])(?:{start}|(?:\.\./)+(?:src/)?)(?P<path>[\w.+/-]+)")
    file, line, why = _first_error(_said(err.log) or err.tail)
    name = paths.sub(shown, file)
    where = f"{name}:{line}" if name and name != file else None
    hint = "correct what the log points to; `patchwheel doctor` checks the machine"
    if where and work and Path(name).is_relative_to(work):
        hint = f"correct it there, then `patchwheel build {work.name} --dev`"
    elif where and work:
        hint = f"`patchwheel dev {work.name}` writes the patched sources to {work}"
    tail = [paths.sub(shown, row) for row in err.tail]
    headline = f"{message}: {paths.sub(shown, why)}" if why else message
    return BuildError(headline, where=where, tail=tail, log=err.log, hint=hint)


def _said(log: Path | None) -> list[str]:
    """Return what the last command of a log wrote."""
    if log is None:
        return []
    with log.open("rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - READ))
        return stream.read().decode(errors="replace").rpartition("\n$ ")[2].splitlines()[1:]


def _first_error(lines: Iterable[str]) -> tuple[str, str, str]:
    """Return file, line and message of the first error that names a place, or else of the last."""
    place, reason = ("", ""), ""
    for line in map(plain, map(str.strip, lines)):
        if found := ERROR.fullmatch(line):
            file, at = found["file"] or found["pyx"], found["line"] or found["row"] or found["at"]
            return file, at, found["why"] or found["what"]
        if found := PLACE.fullmatch(line):
            place = (found[1] or found[3], found[2] or found[4])
        elif found := REASON.match(line):
            reason = found[1] or found[2]
        if reason and all(place):
            return *place, reason
    return "", "", reason


class StepCounter:
    """Turns the lines of ninja, of Cython and setuptools, or of cargo into progress."""

    def __init__(self, what: str, report: Progress) -> None:
        self.what, self.report, self.built = what, report, 0

    def __call__(self, line: str) -> None:
        if match := NINJA.match(line):
            paths = [word for word in match[3].split() if "/" in word or "." in word]
            file = ADDED.sub("", paths[-1].strip("'")) if paths else ""
            self.report.progress(self.what, int(match[1]), int(match[2]), file=file)
        elif match := BUILDING.search(line):
            # Cython, which counts as ninja does, went before.
            self.built += 1
            self.report.progress(self.what, self.built, None, file=match[1] or match[2])
