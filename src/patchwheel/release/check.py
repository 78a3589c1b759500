"""Folders of release wheels: completed when they were built, checked offline, and made into an index.

A check makes again, from each wheel's own record, all that must follow from it, and names what is otherwise.
"""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchwheel.build import cuda
from patchwheel.build.requirements import env_key
from patchwheel.kit.digest import digest, file_sha256
from patchwheel.kit.distribution import Distribution
from patchwheel.kit.errors import CheckError, InputError, MachineError
from patchwheel.kit.files import write_atomically
from patchwheel.release.files import (
    PYLOCK,
    SIMPLE,
    SUMS,
    Published,
    companions,
    parse_sums,
    read_published,
    simple_index,
    sums,
)
from patchwheel.wheel.fit import Policies, load_policies
from patchwheel.wheel.make import RECORD_SCHEMA, names_itself
from patchwheel.wheelfile import metadata
from patchwheel.wheelfile.elf import MAGIC, read_library
from patchwheel.wheelfile.read import check_record
from patchwheel.wheelfile.sbom import SBOM, STATEMENT, difference, sbom

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

LABELLED = re.compile(r"([^+]+)\+(.+)\.h([0-9a-f]{8})(\.graft)?")
MANYLINUX = re.compile(r"manylinux(?:_\d+_\d+|\d+)_(\w+)")
MODULE = re.compile(r"\.cpython-(\d+)-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was looked at: the wheels that could be read, and every lie that was found."""

    wheels: tuple[Published, ...]
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        rows = [
            {"file": w.path.name, "sha256": w.sha256, "made": json.loads(w.record)}
            for w in self.wheels
        ]
        return {"wheels": rows, "problems": list(self.problems)}

    def check(self, where: Path) -> None:
        if self.problems:
            raise CheckError(
                f"{len(self.problems)} things are not what they must be:"
                + "".join(f"\n  - {problem}" for problem in self.problems),
                where=where,
                hint="do not publish or install these; build them again, or fetch them again from where they were published",
            )


def complete(folder: Path) -> None:
    """Write what belongs beside the release wheels of a folder; grafts in it are left out."""
    wheels = [read_published(path) for path in sorted(folder.rglob("*.whl")) if _ours(path)]
    files = companions(folder, wheels)
    for name, content in files.items():
        write_atomically(folder / name, content)
    listed = [*files, *(w.path.relative_to(folder).as_posix() for w in wheels)]
    write_atomically(folder / SUMS, sums(folder, listed))


def inspect(path: Path, *, pages: bool = True) -> Checked:
    """Check a wheel, or all that is in a folder, against themselves and each other; nothing is fetched.

    Without `pages` a simple index in the folder is left alone.
    """
    folder = path if path.is_dir() else path.parent
    paths = sorted(path.rglob("*.whl")) if path.is_dir() else [path]
    if not paths:
        raise InputError(
            "there is no wheel in it",
            where=path,
            expected="a wheel, or a folder of them",
        )
    wheels: list[Published] = []
    problems: list[str] = []
    for one in paths:
        name = one.relative_to(folder).as_posix()
        try:
            wheel = read_published(one)
            check_record(wheel.wheel)
            problems += [f"{name}: {why}" for why in _wheel_problems(wheel)]
            wheels.append(wheel)
        except InputError as err:
            inside = str(err.where).partition(": ")[2]
            problems.append(f"{name}: {inside}{inside and ' '}{err.message}")
    if path.is_dir():
        # What was gathered for an index from several builds gets its sums and lock with it.
        if pages or any(path.rglob(SUMS)):
            problems += _folder_problems(folder, wheels, pages=pages)
    else:
        problems += _beside(folder, wheels)
    return Checked(wheels=tuple(wheels), problems=tuple(problems))


def make_index(folder: Path) -> list[str]:
    """Write a simple index over the release wheels of a folder and return the projects in it.

    Nothing is written unless everything in the folder is true, none is a graft, and no name stands for two files,
    there or in the index that was there before.
    """
    checked = inspect(folder, pages=False)
    problems = list(checked.problems)
    known = dict(_indexed(folder))
    for wheel in checked.wheels:
        name = wheel.path.name
        if not _ours(wheel.path):
            problems.append(f"{name}: is a graft; only compiled wheels are published")
        before = known.setdefault(name, wheel.sha256)
        if before != wheel.sha256:
            problems.append(
                f"{name}: another file of this name, with sha256 {before}, is in the folder or was in its index"
            )
    Checked(wheels=(), problems=tuple(problems)).check(folder)
    complete(folder)
    for name, content in simple_index(folder, checked.wheels).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, content)
    return sorted({wheel.project for wheel in checked.wheels})


