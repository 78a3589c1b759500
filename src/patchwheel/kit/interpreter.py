"""Let uv find, or install, a Python of the version that the forks are built for."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchwheel.kit import process
from patchwheel.kit.errors import MachineError
from patchwheel.kit.files import state

if TYPE_CHECKING:
    from patchwheel.kit.context import Progress
    from patchwheel.kit.store import Store

# In a virtual environment sys._base_executable is the Python that it was made from. Flags with a t
# mean a free-threaded build.
PROBE = """\
import sys
print(getattr(sys, "_base_executable", None) or sys.executable)
print(".".join(map(str, sys.version_info[:3])), sys.implementation.name, sys.abiflags or "-")
"""
# How uv reaches the network, where it keeps things, how it authenticates, and which version a shim
# of pyenv stands for. What it resolves against comes from arguments only.
UV_NAMES = (
    r"UV_(CACHE_DIR|HTTP_.*|CONCURRENT_.*|INSECURE_HOST|KEYRING_PROVIDER|LINK_MODE|NATIVE_TLS"
    r"|NO_CACHE|SYSTEM_CERTS|INDEX_STRATEGY|INDEX_.+_(USERNAME|PASSWORD)|REQUEST_TIMEOUT"
    r"|PYTHON_(BIN_DIR|CACHE_DIR|DOWNLOADS|DOWNLOADS_JSON_URL|INSTALL_DIR|INSTALL_MIRROR))"
    r"|NETRC|PYENV_.*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A CPython; `path` is its binary, `version` such as 3.12.1."""

    path: Path
    version: str

    @property
    def python(self) -> str:
        """The version that a manifest names, such as 3.12."""
        return self.version.rpartition(".")[0]

    @property
    def tag(self) -> str:
        """The tag of its wheels, such as cp312."""
        return f"cp{self.python.replace('.', '')}"


def find_interpreter(
    wanted: str, *, explicit: str | None = None, progress: Progress, install: bool = True
) -> Interpreter:
    """Return a CPython `wanted`, such as 3.12: the explicit one, or the first that runs.

    uv may `install` one where there is none.
    """
    if explicit and explicit not in {wanted, f"python{wanted}"}:
        return explicit_interpreter(explicit, wanted)
    # uv may prefer a free-threaded build otherwise.
    request = f"cpython{wanted}+gil"
    interpreter = _search(request)
    if interpreter is None and install:
        progress.say(f"no Python {wanted} on this machine: uv installs one")
        if _uv_python("install", "--no-bin", wanted) is not None:
            interpreter = _search(request)
    if interpreter is None or interpreter.python != wanted:
        raise MachineError(
            f"no Python {wanted} was found on this machine",
            expected=f"python{wanted} on PATH, among pyenv's or uv's, or one that uv can download",
            hint=f"run `uv python install {wanted}`, or name an interpreter with --python PATH",
        )
    return interpreter


def remembered_interpreter(
    wanted: str, *, explicit: str | None = None, store: Store, progress: Progress
) -> Interpreter:
    """Return what find_interpreter finds, kept in the store while its file does not change."""

    def find() -> tuple[Interpreter, tuple[int, ...]]:
        interpreter = find_interpreter(wanted, explicit=explicit, progress=progress)
        return interpreter, state(interpreter.path)

    names = sorted(n for n in os.environ if n in {"PATH", "HOME"} or n.startswith("PYENV_"))
    inputs = [2, wanted, explicit, sys.executable, [f"{n}={os.environ[n]}" for n in names]]
    return store.cached(
        "interpreter",
        tuple[Interpreter, tuple[int, ...]],
        inputs,
        find,
        valid=lambda known: known[1] == state(known[0].path),
    )[0]


def explicit_interpreter(named: str, wanted: str = "") -> Interpreter:
    """Return the CPython that a path or a command stands for; raises MachineError."""
    found = probe(Path(named).expanduser().absolute()) if "/" in named else _search(named)
    if found and wanted in {"", found.python}:
        return found
    raise MachineError(
        f"--python {named} "
        + (f"is Python {found.version}" if found else "does not run as a CPython"),
        expected=f"Python {wanted}, which the manifest asks for" if wanted else None,
        hint="name the program itself: a version manager's shim may have no version selected; "
        "or leave --python out to have one searched for",
    )


def probe(candidate: Path) -> Interpreter | None:
    """Run the candidate; None when it fails or is not an ordinary CPython."""
    try:
        argv = ["-I", "-S", "-c", PROBE]
        out = process.capture([candidate, *argv], cwd=Path("/"), env=uv_env())
        path, facts = out.decode().splitlines()
        version, implementation, flags = facts.split()
    except (process.CommandError, MachineError, OSError, ValueError):
        return None
    # The forks' wheels have no other ABI.
    if implementation != "cpython" or "t" in flags:
        return None
    return Interpreter(path=Path(path).resolve(), version=version)


def uv_bin() -> Path:
    """Return the uv that came with us; MachineError when it was left out."""
    from uv import find_uv_bin

    try:
        return Path(find_uv_bin())
    except FileNotFoundError as err:
        hint = "install patchwheel again, with its dependency uv"
        raise MachineError("the installed package uv lacks its program", hint=hint) from err


def uv_env() -> dict[str, str]:
    """Return the environment for uv: ours reduced to how uv reaches and keeps things."""
    return process.base_env(**{k: v for k, v in os.environ.items() if re.fullmatch(UV_NAMES, k)})


def _search(request: str) -> Interpreter | None:
    """Let uv find the first Python that runs and fits; None when there is none."""
    out = _uv_python("find", "--no-project", "--python-preference", "system", request)
    return probe(Path(out.decode().strip())) if out else None


def _uv_python(*argv: str) -> bytes | None:
    """Run a command of `uv python`; None when it fails."""
    # uv does not look below pyenv, nor at the Python that we run in.
    own = Path(getattr(sys, "_base_executable", sys.executable)).resolve().parent
    folders = [*_path_folders(), own, *_pyenv_folders()]
    env = {**uv_env(), "PATH": os.pathsep.join(map(str, folders))}
    # A version that is missing is installed on request only.
    flags = [] if argv[0] == "install" else ["--no-python-downloads"]
    try:
        argv = ("python", *argv, *flags, "--no-config")
        return process.capture([uv_bin(), *argv], cwd=Path("/"), env=env)
    except process.CommandError:
        return None


def _path_folders() -> list[Path]:
    # uv runs elsewhere: a relative folder would be another one there.
    return [Path(e).absolute() for e in os.environ.get("PATH", "").split(os.pathsep) if e]


def _pyenv_folders() -> list[Path]:
    """Return the folders of pyenv's Pythons, the newest first."""
    roots = [Path(os.environ.get("PYENV_ROOT", "~/.pyenv")), Path("~/.pyenv")]
    # HOME may be another than the one that pyenv was installed for; its place on PATH counts too.
    for folder in _path_folders():
        if folder.name == "shims":
            roots.append(folder.parent)
        elif shutil.which("pyenv", path=str(folder)):
            roots.append((folder / "pyenv").resolve().parent.parent)
    # Of another user, whose folders of this name cannot be entered.
    roots = [root.expanduser() for root in roots if os.access(root.expanduser(), os.X_OK)]
    folders = [f for root in roots for f in root.glob("versions/*/bin")]
    versions = [[int(n) for n in re.findall(r"\d+", f.parent.name)] for f in folders]
    return [folder for _, folder in sorted(zip(versions, folders, strict=True), reverse=True)]
