import ctypes
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchwheel.build import sandbox
from patchwheel.build.sandbox import Mount, Sandbox, detect_sandbox, open_build_dir
from patchwheel.kit import process
from patchwheel.kit.errors import MachineError
from patchwheel.kit.store import Store
from tests.fixtures import support

NONE = Sandbox(level="none")
# Run only inside bubblewrap: each line is something that a build must not be able to do.
HOSTILE = """\
import os, pathlib, socket, sys
secret, home, store = sys.argv[1:]

def attempt(name, act):
    try:
        act()
    except OSError:
        return
    print("ESCAPED", name, flush=True)

def connect():
    socket.create_connection(("192.0.2.1", 80), timeout=2)

attempt("network", connect)
attempt("name lookup", lambda: socket.getaddrinfo("example.org", 80))
attempt("home", lambda: pathlib.Path(home, "x").write_text(""))
attempt("store", lambda: pathlib.Path(store, "x").write_text(""))
attempt("list the store", lambda: os.listdir(store))
attempt("usr", lambda: pathlib.Path("/usr/x").write_text(""))
attempt("root", lambda: pathlib.Path("/x").write_text(""))
attempt("environment", lambda: pathlib.Path("/build/env/x").write_text(""))
attempt("secret file", lambda: pathlib.Path(secret).read_text())
attempt("passwords", lambda: pathlib.Path("/etc/shadow").read_text())
for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
    if b"TOKEN" in path.read_bytes():
        print("ESCAPED secret variable")
# Its first process, the shell that started this one, its guard, and this.
names = [path.read_text().strip() for path in pathlib.Path("/proc").glob("[0-9]*/comm")]
if sorted(names)[:3] != ["bwrap", "python3.%d" % sys.version_info.minor, "sh"] or len(names) > 4:
    print("ESCAPED processes", names)
pathlib.Path("made").write_text("by the step")
pathlib.Path("/tmp/x").write_text("")
print("done", os.getcwd(), os.environ["HOME"])
"""


@pytest.fixture(autouse=True)
def _detects_anew() -> Iterator[None]:
    sandbox._strongest.cache_clear()
    yield
    sandbox._strongest.cache_clear()


@pytest.fixture
def contained() -> Sandbox:
    found = detect_sandbox("auto")
    if found.level != "bwrap":
        support.lacking("bubblewrap does not work here")
    return found


def pretend(monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    """Let only these programs be found."""
    real = shutil.which

    def which(name: str, path: str | None = None) -> str | None:
        return real(name, path=path) if name in programs else None

    monkeypatch.setattr(shutil, "which", which)


def test_required_is_never_less_than_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "unshare")
    with pytest.raises(MachineError, match="sandbox is required") as caught:
        detect_sandbox("required")
    assert "doctor" in str(caught.value)
    assert detect_sandbox("auto").level in {"unshare", "none"}


