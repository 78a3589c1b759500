"""A strict parser of git's diffs: content stays bytes, and every line must be accounted for.

Not by a library: unidiff and whatthepatch read text, without modes, binary data or quoted paths.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Never

from patchwheel.kit import PatchError

DIFF = b"diff --git "
HUNK = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@(?: .*)?\n")
HEADER = re.compile(
    rb"((?:old|new|deleted file|new file) mode|(?:copy|rename) (?:from|to)"
    rb"|(?:(?:dis)?similarity )?index) (.+)\n"
)
INDEX = re.compile(r"([0-9a-f]{7,64})\.\.([0-9a-f]{7,64})(?: (\d{6}))?")
# What looks like a diff after the last hunk, as when a hunk has more lines than it says.
STRAY = re.compile(rb"[ +\\-]|@@ |diff |Index: ")
DIFFS = re.compile(rb"(---|\+\+\+) \S|@@ -|diff -|GIT binary")
MBOX = re.compile(rb"From [0-9a-f]{7,64} ")
FULL_ID = 40
# git's escapes; Python reads each of them alike.
ESCAPE = re.compile(rb'\\([0-3][0-7]{2}|[abtnvfr"\\])')
# `dev` and `export` would refuse the series as long as it is there.
IMPORT_HINT = "move the file and its line out of the series, then `patchwheel import {fork} FILE`"
CRLF_HINT = "write it with LF line ends, and put `patches/**/*.patch -text` into .gitattributes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunk:
    """`line` is its place in the patch file; `rows` keep their marker and their line end."""

    line: int
    old_start: int
    new_start: int
    rows: tuple[bytes, ...]
    # It has no context, and goes where its line numbers say.
    by_number: bool = False

    @property
    def before(self) -> list[bytes]:
        return [row[1:] for row in self.rows if row[:1] != b"+"]

    @property
    def after(self) -> list[bytes]:
        return [row[1:] for row in self.rows if row[:1] != b"-"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDiff:
    """The change of one file: `old` is None for a new file, `new` for a removed one.

    A mode is None where the patch does not name it. Paths are decoded with surrogateescape.
    """

    line: int
    old: str | None
    new: str | None
    old_mode: str | None
    new_mode: str | None
    copy: bool
    # The ids of the blobs before and after a binary change.
    binary: tuple[str, str] | None
    hunks: tuple[Hunk, ...]

    @property
    def path(self) -> str:
        return self.new or self.old or ""

    @property
    def mode(self) -> str | None:
        return self.new_mode or self.old_mode

    @property
    def paths(self) -> set[str]:
        return {path for path in (self.old, self.new) if path is not None}

    @property
    def removed(self) -> str | None:
        """The old path, if it is gone afterwards: after a removal or a rename."""
        return None if self.copy or self.old == self.new else self.old


class Cursor:
    """The lines of a patch file, and the index `at` of the next one to read."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.lines = split_lines(data)
        self.path = path
        self.at = 0

    def fail(
        self, message: str, *, line: int | None = None, expected: str = "", hint: str = IMPORT_HINT
    ) -> Never:
        """Raise PatchError for a line, by default the next one; a hint may hold `{fork}`."""
        if line is None:
            line = max(min(self.at + 1, len(self.lines)), 1)
        hint = hint.replace("{fork}", self.path.parent.name)
        raise PatchError(message, where=f"{self.path}:{line}", expected=expected, hint=hint)

    def raw(self) -> bytes:
        """Return the next line of a hunk, empty at the end."""
        return self.lines[self.at] if self.at < len(self.lines) else b""

    def peek(self) -> bytes:
        """Return the next line outside of hunks, empty at the end; refuse CRLF and a new mail."""
        line = self.raw()
        if line.endswith(b"\r\n"):
            self.fail("the patch file has CRLF line ends (autocrlf?)", hint=CRLF_HINT)
        # The first line of the file may begin its own mail.
        if self.at and MBOX.match(line):
            self.fail("a second mail starts here", expected="one patch per file")
        return line


def split_lines(data: bytes) -> list[bytes]:
    """Split at LF only, since a lone CR is content; each line keeps its end."""
    return io.BytesIO(data).readlines()


def read_diffs(cursor: Cursor) -> Iterator[FileDiff]:
    """Read all diffs, to the end of the file."""
    while cursor.peek().startswith(DIFF):
        yield _file(cursor)
    stray = STRAY
    while line := cursor.peek():
        # git ends a mail with its version, below a line of two hyphens, and lists with their own.
        if line == b"-- \n":
            stray = DIFFS
        elif stray.match(line):
            cursor.fail("this line belongs to no hunk", expected="as many as the `@@` line says")
        cursor.at += 1


