"""Wheels as files: read strictly, and written so that what did not change keeps its compressed bytes."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import stat
import struct
import time
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Never

from patchwheel.digest import file_sha256
from patchwheel.errors import InputError
from patchwheel.metadata import normal, parse_filename

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from patchwheel.metadata import WheelName

Date = tuple[int, int, int, int, int, int]

ZLIB = zlib.ZLIB_RUNTIME_VERSION
LEVEL = 6
# Not ZIP64: no wheel of ours has 65,535 entries or 4 GiB, and a reader that never meets one is simpler.
LIMIT = 0xFFFFFFFF
COUNT = 0xFFFF
# Beside RECORD itself only its detached signatures are not in it.
UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file of a wheel as it is in the archive: `packed` is its content under `method`, `sha256` RECORD's word."""

    name: str
    method: int
    crc: int
    size: int
    packed: bytes = field(repr=False)
    mode: int
    date: Date
    sha256: str = ""

    def content(self) -> bytes:
        """Return the file's bytes; raises InputError when they are not what the wheel says."""
        if self.method == zipfile.ZIP_STORED:
            data = self.packed
        else:
            unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                # One byte of room more than it says, so that a file that says too little is caught early.
                data = unpacker.decompress(self.packed, self.size + 1)
            except zlib.error as err:
                raise InputError(f"cannot be unpacked: {err}", where=self.name) from err
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise InputError("has other bytes than its checksum", where=self.name)
        return data

    def checked(self) -> bytes:
        """Return the file's bytes after comparing them with RECORD."""
        data = self.content()
        if record_hash(data) != self.sha256:
            raise InputError("has other bytes than RECORD says", where=self.name)
        return data


class WheelFile:
    """A wheel that was read whole and found sound; `entries` are its files in the archive's order."""

    def __init__(self, path: Path, dist_info: str, entries: dict[str, Entry]) -> None:
        self.path = path
        self.name = parse_filename(path.name, where=path)
        self.dist_info = dist_info
        self.entries = entries

    def metadata(self, name: str) -> bytes:
        """Return a file of the dist-info folder, checked against RECORD where RECORD lists it."""
        entry = self.entries.get(f"{self.dist_info}/{name}")
        if entry is None:
            _refuse(self.path, f"has no {self.dist_info}/{name}")
        return entry.content() if name in UNRECORDED else entry.checked()


def names(path: Path) -> list[str]:
    """List the files of a wheel from its central directory, nothing else read."""
    with _archive(path) as archive:
        return [i.filename for i in archive.infolist() if not i.is_dir()]


def output_names(found: Iterable[str], name: WheelName) -> dict[str, str]:
    """Map what a build calls its outputs to their names in the wheel; the dist-info folder is not an output."""
    return {name.plain(n): n for n in found if ".dist-info/" not in n}


def read_wheel(path: Path, *, sha256: str | None = None) -> WheelFile:
    """Read a wheel; raises InputError when its bytes are not `sha256` or when anything in it is unsound.

    An entry's bytes are compared with RECORD only when they are asked for (`Entry.checked`, `check_record`).
    """
    if sha256 is not None and (actual := file_sha256(path)) != sha256:
        raise InputError(
            "has other bytes than pinned",
            where=path,
            expected=f"sha256 {sha256}, and it is {actual}",
            hint="remove the file; it is fetched again",
        )
    with _archive(path) as archive:
        infos = archive.infolist()
        if archive.comment:
            _refuse(path, "has a comment after its directory")
    seen = set()
    for info in infos:
        _check_entry(path, info)
        if (name := info.filename.removesuffix("/")) in seen:
            _refuse(path, f"{name} is in it twice")
        seen.add(name)
    data = path.read_bytes()
    spans = _spans(path, infos, data)
    dist_info = _dist_info(path, [info.filename for info in infos])
    files = {info.filename: info for info in infos if not info.is_dir()}
    plain = {
        name: Entry(
            name=name,
            method=info.compress_type,
            crc=info.CRC,
            size=info.file_size,
            packed=spans[name],
            mode=info.external_attr >> 16 & 0o777 or 0o644,
            date=info.date_time,
        )
        for name, info in files.items()
    }
    hashes = _record(path, dist_info, plain)
    entries = {n: replace(e, sha256=hashes.get(n, "")) for n, e in plain.items()}
    return WheelFile(path, dist_info, entries)


