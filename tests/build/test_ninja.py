from pathlib import PurePosixPath

import pytest

from patchwheel.build.ninja import Edge, parse_log, parse_ninja
from patchwheel.kit.errors import BuildError
from tests.fixtures import support

NINJA = support.dedent(r"""
    # written by a generator
    ninja_required_version = 1.8.2

    rule c_COMPILER
     command = gcc $ARGS -MF $DEPFILE -o $out -c $in
     deps = gcc
     depfile = $DEPFILE_UNQUOTED
     description = Compiling $out

    build a$ b.o d$:e.o | side.txt: c_COMPILER ../src/a$ b.c $
      ../src/more.c | header.h || later.h
     DEPFILE = x.d
     ARGS = -I../src/inc -DX=$$1

    build all: phony a$ b.o
    """)


def parse(text: str) -> list[Edge]:
    return parse_ninja(text, PurePosixPath("/build/meson"), PurePosixPath("/build/src"))


def test_edges_have_their_files_and_their_whole_command() -> None:
    [edge] = parse(NINJA)
    assert edge.outputs == ("//a b.o", "//d:e.o", "//side.txt")
    assert edge.inputs == ("a b.c", "more.c", "//header.h")
    assert "-I../src/inc" in edge.command
    assert "gcc $ARGS" in edge.command
    assert edge.program == "gcc $ARGS -MF"


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ("-DX=", "-DY=", True),
        ("gcc $ARGS", "gcc -O0 $ARGS", True),
        ("DEPFILE = x.d", "DEPFILE = y.d", False),
        ("Compiling $out", "Making $out", False),
        ("later.h", "another.h", False),
    ],
)
def test_what_makes_another_step(old: str, new: str, *, differs: bool) -> None:
    assert old in NINJA
    assert (parse(NINJA.replace(old, new)) != parse(NINJA)) is differs


def test_what_is_no_build_file_is_refused() -> None:
    with pytest.raises(BuildError, match="names no build step"):
        parse("build all: phony\n")


def test_files_are_placed_in_the_source_tree_or_the_build_folder() -> None:
    command = "cython --map=/build/src/x/y.map -o x/a.c '../src/x/$ z.txt'"
    paths = "../src/x/a.pyx /usr/bin/cython /build/env/x.py sub/gen.pxd"
    [found] = parse(f"build x/a.c: CUSTOM_COMMAND {paths}\n COMMAND = {command}\n")
    assert found.outputs == ("//x/a.c",)
    assert found.inputs == ("x/a.pyx", "//sub/gen.pxd")
    assert {"x/y.map", "//x/a.c"} <= set(found.named)


@pytest.mark.parametrize("line", ["build out", "build out rule in", "build out:", "build : | ||"])
def test_a_step_without_a_rule_is_refused(line: str) -> None:
    with pytest.raises(BuildError, match=r"has a step without a rule|names no build step"):
        parse_ninja(f"{line}\n", PurePosixPath("/build/meson"), PurePosixPath("/build/src"))


def test_the_log_gives_each_step_once_and_nothing_of_a_damaged_line() -> None:
    rows = ["# ninja log v7", "5\t250\t17\ta.c\tf00d", "5\t250\t17\ta.h\tf00d"]
    rows += ["250\t90\t17\tback.o\tbeef", "9" * 5000 + "\t1\t1\tlong.o\tbeef", "1\t2\t3\tx"]
    rows += ["250\t1000\t18\ta <b>.o\tcafe", "300\t40"]
    assert parse_log("\n".join(rows)) == [
        (("a.c", "a.h"), 0.005, 0.25),
        (("a <b>.o",), 0.25, 1.0),
    ]
    assert parse_log("") == []
