"""patches/<fork>/series: the ordered patches of a fork, and nothing that it does not name."""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Never

from patchwheel.kit.atomic_dir import recover
from patchwheel.kit.errors import PatchError
from patchwheel.patch.lint import check_patch
from patchwheel.patch.mail import Patch

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Patch", "Series", "check_patch", "load_series", "read_patch"]

SERIES = "series"
ENTRY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\.(patch|diff)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """`lines` are the series file's own, comments included."""

    folder: Path
    patches: tuple[Patch, ...]
    lines: tuple[str, ...]

    @property
    def fork(self) -> str:
        return self.folder.name

    @property
    def digests(self) -> list[list[str]]:
        """The names and sha256 of the patches, in order."""
        return [[patch.name, patch.sha256] for patch in self.patches]


def load_series(folder: Path) -> Series:
    """Read a series and its patches without parsing these.

    Raises PatchError with file and line for an entry that is no plain file name, a missing,
    doubled or unlisted patch, and a link. Finishes an export that was cut off.
    """
    recover(folder)
    path = folder / SERIES
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as err:
        raise PatchError(
            f"the fork {folder.name} has no series",
            where=path,
            expected="a file with one patch name a line; an empty one stands for no patches",
            hint=f"start one: mkdir -p {folder} && touch {path}, then `patchwheel dev {folder.name}`",
        ) from err
    except (OSError, UnicodeDecodeError) as err:
        raise PatchError(f"cannot be read: {err}", where=path) from err
    lines = tuple(line.rstrip() for line in text.split("\n"))
    lines = lines[:-1] if lines[-1] == "" else lines
    patches: dict[str, Patch] = {}
    for number, line in enumerate(lines, 1):
        if name := entry(line):
            patches[name] = _patch(folder, name, number, seen=patches)
    _refuse_orphans(folder, patches)
    return Series(folder=folder, patches=tuple(patches.values()), lines=lines)


def read_patch(path: Path, data: bytes) -> Patch:
    """Return a patch that may not be on disk yet."""
    sha256 = hashlib.sha256(data).hexdigest()
    return Patch(name=path.name, path=path, sha256=sha256, data=data)


def entry(line: str) -> str:
    """Return a line of a series without its comment."""
    return re.sub(r"(^|\s)#.*", "", line).strip()


def _patch(folder: Path, name: str, number: int, *, seen: dict[str, Patch]) -> Patch:
    path = folder / name

    def fail(message: str, hint: str | None = None) -> Never:
        where = f"{folder / SERIES}:{number}"
        raise PatchError(message, where=where, expected="NAME.patch", hint=hint)

    if not ENTRY.fullmatch(name):
        fail(
            f"{name!r} is not the name of a patch beside the series",
            "paths, options such as -p0 and other endings are not read",
        )
    if name in seen:
        fail(f"{name} is listed twice", "remove one of the lines")
    if path.is_symlink() or (folder / SERIES).is_symlink():
        fail(f"{name} or the series is a symbolic link", "copy the file to its place")
    try:
        return read_patch(path, path.read_bytes())
    except FileNotFoundError:
        near = difflib.get_close_matches(name, [p.name for p in folder.iterdir()], n=1)
        fail(
            f"there is no patch {name}" + (f" (did you mean {near[0]}?)" if near else ""),
            f"remove the line, or add {path}",
        )
    except OSError as err:
        fail(f"{name} cannot be read: {err.strerror}")


def _refuse_orphans(folder: Path, patches: dict[str, Patch]) -> None:
    for path in sorted(folder.iterdir()):
        if path.suffix in {".patch", ".diff"} and path.name not in patches:
            raise PatchError(
                f"{path.name} is not listed in the series",
                where=path,
                hint=f"add it at its place in {folder / SERIES}, or remove it: rm {path}",
            )
