"""uv's installer and resolver, and the package indexes that it or pip is set up for."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from patchwheel.kit import process
from patchwheel.kit.errors import InputError, MachineError, PatchwheelError, disk_is_full, redacted
from patchwheel.kit.interpreter import Interpreter, uv_bin, uv_env

if TYPE_CHECKING:
    from patchwheel.kit.context import Context, Progress

# The oldest glibc that NumPy and SciPy still publish wheels for.
PLATFORM = f"{os.uname().machine}-manylinux_2_28"
DOWNLOADING = r"Downloading (\S+) \(([\d.]+)(B|KiB|MiB|GiB)\)"
# Configuration files count through the arguments for the index only.
QUIET = ("--no-config", "--no-progress", "--color", "never")
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
INSTALLING = threading.Lock()
PYLOCK = 'lock-version = "1.0"\ncreated-by = "patchwheel"\n'
PIP_SYSTEM = (Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf"))


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexConfig:
    """The indexes, the main one first, and `find_links`, the places of loose files.

    uv asks the indexes beside the main one first, and only the first that knows a project.
    pip takes the best file of all indexes: `equal` says that its rule holds.
    """

    urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    equal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A distribution that may be installed, with the sha256 of each file that is accepted."""

    name: str
    version: str
    hashes: tuple[str, ...]

    @property
    def requirement(self) -> str:
        """The line of a requirements file, hashes included."""
        hashes = " ".join(f"--hash=sha256:{h}" for h in self.hashes)
        return f"{self.name}=={self.version} {hashes}"


def load_index_config(root: Path) -> IndexConfig:
    """Return the indexes that uv would use in `root`, or pip's where none are set for uv."""
    configured = _ask_uv(root, configured=True)
    pip = _pip_settings()
    if not pip:
        return configured
    default = _ask_uv(root, configured=False)
    if configured != default:
        return configured
    main = pip.get("index-url") or default.urls
    return IndexConfig(
        urls=() if pip.get("no-index") else (*main, *pip.get("extra-index-url", ())),
        find_links=tuple(_absolute(place, root) for place in pip.get("find-links", ())),
        equal=True,
    )


def make_venv(
    folder: Path, interpreter: Interpreter, *, log: Path, relocatable: bool = False
) -> Path:
    """Make a virtual environment in a folder that is empty or not there; return its Python."""
    flags = ["--no-project", "--no-python-downloads", "--prompt", "patchwheel"]
    flags += ["--relocatable"] if relocatable else []
    argv = ["venv", *flags, "--python", str(interpreter.path), str(folder)]
    _uv(*argv, failed=f"uv cannot make an environment at {folder}", error=MachineError, log=log)
    return folder / "bin" / "python"


def install(context: Context, python: Path, requirements: Sequence[str], *, log: Path) -> None:
    """Install exactly these wheels, each with a hash, into a new environment of `make_venv`.

    Raises InputError with uv's message.
    """
    # uv starts that Python first, when it holds no path file (.pth) of a third party yet. It must
    # not compile bytecode: it would start it again.
    argv = ["pip", "install", "--python", str(python), "--require-hashes", "--no-deps"]
    # Not the hard links of uv: an edit in one environment would change its cache and all others.
    # The kernel shares the blocks of copies where the file system can.
    argv += ["--link-mode", "copy"]
    # At once, two would each download what both need.
    with INSTALLING, _file(requirements) as file:
        argv += [*_sources(context), "--requirements", str(file)]
        on_line = _downloads(context.progress)
        _uv(*argv, failed="uv cannot install what is locked", log=log, on_line=on_line)


def resolve(
    context: Context,
    requirements: Sequence[str],
    *,
    what: str,
    constraints: Sequence[str] = (),
    known: Sequence[Distribution] = (),
    log: Path,
) -> tuple[Distribution, ...]:
    """Return what satisfies the requirements on Linux; raises InputError with uv's explanation.

    `what` they are of is said. Its files are for this kind of machine. A version that is `known`
    is kept where it satisfies them.
    """
    for line in requirements:
        _check_requirement(line)
    count = f"{len(requirements)} requirement{'s' * (len(requirements) != 1)}"

    def within(limits: Sequence[str]) -> tuple[Distribution, ...]:
        with _file(limits) as file:
            flags = ("--python-platform", PLATFORM, "--constraints", str(file))
            return _distributions(pylock(context, requirements, *flags, known=known, log=log), log)

    with context.progress.step(f"{what}: resolving {count} for Python {context.python}"):
        # uv does not find each version that it is to prefer where several indexes count alike.
        if pins := [f"{d.name}=={d.version}" for d in known]:
            with contextlib.suppress(InputError):
                return within([*constraints, *pins])
        return within(constraints)


