"""What the benchmarks share: CPU seconds of processes, copies of the project, the table."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from patchwheel.kit.context import Progress
from patchwheel.kit.interpreter import find_interpreter
from patchwheel.manifest.load import load_manifest

ROOT = Path(__file__).resolve().parents[2]
CGROUP = Path("/sys/fs/cgroup")
# Compiler caches are kept out.
PLAIN = {"CC": "gcc", "CXX": "g++", "CCACHE_DISABLE": "1"}


def cpu_so_far() -> float:
    """Return the CPU seconds of this process and the children that it waited for."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def cpu(argv: list[str], *, cwd: Path, env: dict[str, str] | None = None) -> float:
    """Run a command and return the CPU seconds, user and system, of it and its children."""
    before = cpu_so_far()
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
    return cpu_so_far() - before


class Spent(NamedTuple):
    """CPU seconds, and the most memory in use by all processes together, in MB."""

    cpu: float
    peak: float


def contained(argv: list[str], *, cwd: Path, env: dict[str, str]) -> Spent:
    """Run a command with what bubblewrap starts, which is not counted for who waits for it."""
    for root, name in ((CGROUP / "cpuacct", "cpuacct.usage"), (CGROUP, "cpu.stat")):
        group = root / f"bench-{os.getpid()}"
        try:
            group.mkdir(exist_ok=True)
        except OSError:
            continue
        done, found = threading.Event(), [0.0]
        watch = threading.Thread(target=_watch, args=(group, done, found))
        watch.start()
        try:
            before, join = _used(group / name), f'echo $$ > {group}/cgroup.procs && exec "$@"'
            cpu(["sh", "-c", join, "sh", *argv], cwd=cwd, env=env)
            spent = _used(group / name) - before
        finally:
            done.set()
            watch.join()
            # What a command left may still be ending; the next run takes the group as it is.
            with contextlib.suppress(OSError):
                group.rmdir()
        return Spent(spent, found[0])
    raise SystemExit("no control group can be made here, which would count the CPU seconds")


def _used(file: Path) -> float:
    words = file.read_text().split()
    # Nanoseconds in the first version of control groups, then microseconds.
    return int(words[0]) / 1e9 if len(words) == 1 else int(words[1]) / 1e6


def _watch(group: Path, done: threading.Event, found: list[float]) -> None:
    """Keep the largest sum of what is resident, of memory that processes share their part each."""
    while not done.wait(0.2):
        total = 0
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError, IndexError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(text.partition("Pss:")[2].split()[0])
        found[0] = max(found[0], total / 1000)


def repeated(runs: int, once: Callable[[], float]) -> list[float]:
    return [once() for _ in range(runs)]


def project_copy(folder: Path) -> Path:
    """Copy what a build reads, so that patches can be edited."""
    for name in ("forks.toml", "forks.lock", "forks.inventory"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "patches", folder / "patches")
    return folder


def python_with_pip(folder: Path) -> str:
    wanted = load_manifest(ROOT / "forks.toml").environment.python[0]
    python = find_interpreter(wanted, progress=Progress()).path
    cpu(["uv", "venv", "--seed", "-p", str(python), str(folder)], cwd=ROOT)
    return str(folder / "bin" / "python")


def pytest(python: str, folder: Path) -> list[str]:
    """Return the command that runs upstream's tests, without upstream's configuration."""
    ini = folder / "pytest.ini"
    ini.write_text("[pytest]\n")
    words = ["-q", "-p", "no:cacheprovider", "-c", str(ini), "--import-mode=importlib"]
    return [python, "-m", "pytest", *words]


def make_parser(description: str | None, runs: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=int, default=runs)
    parser.add_argument("--json", type=Path, help="also write the CPU seconds of each run there")
    return parser


def leave_the_sandbox() -> None:
    """Build without bubblewrap: a build's seconds within it are not counted for its parent."""
    os.environ["PATCHWHEEL_SANDBOX"] = "none"


class Figures(dict[str, list[float]]):
    """CPU seconds of each run, by what was measured."""

    def note(self, what: str, values: list[float]) -> None:
        """Keep the figures, and print a row of the table."""
        if not self:
            print(f"{'CPU seconds':60} {'min':>9} {'median':>9} {'max':>9}")
        self[what] = values
        row = f"{min(values):9.3f} {statistics.median(values):9.3f} {max(values):9.3f}"
        print(f"{what:60} {row}", flush=True)

    def write(self, path: Path | None) -> None:
        if path:
            path.write_text(json.dumps(self, indent=1) + "\n")
