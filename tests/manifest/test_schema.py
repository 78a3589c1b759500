import copy
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import forks_schema as schema
import jsonschema
import pytest

from tests.fixtures.support import dedent
from tests.manifest.test_load import FULL, refused

ROOT = Path(__file__).parents[2]
SCHEMA = schema.manifest_schema()
DATA = tomllib.loads(dedent(FULL))
RECORDS = [
    (),
    ("environment",),
    ("forks", "tiny-ext"),
    ("forks", "tiny-ext", "sdist"),
    ("forks", "tiny-ext", "upstream-wheel"),
    ("forks", "tiny-ext", "variants", "two"),
    ("forks", "tiny-ext", "variants", "two", "upstream-wheel"),
]


def test_the_committed_schema_and_reference_are_those_of_the_records(tmp_path: Path) -> None:
    for file in (schema.SCHEMA_FILE, schema.REFERENCE):
        (tmp_path / file).parent.mkdir(parents=True)
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / schema.SCHEMA_FILE).write_text("{}")
    schema.rewrite(tmp_path)
    for file in (schema.SCHEMA_FILE, schema.REFERENCE):
        # If this fails: python scripts/forks_schema.py
        assert (tmp_path / file).read_text() == (ROOT / file).read_text()


def test_a_table_of_the_reference_is_made_anew_between_its_markers() -> None:
    old = "before\n<!-- keys of fork -->\n| `gone` | x | y |\n<!-- end of keys -->\nafter\n"
    new = schema.with_tables(old)
    assert new.startswith("before\n<!-- keys of fork -->\n| key | type | meaning |\n")
    assert new.endswith("|\n<!-- end of keys -->\nafter\n")
    assert "gone" not in new
    assert "| `sdist.sha256` | string, required | Its sha256. |" in new
    assert "| `upstream-wheel` | table or `false` |" in new


def properties(at: tuple[str, ...]) -> set[str]:
    """Return the keys that the schema has for the table at a path of FULL."""
    found: dict[str, Any] = SCHEMA
    for part in at:
        named = found.get("properties", {}).get(part) or found["additionalProperties"]
        found = next(arm for arm in named.get("oneOf", [named]) if "type" in arm)
    return set(found["properties"])


def inside(data: dict[str, Any], at: tuple[str, ...]) -> dict[str, Any]:
    for part in at:
        data = data[part]
    return data


def test_the_schema_has_exactly_the_keys_that_are_read() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(DATA, SCHEMA)
    for at in RECORDS[:5]:
        assert set(inside(DATA, at)) == properties(at)
    fork = properties(("forks", "tiny-ext"))
    variant = properties(("forks", "tiny-ext", "variants", "two"))
    pin = {"version", "sdist", "git", "tag", "commit", "submodules"}
    assert fork - variant == {*pin, "tests", "variants"}


@pytest.mark.parametrize("at", RECORDS, ids=".".join)
def test_an_unknown_key_is_refused_by_the_schema_and_by_the_reader(
    tmp_path: Path, at: tuple[str, ...]
) -> None:
    data = copy.deepcopy(DATA)
    inside(data, at)["zzz"] = 1
    with pytest.raises(jsonschema.ValidationError, match="zzz"):
        jsonschema.validate(data, SCHEMA)
    lines = [f"{key} = {json.dumps(value)}" for key, value in flat(data)]
    error = refused(tmp_path, "\n".join(lines))
    assert f"{'.'.join((*at, 'zzz'))} is not a key here" in error.message


def flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    """Return the values of nested tables by dotted key."""
    rows: list[tuple[str, object]] = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        rows += flat(value, f"{name}.") if isinstance(value, dict) else [(name, value)]
    return rows


@pytest.mark.parametrize(
    ("at", "key", "value"),
    [
        ((), "schema", 2),
        ((), "forks", []),
        (("environment",), "label", "Array_API"),
        (("environment",), "python", []),
        (("environment",), "python", ["3.12.1"]),
        (("forks",), "Tiny_Ext", DATA["forks"]["tiny-ext"]),
        (("forks", "tiny-ext"), "version", "1+local"),
        (("forks", "tiny-ext"), "upstream-wheel", True),
        (("forks", "tiny-ext"), "programs", "gfortran"),
        (("forks", "tiny-ext", "env"), "A", ""),
        (("forks", "tiny-ext", "sdist"), "filename", "../a.tar.gz"),
        (("forks", "tiny-ext", "config-settings"), "a", [1]),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(
    at: tuple[str, ...], key: str, value: object
) -> None:
    data = copy.deepcopy(DATA)
    inside(data, at)[key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA)


def test_the_schema_wants_a_source() -> None:
    data = copy.deepcopy(DATA)
    del data["forks"]["tiny-ext"]["sdist"]
    jsonschema.validate(data, SCHEMA)
    del data["forks"]["tiny-ext"]["commit"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA)
