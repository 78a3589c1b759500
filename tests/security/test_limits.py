"""P16: a build step ends at its limits, and what it says commands no terminal."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from patchwheel.build.sandbox import Sandbox, detect_sandbox, open_build_dir
from patchwheel.kit import limits, process
from patchwheel.kit.errors import (
    BuildError,
    MachineError,
    ManifestError,
    PatchwheelError,
    plain,
)
from patchwheel.kit.limits import Limits, load_limits
from patchwheel.kit.store import Store
from tests.security.hostile import make_attack, need_bubblewrap

MB = 10**6
FORK = "import os, time\nfor _ in range(60):\n  if not os.fork(): time.sleep(60)\ntime.sleep(60)"
THREADS = """
import threading, time
for _ in range(400): threading.Thread(target=time.sleep, args=[60], daemon=True).start()
time.sleep(60)
"""
GROW = "x = bytearray(1)\nwhile True: x += b'x' * 10_000_000"
SHARES = "import os, time\n[os.fork() for _ in range(3)]\nx = b'x' * 60_000_000\ntime.sleep(60)"
TALK = "import sys\nwhile True: sys.stdout.write('x' * 9999 + {end!r})"
FILL = """
import os
for n in range(10**6):
    with open(f"{place}/{{n}}", "wb") as file: file.write(b"x" * 1_000_000)
    if n > 300: import time; time.sleep(60)
