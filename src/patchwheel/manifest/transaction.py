"""Change the manifest, the lock and a series together, or not at all.

The new files are made in a folder beside the project's. When all are complete, a journal is
written; whoever finds it finishes the change. Without a journal the folder is a leftover.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from patchwheel.kit import ManifestError, disk_error, exclusive_lock, fsync, parsed, rmtree
from patchwheel.manifest.model import Manifest

JOURNAL = ".patchwheel-journal"
# Below a fork's work tree, from the start of a rebase until it is finished or aborted.
STATE = ".git/patchwheel-rebase.json"
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
SUFFIXES = (".toml", ".lock", ".inventory")


@contextlib.contextmanager
def changed(manifest: Manifest, name: str) -> Iterator[Path]:
    """Give a manifest beside copies of what a change of a fork touches, in a folder of its own.

    At the end the copies take the places of the project's files; after an error they are removed.
    """
    root = manifest.root
    unstage(root, name)
    folder = root / f".rebase-{name}"
    folder.mkdir()
    try:
        copy_files(manifest, folder, links=True)
        yield folder / manifest.path.name
    except BaseException:
        rmtree(folder)
        raise
    names = [file.name for file in manifest.files if (folder / file.name).exists()]
    commit(root, names, name, manifest=manifest.path.name)


def copy_files(manifest: Manifest, folder: Path, *, links: bool) -> None:
    """Copy the project's own files and its patches into a folder, `links` as such or as folders."""
    for file in manifest.files:
        if file.exists():
            shutil.copy(file, folder)
    shutil.copytree(manifest.root / "patches", folder / "patches", symlinks=links)


def unstage(root: Path, name: str) -> None:
    """Remove what was staged for a rebase."""
    rmtree(root / f".rebase-{name}")


def commit(root: Path, names: Sequence[str], fork: str, *, manifest: str) -> None:
    """Replace the project's files by the staged ones, with the fork's series, and end the rebase.

    Once the journal is written, all of it happens, even if this process is killed.
    """
    staged = root / f".rebase-{fork}"
    _check(root, fork, names, manifest)
    written = staged / JOURNAL
    written.write_text(json.dumps({"files": [*names], "fork": fork}))
    for path in staged.rglob("*"):
        if not path.is_symlink():
            fsync(path)
    written.replace(root / JOURNAL)
    fsync(root)
    recover(root, manifest)


def recover(root: Path, manifest: str) -> str | None:
    """Finish an interrupted change of pin, lock and series; return its fork, or None."""
    if not (root / JOURNAL).exists():
        return None
    # Two processes that finish the same change could move its results away again.
    try:
        with exclusive_lock(root):
            return _recover(root, manifest)
    except (OSError, ValueError, KeyError, TypeError) as err:
        if isinstance(err, OSError) and disk_error(err):
            raise
        raise ManifestError(
            f"the journal of a rebase cannot be followed: {err}",
            where=root / JOURNAL,
            hint="compare the folder .rebase-FORK with the project, then remove both",
        ) from err


def _recover(root: Path, manifest: str) -> str | None:
    """Do what the journal says; each step may have been done before."""
    if (root / JOURNAL).is_fifo():
        raise ValueError("it is a FIFO")
    try:
        journal = parsed((root / JOURNAL).read_text())
        fork, files = journal["fork"], journal["files"]
        _check(root, fork, files, manifest)
    except FileNotFoundError:
        return None
    staged = root / f".rebase-{fork}"
    new, current = staged / "patches" / fork, root / "patches" / fork
    if new.exists():
        with contextlib.suppress(FileNotFoundError):
            current.rename(staged / "old")
        new.rename(current)
    for name in files:
        with contextlib.suppress(FileNotFoundError):
            (staged / name).replace(root / name)
    for folder in (root, root / "patches"):
        fsync(folder)
    (root / "work" / fork / STATE).unlink(missing_ok=True)
    # The journal goes last: without it, nobody would remove the rest.
    rmtree(staged)
    (root / JOURNAL).unlink()
    return str(fork)


def _check(root: Path, fork: object, files: object, manifest: str) -> None:
    """Raise ValueError unless only known names are changed, and none of them through a link."""
    known = {manifest.removesuffix(".toml") + suffix for suffix in SUFFIXES}
    if not isinstance(fork, str) or not NAME.fullmatch(fork):
        raise ValueError(f"{fork!r} is not the name of a fork")
    if not isinstance(files, list) or not {*map(str, files)} <= known:
        raise ValueError(f"it names {files}, and not only {', '.join(sorted(known))}")
    staged = f".rebase-{fork}"
    places = [JOURNAL, "patches", f"patches/{fork}", f"work/{fork}/.git", "work", f"work/{fork}"]
    places += [staged, f"{staged}/patches", f"{staged}/patches/{fork}"]
    places += [f"{staged}/{name}" for name in files]
    for place in places:
        if (root / place).is_symlink():
            raise ValueError(f"{place} is a symbolic link")
