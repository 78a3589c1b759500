import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from patchwheel.kit.store import default_root
from tests import conftest
from tests.fixtures import support


def test_home_settings_and_store_are_not_the_users() -> None:
    assert Path.home() != conftest.REAL_HOME
    assert default_root() != conftest.REAL_STORE
    assert default_root().is_relative_to(Path.home())
    assert not [n for n in os.environ if n.startswith(("XDG_", "PIP_FIND", "GIT_DIR"))]


def test_a_child_process_is_sealed_too() -> None:
    script = "from patchwheel.kit.store import default_root; print(default_root())"
    said = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert Path(said.strip()) == default_root()


def test_git_sees_no_configuration_and_fixed_people(tmp_path: Path) -> None:
    commits = [support.make_upstream(tmp_path / name, {"a": "x\n"}) for name in ("one", "two")]
    assert commits[0] == commits[1]
    assert support.git(tmp_path / "one", "config", "--global", "--list") == ""


@pytest.mark.parametrize(("strict", "outcome"), [(None, "skip"), ("1", "fail")])
def test_what_cannot_run_here_is_skipped_and_never_where_all_must(
    monkeypatch: pytest.MonkeyPatch, strict: str | None, outcome: str
) -> None:
    monkeypatch.delenv("TEST_ALL", raising=False)
    if strict:
        monkeypatch.setenv("TEST_ALL", strict)
    expected = getattr(pytest, outcome).Exception
    with pytest.raises(expected, match="no bubblewrap"):
        support.lacking("no bubblewrap")


def test_the_same_arguments_give_the_same_wheel(tmp_path: Path) -> None:
    one, two = (
        support.make_wheel(tmp_path / n, "a-b", "1", {"a_b/__init__.py": "x"}) for n in "12"
    )
    assert support.sha256(one) == support.sha256(two)
    with zipfile.ZipFile(one) as archive:
        assert archive.testzip() is None
        assert b"a_b/__init__.py,sha256=" in archive.read("a_b-1.dist-info/RECORD")
