"""A patch file: the header and the message of its mail, and its diffs.

Debian's patches are read too: the fields of DEP-3 stand for the headers and the trailers of git.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from email.errors import MessageError
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING

from patchwheel.patch.diff import DIFF, Cursor, FileDiff, read_diffs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import Never

STATISTICS = re.compile(
    rb"|\S.* \|\s+(\d+ ?[+-]*|Bin.*)|\d+ files? changed.*|(create|delete) mode \d+ .*"
    rb"|(rename|copy) .* \(\d+%\)|mode change \d+ => \d+.*"
)
TRAILER = re.compile(r"([A-Za-z0-9]+(?:-[A-Za-z0-9]+)*): *(.*)")
# DEP-3 fields that have no place in git's header.
DEP3_FIELD = re.compile(
    r"(?i)origin|bug(-[a-z0-9]+)*|forwarded|applied-upstream|(reviewed|acked)-by|last-update"
)
URL = re.compile(r"(https?://[^\s,\]>]+)")
COMMIT = re.compile(r"\bcommit[: ]\s*([0-9a-f]{7,40})\b")
# The email package takes time that grows with the square of a header's length.
MAX_HEADER = 10_000
MAIL_FORMAT = "a patch in git's mail format"
PLAIN_DIFF_HINT = "`git apply` takes it in `patchwheel dev {fork}`; commit it there, then export"
UTF8_HINT = (
    "if it is Latin-1, `git am` in `patchwheel dev {fork}` reads it; "
    "else convert the header and the message, not the diff, to UTF-8"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """What becomes a commit: `author` is a name and an address, `when` is git's raw date."""

    author: str
    when: str
    subject: str
    message: str
    trailers: tuple[tuple[str, str], ...]


# Without slots: cached_property needs a __dict__.
@dataclass(frozen=True, kw_only=True)
class Patch:
    """A patch file, or what becomes one; to access its mail and diffs may raise PatchError."""

    path: Path
    data: bytes = field(repr=False)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def fork(self) -> str:
        return self.path.parent.name

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def mail(self) -> Mail:
        return self._parsed[0]

    @property
    def diffs(self) -> tuple[FileDiff, ...]:
        return self._parsed[1]

    @cached_property
    def _parsed(self) -> tuple[Mail, tuple[FileDiff, ...]]:
        cursor = Cursor(self.path, self.data)
        try:
            mail = _read_mail(cursor)
        # The email package raises all of these for a header that it cannot read.
        except (MessageError, LookupError, ValueError, OverflowError, RecursionError) as err:
            cursor.fail(f"cannot read its headers: {err}", line=1, expected=MAIL_FORMAT)
        diffs = tuple(read_diffs(cursor))
        if not diffs:
            cursor.fail("the patch holds no diff")
        return mail, diffs

    def trailer(self, key: str) -> list[str]:
        """Return the values of all trailers with this key, in any case."""
        return [v for k, v in self.mail.trailers if k.lower() == key.lower()]

    def fail(self, message: str, *, line: int = 1, **details: str) -> Never:
        """Raise PatchError for a line of the file; see Cursor.fail."""
        Cursor(self.path, b"").fail(message, line=line, **details)


def paths_of(patches: Iterable[Patch]) -> set[str]:
    """Return all paths that some patches name, old and new."""
    return {path for patch in patches for diff in patch.diffs for path in diff.paths}


def upstream_status(fields: Iterable[tuple[str, str]]) -> str | None:
    """Translate DEP-3 fields to the value of an Upstream-Status; None if they do not tell."""
    values = {key.lower(): value for key, value in fields}
    origin = re.match(r"(?i)((?:upstream|backport).*)?", values.get("origin", ""))
    for value in (values.get("applied-upstream"), origin and origin[1]):
        if value and (source := URL.search(value) or COMMIT.search(value)):
            return f"Backport [{source[1]}]"
    match values.get("forwarded", ""):
        case "no":
            return "Pending"
        case "not-needed":
            return "Inappropriate [not-needed]"
        case forwarded:
            url = URL.search(values.get("bug", "") if forwarded == "yes" else forwarded)
            return f"Submitted [{url[1]}]" if url else None


def _read_mail(cursor: Cursor) -> Mail:
    from email.utils import parseaddr

    if not any(line.strip() for line in cursor.lines):
        cursor.fail("the patch is empty")
    fields = _read_headers(cursor)
    header, text = _git_header(cursor, fields)
    if len(header["from"]) > MAX_HEADER:
        cursor.fail(f"its author has more than {MAX_HEADER:,} characters", line=1)
    author, address = parseaddr(header["from"])
    if not address or not author or set(author + address) & set("<>\n"):
        problem = f"cannot read an author from {header['from']!r}"
        cursor.fail(problem, line=1, expected="From: Name <address>")
    # Only git's own prefix: other brackets belong to the subject.
    subject = re.sub(r"^\[PATCH[^\]]*\] *", "", header["subject"])
    body = "\n".join([text, "", *_read_body(cursor)]).strip("\n")
    # A commit has no room for other fields than its message.
    kept = [f"{name}: {_decoded(value)}" for name, value in fields if DEP3_FIELD.fullmatch(name)]
    separator = "\n" if _trailers(body) else "\n\n"
    body = separator.join(filter(None, [body, "\n".join(kept)]))
    trailers = _trailers(body)
    # A note may follow the fields, so that they are not the last paragraph.
    pairs = [pair for paragraph in body.split("\n\n") for pair in _trailers(paragraph)]
    known = any(key.lower() == "upstream-status" for key, _ in trailers)
    if not known and (status := upstream_status(pairs)):
        trailers.append(("Upstream-Status", status))
    return Mail(
        author=f"{author} <{address}>",
        when=_date(cursor, header["date"]),
        subject=subject,
        message=f"{subject}\n\n{body}\n" if body else f"{subject}\n",
        trailers=tuple(trailers),
    )


