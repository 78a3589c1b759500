"""The one place that starts processes, with explicit arguments, directory and environment."""

from __future__ import annotations

import collections
import contextlib
import errno
import itertools
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from patchwheel.kit.errors import MachineError, PatchwheelError, plain, redacted

if TYPE_CHECKING:
    from patchwheel.kit.limits import Watch

T = TypeVar("T")
TAIL = 40
# Bytes of a line that are read at once, and characters of one that an error shows.
LONGEST, SHOWN = 1 << 20, 1000
# What a child needs to find programs, certificates and indexes; it gets nothing else.
INHERITED = shlex.split("""
    PATH HOME TMPDIR USER LOGNAME
    SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
    HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy
    XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME
    COVERAGE_PROCESS_START COVERAGE_PROCESS_CONFIG
""")
# Runs a command without the variables that a shell adds, but for PWD, which bubblewrap adds too.
AS_GIVEN = ("env", "-u", "OLDPWD", "-u", "SHLVL", "-u", "_")
# Control groups, the one that is ours, and numbers for those below it.
GROUPS, DELEGATED = Path("/sys/fs/cgroup"), list[Path]()
NUMBERS = itertools.count()
# What a user may set for git to reach a remote.
GIT_TRANSPORT = re.compile(
    r"GIT_(SSL_.*|SSH|SSH_COMMAND|ASKPASS|PROXY_.*|ALLOW_PROTOCOL|CEILING_DIRECTORIES)"
)


class CommandError(PatchwheelError):
    """A process ended with a status that its caller did not expect; stages translate it."""

    def __init__(
        self, argv: Sequence[str], status: int, tail: Iterable[str], log: Path | None = None
    ) -> None:
        ending = f"signal {-status}" if status < 0 else f"status {status}"
        super().__init__(f"{_shown(argv)[:400]}: ended with {ending}", tail=tuple(tail), log=log)
        self.status = status


def base_env(**extra: str) -> dict[str, str]:
    """Return a small environment for a child process: what it needs of ours, and `extra`."""
    env = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**env, "LC_ALL": "C.UTF-8", **extra}


def scrub_environment() -> None:
    """Drop the GIT_* variables of a hook or a CI job, which may name another repository."""
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        if not GIT_TRANSPORT.fullmatch(name):
            del os.environ[name]


def capture(
    argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], ok: Sequence[int] = (0,)
) -> bytes:
    """Return the standard output of a short command; CommandError ends with its standard error."""
    with _starting(argv) as args:
        done = subprocess.run(args, cwd=cwd, env=env, input=b"", capture_output=True, check=False)
    if done.returncode not in ok:
        text = (done.stderr or done.stdout).decode(errors="replace")
        raise CommandError(args, done.returncode, text.splitlines()[-TAIL:])
    return done.stdout


def logged(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    on_line: Callable[[str], None] | None = None,
    watch: Watch | None = None,
    umask: int = 0o022,
    leash: bool = True,
    guarded: bool = False,
) -> None:
    """Run a long command; both its streams go to `log`, and each line to `on_line`.

    Where `watch` raises an error, the command is ended, and the error gets the log and its tail.
    Killed, we take it with us: by a `leash`, or where it has a guard that waits for the end of its
    standard input.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    tail: collections.deque[str] = collections.deque(maxlen=TAIL)
    args = [os.fspath(arg) for arg in argv]
    with log.open("ab") as sink:
        sink.write(f"$ {_shown(args)}\n".encode())
        with _group(args, cwd, env, umask, leash=leash, guarded=guarded) as process:
            try:
                for raw in _lines(process, watch):
                    sink.write(raw + b"\n")
                    line = plain(raw.decode(errors="replace").rstrip())
                    tail.append(line[:SHOWN])
                    if on_line:
                        on_line(line)
            except PatchwheelError as err:
                err.log, err.tail = log, tuple(tail)
                raise
    if process.returncode != 0:
        raise CommandError(args, process.returncode, tail, log)


def started(call: Callable[[], T]) -> Callable[[float | None], T]:
    """Run a call in a thread; return what waits for it so many seconds, or else TimeoutError.

    Nobody waits for the thread at the end of the run: Ctrl-C ends it at once.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as err:  # noqa: BLE001  (raised by what waits)
            errors.append(err)
        ended.set()

    def wait(limit: float | None) -> T:
        # Not by join(): once interrupted, that takes the thread for ended (CPython 3.11 and 3.12).
        if not ended.wait(limit):
            raise TimeoutError
        for err in errors:
            raise err
        return results[0]

    ended = threading.Event()
    threading.Thread(target=run, daemon=True).start()
    return wait


