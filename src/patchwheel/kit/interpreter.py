"""Finds a Python that really runs, with the version that the forks are built for."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchwheel.kit import process
from patchwheel.kit.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patchwheel.kit.progress import Report

# In a virtual environment sys._base_executable is the Python that it was made from.
PROBE = """\
import json, sys, sysconfig
print(json.dumps([
    getattr(sys, "_base_executable", None) or sys.executable,
    ".".join(map(str, sys.version_info[:3])),
    sys.implementation.name,
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
]))
"""
# How uv reaches the network, where it keeps things, and how it authenticates. What it resolves against comes from
# arguments only.
UV_VARIABLES = re.compile(
    r"UV_(CACHE_DIR|HTTP_.*|CONCURRENT_.*|INSECURE_HOST|KEYRING_PROVIDER|LINK_MODE|NATIVE_TLS|NO_CACHE"
    r"|SYSTEM_CERTS|INDEX_STRATEGY|INDEX_.+_(USERNAME|PASSWORD)|REQUEST_TIMEOUT"
    r"|PYTHON_(BIN_DIR|CACHE_DIR|DOWNLOADS|DOWNLOADS_JSON_URL|INSTALL_DIR|INSTALL_MIRROR))|NETRC"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A CPython: `path` is its real binary, `version` such as 3.12.1, `tag` cp312, `python` 3.12."""

    path: Path
    version: str
    tag: str
    python: str


def find_interpreter(wanted: str, *, explicit: str | None = None, report: Report) -> Interpreter:
    """Return a CPython `wanted` (such as 3.12): the explicit one, or the first that runs among those on this machine.

    Raises MachineError when the explicit one is another Python, or when none is found and uv cannot install one.
    """
    if explicit and explicit not in {wanted, f"python{wanted}"}:
        return _explicit(explicit, wanted)
    seen: set[Path] = set()
    for candidate in _candidates(wanted):
        if candidate not in seen:
            seen.add(candidate)
            found = probe(candidate)
            if found and found.python == wanted:
                return found
    for install in (False, True):
        if found := _managed(wanted, install=install, report=report):
            return found
    raise MachineError(
        f"no Python {wanted} was found on this machine",
        expected=f"python{wanted} on PATH, among pyenv's or uv's versions, or one that uv can download",
        hint=f"`uv python install {wanted}`, `pyenv install {wanted}` or the system's package; "
        "or name an interpreter with --python PATH",
    )


def probe(candidate: Path) -> Interpreter | None:
    """Run the candidate; None when it fails or is no plain CPython."""
    # A shim needs to know which version its user chose.
    pyenv = {k: v for k, v in os.environ.items() if k.startswith("PYENV_")}
    try:
        out = process.capture(
            [candidate, "-I", "-S", "-c", PROBE],
            cwd=Path("/"),
            env=process.base_env(**pyenv),
        )
        path, version, implementation, free_threaded = json.loads(out)
    except (process.CommandError, MachineError, OSError, ValueError):
        return None
    if implementation != "cpython" or free_threaded:
        return None
    major, minor, _ = version.split(".")
    return Interpreter(
        path=Path(path).resolve(),
        version=version,
        tag=f"cp{major}{minor}",
        python=f"{major}.{minor}",
    )


def interpreter_hints() -> list[str]:
    """Return what in the environment decides which interpreter is found."""
    names = sorted(n for n in os.environ if n in {"PATH", "HOME"} or n[:6] == "PYENV_")
    return [sys.executable, *(f"{name}={os.environ[name]}" for name in names)]


def noted(found: Interpreter) -> dict[str, object]:
    """Write an interpreter down, with what tells whether its file is still the same."""
    info = found.path.stat()
    fields = {**asdict(found), "path": str(found.path)}
    return {"found": fields, "file": [info.st_size, info.st_mtime_ns, info.st_ino]}


def recall(note: dict[str, object] | None) -> Interpreter | None:
    """Return the interpreter of a note; None when its file is gone or another."""
    try:
        fields: Any = note["found"]  # type: ignore[index]
        found = Interpreter(**{**fields, "path": Path(fields["path"])})
        return found if noted(found) == note else None
    except (TypeError, KeyError, OSError):
        return None


def uv_bin() -> Path:
    """Return the uv that came with us; MachineError when it was left out."""
    from uv import find_uv_bin

    try:
        return Path(find_uv_bin())
    except FileNotFoundError as err:
        raise MachineError(
            "uv, which patchwheel depends on, has no program in it",
            hint="install patchwheel again, with its dependency uv",
        ) from err


def uv_env() -> dict[str, str]:
    """Return the environment for uv: ours reduced to how uv reaches things and where it keeps them."""
    return process.base_env(**{k: v for k, v in os.environ.items() if UV_VARIABLES.fullmatch(k)})


def _explicit(explicit: str, wanted: str) -> Interpreter:
    if "/" in explicit:
        places = [Path(explicit).expanduser().absolute()]
    else:
        places = _on_path(explicit, _path_folders())
    found = next(filter(None, map(probe, places)), None)
    if found is None:
        raise MachineError(
            f"--python {explicit} does not run as a CPython",
            expected=f"a working CPython {wanted}",
            hint="name the interpreter's own file: a shim of a version manager may have no version selected",
        )
    if found.python != wanted:
        raise MachineError(
            f"--python {explicit} is Python {found.version}",
            expected=f"Python {wanted}, which the manifest asks for",
            hint="name another interpreter, or leave --python out: it is then searched for",
        )
    return found


def _candidates(wanted: str) -> Iterator[Path]:
    folders = _path_folders()
    yield from _on_path(f"python{wanted}", folders)
    yield Path(sys.executable)
    for root in _pyenv_roots(folders):
        found = root.glob(f"versions/{wanted}.*/bin/python{wanted}")
        yield from sorted(found, key=_version_of, reverse=True)
    yield from _on_path("python3", folders)
    yield from _on_path("python", folders)


def _path_folders() -> list[Path]:
    entries = os.environ.get("PATH", "").split(os.pathsep)
    return [Path(e).absolute() for e in dict.fromkeys(entries) if e and Path(e).is_dir()]


def _on_path(name: str, folders: list[Path]) -> list[Path]:
    return [f / name for f in folders if os.access(f / name, os.X_OK)]


def _pyenv_roots(folders: list[Path]) -> list[Path]:
    """HOME may be another than the one that pyenv was installed for: its place on PATH counts too."""
    roots = [Path(os.environ["PYENV_ROOT"])] if os.environ.get("PYENV_ROOT") else []
    roots += [f.parent for f in folders if f.name == "shims"]
    roots += [(f / "pyenv").resolve().parent.parent for f in folders if (f / "pyenv").is_file()]
    roots.append(Path("~/.pyenv").expanduser())
    return [r for r in dict.fromkeys(roots) if (r / "versions").is_dir()]


def _version_of(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", path.parent.parent.name))


def _managed(wanted: str, *, install: bool, report: Report) -> Interpreter | None:
    """Ask uv for one of its own Pythons; with `install` let it download one first."""
    uv, env, here = uv_bin(), uv_env(), Path("/")
    try:
        if install:
            report.say(f"no Python {wanted} on this machine: uv installs one")
            words = ["python", "install", "--no-config", "--no-bin", wanted]
            process.capture([uv, *words], cwd=here, env=env)
        words = ["python", "find", "--no-config", "--no-project", "--managed-python"]
        words += ["--no-python-downloads", wanted]
        out = process.capture([uv, *words], cwd=here, env=env)
    except process.CommandError:
        return None
    found = probe(Path(out.decode().strip()))
    return found if found and found.python == wanted else None
