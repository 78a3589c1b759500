"""What a build says: its steps, why it failed and where; and a shell in the folder of one."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from patchwheel import kit
from patchwheel.build.ninja import IN_BUILD_DIR, parse_log, parse_ninja
from patchwheel.build.sandbox import STEP, BuildDir, detect_sandbox, kept_folder
from patchwheel.report import plain_name

DAY = 86400
AGAIN = "again"
# What steps do that do not only compile.
DOING = {
    "configure": "configuring",
    "inspect": "inspecting the build of",
    "requirements": "asking for the build requirements of",
}
NINJA = re.compile(r"\[ *(\d+)/(\d+)\] (.*)")
SCRIPTED = re.compile(r"\bbuilding '([\w.]+)' extension|\bCythonizing (\S+\.pyx)$")
# Newer setuptools puts the prefix of a logger in front.
BUILDING = re.compile(r"\bbuilding '([\w.]+)' extension|^ *Compiling ([\w-]+) v\d")
# What Meson and CMake add to the path of a source for that of its object.
ADDED = re.compile(
    r"^(?:/build/(?:src|meson)|\.\./src)/"
    r"|(?:CMakeFiles/)?[^/]+\.(?:p|dir)/(?:meson-generated_(?:\.\._)*)?"
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
    r"(?:Fatal )?(?:\w*(?:[Ee]rror|Exception)(?:\[\w+\])?): (.+)|"
    r".*((?:undefined reference to|multiple definition of) .+)"
)
# What setuptools compiles to find out something, among the sources.
PROBE = "_configtest"
# As far back as a log is read.
READ = 4 << 20
# Bytes of what ninja reads and writes, and steps that are told: SciPy has 1.3 million, and 979.
NINJA_LIMIT, MOST = 16 << 20, 20_000
# From which share of the known steps on a build is taken to be one of all.
MOSTLY, NONE = 0.8, MappingProxyType[str, float]({})


def open_shell(context: kit.Context, name: str) -> int:
    """Open a shell where the last build of a fork failed, contained as it was; return its status.

    Raises BuildError when no such build was kept within a day.
    """
    sandbox = detect_sandbox(context.sandbox)
    root = kept_folder(name, sandbox, context.store.root / "tmp")
    note = root / STEP
    if note.exists() and time.time() - note.stat().st_mtime > DAY:
        kit.rmtree(root)
    if not note.exists():
        hint = f"`patchwheel build {name} --keep-failed`, with the same --sandbox"
        raise kit.BuildError(f"no failed build of {name} was kept within a day", hint=hint)
    step = json.loads(note.read_text())
    read, env = tuple(map(Path, step["read"])), Path(step["environment"])
    build_dir = BuildDir(name=name, sandbox=sandbox, root=root, env=env, read=read)
    again = build_dir.scripts / AGAIN
    again.write_text(f"cd {shlex.quote(step['cwd'])} && exec {shlex.join(step['argv'])}\n")
    command = f"sh {shlex.quote(str(build_dir.path_inside(again)))}"
    context.progress.say(f"sandbox: {sandbox.level}; the step that failed: {command}")
    folder = build_dir.work / "src"
    argv = build_dir.wrapped(["/bin/sh"], cwd=folder)
    # bubblewrap goes to the sources inside; outside, a build may have put anything in their place.
    cwd = build_dir.scripts if sandbox.level == "bwrap" else folder
    # The FIFO of its jobs is gone.
    step["env"].pop("MAKEFLAGS", None)
    return kit.process.interactive(argv, cwd=cwd, env=step["env"])


def explained(
    err: kit.process.CommandError, message: str, places: tuple[Path, Path], work: Path | None
) -> kit.BuildError:
    """Return the error of a failed step, with the first one of its output as the headline.

    `places` are its sources, and the folder that steps see; `work` is where the fork is edited.
    """
    source, inside = places
    start = re.escape(f"{inside}/src/")

    def shown(found: re.Match[str]) -> str:
        # Steps also name what they make, and the compiler's own files.
        return edited(found["path"]) if _is_file(source / found["path"]) else found[0]

    def edited(path: str) -> str:
        return str(work / path) if work and _is_file(work / path) else path

    paths = re.compile(rf"(?<![\w./-])(?:{start}|(?:\.\./)+(?:src/)?)(?P<path>[\w.+/-]+)")
    file, line, why = _first_error(_said(err.log) or err.tail, f"{inside / 'tmp'}/")
    # setuptools runs its steps among the sources.
    own = not file.startswith(("/", ".")) and _is_file(source / file)
    name = edited(file) if own else paths.sub(shown, file)
    where = f"{name}:{line}" if own or (name and name != file) else None
    hint = "correct what the log points to; `patchwheel doctor` checks the machine"
    if where and work and Path(name).is_relative_to(work):
        hint = f"correct it there, then `patchwheel build {work.name} --dev`"
    elif where and work:
        hint = f"`patchwheel dev {work.name}` writes the patched sources to {work}"
    # Of ninja's steps, those that went well say nothing.
    failed = next((n for n, row in enumerate(err.tail) if row.startswith("FAILED: ")), 0)
    tail = [paths.sub(shown, row) for row in err.tail[failed:]]
    headline = f"{message}: {paths.sub(shown, why)}" if why else message
    return kit.BuildError(headline, where=where, tail=tail, log=err.log, hint=hint)


def _is_file(path: Path) -> bool:
    # What a log names may be too long for a name, or where we may not look.
    with contextlib.suppress(OSError):
        return path.is_file()
    return False


def _said(log: Path | None) -> list[str]:
    """Return what the last command of a log wrote."""
    if log is None:
        return []
    with log.open("rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - READ))
        return stream.read().decode(errors="replace").rpartition("\n$ ")[2].splitlines()[1:]


def _first_error(lines: Iterable[str], probes: str) -> tuple[str, str, str]:
    """Return file, line and message of the first error that names a place, or else of the last.

    What the build only tries, in files of its own below `probes`, may fail without harm.
    """
    place, reason, before, tried = ("", ""), "", "", ("", "", "")

    def only_tried(file: str) -> bool:
        return file.startswith(probes) or Path(file).name.startswith(PROBE)

    for line in map(kit.plain, map(str.strip, lines)):
        if found := ERROR.fullmatch(line):
            file, at = found["file"] or found["pyx"], found["line"] or found["row"] or found["at"]
            error = (file, at, found["why"] or found["what"])
            if not only_tried(file):
                return error
            tried = tried if any(tried) else error
        elif found := PLACE.fullmatch(line):
            place = (found[1] or found[3], found[2] or found[4])
            # Only rustc names the place after the error.
            if not line.startswith("-->"):
                before, reason = reason or before, ""
        elif found := REASON.match(line):
            if only_tried(place[0]):
                place = ("", "")
                continue
            reason = found[1] or found[2]
        if reason and all(place):
            return *place, reason
    return ("", "", reason or before) if reason or before else tried


class StepCounter:
    """Turns the lines of ninja, of Cython and setuptools, or of cargo into progress.

    `weights` are what the steps took before. `first` is when the first line of a finished step
    came, and `started` when those that setuptools and Cython name began, by the path of the module
    or of its source.
    """

    def __init__(
        self, step: str, fork: str, report: kit.Progress, weights: Mapping[str, float] = NONE
    ) -> None:
        self.what = f"{DOING.get(step, 'compiling')} {fork}"
        self.fork, self.report, self.built = fork, report, 0
        self.first, self.started = 0.0, dict[str, float]()
        self.weights, self.spent = weights, 0.0

    def __call__(self, line: str) -> None:
        if named := SCRIPTED.search(line):
            name = f"{named[1].replace('.', '/')}.so" if named[1] else named[2]
            self.started.setdefault(name, time.monotonic())
        if match := NINJA.match(line):
            self.first = self.first or (time.monotonic() if match[1] != "0" else 0)
            paths = [word for word in match[3].split() if "/" in word or "." in word]
            path = paths[-1].strip("'") if paths else ""
            file, done, total = ADDED.sub("", path), int(match[1]), int(match[2])
            self.spent += self.weights.get(plain_name(path), 0)
            # Of a part of the steps, nobody knows here which it is.
            whole = sum(self.weights.values()) if total > MOSTLY * len(self.weights) else 0
            share = min(self.spent / whole, 1) if whole else 0
            self.report.progress(self.what, done, total, file=file, share=share)
        elif match := BUILDING.search(line):
            # Cython, which counts as ninja does, went before.
            self.built += 1
            self.report.progress(self.what, self.built, None, file=match[1] or match[2])

    def run(self, build_dir: BuildDir, argv: Sequence[str | Path], **how: Any) -> None:
        """Run a command in a build's folder; tell the report how long it and its steps took."""
        cpu, began = [0.0], time.monotonic()
        try:
            with self.report.step(self.what, brief=True):
                build_dir.run(argv, on_line=self, on_end=cpu.append, **how)
        finally:
            now = time.monotonic()
            rows = _ninja_steps(build_dir.work, self.first) if self.first else []
            # Its folder may hold anything, in any depth.
            with contextlib.suppress(OSError):
                rows += _scripted_steps(build_dir.work, self.started)
            for step, start, end, needs in rows[:MOST]:
                # Its clock may have been changed, or never been right.
                start = min(max(start, began), now)  # noqa: PLW2901
                end = min(max(end, start), now)  # noqa: PLW2901
                self.report.took(_kind(step), step, start, end, fork=self.fork, needs=needs)
            self.report.took("run", self.what, began, now, fork=self.fork, cpu=cpu[-1])


