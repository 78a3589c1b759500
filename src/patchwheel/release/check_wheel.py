"""What contradicts what inside one wheel: file name, METADATA, record, SBOM, libraries."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from patchwheel.build import cuda
from patchwheel.build.requirements import env_key
from patchwheel.kit.digest import digest
from patchwheel.kit.distribution import Distribution
from patchwheel.kit.errors import MachineError
from patchwheel.release.files import LABELLED
from patchwheel.wheel.fit import Policies, load_policies
from patchwheel.wheel.make import names_itself
from patchwheel.wheelfile import metadata, sbom
from patchwheel.wheelfile.elf import MAGIC, read_library

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patchwheel.release.files import LabelledWheel
    from patchwheel.wheelfile.record import CompileRecord

MANYLINUX = re.compile(r"manylinux(?:_\d+_\d+|\d+)_(\w+)")
MODULE = re.compile(r"\.cpython-(\d+)-")
LOADERS = {".json": json.loads, ".toml": tomllib.loads}


def wheel_problems(wheel: LabelledWheel) -> Iterator[str]:
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
    label = LABELLED.fullmatch(wheel.version)
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
    if record.compiled:
        rows += [
            ("key.env", key.get("env"), _env_key(record.compiled)),
            ("key.toolchain", key.get("toolchain"), _toolchain_key(record.compiled)),
        ]
    for name, actual, expected in rows:
        if actual != expected:
            yield (
                f"its record's {name} is {actual}, "
                f"and {expected} follows from the rest of the wheel"
            )


def _env_key(compiled: CompileRecord) -> str:
    python = compiled.toolchain.get("python")
    version = re.search(r"(\d+)\.(\d+)", python.version if python else "")
    tag = f"cp{version[1]}{version[2]}" if version else ""
    locked = [
        Distribution(name=r.name, version=r.version, hashes=r.hashes)
        for r in compiled.build_requirements
    ]
    return env_key(locked, tag)


def _toolchain_key(compiled: CompileRecord) -> str:
    return digest({name: tool.identity for name, tool in compiled.toolchain.items()})


def _sbom_problems(wheel: LabelledWheel) -> Iterator[str]:
    folder, entries = f"{wheel.wheel.dist_info}/sboms/", wheel.wheel.entries
    own = entries.get(f"{wheel.wheel.dist_info}/{sbom.PLACE}")
    if wheel.record.route == "compile":
        if own is None:
            yield f"has no {sbom.PLACE}"
        else:
            expected = sbom.make_sbom(wheel.record, wheel.project)
            yield from differences(sbom.PLACE, own.content(), expected)
    for name, entry in entries.items():
        if name.startswith(folder) and entry is not own:
            try:
                subject = json.loads(entry.content()).get("metadata", {}).get("component", {})
                project = metadata.normalize_name(subject.get("name", ""))
            except (ValueError, TypeError, AttributeError) as err:
                yield f"{name} cannot be read: {err!r}"
                continue
            if project == wheel.project and subject.get("version") != wheel.version:
                yield f"{name} is about version {subject.get('version')}"


def _platform_problems(wheel: LabelledWheel) -> Iterator[str]:
    """Compare what the libraries need with what auditwheel's policy promises for the tag."""
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
    spec = importlib.util.find_spec("auditwheel")
    if spec is None or spec.origin is None:
        raise MachineError(
            "auditwheel is not installed, and its policies say what a platform tag promises",
            hint="install patchwheel again, with its dependency auditwheel",
        )
    return load_policies(Path(spec.origin).parent.parent, machine)


def differences(name: str, actual: bytes, expected: bytes) -> Iterator[str]:
    """Yield one sentence if the file is not as expected; for JSON and TOML it names the field."""
    if actual == expected:
        return
    load = LOADERS.get(Path(name).suffix)
    try:
        field = (
            next(_differences(load(actual.decode()), load(expected.decode()), ""), None)
            if load
            else None
        )
    except ValueError as err:
        yield f"{name}: cannot be read: {err}"
    else:
        yield f"{name}: {field or 'is not written as it follows from the wheels'}"


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
            for number, pair in enumerate(zip(actual, expected, strict=True)):
                yield from _differences(*pair, f"{at}[{number}]")
    elif type(actual) is not type(expected) or actual != expected:
        yield f"{at} is {actual!r}, not {expected!r}"
