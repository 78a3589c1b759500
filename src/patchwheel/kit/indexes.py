"""The package indexes that uv or pip are set up for on this machine."""

from __future__ import annotations

import configparser
import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from patchwheel.kit import process
from patchwheel.kit.errors import InputError, redacted
from patchwheel.kit.interpreter import uv_bin

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
    places = [_absolute(place, root) for place in pip.get("find-links", ())]
    return IndexConfig(
        urls=() if pip.get("no-index") else (*main, *pip.get("extra-index-url", ())),
        # pip ignores a folder that does not exist, uv stops.
        find_links=tuple(p for p in places if "://" in p or Path(p).exists()),
        equal=True,
    )


def _ask_uv(root: Path, *, configured: bool) -> IndexConfig:
    """Return the indexes of uv in `root`, or its default when `configured` is false."""
    uv_env = {k: v for k, v in os.environ.items() if k.startswith("UV_") and configured}
    argv = ["pip", "compile", "-", "--emit-index-url", "--emit-find-links", "--quiet"]
    argv += ["--no-header", "--offline", "--no-python-downloads", "--python", sys.executable]
    argv += [] if configured else ["--no-config"]
    try:
        out = process.capture([uv_bin(), *argv], cwd=root, env=process.base_env(**uv_env))
    except process.CommandError as err:
        tail, hint = [redacted(line) for line in err.tail], "correct uv.toml or the UV_… variables"
        raise InputError("uv cannot use its index settings", tail=tail, hint=hint) from err
    options = [line.partition(" ")[::2] for line in out.decode().splitlines()]
    return IndexConfig(
        urls=tuple(v.strip() for k, v in options if k in {"--index-url", "--extra-index-url"}),
        find_links=tuple(_absolute(v.strip(), root) for k, v in options if k == "--find-links"),
    )


def _pip_settings() -> dict[str, list[str]]:
    """Return pip's index settings. As in pip, a variable overrides the files."""
    parser = configparser.RawConfigParser(strict=False)
    # pip takes index_url for index-url.
    normalize = lambda name: name.lower().replace("_", "-")  # noqa: E731
    parser.optionxform = normalize  # type: ignore[method-assign]
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
