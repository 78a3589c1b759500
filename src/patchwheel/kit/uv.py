"""The one caller of uv: virtual environments, installation and resolution."""

from __future__ import annotations

import re
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from patchwheel.kit import process
from patchwheel.kit.distribution import Distribution
from patchwheel.kit.errors import InputError, MachineError
from patchwheel.kit.interpreter import uv_bin, uv_env

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from patchwheel.kit.context import Context
    from patchwheel.kit.interpreter import Interpreter
    from patchwheel.kit.progress import Report

__all__ = [
    "Index",
    "conflicts",
    "index_arguments",
    "install",
    "make_venv",
    "pylock",
    "resolve",
    "uv_bin",
    "uv_env",
]

# The oldest glibc that NumPy and SciPy still publish wheels for.
PLATFORM = "x86_64-manylinux_2_28"
DOWNLOADING = re.compile(r"Downloading (\S+) \(([\d.]+)(B|KiB|MiB|GiB)\)")
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
FULL_DISK = ("No space left on device", "Disk quota exceeded")


class Index(Protocol):
    """Where distributions come from, the main index first; `equal` when the best of all counts, as it does for pip."""

    @property
    def urls(self) -> tuple[str, ...]: ...
    @property
    def find_links(self) -> tuple[str, ...]: ...
    @property
    def equal(self) -> bool: ...


def make_venv(
    folder: Path, interpreter: Interpreter, *, log: Path, relocatable: bool = False
) -> Path:
    """Make a virtual environment in a folder that is empty or not there; return its Python."""
    try:
        _uv(
            *("venv", "--no-project", "--no-python-downloads"),
            *(["--relocatable"] if relocatable else []),
            *("--prompt", "patchwheel", "--python", str(interpreter.path), str(folder)),
            log=log,
        )
    except process.CommandError as err:
        raise MachineError(
            f"no virtual environment could be made at {folder}",
            tail=err.tail,
            log=err.log,
        ) from err
    return folder / "bin" / "python"


def install(
    context: Context,
    python: Path,
    requirements: Sequence[str],
    *,
    log: Path,
    require_hashes: bool = True,
    no_deps: bool = True,
    bytecode: bool = False,
) -> None:
    """Install into the environment of `python`.

    With `bytecode` it is compiled at once: needed where the environment can be written only now.

    Only wheels: building an sdist would run its code, with whatever it resolves.
    Raises InputError with what uv said: a hash differs, something is not to be had.
    """
    flags = ["--only-binary", ":all:"]
    flags += ["--require-hashes"] if require_hashes else ["--no-verify-hashes"]
    flags += ["--no-deps"] if no_deps else []
    flags += ["--offline"] if context.offline else []
    flags += ["--compile-bytecode"] if bytecode else []
    with tempfile.TemporaryDirectory() as folder:
        file = _write(Path(folder) / "requirements.txt", requirements)
        try:
            _uv(
                *("pip", "install", "--python", str(python), *flags),
                *(*index_arguments(context.index), "--requirements", str(file)),
                log=log,
                on_line=_downloads(context.progress),
            )
        except process.CommandError as err:
            raise _failure(
                err, "uv cannot install what is locked", offline=context.offline
            ) from err


def resolve(
    context: Context,
    requirements: Sequence[str],
    *,
    constraints: Sequence[str] = (),
    overrides: Sequence[str] = (),
    log: Path,
) -> tuple[Distribution, ...]:
    """Return what satisfies the requirements on Linux with the context's Python, with the sha256 of each wheel.

    Raises InputError with uv's explanation when nothing does.
    """
    context.progress.say(f"resolving {len(requirements)} requirements")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        upper = _write(folder / "constraints.txt", constraints)
        forced = _write(folder / "overrides.txt", overrides)
        text = _pylock(
            context,
            requirements,
            *("--python-platform", PLATFORM),
            *("--constraints", str(upper), "--overrides", str(forced)),
            log=log,
        )
    return _locked(text, log)


def pylock(context: Context, requirements: Sequence[str], *, log: Path) -> str:
    """Return pylock.toml for exact requirements on this machine: where each file is, and its sha256."""
    return _pylock(context, requirements, "--no-deps", log=log)


