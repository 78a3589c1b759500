"""Changes the manifest, the lock and a series together, or not at all.

They are made in a folder beside the project's. When all are complete a journal is written, and whoever finds it
finishes the change; without it the folder is a leftover.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from typing import TYPE_CHECKING

from patchwheel.kit.errors import ManifestError
from patchwheel.kit.files import alone, fsync, rmtree

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

JOURNAL = ".patchwheel-journal"
# What `write_atomically` leaves when it is killed; the lock is written by who is alone with the folder.
HALF_A_LOCK = ".*.lock.????????.tmp"


def stage(root: Path, manifest: Path, lock: Path, name: str) -> Path:
    """Return a folder beside the project's files with copies of what a rebase changes; an old one is removed."""
    unstage(root, name)
    folder = root / f".rebase-{name}"
    folder.mkdir()
    shutil.copy(manifest, folder)
    if lock.exists():
        shutil.copy(lock, folder)
    shutil.copytree(root / "patches", folder / "patches", symlinks=True)
    return folder


def unstage(root: Path, name: str) -> None:
    """Remove what was made for a rebase that is not to be."""
    if (folder := root / f".rebase-{name}").exists():
        rmtree(folder)


def commit(root: Path, staged: Path, names: Iterable[str], fork: str, *, then: Path) -> None:
    """Put the staged files and the fork's series in the place of the project's, and remove the file `then`.

    All of it, whatever happens.
    """
    journal = {
        "staged": staged.name,
        "files": [*names],
        "fork": fork,
        "then": str(then.relative_to(root)),
    }
    written = staged / JOURNAL
    written.write_text(json.dumps(journal))
    for path in staged.rglob("*"):
        if not path.is_symlink():
            fsync(path)
    written.replace(root / JOURNAL)
    fsync(root)
    recover(root)


def recover(root: Path) -> str | None:
    """Finish a change of pin, lock and series that was cut off, and return its fork; every step can be done again."""
    if not (root / JOURNAL).exists() and not any(root.glob(HALF_A_LOCK)):
        return None
    # Two that finish the same change could move its results away again.
    with alone(root):
        for path in root.glob(HALF_A_LOCK):
            path.unlink()
        return _recover(root)


def _recover(root: Path) -> str | None:
    try:
        journal = json.loads((root / JOURNAL).read_text())
    except FileNotFoundError:
        return None
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
    (root / journal["then"]).unlink(missing_ok=True)
    # Before the journal: without it, nobody would remove the rest.
    rmtree(staged)
    (root / JOURNAL).unlink()
    return str(journal["fork"])
