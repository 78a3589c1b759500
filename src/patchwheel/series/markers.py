"""The lines that git writes into a file where two changes of it conflict."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from patchwheel import kit

DEFAULT_SIZE = 7
MARKER = rb"(<+|>+|\|+|=+)(?: .*)?\r?"
# The labels of git's rebase. Such a line is a leftover even where the rest of its conflict is gone.
LABELLED = rb"(<+ HEAD|\|+ parent of [0-9a-f]{4,}.*|>+ [0-9a-f]{4,} \(.*\))\r?"


def find_markers(
    repo: kit.Repository, base: str, exported: str, commits: Sequence[str] | None
) -> list[str]:
    """Name the files to which the index or, if given, a commit adds markers of a conflict.

    What the commits `base` and `exported`, the pin and the series, have of them is meant.
    """
    before = "HEAD" if commits is None else base
    if commits is None:
        changes = repo.changes("--cached", before, command="diff-index")
    else:
        # One by one: a later commit may remove the markers, but each becomes a patch of its own.
        stdin = "".join(f"{commit}\n" for commit in commits).encode()
        changes = repo.changes("--stdin", "--no-commit-id", stdin=stdin)
    added = [change for change in changes if change.new.mode.startswith("100")]
    if not added:
        return []
    paths, known = {change.path for change in added}, repo.files(exported)
    now = _marker_sizes(repo, paths)
    with repo.index(before) as env:
        then = _marker_sizes(repo, paths, "--cached", env=env)
    blobs = [blob for change in changes for blob in (change.old, change.new)]
    blobs += [known[path] for path in paths if path in known]
    data = repo.read([blob.oid for blob in blobs if blob.mode.startswith("100")])
    # A file may have been moved from one that is gone.
    gone = [change.old.oid for change in changes if change.status == "D"]
    left = set()
    for change in added:
        # A commit may change the attribute; git wrote the markers by its old value.
        size = min(now[change.path], then[change.path])
        if lines := _marker_lines(data[change.new.oid], size):
            meant: Counter[bytes] = Counter()
            for oid in (change.old.oid, known.get(change.path, change.old).oid, *gone):
                meant |= _marker_lines(data.get(oid, b""), size)
            left |= {change.path} if lines - meant else set()
    return sorted(left)


def _marker_lines(data: bytes, size: int) -> Counter[bytes]:
    """Count the lines that open and close conflicts, of `size` characters or more."""
    lines: Counter[bytes] = Counter()
    # The three lines of a conflict have one length, which is more than `size` where two files were
    # renamed to one. By that length: the opening line, and whether the sides were separated since.
    opened: dict[int, tuple[bytes, bool]] = {}
    for line in data.split(b"\n"):
        match = re.fullmatch(MARKER, line)
        if not match or len(match[1]) < size:
            continue
        length = len(match[1])
        if re.fullmatch(LABELLED, line):
            lines[line] += 1
        if match[1][:1] == b"<":
            opened[length] = (line, False)
        elif length in opened and line.rstrip(b"\r") == b"=" * length:
            opened[length] = (opened[length][0], True)
        elif length in opened and match[1][:1] == b">":
            opening, separated = opened.pop(length)
            lines.update((opening, line) if separated else ())
    return lines


def _marker_sizes(
    repo: kit.Repository, paths: set[str], *options: str, env: Mapping[str, str] | None = None
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
