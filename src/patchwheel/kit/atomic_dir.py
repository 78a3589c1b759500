"""Replace a folder by another in one step, or in steps that the next reader finishes."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from patchwheel.kit.files import fsync

if TYPE_CHECKING:
    from pathlib import Path

RENAME_EXCHANGE = 2
AT_FDCWD = -100


def fresh(folder: Path) -> Path:
    """Return the path, beside `folder`, where its replacement is made; what was left there is removed."""
    recover(folder)
    shutil.rmtree(_old(folder), ignore_errors=True)
    shutil.rmtree(_new(folder), ignore_errors=True)
    return _new(folder)


def swap(folder: Path) -> None:
    """Put the finished replacement in the folder's place and remove the old folder."""
    new, old = _new(folder), _old(folder)
    for path in [*new.rglob("*"), new]:
        if not path.is_symlink():
            fsync(path)
    if exchange(new, folder):
        new.rename(old)
    else:
        folder.rename(old)
        with contextlib.suppress(FileNotFoundError):  # a reader's `recover` was quicker
            new.rename(folder)
    fsync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Finish a swap that was cut off between its two renames: the replacement was complete then."""
    if folder.exists() or not _old(folder).exists():
        return
    with contextlib.suppress(FileNotFoundError):
        (_new(folder) if _new(folder).exists() else _old(folder)).rename(folder)


def exchange(one: Path, other: Path) -> bool:
    """Swap two paths atomically; False where the system cannot."""
    import ctypes

    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    done = renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    return bool(done == 0)


def _new(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.new")


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")
