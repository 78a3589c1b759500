"""The releases of a project and their wheels, by the files that indexes offer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from patchwheel.kit import Context, IndexConfig, InputError, Interpreter
from patchwheel.manifest import Fork, Sdist
from patchwheel.source.index import IndexFile, project_files

if TYPE_CHECKING:
    from packaging.tags import Tag
    from packaging.utils import BuildTag
    from packaging.version import Version

SDIST = ".tar.gz"
# Wheels for the oldest glibc that we support are preferred to those that need a newer one.
GLIBC = (*range(28, 4, -1), *range(29, 60))
LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
PLATFORMS = [n for g in GLIBC for n in (f"manylinux_2_{g}", LEGACY.get(g)) if n]


def published_wheels(context: Context, fork: Fork) -> dict[str, str]:
    """Return name and sha256 of each wheel of the pin's version that the indexes list with one."""
    from packaging.version import Version

    files = project_files(context.index, fork.distribution) if fork.upstream_wheel else ()
    return {
        file.filename: file.sha256
        for file, of, _, tags in _parsed(files)
        if tags and of == Version(fork.version) and file.sha256 and not file.yanked
    }


def choose_wheel(
    files: Iterable[IndexFile], version: str, interpreter: Interpreter
) -> IndexFile | None:
    """Return the wheel of a version that fits the Python on such a machine best."""
    from packaging.tags import compatible_tags, cpython_tags
    from packaging.version import Version

    python = [int(part) for part in interpreter.python.split(".")]
    platforms = [f"{name}_{os.uname().machine}" for name in PLATFORMS]
    tags = [*cpython_tags(python, None, platforms)]
    tags += compatible_tags(python, interpreter.tag, platforms)
    rank = {tag: number for number, tag in enumerate(tags)}
    # A higher build number replaces a lower one, and none.
    fitting = [
        (not file.yanked, -min(ranks), build, file.filename, file)
        for file, of, build, supported in _parsed(files)
        if of == Version(version) and (ranks := [rank[t] for t in supported if t in rank])
    ]
    return max(fitting, key=lambda row: row[:4])[4] if fitting else None


def find_sdist(config: IndexConfig, project: str, version: str) -> Sdist:
    """Return the sdist of a release; raises InputError when no index has one with a sha256."""
    from packaging.version import InvalidVersion, Version

    rows = _parsed(project_files(config, project))
    sdists = [(file, of) for file, of, _, tags in rows if not tags]
    with contextlib.suppress(InvalidVersion):
        found = [file for file, of in sdists if file.sha256 and of == Version(version)]
        for file in found:
            if file.sha256 and file.filename.endswith(SDIST):
                return Sdist(filename=file.filename, sha256=file.sha256)
        if found:
            problem = f"{project}: the source of release {version} is {found[0].filename} alone"
            hint = "pin the fork by git commit instead"
            raise InputError(problem, expected=f"a {SDIST}", hint=hint)
    newest = ", ".join(map(str, sorted(of for _, of in sdists)[-3:]))
    problem = f"{project}: there is no release {version}"
    raise InputError(problem, expected=f"a release such as {newest}" if newest else None)


def newest_release(config: IndexConfig, project: str, pythons: Collection[str]) -> str:
    """Return the newest final version with an sdist for these Pythons; raises InputError."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    files = list(_parsed(project_files(config, project)))
    fitting = []
    for file, of, *_ in files:
        if file.yanked or of.is_prerelease or not file.filename.endswith(SDIST):
            continue
        # An installer ignores a field that it cannot read.
        with contextlib.suppress(InvalidSpecifier):
            bounds = SpecifierSet(file.requires_python or "")
            if not all(bounds.contains(f"{python}.99") for python in pythons):
                continue
        fitting.append(of)
    if fitting:
        return str(max(fitting))
    wanted = f"a final release with a .tar.gz for Python {', '.join(pythons)}"
    problem = f"{project} has no such release" if files else f"no index has a project {project}"
    hint = "correct the name, or pin a commit: `patchwheel add URL@REF`"
    raise InputError(problem, expected=wanted, hint=hint)


def latest_version(config: IndexConfig, project: str) -> str | None:
    """Return the newest final version that is not yanked, or None when no index has the project."""
    files = _parsed(project_files(config, project))
    final = [of for file, of, *_ in files if not (file.yanked or of.is_prerelease)]
    return str(max(final)) if final else None


def _parsed(
    files: Iterable[IndexFile],
) -> Iterator[tuple[IndexFile, Version, BuildTag, Collection[Tag]]]:
    """Yield the files that installers take, with what their names say: only wheels have tags."""
    from packaging import utils

    for file in files:
        with contextlib.suppress(utils.InvalidSdistFilename, utils.InvalidWheelFilename):
            if file.filename.endswith(".whl"):
                _, version, build, tags = utils.parse_wheel_filename(file.filename)
                yield file, version, build, tags
            else:
                yield file, utils.parse_sdist_filename(file.filename)[1], (), ()