def test_a_bubblewrap_that_does_not_work_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("bwrap", "unshare"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert detect_sandbox("auto") == NONE
    assert detect_sandbox("none") == NONE


def test_the_weaker_levels_wrap_little() -> None:
    assert NONE.wrap(["true"], cwd=Path("/")) == ["true"]
    words = Sandbox(level="unshare", program=Path("/usr/bin/unshare")).wrap(
        ["true", Path("/x")], cwd=Path("/")
    )
    own = ["--map-current-user"] if os.getuid() else []
    assert words[: len(own) + 2] == ["/usr/bin/unshare", *own, "--net"]
    assert words[-2:] == ["true", "/x"]


def test_unshare_cuts_the_network(tmp_path: Path) -> None:
    program = shutil.which("unshare")
    level = Sandbox(level="unshare", program=Path(program or "/usr/bin/unshare"))
    if program is None or not sandbox._works(level):
        support.lacking("unshare does not work here")
    words = level.wrap(["cat", "/proc/net/dev"], cwd=tmp_path)
    seen = process.capture(words, cwd=tmp_path, env=process.base_env()).decode()
    assert [line.split(":")[0].strip() for line in seen.splitlines()[2:]] == ["lo"]


@pytest.mark.sandbox
def test_a_hostile_step_is_contained(
    contained: Sandbox, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    environment = tmp_path / "environment"
    (environment / "bin").mkdir(parents=True)
    secret = Path.home() / "credentials"
    secret.write_text("hunter2")
    log = tmp_path / "step.log"
    python = Path(sys.base_prefix)
    with open_build_dir(
        "x", sandbox=contained, store=store, env=environment, read=[python]
    ) as build_dir:
        (build_dir.work / "src" / "hostile.py").write_text(HOSTILE)
        binary = python / "bin" / f"python3.{sys.version_info.minor}"
        build_dir.run(
            [binary, "hostile.py", secret, Path.home(), store.root],
            cwd=build_dir.work / "src",
            env={"HOME": "/build/home", "PATH": os.defpath},
            log=log,
        )
        assert (build_dir.work / "src" / "made").read_text() == "by the step"
        assert build_dir.path_inside(environment / "bin") == Path("/build/env/bin")
        assert build_dir.path_inside(build_dir.work / "out" / "x.whl") == Path("/build/out/x.whl")
        assert build_dir.path_inside(python) == python
    text = log.read_text()
    assert "ESCAPED" not in text
    assert "done /build/src /build/home" in text
    assert not build_dir.work.exists()


@pytest.mark.sandbox
def test_two_rooms_at_once_are_two_folders_at_one_path(contained: Sandbox, store: Store) -> None:
    with (
        open_build_dir("x", sandbox=contained, store=store) as one,
        open_build_dir("x", sandbox=contained, store=store) as other,
    ):
        assert one.work != other.work
        assert one.inside == other.inside == Path("/build")


def test_without_bubblewrap_a_room_is_emptied_and_of_this_user(store: Store) -> None:
    with open_build_dir("x", sandbox=NONE, store=store) as build_dir:
        (build_dir.work / "src" / "left").touch()
        place = build_dir.work
        assert build_dir.inside == build_dir.work
        assert str(os.getuid()) in build_dir.work.parent.name
    assert not place.exists()
    place.mkdir(parents=True)
    (place / "of a run that was killed").touch()
    with open_build_dir("x", sandbox=NONE, store=store) as build_dir:
        assert build_dir.work == place
        assert not (place / "of a run that was killed").exists()


def test_a_mount_never_shows_the_home_folder(store: Store) -> None:
    for place in (Path.home(), Path.home().parent):
        with (
            pytest.raises(MachineError, match="what is yours in your home folder"),
            open_build_dir("x", sandbox=NONE, store=store, read=[place]),
        ):
            pass


@pytest.mark.parametrize("place", [".local", ".config", ".local/share", ".ssh"])
def test_a_mount_never_shows_what_programs_keep_in_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with (
        pytest.raises(MachineError, match="would show a build what is yours"),
        open_build_dir("demo", sandbox=NONE, store=store, read=[tmp_path / place]),
    ):
        pass
    with open_build_dir("demo", sandbox=NONE, store=store, read=[tmp_path / place / "x"]):
        pass


KEYS = """
import ctypes, sys
call, text = ctypes.CDLL(None).syscall, ctypes.create_string_buffer(99)
found = call(250, 10, -3, b"user", b"pwtest", 0)
print("key:", found > 0 and call(250, 11, found, text, 99) > 0 and text.value)
"""


@pytest.mark.sandbox
def test_a_step_reads_no_key_of_the_session(
    contained: Sandbox, store: Store, tmp_path: Path
) -> None:
    call, python = ctypes.CDLL(None).syscall, Path(sys.base_prefix) / "bin" / "python3"
    read, log = [Path(sys.base_prefix)], tmp_path / "log"
    # A keyring of its own for this test, with a key.
    call(250, 1, None)
    if os.uname().machine != "x86_64" or call(248, b"user", b"pwtest", b"S3CRET", 6, -3) < 0:
        support.lacking("there are no keys here")
    words = [str(python), "-c", KEYS]
    mounts = [Mount(host=path, inside=path) for path in read]
    plain = contained.wrap(words, cwd=Path("/"), mounts=mounts)
    assert process.capture(plain, cwd=tmp_path, env={}) == b"key: b'S3CRET'\n"
    with open_build_dir("demo", sandbox=contained, store=store, env=tmp_path, read=read) as inside:
        inside.run(words, cwd=inside.work / "src", env={}, log=log)
    assert log.read_text().endswith("key: False\n")


def test_mounts_inside_others_are_left_out() -> None:
    outer, inner = Path("/opt/python"), Path("/opt/python/bin")
    mounts = [Mount(host=p, inside=p) for p in (outer, inner, Path("/usr/lib"))]
    words = Sandbox(level="bwrap", program=Path("/bwrap")).wrap(
        ["true"], cwd=Path("/"), mounts=mounts
    )
    assert words.count("/opt/python") == 2
    assert "/opt/python/bin" not in words
    assert "/usr/lib" not in words
    assert words.index("--remount-ro") > words.index("/opt/python")


@pytest.mark.sandbox
def test_kill_9_leaves_no_process(contained: Sandbox, tmp_path: Path) -> None:
    # The length of the sleep is the mark by which the processes are found again.
    mark = f"{os.getpid()}{time.time_ns() % 10**6}"
    script = f"""\
        from pathlib import Path
        from patchwheel.build.sandbox import detect_sandbox, open_build_dir
        from patchwheel.kit.store import Store
        store = Store(Path({str(tmp_path)!r}))
        with open_build_dir("x", sandbox=detect_sandbox(), store=store) as room:
            words = ["sh", "-c", "setsid sleep {mark} & sleep {mark}; true"]
            log = Path({str(tmp_path / "log")!r})
            room.run(words, cwd=room.work, env={{"PATH": "/usr/bin:/bin"}}, log=log)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)]) as process:
        wait_for(lambda: len(running(mark)) >= 2)
        process.send_signal(signal.SIGKILL)
    wait_for(lambda: not running(mark))


@pytest.mark.sandbox
@pytest.mark.parametrize("level", ["bwrap", "unshare", "none"])
def test_the_environment_of_a_step_is_the_one_handed_in(
    level: sandbox.SandboxLevel, store: Store, tmp_path: Path
) -> None:
    program = None if level == "none" else Path(shutil.which(level) or "/nowhere")
    made = Sandbox(level=level, program=program)
    if program and not sandbox._works(made):
        support.lacking(f"{level} does not work here")
    env, log = {"PATH": os.defpath, "A": "b c"}, tmp_path / "log"
    with open_build_dir("x", sandbox=made, store=store) as build_dir:
        words = ["cat", "/proc/self/environ"]
        build_dir.run(words, cwd=build_dir.work / "src", env=env, log=log)
        env["PWD"] = str(build_dir.inside / "src")
    said = log.read_bytes().splitlines()[-1].rstrip(b"\0").split(b"\0")
    given = {f"{name}={value}".encode() for name, value in env.items()}
    assert {*said} == given


def running(mark: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", mark.encode()]:
            found.append(path.parent.name)
    return found


def wait_for(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
