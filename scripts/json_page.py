"""Write docs/reference/json.md and its JSON Schema: what `--json` prints, from the records."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from patchwheel.build.doctor import Finding
from patchwheel.environment.compose import Environment
from patchwheel.kit.uv import Distribution
from patchwheel.release.check import ReleaseCheck
from patchwheel.release.recompile import EquivalenceCheck, RebuildResult
from patchwheel.series.export import ExportResult
from patchwheel.series.status import ForkStatus
from patchwheel.source.compare import PinReport
from patchwheel.upstream.forecast import Commit, Forecast
from patchwheel.upstream.importing import ImportResult
from patchwheel.upstream.merge import Conflict, MergeResult, State
from patchwheel.upstream.offering import Proposal, Submission
from patchwheel.upstream.verdict import Verdict
from patchwheel.wheel.make import BuiltWheel
from patchwheel.wheel.platforms import PlatformWheel
from patchwheel.wheelfile.record import WheelRecord

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "json.md"
SCHEMA = PAGE.with_suffix(".schema.json")
PLAN = json.loads((ROOT / "src" / "patchwheel" / "plan" / "plan.schema.json").read_text())
# What annotations name that only type checkers import.
NAMES = {
    "Collection": Collection,
    "Commit": Commit,
    "Conflict": Conflict,
    "Distribution": Distribution,
    "Mapping": Mapping,
    "Path": Path,
    "Sequence": Sequence,
    "State": State,
    "Verdict": Verdict,
}
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", Path: "string"}
COMMENT = re.compile(r"(?m)((?:^    #.*\n)+)^    (\w+):")
# What definitions of plan.schema.json, and ours, are called here.
WORDS = {
    "Plan": "[plan](#plan)",
    "plans": "list of [plan](#plan)",
    "lines": "list of string",
    "changes": "list of string",
}
NULL = re.compile(r"(?<! )\bNone\b(?! of)|(?<=is )None\b")


class Plan:
    """A plan, as `plan` prints it, without `state`, `last` and `changed`."""


@dataclass
class Wheel:
    """A wheel of ours; `seconds` is how long it took when it was made."""

    fork: str
    path: Path
    sha256: str
    version: str
    seconds: float
    # Whether it was there already.
    cached: bool
    plan: Plan


@dataclass
class Platform:
    """A wheel of upstream's and its graft; without one, `skipped` says why."""

    # The file name of upstream's wheel.
    base: str
    seconds: float
    skipped: str
    # What a compile takes.
    needs: str
    wheel: BuiltWheel | None


@dataclass
class Composed:
    """The environment that `link` leads to."""

    path: Path
    link: Path | None
    python: Path
    # Whether it was there already.
    cached: bool
    # The version of each fork's wheel.
    wheels: Mapping[str, str]
    # The versions of all others.
    packages: Mapping[str, str]


@dataclass
class Checked:
    """A wheel that could be read; `made` is its `patchwheel.json`."""

    file: str
    sha256: str
    made: WheelRecord


@dataclass
class Verified:
    """The wheels, and everything that is wrong."""

    wheels: tuple[Checked, ...]
    problems: tuple[str, ...]
    # What could not be checked, and why.
    unchecked: tuple[str, ...]
    # Names of the keys of `--trust` that SHA256SUMS is signed by.
    signed_by: tuple[str, ...]


@dataclass
class Looked:
    """One thing that was looked at, and the command that mends it, if it is not well."""

    what: str
    detail: str
    fix: str
    fork: str | None
    # Whether the next build needs it.
    needed: bool
    ok: bool


# Records that print themselves, and what they print.
PRINTED: dict[type, type] = {
    BuiltWheel: Wheel,
    PlatformWheel: Platform,
    Environment: Composed,
    ReleaseCheck: Verified,
    Finding: Looked,
}
# Keys of these are written with `-` for `_`.
KEBAB = (Verified, WheelRecord)
COMMANDS: dict[str, object] = {
    "plan": PLAN,
    "build": tuple[BuiltWheel, ...],
    "build --platform": tuple[PlatformWheel, ...],
    "env": Environment,
    "status": tuple[ForkStatus, ...],
    "status --against": Mapping[str, tuple[Forecast, ...]],
    "export": ExportResult,
    "rebase": ExportResult,
    "rebase --dry-run": tuple[MergeResult, ...],
    "import": ImportResult,
    "propose": Proposal | None,
    "submit": Submission,
    "verify PATH": ReleaseCheck,
    "verify --pin": PinReport,
    "verify --from-source": EquivalenceCheck,
    "verify --rebuild": RebuildResult,
    "doctor": tuple[Finding, ...],
    "cache verify": Mapping[str, str],
}
HEAD = """\
# JSON

What commands print to standard output with `--json`, and what a wheel's
`.dist-info/patchwheel.json` holds. `scripts/json_page.py` writes this page from the records of the
code, and [json.schema.json](json.schema.json), a JSON Schema with an entry for each command under
`$defs`: `plan`, `status-against`, `verify-path`. Keys may be added; where one goes, or gets another
meaning, the [changelog](../../CHANGELOG.md) says so.

An error goes to standard error, as text; the [exit code](failures.md) says of which kind it is. A
command that ends with 3 or 6 because of what it found has printed it.
"""


