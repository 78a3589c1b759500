"""`patchwheel.json`: what a wheel was made from, as one typed record.

It is in the dist-info folder of each wheel that patchwheel makes. It holds nothing of the machine.
"""

# No `from __future__ import annotations`: the reader reads the types of the fields at run time.
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from patchwheel.kit import Distribution, InputError, InvalidDataError, parsed
from patchwheel.manifest import Sdist, make_reader, write_record
from patchwheel.wheelfile.metadata import Output

FILENAME = "patchwheel.json"
# Raised when a field is added or gets another meaning: a record of another schema is refused.
SCHEMA = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PinRecord:
    version: str
    git: str | None
    tag: str | None
    commit: str | None
    sdist: Sdist | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TreesRecord:
    """Git tree ids of the pin and of the pin with its series applied."""

    source: str
    patched: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchRecord:
    name: str
    sha256: str
    subject: str
    upstream_status: str
    # The vulnerabilities that its trailers `Fixes: CVE-...` name.
    fixes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRecord:
    """The wheel that a graft took its other files from.

    One for a `platform` was taken as a file: nothing of it, or of the graft, was loaded or run.
    """

    kind: Literal["upstream", "platform", "built"]
    filename: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRecord:
    """A program of the build; `identity` digests its version and all that it consists of."""

    identity: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRecord:
    """What built outputs were compiled with."""

    build_requirements: tuple[Distribution, ...]
    # The digest of the interface of each fork of ours that was compiled against.
    compiled_against: Mapping[str, str]
    toolchain: Mapping[str, ToolRecord]
    sandbox: str
    config_settings: Mapping[str, str | tuple[str, ...]]
    env: Mapping[str, str]
    source_date_epoch: str
    # RECORD's hash of each built output as it was before relocation.
    built: Mapping[str, str]

    @property
    def published_requirements(self) -> tuple[Distribution, ...]:
        """The build requirements less those that wheels of ours took the place of."""
        return tuple(r for r in self.build_requirements if r.name not in self.compiled_against)


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelRecord:
    """Everything that a wheel was made from; `compiled` is None where nothing was built."""

    schema: int
    fork: str
    version: str
    route: Literal["graft", "compile"]
    pin: PinRecord
    trees: TreesRecord
    patches: tuple[PatchRecord, ...]
    base: BaseRecord | None
    remade: tuple[Output, ...]
    taken: int
    why: tuple[str, ...]
    compiled: CompileRecord | None
    # The digest of all members but those that follow from this record, with hash and mode.
    members: str
    # Those that run without an import or become commands: none that the pin's wheel lacks.
    runs: tuple[str, ...]
    # The parts of the node key, whose names differ with the route: its digest is the node key.
    key: Mapping[str, str]

    @property
    def is_release(self) -> bool:
        """Whether the wheel may be published; its label says the same if the wheel is sound."""
        return self.route == "compile"

    def to_json(self) -> dict[str, Any]:
        answer: dict[str, Any] = write_record(self)
        # In the file an empty object stands for None.
        return answer | {"compiled": answer["compiled"] or {}}

    def to_bytes(self) -> bytes:
        return (json.dumps(self.to_json(), indent=1, sort_keys=True) + "\n").encode()

    @property
    def sha256(self) -> str:
        """The sha256 of the file, which SBOM and provenance name."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def parse_record(data: bytes, *, where: Path | str) -> WheelRecord:
    """Return the record that a `patchwheel.json` holds; raises InputError when it is not one."""
    try:
        value = parsed(data)
        schema = value.get("schema")
    except (ValueError, AttributeError) as err:
        raise _malformed(f"it is no JSON object: {err}", where) from err
    if schema != SCHEMA:
        problem = f"has schema {schema}; this patchwheel reads schema {SCHEMA}"
        hint = "read it with the patchwheel that made it, or build the wheel again"
        raise InputError(f"its record {FILENAME} {problem}", where=where, hint=hint)
    if value.get("compiled") == {}:
        value["compiled"] = None
    try:
        record: WheelRecord = make_reader().structure(value, WheelRecord)
    except InvalidDataError as err:
        raise _malformed(str(err), where) from err
    if record.route == "compile" and record.compiled is None:
        raise _malformed("a compile has to say what it was compiled with", where)
    # More digits are no date, and the SBOM writes it as one.
    if record.compiled and not re.fullmatch(r"[0-9]{1,11}", record.compiled.source_date_epoch):
        raise _malformed("compiled.source-date-epoch is no number of seconds", where)
    # SBOM and provenance hold the hash of the file, so there is only one way to write it.
    if record.to_bytes() != data:
        raise _malformed("it is not written as patchwheel writes it", where)
    return record


def _malformed(problem: str, where: Path | str) -> InputError:
    message = f"its record {FILENAME} cannot be read: {problem}"
    return InputError(message, where=where, hint="build the wheel again")