def conflicts(python: Path, *, log: Path) -> list[str]:
    """Return what `uv pip check` finds wrong with the requirements of what is installed."""
    try:
        _uv("pip", "check", "--python", str(python), log=log)
    except process.CommandError as err:
        if found := [line for line in err.tail if line.startswith("The package ")]:
            return found
        raise _failure(err, "uv cannot check the environment", offline=False) from err
    return []


def index_arguments(index: Index | None) -> list[str]:
    """Return uv's arguments for an index; folders that are not there are left out, as pip does."""
    urls = [url for url in index.urls if _there(url)] if index else []
    words = [] if urls else ["--no-index"]
    for number, url in enumerate(urls):
        words += ["--index" if number else "--default-index", url]
    for place in index.find_links if index else ():
        words += ["--find-links", place] if _there(place) else []
    if index and index.equal:
        words += ["--index-strategy", "unsafe-best-match"]
    return words


def _there(place: str) -> bool:
    parts = urlsplit(place)
    if parts.scheme in {"http", "https"}:
        return True
    from urllib.request import url2pathname

    path = url2pathname(parts.path) if parts.scheme == "file" else place
    return Path(path).exists()


def _uv(*words: str, log: Path, on_line: Callable[[str], None] | None = None) -> None:
    process.logged(
        [uv_bin(), *words, "--no-config", "--no-progress", "--color", "never"],
        cwd=Path("/"),
        env=uv_env(),
        log=log,
        on_line=on_line,
    )


def _write(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _downloads(report: Report) -> Callable[[str], None]:
    """Turn uv's lines about large files into progress, in bytes: `Downloading NAME (SIZE)`, ` Downloaded NAME`."""
    sizes: dict[str, int] = {}
    done = 0

    def see(line: str) -> None:
        nonlocal done
        if match := DOWNLOADING.fullmatch(line):
            sizes[match[1]] = int(float(match[2]) * UNITS[match[3]])
        elif line.startswith(" Downloaded "):
            done += sizes.get(line.split()[1], 0)
        else:
            return
        report.progress("downloading distributions", done, sum(sizes.values()))

    return see


def _failure(
    err: process.CommandError, message: str, *, offline: bool
) -> InputError | MachineError:
    said = [line for line in err.tail if not line.startswith("Using Python")]
    if any(sign in line for line in said for sign in FULL_DISK):
        return MachineError(
            "uv has no room on the disk",
            tail=said,
            log=err.log,
            hint="free some room (`patchwheel cache prune`, `uv cache prune`)",
        )
    return InputError(
        message,
        tail=said,
        log=err.log,
        hint="run once without --offline: what is downloaded then stays" if offline else None,
    )


def _pylock(context: Context, requirements: Sequence[str], *flags: str, log: Path) -> str:
    with tempfile.TemporaryDirectory() as name:
        given = _write(Path(name) / "requirements.in", requirements)
        out = Path(name) / "pylock.toml"
        try:
            _uv(
                *("pip", "compile", "--quiet", "--only-binary", ":all:", "--no-header"),
                *("--python", str(context.interpreter.path), "--no-python-downloads", *flags),
                *(*index_arguments(context.index), *(["--offline"] if context.offline else [])),
                # This format alone names only the files that fit, and hashes those of a folder too.
                *("--format", "pylock.toml", "--output-file", str(out), str(given)),
                log=log,
            )
        except process.CommandError as err:
            raise _failure(err, "uv finds no set of versions", offline=context.offline) from err
        return out.read_text()


def _locked(text: str, log: Path) -> tuple[Distribution, ...]:
    data = tomllib.loads(text)
    found = []
    for row in data.get("packages", []):
        hashes = [w["hashes"]["sha256"] for w in row.get("wheels", ())]
        if "version" not in row or not hashes:
            raise InputError(
                f"{row['name']}: no wheel with a version and a sha256",
                expected="a wheel from an index or from a folder, for Linux",
                log=log,
            )
        found.append(
            Distribution(name=row["name"], version=row["version"], hashes=tuple(sorted(hashes)))
        )
    return tuple(sorted(found, key=lambda d: d.name))
