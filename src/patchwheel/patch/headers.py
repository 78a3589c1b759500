"""The fields of a mail as `git mailinfo` reads them: encoded words, author, date and subject.

Where git loses what its own `format-patch` wrote, this keeps it: names of any length, or with `@`,
and all of a subject behind `[PATCH] `.
"""

from __future__ import annotations

import binascii
import itertools
import quopri
import re
from operator import itemgetter

WORD = r"=\?([^?\s]+)\?([qQbB])\?([^?]*)\?="
WORDS = re.compile(rf"{WORD}(?:\s*{WORD})*")
# A quoted string without its quotes; a comment keeps its parentheses.
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"|(\((?:[^()\\]|\\.)*\))', re.DOTALL)
# After a blank or `<`, and up to one or `>`.
ADDRESS = re.compile(r"<?([^\s<]*@[^\s>]*)>?")
BRACKETED = re.compile(r"([^<]*)<([^>]*)>")
EXPORTED = "[PATCH] "
RAW_DATE = re.compile(r"@?(\d{1,12}) ([+-]\d{4})")
# What is read here takes time that grows with the square of a header's length.
MAX_HEADER = 10_000


def decode(raw: bytes, charset: str = "") -> str:
    """Return a text in `charset`; by default UTF-8, and Latin-1 where it is none, as in git."""
    try:
        return raw.decode(charset or "utf-8")
    except (UnicodeDecodeError, LookupError):
        return raw.decode("latin-1")


def unfold(value: str) -> str:
    """Join the lines of a header's value and decode its RFC 2047 words."""
    value = re.sub(r"\n\s*", " ", value)
    if "=?" in value and len(value) > MAX_HEADER:
        raise ValueError(f"encoded words in more than {MAX_HEADER:,} characters")
    return WORDS.sub(_decode_words, value).replace("\n", " ").strip()


def read_author(value: str) -> tuple[str, str] | None:
    """Return name and address; the address stands for a name that is missing."""
    text = QUOTED.sub(lambda m: re.sub(r"\\(.)", r"\1", m[2] or m[1]), value).strip()
    if found := re.fullmatch(r"(.*)<([^<>]*)>", text):
        name, address = found[1], found[2]
    elif found := ADDRESS.search(text):
        name, address = f"{text[: found.start()]} {text[found.end() :]}", found[1]
        name = re.sub(r"^\((.*)\)$", r"\1", name.strip())
    elif found := BRACKETED.match(text):
        name, address = found[1], found[2]
    else:
        return None
    name = " ".join(name.split())
    if not name or set(name) & set("<>"):
        name = address
    return (name, address) if name and not set(address) & set("<>\n") else None


def read_date(value: str) -> str:
    """Return git's raw date, which is not before 1970; raises ValueError."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    if raw := RAW_DATE.fullmatch(value):
        return f"{int(raw[1])} {raw[2]}"
    if re.match(r"\d{4}-\d\d-\d\d", value):
        # A Last-Update of DEP-3 is a day only.
        date = datetime.fromisoformat(re.sub(r" (?=[+-]\d{4}$)", "", value))
    else:
        date = parsedate_to_datetime(value)
    # A date without a zone, or in the zone -0000, is UTC.
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return f"{max(int(date.timestamp()), 0)} {date:%z}"


def read_subject(value: str) -> str:
    """Return a subject without what mailers put before it, such as `Re: [PATCH v2 1/3]`."""
    # Whoever wrote exactly this wrote the subject itself behind it.
    if value.startswith(EXPORTED) or len(value) > MAX_HEADER:
        return value.removeprefix(EXPORTED)
    kept = ""
    while found := re.match(r"(?i:re:)|[ \t:]+|\[[^\]]*\]", value):
        value = value[found.end() :]
        if found[0].startswith("[") and "PATCH" not in found[0]:
            kept += found[0] + value[: value[:1].isspace()]
            value = value[value[:1].isspace() :]
    return kept + value


def _decode_words(run: re.Match[str]) -> str:
    """Decode adjacent words; a character may be split between two of them."""
    words = re.findall(WORD, run[0])
    pieces = [(charset.lower(), _raw(how, text)) for charset, how, text in words]
    return "".join(
        decode(b"".join(raw for _, raw in group), charset)
        for charset, group in itertools.groupby(pieces, key=itemgetter(0))
    )


def _raw(how: str, text: str) -> bytes:
    try:
        if how in "qQ":
            return quopri.decodestring(text.encode(), header=True)
        return binascii.a2b_base64(text + "==")
    except (binascii.Error, ValueError):
        return text.encode()
