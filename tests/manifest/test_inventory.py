from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwheel.manifest.convert import find_problems, make_converter
from patchwheel.manifest.inventory import BuildInventory, register_inventory

CONVERTER = make_converter(strict=False)
register_inventory(CONVERTER)
NAMES = st.text("ab_.-é ", min_size=1, max_size=4).filter(lambda n: n not in {".", ".."})
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@given(
    verbatim=st.dictionaries(PATHS, PATHS, max_size=8),
    built=st.sets(PATHS, max_size=5),
    reads=st.frozensets(PATHS, max_size=8),
)
def test_every_inventory_survives_folding(
    verbatim: dict[str, str], built: set[str], reads: frozenset[str]
) -> None:
    inventory = BuildInventory(verbatim=verbatim, built=tuple(sorted(built)), reads=reads)
    data = json.loads(json.dumps(CONVERTER.unstructure(inventory)))
    found = CONVERTER.structure(data, BuildInventory)
    assert found.verbatim == verbatim
    assert set(found.built) == built
    assert found.reads == reads


@pytest.mark.parametrize(
    ("changes", "at", "message"),
    [
        ({"source-root": 1}, ("source-root",), "is 1"),
        ({"verbatim": []}, ("verbatim",), "is not a table"),
        ({"built": {"a": "b"}}, ("built", "a"), "is 'b'"),
        ({"reads": {"a": ["b", 1]}}, ("reads", "a"), "is ['b', 1]"),
        ({"moved": {"a": 1}}, ("moved", "a"), "is 1"),
        ({"opened": {"a": {}}}, ("opened", "a"), "is {}"),
    ],
)
def test_what_is_damaged_is_named(
    changes: dict[str, object], at: tuple[str, ...], message: str
) -> None:
    empty = BuildInventory(verbatim={}, built=(), reads=frozenset())
    data = {**CONVERTER.unstructure(empty), **changes}
    with pytest.raises(ExceptionGroup) as caught:
        CONVERTER.structure(data, BuildInventory)
    [problem] = find_problems(caught.value)
    assert (problem.at, problem.message) == (at, message)
