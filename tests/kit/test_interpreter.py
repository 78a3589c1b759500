import os
import platform
import re
import shutil
import sys
from pathlib import Path

import pytest

from patchwheel.kit import interpreter
from patchwheel.kit.errors import MachineError
from patchwheel.kit.interpreter import Interpreter, find_interpreter, probe, remembered_interpreter
from patchwheel.kit.store import Store
from tests.fixtures.support import Recorder, program

SED = shutil.which("sed") or "sed"
OURS = f"{sys.version_info.major}.{sys.version_info.minor}"

REAL = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]


def fake(path: Path, version: str) -> Path:
    """Write a Python that claims that version, to uv too: ours with a filter behind it."""
    minor = version.split(".")[1]
    edits = {
        str(REAL): str(path),
        platform.python_version(): version,
        f'"minor": {sys.version_info.minor}': f'"minor": {minor}',
        OURS: f"3.{minor}",
    }
    script = " ".join(f"-e 's|{re.escape(old)}|{new}|g'" for old, new in edits.items())
    return program(path, f'{REAL} "$@" | {SED} {script}')


def answering(path: Path, implementation: str, *, free: bool) -> Path:
    """Write a program that answers to us as such an interpreter would."""
    flags = "t" if free else "-"
    return program(path, f"echo '{path}'\necho 3.12.1 {implementation} {flags}")


def failing(path: Path) -> Path:
    return program(path, "echo 'shim: no version is selected' >&2\nexit 127")


def find(explicit: str | None = None) -> Interpreter:
    return find_interpreter("3.77", explicit=explicit, progress=Recorder())


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any Python: PATH is one empty folder, uv has and gets none."""
    path = tmp_path / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_MIRROR", (tmp_path / "no-mirror").as_uri())
    return path


@pytest.fixture
def second(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes after the empty one on PATH."""
    monkeypatch.setenv("PATH", f"{bare}:{tmp_path / 'second'}")
    return tmp_path / "second"


def remembered(store: Store) -> Interpreter:
    return remembered_interpreter("3.77", store=store, progress=Recorder())


def test_probe_tells_a_real_interpreter_and_sees_through_virtual_environments() -> None:
    found = probe(Path(sys.executable))
    assert found is not None
    assert found.python == OURS
    assert found.tag == f"cp{OURS.replace('.', '')}"
    assert found.path == Path(sys._base_executable).resolve()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("implementation", "free"), [("pypy", False), ("cpython", True)])
def test_only_an_ordinary_cpython_counts(
    tmp_path: Path, *, implementation: str, free: bool
) -> None:
    assert probe(answering(tmp_path / "p", implementation, free=free)) is None


def test_what_answers_nonsense_or_cannot_run_is_no_interpreter(tmp_path: Path) -> None:
    path = program(tmp_path / "p", "echo 'Python 2'")
    assert probe(path) is None
    assert probe(tmp_path / "missing") is None
    path.write_bytes(b"\x7fELF of another machine")
    assert probe(path) is None


def test_failing_shims_on_path_are_skipped(bare: Path, second: Path) -> None:
    failing(bare / "python3.77")
    real = fake(second / "python3.77", "3.77.4")
    found = find()
    assert found == Interpreter(path=real, version="3.77.4")


def test_a_plain_python3_of_that_version_counts_and_another_version_does_not(bare: Path) -> None:
    fake(bare / "python3.77", "3.76.0")
    fake(bare / "python3", "3.77.1")
    assert find().path == bare / "python3"


@pytest.mark.parametrize("how", ["PYENV_ROOT", "PATH"])
def test_folders_of_another_user_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """`su` and `sudo` hand on variables that lead to where the other user may not go."""
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0)
    monkeypatch.setenv("HOME", "/")
    monkeypatch.setenv(how, str(theirs / "bin"))
    nobody = 65534
    if os.getuid() == 0:
        os.setresuid(nobody, nobody, 0)
    try:
        with pytest.raises(PermissionError):
            (theirs / "bin").exists()
        assert interpreter._pyenv_folders() == []
    finally:
        if os.getresuid()[2] == 0:
            os.setresuid(0, 0, 0)
        theirs.chmod(0o700)


