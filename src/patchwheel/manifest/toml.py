"""Where a key stands in TOML text, and which known word a misspelt one is close to."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TABLE = re.compile(r"\s*\[([^\[\]]+)\]\s*(#.*)?$")
KEY = re.compile(r"\s*([A-Za-z0-9_\"'.-]+)\s*=")


def line_of(text: str, at: Sequence[str]) -> int | None:
    """Return the line of a path of keys, or of the longest part of it that can be seen."""
    table: tuple[str, ...] = ()
    depth, line = 0, None
    # tomllib keeps no positions, so lines are matched, as far as people write them.
    for number, row in enumerate(text.splitlines(), 1):
        if head := TABLE.match(row):
            seen = table = _parts(head[1])
        elif key := KEY.match(row):
            seen = (*table, *_parts(key[1]))
            # An inline table shows its keys on the same line.
            inside = at[len(seen) : len(seen) + 1]
            seen = (*seen, *(part for part in inside if part in row))
        else:
            continue
        shared = min(len(seen), len(at))
        if shared > depth and tuple(at[:shared]) == seen[:shared]:
            depth, line = shared, number
    return line


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in key.split("."))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question to append to the message about an unknown word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
