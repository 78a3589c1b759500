import hashlib
from pathlib import Path

import pytest

from patchwheel.kit.errors import InputError
from patchwheel.kit.uv import Distribution
from patchwheel.wheelfile.read import read_wheel
from patchwheel.wheelfile.record import FILENAME, parse_record
from tests.fixtures import support
from tests.fixtures.records import compiled_json, make_record, record_bytes, record_json

PIN = {"git": None, "tag": None, "commit": None, "sdist": None, "version": "1.0"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pin": PIN, "base": None, "patches": [], "remade": [], "why": []},
        {"route": "compile", "base": None, "compiled": compiled_json()},
    ],
)
def test_a_record_that_is_read_and_written_keeps_its_bytes(changes: dict[str, object]) -> None:
    data = record_bytes(**changes)
    record = parse_record(data, where="here")
    assert record.to_bytes() == data
    assert record.sha256 == hashlib.sha256(data).hexdigest()


def test_names_and_values_are_those_of_the_file() -> None:
    record = make_record(compiled=compiled_json())
    assert record.patches[0].upstream_status == "Backport [0123abc]"
    assert record.compiled
    assert record.compiled.config_settings == {"a": "b", "setup-args": ("-Dx=y", "-Dz")}
    meson = Distribution(name="meson", version="1.9", hashes=("d" * 64, "e" * 64))
    assert record.compiled.build_requirements[0] == meson
    # What is compiled against was not taken from the index.
    assert record.compiled.published_requirements == (meson,)
    assert make_record().compiled is None


def without(name: str) -> bytes:
    data = record_bytes()
    line = next(row for row in data.splitlines() if row.startswith(f' "{name}"'.encode()))
    return data.replace(line + b"\n", b"")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\xff", "it is no JSON object"),
        (b"[]", "it is no JSON object"),
        (without("taken"), "taken is missing"),
        (record_bytes(more=1), "more is not a key here"),
        (record_bytes(taken="x"), "taken is 'x'"),
        (record_bytes(taken="3"), "taken is '3'"),
        (record_bytes(taken=True), "taken is True"),
        (record_bytes(fork=3), "fork is 3"),
        (record_bytes(route="other"), "route is 'other'"),
        (record_bytes(trees=None), "trees is not a table"),
        (record_bytes(pin={**PIN, "sha": ""}), r"pin\.sha is not a key here"),
        (record_bytes(compiled=[]), "compiled is not a table"),
        (record_bytes(compiled=compiled_json(env={"A": 1})), r"compiled\.env\.A is 1"),
        (
            record_bytes(compiled=compiled_json(**{"build-requirements": [["meson"]]})),
            r"compiled\.build-requirements is \['meson'\]",
        ),
        (
            record_bytes(compiled=compiled_json(**{"source-date-epoch": "today"})),
            r"compiled\.source-date-epoch is no number of seconds",
        ),
        (record_bytes(route="compile"), "a compile has to say what it was compiled with"),
        (record_bytes(why="text"), "why is 'text'"),
        (record_bytes() + b"\n", "not written as patchwheel writes it"),
    ],
)
def test_a_malformed_record_is_one_clear_error(data: bytes, problem: str) -> None:
    with pytest.raises(InputError, match=f"its record {FILENAME} cannot be read: .*{problem}"):
        parse_record(data, where="here")


@pytest.mark.parametrize("schema", [0, 1, 3, "1", None])
def test_another_schema_is_refused_before_anything_else(schema: object) -> None:
    with pytest.raises(InputError, match=f"has schema {schema}; this patchwheel reads schema 2"):
        parse_record(record_bytes(schema=schema, more=1), where="here")


def test_a_wheel_without_a_record(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"has no demo-1\.0\.dist-info/{FILENAME}"):
        _ = read_wheel(support.make_wheel(tmp_path, "demo", "1.0", {})).record


def test_reading_a_wheel_names_the_wheel_whose_record_is_malformed(tmp_path: Path) -> None:
    files = {f"demo-1.0.dist-info/{FILENAME}": "{}"}
    wheel = support.make_wheel(tmp_path, "demo", "1.0", files)
    with pytest.raises(InputError) as caught:
        _ = read_wheel(wheel).record
    assert caught.value.where == wheel
    good = support.make_wheel(
        tmp_path / "good",
        "demo",
        "1.0",
        {f"demo-1.0.dist-info/{FILENAME}": record_bytes().decode()},
    )
    assert read_wheel(good).record.to_json()["patches"] == record_json()["patches"]
