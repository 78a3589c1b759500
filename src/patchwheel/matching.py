"""Where the lines of a hunk are in a file, by the rules of `git apply` without fuzz.

Stricter in one thing: a hunk that ends without a line end does not match a line that has one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patchwheel.patchdiff import Hunk

# A line that occurs more often says little about where a hunk belongs.
COMMON = 50


def find(lines: list[bytes], hunk: Hunk, fresh: bytearray) -> list[int]:
    """Return the 0-based places at which git would let the hunk match."""
    before = hunk.before
    places = occurrences(lines, before) if before else [0]
    size = len(before)
    if hunk.old_start <= 1:
        places = [p for p in places if p == 0]
    if hunk.rows[-1][:1] != b" ":
        places = [p for p in places if p + size == len(lines)]
    return [p for p in places if not any(fresh[p : p + size])]


def occurrences(lines: list[bytes], wanted: list[bytes]) -> list[int]:
    if not wanted:
        return [0]
    found, at, size = [], 0, len(wanted)
    try:
        while True:
            at = lines.index(wanted[0], at)
            if lines[at : at + size] == wanted:
                found.append(at)
            at += 1
    except ValueError:
        return found


def nearest(lines: list[bytes], wanted: list[bytes]) -> tuple[int, int] | None:
    """Return where most of the wanted lines are equal, and how many; common lines count less."""
    seen = Counter(lines)
    votes: Counter[int] = Counter()
    for index, line in enumerate(wanted):
        if line.strip() and 0 < seen[line] <= COMMON:
            for place in occurrences(lines, [line]):
                votes[place - index] += 1
    if not votes:
        return None
    start = max(votes, key=lambda place: (votes[place], -place))
    pairs = zip(wanted[max(-start, 0) :], lines[max(start, 0) :], strict=False)
    return start, sum(one == other for one, other in pairs)


def split(data: bytes) -> list[bytes]:
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def blob_id(data: bytes) -> str:
    return hashlib.sha1(
        b"blob %d\0%s" % (len(data), data), usedforsecurity=False
    ).hexdigest()


def shown(line: bytes | None) -> str:
    if line is None:
        return "beyond the file"
    end = "" if line.endswith(b"\n") else " without a line end"
    return repr(line.decode(errors="replace").rstrip("\n"))[:100] + end
