"""Checks release wheels and the files beside them: what follows from a record is made again."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from itertools import zip_longest
from pathlib import Path

from patchwheel import wheelfile
from patchwheel.build import cuda, env_key
from patchwheel.kit import CheckError, InputError, digest, file_sha256, parsed
from patchwheel.release import files
from patchwheel.wheel import MAGIC, load_policies, names_itself, read_library

LABELLED = re.compile(
    r"(?P<upstream>[^+]+)\+(?P<label>.+)\.h(?P<key>[0-9a-f]{8})(?P<graft>\.graft)?"
)
MANYLINUX = re.compile(r"manylinux(?:_\d+_\d+|\d+)_(\w+)")
BESIDE = {wheelfile.STATEMENT: files.make_statement, wheelfile.metadata.BESIDE: files.make_sbom}
MODULE = re.compile(r"\.cpython-(\d+)-")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseCheck:
    """The wheels that could be read, and everything that is wrong with what was checked."""

    wheels: tuple[wheelfile.WheelFile, ...]
    problems: tuple[str, ...]
    # What one wheel alone does not tell.
    unchecked: tuple[str, ...] = ()
    # The names of the keys that the sums are signed with.
    signed_by: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        rows = [
            {"file": w.path.name, "sha256": w.sha256, "made": w.record.to_json()}
            for w in self.wheels
        ]
        more = {"unchecked": self.unchecked, "signed-by": self.signed_by}
        return {"wheels": rows, "problems": self.problems, **more}

    def check(self, where: Path) -> None:
        """Raise CheckError when there is a problem."""
        if self.problems:
            raise CheckError(
                "verification failed:" + "".join(f"\n  - {problem}" for problem in self.problems),
                where=where,
                hint="do not publish or install these; build or fetch them again",
            )


def check_release(
    path: Path, *, pages: bool = True, trusted: Mapping[str, str] | None = None
) -> ReleaseCheck:
    """Check a wheel or all of a folder, without `pages` not the simple index; fetch nothing.

    With `trusted`, names and public keys, each SHA256SUMS has to be signed by one of them.
    """
    whole = path.is_dir()
    folder, found = (path, sorted(path.rglob("*.whl"))) if whole else (path.parent, [path])
    variants = [p for p in found if whole and wheelfile.metadata.has_variant_label(p.name)]
    paths = [p for p in found if p not in variants]
    if not paths:
        raise InputError("there is no wheel in it", where=path, expected="a folder of wheels")
    read = {file.relative_to(folder).as_posix(): _read(file) for file in paths}
    wheels = [wheel for wheel, _ in read.values() if wheel]
    problems = [f"{name}: {problem}" for name, (_, wrong) in read.items() for problem in wrong]
    unchecked = _unchecked(path, wheels)
    passed = "a wheel with a variant label (PEP 825) is passed over"
    unchecked += [f"{p.relative_to(folder).as_posix()}: {passed}" for p in variants]
    if not whole:
        problems += _problems_beside(*wheels)
    # Wheels of several builds that were gathered for an index get sums and lock with the index.
    elif pages or any(path.rglob(files.SUMS)):
        problems += _folder_problems(folder, wheels, pages=pages)
    signed_by = []
    for place in {f.parent for f in folder.rglob(files.SUMS)} | {folder} if trusted else ():
        try:
            signed_by.append(files.check_signature(place, trusted or {}))
        except InputError as err:
            problems.append(err.message)
    if trusted and not whole and path.name not in {name for _, name in _sums(folder)}:
        problems.append(f"{path.name}: is in no {files.SUMS}")
    return ReleaseCheck(
        wheels=tuple(wheels),
        problems=tuple(problems),
        unchecked=tuple(unchecked),
        signed_by=tuple(signed_by),
    )


def _read(file: Path) -> tuple[wheelfile.WheelFile | None, list[str]]:
    """Return a wheel, None for one that cannot be read, and what is wrong with it."""
    try:
        wheel = wheelfile.read_wheel(file)
        wheelfile.check_record(wheel)
        problems = [*_wheel_problems(wheel)]
    except InputError as err:
        inside = str(err.where).partition(": ")[2]
        return None, [f"{inside}{inside and ' '}{err.message}"]
    return wheel, problems


def _folder_problems(
    folder: Path, wheels: Sequence[wheelfile.WheelFile], *, pages: bool
) -> Iterator[str]:
    """Compare sums, statements, locks and pages of the index with what follows from the wheels."""
    listed: set[Path] = set()
    released = _released(folder)
    for place in sorted(released):
        inside = [w for w in wheels if w.record.is_release and w.path.is_relative_to(place)]
        expected = files.sidecars(place, inside)
        if pages and (place / files.SIMPLE).is_dir():
            expected |= files.simple_index(place, inside)
        for name, content in expected.items():
            file, shown = place / name, (place / name).relative_to(folder).as_posix()
            if (found := files.content(file)) is not None:
                yield from _difference(shown, found, content)
            else:
                yield f"{shown}: is missing"
        # A file that nobody made a sum of is no part of the release, whatever it says.
        listed |= {place / name for _, name in _sums(place)}
    for file in sorted(
        path
        for glob in ("*.whl", *(f"*.whl{suffix}" for suffix in BESIDE), files.VEX)
        for path in folder.rglob(glob)
    ):
        # Wheels of a plain build may lie beside a release: they are no part of one.
        loose = file.suffix == ".whl" and released.isdisjoint(file.parents)
        loose = loose or wheelfile.metadata.has_variant_label(file.name)
        if file not in listed and not loose:
            yield f"{file.relative_to(folder)}: is in no {files.SUMS}"


def _released(folder: Path) -> set[Path]:
    """Return the folders that hold a release: sums or a lock are there."""
    return {file.parent for name in (files.SUMS, files.PYLOCK) for file in folder.rglob(name)}


def _problems_beside(*wheels: wheelfile.WheelFile) -> Iterator[str]:
    """Check what was fetched together with a wheel: its statement, and the sums of both."""
    for wheel in wheels:
        # The other wheels that the sums name may not have been fetched.
        own = {wheel.path.name: wheel.sha256}
        for suffix, make in BESIDE.items() if wheel.record.is_release else ():
            file = files.beside(wheel.path, suffix)
            if (found := files.content(file)) is not None:
                own[file.name] = hashlib.sha256(found).hexdigest()
                yield from _difference(file.name, found, make(wheel))
        for sha256, name in _sums(wheel.path.parent):
            if own.get(name, sha256) != sha256:
                yield f"{name}: has another sha256 than {files.SUMS} says"


def _unchecked(path: Path, wheels: Sequence[wheelfile.WheelFile]) -> list[str]:
    """Return what wheels without a release around them do not tell, and what would."""
    released, rows = _released(path), []
    for wheel in wheels:
        if not released.isdisjoint(wheel.path.parents):
            continue
        name, record = wheel.path.name, wheel.record
        how = "rebuild" if record.is_release else "from-source"
        does = f"`patchwheel verify {record.fork} --{how}` does"
        if record.base and record.base.kind == wheelfile.PLATFORM:
            does = "nothing of it was loaded or run"
        rows.append(f"that its files are what its sources give: {does}")
        if record.base:
            base = record.base
            rows.append(f"that {base.filename} is upstream's: its sha256 is {base.sha256}")
        if name not in {listed for _, listed in _sums(wheel.path.parent)}:
            rows.append(
                f"that it is the file that was published: no {files.SUMS} beside it lists it"
            )
        if record.is_release and not wheel.path.with_name(f"{name}{wheelfile.STATEMENT}").is_file():
            rows.append(f"its provenance: there is no {name}{wheelfile.STATEMENT} beside it")
    return rows


def _sums(folder: Path) -> list[tuple[str, str]]:
    lines = (files.content(folder / files.SUMS) or b"").decode(errors="replace").splitlines()
    return [(sha256, name) for sha256, _, name in (line.partition("  ") for line in lines)]


def _wheel_problems(wheel: wheelfile.WheelFile) -> Iterator[str]:
    """Yield each contradiction in a wheel whose files were compared with RECORD before."""
    stated, expected = names_itself(wheel)
    if stated != expected:
        yield f"METADATA and WHEEL say {stated}, and its name {expected}"
    yield from _label_problems(wheel)
    stated = wheelfile.members(wheel.entries.values(), wheel.dist_info)
    for name in sorted({*stated[1]} - {*wheel.record.runs}):
        yield f"{name} would run by itself, and its record does not state it"
    with tempfile.NamedTemporaryFile() as again:
        wheelfile.write_archive(Path(again.name), [*wheel.entries.values()])
        if file_sha256(Path(again.name)) != wheel.sha256:
            yield "it is not packed as patchwheel packs a wheel"
    if stated != (wheel.record.members, wheel.record.runs):
        yield "it holds other files, or with other modes, than its record states"
    yield from _sbom_problems(wheel)
    # A graft keeps its base's platform tag, which may promise too much: CuPy's own wheels do.
    if wheel.record.is_release:
        yield from _platform_problems(wheel)


def _label_problems(wheel: wheelfile.WheelFile) -> Iterator[str]:
    """Compare version and label with the record's key, and the key with what it was made of."""
    label = LABELLED.fullmatch(wheel.name.version)
    if label is None:
        yield f"its version {wheel.name.version} carries no label"
        return
    record, key = wheel.record, wheel.record.key
    kind = record.base.kind if record.base else None
    named = wheelfile.metadata.field(wheel.metadata("METADATA"), "Name")[:1]
    name = wheelfile.metadata.normalize_name("".join(named))
    rows = [
        ("version", record.version, wheel.name.version),
        ("pin.version", record.pin.version, label["upstream"]),
        ("route", record.route, "graft" if label["graft"] else "compile"),
        ("digest of key", wheelfile.label_key(key)[:8], label["key"]),
        ("key.platform", wheelfile.PLATFORM in key, kind == wheelfile.PLATFORM),
        ("key.tree", key.get("tree"), record.trees.patched),
        ("key.base", key.get("base"), record.base.sha256 if record.base else "none"),
        ("key.wheel", key.get("wheel"), digest([name, label["upstream"], label["label"]])),
    ]
    if compiled := record.compiled:
        tools = {name: tool.identity for name, tool in compiled.toolchain.items()}
        python = compiled.toolchain.get("python")
        found = re.search(r"(\d+)\.(\d+)", python.version if python else "")
        env = env_key(compiled.build_requirements, f"cp{found[1]}{found[2]}" if found else "")
        rows.append(("key.env", key.get("env"), env))
        rows.append(("key.toolchain", key.get("toolchain"), digest(tools)))
    for name, actual, expected in rows:
        if actual != expected:
            yield f"its record's {name} is {actual}, the rest of the wheel gives {expected}"


