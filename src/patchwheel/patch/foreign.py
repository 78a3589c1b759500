"""Patches of other tools to mails with git's diffs: mboxes, quilt, DEP-3, `diff -u`, CRLF."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from patchwheel.patch.diff import DIFF, HUNK, FileDiff, Hunk, split_lines
from patchwheel.patch.file import Patch
from patchwheel.patch.headers import decode

MAIL = re.compile(rb"(?m)^From \S+ +\w{3} \w{3} +\d+ [\d:]{8} \d{4}\r?\n(?=[A-Za-z-]+:)")
MODE = (b"new file mode ", b"deleted file mode ", b"old mode ", b"new mode ")
# Said by git only, and by lines that this cannot convert.
ONLY_GIT = (b"rename from ", b"copy from ", b"GIT binary patch", b"Binary files ")
NULL = "/dev/null"
PREFIXES = (b"a/", b"b/")
NO_CONTEXT = -1
UNKNOWN = "unknown <unknown>"


@dataclass(frozen=True, kw_only=True)
class Foreign(Patch):
    """A patch whose hunks leave out `fuzz` lines of context, with an Upstream-Status if given.

    With NO_CONTEXT, one of `diff -U0` goes by its line numbers.
    """

    fuzz: int = 0
    status: str = ""

    @property
    def diffs(self) -> tuple[FileDiff, ...]:
        diffs = super().diffs
        hunks = [hunk for diff in diffs for hunk in diff.hunks]
        if self.fuzz == NO_CONTEXT and any(r[:1] == b" " for h in hunks for r in h.rows):
            return diffs
        return tuple(
            replace(diff, hunks=tuple(_trimmed(hunk, self.fuzz) for hunk in diff.hunks))
            for diff in diffs
        )

    def trailer(self, key: str) -> list[str]:
        return [self.status] if self.status and key == "Upstream-Status" else super().trailer(key)

    @property
    def message(self) -> str:
        mail = self.mail
        if not self.status:
            return mail.message
        end = "\n" if mail.trailers else "\n\n"
        return f"{mail.message.rstrip()}{end}Upstream-Status: {self.status}\n"


def split_mails(data: bytes) -> list[bytes]:
    """Split a mailbox, such as a forge gives for a pull request; what is none stays whole."""
    starts = [found.start() for found in MAIL.finditer(data)]
    return [data[a:b] for a, b in itertools.pairwise([*starts, len(data)])] or [data]


def without_crlf(data: bytes) -> Iterator[bytes]:
    """Give a patch with CRLF line ends where the files have them, and without any."""
    plain, raw = (split_lines(text) for text in (data.replace(b"\r\n", b"\n"), data))
    lines, at = list(plain), _first_diff(plain)
    while at < len(plain):
        end = _end_of_hunks(plain, at)
        # By their counts: the signature of a mail looks like a line that is removed.
        for number in range(at, end):
            if raw[number][:1] in {b" ", b"+", b"-"}:
                lines[number] = raw[number]
        at = max(end, at + 1)
    yield b"".join(lines)
    if lines != plain:
        yield b"".join(plain)


def to_git(data: bytes, name: str, known: Collection[str], strip: int | None) -> bytes:
    """Return a mail with git's diff; `known` are the files, `strip` is the -p of the patch.

    Without `strip` it is 1, or 0 where only then the files are there.
    """
    lines = split_lines(data)
    first = _first_diff(lines)
    head, rows = decode(b"".join(lines[:first])), lines[first:]
    if not (strip in {None, 1} and rows and re.match(rb'diff --git "?a/', rows[0])):
        if strip is None:
            names = (_name(row) for row in rows if row.startswith((b"--- ", b"+++ ")))
            strip = 0 if any(name in known for name in names) else 1
        rows = list(_git_diffs(rows, known, strip))
    return f"{_header(head, name)}\n\n".encode() + b"".join(rows)


def _name(line: bytes) -> str:
    return line[4:].split(b"\t")[0].strip().decode(errors="surrogateescape")


def _first_diff(lines: Sequence[bytes]) -> int:
    for number, line in enumerate(lines):
        plain = line.startswith(b"--- ") and b"".join(lines[number + 1 : number + 2])[:4] == b"+++ "
        if plain or line.startswith((b"diff -", b"Index: ")):
            return number
    return len(lines)


def _header(head: str, name: str) -> str:
    """Return a mail's head with the fields that are missing."""
    title = re.sub(r"^\d+[-_]", "", name.rpartition(".")[0] or name).replace("-", " ")
    fields = re.match(r"\s*(From |[A-Za-z-]+:)", head)
    if not fields:
        first, _, rest = head.strip().partition("\n")
        return f"From: {UNKNOWN}\nSubject: {first or title}\n\n{rest}".rstrip()
    missing = "" if re.search(r"(?im)^(from|author):", head) else f"From: {UNKNOWN}\n"
    if not re.search(r"(?im)^(subject|description):", head):
        missing += f"Subject: {title}\n"
    mbox = re.match(r"(?:From .*\n)?", head.lstrip())
    at = mbox.end() if mbox else 0
    return (head.lstrip()[:at] + missing + head.lstrip()[at:]).rstrip()


