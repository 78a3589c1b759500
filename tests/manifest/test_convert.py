from __future__ import annotations

from dataclasses import dataclass

import pytest

from patchwheel.manifest.convert import find_problems, make_converter


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
