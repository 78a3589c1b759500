import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from patchwheel.environment import upstream_tests
from patchwheel.environment.upstream_tests import find_tests, run_tests, select_tests
from patchwheel.kit.errors import CheckError
from patchwheel.kit.store import Store
from patchwheel.manifest.inventory import BuildInventory
from patchwheel.manifest.model import Fork
from tests.fixtures.support import Recorder

# What fails with the series, without it, and which files are installed.
TESTS = {
    "pw/tests/test_a.py": "import pw, pytest\n"
    "@pytest.mark.parametrize('x', ['a::b', 'c'])\ndef test_one(x): assert pw.GOOD or x == 'c'\n"
    "class TestTwo:\n    def test_three(self): assert False\n    def test_four(self): pass\n",
    "tests/test_b.py": "import pw\nassert pw.GOOD\ndef test_five(): pass\n",
    "tests/test_c.py": "def test_six(): assert 0\n",
}


class Bench:
    """Two trees whose files are the same, installed in two places; one is patched."""

    def __init__(self, folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.report = folder, Recorder()
        self.good = {"patched": True, "base": True}
        fork = Fork(name="pw", version="1.0", patches=Path("/nowhere"), tests=("more/*.py",))
        inventory = BuildInventory(
            verbatim={"pw/tests/test_a.py": "pw/tests/test_a.py"},
            built=frozenset(),
            reads=frozenset(),
        )
        self.project: Any = SimpleNamespace(
            store=store, progress=self.report, build=lambda _f: SimpleNamespace(inventory=inventory)
        )
        self.tree: Any = SimpleNamespace(
            source=SimpleNamespace(fork=fork, git_dir=None, tree="old"), tree="new"
        )
        self.present = [*TESTS, "more/odd.py", "pw/_mod.py", "pw/tests/test_mod.py"]
        monkeypatch.setattr(upstream_tests, "Repository", lambda _dir: self)
        monkeypatch.setattr(upstream_tests, "patched_tree", lambda *_a, **_k: self.tree)
        monkeypatch.setattr(upstream_tests, "compose_for_tests", self.environment)
        monkeypatch.setattr(upstream_tests, "replace", lambda project, **_k: project)

    def files(self, _tree: str) -> list[str]:
        return self.present

    def changes(self, _old: str, _new: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(path="pw/_mod.py")]

    def checkout(self, _tree: str, folder: Path) -> None:
        write(folder, TESTS)

    def environment(self, _project: object, wheels: list[str]) -> SimpleNamespace:
        site = self.folder / wheels[0]
        write(site, {**TESTS, "pw/__init__.py": f"GOOD = {self.good[wheels[0]]}\n"})
        python = self.folder / f"python-{wheels[0]}"
        code = f'exec env PYTHONPATH=\'{site}\':"$PYTHONPATH" {sys.executable} "$@"'
        python.write_text(f"#!/bin/sh\n{code}\n")
        python.chmod(0o755)
        return SimpleNamespace(places={"pw": site}, python=python)

    def run(self, *, compare: bool = True, selection: str = "test") -> None:
        base: Any = (lambda: ["base"]) if compare else None
        wheels: Any = ["patched"]
        words = ["-q", "-k", selection]
        run_tests(self.project, self.tree, [*TESTS], wheels, words, base=base)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def bench(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, store, monkeypatch)


def test_a_failure_that_the_base_has_too_is_not_of_the_series(bench: Bench) -> None:
    bench.run()
    begun = f"pw: pytest runs {len(TESTS)} of upstream's test files"
    assert bench.report.lines == [
        begun,
        "pw: 2 failures; the same tests without the series",
        begun,
        "pw: all of them fail without the series too",
    ]
    with pytest.raises(CheckError, match="pw: upstream's tests fail"):
        bench.run(compare=False)


def test_new_failures_are_named_by_file_and_test_and_no_others(bench: Bench) -> None:
    bench.good["patched"] = False
    with pytest.raises(CheckError) as caught:
        bench.run()
    rows = [line.removeprefix("  - ") for line in str(caught.value).splitlines()]
    assert rows == [
        "pw: the series makes upstream's tests fail:",
        "pw/tests/test_a.py::test_one[a::b]",
        # It cannot be collected.
        "tests/test_b.py::",
    ]
    # What the series mends is no failure of it.
    bench.good = {"patched": True, "base": False}
    bench.run()


def test_without_a_selected_test_nothing_is_compared(bench: Bench) -> None:
    with pytest.raises(CheckError, match="no test was selected"):
        bench.run(selection="nothing")


def test_tests_are_found_by_name_by_the_manifest_or_all(bench: Bench) -> None:
    assert select_tests(bench.tree) == ["more/odd.py", "pw/tests/test_mod.py"]
    assert select_tests(bench.tree, every=True) == [*TESTS, "more/odd.py", "pw/tests/test_mod.py"]
    # pytest's other pattern.
    bench.present += ["pw/tests/mod_test.py", "tests/pw/b_test.py", "tests/latest.py"]
    found = ["more/odd.py", "pw/tests/mod_test.py", "pw/tests/test_mod.py"]
    assert select_tests(bench.tree) == found
    assert {*select_tests(bench.tree, every=True)} == {*TESTS, *found, "tests/pw/b_test.py"}
    bench.present = ["pw/_mod.py"]
    for every, problem in (
        (False, "pw: upstream has no tests of what the series changes"),
        (True, "pw: upstream has no tests"),
    ):
        with pytest.raises(CheckError) as caught:
            find_tests(bench.project, bench.tree.source.fork, every=every)
        assert caught.value.message == problem
        assert "`tests` of forks.toml" in str(caught.value)
        assert ("`patchwheel test pw --all`" in str(caught.value)) is not every
