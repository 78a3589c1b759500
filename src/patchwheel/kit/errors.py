"""Every failure that a user can cause, one class for each exit code."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import ClassVar

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# A file or a link that leads nowhere may be in the place of a folder, too.
TAKEN = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG})
UNUSABLE = frozenset({*FULL, *TAKEN, errno.EROFS, errno.EACCES, errno.EPERM})
# Sequences up to their end (CSI; OSC and other strings; two characters), then what is left over.
CONTROL = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


@dataclass(eq=False, repr=False)
class PatchwheelError(Exception):
    """What is wrong, where, what was expected and what to do next.

    `where` is a file, or `file:line`; `tail` holds the last lines of a log, `log` is its path.
    """

    exit_code: ClassVar[int] = 1
    message: str
    _: KW_ONLY
    where: Path | str | None = None
    expected: str | None = None
    hint: str | None = None
    tail: Sequence[str] = ()
    log: Path | None = None

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.tail:
            lines.append("  last lines of the log:")
            lines.extend(f"    {line}" for line in self.tail)
        # A step that did not start has written none.
        if self.log and self.log.exists():
            lines.append(f"  log: {self.log}")
        if self.hint:
            lines.append(f"  next: {self.hint}")
        return plain("\n".join(lines))


def plain(text: str) -> str:
    """Return a text without what commands a terminal: escape sequences, control characters."""
    return CONTROL.sub("", text)


def redacted(text: str) -> str:
    """Remove credentials from the URLs in a text, and queries, which may hold a token."""
    text = re.sub(r"(?<=://)[^/@\s]+@", "", text)
    return re.sub(r"(://[^\s?#]+)(?:[?#][^\s'\")]*)?", r"\1", text)


def disk_is_full(message: str) -> bool:
    """Say whether git or uv stopped because the disk is full."""
    return any(reason in message for reason in ("No space left on device", "Disk quota exceeded"))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question to append to the message about an unknown word, or an empty string."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def first(rows: Sequence[str], limit: int = 20) -> list[str]:
    """Return the first of many rows, and a row that says how many more there are."""
    more = len(rows) - limit
    return [*rows[:limit], f"and {more} more"] if more > 0 else list(rows)


class ManifestError(PatchwheelError):
    """forks.toml, forks.lock or the command line is wrong."""

    exit_code = 2


class PatchError(PatchwheelError):
    """A patch or a series is malformed, unsafe, or does not apply."""

    exit_code = 3


class InputError(PatchwheelError):
    """A download is missing, or does not match its sha256."""

    exit_code = 4


class BuildError(PatchwheelError):
    """A build step failed."""

    exit_code = 5


class GraftNotPossible(BuildError):  # noqa: N818  (an outcome, handled by a compile)
    """A remade output does not fit the files that a graft takes from its base: compile instead."""


class NotReplayedError(BuildError):
    """The noted steps do not make a module of the patched tree: it takes a configured project."""


class CheckError(PatchwheelError):
    """A result failed a check."""

    exit_code = 6


class MachineError(PatchwheelError):
    """The machine lacks something: a compiler, a sandbox, disk, permission."""

    exit_code = 7


class BusyError(MachineError):
    """Another process is making or using it."""


def disk_error(err: OSError) -> MachineError | None:
    """Return the error for a full disk or a place that cannot be written; None for another."""
    # Of a link or a rename, the second is what is made.
    where, number, why = err.filename2 or err.filename, err.errno, err.strerror
    if number is None and err.args and isinstance(err.args[0], list):
        # Of copying a folder: the first of its files.
        [_, where, why], number = err.args[0][0], None
    if number not in UNUSABLE and not disk_is_full(str(why)):
        return None
    hint = "see what is there" if number in TAKEN else "see who may write it"
    hint = "free some room" if number in FULL or disk_is_full(str(why)) else hint
    return MachineError(
        f"cannot be written: {why}",
        where=str(where) if where else None,
        expected="a place that can be written, with room",
        hint=f"{hint}, then run the command again; nothing is half done",
    )
