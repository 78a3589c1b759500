"""What a wheel says about itself: its file name, METADATA, WHEEL and an SBOM, read and edited as text."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from patchwheel.kit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

FILENAME = re.compile(
    r"(?P<name>[A-Za-z0-9_.]+)-(?P<version>[A-Za-z0-9_.!+]+)(-(?P<build>\d[A-Za-z0-9_.]*))?"
    r"-(?P<tags>[A-Za-z0-9_.]+-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+)\.whl"
)
# The fields of [project] that an edit of METADATA can follow, and the fields that they become.
EDITABLE = ("dependencies", "optional-dependencies", "requires-python")
BECOME = ("Requires-Python", "Requires-Dist", "Provides-Extra")


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelName:
    """The parts of a wheel's file name; `tags` is python-abi-platform, each perhaps several joined by dots."""

    name: str
    version: str
    build: str | None
    tags: str

    @property
    def filename(self) -> str:
        build = f"-{self.build}" if self.build else ""
        return f"{self.name}-{self.version}{build}-{self.tags}.whl"

    @property
    def stem(self) -> str:
        """What the names of the dist-info and data folders begin with."""
        return f"{self.name}-{self.version}"

    @property
    def public(self) -> str:
        return self.version.partition("+")[0]

    def plain(self, path: str) -> str:
        """Return a path in the wheel as it is without a local version, which the data folder's name may carry."""
        folder, slash, rest = path.partition(".data/")
        if slash and folder == self.stem:
            return f"{self.name}-{self.public}.data/{rest}"
        return path

    @property
    def expanded_tags(self) -> list[str]:
        parts = [part.split(".") for part in self.tags.split("-")]
        return ["-".join(tag) for tag in itertools.product(*parts)]


def parse_filename(filename: str, *, where: Path | str) -> WheelName:
    match = FILENAME.fullmatch(filename)
    if match is None:
        raise InputError(
            f"{filename!r} is no wheel's file name",
            where=where,
            expected="NAME-VERSION-PYTHON-ABI-PLATFORM.whl",
        )
    return WheelName(
        name=match["name"],
        version=match["version"],
        build=match["build"],
        tags=match["tags"],
    )


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def labelled(version: str, label: str, node_key: str | None, *, graft: bool) -> str:
    """Return the version that marks a wheel as ours, such as 1.18.1+arrayapi.h1a2b3c4d.graft."""
    shown = node_key[:8] if node_key else "????????"
    return f"{version}+{label}.h{shown}{'.graft' if graft else ''}"


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
    """Make WHEEL carry the tags of the file name; what already says so is left as it is."""
    if set(field(wheel, "Tag")) == set(tags):
        return wheel
    return set_field(wheel, ["Tag"], [("Tag", tag) for tag in tags])


def set_subject(sbom: bytes, old: WheelName, new: WheelName) -> bytes:
    """Rename the component that a CycloneDX SBOM is about, if that is the wheel itself."""
    try:
        data = json.loads(sbom)
        subject = data["metadata"]["component"]
        about_us = normal(subject["name"]) == normal(old.name)
    except (ValueError, KeyError, TypeError, AttributeError):
        return sbom
    if not about_us or subject.get("version") != old.version:
        return sbom
    ref = subject.get("bom-ref")

    def renamed(text: str) -> str:
        text = text.replace(old.filename, quote(new.filename))
        return text.replace(f"@{old.version}", f"@{quote(new.version)}")

    return json.dumps(_edit(data, ref, renamed, new.version)).encode()


def set_dependencies(metadata: bytes, old: Mapping[str, Any], new: Mapping[str, Any]) -> bytes:
    """Follow a change of [project]'s dependency fields.

    Raises InputError when METADATA does not say what `old` says: then something else made it.
    """
    says = {_comparable(n, v) for n in BECOME for v in field(metadata, n)}
    if says != {_comparable(*row) for row in _rows(old)}:
        raise InputError("the base's METADATA has other requirements than its source")
    return set_field(metadata, BECOME, _rows(new))


def _edit(node: object, ref: object, renamed: Callable[[str], str], version: str) -> object:
    """Rename the subject's reference wherever it stands, and version and purl where it is described."""
    if isinstance(node, list):
        return [_edit(item, ref, renamed, version) for item in node]
    if isinstance(node, dict):
        fresh = {k: _edit(v, ref, renamed, version) for k, v in node.items()}
        if node.get("bom-ref") == ref and "name" in node:
            fresh["version"] = version
            if "purl" in node:
                fresh["purl"] = renamed(node["purl"])
        return fresh
    return renamed(ref) if isinstance(ref, str) and node == ref else node


def _split(metadata: bytes) -> tuple[list[str], str]:
    """Return the header fields, each with its continuation lines, and what follows them."""
    text = metadata.decode().replace("\r\n", "\n")
    head, blank, rest = text.partition("\n\n")
    head = head if head.endswith("\n") or not head else head + "\n"
    return re.findall(r"^\S.*\n(?:[ \t].*\n)*", head, re.MULTILINE), blank[1:] + rest


def _is(header: str, *names: str) -> bool:
    return header.partition(":")[0].lower() in {name.lower() for name in names}


def _rows(project: Mapping[str, Any]) -> list[tuple[str, str]]:
    from packaging.requirements import Requirement

    rows = []
    if python := project.get("requires-python"):
        rows.append(("Requires-Python", _specifiers(python)))
    plain = project.get("dependencies", ())
    rows += [("Requires-Dist", str(Requirement(line))) for line in plain]
    for extra, lines in project.get("optional-dependencies", {}).items():
        rows.append(("Provides-Extra", normal(extra)))
        rows += [("Requires-Dist", _with_extra(line, normal(extra))) for line in lines]
    return rows


def _with_extra(line: str, extra: str) -> str:
    from packaging.markers import Marker
    from packaging.requirements import Requirement

    requirement = Requirement(line)
    own = str(requirement.marker or "")
    own = f"({own})" if " or " in own else own
    requirement.marker = Marker(f'{own}{own and " and "}extra == "{extra}"')
    return str(requirement)


def _specifiers(text: str) -> str:
    from packaging.specifiers import SpecifierSet

    return str(SpecifierSet(text))


def _comparable(name: str, value: str) -> tuple[str, str]:
    from packaging.requirements import Requirement

    if name == "Requires-Python":
        return name, _specifiers(value)
    if name == "Provides-Extra":
        return name, normal(value)
    requirement = Requirement(value)
    requirement.name = normal(requirement.name)
    return name, str(requirement)
