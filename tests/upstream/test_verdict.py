"""What check_forks.py makes of the outcomes of upstream's tests."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("check_forks")


def test_a_worse_outcome_is_found_and_a_parameter_of_another_name_is_none(
    script: ModuleType,
) -> None:
    old = {"a": "passed", "b": "passed", "c": "skipped", "d[1]": "passed", "e": "failed"}
    new = {"a": "skipped", "c": "passed", "d[2]": "passed", "e": "failed", "f": "failed"}
    assert dict(script.worse(new, old)) == {
        "a": "skipped, unpatched: passed",
        "b": "gone, unpatched: passed",
        "f": "failed, unpatched: skipped",
    }


def test_outcomes_have_one_name_in_all_environments(script: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite>"
        '<testcase classname="......env.lib.python3.12.site-packages.scipy.tests.test_a" name="t"/>'
        '<testcase classname="tree.tests.test_b.TestB" name="t[1]"><failure/></testcase>'
        '<testcase classname="" name="tree.tests.test_c"><error/></testcase>'
        '<testcase classname="tree.tests.test_b" name="s"><skipped/></testcase>'
        "</testsuite></testsuites>"
    )
    assert script.outcomes(report) == {
        "scipy.tests.test_a.t": "passed",
        "tests.test_b.TestB.t[1]": "failed",
        "tests.test_c": "failed",
        "tests.test_b.s": "skipped",
    }
