"""Zip archives, read strictly, and written with the compressed bytes of what did not change.

zipfile and the libraries on it compress every file again: slow, and not the base's bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
import stat
import struct
import time
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Never

from patchwheel.kit import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Date = tuple[int, int, int, int, int, int]

ZLIB = zlib.ZLIB_RUNTIME_VERSION
LEVEL = 6
# ZIP64 is not written: no wheel that patchwheel makes has 4 GiB or 65,535 files.
MAX_SIZE = 0xFFFFFFFF
MAX_FILES = 0xFFFF
# Flags of an entry that are harmless: compression level, data descriptor, UTF-8 name.
KNOWN_FLAGS = 0x080E
UTF8 = 0x0800


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file of a wheel as the archive has it; `packed` is its content, compressed by `method`."""

    name: str
    method: int
    crc: int
    size: int
    packed: bytes = field(repr=False)
    mode: int
    date: Date
    # The hash that RECORD states.
    sha256: str = ""
    # The archive's name, for messages.
    origin: str = field(default="", compare=False)

    @property
    def where(self) -> str:
        return f"{self.origin}: {self.name}"

    def content(self) -> bytes:
        """Return the file's bytes; raises InputError when size or checksum are others."""
        if self.method == zipfile.ZIP_STORED:
            data = self.packed
        else:
            unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                # One byte more than stated, to stop early at a file that is larger.
                data = unpacker.decompress(self.packed, self.size + 1)
            except zlib.error as err:
                raise InputError(f"cannot be decompressed: {err}", where=self.where) from err
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise InputError("does not match its checksum", where=self.where)
        return data

    def checked(self) -> bytes:
        """Return the file's bytes after comparing them with RECORD."""
        data = self.content()
        if record_hash(data) != self.sha256:
            raise InputError("does not match RECORD", where=self.where)
        return data


def read_archive(path: Path) -> dict[str, Entry]:
    """Return the files of an archive in its order; raises InputError for an unsound archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos, comment = archive.infolist(), archive.comment
    except FileNotFoundError as err:
        raise InputError("there is no such wheel", where=path) from err
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as err:
        refuse(path, str(err))
    if comment:
        refuse(path, "has a comment after its directory")
    seen = set()
    for info in infos:
        _check_entry(path, info)
        # A file and a folder of one name would take each other's place too.
        if (name := info.filename.removesuffix("/")) in seen:
            refuse(path, f"{name} is in it twice")
        seen.add(name)
    spans = _spans(path, infos, path.read_bytes())
    return {
        info.filename: Entry(
            name=info.filename,
            method=info.compress_type,
            crc=info.CRC,
            size=info.file_size,
            packed=spans[info.filename],
            mode=info.external_attr >> 16 & 0o777 or 0o644,
            date=info.date_time,
            origin=path.name,
        )
        for info in infos
        if not info.is_dir()
    }


def write_archive(path: Path, entries: Sequence[Entry]) -> None:
    """Write entries in their order."""
    size = sum(len(e.packed) + 2 * len(e.name) + 100 for e in entries)
    if size > MAX_SIZE or len(entries) >= MAX_FILES:
        expected = "less than 4 GiB and 65,535 files"
        raise InputError("is larger than a zip may be", where=path.name, expected=expected)
    directory, at = [], 0
    with path.open("wb") as stream:
        for entry in entries:
            name = entry.name.encode()
            year, month, day, hour, minute, second = entry.date
            moment = (hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day)
            sizes = (entry.crc, len(entry.packed), entry.size, len(name), 0)
            flags = 0 if entry.name.isascii() else UTF8
            # What the local header and the central directory have in common.
            common = struct.pack("<HHHHHLLLHH", 20, flags, entry.method, *moment, *sizes)
            attributes = (stat.S_IFREG | entry.mode) << 16
            tail = struct.pack("<HHHLL", 0, 0, 0, attributes, at)
            # Made by "Unix, version 2.0", as zipfile and every wheel builder says.
            directory.append(b"PK\1\2\x14\3" + common + tail + name)
            at += stream.write(b"PK\3\4" + common + name)
            at += stream.write(entry.packed)
        listing = b"".join(directory)
        stream.write(listing)
        count = len(entries)
        stream.write(struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, count, count, len(listing), at, 0))


def make_entry(name: str, content: bytes, *, mode: int, date: Date) -> Entry:
    """Return an entry with this content, compressed, as a wheel holds it."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return Entry(
        name=name,
        method=zipfile.ZIP_DEFLATED,
        crc=zlib.crc32(content),
        size=len(content),
        packed=packer.compress(content) + packer.flush(),
        mode=mode,
        date=date,
        sha256=record_hash(content),
    )


def zip_date(epoch: int) -> Date:
    """Return a date as a zip holds it: from 1980 on, in steps of two seconds."""
    moment = time.gmtime(min(max(epoch, 315532800), 4354819198))
    return (*moment[:5], moment[5] // 2 * 2)


def record_hash(content: bytes) -> str:
    """Return the sha256 as RECORD writes it."""
    raw = hashlib.sha256(content).digest()
    return "sha256=" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def refuse(where: Path, problem: str) -> Never:
    """Raise InputError for a wheel that is not sound."""
    hint = "fetch or build the wheel again"
    raise InputError(f"is no sound wheel: {problem}", where=where, hint=hint)


def _check_entry(path: Path, info: zipfile.ZipInfo) -> None:
    name = info.filename
    parts = name.removesuffix("/").split("/")
    if (
        name != info.orig_filename
        or any(part in {"", ".", ".."} for part in parts)
        or re.search(r"[\\\x00-\x1f\x7f]|^[A-Za-z]:", name)
    ):
        refuse(path, f"{info.orig_filename!r} is no safe name")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG}:
        refuse(path, f"{name} is neither a file nor a folder")
    if info.flag_bits & ~KNOWN_FLAGS:
        refuse(path, f"{name} is encrypted or patched data")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        refuse(path, f"{name} is compressed with method {info.compress_type}")
    if info.is_dir() and info.file_size:
        refuse(path, f"{name} is a folder with content")


def _spans(path: Path, infos: Sequence[zipfile.ZipInfo], data: bytes) -> dict[str, bytes]:
    """Return each entry's compressed bytes by name."""
    spans, end = {}, 0
    # Where entries overlap, or a local header contradicts the directory, another reader could see
    # another file.
    for info in sorted(infos, key=lambda i: i.header_offset):
        at = info.header_offset
        if at < end or data[at : at + 4] != b"PK\3\4":
            refuse(path, f"{info.filename} overlaps with the entry before it")
        flags, method = struct.unpack_from("<HH", data, at + 6)
        name_size, extra_size = struct.unpack_from("<HH", data, at + 26)
        raw = data[at + 30 : at + 30 + name_size]
        encoding = "utf-8" if flags & UTF8 else "cp437"
        if raw.decode(encoding, "replace") != info.filename:
            refuse(path, f"{info.filename} has another name in its own header")
        if method != info.compress_type:
            refuse(path, f"{info.filename} has another method in its own header")
        start = at + 30 + name_size + extra_size
        end = start + info.compress_size
        if end > len(data):
            refuse(path, f"{info.filename} reaches beyond the end")
        spans[info.filename] = data[start:end]
    return spans