def _ours(path: Path) -> bool:
    match = LABELLED.fullmatch(path.name.split("-")[1])
    return match is not None and not match[4]


def _wheel_problems(wheel: Published) -> Iterator[str]:
    said, named = names_itself(wheel.wheel)
    if said != named:
        yield f"METADATA and WHEEL say {said}, and its name {named}"
    try:
        data = json.loads(wheel.record)
        if data["schema"] != RECORD_SCHEMA:
            yield f"its record has schema {data['schema']}, and this patchwheel reads {RECORD_SCHEMA}"
            return
        yield from _label_problems(wheel, data)
        yield from _sbom_problems(wheel, data)
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        yield f"its record or an SBOM cannot be read: {err!r}"
    # A graft keeps the platform tag of its base, which may be untrue: CuPy's own wheels need more than theirs.
    if _ours(wheel.path):
        yield from _platform_problems(wheel)


def _label_problems(wheel: Published, data: Mapping[str, Any]) -> Iterator[str]:
    """Compare version and label with the record's key, and the key with what it was made of."""
    label = LABELLED.fullmatch(wheel.version)
    if label is None:
        yield f"its version {wheel.version} carries no label"
        return
    key, route, compiled = data["key"], data["route"], data["compiled"]
    spelled = metadata.field(wheel.metadata, "Name")[0]
    rows = [
        ("version", data["version"], wheel.version),
        ("pin.version", data["pin"]["version"], label[1]),
        ("route", route, "graft" if label[4] else "compile"),
        ("digest of key", digest(key)[:8], label[3]),
        ("key.tree", key["tree"], data["trees"]["patched"]),
        ("key.base", key["base"], data["base"]["sha256"] if data["base"] else "none"),
        ("key.wheel", key["wheel"], digest([spelled, label[1], label[2]])),
    ]
    if "toolchain" in key:
        tools, requirements = compiled["toolchain"], compiled["build-requirements"]
        python = re.search(r"(\d+)\.(\d+)", tools["python"]["version"])
        tag = f"cp{python[1]}{python[2]}" if python else ""
        locked = [
            Distribution(name=name, version=version, hashes=tuple(hashes))
            for name, version, *hashes in requirements
        ]
        rows += [
            ("key.env", key["env"], env_key(locked, tag)),
            (
                "key.toolchain",
                key["toolchain"],
                digest({name: tool["identity"] for name, tool in tools.items()}),
            ),
        ]
    for name, found, expected in rows:
        if found != expected:
            yield f"its record's {name} is {found}, and {expected} follows from the rest of the wheel"


def _sbom_problems(wheel: Published, data: Mapping[str, Any]) -> Iterator[str]:
    info, entries = wheel.wheel.dist_info, wheel.wheel.entries
    ours = entries.get(f"{info}/{SBOM}")
    if data["route"] == "compile":
        if ours is None:
            yield f"has no {SBOM}"
        else:
            yield from _otherwise(SBOM, ours.content(), sbom(wheel.record, wheel.project))
    for name, entry in entries.items():
        if name.startswith(f"{info}/sboms/") and entry is not ours:
            subject = json.loads(entry.content()).get("metadata", {}).get("component", {})
            about_us = metadata.normal(subject.get("name", "")) == wheel.project
            if about_us and subject.get("version") != wheel.version:
                yield f"{name} is about version {subject.get('version')}"


def _otherwise(name: str, found: bytes, expected: bytes) -> Iterator[str]:
    """Say in which field a file is not what follows from the wheels."""
    if found == expected:
        return
    read = {".json": json.loads, ".toml": tomllib.loads}.get(Path(name).suffix)
    try:
        told, due = (read(c.decode()) if read else c for c in (found, expected))
        why = difference(told, due) if read else None
        yield f"{name}: {why or 'is written in another way than from the wheels'}"
    except ValueError as err:
        yield f"{name}: cannot be read: {err}"