class Schemas:
    """The schemas of records, by name, as they are met."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}

    # An arm for each kind of type.
    def of(self, hint: Any, *, kebab: bool = False) -> dict[str, Any]:  # noqa: C901, PLR0911
        """Return the schema of a type."""
        origin, arguments = get_origin(hint), get_args(hint)
        if hint in PLAIN:
            return {"type": PLAIN[hint]}
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in {Union, UnionType}:
            arms = [self.of(arm, kebab=kebab) for arm in arguments if arm is not NoneType]
            if NoneType in arguments:
                arms.append({"type": "null"})
            return {"anyOf": arms}
        if origin is Mapping:
            values = self.of(arguments[1], kebab=kebab)
            return {"type": "object", "additionalProperties": values}
        if origin is tuple and arguments[-1:] != (Ellipsis,):
            items = [self.of(item, kebab=kebab) for item in arguments]
            return {"type": "array", "prefixItems": items}
        if origin in {tuple, Sequence}:
            return {"type": "array", "items": self.of(arguments[0], kebab=kebab)}
        if hint is Plan:
            return {"$ref": "#/$defs/Plan"}
        if hint is Distribution:
            row = {"type": "array", "items": {"type": "string"}, "minItems": 3}
            return {**row, "description": "Name, version, and the sha256 of each file."}
        assert isinstance(hint, type)
        assert is_dataclass(hint)
        name, record = hint.__name__, PRINTED.get(hint, hint)
        if name not in self.records:
            # Records may hold each other.
            self.records[name] = {}
            self.records[name] = self.record(record, kebab=kebab or record in KEBAB)
        return {"$ref": f"#/$defs/{name}"}

    def record(self, record: type, *, kebab: bool) -> dict[str, Any]:
        """Return the schema of a record, with its comments as descriptions."""
        known = vars(sys.modules[record.__module__])
        names = {name: value for name, value in NAMES.items() if name not in known}
        hints = get_type_hints(record, localns=names)
        told = comments(record)
        rows: list[Field[Any]] = [f for f in fields(record) if not f.name.startswith("_")]
        properties = {}
        for row in rows:
            name = row.name.replace("_", "-") if kebab else row.name
            properties[name] = self.of(hints[row.name], kebab=kebab)
            if properties[name].get("items", {}).get("description"):
                properties[name] |= {"description": properties[name]["items"]["description"]}
            if row.name in told:
                properties[name] |= {"description": told[row.name]}
        if kebab and "compiled" in properties:
            # An empty object stands for nothing that was compiled.
            properties["compiled"]["anyOf"][-1] = {"const": {}}
        text = record.__doc__ or ""
        # One without a docstring gets its signature.
        text = "" if text.startswith(f"{record.__name__}(") else inspect.cleandoc(text)
        return {
            "description": NULL.sub("null", " ".join(text.split())),
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }


def comments(record: type) -> dict[str, str]:
    """Return the comments above the fields of a record."""
    found = COMMENT.findall(inspect.getsource(record))
    return {name: NULL.sub("null", " ".join(re.findall(r"# (.*)", t))) for t, name in found}


def entry(command: str) -> str:
    """Return the name of a command's schema: `status-against`."""
    return re.sub(r"\W+", "-", command.lower())


def schema() -> dict[str, Any]:
    """Return the JSON Schema of everything that is printed."""
    schemas = Schemas()
    commands = {}
    for name, hint in COMMANDS.items():
        commands[entry(name)] = {"$ref": "#/$defs/plans"} if hint is PLAN else schemas.of(hint)
    plan = {**PLAN["items"]}
    whole = {"state", "last", "changed", "estimate"}
    short = {
        **plan,
        "required": [name for name in plan["required"] if name not in whole],
        "properties": {n: row for n, row in plan["properties"].items() if n not in whole},
    }
    plans = {"type": "array", "items": plan}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What patchwheel prints with --json",
        "$defs": {**commands, "plans": plans, "Plan": short, **schemas.records, **PLAN["$defs"]},
    }


def page() -> str:
    """Return the page: each command, then each record."""
    whole = schema()["$defs"]
    rows = ["\n| command | prints |\n| --- | --- |\n"]
    rows += [f"| `patchwheel {n}` | {kind(whole[entry(n)])} |\n" for n in COMMANDS]
    parts = [HEAD, *rows, section("plan", "", whole["plans"]["items"])]
    records = {name: row for name, row in whole.items() if name[0].isupper() and name != "Plan"}
    parts += [section(name, row["description"], row) for name, row in records.items()]
    return "".join(parts)


def section(name: str, text: str, record: Mapping[str, Any]) -> str:
    """Return the table of a record's keys."""
    lines = [f"\n## {name}\n", *([f"\n{text}\n"] if text else []), "\n| key | type | meaning |\n"]
    lines.append("| --- | --- | --- |\n")
    for key, row in record["properties"].items():
        cells = f"| `{key}` | {kind(row)} | {row.get('description', '')} |"
        lines.append(re.sub(r" +\|$", " |", cells) + "\n")
    return "".join(lines)


def kind(row: Mapping[str, Any]) -> str:  # noqa: PLR0911  (a kind each)
    """Say in words what a schema admits."""
    if "$ref" in row:
        name = row["$ref"].rpartition("/")[2]
        return WORDS.get(name) or (f"[{name}](#{name.lower()})" if name[0].isupper() else "string")
    if "enum" in row or "const" in row:
        values = row.get("enum", [row.get("const")])
        return " or ".join(f"`{json.dumps(value)}`" for value in values)
    if arms := row.get("anyOf") or row.get("oneOf"):
        return " or ".join(map(kind, arms))
    if many := row.get("prefixItems"):
        return f"[{', '.join(map(kind, many))}]"
    if "items" in row:
        return f"list of {kind(row['items'])}"
    if "properties" in row:
        return f"object with {', '.join(f'`{key}`' for key in row['properties'])}"
    if isinstance(row.get("additionalProperties"), Mapping):
        return f"object of {kind(row['additionalProperties'])}"
    return " or ".join([row["type"]] if isinstance(row["type"], str) else row["type"])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
