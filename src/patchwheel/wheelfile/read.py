"""Wheels as files: what is read is sound, what is written has a true RECORD."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING

from patchwheel.kit.digest import file_sha256
from patchwheel.kit.errors import InputError
from patchwheel.wheelfile.archive import make_entry, read_archive, refuse, write_archive
from patchwheel.wheelfile.metadata import normal, parse_filename

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from patchwheel.wheelfile.archive import Entry
    from patchwheel.wheelfile.metadata import WheelName

# Beside RECORD itself only its detached signatures are not in it.
UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")


class WheelFile:
    """A wheel that was read whole and found sound; `entries` are its files in the archive's order."""

    def __init__(
        self, path: Path, name: WheelName, dist_info: str, entries: dict[str, Entry]
    ) -> None:
        self.path = path
        self.name = name
        self.dist_info = dist_info
        self.entries = entries

    def metadata(self, name: str) -> bytes:
        """Return a file of the dist-info folder, checked against RECORD where RECORD lists it."""
        entry = self.entries.get(f"{self.dist_info}/{name}")
        if entry is None:
            refuse(self.path, f"has no {self.dist_info}/{name}")
        return entry.content() if name in UNRECORDED else entry.checked()


def read_wheel(path: Path, *, sha256: str | None = None) -> WheelFile:
    """Read a wheel; raises InputError when its bytes are not `sha256` or when anything in it is unsound.

    An entry's bytes are compared with RECORD only when they are asked for (`Entry.checked`, `check_record`).
    """
    name = parse_filename(path.name, where=path)
    if sha256 is not None and (actual := file_sha256(path)) != sha256:
        raise InputError(
            "has other bytes than pinned",
            where=path,
            expected=f"sha256 {sha256}, and it is {actual}",
            hint="remove the file; it is fetched again",
        )
    entries = read_archive(path)
    dist_info = _dist_info(path, name, entries)
    hashes = _record(path, dist_info, entries)
    known = {n: replace(e, sha256=hashes.get(n, "")) for n, e in entries.items()}
    return WheelFile(path, name, dist_info, known)


def write_wheel(path: Path, dist_info: str, entries: Iterable[Entry]) -> None:
    """Write entries in their order, those of the dist-info folder last and a true RECORD at the very end."""
    ordered = sorted(entries, key=lambda e: e.name.startswith(f"{dist_info}/"))
    record = f"{dist_info}/RECORD"
    rows = "".join(_record_row(e) for e in ordered) + f"{record},,\n"
    last = make_entry(record, rows.encode(), mode=0o644, date=ordered[-1].date)
    write_archive(path, [*ordered, last])


def check_record(wheel: WheelFile, *, trusted: WheelFile | None = None) -> None:
    """Compare every file with RECORD, except those that are in `trusted` with the same bytes and hash."""
    known = trusted.entries if trusted else {}
    for entry in wheel.entries.values():
        if entry.name in {f"{wheel.dist_info}/{name}" for name in UNRECORDED}:
            continue
        before = known.get(entry.name)
        if before is None or before != replace(entry, mode=before.mode):
            entry.checked()


def output_names(found: Iterable[str], name: WheelName) -> dict[str, str]:
    """Map what a build calls its outputs to their names in the wheel; the dist-info folder is not an output."""
    return {name.plain(n): n for n in found if ".dist-info/" not in n}


def _dist_info(path: Path, name: WheelName, found: Iterable[str]) -> str:
    folders = sorted({n.split("/")[0] for n in found if ".dist-info/" in n})
    folders = [folder for folder in folders if folder.endswith(".dist-info")]
    if len(folders) != 1:
        refuse(path, f"has {len(folders)} dist-info folders, not one")
    if normal(folders[0].removesuffix(".dist-info")) != normal(name.stem):
        refuse(path, f"its dist-info folder is {folders[0]}")
    return folders[0]


def _record(path: Path, dist_info: str, entries: dict[str, Entry]) -> dict[str, str]:
    record = entries.get(f"{dist_info}/RECORD")
    if record is None:
        refuse(path, "has no RECORD")
    try:
        rows = list(csv.reader(io.StringIO(record.content().decode())))
    except (UnicodeDecodeError, csv.Error) as err:
        raise InputError(f"its RECORD cannot be read: {err}", where=path) from err
    hashes = {}
    for row in rows:
        if len(row) != 3 or row[0] in hashes:  # noqa: PLR2004  (path, hash, size)
            refuse(path, f"its RECORD has the row {row}")
        name, hashed, size = row
        hashes[name] = hashed
        if name in {f"{dist_info}/{n}" for n in UNRECORDED}:
            continue
        if name not in entries:
            refuse(path, f"its RECORD lists {name}, which it lacks")
        if not hashed.startswith("sha256=") or size != str(entries[name].size):
            refuse(path, f"its RECORD gives no true hash and size for {name}")
    unlisted = entries.keys() - hashes.keys()
    for name in sorted(unlisted - {f"{dist_info}/{n}" for n in UNRECORDED}):
        refuse(path, f"its RECORD lacks {name}")
    return hashes


def _record_row(entry: Entry) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([entry.name, entry.sha256, entry.size])
    return out.getvalue()
