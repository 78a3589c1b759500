"""Names the place in which a file is not what follows from the wheels."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOADERS = {".json": json.loads, ".toml": tomllib.loads}


def differences(name: str, actual: bytes, expected: bytes) -> Iterator[str]:
    """Yield one sentence if the file is not as expected; for JSON and TOML it names the field."""
    if actual == expected:
        return
    load = LOADERS.get(Path(name).suffix)
    try:
        field = load and first_difference(load(actual.decode()), load(expected.decode()))
    except ValueError as err:
        yield f"{name}: cannot be read: {err}"
    else:
        yield f"{name}: {field or 'is not written as it follows from the wheels'}"


def first_difference(actual: object, expected: object, at: str = "") -> str | None:
    """Name the first place in which two values of JSON differ, or return None."""
    return next(_differences(actual, expected, at), None)


def _differences(actual: object, expected: object, at: str) -> Iterator[str]:
    if isinstance(actual, dict) and isinstance(expected, dict):
        for key in sorted(actual.keys() | expected.keys()):
            place = f"{at}.{key}" if at else str(key)
            if key not in actual or key not in expected:
                yield f"{place} is {'missing' if key in expected else 'one too many'}"
            else:
                yield from _differences(actual[key], expected[key], place)
    elif isinstance(actual, list) and isinstance(expected, list):
        if len(actual) != len(expected):
            yield f"{at} has {len(actual)} entries, not {len(expected)}"
        else:
            for number, pair in enumerate(zip(actual, expected, strict=True)):
                yield from _differences(*pair, f"{at}[{number}]")
    elif type(actual) is not type(expected) or actual != expected:
        yield f"{at} is {actual!r}, not {expected!r}"