def make_entry(
    name: str,
    content: bytes,
    *,
    mode: int,
    date: Date,
) -> Entry:
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


def write_wheel(path: Path, dist_info: str, entries: Iterable[Entry]) -> None:
    """Write entries in their order, those of the dist-info folder last and a true RECORD at the very end."""
    ordered = sorted(entries, key=lambda e: e.name.startswith(f"{dist_info}/"))
    record = f"{dist_info}/RECORD"
    rows = "".join(_record_row(e) for e in ordered) + f"{record},,\n"
    last = make_entry(record, rows.encode(), mode=0o644, date=ordered[-1].date)
    _write_zip(path, [*ordered, last])


def check_record(wheel: WheelFile, *, trusted: WheelFile | None = None) -> None:
    """Compare every file with RECORD, except those that are in `trusted` with the same bytes and hash."""
    known = trusted.entries if trusted else {}
    for entry in wheel.entries.values():
        if entry.name in {f"{wheel.dist_info}/{name}" for name in UNRECORDED}:
            continue
        before = known.get(entry.name)
        if before is None or before != replace(entry, mode=before.mode):
            entry.checked()


def zip_date(epoch: int) -> Date:
    """Return a date as a zip holds it: from 1980 on, in steps of two seconds."""
    moment = time.gmtime(min(max(epoch, 315532800), 4354819198))
    return (*moment[:5], moment[5] // 2 * 2)


def record_hash(content: bytes) -> str:
    raw = hashlib.sha256(content).digest()
    return "sha256=" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _refuse(where: Path | str, problem: str) -> Never:
    raise InputError(
        f"is no sound wheel: {problem}",
        where=where,
        hint="fetch or build it again; a wheel of this kind is not used",
    )


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as err:
        raise InputError("there is no such wheel", where=path) from err
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as err:
        raise InputError(
            f"is no sound wheel: {err}", where=path, hint="fetch or build it again"
        ) from err


def _check_entry(path: Path, info: zipfile.ZipInfo) -> None:
    name = info.filename
    parts = name.removesuffix("/").split("/")
    if (
        name != info.orig_filename
        or any(part in {"", ".", ".."} for part in parts)
        or re.search(r"[\\\x00-\x1f\x7f]|^[A-Za-z]:", name)
    ):
        _refuse(path, f"{info.orig_filename!r} is no safe name")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG}:
        _refuse(path, f"{name} is neither a file nor a folder")
    if info.flag_bits & ~0x080E:
        _refuse(path, f"{name} is encrypted or patched data")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        _refuse(path, f"{name} is packed with method {info.compress_type}")
    if info.is_dir() and info.file_size:
        _refuse(path, f"{name} is a folder with content")


def _spans(
    path: Path, infos: Sequence[zipfile.ZipInfo], data: bytes
) -> dict[str, bytes]:
    """Find each entry's packed bytes; entries that overlap, or whose two headers disagree, are refused."""
    found, end = {}, 0
    for info in sorted(infos, key=lambda i: i.header_offset):
        at = info.header_offset
        if at < end or data[at : at + 4] != b"PK\3\4":
            _refuse(path, f"{info.filename} overlaps with what stands before it")
        flags, method = struct.unpack_from("<HH", data, at + 6)
        name_size, extra_size = struct.unpack_from("<HH", data, at + 26)
        raw = data[at + 30 : at + 30 + name_size]
        encoding = "utf-8" if flags & 0x800 else "cp437"
        if raw.decode(encoding, "replace") != info.filename:
            _refuse(path, f"{info.filename} has another name in its own header")
        if method != info.compress_type:
            _refuse(path, f"{info.filename} has another method in its own header")
        start = at + 30 + name_size + extra_size
        end = start + info.compress_size
        if end > len(data):
            _refuse(path, f"{info.filename} reaches beyond the end")
        found[info.filename] = data[start:end]
    return found


