"""Finds the markers of a conflict that somebody added instead of resolving it."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import TYPE_CHECKING

from patchwheel.kit.repo import read_changes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchwheel.kit.repo import Repository

DEFAULT = 7
MARKER = re.compile(rb"(<+|>+|\|+|=+)(?: (.*?))?\r?")
# What git's rebase calls the sides. Such a line is left over even where the rest of its conflict is gone.
LABELS = {
    b"<": re.compile(rb"HEAD"),
    b"|": re.compile(rb"parent of [0-9a-f]{4,}.*"),
    b">": re.compile(rb"[0-9a-f]{4,} \(.*\)"),
}
# Also in files whose attributes say that they are binary (`-diff`): git merges them as text.
CHANGED = (
    *("-r", "-z", "--raw", "--no-renames", "--no-textconv", "--text"),
    "-G^(<+|>+|[|]+)([[:space:]]|$)",
)


def in_index(repo: Repository, series: str) -> list[str]:
    """Name the files of the index that HEAD and the series have without these markers."""
    out = repo.git("diff-index", "--cached", *CHANGED, "HEAD")
    return _left(repo, out, before="HEAD", series=series)


def in_commits(repo: Repository, commits: Sequence[str], *, before: str, series: str) -> list[str]:
    """Name the files that a commit gives markers which the series lacks; a later one may have removed them."""
    stdin = "".join(f"{commit}\n" for commit in commits).encode()
    words = ("diff-tree", "--stdin", "--no-commit-id", *CHANGED)
    out = repo.git(*words, stdin=stdin)
    return _left(repo, out, before=before, series=series)


def _left(repo: Repository, raw: bytes, *, before: str, series: str) -> list[str]:
    changes = read_changes(raw)
    files = {c.path for c in changes if c.new.mode.startswith("100")}
    if not files:
        return []
    old, now = repo.files(series), _sizes(repo, files)
    with repo.index(before) as env:
        then = _sizes(repo, files, "--cached", env=env)
    sides = [blob for c in changes for blob in (c.old, c.new)]
    sides += [old[path] for path in files if path in old]
    data = repo.read([blob.oid for blob in sides if blob.mode.startswith("100")])
    # A file may have been moved.
    gone = [data[c.old.oid] for c in changes if c.status == "D" and c.old.oid in data]
    left = set()
    for change in changes:
        if change.path not in files or change.new.oid not in data:
            continue
        # A commit may change the attribute; git wrote the markers by what it was before.
        size = min(now[change.path], then[change.path])
        known = [data[o] for o in (change.old.oid,) if o in data] + gone
        if change.path in old and old[change.path].oid in data:
            known.append(data[old[change.path].oid])
        allowed: Counter[bytes] = Counter()
        for content in known:
            allowed |= _marker_lines(content, size)
        if _marker_lines(data[change.new.oid], size) - allowed:
            left.add(change.path)
    return sorted(left)


def _marker_lines(data: bytes, size: int) -> Counter[bytes]:
    """Count the lines that open and close conflicts.

    A conflict has a line that opens it, one between its sides and one that closes it, all of one length.
    That is `size` or more: git's are longer where two files were renamed to one.
    """
    found: Counter[bytes] = Counter()
    opened: dict[int, tuple[bytes, bool]] = {}
    for line in data.split(b"\n"):
        match = MARKER.fullmatch(line)
        if not match or len(match[1]) < size:
            continue
        kind, length, label = match[1][:1], len(match[1]), match[2]
        if label is not None and kind in LABELS and LABELS[kind].fullmatch(label):
            found[line] += 1
        if kind == b"<":
            opened[length] = (line, False)
        elif kind == b"=" and label is None and length in opened:
            opened[length] = (opened[length][0], True)
        elif kind == b">" and length in opened:
            first, parted = opened.pop(length)
            found.update((first, line) if parted else ())
    return found


def _sizes(
    repo: Repository, paths: set[str], *words: str, env: dict[str, str] | None = None
) -> dict[str, int]:
    """Return how long git makes the markers in each file, as the attributes of the work tree or an index say."""
    stdin = b"".join(os.fsencode(path) + b"\0" for path in paths)
    command = ("check-attr", "-z", "--stdin", *words, "conflict-marker-size")
    parts = repo.git(*command, stdin=stdin, env=env).split(b"\0")[:-1]
    found = {}
    for path, value in zip(parts[::3], parts[2::3], strict=True):
        # As git reads it: what is no number above 0 says nothing.
        number = re.match(rb"\+?[0-9]+", value)
        found[os.fsdecode(path)] = (int(number[0]) if number else 0) or DEFAULT
    return found
