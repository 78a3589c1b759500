"""What cover-forks counts: lines and branches that a series adds, and nothing else of a file."""

import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
FOUND = {
    "executed_lines": [1, 2, 5],
    "missing_lines": [3, 6],
    "executed_branches": [[2, 5], [9, 10]],
    "missing_branches": [[2, 3], [9, -1]],
}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("cover_forks")


def test_added_lines_and_branches_are_counted(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        script.Patched("one", Path("a/b/c.py"), frozenset({2, 3, 5})),
        script.Patched("two", Path("a/b/never.py"), frozenset({7, 8})),
        script.Patched("two", Path("a/b/only_removed.py"), frozenset()),
    ]
    share = script.report(files, {"a/b/c.py": FOUND})
    printed = capsys.readouterr().out
    # Lines 2 and 5 and one branch of 2 run; line 3, the other branch and the unimported file not.
    assert share == pytest.approx(100 * 3 / 7)
    for missed in ("a/b/c.py: line 3", "a/b/c.py: branch 2 to 3", "a/b/never.py: line 8"):
        assert missed in printed
    assert "line 6" not in printed
    assert "branch 9" not in printed


def test_too_few_executed_lines_fail(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "data.1").touch()
    files = [script.Patched("one", Path("a/b/c.py"), frozenset({2, 3, 5}))]
    monkeypatch.setattr(script, "build_wheels", lambda *_: ([], None))
    monkeypatch.setattr(script, "compose_for_tests", lambda *_: SimpleNamespace(python="python"))
    monkeypatch.setattr(script, "patched_files", lambda *_: iter(files))
    monkeypatch.setattr(script, "run", lambda *_, cases: {} if cases else {"a/b/c.py": FOUND})
    monkeypatch.setattr("sys.argv", ["cover-forks", "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        script.main()
    assert stopped.value.code == 6
    assert "60.0 % of what the patches add is executed, not 90 %" in capsys.readouterr().err
    assert "include =\n  a/b/c.py" in (tmp_path / "rc").read_text()


def test_a_run_that_fails_stops_with_what_it_said(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = SimpleNamespace(returncode=1, stdout="1 failed", stderr="")
    monkeypatch.setattr(script.subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(script.CheckError, match=r"-m not calls fails:\n1 failed"):
        script.run(Path("python"), tmp_path, cases=True)
