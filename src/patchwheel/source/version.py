"""Finds the version that a source tree states of itself, without running anything of it."""

from __future__ import annotations

import configparser
import contextlib
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from patchwheel.kit import ManifestError, Repository, parsed_toml
from patchwheel.source.fetch import Source
from patchwheel.wheelfile import field

# Tools that take it from git or rewrite it: what the files say then is a stand-in.
FROM_GIT = re.compile(
    r"setuptools[-_]scm|hatch[-_]vcs|versioneer|versioningit|dunamai|dynamic[-_]versioning|vcs"
)
MESON = re.compile(r"\bproject\s*\([^)]*?\bversion\s*:\s*'([^'@]+)'")
CALL = re.compile(r"^setup\s*\(.*?\bversion\s*=\s*[\"']([^\"']+)[\"']", re.MULTILINE | re.DOTALL)
ASSIGNED = re.compile(r"^__version__\s*(?::\s*str\s*)?=\s*[\"']([^\"']+)", re.MULTILINE)
MODULES = ("__init__", "_version", "version", "__version__", "__about__", "about")
TOP = ("PKG-INFO", "pyproject.toml", "setup.cfg", "setup.py", "meson.build")


def check_version(source: Source, manifest: Path) -> None:
    """Raise ManifestError when the tree states another version than the manifest.

    The wheel carries the manifest's, and a graft starts from upstream's wheel of that version.
    """
    from packaging.version import InvalidVersion, Version

    fork = source.fork
    package = fork.name.replace("-", "_")
    names = [f"{top}{package}/{name}.py" for top in ("", "src/", "lib/") for name in MODULES]
    repo = Repository(source.git_dir)
    blobs = {p: b.oid for p, b in repo.files(source.tree, *TOP, *names).items()}
    data = repo.read([*blobs.values()])
    for path, text in _found({path: data[oid] for path, oid in blobs.items()}):
        with contextlib.suppress(InvalidVersion):
            stated = Version(Version(text).public)
            # 0.0.0 is what those write who fill it in later.
            if stated == Version(Version(fork.version).public) or not any(stated.release):
                return
            named = "sdist" if fork.sdist and path == "PKG-INFO" else path
            raise ManifestError(
                f"{fork.name}: version is {fork.version}, and its {named} says {text}",
                where=manifest,
                expected="the version of the pinned source",
                hint=f'write version = "{stated.public}", or pin the source of {fork.version}',
            )


def _found(texts: dict[str, bytes]) -> Iterator[tuple[str, str]]:
    """Yield the file and the version of each statement, the surest first."""
    for version in field(texts.get("PKG-INFO", b""), "Version"):
        yield "PKG-INFO", version
    project: dict[str, object] = {}
    with contextlib.suppress(ValueError, AttributeError):
        table = parsed_toml(texts.get("pyproject.toml", b"").decode())
        project = {**table.get("tool", {}).get("poetry", {}), **table.get("project", {})}
    settings = [t.decode(errors="replace") for p, t in texts.items() if posixpath.dirname(p) == ""]
    if isinstance(static := project.get("version"), str):
        yield "pyproject.toml", static
    if FROM_GIT.search("\n".join(settings)):
        return
    if match := MESON.search(texts.get("meson.build", b"").decode(errors="replace")):
        yield "meson.build", match[1]
    with contextlib.suppress(configparser.Error, UnicodeDecodeError):
        parser = configparser.RawConfigParser()
        parser.read_string(texts.get("setup.cfg", b"").decode())
        yield "setup.cfg", parser.get("metadata", "version", fallback="")
    for path in sorted(texts):
        if path.endswith(".py"):
            pattern = CALL if path == "setup.py" else ASSIGNED
            if match := pattern.search(texts[path].decode(errors="replace")):
                yield path, match[1]
