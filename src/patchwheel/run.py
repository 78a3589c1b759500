"""The one place that starts processes: argument lists, explicit directory and environment, a log for each step."""

from __future__ import annotations

import collections
import contextlib
import os
import shlex
import signal
import subprocess
from typing import TYPE_CHECKING

from patchwheel.errors import MachineError, PatchwheelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

TAIL = 40
# What a child needs to find programs, certificates and indexes; nothing else leaks in.
INHERITED = (
    "PATH",
    "HOME",
    "TMPDIR",
    "USER",
    "LOGNAME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "COVERAGE_PROCESS_START",
    "COVERAGE_PROCESS_CONFIG",
)


class CommandError(PatchwheelError):
    """A process ended with a status that its caller did not expect; stages translate it."""

    def __init__(
        self, argv: Sequence[str], status: int, tail: Sequence[str], log: Path | None
    ) -> None:
        ending = f"signal {-status}" if status < 0 else f"status {status}"
        super().__init__(
            f"{shlex.join(argv)[:400]}: ended with {ending}", tail=tail, log=log
        )
        self.status = status


def base_env(**extra: str) -> dict[str, str]:
    """Return a small environment for a child process: what it needs of ours, and `extra`."""
    env = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**env, "LC_ALL": "C.UTF-8", **extra}


def capture(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: bytes = b"",
    ok: Sequence[int] = (0,),
) -> bytes:
    """Run a short command and return its standard output.

    Raises CommandError with the last lines of standard error, MachineError when the program is missing.
    """
    words = [os.fspath(word) for word in argv]
    with _starting(words):
        done = subprocess.run(
            words, cwd=cwd, env=dict(env), input=stdin, capture_output=True, check=False
        )
    if done.returncode not in ok:
        text = (done.stderr or done.stdout).decode(errors="replace")
        raise CommandError(words, done.returncode, text.splitlines()[-TAIL:], None)
    return done.stdout


def logged(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    on_line: Callable[[str], None] | None = None,
    umask: int = 0o022,
) -> None:
    """Run a long command, append both its streams to `log`, and hand each line to `on_line`.

    The whole process group is killed when this function is left early, Ctrl-C included.
    Raises CommandError with the last lines and the path of the log.
    """
    words = [os.fspath(word) for word in argv]
    log.parent.mkdir(parents=True, exist_ok=True)
    tail: collections.deque[str] = collections.deque(maxlen=TAIL)
    with log.open("ab") as sink, _starting(words):
        sink.write(f"$ {shlex.join(words)}\n".encode())
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=umask,
        )
        assert process.stdout is not None  # noqa: S101  (PIPE was asked for)
        try:
            for raw in process.stdout:
                sink.write(raw)
                line = raw.decode(errors="replace").rstrip()
                tail.append(line)
                if on_line:
                    on_line(line)
            status = process.wait()
        except BaseException:
            _kill_group(process)
            raise
        finally:
            process.stdout.close()
    if status != 0:
        raise CommandError(words, status, list(tail), log)


def interactive(
    argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str]
) -> int:
    """Run a command on our own terminal and return its exit status."""
    words = [os.fspath(word) for word in argv]
    with _starting(words):
        return subprocess.run(words, cwd=cwd, env=dict(env), check=False).returncode


@contextlib.contextmanager
def _starting(words: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, PermissionError) as err:
        if err.filename not in (words[0], None):
            raise
        raise MachineError(
            f"cannot start {words[0]!r}: {err.strerror}",
            hint="`patchwheel doctor` lists what is missing and how to get it",
        ) from err


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
