"""The trial of real projects, without any: what it records, and when it fails."""

import json
import sys
from pathlib import Path
from typing import Any

import check_projects
import pytest

RECORD: dict[str, Any] = {
    "idna": {"version": "3.20", "add": 9.5, "python": {"route": "compile", "seconds": 2.0}},
    "lxml": {
        "version": "6.1.3",
        "add": 20.0,
        "python": {"route": "graft", "seconds": 1.5},
        "compiled": {"route": "no", "why": "`build lxml` exits with 7: libxml2 is missing"},
    },
    "regex": {"version": "", "why": "`add regex` exits with 4: no such project"},
}


def test_the_page_is_the_table_of_its_record(tmp_path: Path) -> None:
    page = check_projects.RECORD.with_suffix(".md")
    copy = tmp_path / page.name
    copy.write_text(page.read_text())
    record = json.loads(check_projects.RECORD.read_text())
    assert set(record) <= {case.name for case in check_projects.CASES}
    check_projects.write_page(record, copy)
    assert copy.read_text() == page.read_text()


def test_a_row_says_what_worked_what_did_not_and_what_was_not_run() -> None:
    lines = check_projects.table(RECORD).splitlines()
    assert "| idna 3.20 | flit-core | 9.5 | compile | 2.0 | - | - |" in lines
    assert "| lxml 6.1.3 | setuptools | 20.0 | graft | 1.5 | no | - |" in lines
    assert "| regex | setuptools | no | not run | - | not run | - |" in lines
    assert "| numpy | meson-python | not run | not run | - | not run | - |" in lines
    assert lines[-2:] == [
        "* lxml, compiled: `build lxml` exits with 7: libxml2 is missing",
        "* regex, `add`: `add regex` exits with 4: no such project",
    ]


def test_a_failed_command_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(
        check_projects.NotSoError, match=r"^`patchwheel build demo` exits with 2: .*forks.toml"
    ):
        check_projects.ours(tmp_path, "build", "demo")
    assert "patchwheel build demo" in (tmp_path / "log").read_text()


def test_a_reason_has_what_the_log_says_last(tmp_path: Path) -> None:
    said = "error: x cannot be built\n  last lines of the log:\n    a\n    no y.h\n  log: x.log\n"
    code = f"raise SystemExit({said + '  next: see the log'!r})"
    with pytest.raises(check_projects.NotSoError, match=r"1: x cannot be built: no y\.h$"):
        check_projects.run(tmp_path, sys.executable, "-c", code)


def test_what_takes_too_long_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_projects, "PATIENCE", 0.2)
    with pytest.raises(check_projects.NotSoError, match=r"takes more than 0\.2 s"):
        check_projects.run(tmp_path, sys.executable, "-c", "import time; time.sleep(9)")


def trial(
    record: Path, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any], *words: str
) -> tuple[int, list[str]]:
    """Run the script with a project that comes to this row; return its status, what it tried."""
    tried = []

    def check(
        case: check_projects.Case, version: str, folder: Path, *, python_only: bool
    ) -> dict[str, Any]:
        tried.append(f"{case.name}=={version}")
        return row

    monkeypatch.setattr(check_projects, "check", check)
    monkeypatch.setattr(sys, "argv", ["projects", "--record", str(record), *words])
    with pytest.raises(SystemExit) as ended:
        check_projects.main()
    return int(str(ended.value.code)), tried


def test_a_project_that_does_other_than_its_record_says_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "projects.json"
    record.write_text(json.dumps(RECORD))
    record.with_suffix(".md").write_text(f"head\n{check_projects.BEGIN}\n{check_projects.END}\n")
    same = RECORD["lxml"] | {"add": 30.0}
    assert trial(record, monkeypatch, same, "lxml") == (0, ["lxml==6.1.3"])
    compiled = same | {"compiled": {"route": "compile", "seconds": 60.0}}
    assert trial(record, monkeypatch, compiled, "--newest", "lxml") == (6, ["lxml=="])
    assert "lxml, compiled: no before, compile now" in capsys.readouterr().out
    assert json.loads(record.read_text()) == RECORD | {"lxml": compiled}
    assert "| lxml 6.1.3 | setuptools | 30.0 | graft | 1.5 | compile | 60.0 |" in (
        record.with_suffix(".md").read_text()
    )
    shorter = {key: value for key, value in same.items() if key != "compiled"}
    assert trial(record, monkeypatch, shorter, "--python-only", "lxml") == (0, ["lxml==6.1.3"])
    assert json.loads(record.read_text())["lxml"] == compiled


def test_only_projects_of_the_table_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trial(tmp_path / "r.json", monkeypatch, {}, "lxlm") == (2, [])
    assert "no such project in the table: lxlm" in capsys.readouterr().err
