import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from patchwheel.kit import process
from patchwheel.kit.errors import MachineError
from tests.fixtures.support import lacking


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def gone(pid: int, seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(pid)


def logged(folder: Path, *words: str, on_line: Callable[[str], None] | None = None) -> Path:
    """Run a step in the folder and return its log, which is made below it."""
    log = folder / "deep" / "step.log"
    process.logged(words, cwd=folder, env=process.base_env(), log=log, on_line=on_line)
    return log


def test_only_named_variables_reach_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    env = process.base_env(EXTRA="1")
    assert "SECRET_TOKEN" not in env
    assert env["EXTRA"] == "1"
    assert env["PATH"] == os.environ["PATH"]


def test_capture_returns_standard_output_only(tmp_path: Path) -> None:
    words = ["sh", "-c", "cat; echo noise >&2; pwd"]
    out = process.capture(words, cwd=tmp_path, env=process.base_env())
    assert out == f"{tmp_path}\n".encode()


def test_capture_tells_the_status_and_what_was_said(tmp_path: Path) -> None:
    with pytest.raises(process.CommandError, match="ended with status 3") as caught:
        process.capture(["sh", "-c", "echo why >&2; exit 3"], cwd=tmp_path, env={})
    assert caught.value.tail == ("why",)
    assert caught.value.status == 3


def test_an_expected_status_is_no_error(tmp_path: Path) -> None:
    words = ["sh", "-c", "echo x; exit 1"]
    assert process.capture(words, cwd=tmp_path, env={}, ok=(0, 1)) == b"x\n"


@pytest.mark.parametrize("way", ["capture", "logged", "interactive"])
def test_a_missing_program_is_an_error_of_the_machine(tmp_path: Path, way: str) -> None:
    more = {"log": tmp_path / "log"} if way == "logged" else {}
    with pytest.raises(MachineError, match="cannot start 'no-such-program'"):
        getattr(process, way)(["no-such-program"], cwd=tmp_path, env={}, **more)


def test_logged_keeps_both_streams_and_hands_lines_on(tmp_path: Path) -> None:
    seen: list[str] = []
    script = ("sh", "-c", "echo one; echo two >&2; printf three")
    logged(tmp_path, *script, on_line=seen.append)
    log = logged(tmp_path, *script, on_line=seen.append)
    assert seen == ["one", "two", "three"] * 2
    assert log.read_text().count("$ sh -c") == 2
    assert log.read_text().endswith("one\ntwo\nthree\n")


def test_a_failing_step_shows_the_end_of_its_log_and_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(process.CommandError, match="signal 9") as caught:
        logged(tmp_path, "sh", "-c", "seq 100; kill -9 $$")
    assert caught.value.tail == tuple(str(n) for n in range(61, 101))
    assert caught.value.log == tmp_path / "deep" / "step.log"
    assert "last lines of the log" in str(caught.value)


def test_bytes_that_are_no_text_do_not_stop_a_step(tmp_path: Path) -> None:
    log = logged(tmp_path, "printf", r"\377\n")
    assert log.read_bytes().endswith(b"\xff\n")


def test_the_mask_of_new_files_is_fixed(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        logged(tmp_path, "touch", "f")
    finally:
        os.umask(old)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644


def test_leaving_early_kills_the_whole_group(tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        if len(pids) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        logged(tmp_path, "sh", "-c", "echo $$; sleep 60 & echo $!; wait", on_line=interrupt)
    assert all(gone(pid) for pid in pids)


def test_what_a_step_leaves_running_neither_blocks_nor_survives(tmp_path: Path) -> None:
    seen: list[str] = []
    start = time.monotonic()
    logged(tmp_path, "sh", "-c", "sleep 60 & echo $!", on_line=seen.append)
    assert time.monotonic() - start < 10
    assert gone(int(seen[0]))


def test_a_step_dies_with_us_when_we_are_killed(tmp_path: Path) -> None:
    if not shutil.which("setpriv"):
        lacking("setpriv is not installed")
    script = f"""
import pathlib
from patchwheel.kit import process
here = pathlib.Path({str(tmp_path)!r})
words = ["sh", "-c", "echo $$ > pid; exec sleep 60"]
process.logged(words, cwd=here, env=process.base_env(), log=here / "log")
"""
    with subprocess.Popen([sys.executable, "-c", script]) as parent:
        pid = tmp_path / "pid"
        while not (pid.exists() and pid.read_text().strip()):
            assert parent.poll() is None
            time.sleep(0.01)
        parent.send_signal(signal.SIGKILL)
    assert gone(int(pid.read_text()))


def test_a_step_whose_parent_was_killed_before_it_began_does_not_begin(tmp_path: Path) -> None:
    if not shutil.which("setpriv"):
        lacking("setpriv is not installed")
    words = ["touch", str(tmp_path / "began")]
    env = process.base_env()
    # It was started for a process that is not its parent any more.
    argv = ["sh", "-c", '"$@"; echo $?', "sh", *process._leash(words, env), *words]
    assert process.capture(argv, cwd=tmp_path, env=env) == b"1\n"
    assert not (tmp_path / "began").exists()


def test_interactive_returns_the_status(tmp_path: Path) -> None:
    assert process.interactive(["sh", "-c", "exit 5"], cwd=tmp_path, env={}) == 5


def test_a_missing_working_directory_is_not_taken_for_a_missing_program(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        process.capture(["true"], cwd=tmp_path / "none", env=process.base_env())


def test_who_was_interrupted_can_wait_again() -> None:
    go_on = threading.Event()
    wait = process.started(lambda: go_on.wait(10))
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            wait(None)
    finally:
        signal.signal(signal.SIGALRM, handler)
    # The call goes on, and is not taken for ended.
    with pytest.raises(TimeoutError):
        wait(0.05)
    go_on.set()
    assert wait(5) is True