def _dist_info(path: Path, found: Sequence[str]) -> str:
    folders = sorted({n.split("/")[0] for n in found if ".dist-info/" in n})
    folders = [folder for folder in folders if folder.endswith(".dist-info")]
    if len(folders) != 1:
        _refuse(path, f"has {len(folders)} dist-info folders, not one")
    stem = parse_filename(path.name, where=path).stem
    if normal(folders[0].removesuffix(".dist-info")) != normal(stem):
        _refuse(path, f"its dist-info folder is {folders[0]}")
    return folders[0]


def _record(path: Path, dist_info: str, entries: dict[str, Entry]) -> dict[str, str]:
    record = entries.get(f"{dist_info}/RECORD")
    if record is None:
        _refuse(path, "has no RECORD")
    try:
        rows = list(csv.reader(io.StringIO(record.content().decode())))
    except (UnicodeDecodeError, csv.Error) as err:
        raise InputError(f"its RECORD cannot be read: {err}", where=path) from err
    hashes = {}
    for row in rows:
        if len(row) != 3 or row[0] in hashes:  # noqa: PLR2004  (path, hash, size)
            _refuse(path, f"its RECORD has the row {row}")
        name, hashed, size = row
        hashes[name] = hashed
        if name in {f"{dist_info}/{n}" for n in UNRECORDED}:
            continue
        if name not in entries:
            _refuse(path, f"its RECORD lists {name}, which it lacks")
        if not hashed.startswith("sha256=") or size != str(entries[name].size):
            _refuse(path, f"its RECORD gives no true hash and size for {name}")
    unlisted = entries.keys() - hashes.keys()
    for name in sorted(unlisted - {f"{dist_info}/{n}" for n in UNRECORDED}):
        _refuse(path, f"its RECORD lacks {name}")
    return hashes


def _record_row(entry: Entry) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(
        [entry.name, entry.sha256, entry.size]
    )
    return out.getvalue()


def _write_zip(path: Path, entries: Sequence[Entry]) -> None:
    size = sum(len(e.packed) + 2 * len(e.name) + 100 for e in entries)
    if size > LIMIT or len(entries) >= COUNT:
        raise InputError(
            "the wheel would be larger than a zip without ZIP64 may be",
            where=path.name,
            expected="less than 4 GiB and 65,535 files",
        )
    directory, at = [], 0
    with path.open("wb") as stream:
        for entry in entries:
            name = entry.name.encode()
            year, month, day, hour, minute, second = entry.date
            common = struct.pack(
                "<HHHHHLLLHH",
                20,
                0 if entry.name.isascii() else 0x800,
                entry.method,
                hour << 11 | minute << 5 | second // 2,
                (year - 1980) << 9 | month << 5 | day,
                entry.crc,
                len(entry.packed),
                entry.size,
                len(name),
                0,
            )
            attributes = (stat.S_IFREG | entry.mode) << 16
            tail = struct.pack("<HHHLL", 0, 0, 0, attributes, at)
            # Made by "Unix, version 2.0", as zipfile and every wheel builder says.
            directory.append(b"PK\1\2\x14\3" + common + tail + name)
            at += stream.write(b"PK\3\4" + common + name)
            at += stream.write(entry.packed)
        listing = b"".join(directory)
        stream.write(listing)
        count = len(entries)
        stream.write(
            struct.pack(
                "<4sHHHHLLH", b"PK\5\6", 0, 0, count, count, len(listing), at, 0
            )
        )
