"""The wheel that upstream published for a pin: its file on the index, and what it requires."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchwheel.kit.errors import InputError
from patchwheel.source.download import download_file
from patchwheel.source.index import project_files
from patchwheel.wheelfile.metadata import field
from patchwheel.wheelfile.read import read_wheel

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from patchwheel.kit.context import Context
    from patchwheel.kit.interpreter import Interpreter
    from patchwheel.manifest.model import Fork
    from patchwheel.source.index import IndexFile

# Wheels for the oldest glibc that we support are preferred to those that need a newer one.
GLIBC = (*range(28, 4, -1), *range(29, 60))
LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


def fetch_wheel(context: Context, fork: Fork) -> tuple[Path, str] | None:
    """Return upstream's wheel for this Python and its sha256, or None when there is none.

    Raises InputError when the index does not name the sha256 of the file.
    """
    if fork.upstream_wheel is None:
        return None
    files = project_files(context.index, fork.distribution)
    wheel = choose_wheel(files, fork.version, context.interpreter)
    if wheel is None:
        context.progress.say(
            f"{fork.name}: upstream has no wheel of {fork.version} for {context.interpreter.tag}: "
            "every change compiles"
        )
        return None
    if wheel.sha256 is None:
        raise InputError(f"the index gives no sha256 for {wheel.filename}")
    path = download_file(context, fork.distribution, wheel.filename, wheel.sha256)
    return path, wheel.sha256


def requirements(wheel: Path, extra: str | None = None) -> list[str]:
    """Return what a wheel requires of itself, or what one of its extras adds."""
    from packaging.requirements import Requirement

    required = []
    for line in field(read_wheel(wheel).metadata("METADATA"), "Requires-Dist"):
        requirement = Requirement(line)
        conditional = "extra ==" in str(requirement.marker or "")
        if extra is None and not conditional:
            required.append(line)
        elif extra and conditional and requirement.marker:
            without_extra = requirement.marker.evaluate({"extra": ""})
            if requirement.marker.evaluate({"extra": extra}) and not without_extra:
                requirement.marker = None
                required.append(str(requirement))
    return required


def choose_wheel(
    files: Iterable[IndexFile], version: str, interpreter: Interpreter
) -> IndexFile | None:
    """Return the wheel of a version that fits the Python on Linux x86-64 best."""
    from packaging.tags import compatible_tags, cpython_tags
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename
    from packaging.version import Version

    major, minor = map(int, interpreter.python.split("."))
    platforms = []
    for glibc in GLIBC:
        platforms += [f"manylinux_2_{glibc}_x86_64"]
        platforms += [f"{LEGACY[glibc]}_x86_64"] if glibc in LEGACY else []
    tags = [
        *cpython_tags((major, minor), platforms=platforms),
        *compatible_tags((major, minor), interpreter.tag, platforms),
    ]
    rank = {tag: number for number, tag in enumerate(tags)}
    fitting = []
    for file in files:
        # An index may have files that no installer takes.
        try:
            _, of, _, supported = parse_wheel_filename(file.filename)
        except InvalidWheelFilename:
            continue
        if of == Version(version) and (ranks := [rank[t] for t in supported if t in rank]):
            fitting.append((file.yanked, min(ranks), file.filename, file))
    return min(fitting, key=lambda row: row[:3])[3] if fitting else None
