"""Checks release wheels and the files beside them: what follows from a record is made again."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from patchwheel.build import cuda, env_key
from patchwheel.kit import CheckError, InputError, digest, file_sha256
from patchwheel.release import files
from patchwheel.wheel import Policies, load_policies, names_itself
from patchwheel.wheelfile import MAGIC, STATEMENT, check_record, metadata, read_library, sbom

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from patchwheel.release.files import LabelledWheel
    from patchwheel.wheelfile import CompileRecord

MANYLINUX = re.compile(r"manylinux(?:_\d+_\d+|\d+)_(\w+)")
MODULE = re.compile(r"\.cpython-(\d+)-")
LOADERS = {".json": json.loads, ".toml": tomllib.loads}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseCheck:
    """The wheels that could be read, and everything that is wrong with what was checked."""

    wheels: tuple[LabelledWheel, ...]
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        rows = [
            {"file": w.path.name, "sha256": w.sha256, "made": w.record.to_json()}
            for w in self.wheels
        ]
        return {"wheels": rows, "problems": list(self.problems)}

    def check(self, where: Path) -> None:
        """Raise CheckError when there is a problem."""
        if self.problems:
            raise CheckError(
                "verification failed:" + "".join(f"\n  - {problem}" for problem in self.problems),
                where=where,
                hint="do not publish or install these; build or fetch them again",
            )


def check_release(path: Path, *, pages: bool = True) -> ReleaseCheck:
    """Check a wheel or all of a folder, without `pages` not the simple index; fetch nothing."""
    folder = path if path.is_dir() else path.parent
    paths = sorted(path.rglob("*.whl")) if path.is_dir() else [path]
    if not paths:
        raise InputError("there is no wheel in it", where=path, expected="a folder of wheels")
    wheels: list[LabelledWheel] = []
    problems: list[str] = []
    for file in paths:
        name = file.relative_to(folder).as_posix()
        try:
            wheel = files.read_labelled(file)
            check_record(wheel.wheel)
            problems += [f"{name}: {problem}" for problem in _wheel_problems(wheel)]
            wheels.append(wheel)
        except InputError as err:
            inside = str(err.where).partition(": ")[2]
            problems.append(f"{name}: {inside}{inside and ' '}{err.message}")
    if not path.is_dir():
        problems += _beside(folder, wheels)
    # Wheels of several builds that were gathered for an index get sums and lock with the index.
    elif pages or any(path.rglob(files.SUMS)):
        problems += [*_all_sums_problems(folder), *_sidecar_problems(folder, wheels, pages=pages)]
    return ReleaseCheck(wheels=tuple(wheels), problems=tuple(problems))


def _all_sums_problems(folder: Path) -> Iterator[str]:
    listed: set[Path] = set()
    for file in sorted(folder.rglob(files.SUMS)):
        for name, problem in _sums_problems(file, listed):
            yield f"{(file.parent / name).relative_to(folder)}: {problem}"
    for pattern in ("*.whl", f"*{STATEMENT}", files.PYLOCK):
        for file in sorted(folder.rglob(pattern)):
            if file not in listed:
                yield f"{file.relative_to(folder)}: is in no {files.SUMS}"


def _sidecar_problems(
    folder: Path, wheels: Sequence[LabelledWheel], *, pages: bool
) -> Iterator[str]:
    """Compare statements, locks and pages of the index with what follows from the wheels."""
    released = [wheel for wheel in wheels if wheel.is_release]
    places = sorted(path.parent for path in folder.rglob(files.PYLOCK))
    for wheel in released:
        if not any(wheel.path.is_relative_to(place) for place in places):
            yield f"{wheel.path.relative_to(folder)}: is in no {files.PYLOCK}"
    for place in places:
        inside = [w for w in released if w.path.is_relative_to(place)]
        expected = files.sidecars(place, inside)
        if pages and (place / files.SIMPLE).is_dir():
            expected |= files.simple_index(place, inside)
        for name, content in expected.items():
            file, shown = place / name, str((place / name).relative_to(folder))
            if file.is_file():
                yield from _file_differences(shown, file.read_bytes(), content)
            else:
                yield f"{shown}: is missing"


def _beside(folder: Path, wheels: Sequence[LabelledWheel]) -> Iterator[str]:
    # A wheel may have been fetched without them.
    for wheel in wheels:
        name = f"{wheel.path.name}{STATEMENT}"
        if wheel.is_release and (folder / name).is_file():
            expected = files.sidecars(folder, [wheel])[name]
            yield from _file_differences(name, (folder / name).read_bytes(), expected)
        if (folder / files.SUMS).is_file():
            for listed, problem in _sums_problems(folder / files.SUMS, set()):
                if listed in {wheel.path.name, name}:
                    yield f"{listed}: {problem}"


def _sums_problems(file: Path, listed: set[Path]) -> Iterator[tuple[str, str]]:
    """Yield the names whose sum is wrong, and add every file that has a sum to `listed`."""
    try:
        rows = files.parse_sums(file.read_text("utf-8"))
    except ValueError as err:
        yield files.SUMS, f"cannot be read: {err}"
        return
    for name, sha256 in rows.items():
        path = file.parent / name
        listed.add(path)
        if not path.is_file():
            yield name, f"is in {files.SUMS}, and missing"
        elif file_sha256(path) != sha256:
            yield name, f"has another sha256 than {files.SUMS} says"


def _wheel_problems(wheel: LabelledWheel) -> Iterator[str]:
    """Yield each contradiction in a wheel whose files were compared with RECORD before."""
    stated, expected = names_itself(wheel.wheel)
    if stated != expected:
        yield f"METADATA and WHEEL say {stated}, and its name {expected}"
    yield from _label_problems(wheel)
    yield from _sbom_problems(wheel)
    # A graft keeps its base's platform tag, which may promise too much: CuPy's own wheels do.
    if wheel.is_release:
        yield from _platform_problems(wheel)


def _label_problems(wheel: LabelledWheel) -> Iterator[str]:
    """Compare version and label with the record's key, and the key with what it was made of."""
    label = files.LABELLED.fullmatch(wheel.version)
    if label is None:
        yield f"its version {wheel.version} carries no label"
        return
    record, key = wheel.record, wheel.record.key
    spelled = "".join(metadata.field(wheel.metadata, "Name")[:1])
    rows = [
        ("version", record.version, wheel.version),
        ("pin.version", record.pin.version, label["upstream"]),
        ("route", record.route, "graft" if label["graft"] else "compile"),
        ("digest of key", digest(dict(key))[:8], label["key"]),
        ("key.tree", key.get("tree"), record.trees.patched),
        ("key.base", key.get("base"), record.base.sha256 if record.base else "none"),
        ("key.wheel", key.get("wheel"), digest([spelled, label["upstream"], label["label"]])),
    ]
    if compiled := record.compiled:
        tools = {name: tool.identity for name, tool in compiled.toolchain.items()}
        rows.append(("key.env", key.get("env"), _env_key(compiled)))
        rows.append(("key.toolchain", key.get("toolchain"), digest(tools)))
    for name, actual, expected in rows:
        if actual != expected:
            yield f"its record's {name} is {actual}, the rest of the wheel gives {expected}"