def pylock(
    context: Context,
    requirements: Sequence[str],
    *flags: str,
    known: Iterable[Distribution] = (),
    log: Path,
) -> str:
    """Return uv's pylock.toml: this format alone names only the wheels that fit, with hashes."""
    argv = ["pip", "compile", "--quiet", "--no-header", *flags, *_sources(context)]
    argv += ["--python", str(context.interpreter.path), "--no-python-downloads"]
    with _file(requirements) as file:
        out = file.with_name("pylock.toml")
        # What uv finds in its output file it keeps.
        rows = [f'[[packages]]\nname = "{d.name}"\nversion = "{d.version}"\n' for d in known]
        if rows:
            out.write_text("".join([PYLOCK, *rows]))
        argv += ["--format", "pylock.toml", "--output-file", str(out), str(file)]
        _uv(*argv, failed="uv finds no set of versions", log=log)
        return out.read_text()


def conflicts(python: Path, *, run: Callable[[Sequence[str | Path]], None]) -> list[str]:
    """Return what `uv pip check` finds wrong with the requirements of what is installed.

    It starts that Python: `run` runs it where that may do no harm.
    """
    words = ("pip", "check", "--python", str(python), "--offline", "--no-cache", *QUIET)
    try:
        run([uv_bin(), *words])
    except process.CommandError as err:
        if problems := [line for line in err.tail if line.startswith("The package ")]:
            return problems
        raise InputError("uv cannot check the environment", tail=err.tail, log=err.log) from err
    return []


def index_arguments(index: IndexConfig) -> list[str]:
    """Return uv's arguments for an index; folders that do not exist are left out, as pip does."""
    urls = [url for url in index.urls if _exists(url)]
    argv = [] if urls else ["--no-index"]
    # uv asks the default index last.
    for number, url in enumerate(urls):
        argv += ["--index" if number else "--default-index", url]
    for place in filter(_exists, index.find_links):
        argv += ["--find-links", place]
    return argv + (["--index-strategy", "unsafe-best-match"] if index.equal else [])


def _check_requirement(line: str) -> None:
    """Raise InputError for what is no name with versions: uv would read options, run a setup.py."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        if Requirement(line).url is None:
            return
    except InvalidRequirement:
        pass
    expected = "a name with versions, extras and markers; no URL, no path, no option"
    raise InputError(f"{redacted(line)!r} cannot be locked", expected=expected)


def _sources(context: Context) -> list[str]:
    # An sdist is never built: that would run its code, with whatever it resolves.
    offline = ["--offline"] if context.offline else []
    return ["--only-binary", ":all:", *index_arguments(context.index), *offline]


def _ask_uv(root: Path, *, configured: bool) -> IndexConfig:
    """Return the indexes of uv in `root`, or its default when `configured` is false."""
    # Where it keeps its cache holds for its default as well.
    wanted = "UV_" if configured else "UV_CACHE_DIR"
    variables = {k: v for k, v in os.environ.items() if k.startswith(wanted)}
    argv = ["pip", "compile", "-", "--emit-index-url", "--emit-find-links", "--quiet"]
    argv += ["--no-header", "--offline", "--no-python-downloads", "--python", sys.executable]
    argv += [] if configured else ["--no-config"]
    try:
        out = process.capture([uv_bin(), *argv], cwd=root, env=process.base_env(**variables))
    except process.CommandError as err:
        tail = [redacted(line) for line in err.tail]
        hint = "correct uv.toml or the UV_* variables"
        raise InputError("uv cannot use its index settings", tail=tail, hint=hint) from err
    options = [line.partition(" ")[::2] for line in out.decode().splitlines()]
    return IndexConfig(
        urls=tuple(v.strip() for k, v in options if k in {"--index-url", "--extra-index-url"}),
        find_links=tuple(_absolute(v.strip(), root) for k, v in options if k == "--find-links"),
    )


def _pip_settings() -> dict[str, list[str]]:
    """Return pip's index settings. As in pip, a variable overrides the files."""
    import configparser

    class Parser(configparser.RawConfigParser):
        # pip takes index_url for index-url.
        def optionxform(self, optionstr: str) -> str:
            return optionstr.lower().replace("_", "-")

    parser = Parser(strict=False)
    for path in _pip_files():
        with contextlib.suppress(OSError, UnicodeDecodeError, configparser.Error):
            parser.read(path, encoding="utf-8")
    settings: dict[str, list[str]] = {}
    for key in ("index-url", "extra-index-url", "find-links", "no-index"):
        value = os.environ.get(f"PIP_{key.upper().replace('-', '_')}", "")
        for section in ("install", "global"):
            value = value or parser.get(section, key, fallback="")
        if value.strip().lower() not in {"", "0", "false", "no", "off"}:
            settings[key] = value.split()
    return settings


