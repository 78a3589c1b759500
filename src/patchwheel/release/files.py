"""The files beside release wheels, as bytes: statements, pylock.toml, SHA256SUMS, simple index."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from patchwheel.kit.digest import file_sha256
from patchwheel.release.provenance import make_statement
from patchwheel.wheelfile import metadata
from patchwheel.wheelfile.read import WheelFile, read_wheel
from patchwheel.wheelfile.record import STATEMENT, WheelRecord, read_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

LABELLED = re.compile(
    r"(?P<upstream>[^+]+)\+(?P<label>.+)\.h(?P<key>[0-9a-f]{8})(?P<graft>\.graft)?"
)
SUMS = "SHA256SUMS"
PYLOCK = "pylock.toml"
SIMPLE = "simple"
API = "1.1"
PAGE = """<!DOCTYPE html>
<html><head><meta name="pypi:repository-version" content="{api}"><title>{title}</title></head><body>
{links}
</body></html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledWheel:
    """A wheel that patchwheel made, read once: the release's files all follow from it."""

    wheel: WheelFile
    sha256: str
    record: WheelRecord

    @property
    def path(self) -> Path:
        return self.wheel.path

    @property
    def project(self) -> str:
        return metadata.normalize_name(self.wheel.name.name)

    @property
    def version(self) -> str:
        return self.wheel.name.version

    @property
    def metadata(self) -> bytes:
        return self.wheel.metadata("METADATA")

    @property
    def is_release(self) -> bool:
        """Whether it may be published: compiled, by its name and by its record."""
        return is_release_wheel(self.path) and self.record.route == "compile"


def is_release_wheel(path: Path) -> bool:
    """Tell by its file name whether a wheel has a label and is no graft."""
    label = LABELLED.fullmatch(path.name.split("-")[1])
    return label is not None and not label["graft"]


def read_labelled(path: Path) -> LabelledWheel:
    """Read a wheel that patchwheel made; raises InputError when it is unsound or has no record."""
    wheel = read_wheel(path)
    return LabelledWheel(wheel=wheel, sha256=file_sha256(path), record=read_record(wheel))


def sidecars(folder: Path, wheels: Sequence[LabelledWheel]) -> dict[str, bytes]:
    """Return the statement of each wheel, and the pylock.toml of the set, by path in the folder."""
    statements = {
        f"{_place(w, folder)}{STATEMENT}": make_statement(w.record, w.path.name, w.sha256)
        for w in wheels
    }
    return {**statements, PYLOCK: _pylock(folder, wheels)}


def sums_of(folder: Path, names: Iterable[str]) -> bytes:
    """Return SHA256SUMS of the named files of a folder."""
    rows = [f"{file_sha256(folder / name)}  {name}\n" for name in sorted(names)]
    return "".join(rows).encode()


def parse_sums(text: str) -> dict[str, str]:
    """Return sha256 by path; raises ValueError for a line of another form."""
    sums: dict[str, str] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        if match is None or match[2] in sums:
            raise ValueError(line)
        sums[match[2]] = match[1]
    return sums


def simple_index(folder: Path, wheels: Sequence[LabelledWheel]) -> dict[str, bytes]:
    """Return the pages of a simple index and the wheels' metadata files, by path in the folder."""
    projects: dict[str, list[dict[str, Any]]] = {}
    files: dict[str, bytes] = {}
    for wheel in _unique(wheels):
        place = _place(wheel, folder)
        files[f"{place}.metadata"] = wheel.metadata
        row = _row(wheel, f"../../{quote(place)}")
        projects.setdefault(wheel.project, []).append(row)
    files |= _pages(
        SIMPLE,
        "Simple index",
        {"projects": [{"name": name} for name in sorted(projects)]},
        [f'<a href="{name}/">{name}</a><br>' for name in sorted(projects)],
    )
    versions = {name: {w.version for w in wheels if w.project == name} for name in projects}
    for name, rows in projects.items():
        answer = {"name": name, "versions": sorted(versions[name]), "files": rows}
        files |= _pages(f"{SIMPLE}/{name}", f"Links for {name}", answer, map(_link, rows))
    return files


def _pages(
    place: str, title: str, answer: Mapping[str, object], links: Iterable[str]
) -> dict[str, bytes]:
    page = PAGE.format(api=API, title=title, links="\n".join(links))
    data = {"meta": {"api-version": API}, **answer}
    return {
        f"{place}/index.html": page.encode(),
        f"{place}/index.json": (json.dumps(data, indent=1) + "\n").encode(),
    }


def _row(wheel: LabelledWheel, url: str) -> dict[str, Any]:
    hashed = {"sha256": hashlib.sha256(wheel.metadata).hexdigest()}
    python = metadata.field(wheel.metadata, "Requires-Python")
    return {
        "filename": wheel.path.name,
        "url": url,
        "hashes": {"sha256": wheel.sha256},
        "size": wheel.path.stat().st_size,
        **({"requires-python": python[0]} if python else {}),
        # The first is PEP 714's name, the second the one that older installers know.
        "core-metadata": hashed,
        "dist-info-metadata": hashed,
    }


def _link(row: Mapping[str, Any]) -> str:
    attributes = {
        "href": f"{row['url']}#sha256={row['hashes']['sha256']}",
        "data-requires-python": row.get("requires-python"),
        "data-core-metadata": f"sha256={row['core-metadata']['sha256']}",
        "data-dist-info-metadata": f"sha256={row['core-metadata']['sha256']}",
    }
    text = " ".join(f'{k}="{escape(v)}"' for k, v in attributes.items() if v)
    return f"<a {text}>{row['filename']}</a><br>"


def _pylock(folder: Path, wheels: Iterable[LabelledWheel]) -> bytes:
    import tomlkit

    packages = [
        {
            "name": wheel.project,
            "version": wheel.version,
            **_marker(wheel.wheel.name.tags),
            "wheels": [
                {
                    "name": wheel.path.name,
                    "path": _place(wheel, folder),
                    "size": wheel.path.stat().st_size,
                    "hashes": {"sha256": wheel.sha256},
                }
            ],
        }
        for wheel in _unique(wheels)
    ]
    lock = {"lock-version": "1.0", "created-by": "patchwheel", "packages": packages}
    return tomlkit.dumps(lock).encode()


def _marker(tags: str) -> dict[str, str]:
    """Return the marker that tells the wheels of one project for several Pythons apart."""
    match = re.match(r"cp(\d)(\d+)-cp", tags)
    return {"marker": f"python_version == '{match[1]}.{match[2]}'"} if match else {}


def _unique(wheels: Iterable[LabelledWheel]) -> list[LabelledWheel]:
    """Return the wheels sorted by file name; of several with one name the first."""
    by_name: dict[str, LabelledWheel] = {}
    for wheel in wheels:
        by_name.setdefault(wheel.path.name, wheel)
    return [by_name[name] for name in sorted(by_name)]


def _place(wheel: LabelledWheel, folder: Path) -> str:
    return wheel.path.relative_to(folder).as_posix()
