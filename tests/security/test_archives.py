"""P13: an archive that two readers could read differently, or that has no end, is refused."""

import itertools
import os
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from patchwheel.kit import InputError
from patchwheel.release.check import check_release
from patchwheel.release.files import SIGNATURE, SUMS
from patchwheel.wheelfile import check_record, read_wheel
from patchwheel.wheelfile.archive import RATIO_FLOOR, read_archive
from tests.fixtures import support


@dataclass
class Parts:
    """The parts of a zip; `joined` writes them with true offsets."""

    local: list[bytearray]
    central: list[bytearray]
    before: bytes = b""
    gap: bytes = b""
    after_entries: bytes = b""
    after: bytes = b""
    count: int = 0
    # What an attack changes only in the offsets.
    moved: int = 0
    names: list[str] = field(default_factory=list)

    def joined(self) -> bytes:
        data, rows = bytearray(self.before), []
        for number, (local, central) in enumerate(zip(self.local, self.central, strict=True)):
            struct.pack_into("<L", central, 42, len(data) + self.moved)
            rows.append(bytes(central))
            data += local + (self.gap if number == 0 else b"")
        data += self.after_entries
        listing, count = b"".join(rows), len(rows) + self.count
        end = (0, 0, count, count, len(listing), len(data) + self.moved, 0)
        return bytes(data) + listing + struct.pack("<4sHHHHLLH", b"PK\5\6", *end) + self.after


def split(path: Path) -> Parts:
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        infos, at = archive.infolist(), archive.start_dir
    starts = [*(i.header_offset for i in infos), at]
    local = [bytearray(data[a:b]) for a, b in itertools.pairwise(starts)]
    central = []
    for info in infos:
        size = 46 + len(info.filename.encode()) + len(info.extra)
        central.append(bytearray(data[at : at + size]))
        at += size
    return Parts(local=local, central=central, names=[i.filename for i in infos])


def overwrite(part: bytearray, at: int, data: bytes) -> None:
    part[at : at + len(data)] = data


def local(at: int, data: bytes) -> Callable[[Parts], None]:
    return lambda parts: overwrite(parts.local[0], at, data)


def with_descriptor(parts: Parts, *, crc: int | None = None) -> None:
    """Move size and checksum of the first entry behind its content."""
    row, header = parts.local[0], parts.central[0]
    numbers = struct.unpack_from("<LLL", header, 16)
    for part, at in ((row, 6), (header, 8)):
        struct.pack_into("<H", part, at, 8)
    overwrite(row, 14, bytes(12))
    row += b"PK\7\x08" + struct.pack("<LLL", numbers[0] if crc is None else crc, *numbers[1:])


def with_extra(kind: int, data: bytes, *, central: bool = False) -> Callable[[Parts], None]:
    def attack(parts: Parts) -> None:
        row = parts.central[0] if central else parts.local[0]
        field_at, name_at = (30, 46) if central else (28, 30)
        extra = struct.pack("<HH", kind, len(data)) + data
        struct.pack_into("<H", row, field_at, len(extra))
        end = name_at + len(parts.names[0])
        row[end:end] = extra

    return attack


def hidden_in_content(parts: Parts) -> None:
    """Put bytes behind the end of the compressed stream, inside of the entry."""
    parts.local[0] += b"PK\3\4 hidden"
    size = struct.unpack_from("<L", parts.local[0], 18)[0] + len(b"PK\3\4 hidden")
    struct.pack_into("<L", parts.local[0], 18, size)
    struct.pack_into("<L", parts.central[0], 20, size)


def second_archive(parts: Parts) -> None:
    parts.before = Parts(local=parts.local[:1], central=[bytearray(parts.central[0])]).joined()


def set_before(parts: Parts) -> None:
    parts.before = b"#!/bin/sh\nexit 1\n"


def set_before_unsaid(parts: Parts) -> None:
    set_before(parts)
    parts.moved = -len(parts.before)


def unicode_path(name: str) -> bytes:
    return b"\1" + struct.pack("<L", zlib.crc32(b"demo/a.py")) + name.encode()


