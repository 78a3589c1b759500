"""Read wheels strictly, and write them with a true RECORD."""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from patchwheel.kit import InputError, digest, file_sha256
from patchwheel.wheelfile.archive import Entry, make_entry, read_archive, refuse, write_archive
from patchwheel.wheelfile.metadata import WheelName, normalize_name, parse_filename, same_version
from patchwheel.wheelfile.record import FILENAME, WheelRecord, parse_record
from patchwheel.wheelfile.sbom import PLACE

if TYPE_CHECKING:
    from installer.records import RecordEntry

# Beside RECORD itself only its detached signatures are not listed in it.
UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")
# Members that Python runs at its start, that are installed outside of site-packages, or that make
# commands.
RUNS = re.compile(
    r"([^/]+\.data/(pure|plat)lib/)?([^/]+\.pth|(site|user)customize[./].*)"
    r"|[^/]+\.data/(scripts|data)/.*|[^/]+\.dist-info/entry_points\.txt"
)


@dataclass(frozen=True, kw_only=True)
class WheelFile:
    """A wheel that was read whole; `entries` are its files by name, in the archive's order."""

    path: Path
    name: WheelName
    dist_info: str
    entries: dict[str, Entry]

    @functools.cached_property
    def sha256(self) -> str:
        return file_sha256(self.path)

    @functools.cached_property
    def record(self) -> WheelRecord:
        """What it was made from; raises InputError when it has no record that can be read."""
        return parse_record(self.metadata(FILENAME), where=self.path)

    @property
    def project(self) -> str:
        return normalize_name(self.name.name)

    def metadata(self, name: str) -> bytes:
        """Return a file of the dist-info folder, checked against RECORD where RECORD lists it."""
        entry = self.entries.get(f"{self.dist_info}/{name}")
        if entry is None:
            refuse(self.path, f"has no {self.dist_info}/{name}")
        return entry.content() if name in UNRECORDED else entry.checked()

    def is_unrecorded(self, name: str) -> bool:
        return name in {f"{self.dist_info}/{unrecorded}" for unrecorded in UNRECORDED}


def read_wheel(path: Path, *, sha256: str | None = None) -> WheelFile:
    """Read a wheel whose RECORD lists exactly its files.

    Raises InputError when it is unsound or has another sha256 than given. The entries' bytes are
    compared with RECORD when they are used (`Entry.checked`, `check_record`).
    """
    name = parse_filename(path.name, where=path)
    if sha256 is not None and (actual := file_sha256(path)) != sha256:
        problem = f"sha256 mismatch: it is {actual}"
        hint = "remove the file; it is fetched again"
        raise InputError(problem, where=path, expected=f"sha256 {sha256}", hint=hint)
    entries = read_archive(path)
    dist_info = _dist_info(path, name, entries)
    wheel = WheelFile(path=path, name=name, dist_info=dist_info, entries=entries)
    hashes = _recorded_hashes(wheel)
    recorded = {n: replace(e, sha256=hashes.get(n, "")) for n, e in entries.items()}
    return replace(wheel, entries=recorded)


def write_wheel(path: Path, dist_info: str, entries: Iterable[Entry]) -> None:
    """Write entries in their order, the dist-info folder's last, with a new RECORD at the end."""
    ordered = sorted(entries, key=lambda e: e.name.startswith(f"{dist_info}/"))
    record = f"{dist_info}/RECORD"
    rows = [(e.name, e.sha256, e.size) for e in ordered]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*rows, (record, "", "")])
    last = make_entry(record, text.getvalue().encode(), mode=0o644, date=ordered[-1].date)
    write_archive(path, [*ordered, last])


def check_record(wheel: WheelFile, *, trusted: WheelFile | None = None) -> None:
    """Compare every file with RECORD, except those that `trusted` has with the same bytes."""
    known = trusted.entries if trusted else {}
    for name, entry in wheel.entries.items():
        same = name in known and known[name] == replace(entry, mode=known[name].mode)
        if not same and not wheel.is_unrecorded(name):
            entry.checked()


def members(entries: Iterable[Entry], dist_info: str) -> tuple[str, tuple[str, ...]]:
    """Return the digest of a wheel's members, and the names of those that run by themselves.

    Without RECORD, and without what follows from the wheel's record.
    """
    made = {f"{dist_info}/{name}" for name in ("RECORD", FILENAME, PLACE)}
    rows = sorted((e.name, e.sha256, e.mode) for e in entries if e.name not in made)
    return digest(rows), tuple(name for name, *_ in rows if RUNS.fullmatch(name))


def output_names(files: Iterable[str], name: WheelName) -> dict[str, str]:
    """Map what a build calls its outputs to names in the wheel; dist-info is no output."""
    # Only the name of the data folder carries the version, with the label of a wheel of ours.
    labelled, plain = f"{name.stem}.data/", f"{name.stem.partition('+')[0]}.data/"
    return {
        plain + n.removeprefix(labelled) if n.startswith(labelled) else n: n
        for n in files
        if ".dist-info/" not in n
    }


def _dist_info(path: Path, name: WheelName, files: Iterable[str]) -> str:
    tops = {n.partition("/")[0] for n in files if "/" in n}
    folders = sorted(top for top in tops if top.endswith(".dist-info"))
    if len(folders) != 1:
        refuse(path, f"has {len(folders)} dist-info folders, not one")
    project, _, version = folders[0].removesuffix(".dist-info").rpartition("-")
    same = normalize_name(project) == normalize_name(name.name)
    if not same or not same_version(version, name.version):
        refuse(path, f"its dist-info folder is {folders[0]}")
    return folders[0]


def _recorded_hashes(wheel: WheelFile) -> dict[str, str]:
    path, entries = wheel.path, wheel.entries
    hashes: dict[str, str] = {}
    for row in _record_rows(wheel):
        if row.path in hashes:
            refuse(path, f"its RECORD has the row {row.to_row()} after another one of the file")
        hashes[row.path] = str(row.hash_ or "")
        if wheel.is_unrecorded(row.path):
            continue
        if row.path not in entries:
            refuse(path, f"its RECORD lists {row.path}, which it lacks")
        # The format allows other hashes than sha256; nobody writes them.
        is_sha256 = row.hash_ and row.hash_.name == "sha256"
        if not is_sha256 or row.size != entries[row.path].size:
            refuse(path, f"its RECORD gives no true hash and size for {row.path}")
    for name in sorted(entries.keys() - hashes.keys()):
        if not wheel.is_unrecorded(name):
            refuse(path, f"its RECORD lacks {name}")
    return hashes


def _record_rows(wheel: WheelFile) -> list[RecordEntry]:
    from installer.records import InvalidRecordEntry, RecordEntry, parse_record_file

    try:
        rows = parse_record_file(io.StringIO(wheel.metadata("RECORD").decode()))
        return [RecordEntry.from_elements(*row) for row in rows]
    except InvalidRecordEntry as err:
        refuse(wheel.path, f"its RECORD has the row {err.elements}: {err}")
    except (UnicodeDecodeError, csv.Error) as err:
        refuse(wheel.path, f"its RECORD cannot be read: {err}")
