"""Measure patchwheel against what a user would otherwise do, in one run; figures are CPU seconds of whole processes.

Everything is fetched before it is measured. Compiler caches are kept out of the baselines (CC=gcc, CXX=g++), which compile
scikit-image: about ten minutes each on one core. `--quick` leaves the two compiles out.
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
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORK = "scikit-image"


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


def edit_one_line(project: Path, fork: str, mark: int) -> None:
    """Append a comment to one added line of Python code in the fork's first patch."""
    name = next(
        line
        for line in (project / "patches" / fork / "series").read_text().splitlines()
        if line and not line.startswith("#")
    )
    patch = project / "patches" / fork / name
    text = re.sub(r"  # bench \d+$", "", patch.read_text(), flags=re.MULTILINE)
    edited, count = re.subn(
        r"^(\+ +return \w[\w.()]*)$", rf"\1  # bench {mark}", text, count=1, flags=re.MULTILINE
    )
    if not count:
        raise SystemExit(f"{name} has no line that the benchmark can edit")
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


def patched_sources(folder: Path) -> Path:
    """Write the patched tree of FORK, as `patchwheel dev --detach` gives it."""
    project = project_copy(folder)
    cpu(["patchwheel", "dev", FORK, "--detach"], cwd=project)
    return project / "work" / FORK


def pip_wheel() -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = patched_sources(folder)
        venv = folder / "venv"
        cpu([sys.executable, "-m", "uv", "venv", "--seed", "-p", interpreter(), str(venv)], cwd=folder)
        command = [str(venv / "bin/python"), "-m", "pip", "wheel", "--no-deps", "-w", "out", str(sources)]
        return cpu(command, cwd=folder, env=plain_compilers())


def fromager() -> tuple[float, float]:
    """Return the cost of a build with the same patch, and of asking again when nothing changed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv = folder / "venv"
        cpu([sys.executable, "-m", "uv", "venv", "--seed", "-p", interpreter(), str(venv)], cwd=folder)
        cpu([str(venv / "bin/python"), "-m", "pip", "install", "-q", "fromager"], cwd=folder)
        version = manifest()["forks"][FORK]["version"]
        overrides = folder / "overrides" / "patches" / f"{FORK.replace('-', '_')}-{version}"
        overrides.mkdir(parents=True)
        for patch in (ROOT / "patches" / FORK).glob("*.patch"):
            shutil.copy(patch, overrides)
        env = {**plain_compilers(), "PATH": f"{venv / 'bin'}:{os.environ['PATH']}"}
        index = index_url()
        command = ["fromager", "-j2", "build", "--wheel-server-url", index, FORK, version, index]
        build = cpu(command, cwd=folder, env=env)
        again = cpu(command, cwd=folder, env=env) if "--twice" in sys.argv else float("nan")
        return build, again


def series_application(runs: int) -> tuple[list[float], list[float]]:
    """Return the cost of our application and of `git am`, both from a tree in a repository to the patched tree."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = project_copy(folder / "project" if (folder / "project").mkdir() is None else folder)
        cpu(["patchwheel", "dev", FORK], cwd=project)
        work = project / "work" / FORK
        patches = [str(p) for p in sorted((ROOT / "patches" / FORK).glob("*.patch"))]
        base = subprocess.run(
            ["git", "rev-parse", "refs/patchwheel/base"],
            cwd=work, capture_output=True, text=True, check=True,
        ).stdout.strip()
        apply = (
            "import sys; from pathlib import Path; from patchwheel.repo import Repository; "
            "r = Repository(Path(sys.argv[1])); r.apply(r.tree_of(sys.argv[2]), [Path(p) for p in sys.argv[3:]])"
        )
        ours = repeated(
            runs, lambda: cpu([sys.executable, "-c", apply, str(work / ".git"), base, *patches], cwd=work)
        )
        who = {f"GIT_COMMITTER_{k}": "bench" for k in ("NAME", "EMAIL")}

        def am() -> float:
            shutil.rmtree(folder / "am", ignore_errors=True)
            cost = cpu(["git", "clone", "-q", "-n", str(work), str(folder / "am")], cwd=folder)
            cost += cpu(["git", "checkout", "-q", "--detach", base], cwd=folder / "am")
            return cost + cpu(["git", "am", "-q", *patches], cwd=folder / "am", env=who)

        return ours, repeated(runs, am)


def manifest() -> dict[str, dict[str, dict[str, str]]]:
    import tomllib

    return tomllib.loads((ROOT / "forks.toml").read_text())


def interpreter() -> str:
    from patchwheel.interpreter import find_interpreter
    from patchwheel.report import Quiet

    return str(find_interpreter(tomllib_python(), report=Quiet()).path)


def tomllib_python() -> str:
    return str(manifest()["environment"]["python"][0])


def index_url() -> str:
    from patchwheel.index import load_index_config

    return load_index_config(ROOT).urls[0]


def plain_compilers() -> dict[str, str]:
    return {"CC": "gcc", "CXX": "g++", "CCACHE_DISABLE": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the baselines that compile")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    figures: dict[str, float] = {}

    def note(what: str, values: list[float]) -> None:
        figures[what] = statistics.median(values)
        print(f"{what:58} {min(values):9.2f} {figures[what]:9.2f} {max(values):9.2f}", flush=True)

    print(f"{'CPU seconds':58} {'min':>9} {'median':>9} {'max':>9}")
    note("patchwheel build, nothing changed, all forks", no_op(options.runs))
    note(f"patchwheel build, one Python line changed, {FORK}", python_only(FORK, options.runs))
    note("patchwheel build, one Python line changed, scipy", python_only("scipy", options.runs))
    ours, am = series_application(options.runs)
    note(f"series of {FORK}: patchwheel, tree to tree", ours)
    note(f"series of {FORK}: clone, checkout, git am", am)
    if not options.quick:
        note(f"pip wheel of the patched sources, {FORK}", [pip_wheel()])
        note(f"fromager build with the same patches, {FORK}", [fromager()[0]])
        change = figures[f"patchwheel build, one Python line changed, {FORK}"]
        for peer in ("pip wheel of the patched sources", "fromager build with the same patches"):
            print(f"one changed line costs {figures[f'{peer}, {FORK}'] / change:,.0f} times less than {peer}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