def _git_diffs(rows: list[bytes], known: Collection[str], level: int) -> Iterator[bytes]:
    modes: list[bytes] = []
    at = 0
    while at < len(rows):
        line, following = rows[at], b"".join(rows[at + 1 : at + 2])
        at += 1
        if line.startswith(ONLY_GIT):
            # Not dropped: whoever reads this refuses it.
            yield DIFF + line
        elif line.startswith(DIFF):
            modes = []
        elif line.startswith(MODE):
            modes.append(line)
        elif line.startswith(b"--- ") and following.startswith(b"+++ "):
            end = _end_of_hunks(rows, at + 1)
            hunks = [b" \n" if row == b"\n" else row for row in rows[at + 1 : end]]
            names = [_name(line), _name(following)]
            # As in GNU patch, the one that is there.
            cut = ["/".join(n.split("/")[level:]) for n in reversed(names) if n != NULL]
            there = [path for path in cut if path in known]
            first = b"".join(hunks[:1])
            if not there and first.startswith(b"@@ -0,0 "):
                names[0] = NULL
            if b"1970-01-01" in following and b" +0,0 @@" in first:
                names[1] = NULL
            yield _head(names, (there or cut or [""])[0], b"".join(modes))
            yield from hunks
            at, modes = end, []


def _head(names: Sequence[str], name: str, modes: bytes) -> bytes:
    """Return the lines above the hunks of a file."""
    path = name.encode(errors="surrogateescape")
    old, new = (
        NULL.encode() if n == NULL else p + path for n, p in zip(names, PREFIXES, strict=True)
    )
    for kind, row in zip((b"new", b"deleted"), names, strict=True):
        if row == NULL and kind + b" file" not in modes:
            modes = kind + b" file mode 100644\n"
    return b"diff --git a/%s b/%s\n%s--- %s\n+++ %s\n" % (path, path, modes, old, new)


def _end_of_hunks(rows: Sequence[bytes], at: int) -> int:
    while at < len(rows) and (found := HUNK.fullmatch(rows[at])):
        old, new = int(found[2] or 1), int(found[4] or 1)
        at += 1
        while at < len(rows) and (old > 0 or new > 0 or rows[at][:1] == b"\\"):
            old -= rows[at][:1] in {b" ", b"-", b"\n"}
            new -= rows[at][:1] in {b" ", b"+", b"\n"}
            at += 1
    return at


def _trimmed(hunk: Hunk, fuzz: int) -> Hunk:
    """Return the hunk with less context; a line of it stays on each side that has some."""
    rows = hunk.rows
    if fuzz == NO_CONTEXT:
        return replace(hunk, by_number=True)
    above = next(n for n, row in enumerate(rows) if row[:1] != b" ")
    below = next(n for n, row in enumerate(reversed(rows)) if row[:1] != b" ")
    up, down = min(fuzz, max(above - 1, 0)), min(fuzz, max(below - 1, 0))
    if not up and not down:
        return hunk
    old, new = hunk.old_start + up, hunk.new_start + up
    return replace(hunk, old_start=old, new_start=new, rows=rows[up : len(rows) - down])