# What zipfile, at least, reads without a complaint.
READ_BY_OTHERS: dict[str, Callable[[Parts], None]] = {
    "a script before it": set_before,
    "a script before it, offsets as without": set_before_unsaid,
    "another archive before it": second_archive,
    "bytes between entries": lambda p: setattr(p, "gap", b"hidden"),
    "an entry that the directory lacks": lambda p: setattr(p, "gap", bytes(p.local[1])),
    "bytes before the directory": lambda p: setattr(p, "after_entries", b"hidden"),
    "bytes after the end": lambda p: setattr(p, "after", b"hidden"),
    "another end after the end": lambda p: setattr(p, "after", b"PK\5\6" + bytes(10)),
    "fewer entries than it says": lambda p: setattr(p, "count", 1),
    "more entries than it says": lambda p: setattr(p, "count", -1),
    "another checksum in the entry": local(14, b"\1\2\3\4"),
    "another packed size in the entry": local(18, b"\1\0\0\0"),
    "another size in the entry": local(22, b"\1\0\0\0"),
    "no size in the entry": local(14, bytes(12)),
    "other flags in the entry": local(6, b"\2\0"),
    "UTF-8 in the entry only": local(6, b"\0\x08"),
    "another method in the entry": local(8, b"\0\0"),
    "another checksum after the entry": lambda p: with_descriptor(p, crc=1),
    "a checksum after the entry": with_descriptor,
    "ZIP64's sizes": with_extra(1, bytes(16)),
    "another name in an extra field": with_extra(0x7075, unicode_path("demo/b.py")),
    "another name in an extra field of the directory": with_extra(
        0x7075, unicode_path("demo/b.py"), central=True
    ),
    "an extra field cut short": with_extra(0xCAFE, b""),
    "bytes behind the compressed ones": hidden_in_content,
}


def cut_short(parts: Parts) -> None:
    READ_BY_OTHERS["an extra field cut short"](parts)
    struct.pack_into("<H", parts.local[0], 28 + 2 + len(parts.names[0]) + 2, 99)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    files = {"demo/a.py": "a = 1\n" * 50, "demo/b.py": "b = 1\n", "demo/empty": ""}
    return support.make_wheel(tmp_path / "made", "demo", "1.0", files)


@pytest.mark.parametrize("way", READ_BY_OTHERS)
def test_what_readers_read_differently_is_refused(wheel: Path, way: str) -> None:
    parts = split(wheel)
    assert parts.joined() == wheel.read_bytes()
    attack = cut_short if "cut short" in way else READ_BY_OTHERS[way]
    attack(parts)
    wheel.write_bytes(parts.joined())
    if "after the end" not in way:
        # Without a strict reader the file is a wheel like any other.
        with zipfile.ZipFile(wheel) as archive:
            assert "demo/a.py" in archive.namelist()
    with pytest.raises(InputError) as caught:
        check_record(read_wheel(wheel))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("files", [1, 50])
def test_a_wheel_that_unpacks_to_too_much_is_refused_unread(tmp_path: Path, files: int) -> None:
    content = bytes((RATIO_FLOOR + (1 << 20)) // files)
    wheel = support.make_wheel(
        tmp_path, "demo", "1.0", {f"demo/{n}.bin": content for n in range(files)}
    )
    assert wheel.stat().st_size < 1 << 20
    with pytest.raises(InputError, match="unpacks to too much") as caught:
        read_wheel(wheel)
    assert "at most 64 MiB, 50 times its own size" in str(caught.value)


def test_a_file_that_is_larger_than_stated_is_not_unpacked(tmp_path: Path) -> None:
    wheel = support.make_wheel(tmp_path, "demo", "1.0", {"demo/a.bin": bytes(100 << 20)})
    parts = split(wheel)
    for part, at in ((parts.local[0], 22), (parts.central[0], 24)):
        struct.pack_into("<L", part, at, 1000)
    wheel.write_bytes(parts.joined())
    entry = read_archive(wheel)["demo/a.bin"]
    tracemalloc.start()
    with pytest.raises(InputError, match="is not one whole compressed file"):
        entry.content()
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


SPECIAL: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("way", SPECIAL)
def test_what_is_no_regular_file_is_refused_unread(tmp_path: Path, way: str) -> None:
    SPECIAL[way](tmp_path / "demo-1.0-py3-none-any.whl")
    with pytest.raises(InputError):
        read_archive(tmp_path / "demo-1.0-py3-none-any.whl")
    problem, *_ = check_release(tmp_path).problems
    assert problem.startswith("demo-1.0-py3-none-any.whl: ")


@pytest.mark.parametrize("name", [SUMS, SIGNATURE])
@pytest.mark.parametrize("way", ["a FIFO", "a device", "a folder"])
def test_sums_that_are_no_regular_file_are_refused_unread(
    tmp_path: Path, way: str, name: str
) -> None:
    support.make_wheel(tmp_path, "demo", "1.0", {"demo.py": ""})
    support.write(tmp_path, {SUMS: "", SIGNATURE: "{}"})
    (tmp_path / name).unlink()
    SPECIAL[way](tmp_path / name)
    problems = check_release(tmp_path, trusted={"key": "00" * 32}).problems
    assert f"there is no file {name}, so it is not signed" in problems