def _sbom_problems(wheel: wheelfile.WheelFile) -> Iterator[str]:
    folder, entries = f"{wheel.dist_info}/sboms/", wheel.entries
    own = entries.get(f"{wheel.dist_info}/{wheelfile.sbom.PLACE}")
    if wheel.record.route == "compile" and own:
        expected = wheelfile.sbom.make_sbom(wheel.record, wheel.project)
        yield from _difference(wheelfile.sbom.PLACE, own.content(), expected)
    elif wheel.record.route == "compile":
        yield f"has no {wheelfile.sbom.PLACE}"
    elif own:
        yield f"is a graft, and has the {wheelfile.sbom.PLACE} of a compile"
    for name, entry in entries.items():
        if name.startswith(folder) and entry is not own:
            try:
                subject = parsed(entry.content()).get("metadata", {}).get("component", {})
                project = wheelfile.metadata.normalize_name(subject.get("name", ""))
                if project == wheel.project and subject.get("version") != wheel.name.version:
                    yield f"{name} is about version {subject.get('version')}"
            # It may be any JSON.
            except (ValueError, TypeError, AttributeError) as err:
                yield f"{name} cannot be read: {err!r}"


def _platform_problems(wheel: wheelfile.WheelFile) -> Iterator[str]:
    # What libraries need is compared with what auditwheel's policy promises for the tag.
    _, abi, platforms = wheel.name.tags.split("-")
    # One at a time: together they may be larger than the memory.
    contents = ((name, entry.content()) for name, entry in wheel.entries.items())
    libraries = {n: read_library(c) for n, c in contents if c.startswith(MAGIC)}
    bundled = {Path(name).name for name in libraries}
    for name in libraries:
        made_for = MODULE.search(name)
        if made_for and f"cp{made_for[1]}" not in abi.split("."):
            yield f"{name} is for another Python than its tag {abi}"
    site_packages = Path(str(resources.files("auditwheel"))).parent
    for platform in platforms.split(".") if libraries else ():
        match = MANYLINUX.fullmatch(platform)
        policies = load_policies(site_packages, match[1]) if match else None
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


def _difference(name: str, actual: bytes, expected: bytes) -> Iterator[str]:
    """Yield the first line in which a file differs from what follows from the wheels."""
    # Each file has a line for a field, so the line says what differs, in whatever format.
    rows = zip_longest(actual.split(b"\n"), expected.split(b"\n"), fillvalue=b"missing")
    for number, lines in enumerate(rows, 1):
        if lines[0] != lines[1]:
            found, due = (line.decode(errors="backslashreplace").strip() for line in lines)
            yield f"{name}: line {number} is {found}, and follows from the wheels as {due}"
            return
