"""Changes the manifest, the lock and a series together, or not at all.

They are made in a folder beside the project's. When all are complete a journal is written, and whoever finds it
finishes the change; without it the folder is a leftover.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from typing import TYPE_CHECKING

from patchwheel.disk import fsync, rmtree, write_atomically
from patchwheel.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

JOURNAL = ".patchwheel-journal"


def stage(root: Path, manifest: Path, lock: Path, name: str) -> Path:
    """Return a folder beside the project's files with copies of what a rebase changes; an old one is removed."""
    folder = root / f".rebase-{name}"
    if folder.exists():
        rmtree(folder)
    folder.mkdir()
    shutil.copy(manifest, folder)
    if lock.exists():
        shutil.copy(lock, folder)
    shutil.copytree(root / "patches", folder / "patches", symlinks=True)
    return folder


def commit(root: Path, staged: Path, names: Iterable[str], fork: str) -> None:
    """Put the staged files and the fork's series in the place of the project's: all of them, whatever happens."""
    for path in staged.rglob("*"):
        if not path.is_symlink():
            fsync(path)
    journal = {"staged": staged.name, "files": [*names], "fork": fork}
    write_atomically(root / JOURNAL, json.dumps(journal).encode())
    recover(root)


def recover(root: Path) -> None:
    """Finish a change of pin, lock and series that was cut off; every step can be done again."""
    try:
        journal = json.loads((root / JOURNAL).read_text())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as err:
        raise ManifestError(
            "the journal of a rebase cannot be read",
            where=root / JOURNAL,
            hint="compare the folder .rebase-FORK with the project, then remove both",
        ) from err
    staged = root / journal["staged"]
    new, now = staged / "patches" / journal["fork"], root / "patches" / journal["fork"]
    if new.exists():
        with contextlib.suppress(FileNotFoundError):
            now.rename(staged / "old")
        new.rename(now)
    for name in journal["files"]:
        with contextlib.suppress(FileNotFoundError):
            (staged / name).replace(root / name)
    for folder in (root, root / "patches"):
        fsync(folder)
    (root / JOURNAL).unlink()
    rmtree(staged)
