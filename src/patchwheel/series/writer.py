"""Write a series: names for new patches, and the file that lists them, comments kept."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from patchwheel.kit.errors import MachineError
from patchwheel.series.files import SERIES, entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from patchwheel.series.files import Patch, Series

GAP = 10


def name_patches(fresh: Sequence[Patch], old: Sequence[Patch | None]) -> list[str]:
    """Name the new patches by their place between the numbers of the others."""
    taken = {patch.name for patch in old if patch}
    names: list[str] = []
    last = 0
    for at, was in enumerate(old):
        if was:
            name = was.name
        else:
            number = (last // GAP + 1) * GAP
            rest = ((gap, _number(p.name) or -1) for gap, p in enumerate(old[at:]) if p)
            gap, following = next(rest, (0, -1))
            if last <= following < number + GAP * gap:
                number = last + (following - last) // (gap + 1)
            name = _unused(f"{number:04}-{_slug(fresh[at])}", taken)
        last = _number(name) or last
        names.append(name)
    return names


def _number(name: str) -> int:
    found = re.match(r"\d+", name)
    return int(found[0]) if found else 0


def _unused(stem: str, taken: set[str]) -> str:
    name, count = f"{stem}.patch", 1
    while name in taken:
        count += 1
        name = f"{stem}-{count}.patch"
    taken.add(name)
    return name


def _slug(patch: Patch) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", patch.mail.subject.lower()).strip("-")
    return words if len(words) <= 52 else words[:53].rpartition("-")[0] or words[:52]  # noqa: PLR2004


def write_series(place: Path, series: Series, patches: Sequence[Patch]) -> None:
    """Write the folder of the series anew; what else lies in it stays."""
    gone = {SERIES, *(patch.name for patch in series.patches)}
    lines = _series_lines(series.lines, [patch.name for patch in patches])
    try:
        place.mkdir()
        for path in series.folder.iterdir():
            if path.is_dir():
                shutil.copytree(path, place / path.name, symlinks=True)
            elif path.name not in gone:
                shutil.copy2(path, place, follow_symlinks=False)
        for patch in patches:
            (place / patch.name).write_bytes(patch.data)
        text = "".join(f"{line}\n" for line in lines)
        (place / SERIES).write_text(text, newline="\n")
    except OSError as err:
        raise MachineError(
            f"the series cannot be written: {err.strerror or err}", where=place
        ) from err


def _series_lines(old: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """List the patches; a comment stays on top, or above the patch that it stood above."""
    above: dict[str, list[str]] = {}
    written: dict[str, str] = {}
    pending: list[str] = []
    for line in old:
        name = entry(line)
        if not name:
            pending.append(line)
        elif name in names:
            above[name], written[name], pending = pending, line, []
    first = next((entry(line) for line in old if entry(line)), None)
    if first in above:
        yield from above.pop(first)
    for name in names:
        yield from above.get(name, [])
        yield written.get(name, name)
    yield from pending
