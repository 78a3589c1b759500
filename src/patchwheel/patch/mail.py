"""A patch file: the header and message of its mail, and the diffs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from patchwheel.patch import dep3
from patchwheel.patch.diff import (
    EXPORT_HINT,
    MBOX,
    SPLIT_HINT,
    Cursor,
    FileDiff,
    read_diffs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Never

STAT = re.compile(
    rb"\s*(|\S.* \|\s+(\d+ ?[+-]*|Bin.*)|\d+ files? changed.*|(create|delete) mode \d+ .*"
    rb"|(rename|copy) .* \(\d+%\)|mode change \d+ => \d+.*)\s*"
)
PLAIN_HINT = "`git apply` takes it in `patchwheel dev {fork}`; commit it there and `patchwheel export {fork}`"
TRAILER = re.compile(r"([A-Za-z0-9]+(?:-[A-Za-z0-9]+)*): *(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """`when` is git's raw date; `message` is a commit's: the subject, an empty line and the body."""

    author: str
    address: str
    when: str
    subject: str
    message: str
    trailers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A patch file; without slots, since its parts are parsed when they are first asked for."""

    name: str
    path: Path
    sha256: str
    data: bytes = field(repr=False)

    @property
    def fork(self) -> str:
        return self.path.parent.name

    @cached_property
    def mail(self) -> Mail:
        return self._parsed[0]

    @cached_property
    def diffs(self) -> tuple[FileDiff, ...]:
        return self._parsed[1]

    @cached_property
    def _parsed(self) -> tuple[Mail, tuple[FileDiff, ...]]:
        cursor = Cursor(self.path, self.data)
        return _mail(cursor), tuple(read_diffs(cursor))

    def trailer(self, key: str) -> list[str]:
        return [v for k, v in self.mail.trailers if k.lower() == key.lower()]

    def fail(
        self,
        message: str,
        *,
        line: int = 1,
        expected: str | None = None,
        hint: str = EXPORT_HINT,
    ) -> Never:
        Cursor(self.path, b"").fail(message, line=line, expected=expected, hint=hint)


def _mail(cursor: Cursor) -> Mail:
    if not any(line.strip() for line in cursor.lines):
        cursor.fail("the patch is empty")
    fields = _headers(cursor)
    head = {name.lower(): _unfolded(value) for name, value in fields}
    subject, text = dep3.description(next((v for n, v in fields if n.lower() == "description"), ""))
    head = {
        "from": head.get("author", ""),
        "date": head.get("last-update", ""),
        "subject": subject,
        **head,
    }
    for key in ("from", "date", "subject"):
        if not head.get(key):
            cursor.fail(
                f"the mail has no {key.title()}: header",
                line=1,
                expected="a patch in git's mail format",
            )
    encoding = head.get("content-transfer-encoding", "8bit").lower()
    if encoding not in {"7bit", "8bit", "binary"} or "multipart" in head.get("content-type", ""):
        cursor.fail("the mail is encoded", line=1, expected="plain text, 8bit")
    from email.utils import parseaddr

    author, address = parseaddr(head["from"])
    if not address or not author or set(author + address) & set("<>\n"):
        cursor.fail(
            f"cannot read an author from {head['from']!r}",
            line=1,
            expected="From: Name <address>",
        )
    subject = re.sub(r"^\[PATCH[^\]]*\] *", "", head["subject"])
    body = "\n".join([text, "", *_body(cursor)]).strip("\n")
    # What a mail says of itself stays with the message, which is all that a commit has.
    more = [f"{n}: {_unfolded(v)}" for n, v in fields if dep3.FIELD.fullmatch(n)]
    gap = "\n" if any(_trailers(body)) else "\n\n"
    body = gap.join(filter(None, [body, "\n".join(more)]))
    return Mail(
        author=author,
        address=address,
        when=_date(cursor, head["date"]),
        subject=subject,
        message=f"{subject}\n\n{body}\n" if body else f"{subject}\n",
        trailers=_with_status(body),
    )


def _with_status(body: str) -> tuple[tuple[str, str], ...]:
    """Return the trailers of a message; without an Upstream-Status, one for what DEP-3 fields say anywhere."""
    found = tuple(_trailers(body))
    if any(key.lower() == "upstream-status" for key, _ in found):
        return found
    fields = [pair for part in body.split("\n\n") for pair in _trailers(part)]
    status = dep3.upstream_status(fields)
    return (*found, ("Upstream-Status", status)) if status else found


