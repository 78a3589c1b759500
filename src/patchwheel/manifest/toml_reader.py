"""Narrows raw TOML to the values that were expected; what is wrong is named with its key and line."""

from __future__ import annotations

import difflib
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Never

from patchwheel.kit.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class TomlReader:
    """The text of one file; `at` is the path of a key in it, and nothing behind a reader sees a dict."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text

    def mapping(self, table: dict[str, object], at: tuple[str, ...], key: str) -> Mapping[str, str]:
        raw = self.table(table, at, key)
        return MappingProxyType({k: self.string(raw, (*at, key), k) for k in raw})

    def known(self, table: dict[str, object], at: tuple[str, ...], keys: Sequence[str]) -> None:
        for key in table:
            if key not in keys:
                self.fail(
                    (*at, key),
                    f"is not a key here{near(key, keys)}",
                    f"one of {', '.join(keys)}",
                )

    def table(
        self,
        table: dict[str, object],
        at: tuple[str, ...],
        key: str,
        *,
        required: bool = False,
    ) -> dict[str, object]:
        value = table.get(key)
        if value is None and not required:
            return {}
        if not isinstance(value, dict):
            self.fail((*at, key), "is missing" if value is None else "is no table")
        return value

    def string(
        self,
        table: dict[str, object],
        at: tuple[str, ...],
        key: str,
    ) -> str:
        value = table.get(key)
        if not isinstance(value, str) or not value:
            self.fail(
                (*at, key),
                "is missing" if value is None else f"is {value!r}",
                "a string that is not empty",
            )
        return value

    def optional(self, table: dict[str, object], at: tuple[str, ...], key: str) -> str | None:
        return self.string(table, at, key) if key in table else None

    def strings(self, table: dict[str, object], at: tuple[str, ...], key: str) -> tuple[str, ...]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            self.fail((*at, key), f"is {value!r}", "a list of strings")
        return tuple(value)

    def match(
        self, value: str, at: tuple[str, ...], pattern: re.Pattern[str], expected: str
    ) -> str:
        if not pattern.fullmatch(value):
            self.fail(at, f"is {value!r}", expected)
        return value

    def fail(self, at: tuple[str, ...], problem: str, expected: str | None = None) -> Never:
        line = line_of(self.text, at)
        raise ManifestError(
            f"{'.'.join(at)} {problem}",
            where=f"{self.path}:{line}" if line else self.path,
            expected=expected,
            hint="correct the manifest; its keys are described in docs/reference/manifest.md",
        )


def line_of(text: str, at: Sequence[str]) -> int | None:
    """Find the line of a key path in TOML text, the deepest part of it that can be seen."""
    table: tuple[str, ...] = ()
    best, found = 0, None
    for number, line in enumerate(text.splitlines(), 1):
        if head := re.match(r"\s*\[([^\[\]]+)\]\s*(#.*)?$", line):
            seen = table = _parts(head[1])
        elif key := re.match(r"\s*([A-Za-z0-9_\"'.-]+)\s*=", line):
            seen = (*table, *_parts(key[1]))
            # An inline table shows its keys on the same line.
            inside = at[len(seen) : len(seen) + 1]
            seen = (*seen, *(part for part in inside if part in line))
        else:
            continue
        depth = min(len(seen), len(at))
        if depth > best and tuple(at[:depth]) == seen[:depth]:
            best, found = depth, number
    return found


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in key.split("."))


def near(word: str, words: Sequence[str]) -> str:
    """Return a question whether one of `words` was meant, or nothing."""
    close = difflib.get_close_matches(word, words, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
