"""patches/<fork>/series: the ordered patches of a fork, read strictly and written with comments."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchwheel.kit import (
    MachineError,
    PatchError,
    did_you_mean,
    finish_replacement,
    read_regular,
)
from patchwheel.patch import Patch
from patchwheel.project import Project

SERIES = "series"
# A file beside the series: no paths, and no options of quilt's.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\.(patch|diff)")
# New patches are numbered in tens, so that others fit between them.
GAP = 10
MAX_SLUG = 52


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The patches of a fork in order; `lines` are those of the series file, with comments."""

    folder: Path
    patches: tuple[Patch, ...]
    lines: tuple[str, ...]

    @property
    def digests(self) -> list[list[str]]:
        """The names and sha256 of the patches, in order."""
        return [[patch.name, patch.sha256] for patch in self.patches]


def load_series(folder: Path) -> Series:
    """Read a series and its patches without parsing the patches; raises PatchError."""
    # An export may have been interrupted.
    finish_replacement(folder)
    path = folder / SERIES
    try:
        # Editors on Windows begin a file with a byte order mark.
        text = read_regular(path).decode("utf-8-sig")
    except FileNotFoundError as err:
        problem = f"the fork {folder.name} has no series"
        expected = "a file with one patch name a line; an empty file means no patches"
        make = f"mkdir -p {shlex.quote(str(folder))} && touch {shlex.quote(str(path))}"
        hint = f"{make}, then `patchwheel dev {folder.name}`"
        raise PatchError(problem, where=path, expected=expected, hint=hint) from err
    except (OSError, UnicodeDecodeError) as err:
        raise PatchError(f"cannot be read: {err}", where=path) from err
    lines = tuple(line.rstrip() for line in text.split("\n"))
    # After the last line end there is no line.
    lines = lines[:-1] if lines[-1] == "" else lines
    patches: dict[str, Patch] = {}
    for number, line in enumerate(lines, 1):
        if name := _patch_name(line):
            patches[name] = _load_patch(folder, name, number, seen=patches)
    for path in sorted(folder.iterdir()):
        if path.suffix in {".patch", ".diff"} and path.name not in patches:
            hint = f"add it at its place in {folder / SERIES}, or remove it: rm "
            hint += shlex.quote(str(path))
            raise PatchError(f"{path.name} is not listed in the series", where=path, hint=hint)
    return Series(folder=folder, patches=tuple(patches.values()), lines=lines)


def load_all_series(project: Project) -> dict[str, tuple[Patch, ...]]:
    """Return the patches of all forks, which may require one another."""
    forks = project.manifest.forks.values()
    return {fork.name: load_series(fork.patches).patches for fork in forks}


def name_patches(patches: Sequence[Patch], old: Sequence[Patch | None]) -> list[str]:
    """Return a name for each patch: that of its old file, or one that sorts at its place."""
    taken = {patch.name for patch in old if patch}
    names: list[str] = []
    last = 0
    for at, previous in enumerate(old):
        if previous:
            name = previous.name
        else:
            number = (last // GAP + 1) * GAP
            named = ((n, _number(p.name) or -1) for n, p in enumerate(old[at:]) if p)
            unnamed, following = next(named, (0, -1))
            if last <= following < number + GAP * unnamed:
                # There is no room for whole tens before the next old name.
                number = last + (following - last) // (unnamed + 1)
            stem = f"{number:04}-{_slug(patches[at])}"
            stems = itertools.chain([stem], (f"{stem}-{count}" for count in itertools.count(2)))
            name = next(f"{s}.patch" for s in stems if f"{s}.patch" not in taken)
            taken.add(name)
        last = _number(name) or last
        names.append(name)
    return names


def write_series(folder: Path, series: Series, patches: Sequence[Patch]) -> None:
    """Write a new folder with these patches and with all other files of the old series."""
    lines = _series_lines(series.lines, [patch.name for patch in patches])
    try:
        shutil.copytree(series.folder, folder, symlinks=True)
        for name in (SERIES, *(patch.name for patch in series.patches)):
            (folder / name).unlink()
        for patch in patches:
            (folder / patch.name).write_bytes(patch.data)
        text = "".join(f"{line}\n" for line in lines)
        (folder / SERIES).write_text(text, newline="\n")
    except OSError as err:
        problem = f"the series cannot be written: {err.strerror or err}"
        raise MachineError(problem, where=folder) from err


def _patch_name(line: str) -> str:
    """Return a line of a series without its comment."""
    return re.sub(r"(^|\s)#.*", "", line).strip()


def _load_patch(folder: Path, name: str, number: int, *, seen: dict[str, Patch]) -> Patch:
    path = folder / name
    if not NAME.fullmatch(name):
        problem = f"{name!r} is not the name of a patch beside the series"
        hint = "paths, options such as -p0 and other endings are not read"
    elif name in seen:
        problem, hint = f"{name} is listed twice", "remove one of the lines"
    elif path.is_symlink() or (folder / SERIES).is_symlink():
        problem = f"{name} or the series is a symbolic link"
        hint = "copy the file to its place"
    else:
        try:
            return Patch(path=path, data=read_regular(path))
        except OSError as err:
            problem = f"{name} cannot be read: {err.strerror}"
            if isinstance(err, FileNotFoundError):
                near = did_you_mean(name, [p.name for p in folder.iterdir()])
                problem = f"there is no patch {name}{near}"
            hint = f"remove the line, or add {path}"
    where = f"{folder / SERIES}:{number}"
    raise PatchError(problem, where=where, expected="NAME.patch", hint=hint)


def _number(name: str) -> int:
    digits = re.match(r"\d+", name)
    return int(digits[0]) if digits else 0


def _slug(patch: Patch) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", patch.mail.subject.lower()).strip("-")
    if len(slug) <= MAX_SLUG:
        return slug
    # Cut between words, unless there is only one.
    return slug[: MAX_SLUG + 1].rpartition("-")[0] or slug[:MAX_SLUG]


def _series_lines(old: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """List the patches; a comment stays at the top, or above the patch that it was above."""
    blocks: dict[str, list[str]] = {}
    pending: list[str] = []
    for line in old:
        name = _patch_name(line)
        # The comments of a patch that was removed go to the next one.
        if name in {"", *names}:
            pending.append(line)
        if name in names:
            blocks[name], pending = pending, []
    if blocks:
        top = next(iter(blocks.values()))
        yield from top[:-1]
        del top[:-1]
    for name in names:
        yield from blocks.get(name, [name])
    yield from pending
