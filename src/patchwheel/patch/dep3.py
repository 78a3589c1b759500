"""Debian's patch headers, DEP-3: fields that stand for the trailers of ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FIELD = re.compile(
    r"(?i)origin|bug(-[a-z0-9]+)*|forwarded|applied-upstream|(reviewed|acked)-by|last-update"
)
URL = re.compile(r"https?://[^\s,\]>]+")
COMMIT = re.compile(r"\bcommit[: ]\s*([0-9a-f]{7,40})\b")


def upstream_status(fields: Iterable[tuple[str, str]]) -> str | None:
    """Return what the fields say in the words of Upstream-Status, or None if they leave it open."""
    said = {key.lower(): value for key, value in fields}
    origin = said.get("origin", "")
    taken = origin if re.match(r"(?i)upstream|backport", origin) else ""
    for value in (said.get("applied-upstream", ""), taken):
        url, commit = URL.search(value), COMMIT.search(value)
        if url or commit:
            return f"Backport [{url[0] if url else commit and commit[1]}]"
    forwarded = said.get("forwarded", "")
    if forwarded == "no":
        return "Pending"
    if forwarded == "not-needed":
        return "Inappropriate [not-needed]"
    where = said.get("bug", "") if forwarded == "yes" else forwarded
    return f"Submitted [{url[0]}]" if (url := URL.search(where)) else None


def date(value: str) -> str:
    """Return the day of a Last-Update as the date of a mail; other dates as they are."""
    from datetime import UTC, datetime
    from email.utils import format_datetime

    if not re.fullmatch(r"\d{4}-[01]\d-[0-3]\d", value):
        return value
    return format_datetime(datetime.fromisoformat(value).replace(tzinfo=UTC))


def description(value: str) -> tuple[str, str]:
    """Split a Description into a subject and a text; there a line with a point stands for an empty one."""
    subject, _, rest = value.partition("\n")
    return subject, re.sub(r"(?m)^\.$", "", rest)
