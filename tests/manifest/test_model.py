from pathlib import Path

import pytest

from patchwheel.kit.errors import ManifestError
from tests.manifest.test_load import FULL, GOOD, fork, load


def test_a_variant_is_selected_where_there_is_one(tmp_path: Path) -> None:
    found = load(tmp_path, FULL)
    [one, two] = found.all_variants
    assert found.select([], "two") == [two]
    [default] = found.select([])
    assert default.env == one.env


def test_a_manifest_with_a_variant_has_it_in_the_forks_that_have_it(tmp_path: Path) -> None:
    found = load(tmp_path, f"{FULL}\n[forks.plain]\n{GOOD}")
    chosen = found.with_variant("two")
    assert list(chosen.forks) == list(found.forks)
    assert chosen.forks["tiny-ext"] == found.forks["tiny-ext"].variants["two"]
    assert chosen.forks["plain"] == found.forks["plain"]
    assert found.with_variant(None) is found
    assert found.other_variants == ["two"]
    with pytest.raises(ManifestError, match=r"has no variant 'too' .*did you mean"):
        found.with_variant("too")


def test_a_variant_that_is_not_there(tmp_path: Path) -> None:
    found = load(tmp_path, f"{FULL}\n[forks.plain]\n{GOOD}")
    assert [f.name for f in found.select([], "two")] == ["tiny-ext"]
    for names in (["tiny-ext"], []):
        with pytest.raises(ManifestError, match=r"has no variant 'too' .*did you mean"):
            found.select(names, "too")
    with pytest.raises(ManifestError, match="plain has no variant 'two'"):
        found.select(["plain", "tiny-ext"], "two")


def test_forks_are_selected_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    text = fork(f"{GOOD}[forks.second]\n{GOOD}[forks.third]\n{GOOD}")
    found = load(tmp_path, text)
    assert [f.name for f in found.select([])] == ["tiny", "second", "third"]
    assert [f.name for f in found.select(["third", "tiny"])] == ["tiny", "third"]
    with pytest.raises(ManifestError, match=r"'secnd' \(did you mean 'second'\?\)"):
        found.select(["secnd"])
