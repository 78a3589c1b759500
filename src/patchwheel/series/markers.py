"""Find conflict markers that were committed instead of resolved."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import TYPE_CHECKING

from patchwheel.kit.repo import read_changes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchwheel.kit.repo import Blob, Repository

DEFAULT_SIZE = 7
MARKER = re.compile(rb"(<+|>+|\|+|=+)(?: (.*?))?\r?")
# The labels of git's rebase. Such a line is a leftover even where the rest of its conflict is gone.
LABELLED = re.compile(rb"(<+ HEAD|\|+ parent of [0-9a-f]{4,}.*|>+ [0-9a-f]{4,} \(.*\))\r?")
ADDS_MARKER = "-G^(<+|>+|[|]+)([[:space:]]|$)"
# --text: also in files whose attributes say that they are binary, since git merges them as text.
OPTIONS = ("-r", "-z", "--raw", "--no-renames", "--no-textconv", "--text", ADDS_MARKER)


def find_markers(
    repo: Repository, commits: Sequence[str] | None, *, before: str, series: str
) -> list[str]:
    """Name the files to which the index, or one of some commits, adds what the series lacks."""
    if commits is None:
        out = repo.git("diff-index", "--cached", *OPTIONS, before)
    else:
        # One by one: a later commit may remove the markers, but each becomes a patch of its own.
        stdin = "".join(f"{commit}\n" for commit in commits).encode()
        out = repo.git("diff-tree", "--stdin", "--no-commit-id", *OPTIONS, stdin=stdin)
    changes = [c for c in read_changes(out) if _is_regular(c.old) or _is_regular(c.new)]
    paths = {change.path for change in changes if _is_regular(change.new)}
    if not paths:
        return []
    exported = repo.files(series)
    now = _marker_sizes(repo, paths)
    with repo.index(before) as env:
        then = _marker_sizes(repo, paths, "--cached", env=env)
    blobs = [blob for change in changes for blob in (change.old, change.new)]
    blobs += [exported[path] for path in paths if path in exported]
    data = repo.read([blob.oid for blob in blobs if _is_regular(blob)])
    # A file may have been moved from one that is gone.
    gone = [change.old.oid for change in changes if change.status == "D"]
    left = set()
    for change in changes:
        if change.path not in paths or change.new.oid not in data:
            continue
        # A commit may change the attribute; git wrote the markers by its old value.
        size = min(now[change.path], then[change.path])
        known: Counter[bytes] = Counter()
        for oid in (change.old.oid, exported.get(change.path, change.old).oid, *gone):
            known |= _marker_lines(data.get(oid, b""), size)
        if _marker_lines(data[change.new.oid], size) - known:
            left.add(change.path)
    return sorted(left)


def _is_regular(blob: Blob) -> bool:
    return blob.mode.startswith("100")


def _marker_lines(data: bytes, size: int) -> Counter[bytes]:
    """Count the lines that open and close conflicts, of `size` characters or more."""
    lines: Counter[bytes] = Counter()
    # The three lines of a conflict have one length, which is more than `size` where two files were
    # renamed to one. By that length: the opening line, and whether the sides were separated since.
    opened: dict[int, tuple[bytes, bool]] = {}
    for line in data.split(b"\n"):
        match = MARKER.fullmatch(line)
        if not match or len(match[1]) < size:
            continue
        kind, length, label = match[1][:1], len(match[1]), match[2]
        if LABELLED.fullmatch(line):
            lines[line] += 1
        if kind == b"<":
            opened[length] = (line, False)
        elif kind == b"=" and label is None and length in opened:
            opened[length] = (opened[length][0], True)
        elif kind == b">" and length in opened:
            opening, separated = opened.pop(length)
            lines.update((opening, line) if separated else ())
    return lines


def _marker_sizes(
    repo: Repository, paths: set[str], *options: str, env: dict[str, str] | None = None
) -> dict[str, int]:
    """Return the length of git's markers in each file, by the attributes of work tree or index."""
    stdin = b"".join(os.fsencode(path) + b"\0" for path in paths)
    argv = ("check-attr", "-z", "--stdin", *options, "conflict-marker-size")
    parts = repo.git(*argv, stdin=stdin, env=env).split(b"\0")[:-1]
    sizes = {}
    for path, value in zip(parts[::3], parts[2::3], strict=True):
        # As git reads it: anything but a number above 0 means the default.
        number = re.match(rb"\+?[0-9]+", value)
        sizes[os.fsdecode(path)] = (int(number[0]) if number else 0) or DEFAULT_SIZE
    return sizes
