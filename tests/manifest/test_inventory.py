import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwheel.kit import InvalidDataError
from patchwheel.manifest.convert import make_reader, write_record
from patchwheel.manifest.inventory import INVENTORY_HOOKS, INVENTORY_WRITERS, BuildInventory

READER = make_reader(INVENTORY_HOOKS)
NAMES = st.text("ab_.-é ", min_size=1, max_size=4).filter(lambda n: n not in {".", ".."})
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@given(
    verbatim=st.dictionaries(PATHS, PATHS, max_size=8),
    built=st.frozensets(PATHS, max_size=5),
    reads=st.frozensets(PATHS, max_size=8),
)
def test_every_inventory_survives_folding(
    verbatim: dict[str, str], built: frozenset[str], reads: frozenset[str]
) -> None:
    inventory = BuildInventory(verbatim=verbatim, built=built, reads=reads)
    data = json.loads(json.dumps(write_record(inventory, INVENTORY_WRITERS)))
    assert READER.structure(data, BuildInventory) == inventory


@pytest.mark.parametrize(
    ("changes", "at", "message"),
    [
        (
            {"verbatim": {"source-root": 1, "same": {}, "moved": {}}},
            ("verbatim", "source-root"),
            "is 1",
        ),
        ({"verbatim": []}, ("verbatim",), "is not a table"),
        ({"built": {"a": "b"}}, ("built", "a"), "is 'b'"),
        ({"reads": {"a": ["b", 1]}}, ("reads", "a"), "is ['b', 1]"),
        (
            {"verbatim": {"source-root": "", "same": {}, "moved": {"a": 1}}},
            ("verbatim", "moved", "a"),
            "is 1",
        ),
        ({"opened": {"a": []}}, ("opened", "a"), "is not a table"),
    ],
)
def test_what_is_damaged_is_named(
    changes: dict[str, object], at: tuple[str, ...], message: str
) -> None:
    empty = BuildInventory(verbatim={}, built=frozenset(), reads=frozenset())
    data = {**write_record(empty, INVENTORY_WRITERS), **changes}
    with pytest.raises(InvalidDataError) as caught:
        READER.structure(data, BuildInventory)
    [problem] = caught.value.problems
    assert (problem.at, problem.message) == (at, message)
