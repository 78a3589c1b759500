from __future__ import annotations

from dataclasses import dataclass

import pytest

from patchwheel.manifest.convert import did_you_mean, find_problems, make_converter


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


def test_a_near_miss_is_a_question_and_another_word_is_none() -> None:
    assert did_you_mean("comit", ["tag", "commit"]) == " (did you mean 'commit'?)"
    assert did_you_mean("zzz", ["tag", "commit"]) == ""