def _pip_files() -> list[Path]:
    """Return pip's configuration files; later ones override earlier ones."""
    named = os.environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    files = [*PIP_SYSTEM, Path.home() / ".pip" / "pip.conf", config / "pip" / "pip.conf"]
    if venv := os.environ.get("VIRTUAL_ENV"):
        files.append(Path(venv) / "pip.conf")
    return [*files, Path(named)] if named else files


def _absolute(place: str, root: Path) -> str:
    return place if "://" in place else str(root / Path(place).expanduser())


def _exists(place: str) -> bool:
    """Say whether a folder or file of an index exists; a server is taken to."""
    parts = urlsplit(place)
    path = unquote(parts.path) if parts.scheme == "file" else place
    return parts.scheme in {"http", "https"} or Path(path).exists()


def _uv(
    *argv: str,
    failed: str,
    error: type[PatchwheelError] = InputError,
    log: Path,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run uv; raises `error` with uv's own message."""
    words = [str(uv_bin()), *argv, *QUIET]
    try:
        process.logged(words, cwd=Path("/"), env=uv_env(), log=log, on_line=on_line)
    except process.CommandError as err:
        tail = [line for line in err.tail if not line.startswith("Using Python")]
        hint = "run once without --offline: downloads are kept" if "--offline" in argv else None
        if disk_is_full("\n".join(tail)):
            failed, error = "uv has no room on the disk", MachineError
            hint = "free some room (`patchwheel cache prune`, `uv cache prune`)"
        raise error(failed, tail=tail, log=err.log, hint=hint) from err


@contextlib.contextmanager
def _file(requirements: Sequence[str]) -> Iterator[Path]:
    """Give a requirements file, alone in its folder."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requirements.in"
        path.write_text("".join(f"{line}\n" for line in requirements))
        yield path


def _downloads(report: Progress) -> Callable[[str], None]:
    """Turn uv's lines about large files into progress, in bytes."""
    # uv announces large files only: others have no size here.
    sizes: dict[str, int] = {}
    began: dict[str, float] = {}
    done: set[str] = set()

    def see(line: str) -> None:
        if match := re.fullmatch(DOWNLOADING, line):
            sizes[match[1]] = int(float(match[2]) * UNITS[match[3]])
            began[match[1]] = time.monotonic()
        elif line.startswith(" Downloaded ") and (name := line.split()[1]) in began:
            done.add(name)
            report.took("download", name, began[name], size=sizes[name])
        else:
            return
        got = sum(size for name, size in sizes.items() if name in done)
        report.progress("downloading distributions", got, sum(sizes.values()))

    return see


def _distributions(pylock: str, log: Path) -> tuple[Distribution, ...]:
    from packaging.pylock import Pylock, PylockValidationError

    try:
        packages = Pylock.from_dict(tomllib.loads(pylock)).packages
    except PylockValidationError as err:
        hint = "an index may list files with wrong names or without hashes"
        message = f"the pylock.toml that uv wrote is not valid: {err}"
        raise InputError(message, hint=hint, log=log) from err
    found = []
    for package in packages:
        if package.archive and package.archive.path:
            # A file that a constraint names.
            continue
        hashes = sorted(wheel.hashes.get("sha256", "") for wheel in package.wheels or ())
        if package.version is None or not hashes or not all(hashes):
            message = f"{package.name}: no wheel with a version and a sha256"
            expected = "a wheel from an index or from a folder, for Linux"
            raise InputError(message, expected=expected, log=log)
        version = str(package.version)
        found.append(Distribution(name=package.name, version=version, hashes=tuple(hashes)))
    return tuple(sorted(found, key=lambda d: d.name))
