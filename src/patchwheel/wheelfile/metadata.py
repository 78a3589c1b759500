"""What a wheel says of itself: its file name, METADATA and WHEEL, edited as text; its outputs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from patchwheel.kit import InputError, digest

# A release wheel's provenance statement is called as the wheel, with this ending.
STATEMENT = ".intoto.json"
# And an SBOM beside a wheel, with what the messages of its patches say now.
BESIDE = ".cdx.json"
# The part of the key of a graft for a platform.
PLATFORM = "platform"
# The fields of [project] that an edit of METADATA can follow.
EDITABLE = ("dependencies", "optional-dependencies", "requires-python")

# NAME-VERSION[-BUILD]-PYTHON-ABI-PLATFORM-LABEL.whl: only a build number begins with a digit.
VARIANT = r"[^-]+-[^-]+(-\d[^-]*)?-[^-\d][^-]*-[^-]+-[^-]+-[0-9a-z._]{1,16}\.whl"


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelName:
    """The parts of a wheel's file name."""

    name: str
    version: str
    build: str | None
    # python-abi-platform, each perhaps several joined by dots.
    tags: str

    @property
    def filename(self) -> str:
        build = f"-{self.build}" if self.build else ""
        return f"{self.name}-{self.version}{build}-{self.tags}.whl"

    @property
    def stem(self) -> str:
        # What the names of the dist-info and data folders begin with.
        return f"{self.name}-{self.version}"

    @property
    def expanded_tags(self) -> list[str]:
        # In the order of the file name, in which WHEEL lists them: packaging.tags gives a set.
        parts = [part.split(".") for part in self.tags.split("-")]
        return ["-".join(tag) for tag in itertools.product(*parts)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A file of the wheel that is not just taken; `path` is METADATA for an edit of the metadata.

    It is remade from (or added with) the file `source` of the patched tree, built as `source` of
    the build folder, or removed.
    """

    path: str
    action: Literal["remake", "add", "build", "remove"]
    source: str
    why: str


def parse_filename(filename: str, *, where: Path | str) -> WheelName:
    from installer.utils import parse_wheel_filename

    if has_variant_label(filename):
        problem = f"{filename!r} has a variant label (PEP 825), which is not supported"
        raise InputError(problem, where=where)
    try:
        name, version, build, tags = parse_wheel_filename(filename)
    except ValueError as err:
        expected = "NAME-VERSION-PYTHON-ABI-PLATFORM.whl"
        problem = f"{filename!r} is no wheel's file name"
        raise InputError(problem, where=where, expected=expected) from err
    return WheelName(name=name, version=version, build=build, tags=tags)


def has_variant_label(filename: str) -> bool:
    """Whether a file is a variant wheel of PEP 825, a draft: folders may hold them beside ours."""
    return re.fullmatch(VARIANT, filename) is not None


def normalize_name(name: str) -> str:
    # packaging takes 25 ms to import, and a build that finds its wheels in the store needs no name.
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)


def same_version(one: str, other: str) -> bool:
    """Say whether two versions are one: 1.0 is 1.0.0."""
    from packaging.version import Version

    try:
        return one == other or Version(one) == Version(other)
    except ValueError:
        # It is no version, or has more digits than Python reads.
        return False


def labelled(version: str, label: str, node_key: str | None, *, graft: bool) -> str:
    """Return the version that marks a patched wheel, as 1.18.1+arrayapi.h1a2b3c4d.graft."""
    shown = node_key[:8] if node_key else "????????"
    return f"{version}+{label}.h{shown}{'.graft' if graft else ''}"


def label_key(key: Mapping[str, str]) -> str:
    """Return the digest that a label shows: of the node key, or for a platform less the base.

    So the grafts for all platforms have one version, as upstream's wheels have.
    """
    return digest({name: key[name] for name in key if PLATFORM not in key or name != "base"})


def field(metadata: bytes, name: str) -> list[str]:
    """Return the values of a field of METADATA or WHEEL."""
    headers, _ = _split(metadata)
    return [h.partition(":")[2].strip() for h in headers if _is(h, name)]


def set_field(metadata: bytes, names: Sequence[str], rows: Iterable[tuple[str, str]]) -> bytes:
    """Put `rows` where the first of the fields `names` stands, and drop the others of them."""
    headers, rest = _split(metadata)
    at = next((i for i, h in enumerate(headers) if _is(h, *names)), len(headers))
    kept = [h for h in headers[at:] if not _is(h, *names)]
    new = [f"{name}: {value}\n" for name, value in rows]
    return ("".join([*headers[:at], *new, *kept]) + rest).encode()


def set_tags(wheel: bytes, tags: Sequence[str]) -> bytes:
    """Return WHEEL with the tags of the file name; the same bytes where it has them already."""
    if set(field(wheel, "Tag")) == set(tags):
        return wheel
    return set_field(wheel, ["Tag"], [("Tag", tag) for tag in tags])


def set_dependencies(metadata: bytes, old: Mapping[str, Any], new: Mapping[str, Any]) -> bytes:
    """Follow a change of [project]'s dependency fields; raises InputError if `old` is not there."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    # Compared as what they mean: build backends differ in how they write them.
    parsers: dict[str, Callable[[str], object]] = {
        "Requires-Python": SpecifierSet,
        "Requires-Dist": Requirement,
        "Provides-Extra": normalize_name,
    }
    values = [(name, v) for name in parsers for v in field(metadata, name)]
    try:
        present = {(name, parsers[name](v)) for name, v in values}
        before, after = _rows(old), _rows(new)
    except (ValueError, TypeError, AttributeError) as err:
        raise InputError(f"its requirements cannot be read: {err}") from err
    # Something else than [project] gave METADATA its requirements then.
    if present != set(before):
        raise InputError("the base's METADATA has other requirements than its source")
    return set_field(metadata, [*parsers], [(name, str(value)) for name, value in after])


def _split(metadata: bytes) -> tuple[list[str], str]:
    """Return the header fields, each with its continuation lines, and what follows them."""
    try:
        text = metadata.decode()
    except UnicodeDecodeError:
        # Old tools wrote what they found, most of it Latin-1; what is edited is UTF-8 then.
        text = metadata.decode("latin-1")
    text = text.replace("\r\n", "\n")
    head, blank, rest = text.partition("\n\n")
    head = head if head.endswith("\n") or not head else head + "\n"
    return re.findall(r"^\S.*\n(?:[ \t].*\n)*", head, re.MULTILINE), blank[1:] + rest


def _is(header: str, *names: str) -> bool:
    return header.partition(":")[0].lower() in {name.lower() for name in names}


def _rows(project: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Return the fields of METADATA that [project]'s become, as build backends order them."""
    from packaging.markers import Marker
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    rows: list[tuple[str, object]] = []
    if python := project.get("requires-python"):
        rows.append(("Requires-Python", SpecifierSet(python)))
    rows += [("Requires-Dist", Requirement(r)) for r in project.get("dependencies", ())]
    for extra, lines in project.get("optional-dependencies", {}).items():
        name = normalize_name(extra)
        rows.append(("Provides-Extra", name))
        for requirement in map(Requirement, lines):
            own = str(requirement.marker or "")
            own = f"({own})" if " or " in own else own
            requirement.marker = Marker(f'{own}{own and " and "}extra == "{name}"')
            rows.append(("Requires-Dist", requirement))
    return rows