def _platform_problems(wheel: Published) -> Iterator[str]:
    """Compare what the libraries need with what auditwheel's policy promises for the platform tag."""
    _, abi, platforms = wheel.wheel.name.tags.split("-")
    entries = wheel.wheel.entries
    contents = {name: entry.content() for name, entry in entries.items()}
    libraries = {n: read_library(c) for n, c in contents.items() if c.startswith(MAGIC)}
    bundled = {Path(name).name for name in libraries}
    for name in libraries:
        made_for = MODULE.search(name)
        if made_for and f"cp{made_for[1]}" not in abi.split("."):
            yield f"{name} is for another Python than its tag {abi}"
    for platform in platforms.split(".") if libraries else ():
        match = MANYLINUX.fullmatch(platform)
        policies = _policies(match[1]) if match else None
        if policies is None or platform not in policies.tags:
            yield f"its platform tag {platform} is no manylinux tag, and it holds libraries"
            continue
        for name, library in libraries.items():
            if not policies.admits(platform, library.versions):
                yield f"{name} needs more than its platform tag {platform} promises"
            for need in set(library.needed) - policies.libraries - bundled:
                theirs = any(fnmatchcase(need, glob) for glob in cuda.LIBRARIES)
                if not theirs and not need.startswith("ld-linux"):
                    yield f"{name} needs {need}, which neither the wheel nor {platform} has"


@cache
def _policies(machine: str) -> Policies:
    found = importlib.util.find_spec("auditwheel")
    if found is None or found.origin is None:
        raise MachineError(
            "auditwheel is not installed, and its policies say what a platform tag promises",
            hint="install patchwheel again, with its dependency auditwheel",
        )
    return load_policies(Path(found.origin).parent.parent, machine)


def _folder_problems(folder: Path, wheels: Sequence[Published], *, pages: bool) -> Iterator[str]:
    released = [wheel for wheel in wheels if _ours(wheel.path)]
    listed: set[Path] = set()
    for file in sorted(folder.rglob(SUMS)):
        for name, why in _sums_problems(file, listed):
            yield f"{(file.parent / name).relative_to(folder)}: {why}"
    for pattern in ("*.whl", f"*{STATEMENT}", PYLOCK):
        for file in sorted(folder.rglob(pattern)):
            if file not in listed:
                yield f"{file.relative_to(folder)}: is in no {SUMS}"
    yield from _companion_problems(folder, released, pages=pages)


def _companion_problems(
    folder: Path, released: Sequence[Published], *, pages: bool
) -> Iterator[str]:
    """Compare statements, locks and pages of the index with what follows from the wheels below them."""
    places = sorted({path.parent for path in folder.rglob(PYLOCK)})
    for wheel in released:
        if not any(wheel.path.is_relative_to(place) for place in places):
            yield f"{wheel.path.relative_to(folder)}: is in no {PYLOCK}"
    for place in places:
        inside = [w for w in released if w.path.is_relative_to(place)]
        due = companions(place, inside)
        if pages and (place / SIMPLE).is_dir():
            due |= simple_index(place, inside)
        for name, content in due.items():
            file, shown = place / name, str((place / name).relative_to(folder))
            if file.is_file():
                yield from _otherwise(shown, file.read_bytes(), content)
            else:
                yield f"{shown}: is missing"


def _beside(folder: Path, wheels: Iterable[Published]) -> Iterator[str]:
    """Check what is said of a single wheel in its folder, where anything is."""
    for wheel in wheels:
        name = f"{wheel.path.name}{STATEMENT}"
        if _ours(wheel.path) and (folder / name).is_file():
            due = companions(folder, [wheel])[name]
            yield from _otherwise(name, (folder / name).read_bytes(), due)
        if (folder / SUMS).is_file():
            for listed, why in _sums_problems(folder / SUMS, set()):
                if listed in {wheel.path.name, name}:
                    yield f"{listed}: {why}"


def _sums_problems(file: Path, listed: set[Path]) -> Iterator[tuple[str, str]]:
    """Compare files with their sums, which are added to `listed`."""
    try:
        rows = parse_sums(file.read_text("utf-8"))
    except ValueError as err:
        yield SUMS, f"cannot be read: {err}"
        return
    for name, sha256 in rows.items():
        path = file.parent / name
        listed.add(path)
        if not path.is_file():
            yield name, f"is in {SUMS}, and missing"
        elif file_sha256(path) != sha256:
            yield name, f"has another sha256 than {SUMS} says"


def _indexed(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield name and sha256 of the files in the index that is there."""
    for page in sorted((folder / SIMPLE).glob("*/index.json")):
        try:
            rows = json.loads(page.read_text("utf-8"))["files"]
            yield from ((row["filename"], row["hashes"]["sha256"]) for row in rows)
        except (ValueError, KeyError, TypeError) as err:
            raise InputError(
                f"is no page of an index: {err!r}",
                where=page,
                hint=f"remove {SIMPLE}; it is made again",
            ) from err
