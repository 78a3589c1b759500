"""Folders of release wheels: completed with what belongs beside them, and made into an index."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from patchwheel.kit.errors import InputError
from patchwheel.kit.files import write_atomically
from patchwheel.release.check import ReleaseCheck, check_release
from patchwheel.release.files import (
    SIMPLE,
    SUMS,
    is_release_wheel,
    read_labelled,
    sidecars,
    simple_index,
    sums_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from patchwheel.release.files import LabelledWheel


def complete_release(folder: Path) -> None:
    """Write what belongs beside the release wheels of a folder; grafts in it are left out."""
    paths = sorted(path for path in folder.rglob("*.whl") if is_release_wheel(path))
    wheels = [read_labelled(path) for path in paths]
    _write_sidecars(folder, [wheel for wheel in wheels if wheel.is_release])


def make_index(folder: Path) -> list[str]:
    """Write a simple index over the release wheels of a folder and return the projects in it.

    Nothing is written unless all that is in the folder is true, none of it is a graft, and no file
    name has other bytes elsewhere in the folder or in the index that was there before.
    """
    checked = check_release(folder, pages=False)
    problems = list(checked.problems)
    known = dict(_indexed(folder))
    for wheel in checked.wheels:
        name = wheel.path.name
        if not wheel.is_release:
            problems.append(f"{name}: is a graft; only compiled wheels are published")
        before = known.setdefault(name, wheel.sha256)
        if before != wheel.sha256:
            problems.append(
                f"{name}: another file of this name, with sha256 {before}, "
                "is in the folder or was in its index"
            )
    ReleaseCheck(wheels=(), problems=tuple(problems)).check(folder)
    _write_sidecars(folder, checked.wheels)
    for name, content in simple_index(folder, checked.wheels).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, content)
    return sorted({wheel.project for wheel in checked.wheels})


def _write_sidecars(folder: Path, wheels: Sequence[LabelledWheel]) -> None:
    files = sidecars(folder, wheels)
    for name, content in files.items():
        write_atomically(folder / name, content)
    listed = [*files, *(w.path.relative_to(folder).as_posix() for w in wheels)]
    write_atomically(folder / SUMS, sums_of(folder, listed))


def _indexed(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield name and sha256 of the files in the index that is in the folder."""
    for page in sorted((folder / SIMPLE).glob("*/index.json")):
        try:
            rows = json.loads(page.read_text("utf-8"))["files"]
            yield from ((row["filename"], row["hashes"]["sha256"]) for row in rows)
        except (ValueError, KeyError, TypeError) as err:
            raise InputError(
                f"is no page of an index: {err!r}",
                where=page,
                hint=f"remove {SIMPLE}; it is made again",
            ) from err