def _read_headers(cursor: Cursor) -> list[tuple[str, str]]:
    """Read names and values to an empty line or Debian's `---`; a folded value keeps its lines."""
    # Not by email.parser: it takes a line that is no header for the end of the headers, and reads
    # raw UTF-8 as an unknown encoding. Each line has to be checked here anyway.
    fields: list[tuple[str, list[str]]] = []
    if cursor.peek().startswith(b"From "):
        cursor.at += 1
    while (line := _text(cursor)) and line != "---":
        name, colon, value = line.partition(":")
        if line[0] in " \t" and fields:
            fields[-1][1].append(line[1:])
        elif colon and re.fullmatch(r"[A-Za-z0-9-]+", name):
            fields.append((name, [value.strip()]))
        else:
            cursor.fail("this is no mail header", expected=MAIL_FORMAT)
        cursor.at += 1
    cursor.at += 1
    return [(name, "\n".join(rows)) for name, rows in fields]


def _git_header(cursor: Cursor, fields: list[tuple[str, str]]) -> tuple[dict[str, str], str]:
    """Return the fields, DEP-3's under git's names, and the text of a Description."""
    header = {name.lower(): _decoded(value) for name, value in fields}
    description = next((value for name, value in fields if name.lower() == "description"), "")
    header["description"], _, text = description.partition("\n")
    dep3 = {"from": "author", "date": "last-update", "subject": "description"}
    for key, field_name in dep3.items():
        if not header.setdefault(key, header.get(field_name, "")):
            cursor.fail(f"the mail has no {key.title()}: header", line=1, expected=MAIL_FORMAT)
    encoding = header.get("content-transfer-encoding", "8bit").lower()
    multipart = "multipart" in header.get("content-type", "")
    if multipart or encoding not in {"7bit", "8bit", "binary"}:
        cursor.fail("the mail is encoded", line=1, expected="plain text, 8bit")
    # A line with a dot stands for an empty one.
    return header, re.sub(r"(?m)^\.$", "", text)


def _date(cursor: Cursor, value: str) -> str:
    """Return git's raw date; a Last-Update of DEP-3 is a day only."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    is_day = re.fullmatch(r"\d{4}-\d\d-\d\d", value)
    try:
        date = datetime.fromisoformat(value) if is_day else parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        cursor.fail(f"cannot read the date {value!r}", line=1)
    # A date without a zone, or in the zone -0000, is UTC.
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return f"{int(date.timestamp())} {date:%z}"


def _decoded(value: str) -> str:
    """Unfold a header's value and decode its RFC 2047 words."""
    from email.header import decode_header, make_header

    value = re.sub(r"\n\s*", " ", value)
    if "=?" not in value:
        return value
    if len(value) > MAX_HEADER:
        raise ValueError(f"encoded words in more than {MAX_HEADER:,} characters")
    return str(make_header(decode_header(value)))


def _text(cursor: Cursor) -> str:
    try:
        return cursor.peek().decode().rstrip("\n")
    except UnicodeDecodeError:
        cursor.fail("the mail is not UTF-8", hint=UTF8_HINT)


def _read_body(cursor: Cursor) -> Iterator[str]:
    """Read the lines of the message, up to the first diff or the statistics above it."""
    rows = takewhile(lambda row: not row.startswith(DIFF), cursor.lines[cursor.at :])
    first = end = cursor.at + len(list(rows))
    # Nothing but statistics stands between the last `---` and the first diff.
    while end > cursor.at and STATISTICS.fullmatch(cursor.lines[end - 1].strip()):
        end -= 1
    cut = end > cursor.at and cursor.lines[end - 1].rstrip() == b"---"
    end = end - 1 if cut else first
    while cursor.at < end:
        line = cursor.peek()
        _check_line(cursor, line)
        # In the mboxrd format, a line `From …` of the message has one more `>`.
        yield re.sub(r"^>(>*From )", r"\1", _text(cursor))
        cursor.at += 1
    cursor.at = first


def _check_line(cursor: Cursor, line: bytes) -> None:
    following = b"".join(cursor.lines[cursor.at + 1 : cursor.at + 2])
    if line.startswith(b"--- ") and following.startswith(b"+++ "):
        expected = "diff --git a/PATH b/PATH"
        cursor.fail("this is no git diff", expected=expected, hint=PLAIN_DIFF_HINT)
    if re.match(rb"Binary files .* differ$", line):
        cursor.fail("this is no git diff, and it carries no data")
    if re.match(rb"diff -|Index: |--- \S|@@ -\d", line):
        cursor.fail("git takes this line of the message for a diff", hint="indent or reword it")


def _trailers(body: str) -> list[tuple[str, str]]:
    """Read the last paragraph, if it consists of trailers."""
    trailers: list[tuple[str, list[str]]] = []
    for line in body.rpartition("\n\n")[2].split("\n"):
        if trailer := TRAILER.fullmatch(line):
            trailers.append((trailer[1], [trailer[2].strip()]))
        elif line[:1] in {" ", "\t"} and trailers:
            trailers[-1][1].append(line.strip())
        elif not line.startswith("(cherry picked from commit "):
            return []
    return [(key, " ".join(rows).strip()) for key, rows in trailers]
