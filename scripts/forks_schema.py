"""Write the JSON Schema of forks.toml and the key tables of its reference from the records."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from patchwheel.kit.files import fields_by_key
from patchwheel.manifest.convert import Rule, key_name
from patchwheel.manifest.model import SOURCES, EnvironmentSpec, ForkTable, ManifestTable

SCHEMA_FILE = Path("src/patchwheel/manifest/forks.schema.json")
REFERENCE = Path("docs/reference/manifest.md")
TABLES: dict[str, type] = {"environment": EnvironmentSpec, "fork": ForkTable}
NOT_EMPTY = {"string": "minLength", "array": "minItems", "object": "minProperties"}
TYPE_NAMES = {"string": "string", "array": "list of strings", "object": "table"}


def manifest_schema() -> dict[str, Any]:
    """Return the JSON Schema of forks.toml."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "forks.toml",
        "description": "Pinned upstream projects that patchwheel makes patched wheels of.",
        **_schema(ManifestTable),
    }


def key_table(record: type) -> str:
    """Return a Markdown table that describes the keys of a record."""
    rows = ["| key | type | meaning |", "| --- | --- | --- |", *_rows(_schema(record))]
    return "\n".join(rows) + "\n"


def with_tables(text: str) -> str:
    """Return the text of the reference with each table, between its markers, made anew."""
    for name, record in TABLES.items():
        # Markdown renderers hide comments.
        between = f"(?s)(?<=<!-- keys of {name} -->\n).*?(?=<!-- end of keys -->)"
        text = re.sub(between, key_table(record).replace("\\", r"\\"), text)
    return text


def rewrite(root: Path) -> None:
    """Write the schema and the tables anew in a checkout."""
    schema, reference = root / SCHEMA_FILE, root / REFERENCE
    schema.write_text(json.dumps(manifest_schema(), indent=2) + "\n", encoding="utf-8")
    reference.write_text(with_tables(reference.read_text(encoding="utf-8")), encoding="utf-8")


def _schema(hint: object) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        schema = _schema(arguments[0])
        for note in arguments[1:]:
            schema |= _rule(note, schema) if isinstance(note, Rule) else {"description": note}
    elif isinstance(hint, type) and is_dataclass(hint):
        schema = _record(hint)
    elif origin is Literal:
        schema = {"const": arguments[0]}
    elif origin is tuple:
        schema = {"type": "array", "items": _schema(arguments[0])}
    elif origin is Mapping:
        names, values = map(_schema, arguments)
        schema = {"type": "object", "propertyNames": names, "additionalProperties": values}
    elif hint is str:
        schema = {"type": "string"}
    else:
        # A union; None is a key that is absent.
        arms = [_schema(arm) for arm in arguments if arm is not NoneType]
        schema = arms[0] if len(arms) == 1 else {"oneOf": arms}
    return schema


def _rule(rule: Rule, schema: dict[str, Any]) -> dict[str, Any]:
    return {"pattern": f"^{rule.pattern}$"} if rule.pattern else {NOT_EMPTY[schema["type"]]: 1}


def _record(record: Any) -> dict[str, Any]:
    hints = get_type_hints(record, include_extras=True)
    properties = {key_name(name): _schema(hint) for name, hint in hints.items()}
    # A field without a default has neither: both are MISSING.
    required = [key_name(f.name) for f in fields(record) if f.default is f.default_factory]
    # The one rule that concerns several keys at once.
    sources = [{"required": list(keys)} for keys in SOURCES]
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required,
        **({"anyOf": sources} if record is ForkTable else {}),
        "properties": {key: properties[key] for key in fields_by_key(record, key_name)},
    }


def _rows(schema: dict[str, Any], prefix: str = "") -> list[str]:
    rows = []
    for key, value in schema["properties"].items():
        # The keys of a small table within follow as rows of their own.
        arms = value.get("oneOf", [value])
        types = " or ".join(TYPE_NAMES.get(arm.get("type"), "`false`") for arm in arms)
        required = ", required" if key in schema["required"] else ""
        rows.append(f"| `{prefix}{key}` | {types}{required} | {value['description']} |")
        for arm in arms:
            rows += _rows(arm, f"{prefix}{key}.") if "properties" in arm else []
    return rows


if __name__ == "__main__":
    rewrite(Path.cwd())
