"""Reads patch files: the header and the message of the mail, and the diffs.

Debian's patches are read too: the fields of DEP-3 stand for the headers and the trailers of git.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.errors import MessageError
from typing import TYPE_CHECKING

from patchwheel.patch import headers
from patchwheel.patch.diff import DIFF, Cursor, FileDiff, read_diffs

if TYPE_CHECKING:
    from patchwheel.patch.file import Patch

TRAILER = re.compile(r"([A-Za-z0-9-]+)[ \t]*:(.*)")
# With one of these, a block of trailers may hold other lines, up to three for each.
BY_GIT = ("Signed-off-by: ", "(cherry picked from commit ")
IN_BODY = re.compile(r"(?i)(from|subject|date): *(.*)")
# `git am` decodes such mails; git apply does not.
ENCODED = rb"(?im)^content-(transfer-encoding:\s*(base64|quoted-printable)|type:\s*multipart/)"
CHARSET = re.compile(r"""(?i)charset\s*=\s*["']?([^\s"';]+)""")
# DEP-3 fields that have no place in git's header.
DEP3_FIELD = re.compile(
    r"(?i)origin|bug(-[a-z0-9]+)*|forwarded|applied-upstream|(reviewed|acked)-by|last-update"
)
URL = re.compile(r"(https?://[^\s,\]>]+)")
COMMIT = re.compile(r"\bcommit[: ]\s*([0-9a-f]{7,40})\b")
# What follows such a line is not for the commit.
NOTES = "---"
MAIL_FORMAT = "a patch in git's mail format"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """What becomes a commit: `author` is a name and an address, `when` is git's raw date."""

    author: str
    when: str
    subject: str
    message: str
    trailers: tuple[tuple[str, str], ...]


def read_patch(patch: Patch) -> tuple[Mail, tuple[FileDiff, ...]]:
    """Return the mail and the diffs of a patch; raises PatchError."""
    cursor = Cursor(patch.path, patch.data)
    try:
        cursor = Cursor(patch.path, patch.plain)
        mail = _read_mail(cursor)
    # The email package raises all of these for a header that it cannot read.
    except (MessageError, LookupError, ValueError, OverflowError, RecursionError) as err:
        cursor.fail(f"cannot read its headers: {err}", line=1, expected=MAIL_FORMAT)
    diffs = tuple(read_diffs(cursor))
    if not diffs:
        cursor.fail("the patch holds no diff")
    return mail, diffs


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
    fields = _read_headers(cursor)
    header = {name.lower(): headers.unfold(value) for name, value in fields}
    description = next((value for name, value in fields if name.lower() == "description"), "")
    header["description"], _, text = description.partition("\n")
    charset = CHARSET.search(header.get("content-type", ""))
    body = list(_read_body(cursor, charset[1] if charset else ""))
    header |= _take_headers(body)
    body = _without_notes(body)
    author, when, subject = _git_header(cursor, header)
    # A line with a dot stands for an empty one in a Description.
    body = _strip([*re.sub(r"(?m)^\.$", "", text).split("\n"), "", *body])
    if not subject:
        subject, _, rest = "\n".join(body).partition("\n\n")
        subject, body = subject.replace("\n", " "), rest.split("\n")
    # A commit has no room for other fields than its message.
    kept = [
        f"{name}: {headers.unfold(value)}" for name, value in fields if DEP3_FIELD.fullmatch(name)
    ]
    message = "\n".join(body)
    separator = "\n" if _trailers(message) else "\n\n"
    message = separator.join(filter(None, [message, "\n".join(kept)]))
    return Mail(
        author=author,
        when=when,
        subject=subject,
        message=f"{subject}\n\n{message}\n" if message else f"{subject}\n",
        trailers=_all_trailers(message),
    )


def _all_trailers(message: str) -> tuple[tuple[str, str], ...]:
    """Return the trailers, and the Upstream-Status that stands in fields of DEP-3."""
    trailers = _trailers(message)
    # A note may follow the fields, so that they are not the last paragraph.
    pairs = [pair for paragraph in message.split("\n\n") for pair in _trailers(paragraph)]
    known = any(key.lower() == "upstream-status" for key, _ in trailers)
    if not known and (status := upstream_status(pairs)):
        trailers.append(("Upstream-Status", status))
    return tuple(trailers)


def _read_headers(cursor: Cursor) -> list[tuple[str, str]]:
    """Read names and values to an empty line or Debian's `---`; a folded value keeps its lines."""
    # Not by email.parser: it takes a line that is no header for the end of the headers, and reads
    # raw UTF-8 as an unknown encoding. Each line has to be checked here anyway.
    fields: list[tuple[str, list[str]]] = []
    while cursor.at < len(cursor.lines) and not cursor.lines[cursor.at].strip():
        cursor.at += 1
    if cursor.at == len(cursor.lines):
        cursor.fail("the patch is empty", line=1)
    if re.match(rb">?From ", cursor.peek()):
        cursor.at += 1
    while (line := headers.decode(cursor.peek()).rstrip("\r\n")) and line != "---":
        name, colon, value = line.partition(":")
        if line[0] in " \t" and fields:
            fields[-1][1].append(line[1:])
        elif colon and re.fullmatch(r"[!-~]+", name):
            fields.append((name, [value.strip()]))
        elif any(name.lower() in {"from", "author"} for name, _ in fields):
            # As in git, the message begins here.
            cursor.at -= 1
            break
        else:
            cursor.fail("this is no mail header", expected=MAIL_FORMAT)
        cursor.at += 1
    cursor.at += 1
    return [(name, "\n".join(rows)) for name, rows in fields]


def _git_header(cursor: Cursor, header: dict[str, str]) -> tuple[str, str, str]:
    """Return author, date and subject; DEP-3's fields stand for git's."""
    names = {"from": "author", "date": "last-update", "subject": "description"}
    said = {name: header.get(name) or header.get(dep3, "") for name, dep3 in names.items()}
    if not said["from"]:
        cursor.fail("the mail has no From: header", line=1, expected=MAIL_FORMAT)
    if len(said["from"]) > headers.MAX_HEADER:
        cursor.fail(f"its author has more than {headers.MAX_HEADER:,} characters", line=1)
    if not (author := headers.read_author(said["from"])):
        problem = f"cannot read an author from {said['from']!r}"
        cursor.fail(problem, line=1, expected="From: Name <address>")
    try:
        # git would take the time at which it reads the mail.
        when = headers.read_date(said["date"]) if said["date"] else "0 +0000"
    except (ValueError, OverflowError):
        cursor.fail(f"cannot read the date {said['date']!r}", line=1)
    return f"{author[0]} <{author[1]}>", when, headers.read_subject(said["subject"])


def _take_headers(body: list[str]) -> dict[str, str]:
    """Take the headers from the beginning of a message: those of a mail that was forwarded."""
    found: dict[str, list[str]] = {}
    last, end = "", len(body)
    for at, line in enumerate(body):
        header = IN_BODY.fullmatch(line)
        if header and header[1].lower() not in found:
            last = header[1].lower()
            found[last] = [header[2]]
        elif line.startswith("[PATCH] "):
            last, found["subject"] = "", [line]
        elif last and line[:1] in {" ", "\t"}:
            found[last].append(line)
        elif found or line.strip():
            end = at
            break
    del body[:end]
    return {name: headers.unfold("\n".join(rows)) for name, rows in found.items()}


def _strip(lines: Iterable[str]) -> list[str]:
    """Strip lines as `git stripspace` does: no blanks at ends, no two empty lines in a row."""
    text = "\n".join(line.rstrip() for line in lines)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n").split("\n")


def _read_body(cursor: Cursor, charset: str) -> Iterator[str]:
    """Read the lines above the first diff, notes and statistics included."""
    notes = False
    while (line := cursor.peek()) and not line.startswith(DIFF):
        notes |= line.rstrip() == NOTES.encode()
        _check_line(cursor, line, notes=notes)
        # In the mboxrd format, a line `From …` of the message has one more `>`.
        yield re.sub(r"^>(>*From )", r"\1", headers.decode(line, charset).rstrip("\n"))
        cursor.at += 1


def _without_notes(body: list[str]) -> list[str]:
    """Return the message without what follows `---`, which `git am` drops."""
    lines = [line.rstrip() for line in body]
    if NOTES not in lines:
        return body
    above = body[: lines.index(NOTES)]
    # Such a line of a commit's message: all trailers are below it.
    return body if _has_status(body) and not _has_status(above) else above


def _has_status(lines: Iterable[str]) -> bool:
    trailers = _trailers("\n".join(_strip(lines)))
    return any(key.lower() == "upstream-status" for key, _ in trailers)


def decoded_mail(data: bytes) -> bytes:
    """Return a mail as git can apply it, decoded."""
    head = data.partition(b"\n\n")[0]
    if not re.search(ENCODED, head):
        return data
    from email import message_from_bytes

    mail = message_from_bytes(data)
    texts = [part for part in mail.walk() if part.get_content_maintype() == "text"]
    content = b"".join(bytes(part.get_payload(decode=True) or b"") for part in texts)
    lines = re.sub(rb"\n[ \t]+", b" ", head).split(b"\n")
    lines = [line for line in lines if not line.lower().startswith(b"content-")]
    charset = texts[0].get_content_charset("utf-8") if texts else "utf-8"
    lines.append(f"Content-Type: text/plain; charset={charset}".encode())
    return b"\n".join(lines) + b"\n\n" + content.replace(b"\r\n", b"\n")


def _check_line(cursor: Cursor, line: bytes, *, notes: bool = False) -> None:
    following = b"".join(cursor.lines[cursor.at + 1 : cursor.at + 2])
    if line.startswith(b"--- ") and following.startswith(b"+++ "):
        expected = "diff --git a/PATH b/PATH"
        cursor.fail("this is no git diff", expected=expected)
    if not notes and re.match(rb"Binary files .* differ$", line):
        cursor.fail("this is no git diff, and it carries no data")
    if re.match(rb"@@ -\d" if notes else rb"diff -|Index: |--- \S|@@ -\d", line):
        cursor.fail("git takes this line of the message for a diff", hint="indent or reword it")


def _trailers(message: str) -> list[tuple[str, str]]:
    """Read the last paragraph, if it is one of trailers: as `git interpret-trailers --parse`."""
    trailers: list[tuple[str, list[str]]] = []
    lines = [line for line in message.rpartition("\n\n")[2].split("\n") if line[:1] != "#"]
    count = others = 0
    last = ""
    for line in lines:
        # A line that begins with a blank continues the one above.
        kind = last if line[:1] in {" ", "\t"} and last else "other"
        if trailer := TRAILER.fullmatch(line):
            kind = "trailer"
            trailers.append((trailer[1], [trailer[2].strip()]))
        elif line.startswith(BY_GIT):
            kind = "by git"
        elif kind == "trailer":
            trailers[-1][1].append(line.strip())
        others += kind == "other"
        count += kind != "other" and line[:1] not in {" ", "\t"}
        last = kind
    mixed = any(line.startswith(BY_GIT) for line in lines) and count * 3 >= others
    found = trailers if mixed or not others else []
    return [(key, " ".join(rows).strip()) for key, rows in found]
