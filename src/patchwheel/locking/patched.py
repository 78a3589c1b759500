"""What a series changes in the requirements of its pin, which the lock has to provide as well."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from patchwheel.build import (
    check_satisfied,
    name_of,
    parse_build_system,
    read_table,
    static_build_requirements,
    string_list,
)
from patchwheel.kit import Distribution, ManifestError, PatchError, Repository
from patchwheel.manifest import ForkBuild
from patchwheel.project import Project
from patchwheel.series import apply_series, load_series
from patchwheel.source import Source


def patched_source(project: Project, source: Source) -> Source:
    """Return the pin with its series applied; the pin alone if the series does not apply."""
    series = load_series(source.fork.patches)
    try:
        tree = apply_series(source, series, store=project.store).tree
    except PatchError as err:
        problem = "requirements are read without the series, which does not apply"
        project.progress.say(f"{source.fork.name}: {problem}: {err.message}")
        return source
    return replace(source, tree=tree)


def read_pyproject_of(source: Source) -> bytes:
    """Return the project's pyproject.toml; an empty one means the same as none (PEP 518)."""
    repo = Repository(source.git_dir)
    blobs = repo.files(source.tree, "pyproject.toml").values()
    return b"".join(repo.read([blob.oid for blob in blobs]).values())


def build_requirements(source: Source, patched: Source) -> list[str]:
    """Return the stated build requirements, as the series has them where it has other ones."""
    fork, where = source.fork, f"{source.fork.name}: pyproject.toml"
    pin, ours = (
        static_build_requirements(parse_build_system(read_pyproject_of(s), where), fork)
        for s in (source, patched)
    )
    return _replaced(pin, pin, ours)


def dependencies(source: Source, patched: Source, base: Iterable[str] | None) -> list[str]:
    """Return what a patched wheel requires: what `base` does, or else the project, and the series.

    It raises ManifestError for a project table that is malformed.
    """
    pin, ours = (_stated(s) for s in (source, patched))
    return _replaced(pin if base is None else base, pin, ours)


def added_dependencies(project: Project, source: Source) -> list[str]:
    """Return the dependencies that the series adds or changes."""
    pin = _stated(source)
    return [line for line in _stated(patched_source(project, source)) if line not in pin]


def is_provided(
    source: Source, lines: list[str], packages: Iterable[Distribution], python: str
) -> bool:
    """Say whether locked packages meet the dependencies."""
    try:
        check_satisfied(source.fork, lines, {d.name: d.version for d in packages}, python=python)
    except ManifestError:
        return False
    return True


def is_built_with(build: ForkBuild, source: Source, patched: Source, python: str) -> bool:
    """Say whether what is locked for a build has what the series requires of it."""
    if source.tree == patched.tree or read_pyproject_of(source) == read_pyproject_of(patched):
        return True
    lines = build_requirements(source, patched)
    return is_provided(source, lines, build.build_requires, python)


def _stated(source: Source) -> list[str]:
    table = read_table(read_pyproject_of(source), "project", source.fork.name)
    return [*string_list(table.get("dependencies", []), source.fork.name)]


def _replaced(lines: Iterable[str], old: list[str], new: list[str]) -> list[str]:
    """Put the new lines in the place of those about the same names, where they are others."""
    changed = {name_of(line) for line in {*old} ^ {*new}}
    kept = [line for line in lines if name_of(line) not in changed]
    return [*kept, *(line for line in new if name_of(line) in changed)]
