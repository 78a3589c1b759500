"""Changes that an attacker, or a damaged disk, makes to data that is read."""

import copy
import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

Json = Any
Place = tuple[Any, ...]


@dataclass(frozen=True)
class Mutated:
    """Data after a change, and what was changed."""

    data: bytes = field(repr=False)
    change: tuple[object, ...]


def nested(depth: int) -> Json:
    value: Json = "x"
    for _ in range(depth):
        value = [value]
    return value


# 900: what the reader of JSON takes, and a program that is deep in calls does not.
WRONG: list[Json] = [
    *(None, True, False, 0, -1, 1 << 80, 1e300, float("inf"), "", "x", "\0", "../../x", "/x"),
    *("a\nb", "\ud800", "x" * 5000, [], {}, [1], [None], [[]], {"a": 1}, {"": {}}, {"\0": ["\0"]}),
    *(nested(200), nested(900), {"a": nested(900)}),
]
RAW = [
    *(b"", b"\0", b"\xff\xfe", b"[" * 9000, b'{"a":' * 9000, b"null", b"[]", b"{}", b'""'),
    *(b"1", b"NaN", b"{", b"\xef\xbb\xbf{}", b"1" * 5000),
]


def places(value: Json, at: Place = ()) -> list[Place]:
    """Return all places in JSON-like data."""
    found = [at]
    if isinstance(value, dict):
        found += [p for key, one in value.items() for p in places(one, (*at, key))]
    elif isinstance(value, list):
        # The first ones stand for their equals.
        found += [p for n, one in enumerate(value[:3]) for p in places(one, (*at, n))]
    return found


def changed(value: Json, at: Place, new: Json) -> Json:
    """Return a copy with another value at a place; Ellipsis removes it."""
    if not at:
        return None if new is ... else new
    value = copy.copy(value)
    inner = changed(value[at[0]], at[1:], new)
    if new is ... and len(at) == 1:
        del value[at[0]]
    else:
        value[at[0]] = inner
    return value


def mutated_json(value: Json) -> st.SearchStrategy[Mutated]:
    """Return the strategy of texts of `value` with a change at one place."""
    all_places = places(value)
    # By depth first: most places of a long file are alike.
    depths = sorted({len(at) for at in all_places})
    by_depth = {depth: [at for at in all_places if len(at) == depth] for depth in depths}
    return st.one_of(
        st.sampled_from(RAW).map(lambda raw: Mutated(raw, (raw[:20],))),
        st.builds(
            lambda at, new: Mutated(
                json.dumps(changed(value, at, new)).encode(), (at, str(new)[:50])
            ),
            st.sampled_from(depths).flatmap(lambda depth: st.sampled_from(by_depth[depth])),
            st.sampled_from([..., *WRONG]),
        ),
        mutated_bytes(json.dumps(value).encode()),
    )


def mutated_bytes(data: bytes) -> st.SearchStrategy[Mutated]:
    """Return the strategy of copies of `data` that are cut, or have other bytes at a place."""
    bits = st.sampled_from([b"", b"\0", b"\xff", b"\n", b"\r\n", b"[", b'"', b"9" * 5000, b"-1"])
    return st.builds(
        lambda at, size, new: Mutated(
            data[:at] + new + data[at + size :], (at, size, new[:10], data[at - 20 : at + 20])
        ),
        st.integers(0, len(data)),
        st.sampled_from([0, 1, 2, 100, len(data)]),
        bits,
    )
