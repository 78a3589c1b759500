"""scripts/nox on a machine that has never seen the project."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.fixtures import support

ROOT = support.ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    copy = tmp_path / "checkout"
    (copy / "scripts").mkdir(parents=True)
    scripts = ("scripts/nox", "scripts/nox-requirements.txt")
    for name in (*scripts, "noxfile.py", "pyproject.toml", "forks.toml"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def launch(checkout: Path, *words: str, path: str) -> support.Done:
    return support.run(checkout / "scripts" / "nox", *words, cwd="/", env={"PATH": path})


def tools(folder: Path, *names: str) -> str:
    """Make a PATH that holds only these programs."""
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return str(folder)


def test_without_a_python_one_line_says_what_to_install(checkout: Path, tmp_path: Path) -> None:
    path = tools(tmp_path / "bin", "sh", "dirname", "cmp")
    done = launch(checkout, "-l", path=path)
    assert done.returncode == 7
    assert "no Python >= 3.11" in done.stderr
    assert not (checkout / ".launcher").exists()


def test_a_failing_shim_is_passed_over_and_git_is_asked_for(checkout: Path, tmp_path: Path) -> None:
    path = tools(tmp_path / "bin", "sh", "dirname", "cmp")
    shim = tmp_path / "bin" / "python3"
    shim.write_text("#!/bin/sh\necho 'pyenv: no such version' >&2\nexit 127\n")
    shim.chmod(0o755)
    (tmp_path / "bin" / "python3.14").symlink_to(sys.executable)
    done = launch(checkout, "-l", path=path)
    assert done.returncode == 7
    assert "git was not found" in done.stderr


@pytest.mark.network
def test_first_use_makes_the_environment_and_lists_one_session_for_each_fork(
    checkout: Path,
) -> None:
    done = launch(checkout, "-l", path=os.environ["PATH"])
    assert done.returncode == 0, done.stderr
    for fork in ("scipy", "scikit-learn", "scikit-image", "cupy"):
        assert f"build-{fork}" in done.stdout
    (checkout / ".launcher" / "mark").touch()
    again = launch(checkout, "--version", path=os.environ["PATH"])
    assert again.returncode == 0
    assert "making" not in again.stderr
    assert (checkout / ".launcher" / "mark").exists()
