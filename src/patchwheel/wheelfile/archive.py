"""Zip archives, read strictly, and written with the compressed bytes of what did not change.

zipfile and the libraries on it compress every file again: slow, and not the base's bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Never

from patchwheel.kit import InputError

Date = tuple[int, int, int, int, int, int]

LEVEL = 6
# ZIP64 is not written: no wheel that patchwheel makes has 4 GiB or 65,535 files.
MAX_SIZE = 0xFFFFFFFF
MAX_FILES = 0xFFFF
# What an archive, a wheel or an sdist, may unpack to: real ones have 1.3 to 7 times their size.
# Below the floor a high ratio does no harm.
MAX_UNPACKED = 4 << 30
MAX_RATIO = 50
RATIO_FLOOR = 64 << 20
# Flags of an entry that are harmless: compression level, UTF-8 name.
KNOWN_FLAGS = 0x0806
UTF8 = 0x0800
# What an entry's own header and the directory both say; version and time do not matter.
LOCAL = struct.Struct("<4s2xHH4xLLLHH")


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
            if not unpacker.eof or unpacker.unused_data:
                raise InputError("is not one whole compressed file", where=self.where)
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise InputError("does not match its checksum", where=self.where)
        return data

    def checked(self) -> bytes:
        """Return the file's bytes after comparing them with RECORD."""
        data = self.content()
        if record_hash(data) != self.sha256:
            raise InputError("does not match RECORD", where=self.where)
        return data


def unpacked_limit(packed: int) -> int:
    """Return to how many bytes an archive of this size may unpack."""
    return min(MAX_UNPACKED, max(RATIO_FLOOR, MAX_RATIO * packed))


def read_archive(path: Path) -> dict[str, Entry]:
    """Return the files of an archive in its order; raises InputError for an unsound archive.

    Every reader must read it alike: it is entries that say of themselves what the directory says,
    the directory, and the end, without a gap.
    """
    data, infos = _opened(path)
    seen = set()
    for info in infos:
        _check_entry(path, info)
        # A file and a folder of one name would take each other's place too.
        if (name := info.filename.removesuffix("/")) in seen:
            refuse(path, f"{name} is in it twice")
        seen.add(name)
    if sum(info.file_size for info in infos) > (limit := unpacked_limit(len(data))):
        expected = f"at most {limit >> 20} MiB, {MAX_RATIO} times its own size"
        hint = "nothing was unpacked; look at the archive before trusting it"
        raise InputError("unpacks to too much", where=path, expected=expected, hint=hint)
    spans = _spans(path, infos, data)
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


def _opened(path: Path) -> tuple[bytes, list[zipfile.ZipInfo]]:
    try:
        if path.stat().st_size > MAX_SIZE:
            refuse(path, "has 4 GiB or more")
        if not path.is_file():
            refuse(path, "it is no regular file")
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return data, archive.infolist()
    except FileNotFoundError as err:
        raise InputError("there is no such wheel", where=path) from err
    except OSError as err:
        raise InputError(f"cannot be read: {err.strerror}", where=path) from err
    # struct.error: an extra field of the directory that is cut short.
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as err:
        refuse(path, str(err))


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
        stream.write(_end(count, len(listing), at))


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
    if info.external_attr >> 16 & 0o7000 or info.volume:
        refuse(path, f"{name} has special permissions or is on another volume")
    if info.flag_bits & ~KNOWN_FLAGS:
        refuse(path, f"{name} is encrypted, patched, or has its size after its content")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        refuse(path, f"{name} is compressed with method {info.compress_type}")
    # A file without content is two bytes when it is compressed.
    if info.is_dir() and (info.file_size or info.compress_size > len(b"\3\0")):
        refuse(path, f"{name} is a folder with content")


def _spans(path: Path, infos: Sequence[zipfile.ZipInfo], data: bytes) -> dict[str, bytes]:
    """Return each entry's compressed bytes by name; together they are all of the archive."""
    size, start = struct.unpack_from("<LL", data, len(data) - 10)
    if data[start + size :] != _end(len(infos), size, start):
        refuse(path, "has a comment, or something before, between or after its parts")
    spans, at = {}, 0
    for info in sorted(infos, key=lambda i: i.header_offset):
        name = info.filename.encode("utf-8" if info.flag_bits & UTF8 else "cp437")
        own = LOCAL.unpack(data[at : at + LOCAL.size].ljust(LOCAL.size))
        # Extra fields may hold another name and other sizes; no builder of wheels writes any.
        sizes = (info.compress_size, info.file_size, len(name), -1 if info.extra else 0)
        stated = (b"PK\3\4", info.flag_bits, info.compress_type, info.CRC, *sizes)
        begin = at + LOCAL.size + len(name)
        if (info.header_offset, own, data[begin - len(name) : begin]) != (at, stated, name):
            refuse(path, f"{info.filename} is not where the directory says, or not what it says")
        at = begin + info.compress_size
        spans[info.filename] = data[begin:at]
    if at != start:
        refuse(path, "has something between its last entry and its directory")
    return spans


def _end(count: int, size: int, at: int) -> bytes:
    """Return the end of an archive that has `count` entries and, `at` an offset, its directory."""
    return struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, count, count, size, at, 0)
