"""The README: its size, its figures, and its commands, run as it shows them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from graft_picture import picture

from tests.conftest import Stack
from tests.fixtures import support

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
BENCHMARKS = (ROOT / "docs" / "benchmarks.md").read_text()
GRAFT: dict[str, Any] = json.loads((ROOT / "docs" / "figures" / "graft.json").read_text())
SECTIONS = dict(re.findall(r"(?ms)^## (.+?)\n(.*?)(?=^## |\Z)", README))
PATCH = """\
Subject: [PATCH] Say that it is patched
From: A U Thor <author@example.org>

Carried as an example.

Upstream-Status: Inappropriate [an example]
---
--- a/lib/contourpy/__init__.py
+++ b/lib/contourpy/__init__.py
@@ -1,3 +1,4 @@
 from __future__ import annotations
\x20
+PATCHED = True
 from typing import TYPE_CHECKING
"""


def shown(section: str) -> list[tuple[str, str]]:
    """Return the commands of a section that begin with `$`, each with its output."""
    found: list[tuple[str, str]] = []
    for line in re.findall(r"(?m)^    (.*)$", SECTIONS[section]):
        command, output = found[-1] if found else ("", "")
        # A command goes on after a backslash, and within quotes.
        if found and not output and (command.endswith("\\") or command.count("'") % 2):
            found[-1] = (f"{command}\n{line}", "")
        elif line.startswith("$ "):
            found.append((line[2:], ""))
        elif found:
            found[-1] = (command, f"{output}{line}\n")
    return found


def plain(output: str) -> str:
    """Return output without what differs from run to run: commit ids."""
    return re.sub(r"\b[0-9a-f]{7}\b", "#", output)


def same(expected: str, output: str) -> bool:
    """Whether the output is as expected, where a line `...` stands for any number of lines."""
    lines = (
        "(?:.*\n)*?" if line == "..." else re.escape(line) + "\n"
        for line in plain(expected).splitlines()
    )
    return re.fullmatch("".join(lines), plain(output)) is not None


def run(command: str, folder: Path, **env: str) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=580,
    )
    output = done.stdout.replace(f"{folder}/", "")
    assert done.returncode == 0, f"{command}\n{output}"
    return output


def test_the_page_is_short_and_its_first_screen_shorter() -> None:
    assert len(README.splitlines()) <= 150
    first = README.partition("\n## ")[0]
    assert len(first.split()) <= 200
    assert "docs/figures/graft.svg" in first
    assert {"    ./scripts/nox -s build", "    ./scripts/nox -s tests"} <= {*first.splitlines()}


def test_the_picture_is_drawn_from_its_figures_and_the_series() -> None:
    assert (ROOT / "docs" / "figures" / "graft.svg").read_text() == picture(GRAFT)
    patches = (ROOT / "patches" / GRAFT["fork"]).glob("*.patch")
    changed = {n for p in patches for n in re.findall(r"(?m)^\+\+\+ b/src/(.+)$", p.read_text())}
    # A list of files that the build reads is in no wheel.
    remade = sorted(name for name in changed if not name.endswith("/meson.build"))
    assert GRAFT["remade"] == remade, "run `python scripts/graft_picture.py --update`"
    told = f"{len(remade)} of the {GRAFT['files']} files of {GRAFT['fork']}'s wheel"
    assert told in README


def cells(row: str) -> list[str]:
    [found] = re.findall(rf"(?m)^\| {re.escape(row)} \|(.+)\|$", BENCHMARKS)
    return [cell.strip() for cell in found.split("|")]


def test_the_figures_are_those_of_the_benchmarks() -> None:
    median = cells("`patchwheel build`, one Python line changed, scikit-image")[1]
    wheel = cells("`pip wheel` of the patched sources, scikit-image")[1]
    assert GRAFT["cpu_seconds"] == {"patchwheel build": float(median), "pip wheel": float(wheel)}
    text = re.sub(r"\s+", " ", README)
    unchanged = cells("`patchwheel build`, nothing changed, all four forks")[1]
    fromager = float(cells("fromager with the same patches, scikit-image")[1])
    dev, warm, _, cold = cells("scikit-image, `_warps_cy.pyx`")
    one = cells("SciPy, `scipy/sparse/csgraph/_traversal.pyx`")[-1]
    for told in (
        f"{float(median):.1f} CPU seconds after a change, where pip wheel takes {float(wheel):.0f}",
        f"when nothing changed, {unchanged} CPU seconds",
        f"{one} CPU seconds for one of SciPy, of which a wheel build costs about 1,900",
        f"compiles the wheel: {fromager:.0f} CPU seconds for scikit-image",
        f"{warm} CPU seconds for a `.pyx` of scikit-image, {dev} here; {cold} for the first build",
    ):
        assert told in text
    assert "A wheel build of SciPy costs about 1,900 CPU seconds" in BENCHMARKS


def test_the_series_are_those_that_there_are() -> None:
    manifest = tomllib.loads((ROOT / "forks.toml").read_text())["forks"]
    rows = re.findall(r"(?m)^\| ([\w-]+) ([\d.]+) \| (\d+) \|", SECTIONS["Four array-API series"])
    told = {name.lower(): (version, int(count)) for name, version, count in rows}
    assert told == {
        name: (fork["version"], len([*(ROOT / "patches" / name).glob("*.patch")]))
        for name, fork in manifest.items()
    }


def test_output_is_compared_line_by_line_but_for_ids_and_what_is_left_out() -> None:
    assert same("a\n...\n1:  7b57068 = b\n", "a\nx\ny\n1:  0000000 = b\n")
    assert same("...\nb\n", "b\n")
    assert not same("a\nb\n", "a\nx\nb\n")
    assert not same("a\n...\nc\n", "a\nb\n")


@pytest.mark.heavy
@pytest.mark.network
def test_the_loop_runs_as_it_is_shown(stack: Stack, tmp_path: Path) -> None:
    support.copy_project(tmp_path)
    commands = shown("The loop")
    assert len(commands) == 7
    for command, expected in commands:
        output = run(command, tmp_path, PATCHWHEEL_STORE=str(stack.store))
        assert same(expected, output), f"{command}\n{output}"


@pytest.mark.heavy
@pytest.mark.network
def test_a_fork_of_ones_own_takes_the_four_commands_that_are_shown(tmp_path: Path) -> None:
    (tmp_path / "fix.patch").write_text(PATCH)
    commands = shown("Your own fork")
    assert len(commands) == 4
    for command, expected in commands:
        output = run(command, tmp_path)
        assert same(expected, output), f"{command}\n{output}"
    show = ".venv-forks/bin/python -c 'import contourpy; print(contourpy.PATCHED)'"
    assert run(show, tmp_path) == "True\n"