"""
DEEP = """
import os
for n in range(2000): os.mkdir("d" * 50); os.chdir("d" * 50)
open("x", "wb").write(b"x" * 90_000_000)
import time; time.sleep(60)
"""
# What a step does, the limit that ends it, its message and its exit code.
ENDLESS: dict[str, tuple[str, dict[str, int], str, int]] = {
    "waits for ever": ("import time; time.sleep(60)", {"silence": 1}, "said nothing for 1 s", 5),
    "reads a FIFO": ("import os; os.mkfifo('f'); open('f')", {"silence": 1}, "said nothing", 5),
    "works for ever": (
        "import time\nwhile True: print('x'); time.sleep(0.01)",
        {"time": 1},
        "longer than 1 s",
        5,
    ),
    "works silently": ("while True: pass", {"time": 1}, "longer than 1 s", 5),
    "talks": (TALK.format(end="\n"), {"log": 3 * MB}, "output has more than 3 MB", 5),
    "talks without a line end": (TALK.format(end=""), {"log": 3 * MB}, "more than 3 MB", 5),
    "forks": (FORK, {"processes": 20}, "more than 20 processes at once", 5),
    "forks in a session of its own": (
        "import os; os.setsid()\n" + FORK,
        {"processes": 20},
        "20",
        5,
    ),
    "starts threads": (THREADS, {"processes": 20}, "more than 20 processes at once", 5),
    "grows": (GROW, {"memory": 200 * MB}, "more than 200 MB of memory", 7),
    "grows in many processes": (SHARES, {"memory": 200 * MB}, "more than 200 MB of memory", 7),
    "fills its sources": (FILL.format(place="."), {"disk": 80 * MB}, "80 MB of disk", 7),
    "fills its temporary folder": (
        "import os; os.chdir(os.environ['TMPDIR'])\n" + FILL.format(place="."),
        {"disk": 80 * MB},
        "80 MB of disk",
        7,
    ),
    "fills a deep folder": (DEEP, {"disk": 80 * MB}, "80 MB of disk", 7),
}
IN_MEMORY = {
    "fills /tmp": (FILL.format(place="/tmp"), {"memory": 150 * MB}, "150 MB of memory", 7),
    "fills /dev/shm": (FILL.format(place="/dev/shm"), {"memory": 150 * MB}, "150 MB of memory", 7),
}


def run(sandbox: Sandbox, code: str, limits: Limits, tmp_path: Path) -> float:
    """Run a step, and return how long it took."""
    store, environment = Store(tmp_path / "store"), tmp_path / "environment"
    environment.mkdir()
    start = time.monotonic()
    with open_build_dir(
        "demo",
        sandbox=sandbox,
        store=store,
        limits=limits,
        env=environment,
        read=[Path(sys.base_prefix)],
    ) as build_dir:
        python = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
        env = {"PATH": os.defpath, "TMPDIR": str(build_dir.inside / "tmp")}
        build_dir.run(
            [python, "-c", code], cwd=build_dir.work / "src", env=env, log=tmp_path / "log"
        )
    return time.monotonic() - start


def refused(sandbox: Sandbox, row: tuple[str, dict[str, int], str, int], tmp_path: Path) -> None:
    code, given, message, status = row
    limits = Limits(**({"time": 30} | given))
    with pytest.raises((BuildError, MachineError)) as caught:
        run(sandbox, code, limits, tmp_path)
    error = caught.value
    assert (error.exit_code, error.log) == (status, tmp_path / "log")
    assert "demo: the build was ended: " in error.message
    assert message in error.message
    assert f"set PATCHWHEEL_LIMIT_{next(iter(given)).upper()}" in str(error.hint)
    assert (tmp_path / "log").stat().st_size < 4 * MB


@pytest.mark.parametrize("way", ENDLESS)
def test_a_step_that_goes_beyond_a_limit_is_ended(way: str, tmp_path: Path) -> None:
    refused(detect_sandbox("auto"), ENDLESS[way], tmp_path)


@pytest.mark.sandbox
@pytest.mark.parametrize("way", IN_MEMORY)
def test_files_in_memory_count_as_memory(way: str, tmp_path: Path) -> None:
    need_bubblewrap()
    refused(detect_sandbox("auto"), IN_MEMORY[way], tmp_path)


@pytest.mark.sandbox
def test_the_memory_of_a_sandbox_is_found_whatever_its_processes_are_numbered() -> None:
    need_bubblewrap()
    # A Python may lie in the host's /tmp.
    code = "yes | head -c 20000000 > /tmp/x; echo ready; read -r _"
    inside = ["bwrap", "--bind", "/", "/", "--tmpfs", "/tmp", "/bin/sh", "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(inside, stdin=pipe, stdout=pipe) as filling:
        assert filling.stdout
        assert filling.stdout.readline() == b"ready\n"
        # Numbered last, as the outer process of a sandbox may be.
        with subprocess.Popen(["cat"], stdin=pipe) as outside:
            rows = limits._below(filling.pid) | limits._below(outside.pid)
            unfilled = sum(row.resident for row in rows.values()) * limits.PAGE
            used = limits._memory(rows, 10**12)
            outside.communicate()
        filling.communicate(b"\n")
    assert 20_000_000 <= used - unfilled < 30_000_000


@pytest.mark.parametrize("way", ["forks", "grows", "talks"])
def test_limits_hold_without_a_sandbox(way: str, tmp_path: Path) -> None:
    refused(Sandbox(level="none"), ENDLESS[way], tmp_path)


@pytest.mark.parametrize(
    ("events", "kind", "message"),
    [
        ({"memory.events": "oom 2\noom_kill 1\n"}, MachineError, "demo: .* MB of memory"),
        ({"pids.events": "max 7\n"}, BuildError, "demo: .* 30 processes at once"),
        ({}, process.CommandError, "ended with status 3"),
    ],
)
def test_a_bound_that_the_kernel_held_is_named(
    events: dict[str, str],
    kind: type[PatchwheelError],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Few machines delegate a control group: here it is a plain folder.
    quiet = {"memory.events": "oom 0\noom_kill 0\n", "pids.events": "max 0\n"}
    for name, text in (quiet | events).items():
        (tmp_path / name).write_text(text)
    group = contextlib.nullcontext(tmp_path)
    monkeypatch.setattr(process, "control_group", lambda _: group)
    watch = limits.Watch("demo", Limits(processes=30), tmp_path)

    def step() -> None:
        with watch.contain() as begin:
            argv = [*begin, "/bin/sh", "-c", "echo the end; exit 3"]
            process.logged(argv, cwd=tmp_path, env={"PATH": os.defpath}, log=tmp_path / "log")

    with pytest.raises(kind, match=message) as caught:
        step()
    assert (caught.value.log, caught.value.tail) == (tmp_path / "log", ("the end",))
    assert (tmp_path / "cgroup.procs").read_text() == "0\n"


def test_a_step_within_its_limits_is_left_alone(tmp_path: Path) -> None:
    """The control, and what is shared by many processes counts once."""
    code = "x = b'x' * 100_000_000\nimport os, time\n[os.fork() for _ in range(3)]\ntime.sleep(1.5)"
    limits = Limits(memory=400 * MB, processes=20, silence=20, time=30, disk=10 * MB, log=MB)
    assert run(detect_sandbox("auto"), code, limits, tmp_path) < 20


def test_a_command_names_the_limit_and_where_to_set_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_attack(tmp_path, code={"plan": "import time; time.sleep(60)"}).site
    monkeypatch.setenv("PATCHWHEEL_LIMIT_SILENCE", "1s")
    status, said = site.tried("lock")
    assert status == 5
    assert "demo: the build was ended: it has said nothing for 1 s" in said
    assert "requirements.log" in said
    monkeypatch.setenv("PATCHWHEEL_LIMIT_SILENCE", "soon")
    status, said = site.tried("lock")
    assert status == 2
    assert "PATCHWHEEL_LIMIT_SILENCE is 'soon'" in said


@pytest.mark.parametrize(
    ("text", "value"),
    [("90", 90), ("90s", 90), ("2m", 120), ("3 h", 10800), ("1d", 86400), ("5MB", 5 * MB)],
)
def test_an_amount_may_have_a_unit(text: str, value: int) -> None:
    assert load_limits({"PATCHWHEEL_LIMIT_DISK": text, "PATCHWHEEL_LIMIT_LOG": " "}).disk == value


@pytest.mark.parametrize("text", ["-1", "0", "1.5h", "much", "5 kB", "9" * 99, "1\n"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ManifestError, match="PATCHWHEEL_LIMIT_TIME is"):
        load_limits({"PATCHWHEEL_LIMIT_TIME": f"x{text}" if text == "1\n" else text})


def test_a_line_without_an_end_costs_no_more_than_others(tmp_path: Path) -> None:
    def took(count: int) -> float:
        log = tmp_path / f"{count}.log"
        start = time.process_time()
        words = ["head", "-c", f"{count}M", "/dev/zero"]
        process.logged(words, cwd=tmp_path, env={"PATH": os.defpath}, log=log)
        assert log.stat().st_size > count * 1_000_000
        return time.process_time() - start

    small, large = min(took(2) for _ in range(3)), took(20)
    assert large < 25 * small


SEQUENCES = {
    "colour": ("\x1b[31mred\x1b[0m", "red"),
    "a title": ("\x1b]0;title\x07text", "text"),
    "a link": ("\x1b]8;;http://x\x1b\\text\x1b]8;;\x1b\\", "text"),
    "a clipboard": ("\x1b]52;c;ZXZpbA==\x07text", "text"),
    "a device": ("\x1bPq#0\x1b\\text", "text"),
    "one byte": ("\x9b31mred\x9d0;title\x9ctext", "redtext"),
    "a cursor": ("over\r\x1b[2K\x1b[1Atext\x08\x08", "overtext"),
    "a reset": ("\x1bctext\x1b(0", "text"),
    "cut off": ("text\x1b", "text"),
    "a string without an end": ("text\x1b]0;title", "text"),
    "lines and tabs": ("one\n\ttwo", "one\n\ttwo"),
    "letters": ("Grün ✓", "Grün ✓"),
}


@pytest.mark.parametrize("way", SEQUENCES)
def test_sequences_for_a_terminal_are_left_out(way: str, tmp_path: Path) -> None:
    text, shown = SEQUENCES[way]
    assert plain(text) == shown
    assert shown in str(PatchwheelError(text, tail=[text]))
    seen: list[str] = []
    env: dict[str, Any] = {"PATH": os.defpath}
    with pytest.raises(process.CommandError) as caught:
        process.logged(
            ["sh", "-c", 'printf %s "$1"; exit 1', "sh", text],
            cwd=tmp_path,
            env=env,
            log=tmp_path / "log",
            on_line=seen.append,
        )
    assert seen == list(caught.value.tail) == shown.split("\n")


def test_plain_text_is_linear_work() -> None:
    for text in ("\x1b[" * 500_000, "\x1b]" * 500_000, "\x1b" * 10**6, "\x1b[" + "0" * 10**6):
        start = time.process_time()
        plain(text)
        assert time.process_time() - start < 2


def test_a_build_commands_no_terminal(tmp_path: Path) -> None:
    code = 'print("\\x1b]0;title\\x07\\x1b[2Jtext"); result = "\\x1b[31mred"'
    site = make_attack(tmp_path, code={"act": code}).site
    site.run("lock", "--sandbox", "none")
    status, said = site.tried("build", "--from-source")
    assert status == 5
    assert "\x1b" not in said
