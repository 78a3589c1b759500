# No `from __future__ import annotations`: cattrs reads the types at run time.

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import pytest

from patchwheel.kit import Interpreter, PlainReader
from patchwheel.manifest import load_lock, load_manifest
from patchwheel.manifest.convert import (
    Rule,
    did_you_mean,
    find_problems,
    make_converter,
    make_reader,
)
from tests.fixtures.support import ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Picky:
    name: str

    def __post_init__(self) -> None:
        raise RuntimeError(self.name)


def test_a_fault_of_ours_is_not_told_as_a_problem_of_the_file() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        make_converter(strict=True).structure({"name": "x"}, Picky)
    with pytest.raises(RuntimeError, match="x"):
        find_problems(caught.value)


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
def test_the_plain_reader_reads_as_a_converter_does(hint: type[object], value: object) -> None:
    read = make_reader().structure(value, hint)
    assert read == make_converter(strict=True).structure(value, hint)
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
def test_what_a_converter_refuses_the_plain_reader_refuses(
    hint: type[object], value: object
) -> None:
    for reader in (make_converter(strict=True), make_reader()):
        with pytest.raises((ExceptionGroup, ValueError)):
            reader.structure(value, hint)


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


def test_our_own_forks_are_read_the_same_with_cattrs_and_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = ROOT / "forks.toml", ROOT / "forks.lock"
    code = "import sys, patchwheel.wheelfile.record\nfrom pathlib import Path\n"
    code += "from patchwheel.manifest import load_lock, load_manifest\n"
    code += "load_manifest(Path(sys.argv[1])), load_lock(Path(sys.argv[2]))\n"
    code += "print([name for name in sys.modules if 'attr' in name])"
    said = subprocess.check_output([sys.executable, "-c", code, *files], text=True)
    assert said == "[]\n"
    plain = load_manifest(files[0]), load_lock(files[1])

    def refuse(self: PlainReader, value: object, hint: object) -> object:
        raise ValueError(hint)

    monkeypatch.setattr(PlainReader, "structure", refuse)
    assert (load_manifest(files[0]), load_lock(files[1])) == plain


def test_a_near_miss_is_a_question_and_another_word_is_none() -> None:
    assert did_you_mean("comit", ["tag", "commit"]) == " (did you mean 'commit'?)"
    assert did_you_mean("zzz", ["tag", "commit"]) == ""