def _env_key(compiled: CompileRecord) -> str:
    python = compiled.toolchain.get("python")
    version = re.search(r"(\d+)\.(\d+)", python.version if python else "")
    return env_key(compiled.build_requirements, f"cp{version[1]}{version[2]}" if version else "")


def _sbom_problems(wheel: LabelledWheel) -> Iterator[str]:
    folder, entries = f"{wheel.wheel.dist_info}/sboms/", wheel.wheel.entries
    own = entries.get(f"{wheel.wheel.dist_info}/{sbom.PLACE}")
    if wheel.record.route == "compile" and own:
        expected = sbom.make_sbom(wheel.record, wheel.project)
        yield from _file_differences(sbom.PLACE, own.content(), expected)
    elif wheel.record.route == "compile":
        yield f"has no {sbom.PLACE}"
    for name, entry in entries.items():
        if name.startswith(folder) and entry is not own:
            try:
                subject = json.loads(entry.content()).get("metadata", {}).get("component", {})
                project = metadata.normalize_name(subject.get("name", ""))
                if project == wheel.project and subject.get("version") != wheel.version:
                    yield f"{name} is about version {subject.get('version')}"
            # It may be any JSON.
            except (ValueError, TypeError, AttributeError) as err:
                yield f"{name} cannot be read: {err!r}"


def _platform_problems(wheel: LabelledWheel) -> Iterator[str]:
    # What libraries need is compared with what auditwheel's policy promises for the tag.
    _, abi, platforms = wheel.wheel.name.tags.split("-")
    contents = {name: entry.content() for name, entry in wheel.wheel.entries.items()}
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
                from_cuda = any(fnmatchcase(need, glob) for glob in cuda.LIBRARIES)
                if not from_cuda and not need.startswith("ld-linux"):
                    yield f"{name} needs {need}, which neither the wheel nor {platform} has"


@cache
def _policies(machine: str) -> Policies:
    return load_policies(Path(str(resources.files("auditwheel"))).parent, machine)


def _file_differences(name: str, actual: bytes, expected: bytes) -> Iterator[str]:
    # For JSON and TOML the first field that differs is named.
    if actual == expected:
        return
    problem = "is not written as it follows from the wheels"
    try:
        if load := LOADERS.get(Path(name).suffix):
            found = _differences(load(actual.decode()), load(expected.decode()), "")
            problem = next(found, problem)
    except ValueError as err:
        problem = f"cannot be read: {err}"
    yield f"{name}: {problem}"


def _differences(actual: object, expected: object, at: str) -> Iterator[str]:
    """Yield each place in which two values of JSON differ."""
    if isinstance(actual, dict) and isinstance(expected, dict):
        for key in sorted(actual.keys() | expected.keys()):
            place = f"{at}.{key}" if at else str(key)
            if key not in actual or key not in expected:
                yield f"{place} is {'missing' if key in expected else 'one too many'}"
            else:
                yield from _differences(actual[key], expected[key], place)
    elif isinstance(actual, list) and isinstance(expected, list):
        if len(actual) != len(expected):
            yield f"{at} has {len(actual)} entries, not {len(expected)}"
        else:
            for number, value in enumerate(actual):
                yield from _differences(value, expected[number], f"{at}[{number}]")
    elif type(actual) is not type(expected) or actual != expected:
        yield f"{at} is {actual!r}, not {expected!r}"
