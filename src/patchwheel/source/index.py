"""Package indexes: which ones this machine is set up for, and the files that they offer for a project."""

from __future__ import annotations

import configparser
import contextlib
import difflib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from patchwheel.kit import process
from patchwheel.kit.errors import InputError
from patchwheel.kit.interpreter import uv_bin
from patchwheel.manifest.model import Sdist
from patchwheel.source.http import (
    TIMEOUT,
    check_status,
    http_errors,
    redacted,
    retried,
    session,
)
from patchwheel.source.simple import IndexFile, from_html, from_json

if TYPE_CHECKING:
    from collections.abc import Iterator

PIP_SYSTEM = (Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf"))
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexConfig:
    """The indexes, the main one first, and the places of loose files; `equal` when pip's rule holds.

    To uv the indexes beside the main one come before it and the first that knows a project is the only one
    asked; pip takes the best of all.
    """

    urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    equal: bool = False


def load_index_config(root: Path) -> IndexConfig:
    """Return the indexes that uv would use in `root`, or pip's where none are set for uv.

    Raises InputError when uv cannot read its settings.
    """
    asked = _ask_uv(root, configured=True)
    pip = _pip_settings()
    if not pip:
        return asked
    default = _ask_uv(root, configured=False)
    if asked != default:
        return asked
    main = pip.get("index-url") or default.urls
    found = [_absolute(place, root) for place in pip.get("find-links", ())]
    return IndexConfig(
        urls=() if pip.get("no-index") else (*main, *pip.get("extra-index-url", ())),
        # pip passes over a folder that is not there, uv stops.
        find_links=tuple(p for p in found if "://" in p or Path(p).exists()),
        equal=True,
    )


def project_files(config: IndexConfig, project: str) -> list[IndexFile]:
    """Return the files of a project on all indexes; of two with one name, the first index's.

    Raises InputError when an index cannot be reached or read; one that lacks the project is passed over.
    """
    found: dict[str, IndexFile] = {}
    for files in _offers(config, project):
        for file in files:
            found.setdefault(file.filename, file)
    return list(found.values())


def find_file(config: IndexConfig, project: str, filename: str) -> IndexFile:
    """Return the file of that name from the first index that has it; InputError says where it was looked for."""
    names: list[str] = []
    for files in _offers(config, project):
        for file in files:
            if file.filename == filename:
                return file
        names += [file.filename for file in files]
    places = [redacted(place) for place in (*config.urls, *config.find_links)]
    near = difflib.get_close_matches(filename, names, n=3)
    knows = f"has {len(names)} files of {project}" if names else f"knows {project}"
    raise InputError(
        f"no index has {filename}",
        where=", ".join(places) or "no index is configured",
        expected=f"one of {', '.join(near)}" if near else f"an index that {knows}",
        hint="correct the file name in the manifest or the lock, or the index settings of uv or pip",
    )


def find_sdist(config: IndexConfig, project: str, version: str) -> Sdist:
    """Return the sdist of a release; raises InputError when no index has one with a sha256."""
    from packaging.utils import InvalidSdistFilename, parse_sdist_filename
    from packaging.version import InvalidVersion, Version

    known = []
    for file in project_files(config, project):
        with contextlib.suppress(InvalidSdistFilename, InvalidVersion):
            found = parse_sdist_filename(file.filename)[1]
            if file.sha256 and found == Version(version):
                return Sdist(filename=file.filename, sha256=file.sha256)
            known.append(found)
    newest = ", ".join(map(str, sorted(known)[-3:]))
    raise InputError(
        f"{project}: there is no tag, branch, commit or release {version}",
        expected=f"a release such as {newest}" if newest else None,
    )


def latest_version(config: IndexConfig, project: str) -> str | None:
    """Return the newest final version that is not yanked, or None when no index knows the project."""
    from packaging.utils import (
        InvalidSdistFilename,
        InvalidWheelFilename,
        parse_sdist_filename,
        parse_wheel_filename,
    )

    versions = []
    for file in project_files(config, project):
        with contextlib.suppress(InvalidSdistFilename, InvalidWheelFilename):
            if file.filename.endswith(".whl"):
                version = parse_wheel_filename(file.filename)[1]
            else:
                version = parse_sdist_filename(file.filename)[1]
            if not (file.yanked or version.is_prerelease):
                versions.append(version)
    return str(max(versions)) if versions else None


def _ask_uv(root: Path, *, configured: bool) -> IndexConfig:
    names = [n for n in os.environ if n.startswith("UV_")] if configured else []
    words = ["pip", "compile", "-", "--emit-index-url", "--emit-find-links", "--quiet"]
    words += ["--no-header", "--offline", "--no-python-downloads"]
    words += ["--python", sys.executable, *([] if configured else ["--no-config"])]
    try:
        out = process.capture(
            [uv_bin(), *words],
            cwd=root,
            env=process.base_env(**{name: os.environ[name] for name in names}),
        )
    except process.CommandError as err:
        raise InputError(
            "uv cannot use its index settings",
            tail=[redacted(line) for line in err.tail],
            hint="correct uv.toml or the UV_… variables",
        ) from err
    rows = [line.split(maxsplit=1) for line in out.decode().splitlines()]
    said = [(row[0], row[1].strip()) for row in rows if len(row) == 2]  # noqa: PLR2004
    return IndexConfig(
        urls=tuple(v for k, v in said if k in {"--index-url", "--extra-index-url"}),
        find_links=tuple(_absolute(v, root) for k, v in said if k == "--find-links"),
    )


def _pip_settings() -> dict[str, list[str]]:
    """Return pip's index settings: its files in its order, then its variables."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = lambda name: name.lower().replace("_", "-")  # type: ignore[method-assign,assignment]
    for path in _pip_files():
        with contextlib.suppress(OSError, UnicodeDecodeError, configparser.Error):
            parser.read(path, encoding="utf-8")
    found: dict[str, list[str]] = {}
    for key in ("index-url", "extra-index-url", "find-links", "no-index"):
        value = os.environ.get(f"PIP_{key.upper().replace('-', '_')}", "")
        for section in ("install", "global"):
            value = value or parser.get(section, key, fallback="")
        if value.strip().lower() not in {"", "0", "false", "no", "off"}:
            found[key] = value.split()
    return found


def _pip_files() -> list[Path]:
    named = os.environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    home = Path.home()
    config = os.environ.get("XDG_CONFIG_HOME") or home / ".config"
    files = [*PIP_SYSTEM, home / ".pip" / "pip.conf"]
    files.append(Path(config) / "pip" / "pip.conf")
    if venv := os.environ.get("VIRTUAL_ENV"):
        files.append(Path(venv) / "pip.conf")
    return [*files, Path(named)] if named else files


def _absolute(place: str, root: Path) -> str:
    return place if "://" in place else str(root / Path(place).expanduser())


def _offers(config: IndexConfig, project: str) -> Iterator[list[IndexFile]]:
    """Yield what each place has of the project, asked only when it is its turn."""
    from packaging.utils import canonicalize_name

    name = canonicalize_name(project)
    for url in config.urls:
        yield _page(f"{url.rstrip('/')}/{name}/", name)
    for place in config.find_links:
        url = place if "://" in place else Path(place).as_uri()
        yield [
            file
            for file in _page(url, name, flat=True)
            if canonicalize_name(_stem(file.filename)) == name
        ]


def _stem(filename: str) -> str:
    """Return the project's part of a file's name, as it is written there."""
    wheel = filename.endswith(".whl")
    return filename.split("-", 1)[0] if wheel else filename.rpartition("-")[0]


def _page(url: str, project: str, *, flat: bool = False) -> list[IndexFile]:
    parts = urlsplit(url)
    if parts.scheme != "file":
        return _remote_page(url, project)
    path = Path(url2pathname(parts.path))
    try:
        if path.is_dir() and not flat and (path / "index.html").exists():
            path /= "index.html"
        if path.is_dir():
            files = [file for file in sorted(path.iterdir()) if file.is_file()]
            return [
                IndexFile(
                    project=project,
                    filename=file.name,
                    url=file.absolute().as_uri(),
                    size=file.stat().st_size,
                )
                for file in files
            ]
        return from_html(path.read_bytes(), path.as_uri(), project)
    except FileNotFoundError:
        return []
    except OSError as err:
        raise InputError(f"cannot be read: {err.strerror}", where=path) from err


def _remote_page(url: str, project: str) -> list[IndexFile]:
    what = f"asking {redacted(url)}"

    def ask() -> list[IndexFile]:
        with http_errors(what), session() as web:
            answer = web.get(url, headers={"Accept": ACCEPT}, timeout=TIMEOUT)
        if answer.status_code in {404, 410}:
            return []
        check_status(what, answer)
        if "json" in answer.headers.get("Content-Type", ""):
            return from_json(answer.content, answer.url, project)
        return from_html(answer.content, answer.url, project)

    return retried(what, ask)
