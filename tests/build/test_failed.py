"""What is said of a step that failed: the first error of its output, and where the file is."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchwheel.build.failed import StepCounter, explained
from patchwheel.kit.process import CommandError
from tests.fixtures import support

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


@pytest.mark.parametrize("how", ["/build/src/", "../src/", "../"])
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
    err = CommandError(["ninja"], 1, [f"in {how}{name}, of {how}absent"], log)
    closed = explained(err, "demo: the build failed", (source, INSIDE), work)
    assert str(closed).splitlines()[0] == f"{name}:7: demo: the build failed: {why}"
    assert closed.tail == [f"in {name}, of {how}absent"]
    assert closed.hint == f"`patchwheel dev demo` writes the patched sources to {work}"
    support.write(work, {name: ""})
    opened = explained(err, "demo: the build failed", (source, INSIDE), work)
    assert str(opened).splitlines()[0] == f"{work / name}:7: demo: the build failed: {why}"
    assert opened.tail == [f"in {work / name}, of {how}absent"]
    assert "--dev" in str(opened.hint)


@pytest.mark.parametrize(
    ("said", "headline"),
    [
        ("made.o: in function `f': undefined reference to `g'", ": undefined reference to `g'"),
        ("error: one\nerror: command 'gcc' failed", ": command 'gcc' failed"),
        ("/usr/include/stdio.h:7:1: error: of the machine", ": of the machine"),
        ("nothing that is known", ""),
    ],
)
def test_an_error_without_a_place_in_the_sources_is_told_without_one(
    tmp_path: Path, said: str, headline: str
) -> None:
    err = CommandError(["ninja"], 1, said.splitlines())
    told = explained(err, "demo: the build failed", (tmp_path, INSIDE), None)
    assert (told.message, told.where) == (f"demo: the build failed{headline}", None)
    assert "doctor" in str(told.hint)


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
    "INFO:root:building 'cupy._core.core' extension": (1, None, "cupy._core.core"),
    "   Compiling pyo3-ffi v0.25.1": (1, None, "pyo3-ffi"),
    "a line": None,
}


@pytest.mark.parametrize("line", STEPS)
def test_a_step_tells_how_far_a_build_is_and_at_which_file(line: str) -> None:
    report = support.Recorder()
    StepCounter("compiling demo", report)(line)
    expected = STEPS[line]
    if expected is None:
        assert report.steps == []
    else:
        assert report.steps == [("compiling demo", *expected[:2])]
        assert report.files == [expected[2]]
