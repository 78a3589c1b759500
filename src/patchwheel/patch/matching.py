"""Where the lines of a hunk are in a file, by the rules of `git apply` without fuzz.

Stricter in one thing: a hunk that ends without a line end does not match a line that has one.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from patchwheel.patch.diff import Hunk

# Blank lines and lone brackets are everywhere.
SIGNIFICANT = re.compile(rb"[\w\x80-\xff]")
# That many significant lines in a row are hardly in a file twice by chance.
ENOUGH = 2
COMMON = 100


def match_places(lines: list[bytes], hunk: Hunk, written: bytearray) -> list[int]:
    """Return the 0-based places at which git would let the hunk match.

    `written` marks the lines that earlier hunks of the patch wrote.
    """
    before, expected = hunk.before, expected_place(hunk)
    size = len(before)
    places = occurrences(lines, before)
    if hunk.by_number and not before:
        places = [expected] if expected <= len(lines) else []
    # git holds a hunk without context on one side to that end of the file.
    if hunk.old_start <= 1 and not hunk.by_number:
        places = [p for p in places if p == 0]
    if hunk.rows[-1][:1] != b" " and not hunk.by_number:
        places = [p for p in places if p + size == len(lines)]
    return [p for p in places if written.find(1, p, p + size) < 0]


def expected_place(hunk: Hunk) -> int:
    """Return the 0-based line at which a hunk says that it is."""
    # Of no lines, the number is that of the line before them.
    return max(hunk.new_start - bool(hunk.after), 0)


def occurrences(lines: list[bytes], block: list[bytes]) -> list[int]:
    """Return where the block occurs in the lines; an empty one is at the beginning."""
    if not block:
        return [0]
    # Knuth, Morris and Pratt: where lines repeat, comparing anew from each would take the square.
    fall, matched = [0], 0
    for line in block[1:]:
        while matched and line != block[matched]:
            matched = fall[matched - 1]
        matched += line == block[matched]
        fall.append(matched)
    places, at, matched = [], 0, 0
    with contextlib.suppress(ValueError):
        while matched == 0 or at < len(lines):
            # list.index is much faster than a loop in Python over all lines.
            at = at if matched else lines.index(block[0], at)
            if lines[at] != block[matched]:
                matched = fall[matched - 1]
                continue
            at, matched = at + 1, matched + 1
            if matched == len(block):
                places.append(at - matched)
                matched = fall[-1]
    return places


def nearest(lines: list[bytes], block: list[bytes]) -> tuple[int, int] | None:
    """Return where most lines of the block are equal, and how many, or None if none is."""
    places: dict[bytes, list[int]] = {line: [] for line in block if line.strip()}
    for at, line in enumerate(lines):
        if line in places:
            places[line].append(at)
    # A line that is everywhere tells little.
    votes = Counter(
        at - index for index, line in enumerate(block) for at in places.get(line, ())[:COMMON]
    )
    if not votes:
        return None
    start = max(votes, key=lambda place: (votes[place], -place))
    pairs = zip(block[max(-start, 0) :], lines[max(start, 0) :], strict=False)
    return start, sum(expected == line for expected, line in pairs)


def has_removed_lines(
    lines: list[bytes], hunks: Sequence[Hunk], result: list[bytes] | None, *, in_place: bool = False
) -> bool:
    """Whether a file has lines that the hunks remove.

    `result` is what the hunks made of the file where they applied, if known: lines that it has
    too may stay. A block of removed lines that would say little by itself counts only beside
    its context; with `in_place` each block does.
    """
    enough = ENOUGH if result is None else 1
    # Lines that the hunks themselves make are meant to be there in any case.
    made = [line for hunk in hunks for line in hunk.after] if result is None else result
    for above, block, below in itertools.chain.from_iterable(map(_removed_blocks, hunks)):
        significant = len(list(filter(SIGNIFICANT.search, block)))
        suffices = significant >= enough and not (in_place or occurrences(made, block))
        for window in [block] if suffices else _with_context(above, block, below):
            if len(occurrences(lines, window)) > len(occurrences(made, window)):
                return True
    return False


def _removed_blocks(hunk: Hunk) -> Iterator[tuple[list[bytes], list[bytes], list[bytes]]]:
    """Give each block of removed lines, between the context before it and after it."""
    changes = itertools.groupby(hunk.rows, key=lambda row: row[:1] == b" ")
    groups = [[], *(list(rows) for _, rows in changes), []]
    for above, rows, below in zip(groups, groups[1:], groups[2:], strict=False):
        if block := [row[1:] for row in rows if row[:1] == b"-"]:
            yield [row[1:] for row in above], block, [row[1:] for row in below]


def _with_context(above: list[bytes], block: list[bytes], below: list[bytes]) -> list[list[bytes]]:
    """Return the block with its context, as far as the next significant line.

    One side is enough, since the other may have changed, but not where the block is insignificant.
    """
    up = next((n for n, x in enumerate(reversed(above), 1) if SIGNIFICANT.search(x)), 0)
    down = next((n for n, x in enumerate(below, 1) if SIGNIFICANT.search(x)), 0)
    head, tail = above[len(above) - up :], below[:down]
    if any(map(SIGNIFICANT.search, block)) and (head or tail):
        return ([[*head, *block]] if head else []) + ([[*block, *tail]] if tail else [])
    return [[*(head or above), *block, *(tail or below)]]


def shown_line(line: bytes | None) -> str:
    """Return a line as a message quotes it; None is a line after the last one."""
    if line is None:
        return "beyond the file"
    end = "" if line.endswith(b"\n") else " without a line end"
    return repr(line.decode(errors="replace").rstrip("\n"))[:100] + end