def _headers(cursor: Cursor) -> list[tuple[str, str]]:
    """Read names and values, folded lines as lines, to an empty line or to the `---` of Debian's headers."""
    found: list[tuple[str, str]] = []
    if cursor.peek().startswith(b"From "):
        cursor.at += 1
    while (line := _text(cursor)) and line != "---":
        name, colon, value = line.partition(":")
        if line[0] in " \t" and found:
            found[-1] = (found[-1][0], f"{found[-1][1]}\n{line[1:]}")
        elif colon and re.fullmatch(r"[A-Za-z0-9-]+", name):
            found.append((name, value.strip()))
        else:
            cursor.fail("this is no mail header", expected="a patch in git's mail format")
        cursor.at += 1
    cursor.at += 1
    return found


def _unfolded(value: str) -> str:
    from email.header import decode_header, make_header

    value = re.sub(r"\n\s*", " ", value)
    return str(make_header(decode_header(value))) if "=?" in value else value


def _text(cursor: Cursor) -> str:
    try:
        return cursor.peek().decode().rstrip("\n")
    except UnicodeDecodeError:
        cursor.fail(
            "the mail is not UTF-8",
            hint="if it is Latin-1, `git am` in `patchwheel dev {fork}` reads it; else convert the header and the "
            "message, not the diff, to UTF-8",
        )


def _date(cursor: Cursor, value: str) -> str:
    from email.utils import mktime_tz, parsedate_tz

    date = parsedate_tz(dep3.date(value))
    if date is None:
        cursor.fail(f"cannot read the date {value!r}", line=1)
    east = (date[9] or 0) // 60
    sign = "-" if east < 0 else "+"
    return f"{mktime_tz(date)} {sign}{abs(east) // 60:02}{abs(east) % 60:02}"


def _body(cursor: Cursor) -> Iterator[str]:
    while line := cursor.peek():
        if line.startswith(b"diff --git "):
            return
        if line.rstrip() == b"---" and (diffs := _after_statistics(cursor)):
            cursor.at = diffs
            return
        _check_line(cursor, line)
        # mboxrd: a line `From …` of the message was given one more `>`.
        yield re.sub(r"^>(>*From )", r"\1", _text(cursor))
        cursor.at += 1
    cursor.fail("the patch holds no diff")


def _check_line(cursor: Cursor, line: bytes) -> None:
    if MBOX.match(line):
        cursor.fail("a second mail starts here", expected="one patch per file", hint=SPLIT_HINT)
    following = b"".join(cursor.lines[cursor.at + 1 : cursor.at + 2])
    if line.startswith(b"--- ") and following.startswith(b"+++ "):
        cursor.fail("this is no git diff", expected="diff --git a/PATH b/PATH", hint=PLAIN_HINT)
    if re.match(rb"Binary files .* differ$", line):
        cursor.fail("this is no git diff, and it carries no data")
    if re.match(rb"diff -|Index: |--- \S|@@ -\d", line):
        cursor.fail(
            "git takes this line of the message for a diff",
            hint="indent the line, or word it otherwise",
        )


def _after_statistics(cursor: Cursor) -> int | None:
    """Return where the diffs begin if only statistics lie between: else a line `---` belongs to the message."""
    for at, line in enumerate(cursor.lines[cursor.at + 1 :], cursor.at + 1):
        if line.startswith(b"diff --git "):
            return at
        if not STAT.fullmatch(line):
            break
    return None


def _trailers(body: str) -> Iterator[tuple[str, str]]:
    """Read the last paragraph, if it consists of trailers."""
    lines = body.rpartition("\n\n")[2].split("\n")
    found: list[tuple[str, str]] = []
    for line in lines:
        if trailer := TRAILER.fullmatch(line):
            found.append((trailer[1], trailer[2].strip()))
        elif line[:1] in {" ", "\t"} and found:
            key, value = found.pop()
            found.append((key, f"{value} {line.strip()}".strip()))
        elif not line.startswith("(cherry picked from commit "):
            return
    yield from found
