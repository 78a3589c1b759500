from __future__ import annotations

import pytest

from patchwheel.manifest.toml import did_you_mean, line_of


@pytest.mark.parametrize(
    ("at", "line"),
    [
        (("a", "b"), 2),
        (("a", "c", "d"), 3),
        (("a", "c", "zzz"), 3),
        (("x", "y", "k"), 6),
        (("x", "missing"), None),
        (("q",), None),
    ],
)
def test_the_line_of_a_key_is_found(at: tuple[str, ...], line: int | None) -> None:
    text = "[a]\nb = 1\nc = { d = 2 }\n\n[x.'y'] # note\n\"k\" = 3\n"
    assert line_of(text, at) == line


def test_a_near_miss_is_a_question_and_another_word_is_none() -> None:
    assert did_you_mean("comit", ["tag", "commit"]) == " (did you mean 'commit'?)"
    assert did_you_mean("zzz", ["tag", "commit"]) == ""
