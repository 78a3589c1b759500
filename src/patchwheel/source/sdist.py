"""A strict reader of sdists: writes nothing to disk, follows no links, bounds the sizes."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Never, cast

from patchwheel.kit import InputError
from patchwheel.wheelfile import MAX_RATIO, unpacked_limit

MAX_ENTRIES = 200_000
# Of the year 4147; git, gcc and zip take what is before it.
MAX_TIME = 1 << 36
CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


class Sdist:
    """The files of an sdist, as (path, git mode, content), then `epoch`, the newest time in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.epoch = 0
        self.top: str | None = None
        self.files: set[str] = set()
        self.folders: set[str] = set()

    def __iter__(self) -> Iterator[tuple[str, str, bytes]]:
        try:
            with self.path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as unpacked:
                stream = _Bounded(unpacked, self.path)
                with tarfile.open(fileobj=stream, mode="r|") as archive:
                    for member in archive:
                        path = self._checked(member)
                        # Refused before it is unpacked: no honest archive announces so much.
                        stream.check(member.size)
                        self.epoch = max(self.epoch, int(member.mtime))
                        if member.isdir():
                            continue
                        content = self._content(archive, member)
                        if not self._is_git_link(member, content):
                            mode = "100755" if member.mode & 0o100 else "100644"
                            yield path, mode, content
                    # To the end, for gzip's checksum; only padding may follow the archive.
                    while data := cast("BinaryIO", archive.fileobj).read(1 << 16):
                        if data.strip(b"\0"):
                            raise tarfile.ReadError(f"something else follows at byte {stream.at}")
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as err:
            problem = f"is damaged: {err}"
            raise InputError(problem, where=self.path, expected="a whole .tar.gz") from err
        if not self.files:
            self._refuse("", "holds no files")

    def _is_git_link(self, member: tarfile.TarInfo, content: bytes) -> bool:
        """Whether git wrote this file for a submodule: no tree can hold it, no build needs it."""
        if PurePosixPath(member.name).name.lower() != ".git":
            return False
        if not content.startswith(b"gitdir: "):
            self._refuse(member.name, "is no link of a submodule, as git writes it")
        return True

    def _content(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
        stream = archive.extractfile(member)
        data = stream.read() if stream else b""
        if len(data) != member.size:
            self._refuse(member.name, "is cut short")
        return data

    def _checked(self, member: tarfile.TarInfo) -> str:
        """Return the entry's path below the top folder, or refuse it."""
        name = member.name
        if not (member.isdir() or member.isreg()) or member.issparse():
            kind = "a link" if member.islnk() or member.issym() else "no regular file"
            self._refuse(name, f"is {kind}")
        parts = name.removesuffix("/").split("/")
        if CONTROL.search(name) or {"", ".", ".."} & set(parts):
            self._refuse(name, "is no plain relative path")
        if ".git" in {part.lower() for part in (parts if member.isdir() else parts[:-1])}:
            self._refuse(name, "is a .git folder, or inside one")
        if not 0 <= member.mtime < MAX_TIME:
            self._refuse(name, f"is of the time {member.mtime}")
        self.top = self.top or parts[0]
        if parts[0] != self.top or (len(parts) == 1 and not member.isdir()):
            self._refuse(name, f"is outside the top folder {self.top!r}")
        return self._recorded(name, parts[1:], folder=member.isdir())

    def _recorded(self, name: str, parts: list[str], *, folder: bool) -> str:
        """Note the path, which must not clash with an earlier one."""
        path = "/".join(parts)
        above = ["/".join(parts[:n]) for n in range(1, len(parts))]
        if path in self.files or not self.files.isdisjoint(above):
            self._refuse(name, "comes twice, or lies below a file")
        if path in self.folders and not folder:
            self._refuse(name, "is a file where a folder is")
        self.folders.update(above)
        (self.folders if folder else self.files).add(path)
        if len(self.files) + len(self.folders) > MAX_ENTRIES:
            self._refuse("", f"has more than {MAX_ENTRIES} entries")
        return path

    def _refuse(self, name: str, why: str) -> Never:
        problem = f"{name!r} {why}" if name else why
        expected = "an sdist of regular files and folders below one folder"
        hint = "pin the fork by git commit instead, if this file is what upstream published"
        raise InputError(problem, where=self.path, expected=expected, hint=hint)


class _Bounded(io.RawIOBase):
    """A stream; InputError where the archive grows out of proportion."""

    def __init__(self, stream: gzip.GzipFile, path: Path) -> None:
        self.stream, self.path, self.at = stream, path, 0
        self.limit = unpacked_limit(path.stat().st_size)

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.at += len(data)
        self.check(0)
        return data

    def check(self, size: int) -> None:
        """Refuse so many more bytes."""
        if self.at + size <= self.limit:
            return
        problem = f"unpacks to more than {self.limit >> 20} MiB"
        expected = f"at most {MAX_RATIO} times its own size"
        hint = "nothing was written; look at the archive before trusting it"
        raise InputError(problem, where=self.path, expected=expected, hint=hint)
