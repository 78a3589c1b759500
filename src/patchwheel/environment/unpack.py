"""Unpacks a wheel into a folder; files that an earlier one has too are hard links."""

from __future__ import annotations

import csv
import os
import re
from typing import TYPE_CHECKING

from patchwheel.wheelfile import read_wheel

if TYPE_CHECKING:
    from pathlib import Path

SCHEME = re.compile(r"[^/]+\.data/(purelib|platlib)/")


def unpack(wheel: Path, folder: Path, before: Path | None) -> None:
    """Unpack a wheel so that it can be imported; equal files of `before` are linked.

    The bytecode beside a linked file is linked too: it names date and size of that file.
    """
    known = _hashes(before) if before else {}
    seen: set[Path] = set()
    for entry in read_wheel(wheel).entries.values():
        place = SCHEME.sub("", entry.name)
        target = folder / place
        if target.parent not in seen:
            target.parent.mkdir(parents=True, exist_ok=True)
            seen.add(target.parent)
        same = entry.sha256 and known.get(entry.name) == entry.sha256
        if not (before and same and _linked(before / place, target)):
            target.write_bytes(entry.content())
            target.chmod(entry.mode)
        elif target.suffix == ".py":
            _link_bytecode(before / place, target)


def _hashes(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in folder.glob("*.dist-info/RECORD"):
        with path.open(newline="", encoding="utf-8") as stream:
            found |= {row[0]: row[1] for row in csv.reader(stream)}
    return found


def _link_bytecode(source: Path, target: Path) -> None:
    for path in source.parent.glob(f"__pycache__/{source.stem}.*.pyc"):
        cache = target.parent / "__pycache__"
        cache.mkdir(exist_ok=True)
        _linked(path, cache / path.name)


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:
        # Gone meanwhile, or the file system has no more links to give.
        return False
    return True
