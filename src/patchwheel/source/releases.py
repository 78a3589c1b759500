"""The releases of a project, by the files that indexes offer."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from patchwheel.kit import IndexConfig, InputError
from patchwheel.manifest import Sdist
from patchwheel.source.index import IndexFile, project_files

if TYPE_CHECKING:
    from packaging.version import Version

SDIST = ".tar.gz"


def find_sdist(config: IndexConfig, project: str, version: str) -> Sdist:
    """Return the sdist of a release; raises InputError when no index has one with a sha256."""
    from packaging.version import InvalidVersion, Version

    files = project_files(config, project)
    sdists = [row for row in _versions(files) if not row[0].filename.endswith(".whl")]
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

    files = list(_versions(project_files(config, project)))
    fitting = []
    for file, of in files:
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
    files = _versions(project_files(config, project))
    final = [of for file, of in files if not (file.yanked or of.is_prerelease)]
    return str(max(final)) if final else None


def _versions(files: Iterable[IndexFile]) -> Iterator[tuple[IndexFile, Version]]:
    """Yield the files whose names are valid, with their versions."""
    from packaging import utils

    for file in files:
        is_wheel = file.filename.endswith(".whl")
        with contextlib.suppress(utils.InvalidSdistFilename, utils.InvalidWheelFilename):
            parse = utils.parse_wheel_filename if is_wheel else utils.parse_sdist_filename
            yield file, parse(file.filename)[1]