@contextlib.contextmanager
def _group(
    args: list[str], cwd: Path, env: Mapping[str, str], umask: int, *, leash: bool, guarded: bool
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process whose children are of its process group, which ends with it."""
    with _starting(args):
        process = subprocess.Popen(
            [*(_leash(args, env) if leash else ()), *args],
            cwd=cwd,
            env=env,
            # A step that asks a question fails instead of waiting for an answer.
            stdin=subprocess.PIPE if guarded else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=umask,
        )
    with process:
        try:
            yield process
            # Wait without reaping: until then, its id cannot name another process group.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def control_group(bounds: Mapping[str, int]) -> Iterator[Path | None]:
    """Give a new control group with these bounds, by file; None where none is delegated to us.

    What is still in it at the end is killed.
    """
    if not (parent := delegated_group()):
        yield None
        return
    group = parent / f"step-{os.getpid()}-{next(NUMBERS)}"
    # A killed run may have left one.
    group.mkdir(exist_ok=True)
    try:
        for name, value in bounds.items():
            # A kernel without swap has no bound of it.
            if (group / name).exists():
                (group / name).write_text(str(value))
        yield group
    finally:
        _remove_group(group)


def joining(group: Path) -> list[str]:
    """Return what a command begins with to run in a control group."""
    return ["/bin/sh", "-c", 'echo 0 >"$0" && exec "$@"', str(group / "cgroup.procs"), *AS_GIVEN]


def delegated_group() -> Path | None:
    """Return the control group below which ours are made, of version 2; None where there is none.

    The kernel hands bounds down only from a group without processes: we move to one below it, and
    so must call this before we start others.
    """
    if DELEGATED:
        return DELEGATED[0]
    with contextlib.suppress(OSError):
        found = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
        group = GROUPS / (found[1] if found else "")
        # systemd marks those with Delegate=yes, or gives them to a user: others are its own.
        given = group.stat().st_uid == os.getuid() != 0
        if given or os.getxattr(group, "user.delegate") == b"1":
            (ours := group / "patchwheel").mkdir(exist_ok=True)
            (ours / "cgroup.procs").write_text("0")
            try:
                (group / "cgroup.subtree_control").write_text("+memory +pids")
            except OSError:
                # Other processes are in it, or it has no such bounds.
                (group / "cgroup.procs").write_text("0")
                ours.rmdir()
                raise
            DELEGATED.append(group)
            return group
    return None


def _remove_group(group: Path) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError):
            # There since Linux 5.14.
            (group / "cgroup.kill").write_text("1")
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        # What was killed is not gone yet.
        time.sleep(0.02)


def interactive(
    argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], note: bool = False
) -> int:
    """Run a command on our own terminal, with `note` on standard error alone; return its status."""
    out = sys.stderr if note else None
    with _starting(argv) as args:
        return subprocess.run(args, cwd=cwd, env=env, stdout=out, check=False).returncode


@contextlib.contextmanager
def _starting(argv: Sequence[str | Path]) -> Iterator[list[str]]:
    args = [os.fspath(arg) for arg in argv]
    try:
        yield args
    except (FileNotFoundError, PermissionError) as err:
        # A missing working directory raises the same error.
        if err.filename not in (args[0], None):
            raise
        problem = f"cannot start {args[0]!r}: {err.strerror}"
        hint = "`patchwheel doctor` lists what is missing and how to get it"
        raise MachineError(problem, hint=hint) from err


def _leash(args: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """Return a prefix with which the kernel ends the command when we are killed by SIGKILL."""
    # With the prefix, a missing program would be an error of setpriv.
    if not shutil.which(args[0], path=env.get("PATH")):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), args[0])
    if not (setpriv := shutil.which("setpriv")):
        return []
    # We may have been killed before that was set.
    ours = ["/bin/sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(os.getpid()), *AS_GIVEN]
    return [setpriv, "--pdeathsig", "KILL", "--", *ours]


def _lines(process: subprocess.Popen[bytes], watch: Watch | None) -> Iterator[bytes]:
    """Yield lines until the process ends; one of more than LONGEST bytes comes in pieces."""
    assert process.stdout is not None  # noqa: S101  (PIPE was asked for)
    pipe, pending, size = process.stdout.fileno(), [b""], 0
    options = os.WEXITED | os.WNOWAIT | os.WNOHANG
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if watch:
                watch.check(process.pid)
            # The end of the pipe may never come: a daemon that a build starts, such as a compiler
            # cache, leaves the process group and keeps the pipe open.
            if not selector.select(timeout=0.2):
                if os.waitid(os.P_PID, process.pid, options):
                    break
                continue
            if not (chunk := os.read(pipe, 1 << 16)):
                break
            if watch:
                watch.hear(len(chunk))
            first, *lines = chunk.split(b"\n")
            pending.append(first)
            size += len(first)
            # Joined only here, so that a line without an end costs no more than another.
            if lines or size > LONGEST:
                yield b"".join(pending)
                yield from lines[:-1]
                pending, size = lines[-1:], sum(map(len, lines[-1:]))
    if size:
        yield b"".join(pending)


def _shown(args: Sequence[str]) -> str:
    """Return the command as a shell reads it, without the credentials in its URLs."""
    return redacted(shlex.join(args))
