"""Builds of several forks at once with a real ninja: together they keep to the number of jobs."""

import functools
import os
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from patchwheel.build.sandbox import detect_sandbox, open_build_dir
from patchwheel.kit import Jobs, process
from patchwheel.kit.interpreter import uv_bin
from patchwheel.kit.store import Store
from tests.fixtures import support

pytestmark = [pytest.mark.network, pytest.mark.sandbox]

# Each step notes when it began and ended.
STEP = "echo $$(date +%s%N) 1 >> log; {}; echo $$(date +%s%N) -1 >> log"
WORK = "sleep .15"
# What a build does with the FIFO in one of its steps.
BAD = {
    "makes up tokens": "printf ++++++++++ > ../scripts/jobs; sleep .3",
    "takes all tokens": "timeout .5 cat ../scripts/jobs > taken || true",
    "is killed with its tokens": "timeout .3 cat ../scripts/jobs > taken; kill -9 $$PPID",
    "removes the FIFO": "rm -f ../scripts/jobs; echo > ../scripts/jobs; sleep .2",
}


@pytest.fixture(scope="module", name="ninja")
def install_ninja(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a build environment, with nothing but the locked ninja."""
    folder = tmp_path_factory.mktemp("ninja")
    words: list[str | Path] = ["pip", "install", "--quiet", "--target", folder, "ninja==1.13.2"]
    subprocess.run([uv_bin(), *words], check=True)
    return folder


@dataclass(frozen=True)
class Yard:
    """Builds in folders of their own, with one pool."""

    store: Store
    ninja: Path
    jobs: Jobs

    def build(self, name: str, steps: list[str]) -> list[tuple[int, int, str]]:
        """Run steps by ninja; return when each began and ended, also of a build that failed."""
        with open_build_dir(
            name, sandbox=detect_sandbox(), store=self.store, env=self.ninja, jobs=self.jobs
        ) as build_dir:
            text = "".join(
                f"rule step{n}\n command = {STEP.format(step)}\nbuild {n}: step{n}\n"
                for n, step in enumerate(steps)
            )
            (build_dir.work / "src/build.ninja").write_text(text)
            fifo, program = build_dir.scripts / "jobs", build_dir.env_inside / "bin/ninja"
            log = self.store.log(name, "compile")
            with self.jobs.serve(fifo, build_dir.path_inside(fifo)) as variables:
                env = {"PATH": os.defpath, **variables}
                try:
                    build_dir.run([program], cwd=build_dir.work / "src", env=env, log=log)
                except process.CommandError:
                    assert name == "bad"
            rows = (build_dir.work / "src/log").read_text().split()
        return [
            (int(when), int(change), name)
            for when, change in zip(rows[::2], rows[1::2], strict=False)
        ]


def together(yard: Yard, *builds: tuple[str, list[str]]) -> list[tuple[int, int, str]]:
    calls = [process.started(functools.partial(yard.build, *build)) for build in builds]
    return sorted(row for call in calls for row in call(60))


def check(rows: list[tuple[int, int, str]], most: int, names: set[str]) -> None:
    """Check how many steps ran at once: all slots are used, by all builds, and no more."""
    running: Counter[str] = Counter()
    seen: list[Counter[str]] = []
    for _, change, name in rows:
        running[name] += change
        seen.append(running.copy())
    assert max(row.total() for row in seen) == most
    assert any(names <= {*+row} for row in seen)


@pytest.mark.parametrize("most", [2, 3, 6])
def test_two_builds_run_at_once_and_keep_to_the_number_of_jobs(
    store: Store, ninja: Path, most: int
) -> None:
    yard = Yard(store, ninja, Jobs(most))
    rows = together(yard, ("one", [WORK] * 12), ("two", [WORK] * 12))
    assert len(rows) == 48
    check(rows, most, {"one", "two"})
    # The last one gets the slots of the first.
    assert yard.jobs.free == most


def test_with_one_job_steps_of_two_builds_never_overlap(store: Store, ninja: Path) -> None:
    yard = Yard(store, ninja, Jobs(1))
    check(together(yard, ("one", ["true"] * 3), ("two", ["true"] * 3)), 1, set())


@pytest.mark.parametrize("what", BAD)
def test_a_build_that_cheats_takes_nothing_from_others(
    store: Store, ninja: Path, what: str
) -> None:
    if detect_sandbox().level != "bwrap":
        support.lacking("bubblewrap does not work here")
    yard = Yard(store, ninja, Jobs(4))
    rows = together(
        yard,
        ("one", [WORK] * 10),
        ("bad", [BAD[what], *[WORK] * 3]),
        ("two", [WORK] * 10),
    )
    honest = [row for row in rows if row[2] in {"one", "two"}]
    assert len(honest) == 40
    running = peak = 0
    for _, change, _ in honest:
        running += change
        peak = max(peak, running)
    # The bad one has its own slot as long as it runs, and afterwards nobody has it.
    assert peak <= 4
    assert yard.jobs.free == 4
