"""Several forks compiled by one command: at once, within the number of jobs, killed and resumed."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchwheel.build.sandbox import detect_sandbox
from tests.fixtures import support
from tests.fixtures.projects import PYTHON, VERSION, Project, sdist_table

pytestmark = [
    pytest.mark.network,
    pytest.mark.compiled,
    pytest.mark.heavy,
    pytest.mark.xdist_group("packages"),
]

FILES = 8
PYPROJECT = """\
[build-system]
build-backend = "mesonpy"
requires = {}

[project]
name = "{}"
version = "1.2.0"
"""
MESON = """\
project('{0}', 'c', version: '1.2.0')
py = import('python').find_installation(pure: false)
py.extension_module('_{0}', {1}, install: true)
py.install_sources('{0}.py')
"""
MODULE = """\
#include <Python.h>
static struct PyModuleDef module = {{PyModuleDef_HEAD_INIT, "_{0}", NULL, -1, NULL}};
PyMODINIT_FUNC PyInit__{0}(void) {{ return PyModule_Create(&module); }}
"""
# Notes when each step begins and ends; one that compiles takes a while.
GCC = """\
case " $* " in
*" -E "*) kind=preprocess ;;
*" -c "*) kind=compile ;;
*" -o "*) kind=link ;;
*) exec /usr/bin/gcc "$@" ;;
esac
echo "$(date +%s%N) 1 $PWD $kind" >> {log}
[ $kind = compile ] && sleep .4
/usr/bin/gcc "$@"
status=$?
echo "$(date +%s%N) -1 $PWD $kind" >> {log}
exit $status
"""


def files(name: str, needs: str = "") -> dict[str, str]:
    sources = [f"part{number}.c" for number in range(FILES)]
    requires = json.dumps(["meson-python>=0.17", *([needs] if needs else [])])
    parts = {
        path: f"int {name}_{number}(void) {{ return {number}; }}\n"
        for number, path in enumerate(sources)
    }
    return {
        "pyproject.toml": PYPROJECT.format(requires, name.replace("_", "-")),
        "meson.build": MESON.format(name, str(["module.c", *sources])),
        "module.c": MODULE.format(name),
        f"{name}.py": "",
        **parts,
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Three forks that compile: the third needs the wheel of the first."""
    root, shelf = tmp_path_factory.mktemp("together"), tmp_path_factory.mktemp("shelf")
    needs = {"pwone": "", "pwtwo": "", "pwthree": "pwone"}
    tables = {}
    for name, need in needs.items():
        sdist = support.make_sdist(shelf, name, VERSION, files(name, need))
        tables[name] = sdist_table(sdist)
        support.make_series(root / "patches" / name, {})
    support.make_wheel(shelf, "pwone", VERSION, {"pwone.py": ""})
    support.make_manifest(root, tables, python=PYTHON)
    made = Project(root=root, store=tmp_path_factory.mktemp("store"), shelf=shelf, fork="pwone")
    made.run("lock")
    return made


@pytest.fixture
def fresh(project: Project, tmp_path: Path) -> Project:
    """The project elsewhere, with a store in which there is no wheel and no compiled step."""
    for name in ("wheels", "compiles"):
        shutil.rmtree(project.store / name, ignore_errors=True)
    return project.copied(tmp_path / "p")


def with_gcc(folder: Path, log: str) -> dict[str, str]:
    """Return a PATH on which gcc takes notes in `log`."""
    support.program(folder / "bin" / "gcc", GCC.format(log=log))
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def steps(log: Path) -> Iterator[Counter[str]]:
    """Give how many steps of each fork ran, each time that one began or ended."""
    running: Counter[str] = Counter()
    for row in sorted(line.split() for line in log.read_text().splitlines()):
        if fork := re.search(r"build-\d+-(\w+)/", f"{row[2]}/"):
            running[fork[1]] += int(row[1])
            yield +running.copy()


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_forks_compile_at_once_and_never_more_than_the_jobs(
    fresh: Project, tmp_path: Path, jobs: int
) -> None:
    log = tmp_path / "log"
    path = with_gcc(tmp_path, str(log))
    words = ["--from-source", "--no-compile-cache", "--sandbox", "none", f"-j{jobs}"]
    wheels = fresh.run("build", *words, status=0, **path).splitlines()
    assert len(wheels) == 3
    seen = list(steps(log))
    assert max(row.total() for row in seen) == jobs
    # The two that need nothing run side by side, the third when its need is there.
    if jobs > 1:
        assert any({"pwone", "pwtwo"} <= {*row} for row in seen)
    last = max(number for number, row in enumerate(seen) if "pwone" in row)
    assert min(number for number, row in enumerate(seen) if "pwthree" in row) > last


def left(store: Path) -> list[str]:
    """Return the processes that have something to do with a store, and the FIFOs in it."""
    found = [str(path) for path in store.rglob("*") if stat.S_ISFIFO(path.lstat().st_mode)]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(store).encode() in text and int(process.name) != os.getpid():
            found.append(text.decode(errors="replace"))
    return found


def rows(store: Path) -> list[list[str]]:
    """Return what the compilers of all builds that run, or were killed, noted."""
    logs = (store / "tmp").glob("*/work/gcc.log")
    return [line.split() for log in logs for line in log.read_text().splitlines()]


def wait_for(count: int, store: Path, victim: subprocess.Popen[str]) -> None:
    """Wait until so many more steps began or ended in the builds of a store, or it ended."""
    before, until = len(rows(store)), time.monotonic() + 120
    while len(rows(store)) < before + count and victim.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.sandbox
def test_a_cancelled_build_leaves_no_process_and_no_fifo(fresh: Project, tmp_path: Path) -> None:
    if detect_sandbox().level != "bwrap":
        support.lacking("bubblewrap does not work here")
    path = with_gcc(tmp_path, "/build/gcc.log")
    victim = fresh.start("build", "pwone", "pwtwo", "--from-source", "-j2", **path)
    wait_for(40, fresh.store, victim)
    # Both run, and each has a FIFO.
    assert sum(row.endswith("/scripts/jobs") for row in left(fresh.store)) == 2
    os.kill(victim.pid, signal.SIGINT)
    assert victim.wait(30) == 130
    assert "\nending the other builds\n" in victim.communicate()[1]
    assert left(fresh.store) == []


@pytest.mark.sandbox
def test_killed_at_any_instant_the_runs_cost_little_more_than_one(
    fresh: Project, tmp_path: Path
) -> None:
    if detect_sandbox().level != "bwrap":
        support.lacking("bubblewrap does not work here")
    path = with_gcc(tmp_path, "/build/gcc.log")
    words = ["build", "pwone", "--from-source", "-j2"]
    generator = random.Random(5)
    for _ in range(5):
        victim = fresh.start(*words, **path)
        wait_for(generator.randrange(30, 60), fresh.store, victim)
        time.sleep(generator.random() / 2)
        # One that had ended was not killed, and cost nothing more.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(victim.pid, signal.SIGKILL)
        victim.communicate()
    made = fresh.build(*words[1:], **path)
    [note] = fresh.store.glob("wheels/*/made.json")
    last = json.loads(note.read_text())["compile_cache"]
    assert last["hits"] + last["misses"] == FILES + 1
    assert last["hits"]
    # Of the compiles that were begun, each kill lost no more than the two that ran.
    begun = [row for row in rows(fresh.store) if row[1:] == ["1", "/build/meson", "compile"]]
    assert FILES < len(begun) + last["misses"] <= FILES + 1 + 5 * 2
    content = made.read_bytes()
    assert fresh.build(*words[1:], "--no-compile-cache", **path).read_bytes() == content
