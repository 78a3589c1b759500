# No `from __future__ import annotations`: the reader reads the types at run time.

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import pytest

from patchwheel.kit import Interpreter, InvalidDataError, PlainReader, did_you_mean
from patchwheel.manifest.convert import Rule, make_reader, write_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    short_name: Annotated[str, "What it is called.", Rule("letters", "[a-z]+")]
    kind: Literal["a", False] | None = None


ROW = {"short-name": "x"}
Word = Annotated[str, Rule("a word", r"\w+")]


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Row, ROW),
        (Row, {**ROW, "kind": "a"}),
        (Row, {**ROW, "kind": False}),
        (Row, {**ROW, "kind": None}),
        (tuple[int, ...], [1, 2]),
        (Mapping[Word, str | tuple[str, ...]], {"a": "b", "c": ["d"]}),
        (Mapping[str, Row], {}),
    ],
)
def test_what_is_read_is_written_the_same(hint: type[object], value: dict[str, object]) -> None:
    read = make_reader().structure(value, hint)
    assert write_record(read) == ({"kind": None, **ROW, **value} if hint is Row else value)
    # A table of a frozen record is a view.
    assert type(read) in {Row, tuple, MappingProxyType}


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Row, {}),
        (Row, []),
        (Row, "x"),
        (Row, {**ROW, "more": 1}),
        (Row, {"short_name": "x"}),
        (Row, {"short-name": "X"}),
        (Row, {"short-name": 1}),
        (Row, {**ROW, "kind": 0}),
        (Row, {**ROW, "kind": True}),
        (Row, {**ROW, "kind": "b"}),
        (tuple[str, ...], "ab"),
        (tuple[str, ...], ["a", 1]),
        (tuple[str, ...], {"a": "b"}),
        (Mapping[Word, str], {"": "a"}),
        (Mapping[Word, str], {"a": None}),
        (Mapping[Word, str], [["a", "b"]]),
        (Mapping[str, str | tuple[str, ...]], {"a": {"b": "c"}}),
    ],
)
def test_other_data_than_its_type_says_is_refused(hint: type[object], value: object) -> None:
    with pytest.raises(InvalidDataError):
        make_reader().structure(value, hint)


def test_all_that_is_wrong_is_told_with_its_place() -> None:
    with pytest.raises(InvalidDataError) as caught:
        make_reader().structure({"a": {"knd": "a"}, "b": {**ROW, "kind": 1}}, Mapping[str, Row])
    assert [(str(problem), problem.expected) for problem in caught.value.problems] == [
        ("a.short-name is missing", None),
        ("a.knd is not a key here (did you mean 'kind'?)", "one of short-name, kind"),
        ("b.kind is 1", None),
    ]
    assert make_reader(strict=False).structure({**ROW, "more": 1}, Row) == Row(short_name="x")


def test_the_store_reads_pairs_lists_and_paths() -> None:
    data = {"path": "/usr/bin/python3", "version": "3.12.1"}
    assert PlainReader().structure(data, Interpreter) == Interpreter(
        path=Path("/usr/bin/python3"), version="3.12.1"
    )
    pair = tuple[tuple[int, ...], str]
    assert PlainReader().structure([[1, 2], "x"], pair) == ((1, 2), "x")
    assert PlainReader().structure({"a": ["b"]}, dict[str, list[str]]) == {"a": ["b"]}
    with pytest.raises(ValueError, match="zip"):
        PlainReader().structure([[1, 2]], pair)


def test_a_near_miss_is_a_question_and_another_word_is_none() -> None:
    assert did_you_mean("comit", ["tag", "commit"]) == " (did you mean 'commit'?)"
    assert did_you_mean("zzz", ["tag", "commit"]) == ""