@pytest.mark.parametrize("how", ["PYENV_ROOT", "home", "shims", "program"])
def test_pyenv_versions_are_found_newest_first(
    tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    root = tmp_path / (".pyenv" if how == "home" else "elsewhere")
    for version in ("3.77.2", "3.77.10", "3.7.17"):
        fake(root / "versions" / version / "bin" / "python3.77", version)
    failing(root / "shims" / "python3.77")
    match how:
        case "PYENV_ROOT":
            monkeypatch.setenv("PYENV_ROOT", str(root))
        case "home":
            monkeypatch.setenv("HOME", str(tmp_path))
        case "shims":
            monkeypatch.setenv("PATH", str(root / "shims"))
        case _:
            (root / "libexec").mkdir()
            failing(root / "libexec" / "pyenv")
            (bare / "pyenv").symlink_to(root / "libexec" / "pyenv")
    assert find().version == "3.77.10"


def test_managed_interpreters_of_uv_are_found(
    tmp_path: Path, bare: Path, report: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    managed = fake(tmp_path / "managed", "3.77.5")
    uv = program(bare / "uv", f"echo {managed}")
    monkeypatch.setattr(interpreter, "uv_bin", lambda: uv)
    assert find_interpreter("3.77", progress=report).path == managed
    assert report.lines == []


def test_the_last_resort_is_an_installation_by_uv_and_it_is_announced(
    tmp_path: Path, bare: Path, report: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    managed = fake(tmp_path / "managed", "3.77.5")
    done = tmp_path / "installed"
    script = f'[ "$2" = install ] && {{ : > {done}; exit 0; }}\n[ -e {done} ] || exit 2'
    uv = program(bare / "uv", f"{script}\necho {managed}")
    monkeypatch.setattr(interpreter, "uv_bin", lambda: uv)
    assert find_interpreter("3.77", progress=report).path == managed
    assert "uv installs one" in report.lines[0]
    done.unlink()
    with pytest.raises(MachineError, match=r"no Python 3\.77 was found"):
        find_interpreter("3.77", progress=report, install=False)
    assert (done.exists(), len(report.lines)) == (False, 1)


def test_none_anywhere_is_one_error_that_says_how_to_get_one(bare: Path) -> None:
    with pytest.raises(MachineError, match=r"no Python 3\.77 was found") as caught:
        find()
    assert "uv python install 3.77" in str(caught.value)
    assert "--python" in str(caught.value)


def test_the_explicit_interpreter_is_taken_before_any_other(tmp_path: Path, bare: Path) -> None:
    fake(bare / "python3.77", "3.77.1")
    mine = fake(tmp_path / "mine", "3.77.9")
    assert find(explicit=str(mine)).path == mine


def test_an_explicit_name_is_looked_for_past_failing_shims(bare: Path, second: Path) -> None:
    failing(bare / "mypython")
    real = fake(second / "mypython", "3.77.4")
    assert find(explicit="mypython").path == real


def test_the_explicit_version_number_means_a_search(bare: Path) -> None:
    there = fake(bare / "python3.77", "3.77.1")
    assert find(explicit="3.77").path == there


def test_a_wrong_explicit_interpreter_is_refused(tmp_path: Path, bare: Path) -> None:
    wrong = fake(tmp_path / "wrong", "3.76.1")
    with pytest.raises(MachineError, match=r"is Python 3\.76\.1") as caught:
        find(explicit=str(wrong))
    assert caught.value.expected == "Python 3.77, which the manifest asks for"


def test_a_failing_explicit_interpreter_is_refused(tmp_path: Path, bare: Path) -> None:
    shim = failing(tmp_path / "shim")
    for name in (str(shim), "no-such-python"):
        with pytest.raises(MachineError, match="does not run as a CPython"):
            find(explicit=name)


def test_uv_gets_what_it_needs_to_reach_things_and_no_resolution_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UV_INDEX_MINE_PASSWORD", "secret")
    monkeypatch.setenv("UV_INDEX_URL", "https://other.example")
    monkeypatch.setenv("UV_PRERELEASE", "allow")
    env = interpreter.uv_env()
    assert env["UV_INDEX_MINE_PASSWORD"] == "secret"
    assert "UV_CACHE_DIR" in env
    assert not {"UV_INDEX_URL", "UV_PRERELEASE"} & env.keys()


def test_a_missing_uv_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr("uv.find_uv_bin", none)
    with pytest.raises(MachineError, match="uv"):
        interpreter.uv_bin()


def test_what_was_found_is_remembered_while_the_file_is_the_same(bare: Path, store: Store) -> None:
    python = fake(bare / "python3.77", "3.77.1")
    first = remembered(store)
    assert first == Interpreter(path=python, version="3.77.1")
    searched: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_search", searched.append)
        assert remembered(store) == first
    assert searched == []
    fake(python, "3.77.22")
    assert remembered(store).version == "3.77.22"
    python.unlink()
    fake(bare / "python3", "3.77.3")
    assert remembered(store).version == "3.77.3"


def test_a_remembered_interpreter_is_searched_for_again_in_another_environment(
    bare: Path, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake(bare / "python3.77", "3.77.1")
    first = remembered(store)
    newer = fake(tmp_path / "pyenv/versions/3.77.8/bin/python3.77", "3.77.8")
    monkeypatch.setenv("PATH", f"{newer.parent}:{bare}")
    second = remembered(store)
    assert (first.version, second.path) == ("3.77.1", newer)


def test_an_ordinary_build_is_found_behind_a_free_threaded_one(bare: Path, second: Path) -> None:
    free = fake(bare / "python3.77", "3.77.9")
    edit = """-e 's|"gil_disabled": false|"gil_disabled": true|'"""
    free.write_text(free.read_text().replace(SED, f"{SED} {edit}"))
    plain = fake(second / "python3.77", "3.77.1")
    assert find().path == plain
