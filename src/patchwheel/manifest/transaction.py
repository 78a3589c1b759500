"""Change the manifest, the lock and a series together, or not at all.

The new files are made in a folder beside the project's. When all are complete, a journal is
written; whoever finds it finishes the change. Without a journal the folder is a leftover.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from typing import TYPE_CHECKING

from patchwheel.kit import ManifestError, exclusive_lock, fsync, rmtree

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

JOURNAL = ".patchwheel-journal"
# What `write_atomically` leaves when it is killed; the lock is written under the folder's lock.
TEMPORARY_FILES = (".*.lock.????????.tmp", ".*.inventory.????????.tmp")


def stage(root: Path, manifest: Path, generated: Iterable[Path], name: str) -> Path:
    """Return a folder beside the project's files with copies of what a rebase changes."""
    unstage(root, name)
    folder = root / f".rebase-{name}"
    folder.mkdir()
    for file in (manifest, *generated):
        if file.exists():
            shutil.copy(file, folder)
    shutil.copytree(root / "patches", folder / "patches", symlinks=True)
    return folder


def unstage(root: Path, name: str) -> None:
    """Remove what was staged for a rebase."""
    rmtree(root / f".rebase-{name}")


def commit(root: Path, staged: Path, names: Iterable[str], fork: str, *, then: Path) -> None:
    """Replace the project's files by the staged ones, with the fork's series, and remove `then`.

    Once the journal is written, all of it happens, even if this process is killed.
    """
    last = str(then.relative_to(root))
    journal = {"staged": staged.name, "files": [*names], "fork": fork, "then": last}
    written = staged / JOURNAL
    written.write_text(json.dumps(journal))
    for path in staged.rglob("*"):
        if not path.is_symlink():
            fsync(path)
    written.replace(root / JOURNAL)
    fsync(root)
    recover(root)


def recover(root: Path) -> str | None:
    """Finish an interrupted change of pin, lock and series; return its fork, or None."""
    leftovers = [path for pattern in TEMPORARY_FILES for path in root.glob(pattern)]
    if not leftovers and not (root / JOURNAL).exists():
        return None
    # Two processes that finish the same change could move its results away again.
    with exclusive_lock(root):
        # One that was being written is in its place by now.
        for path in leftovers:
            path.unlink(missing_ok=True)
        return _recover(root)


def _recover(root: Path) -> str | None:
    """Do what the journal says; each step may have been done before."""
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
    new, current = staged / "patches" / journal["fork"], root / "patches" / journal["fork"]
    if new.exists():
        with contextlib.suppress(FileNotFoundError):
            current.rename(staged / "old")
        new.rename(current)
    for name in journal["files"]:
        with contextlib.suppress(FileNotFoundError):
            (staged / name).replace(root / name)
    for folder in (root, root / "patches"):
        fsync(folder)
    (root / journal["then"]).unlink(missing_ok=True)
    # The journal goes last: without it, nobody would remove the rest.
    rmtree(staged)
    (root / JOURNAL).unlink()
    return str(journal["fork"])
