"""P10: the sandbox's level is said and recorded, and what a build started ends with it."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from patchwheel.build.sandbox import PROMISES, Sandbox, SandboxLevel, _works, open_build_dir
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
