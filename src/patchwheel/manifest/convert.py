"""Turn plain data, of TOML or JSON, into records and back, and say what is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from patchwheel import kit

Hook = Callable[[Any, Any], Any]
# As `json.dumps` indents it: a list of strings, with any characters in them, and of numbers.
FLAT_LIST = r'\[\n *((?:(?:"(?:[^"\\]|\\.)*+"|[^\[\]{}",\s]++)(?:,\n *)?+)++)\n *\]'
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
VERSION = re.compile(r"[0-9][a-z0-9.!+]*")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must be beyond its type: match the whole `pattern`, or just not be empty."""

    expected: str
    pattern: str = ""

    def allows(self, value: object) -> bool:
        return bool(re.fullmatch(self.pattern, str(value)) if self.pattern else value)


def key_name(field_name: str) -> str:
    """Return the key that stands for the field of a record in a file."""
    return field_name.replace("_", "-")


def make_reader(
    hooks: Mapping[Any, Hook] = MappingProxyType({}), *, strict: bool = True
) -> kit.PlainReader:
    """Return what reads records; a strict one refuses keys that a record does not have."""
    return kit.PlainReader({kit.Distribution: _read_distribution, **hooks}, key_name, strict=strict)


def write_record(
    record: object, hooks: Mapping[type, Callable[[Any], object]] = MappingProxyType({})
) -> Any:
    """Return the data that a reader takes for a record."""
    # A row, not a table: the lock has hundreds and is reviewed by people.
    row: dict[type, Any] = {kit.Distribution: lambda d: [d.name, d.version, *sorted(d.hashes)]}
    return kit.plain_data(record, key_name, {**row, **hooks})


def _read_distribution(row: object, _: object) -> kit.Distribution:
    # Anything else might be an option or a place to uv, which runs an sdist's setup.py.
    match row:
        case [str(name), str(version), *hashes] if (
            NAME.fullmatch(name)
            and VERSION.fullmatch(version)
            and hashes
            and all(isinstance(h, str) and SHA256.fullmatch(h) for h in hashes)
        ):
            return kit.Distribution(name=name, version=version, hashes=tuple(map(str, hashes)))
    problem = kit.Problem(f"is {row!r}", "a list of name, version and one sha256 or more")
    raise kit.InvalidDataError(problem)


def read_file(path: Path, kind: str, *, missing: str, hint: str) -> Any:
    """Return the data in a TOML or JSON file of the project; raises ManifestError."""
    try:
        text = kit.read_regular(path).decode()
        return kit.parsed_toml(text) if kind == "TOML" else kit.parsed(text)
    except FileNotFoundError as err:
        raise kit.ManifestError(missing, where=path, hint=hint) from err
    except OSError as err:
        raise kit.ManifestError(f"cannot be read: {err.strerror}", where=path) from err
    except ValueError as err:
        hint = "correct it there" if kind == "TOML" else hint
        raise kit.ManifestError(f"is not valid {kind}: {err}", where=path, hint=hint) from err


def save_json(path: Path, data: object) -> str:
    """Write JSON with sorted keys, a list of names or numbers on one line, and return the text."""
    text = json.dumps(data, indent=1, sort_keys=True)
    text = re.sub(FLAT_LIST, lambda flat: "[" + re.sub(r"\n *", " ", flat[1]) + "]", text)
    # Commands may run at the same time; a reader sees the old file or the new one.
    try:
        with kit.exclusive_lock(path.parent):
            kit.write_atomically(path, f"{text}\n".encode(), alone=True)
    except OSError as err:
        hint = "free some room, or see who may write it, then run the command again"
        problem = f"cannot be written: {err.strerror}"
        raise kit.MachineError(problem, where=path, hint=hint) from err
    return text
