"""P10: the sandbox's level is said and recorded, and what a build started ends with it."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from patchwheel.build.sandbox import (
    GUARD,
    PROMISES,
    Sandbox,
    SandboxLevel,
    _works,
    open_build_dir,
)
from patchwheel.kit.store import Store
from patchwheel.wheelfile import read_wheel, record
from tests.fixtures import support
from tests.security.hostile import make_attack

# Ways in which a process outlives the one that started it; each writes a second later.
LATER = "sleep 1; echo > $1"
DAEMONS = {
    "in the background": f"({LATER}) &",
    "of a session of its own": f"setsid sh -c '{LATER}' sh $1 &",
    "deaf to signals": f"trap '' TERM HUP INT; (trap '' TERM HUP INT; {LATER}) </dev/null "
    ">/dev/null 2>&1 &",
    "of two forks": f"(setsid sh -c '{LATER}' sh $1 </dev/null >/dev/null 2>&1 &) &",
}


def at_level(level: SandboxLevel) -> Sandbox:
    program = None if level == "none" else Path(shutil.which(level) or "/nowhere")
    sandbox = Sandbox(level=level, program=program)
    if program and not (program.exists() and _works(sandbox)):
        support.lacking(f"{level} does not work here")
    return sandbox


def stays(level: SandboxLevel, way: str, store: Store, log: Path) -> bool:
    """Say whether a process that a build leaves behind writes after the build's end."""
    with open_build_dir("demo", sandbox=at_level(level), store=store, env=log.parent) as build_dir:
        mark = build_dir.work / "out" / "mark"
        argv: list[str | Path] = ["/bin/sh", "-c", DAEMONS[way], "sh", build_dir.path_inside(mark)]
        build_dir.run(argv, cwd=build_dir.work / "src", env={"PATH": os.defpath}, log=log)
        time.sleep(1.3)
        return mark.exists()


@pytest.mark.sandbox
@pytest.mark.parametrize("way", DAEMONS)
@pytest.mark.parametrize("level", ["bwrap", "unshare"])
def test_a_daemon_ends_with_its_build(
    level: SandboxLevel, way: str, store: Store, tmp_path: Path
) -> None:
    assert not stays(level, way, store, tmp_path / "log")


@pytest.mark.sandbox
@pytest.mark.parametrize("level", ["bwrap", "unshare"])
def test_what_begins_when_we_are_gone_ends(level: SandboxLevel, tmp_path: Path) -> None:
    argv = ["/bin/sh", "-c", GUARD, "sh", "/bin/sleep", "60"]
    wrapped, pipe = at_level(level).wrap(argv, cwd=Path("/")), subprocess.PIPE
    with subprocess.Popen(wrapped, stdin=pipe) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        # As the kernel does it for who is killed.
        process.communicate(timeout=20)
        assert process.returncode == 128 + signal.SIGKILL
    gone = subprocess.run(wrapped, stdin=subprocess.DEVNULL, timeout=20, check=False)
    assert gone.returncode != 0
    done = ["/bin/sh", "-c", GUARD, "sh", "/bin/sh", "-c", "read -r x || exit 7"]
    with subprocess.Popen(at_level(level).wrap(done, cwd=Path("/")), stdin=pipe) as process:
        assert process.wait(20) == 7


STEP = """
import sys
from pathlib import Path
from patchwheel.build.sandbox import open_build_dir
from patchwheel.kit.store import Store
from tests.security.test_levels import at_level
store, env = Store(Path(sys.argv[2])), {"PATH": "/usr/bin:/bin"}
with open_build_dir("demo", sandbox=at_level(sys.argv[1]), store=store, env=store.root) as room:
    print("ready", flush=True)
    room.run(["sleep", sys.argv[3]], cwd=room.work, env=env, log=store.root / "log")
"""


@pytest.mark.heavy
@pytest.mark.parametrize("level", ["bwrap", "unshare", "none"])
def test_killed_while_a_step_begins_nothing_of_it_stays(
    level: SandboxLevel, tmp_path: Path
) -> None:
    at_level(level)
    rng = random.Random(level)
    for number in range(60):
        # The length of the sleep is the mark by which its processes are found.
        mark = f"{1000 + number}.{os.getpid()}"
        words = [sys.executable, "-c", STEP, level, str(tmp_path / "store"), mark]
        with subprocess.Popen(words, cwd=support.ROOT, stdout=subprocess.PIPE) as victim:
            assert victim.stdout
            victim.stdout.readline()
            time.sleep(rng.random() * 0.04)
            victim.kill()
        until = time.monotonic() + 5
        while left := running(mark):
            assert time.monotonic() < until, (number, left)
            time.sleep(0.02)


def running(mark: str) -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [path.read_bytes()]
    return [words for words in found if mark.encode() in words.split(b"\0")]


def test_without_a_sandbox_a_daemon_stays(store: Store, tmp_path: Path) -> None:
    assert stays("none", "of a session of its own", store, tmp_path / "log")


@pytest.mark.parametrize("asked", ["none", "auto"])
def test_the_level_is_said_once_and_stands_in_plan_and_record(tmp_path: Path, asked: str) -> None:
    site = make_attack(tmp_path).site
    level = "none" if asked == "none" else _best()
    said = site.tried("lock", "--sandbox", asked)[1]
    assert said.count("sandbox: ") == said.count(f"sandbox: {PROMISES[level]}") == 1
    [plan] = json.loads(site.run("plan", "--json", "--sandbox", asked))
    assert plan["sandbox"] == level
    assert f"sandbox: {level}" in site.run("plan", "--sandbox", asked)
    wheel = read_wheel(site.build("--sandbox", asked))
    made = record.parse_record(wheel.metadata(record.FILENAME), where="x").compiled
    assert made
    assert made.sandbox == level


def _best() -> SandboxLevel:
    from patchwheel.build.sandbox import detect_sandbox

    return detect_sandbox("auto").level


def test_a_release_is_built_in_the_sandbox_unless_another_level_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_attack(tmp_path).site
    site.run("lock", "--sandbox", "none")
    (tmp_path / "bin").mkdir()
    # A bubblewrap that does not work stands before any other.
    support.program(tmp_path / "bin" / "bwrap", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    status, said = site.tried("build", "--release")
    assert status == 7
    assert "the sandbox is required, and bubblewrap does not work here" in said
    for option in ("auto", "none"):
        status, said = site.tried("build", "--release", "--sandbox", option)
        assert status == 0, said
        assert "sandbox: " in said


def test_no_plan_without_a_build_has_a_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_attack(tmp_path).site
    site.run("lock", "--sandbox", "none")
    support.program(tmp_path / "bin" / "bwrap", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    [plan] = json.loads(site.run("plan", "--json", "--sandbox", "required"))
    assert plan["sandbox"] is None
    assert "bubblewrap does not work here" in plan["pending"][0]