def _file(cursor: Cursor) -> FileDiff:
    start, head = cursor.at + 1, cursor.peek().removeprefix(DIFF).rstrip(b"\n")
    cursor.at += 1
    headers: dict[str, bytes] = {}
    while match := HEADER.fullmatch(cursor.peek()):
        headers[match[1].decode()] = match[2]
        cursor.at += 1
    old, new = _names(cursor, start, head, headers)
    before = None if "new file mode" in headers else old
    after = None if "deleted file mode" in headers else new
    old_mode = headers.get("old mode") or headers.get("deleted file mode")
    new_mode = headers.get("new mode") or headers.get("new file mode")
    index = INDEX.fullmatch(headers.get("index", b"").decode(errors="replace"))
    binary = _binary(cursor, (index[1], index[2]) if index else ("", ""))
    hunks = () if binary else tuple(_hunks(cursor, before, after))
    if old == new and not (hunks or binary) and old_mode == new_mode:
        cursor.fail(f"the diff of {old} changes nothing", line=start)
    return FileDiff(
        line=start,
        old=before,
        new=after,
        old_mode=old_mode.decode() if old_mode else index and index[3],
        new_mode=new_mode.decode() if new_mode else None,
        copy="copy from" in headers,
        binary=binary,
        hunks=hunks,
    )


def _names(cursor: Cursor, start: int, head: bytes, headers: dict[str, bytes]) -> tuple[str, str]:
    """Return both paths, from the rename lines or the `diff --git` line."""
    for kind in ("rename", "copy"):
        if f"{kind} from" in headers and f"{kind} to" in headers:
            return _path(headers[f"{kind} from"]), _path(headers[f"{kind} to"])
    # A path may hold spaces, but both halves name the same one, and are equally long.
    half = len(head) // 2
    old, new = _path(head[:half]), _path(head[half + 1 :])
    if old[:2] != "a/" or new[:2] != "b/" or old[2:] != new[2:]:
        problem = "cannot read the paths of this diff"
        cursor.fail(problem, line=start, expected="diff --git a/PATH b/PATH")
    return old[2:], new[2:]


def _binary(cursor: Cursor, ids: tuple[str, str]) -> tuple[str, str] | None:
    """Skip the data of a binary change, which only git decodes, and return its ids."""
    line = cursor.peek()
    if line.startswith(b"Binary files "):
        expected = "a patch made with `git format-patch --binary --full-index`"
        cursor.fail("the binary change carries no data", expected=expected)
    if line != b"GIT binary patch\n":
        return None
    if min(map(len, ids)) < FULL_ID:
        cursor.fail("a binary change needs an index line with full ids")
    cursor.at += 1
    # The new content and, so that the patch can be reversed, the old one.
    for _ in range(2):
        if not re.fullmatch(rb"(literal|delta) \d+\n", cursor.peek()):
            cursor.fail("truncated binary change", expected="literal SIZE or delta SIZE")
        while cursor.peek() not in {b"\n", b""}:
            cursor.at += 1
        cursor.at += 1
    return ids


def _hunks(cursor: Cursor, old: str | None, new: str | None) -> Iterator[Hunk]:
    if not cursor.peek().startswith(b"--- "):
        return
    for marker, prefix, path in (("--- ", "a/", old), ("+++ ", "b/", new)):
        line = cursor.peek()
        expected = "/dev/null" if path is None else prefix + path
        # git ends a path that holds a space with a tab.
        name = _path(line[4:].rstrip(b"\n").removesuffix(b"\t"))
        if not line.startswith(marker.encode()) or name != expected:
            problem = f"the {marker}line names another path than the `diff --git` line"
            cursor.fail(problem, expected=marker + expected)
        cursor.at += 1
    if not cursor.peek().startswith(b"@@ "):
        cursor.fail("truncated: no hunk follows", expected="@@ -LINE,COUNT +LINE,COUNT @@")
    while cursor.raw().startswith(b"@@ "):
        yield _hunk(cursor)


def _hunk(cursor: Cursor) -> Hunk:
    start = cursor.at + 1
    head = HUNK.fullmatch(cursor.peek())
    if not head:
        cursor.fail("not a hunk", expected="@@ -LINE,COUNT +LINE,COUNT @@")
    cursor.at += 1
    old, new = int(head[2] or 1), int(head[4] or 1)
    rows: list[bytes] = []
    while old > 0 or new > 0 or cursor.raw().startswith(b"\\"):
        # Some mailers strip the blank of an empty context line.
        line = b" \n" if cursor.raw() == b"\n" else cursor.raw()
        mark = line[:1]
        if mark == b"\\" and rows:
            rows[-1] = rows[-1].removesuffix(b"\n")
        elif mark and mark in b" +-" and line.endswith(b"\n"):
            rows.append(line)
            old -= mark != b"+"
            new -= mark != b"-"
        else:
            cursor.fail("its hunk is truncated, or the counts are wrong", line=start)
        cursor.at += 1
        if old < 0 or new < 0:
            cursor.fail("the counts of the hunk are wrong", line=start)
    if all(row[:1] == b" " for row in rows):
        cursor.fail("the hunk changes nothing", line=start)
    return Hunk(line=start, old_start=int(head[1]), new_start=int(head[3]), rows=tuple(rows))


def _path(name: bytes) -> str:
    """Decode a path, which git quotes where it holds special characters."""
    if name.startswith(b'"') and name.endswith(b'"') and len(name) > 1:
        unescaped = ESCAPE.sub(
            lambda found: found[0].decode("unicode_escape").encode("latin-1"), name
        )
        name = unescaped[1:-1]
    return name.decode(errors="surrogateescape")
