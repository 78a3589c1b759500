"""A patch file; what it says is parsed once it is asked for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Never

from patchwheel import patch as patching  # loaded where a patch is read

# Modes of entries in a tree.
LINK = "120000"
SUBMODULE = "160000"
CVE = r"CVE-\d{4}-\d{4,19}"


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

    @cached_property
    def plain(self) -> bytes:
        """The patch as git can apply it: a mail in quoted-printable, base64 or parts is decoded."""
        return patching.decoded_mail(self.data)

    @property
    def mail(self) -> patching.Mail:
        return self._parsed[0]

    @property
    def diffs(self) -> tuple[patching.FileDiff, ...]:
        return self._parsed[1]

    @cached_property
    def _parsed(self) -> tuple[patching.Mail, tuple[patching.FileDiff, ...]]:
        return patching.read_patch(self)

    @property
    def changes_sha256(self) -> str:
        """What stays as it is while the message alone changes."""
        return hashlib.sha256(self.plain.partition(b"\ndiff --git ")[2]).hexdigest()

    def trailer(self, key: str) -> list[str]:
        """Return the values of all trailers with this key, in any case."""
        return [v for k, v in self.mail.trailers if k.lower() == key.lower()]

    @property
    def fixes(self) -> tuple[str, ...]:
        """The vulnerabilities that its trailers name; `Fixes` may name other things too."""
        return tuple(sorted({v for v in self.trailer("Fixes") if re.fullmatch(CVE, v)}))

    def fail(self, message: str, *, line: int = 1, **details: str) -> Never:
        """Raise PatchError for a line of the file; see Cursor.fail."""
        patching.Cursor(self.path, b"").fail(message, line=line, **details)


def paths_of(patches: Iterable[Patch]) -> set[str]:
    """Return all paths that some patches name, old and new."""
    return {path for patch in patches for diff in patch.diffs for path in diff.paths}
