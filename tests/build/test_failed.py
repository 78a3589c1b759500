"""What is said of a step that failed: the first error of its output, and where the file is."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from patchwheel.build.failed import StepCounter, _first_error, explained
from patchwheel.kit.context import Event, Progress, Recording
from patchwheel.kit.errors import BuildError
from patchwheel.kit.process import CommandError
from tests.fixtures import support

if TYPE_CHECKING:
    from collections.abc import Callable

INSIDE = Path("/build")
CYTHON = """
Error compiling Cython file:
------------------------------------------------------------
    return absent
           ^
------------------------------------------------------------

{path}:7:11: undeclared name not builtin: absent
"""
FORTRAN = """
{path}:7:6:

    7 |   cal f
      |      1
Error: Unclassifiable statement at (1)
"""
PYTHON = """
Traceback (most recent call last):
  File "/build/env/lib/python3.12/site-packages/backend.py", line 3, in build_wheel
  File "{path}", line 7
    (
SyntaxError: '(' was never closed
"""
SAID = {
    "gcc": ("{path}:7:5: error: 'x' undeclared (first use)", "'x' undeclared (first use)"),
    "include": ("{path}:7:10: fatal error: no.h: No such file", "no.h: No such file"),
    "nvcc": ('{path}(7): error: identifier "x" is undefined', 'identifier "x" is undefined'),
    "meson": ("{path}:7:0: ERROR: Unknown variable", "Unknown variable"),
    "cython": (CYTHON, "undeclared name not builtin: absent"),
    "gfortran": (FORTRAN, "Unclassifiable statement at (1)"),
    "rustc": ("error[E0425]: cannot find value\n  --> {path}:7:3", "cannot find value"),
    "python": (PYTHON, "'(' was never closed"),
}
NAMES = {"cython": "pkg/a.pyx"}


@pytest.mark.parametrize("how", ["/build/src/", "../src/", "../", ""])
@pytest.mark.parametrize("tool", SAID)
def test_the_headline_is_the_first_error_and_its_file_that_of_the_open_work_tree(
    tmp_path: Path, tool: str, how: str
) -> None:
    said, why = SAID[tool]
    name, source, work = NAMES.get(tool, "pkg/a.c"), tmp_path / "src", tmp_path / "work" / "demo"
    support.write(source, {name: "", "made/b.c": ""})
    # An earlier step, warnings, and what a compiler adds.
    rows = ["$ earlier", "x.c:1:1: error: of another step", "$ ninja"]
    rows += [f"warning: {how}{name}:1:2: unused", *said.format(path=how + name).splitlines()]
    log = tmp_path / "log"
    log.write_text("\n".join([*rows, "ninja: build stopped: subcommand failed.", ""]))
    # Of ninja's steps, the one that failed is shown, and what follows.
    went = ["[1/3] Copying file a", "[2/3] Compiling b"]
    steps = [*went, "FAILED: b.o"] if tool == "gcc" else []
    err = CommandError(["ninja"], 1, [*steps, f"in {how}{name}, of {how}absent"], log)
    closed = explained(err, "demo: the build failed", (source, INSIDE), work)
    assert str(closed).splitlines()[0] == f"{name}:7: demo: the build failed: {why}"
    assert closed.tail == [*steps[2:], f"in {name}, of {how}absent"]
    assert closed.hint == f"`patchwheel dev demo` writes the patched sources to {work}"
    support.write(work, {name: ""})
    opened = explained(err, "demo: the build failed", (source, INSIDE), work)
    assert str(opened).splitlines()[0] == f"{work / name}:7: demo: the build failed: {why}"
    # Among other words, a bare name may be anything.
    assert opened.tail == [*steps[2:], f"in {work / name if how else name}, of {how}absent"]
    assert "--dev" in str(opened.hint)


@pytest.mark.parametrize(
    ("said", "headline"),
    [
        ("made.o: in function `f': undefined reference to `g'", ": undefined reference to `g'"),
        ("error: one\nerror: command 'gcc' failed", ": command 'gcc' failed"),
        ("/usr/include/stdio.h:7:1: error: of the machine", ": of the machine"),
        ("nothing that is known", ""),
        # No file can have such a name, and a build decides on it.
        (f"{'x' * 300}:7:1: error: long", ": long"),
        (f"/build/src/{'x' * 300}:7:1: error: long", ": long"),
    ],
)
def test_an_error_without_a_place_in_the_sources_is_told_without_one(
    tmp_path: Path, said: str, headline: str
) -> None:
    err = CommandError(["ninja"], 1, said.splitlines())
    told = explained(err, "demo: the build failed", (tmp_path, INSIDE), None)
    assert (told.message, told.where) == (f"demo: the build failed{headline}", None)
    assert "doctor" in str(told.hint)


@pytest.mark.parametrize("probe", ["/build/tmp/tmpx/a.cpp", "_configtest.c"])
def test_what_a_build_only_tried_is_not_why_it_failed(tmp_path: Path, probe: str) -> None:
    """As CuPy looks for NCCL, and tells that there is none."""
    support.write(tmp_path, {"pkg/a.c": ""})
    tried, log = f"{probe}:1:10: fatal error: nccl.h: No such file", tmp_path / "log"
    for after, headline in {
        "pkg/a.c:7:1: error: x undeclared": "pkg/a.c:7: demo: the build failed: x undeclared",
        "error: command 'nvcc' failed": "demo: the build failed: command 'nvcc' failed",
        "Exception: no libcufilt.a": "demo: the build failed: no libcufilt.a",
        "ended": "demo: the build failed: nccl.h: No such file",
    }.items():
        log.write_text(f"$ build\n{tried}\n{after}\n")
        err = CommandError(["build"], 1, [], log)
        told = explained(err, "demo: the build failed", (tmp_path, INSIDE), None)
        assert str(told).splitlines()[0] == headline


def test_a_place_is_not_given_to_what_another_step_said() -> None:
    python = ['File "/build/src/setup.py", line 5, in <module>', "ValueError: the real reason"]
    linked = "/usr/bin/ld: a.o: in function `main': undefined reference to `ncclInit'"
    assert _first_error([linked, *python], "/build/tmp/") == (
        *("/build/src/setup.py", "5"),
        "the real reason",
    )
    # What stopped is no error that Python tells in one word.
    stopped = 'File "/build/env/lib/ccompiler.py", line 5, in compile'
    assert _first_error([linked, stopped], "/build/tmp/")[2] == "undefined reference to `ncclInit'"
    probe = ["_configtest.f90:3:10:", "Error: bad", "error: command 'gfortran' failed"]
    assert _first_error(probe, "/build/tmp/") == ("", "", "command 'gfortran' failed")


# As Meson, CMake, Cython, setuptools and cargo write a step.
STEPS = {
    "[4/7] Compiling C object scipy/ndimage/_ni_label.cpython-312-x86_64-linux-gnu.so.p/"
    "meson-generated__ni_label.c.o": (4, 7, "scipy/ndimage/_ni_label.c"),
    "[1/7] Compiling Cython source /build/src/scipy/ndimage/src/_ni_label.pyx": (
        *(1, 7),
        "scipy/ndimage/src/_ni_label.pyx",
    ),
    "[2/9] Generating 'src/a.cpython-312-x86_64-linux-gnu.so.p/b.c'": (2, 9, "src/b.c"),
    "[3/9] Generating src/skimage/a_cy with a custom command": (3, 9, "src/skimage/a_cy"),
    "[7/7] Linking target sklearn/_a.cpython-312-x86_64-linux-gnu.so": (7, 7, "sklearn/_a.so"),
    "[5/6] Building CXX object CMakeFiles/_core.dir/src/main.cpp.o": (5, 6, "src/main.cpp"),
    "[5/9] Compiling C object a.so.p/meson-generated_.._b_c.c.o": (5, 9, "b_c.c"),
    "[ 2/30] Cythonizing cupy/_core/core.pyx": (2, 30, "cupy/_core/core.pyx"),
    "[8/9] Doing something else": (8, 9, ""),
    "[6/9] Compiling C++ object ../src/src/util.cpp.o": (6, 9, "src/util.cpp"),
    "INFO:root:building 'cupy._core.core' extension": (1, None, "cupy._core.core"),
    "   Compiling pyo3-ffi v0.25.1": (1, None, "pyo3-ffi"),
    "a line": None,
}


@pytest.mark.parametrize("line", STEPS)
def test_a_step_tells_how_far_a_build_is_and_at_which_file(line: str) -> None:
    report = support.Recorder()
    StepCounter("compile", "demo", report)(line)
    expected = STEPS[line]
    if expected is None:
        assert report.steps == []
    else:
        assert report.steps == [("compiling demo", *expected[:2])]
        assert report.files == [expected[2]]


NINJA = """
rule c
 command = c
build m.so.p/a.c: c ../src/a.pyx
build m.so.p/a.o: c m.so.p/a.c
build m.so: c m.so.p/a.o ../src/other.a
"""
LOG = "# ninja log v7\n0\t10\t1\tm.so.p/a.c\t1\n10\t40\t1\tm.so.p/a.o\t2\n40\t45\t1\tm.so\t3\n"


def ran(work: Path, lines: list[str], *, does: Callable[[], None] = lambda: None) -> list[Event]:
    """Return what is told of a command that says these lines, the last event being its own."""
    recording = Recording(Progress())
    counter = StepCounter("compile", "demo", recording)

    def run(
        _argv: object, *, on_line: Callable[[str], None], on_end: Callable[[float], None]
    ) -> None:
        # Long enough for what the log says.
        time.sleep(0.02)
        for line in lines:
            on_line(line)
        time.sleep(0.05)
        on_end(3.5)
        does()

    with contextlib.suppress(BuildError):
        counter.run(cast("Any", SimpleNamespace(work=work, run=run)), ["ninja"])
    return [event for event in recording.events if event.kind != "phase"]


def test_ninja_tells_of_each_step_what_it_took_and_needed(tmp_path: Path) -> None:
    support.write(tmp_path, {"meson/.ninja_log": LOG, "meson/build.ninja": NINJA})
    *steps, run = ran(tmp_path, ["[0/3] Regenerating", "[1/3] Generating m.so.p/a.c"])
    found = {e.what: (e.kind, round(e.end - e.start, 3), e.needs, e.fork) for e in steps}
    assert found == {
        "m.so.p/a.c": ("transpile", 0.01, (), "demo"),
        "m.so.p/a.o": ("compile", 0.03, ("m.so.p/a.c",), "demo"),
        "m.so": ("link", 0.005, ("m.so.p/a.o",), "demo"),
    }
    assert (run.kind, run.cpu) == ("run", 3.5)
    assert all(run.start <= e.start <= e.end <= run.end for e in steps)


@pytest.mark.parametrize(
    ("log", "told"),
    [
        (None, []),
        (b"", []),
        (b"\xff\n0\t10\t1\ta\xff.o\t1\n0\t1", ["a\ufffd.o"]),
        # Of another build, days ago, and days ahead.
        (b"0\t10\t1\ta.o\t1\n0\t999999999999\t1\tb.o\t2\n", ["a.o", "b.o"]),
    ],
)
def test_a_log_that_is_lost_or_wrong_costs_no_build(
    tmp_path: Path, log: bytes | None, told: list[str]
) -> None:
    # Without a build file nothing is known of what needs what.
    (tmp_path / "meson").mkdir()
    if log is not None:
        (tmp_path / "meson/.ninja_log").write_bytes(log)
    *steps, run = ran(tmp_path, ["[1/1] a"])
    assert [e.what for e in steps] == told
    assert all(run.start <= e.start <= e.end <= run.end for e in steps)


@pytest.mark.parametrize("place", ["fifo", "link", "folder"])
def test_a_build_puts_something_else_in_the_place_of_its_log(tmp_path: Path, place: str) -> None:
    log = tmp_path / "meson/.ninja_log"
    log.parent.mkdir()
    make = {"fifo": os.mkfifo, "link": lambda p: p.symlink_to("/etc/passwd"), "folder": Path.mkdir}
    make[place](log)
    assert [event.kind for event in ran(tmp_path, ["[1/1] a"])] == ["run"]


def test_setuptools_tells_of_its_modules_until_they_were_written(tmp_path: Path) -> None:
    def build() -> None:
        support.write(tmp_path, {"src/pkg/a.cpp": "", "src/build/lib/pkg/a.cpython-312.so": ""})
        future = time.time() + 1000
        os.utime(tmp_path / "src/build/lib/pkg/a.cpython-312.so", (future, future))

    lines = ["[ 1/1] Cythonizing pkg/a.pyx", "INFO: building 'pkg.a' extension"]
    *steps, run = ran(tmp_path, [*lines, "building 'pkg.lost' extension"], does=build)
    found = {e.what: (e.kind, e.needs) for e in steps}
    assert found == {
        "pkg/a.pyx": ("transpile", ()),
        "pkg/a.so": ("link", ("pkg/a.pyx",)),
        "pkg/lost.so": ("link", ()),
    }
    # Its clock went ahead, and one was never finished.
    assert [e.end for e in steps[1:]] == [run.end] * 2


def test_what_steps_took_before_says_how_much_is_done() -> None:
    report = support.Recorder()
    weights = {"a.so.p/a.c.o": 30.0, "a.so": 10.0}
    counter = StepCounter("compile", "demo", report, weights)
    counter("[1/2] Compiling C object a.cpython-312-x86_64-linux-gnu.so.p/a.c.o")
    counter("[2/2] Linking target a.so")
    # Another build of only some of them.
    counter("[1/1] Linking target a.so")
    assert report.shares == [0.75, 1, 0]


def test_a_failed_build_tells_what_it_did(tmp_path: Path) -> None:
    support.write(tmp_path, {"meson/.ninja_log": LOG, "meson/build.ninja": "no build file"})

    def fail() -> None:
        raise BuildError("killed")

    *steps, run = ran(tmp_path, ["[1/3] a"], does=fail)
    assert [e.what for e in steps] == ["m.so.p/a.c", "m.so.p/a.o", "m.so"]
    assert (run.kind, run.cpu) == ("run", 3.5)


@pytest.mark.parametrize(
    ("step", "what"),
    [
        ("remake", "compiling demo"),
        ("configure", "configuring demo"),
        ("inspect", "inspecting the build of demo"),
        ("requirements", "asking for the build requirements of demo"),
    ],
)
def test_a_step_that_is_no_compile_is_not_called_one(step: str, what: str) -> None:
    assert StepCounter(step, "demo", support.Recorder()).what == what
