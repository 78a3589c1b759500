"""Measure patchwheel against what a user would otherwise do, in one run; figures are CPU seconds of whole processes.

Everything that patchwheel needs is fetched before it is measured. Compiler caches are kept out of the baselines (CC=gcc,
CXX=g++), which compile scikit-image: about ten CPU minutes each. `--quick` leaves these two out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from patchwheel.index import load_index_config
from patchwheel.interpreter import find_interpreter
from patchwheel.manifest import load_manifest
from patchwheel.report import Quiet

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
FORK = "scikit-image"
APPLY = """
import sys
from pathlib import Path
from patchwheel.repo import Repository
repo = Repository(Path(sys.argv[1]))
repo.apply(repo.tree_of(sys.argv[2]), [Path(p) for p in sys.argv[3:]])
"""
PLAIN = {"CC": "gcc", "CXX": "g++", "CCACHE_DISABLE": "1"}


def cpu(argv: list[str], *, cwd: Path, env: dict[str, str] | None = None) -> float:
    """Run a command and return the CPU seconds, user and system, of it and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)} failed:\n{done.stderr[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def repeated(runs: int, once: Callable[[], float]) -> list[float]:
    return [once() for _ in range(runs)]


def project_copy(folder: Path) -> Path:
    """Copy what a build reads, so that patches can be edited."""
    for name in ("forks.toml", "forks.lock"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "patches", folder / "patches")
    return folder


def series(fork: str) -> list[Path]:
    lines = (ROOT / "patches" / fork / "series").read_text().splitlines()
    return [ROOT / "patches" / fork / n for n in lines if n and not n.startswith("#")]


def edit_one_line(project: Path, fork: str, mark: int) -> None:
    """Append a comment to one added line of Python code in the fork's first patch."""
    patch = project / "patches" / fork / series(fork)[0].name
    text = re.sub(r"  # bench \d+$", "", patch.read_text(), flags=re.MULTILINE)
    line = re.compile(r"^(\+ +return \w[\w.()]*)$", re.MULTILINE)
    edited, count = line.subn(rf"\1  # bench {mark}", text, count=1)
    if not count:
        raise SystemExit(f"{patch.name} has no line that the benchmark can edit")
    patch.write_text(edited)


def no_op(runs: int) -> list[float]:
    command = ["patchwheel", "build"]
    cpu(command, cwd=ROOT)
    return repeated(runs, lambda: cpu(command, cwd=ROOT))


def python_only(fork: str, runs: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        project = project_copy(Path(folder))
        command = ["patchwheel", "build", fork]
        cpu(command, cwd=project)
        found = []
        for mark in range(runs):
            # A mark of its own for each run and process: no earlier benchmark made this wheel.
            edit_one_line(project, fork, mark + int(time.time()))
            found.append(cpu(command, cwd=project))
        return found


def python_with_pip(folder: Path) -> str:
    wanted = load_manifest(ROOT / "forks.toml").environment.python[0]
    python = find_interpreter(wanted, report=Quiet()).path
    cpu(["uv", "venv", "--seed", "-p", str(python), str(folder)], cwd=ROOT)
    return str(folder / "bin" / "python")


def pip_wheel() -> float:
    with tempfile.TemporaryDirectory() as name:
        project = project_copy(Path(name))
        cpu(["patchwheel", "dev", FORK, "--detach"], cwd=project)
        python = python_with_pip(project / "venv")
        sources = str(project / "work" / FORK)
        command = [python, "-m", "pip", "wheel", "--no-deps", "-w", "out", sources]
        return cpu(command, cwd=project, env=PLAIN)


def fromager() -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = python_with_pip(folder / "venv")
        cpu([python, "-m", "pip", "install", "-q", "fromager"], cwd=folder)
        version = load_manifest(ROOT / "forks.toml").forks[FORK].version
        overrides = f"overrides/patches/{FORK.replace('-', '_')}-{version}"
        (folder / overrides).mkdir(parents=True)
        for patch in series(FORK):
            shutil.copy(patch, folder / overrides)
        index = load_index_config(ROOT).urls[0]
        command = ["fromager", "-j2", "build", "--wheel-server-url", index]
        path = f"{folder / 'venv' / 'bin'}:{os.environ['PATH']}"
        return cpu(
            [*command, FORK, version, index], cwd=folder, env={**PLAIN, "PATH": path}
        )


def series_application(runs: int) -> tuple[list[float], list[float]]:
    """Return the cost of our application and of `git am`, both from a commit in a repository."""
    with tempfile.TemporaryDirectory() as name:
        project = project_copy(Path(name))
        cpu(["patchwheel", "dev", FORK], cwd=project)
        work = project / "work" / FORK
        patches = [str(path) for path in series(FORK)]
        base = "refs/patchwheel/base"
        apply = [sys.executable, "-c", APPLY, str(work / ".git"), base, *patches]
        who = {"GIT_COMMITTER_NAME": "bench", "GIT_COMMITTER_EMAIL": "bench@localhost"}

        def am() -> float:
            copy = project / "am"
            shutil.rmtree(copy, ignore_errors=True)
            return (
                cpu(
                    ["git", "clone", "-q", "--mirror", str(work), str(copy / ".git")],
                    cwd=project,
                )
                + cpu(["git", "config", "core.bare", "false"], cwd=copy)
                + cpu(["git", "checkout", "-q", "-f", "--detach", base], cwd=copy)
                + cpu(["git", "am", "-q", *patches], cwd=copy, env=who)
            )

        ours = repeated(runs, lambda: cpu(apply, cwd=work))
        return ours, repeated(runs, am)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out what compiles")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    figures: dict[str, float] = {}

    def note(what: str, values: list[float]) -> None:
        figures[what] = round(statistics.median(values), 3)
        row = f"{min(values):9.2f} {figures[what]:9.2f} {max(values):9.2f}"
        print(f"{what:60} {row}", flush=True)

    print(f"{'CPU seconds':60} {'min':>9} {'median':>9} {'max':>9}")
    note("patchwheel build, nothing changed, all forks", no_op(options.runs))
    changed = f"patchwheel build, one Python line changed, {FORK}"
    note(changed, python_only(FORK, options.runs))
    note(changed.replace(FORK, "scipy"), python_only("scipy", options.runs))
    ours, am = series_application(options.runs)
    note(f"series of {FORK} to a tree, patchwheel", ours)
    note(f"series of {FORK} to commits, clone and git am", am)
    if not options.quick:
        for peer, measure in (
            (f"pip wheel of the patched sources, {FORK}", pip_wheel),
            (f"fromager build with the same patches, {FORK}", fromager),
        ):
            note(peer, [measure()])
            print(f"  {figures[peer] / figures[changed]:,.0f} times one changed line")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
