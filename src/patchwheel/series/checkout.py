"""Checks another series out in a work tree; a checkout that was killed is undone by the next."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path

from patchwheel import kit
from patchwheel.patch import SUBMODULE

# While git checks out: from which commit to which, and what is written down when it is done.
NOTE = "patchwheel-checkout.json"
COMMIT = re.compile("[0-9a-f]{40,64}")
LISTED = ("--pathspec-from-file=-", "--pathspec-file-nul")
LITERAL = {"GIT_LITERAL_PATHSPECS": "1"}
# A write that is killed ends with a page.
PAGE = 4096


def check_out(repo: kit.Repository, folder: Path, branch: str, tip: str, then: object) -> None:
    """Move a clean work tree and its branch to `tip`; PatchError where a file is in the way.

    The note, with `then`, stays for whoever called to remove, once all else says the same.
    """
    head = repo.text("rev-parse", "HEAD")
    for change in repo.changes(head, tip):
        path = folder / change.path
        # Of a folder, git itself says what would be lost.
        if change.status == "A" and (path.is_symlink() or path.is_file()):
            problem = f"{change.path} is in the way of a new file of the series"
            raise kit.PatchError(problem, where=folder, hint="move it away, and try again")
    note = {"from": head, "to": tip, "then": then}
    kit.write_atomically(folder / ".git" / NOTE, json.dumps(note).encode())
    try:
        repo.git("checkout", "-q", "--no-overwrite-ignore", "--no-track", "-B", branch, tip)
    except kit.GitError as err:
        # What cannot be undone now, the next run undoes.
        with contextlib.suppress(kit.GitError, OSError):
            undo_checkout(repo, folder)
        problem = f"git cannot check out the series: {err.stderr.strip()}"
        raise kit.PatchError(problem, where=folder) from err


def undo_checkout(repo: kit.Repository, folder: Path) -> object:
    """Put back what a git that was killed has written; what was edited since stays as it is.

    Returns the `then` of a checkout that ended, whose note stays.
    """
    path = folder / ".git" / NOTE
    if not path.is_file():
        return None
    try:
        note = kit.parsed(path.read_bytes())
        ends = [str(note["from"]), str(note["to"])]
        known = all(COMMIT.fullmatch(end) and repo.has(f"{end}^{{commit}}") for end in ends)
        then = note["then"]
    except (OSError, ValueError, KeyError, TypeError):
        known, ends, then = False, [""], None
    head = repo.text("rev-parse", "HEAD")
    if known and head == ends[1]:
        return then
    # Otherwise the user has gone on from there.
    if known and head == ends[0]:
        _undo(repo, folder, *ends)
    path.unlink()
    return None


def _undo(repo: kit.Repository, folder: Path, old: str, new: str) -> None:
    staged = {c.path: c.new.oid for c in repo.changes("--cached", old, command="diff-index")}
    changes = [c for c in repo.changes(old, new) if staged.get(c.path, c.new.oid) == c.new.oid]
    data = repo.read([c.new.oid for c in changes if c.new.mode != SUBMODULE])
    # New files first: in their place there may have been a folder, or in their folder's a file.
    added = [c for c in changes if c.status == "A"]
    for change in added:
        if _is_written(folder, change, data.get(change.new.oid, b"")):
            _remove(folder, change.path)
    _on_paths(repo, "reset", old, [c.path for c in added])
    others = [c for c in changes if c.status != "A"]
    gone = [c for c in others if _is_written(folder, c, data.get(c.new.oid, b""), gone=True)]
    _on_paths(repo, "checkout", old, [c.path for c in gone])


def _on_paths(repo: kit.Repository, command: str, commit: str, paths: list[str]) -> None:
    if paths:
        stdin = b"\0".join(map(os.fsencode, paths))
        repo.git(command, "-q", *LISTED, commit, stdin=stdin, env=LITERAL)


def _is_written(folder: Path, change: kit.Change, data: bytes, *, gone: bool = False) -> bool:
    """Say whether a file is as git may have left it: whole, written in part, or `gone`."""
    file = folder / change.path
    for parent in list(file.parents)[: len(Path(change.path).parts) - 1]:
        if os.path.lexists(parent) and (parent.is_symlink() or not parent.is_dir()):
            return False
    if not os.path.lexists(file):
        return gone
    if file.is_symlink() or change.new.mode == "120000":
        return file.is_symlink() and os.fsencode(file.readlink()) == data
    if not file.is_file() or change.status == "D":
        return False
    found = file.read_bytes()
    return found == data or (data.startswith(found) and len(found) % PAGE == 0)


def _remove(folder: Path, path: str) -> None:
    """Remove a file, and the folders that are empty without it."""
    (folder / path).unlink()
    with contextlib.suppress(OSError):
        for parent in list(Path(path).parents)[:-1]:
            (folder / parent).rmdir()
