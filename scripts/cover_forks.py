"""Report which of the lines and branches that the patches add the cases of tests/forks execute.

`nox -s cover-forks -- [--data FOLDER]` runs the cases on NumPy, array-api-strict and the stand-in
for CuPy under coverage.py; a folder with the data of an earlier run is reported again. Compiled
code and upstream's own tests do not count. Exit status 6 when less than 90 % are executed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

import uv
from check_forks import ONE_THREAD, ROOT

from patchwheel.cli.console import CONSOLE
from patchwheel.environment.compose import Environment, compose_for_tests
from patchwheel.kit import CheckError, PatchwheelError, Repository
from patchwheel.kit.store import Store, default_root
from patchwheel.project import Project
from patchwheel.series.worktree import patched_tree
from patchwheel.wheel.build import build_wheels

LEAST = 90
COVERAGE = "coverage==7.17.*"
CASES = ("-m", "pytest", "-q", "--tb=short", "tests/forks")
SEGMENT = ("-m", "tests.forks.segment_on_stand_in")
# What runs: SCIPY_ARRAY_API, CUPY_STAND_IN, and the arguments of Python.
RUNS = (
    ("1", "", (*CASES, "-m", "not calls")),
    ("1", "1", (*CASES, "--column", "cupy", "-m", "calls")),
    ("1", "", (*CASES, "--column", "strict-device1", "-m", "calls")),
    ("1", "", (*CASES, "--column", "strict", "-m", "calls")),
    ("1", "", (*CASES, "--column", "numpy", "-m", "calls")),
    ("", "", (*CASES, "--column", "numpy", "-m", "calls", "--coins", "0")),
    *(("1", "1", (*SEGMENT, labels, "0.1")) for labels in ("cluster_qr", "kmeans", "discretize")),
)


class Patched(NamedTuple):
    """A file of the installed forks, and the numbers of the lines that the series adds."""

    fork: str
    path: Path
    added: frozenset[int]


def patched_files(ours: Project, new: Environment, old: Environment) -> Iterator[Patched]:
    for fork in ours.manifest.forks.values():
        tree = patched_tree(ours, fork)
        for change in Repository(tree.source.git_dir).changes(tree.source.tree, tree.tree):
            name = change.path.removeprefix("src/")
            path, before = new.places[fork.name] / name, old.places[fork.name] / name
            if path.suffix != ".py" or "tests" in path.parts or not path.is_file():
                continue
            lines = path.read_text().splitlines()
            was = before.read_text().splitlines() if before.is_file() else []
            blocks = SequenceMatcher(None, was, lines, autojunk=False).get_opcodes()
            kinds = {"insert", "replace"}
            added = {n + 1 for kind, _, _, a, b in blocks if kind in kinds for n in range(a, b)}
            yield Patched(fork.name, path, frozenset(added))


def run(python: Path, folder: Path, *, cases: bool) -> dict[str, Any]:
    """Run the cases, unless the folder has their data; return the report of coverage.py."""
    tool = folder / "coverage"
    install = [uv.find_uv_bin(), "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([*install, "--target", str(tool), COVERAGE], check=True)
    shared = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    shared |= {"PYTHONPATH": str(tool), "PYTHONDONTWRITEBYTECODE": "1"} | ONE_THREAD

    def call(*arguments: str, api: str = "", stand_in: str = "") -> None:
        env = shared | {"SCIPY_ARRAY_API": api, "CUPY_STAND_IN": stand_in}
        command = [str(python), "-m", "coverage", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CheckError(f"{' '.join(command)} fails:\n{done.stdout[-3000:]}{done.stderr}")

    options = f"--rcfile={folder / 'rc'}"
    if cases:
        for api, stand_in, arguments in RUNS:
            CONSOLE.say(" ".join(arguments))
            call("run", options, *arguments, api=api, stand_in=stand_in)
    call("combine", options, "--keep", "--quiet")
    call("json", options, "--quiet", "-o", str(folder / "report.json"))
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())["files"]
    return report


def count(patched: Patched, found: dict[str, Any]) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Return how many lines and branches there are and run, and those that do not."""
    counts: Counter[tuple[str, str]] = Counter()
    missed = []
    for what in ("line", "branch"):
        many = "lines" if what == "line" else "branches"
        for state in ("executed", "missing"):
            for at in found.get(f"{state}_{many}", ()):
                start = at if what == "line" else abs(at[0])
                if start in patched.added:
                    counts[what, state] += 1
                    if state == "missing":
                        where = start if what == "line" else f"{at[0]} to {at[1]}"
                        name = "/".join(patched.path.parts[-3:])
                        missed.append(f"{name}: {what} {where}")
    return counts, missed


def report(files: list[Patched], found: dict[str, Any]) -> float:
    """Print what does not run, and a table; return the percentage of all."""
    totals: dict[str, Counter[tuple[str, str]]] = {}
    for patched in files:
        if patched.added:
            # No case imports what is not there: all of it is missed.
            never = {"missing_lines": sorted(patched.added)}
            counts, missed = count(patched, found.get(str(patched.path), never))
            for name in (patched.fork, "all"):
                totals.setdefault(name, Counter()).update(counts)
            print(*missed, sep="\n", end="\n" if missed else "")
    rows, share = [], 0.0
    for name in sorted(totals, key="all".__eq__):
        counts = totals[name]
        of = [counts[w, "executed"] + counts[w, "missing"] for w in ("line", "branch")]
        ran = [counts[w, "executed"] for w in ("line", "branch")]
        share = 100 * sum(ran) / sum(of)
        cells = [f"{a} of {b}" for a, b in zip(ran, of, strict=True)]
        rows.append([name, *cells, f"{share:.1f} %"])
    CONSOLE.table(["the series of", "lines", "branches", "both"], rows)
    return share


def check(data: Path, *, cases: bool) -> None:
    ours = Project(ROOT / "forks.toml", Store(default_root()), CONSOLE)
    theirs = replace(ours, without_patches=True)
    new, old = (
        compose_for_tests(p, build_wheels(p, list(p.manifest.forks.values()))[0])
        for p in (ours, theirs)
    )
    files = list(patched_files(ours, new, old))
    include = "\n  ".join(str(patched.path) for patched in files)
    settings = (
        f"branch = True\nparallel = True\ndata_file = {data / 'data'}\ninclude =\n  {include}"
    )
    (data / "rc").write_text(f"[run]\n{settings}\n")
    share = report(files, run(new.python, data, cases=cases))
    if share < LEAST:
        raise CheckError(f"{share:.1f} % of what the patches add is executed, not {LEAST} %")


def main() -> None:
    parser = argparse.ArgumentParser(prog="cover-forks", description=__doc__)
    parser.add_argument("--data", type=Path, help="keep the data there, or report those there")
    options = parser.parse_args()
    os.environ.pop("SCIPY_ARRAY_API", None)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            data = (options.data or Path(scratch)).absolute()
            data.mkdir(parents=True, exist_ok=True)
            check(data, cases=not list(data.glob("data.*")))
    except PatchwheelError as error:
        print(f"cover-forks: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    main()
