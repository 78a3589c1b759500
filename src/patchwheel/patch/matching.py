"""Where the lines of a hunk are in a file, by the rules of `git apply` without fuzz.

Stricter in one thing: a hunk that ends without a line end does not match a line that has one.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from itertools import accumulate, groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from patchwheel.patch.diff import Hunk

# A line that occurs more often says little about where a hunk belongs.
COMMON = 50
# Blank lines and lone brackets are everywhere.
TELLING = re.compile(rb"[\w\x80-\xff]")
# As many telling lines in a row are hardly there twice by chance.
ENOUGH = 2


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


def still_there(
    lines: list[bytes],
    hunks: Sequence[Hunk],
    made: list[bytes] | None,
    *,
    in_place: bool = False,
) -> bool:
    """Say whether a file has lines that the hunks remove.

    `made` is what the hunks made of the file where they applied, if that is known: what it holds
    too may stay. A block of removed lines that would say little by itself counts only beside
    its context; with `in_place` each block does.
    """
    spans = None if made is not None else _spans(lines, hunks)
    for hunk in hunks:
        for above, block, below in _removed(hunk):
            telling = sum(map(_is_telling, block))
            if made is None:
                alone = telling >= ENOUGH
            else:
                alone = telling > 0 and not occurrences(made, block)
            wanted = [block]
            if in_place or not alone:
                wanted = _with_context(above, block, below)
            for window in wanted:
                places = occurrences(lines, window)
                if spans is not None:
                    size = len(window)
                    places = [p for p in places if spans[p] < p + size]
                if len(places) > len(occurrences(made, window) if made else []):
                    return True
    return False


def _removed(hunk: Hunk) -> Iterator[tuple[list[bytes], list[bytes], list[bytes]]]:
    """Give each block of removed lines, between the context before it and after it."""
    groups = [
        (same, list(rows)) for same, rows in groupby(hunk.rows, key=lambda row: row[:1] == b" ")
    ]
    for at, (same, rows) in enumerate(groups):
        block = [row[1:] for row in rows if row[:1] == b"-"]
        if same or not block:
            continue
        above = groups[at - 1][1] if at else []
        below = groups[at + 1][1] if at + 1 < len(groups) else []
        yield [row[1:] for row in above], block, [row[1:] for row in below]


def _with_context(above: list[bytes], block: list[bytes], below: list[bytes]) -> list[list[bytes]]:
    """Return the block with its context, as far as the next telling line.

    One side is enough, as the other may have changed; not where that leaves little that tells.
    """
    up = next((n for n, x in enumerate(reversed(above), 1) if _is_telling(x)), 0)
    down = next((n for n, x in enumerate(below, 1) if _is_telling(x)), 0)
    head, tail = above[len(above) - up :], below[:down]
    if any(map(_is_telling, block)) and (head or tail):
        sides = ([*head, *block] if head else [], [*block, *tail] if tail else [])
        return [side for side in sides if side]
    return [[*(head or above), *block, *(tail or below)]]


def _is_telling(line: bytes) -> bool:
    return TELLING.search(line) is not None


def _spans(lines: list[bytes], hunks: Sequence[Hunk]) -> list[int]:
    """Return, for each line, the furthest end of what a hunk makes and begins there or before."""
    ends = [0] * (len(lines) + 1)
    for hunk in hunks:
        after = hunk.after
        for place in occurrences(lines, after):
            ends[place] = max(ends[place], place + len(after))
    return list(accumulate(ends, max))


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
    return hashlib.sha1(b"blob %d\0%s" % (len(data), data), usedforsecurity=False).hexdigest()


def shown(line: bytes | None) -> str:
    if line is None:
        return "beyond the file"
    end = "" if line.endswith(b"\n") else " without a line end"
    return repr(line.decode(errors="replace").rstrip("\n"))[:100] + end
