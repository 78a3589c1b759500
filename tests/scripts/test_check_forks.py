"""The check of the forks runs, and finds what it is there to find."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fixtures import support

if TYPE_CHECKING:
    from tests.conftest import Stack

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("forks")]

# Stands in for fork_cases.py: only some of its cases, and one of them broken.
BROKEN = """
import dataclasses
import functools
import sys
import fork_cases as f
import numpy as np

def change(function, call):
    f.CASES[:] = [
        dataclasses.replace(c, call=functools.partial(call, c.call)) if c is last else c
        for same in [[c for c in f.CASES if c.function == function]]
        for last in same[-1:]
        for c in same
    ]

{change}
f.main()
"""


@pytest.fixture(scope="module")
def projects(stack: Stack) -> tuple[Path, Path]:
    """The patched project and an unpatched one, with their environments."""
    unpatched = stack.project.parent / "unpatched"
    support.copy_project(unpatched)
    for series in (unpatched / "patches").glob("*/series"):
        shutil.rmtree(series.parent)
        series.parent.mkdir()
        series.touch()
    stack.run("build", folder=unpatched)
    stack.run("env", folder=unpatched)
    return stack.project, unpatched


def check(projects: tuple[Path, Path], *arguments: str) -> subprocess.CompletedProcess[str]:
    patched, unpatched = projects
    command = [sys.executable, str(ROOT / "scripts" / "check_forks.py")]
    command += ["--patched", str(patched), "--unpatched", str(unpatched), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)


def test_the_forks_pass(projects: tuple[Path, Path], tmp_path: Path) -> None:
    table = tmp_path / "array-api.md"
    document = (ROOT / "docs" / "reference" / "array-api.md").read_text()
    table.write_text(document)
    done = check(projects, "--coins=0.1", "--table", str(table))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| `.*", table.read_text(), re.MULTILINE)
    recorded = re.findall(r"^\| `.*", document, re.MULTILINE)
    assert [r.split("|")[1:5] for r in rows] == [r.split("|")[1:5] for r in recorded]
    facts = json.loads(table.with_suffix(".json").read_text())
    assert {"numpy", "strict", "strict-device1"} <= facts.keys()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            "change('skimage.util.img_as_float', lambda old, a: a.to_numpy(old(a)))",
            r"strict, CPU: skimage\.util\.img_as_float \(dtype=float64.*\) \[scikit-image/0010\]: "
            r"result is numpy\.ndarray",
            id="silently converted",
        ),
        pytest.param(
            "off = 'unpatched' not in sys.prefix and 'unpatched' not in sys.executable\n"
            "change('sklearn.utils.check_symmetric', lambda old, a: old(a) * (1 + off * 2**-52))",
            r"NumPy, plain: sklearn\.utils\.check_symmetric .* \[scikit-learn/0040\]: \w+, unpatched: \w+",
            id="one bit off",
        ),
        pytest.param(
            "del f.CASES[1:]\nold = f.embed\n"
            "def embed(a, known):\n"
            "    found = a.to_numpy(old(a, known)).copy()\n"
            "    found[:, 5] = known.vectors[:, known.k] / known.diagonal\n"
            "    return a(found)\n"
            "f.embed = embed",
            r"labels of the coins \(scale=0.1\) .*an eigenvector is missed: angle 1\.6",
            id="missed eigenvector",
        ),
    ],
)
def test_what_is_wrong_is_found_and_named(
    projects: tuple[Path, Path], tmp_path: Path, change: str, said: str
) -> None:
    cases = tmp_path / "broken.py"
    cases.write_text(BROKEN.replace("{change}", change))
    coins = "0.1" if "embed" in change else "0"
    done = check(projects, "--cases", str(cases), "--coins", coins)
    assert done.returncode == 6
    assert re.search(said, done.stdout), done.stdout