def _kind(output: str) -> str:
    suffix = output.rpartition(".")[2]
    kinds = {"transpile": ("c", "cc", "cpp", "cxx", "pyx"), "compile": ("o", "obj", "cu")}
    kinds["link"] = ("so", "a")
    return next((kind for kind, suffixes in kinds.items() if suffix in suffixes), "other")


def _ninja_steps(work: Path, first: float) -> list[tuple[str, float, float, tuple[str, ...]]]:
    """Return name, start and end of the steps in ninja's log, and what each needs of the others."""
    place, needs = PurePosixPath("/b"), dict[str, tuple[str, ...]]()
    with contextlib.suppress(OSError, kit.BuildError):
        steps = parse_log(_text(work, "meson/.ninja_log"))
        made = {IN_BUILD_DIR + output: outputs[0] for outputs, *_ in steps for output in outputs}
        with contextlib.suppress(OSError, kit.BuildError):
            text = _text(work, "meson/build.ninja")
            for edge in parse_ninja(text, place / "meson", place / "src"):
                found = tuple(dict.fromkeys(made[i] for i in edge.inputs if i in made))
                needs |= dict.fromkeys(edge.outputs, found)
        # Ninja says that a step has ended, and its log when that was since it began.
        zero = first - min((end for *_, end in steps), default=0)
        return [
            (name, zero + start, zero + end, needs.get(IN_BUILD_DIR + name, ()))
            for (name, *_), start, end in steps
        ]
    return []


def _text(work: Path, name: str) -> str:
    return kit.read_untrusted(work, name, limit=NINJA_LIMIT).decode(errors="replace")


def _scripted_steps(
    work: Path, started: Mapping[str, float]
) -> Iterator[tuple[str, float, float, tuple[str, ...]]]:
    """Yield the same of setuptools and Cython: a step ends when its product was last written."""
    if not started:
        return
    since, written = time.time() - time.monotonic(), dict[str, list[tuple[str, float]]]()
    for path, info in kit.walk(work):
        stem, _, suffix = path.rpartition("/")[2].partition(".")
        if suffix in {"c", "cpp"} or suffix.endswith("so"):
            name = f"{stem}.{'so' if suffix.endswith('so') else 'pyx'}"
            row = (f"/{path.rpartition('/')[0]}", info.st_mtime - since)
            written.setdefault(name, []).append(row)
    for name, start in started.items():
        folder, _, file = f"/{name}".rpartition("/")
        ends = [end for place, end in written.get(file, ()) if place.endswith(folder)]
        source = f"{name.removesuffix('.so')}.pyx"
        needs = (source,) if source in started and source != name else ()
        # One without a product went on to the end.
        yield name, start, max(ends, default=math.inf), needs
