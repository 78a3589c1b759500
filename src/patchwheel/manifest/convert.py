"""Turn plain data, of TOML or JSON, into records and back, and say what is wrong with it."""

from __future__ import annotations

import json
import re

# cattrs takes about 50 ms to import: it writes, and says what is wrong.
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from inspect import get_annotations
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from patchwheel.kit import (
    Distribution,
    MachineError,
    ManifestError,
    PlainReader,
    exclusive_lock,
    parsed,
    parsed_toml,
    write_atomically,
)

if TYPE_CHECKING:
    from cattrs import Converter

    Hook = Callable[[Any, Any], Any]

# As `json.dumps` indents it: a list of strings, with any characters in them, and of numbers.
FLAT_LIST = r'\[\n *((?:(?:"(?:[^"\\]|\\.)*+"|[^\[\]{}",\s]++)(?:,\n *)?+)++)\n *\]'
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
VERSION = re.compile(r"[0-9][a-z0-9.!+]*")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(eq=False)
class InvalidValueError(ValueError):
    """What is wrong with a value; `at` is the path of its key below where it was raised."""

    message: str
    expected: str | None = None
    at: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{'.'.join(self.at)} {self.message}"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must be beyond its type: match the whole `pattern`, or just not be empty."""

    expected: str
    pattern: str = ""

    def allows(self, value: object) -> bool:
        return bool(re.fullmatch(self.pattern, str(value)) if self.pattern else value)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question to append to the message about an unknown word, or an empty string."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def key_name(field_name: str) -> str:
    """Return the key that stands for the field of a record in a file."""
    return field_name.replace("_", "-")


def key_names(record: type) -> list[str]:
    """Return the keys of a record, its own before those of the record that it extends."""
    own = get_annotations(record)
    return [key_name(f.name) for f in sorted(fields(record), key=lambda f: f.name not in own)]


def make_reader(hooks: Mapping[Any, Hook] = MappingProxyType({})) -> PlainReader:
    """Return what reads records as the converters do, where nothing is wrong."""
    return PlainReader({Distribution: _read_distribution, **hooks}, key_name)


def make_converter(*, strict: bool) -> Converter:
    """Return a converter for records; a strict one refuses keys that a record does not have."""
    from cattrs import Converter
    from cattrs.gen import make_dict_unstructure_fn

    # cattrs itself would turn 1 into "1" and a string into a tuple of letters, hence the hooks.
    converter = Converter(forbid_extra_keys=strict)
    converter.register_structure_hook(str, _structure_string)
    converter.register_structure_hook(Distribution, _read_distribution)
    for matches, structure in (
        (_has_origin(tuple), _structure_tuple),
        (_has_origin(Union, UnionType), _structure_union),
        (_has_origin(Annotated), _structure_annotated),
    ):
        converter.register_structure_hook_func(matches, partial(structure, converter))
    for matches in (is_dataclass, _has_origin(Mapping)):
        converter.register_structure_hook_factory(matches, _structure_table)
    converter.register_unstructure_hook_factory(
        is_dataclass, lambda record: make_dict_unstructure_fn(record, converter, **_renamed(record))
    )
    converter.register_unstructure_hook_func(
        lambda hint: hint == tuple[Distribution, ...], _write_distributions
    )
    return converter


def _has_origin(*origins: object) -> Callable[[Any], bool]:
    return lambda hint: get_origin(hint) in origins


def _renamed(record: type[Any]) -> dict[str, Any]:
    from cattrs.gen import override

    return {f.name: override(rename=key_name(f.name)) for f in fields(record)}


def _structure_table(hint: type[Any], converter: Converter) -> Hook:
    from cattrs.gen import make_dict_structure_fn, mapping_structure_factory

    structure: Hook
    if is_dataclass(hint):
        structure = make_dict_structure_fn(hint, converter, **_renamed(hint))
    else:
        # A read-only view, as the records are frozen.
        structure = mapping_structure_factory(hint, converter, MappingProxyType)

    def structure_table(value: object, _: object) -> object:
        if not isinstance(value, dict):
            raise InvalidValueError("is not a table")
        return structure(value, hint)

    return structure_table


def _structure_tuple(converter: Converter, value: object, hint: object) -> object:
    # A string is iterable too.
    if not isinstance(value, list):
        raise InvalidValueError(f"is {value!r}", "a list")
    item = get_args(hint)[0]
    return tuple(converter.structure(v, item) for v in value)


def _structure_union(converter: Converter, value: object, hint: object) -> object:
    """Structure a type that may also be None, a constant such as False, or a string."""
    arms = get_args(hint)
    constants = [None, *(c for arm in arms if get_origin(arm) is Literal for c in get_args(arm))]
    # Compared by identity: 0 == False.
    if any(value is c for c in constants) or (str in arms and isinstance(value, str)):
        return value
    *_, last = (arm for arm in arms if arm is not NoneType and get_origin(arm) is not Literal)
    return converter.structure(value, last)


def _structure_annotated(converter: Converter, value: object, hint: object) -> object:
    plain, *notes = get_args(hint)
    result = converter.structure(value, plain)
    for rule in notes:
        if isinstance(rule, Rule) and not rule.allows(result):
            raise InvalidValueError(f"is {value!r}" if value else "is empty", rule.expected)
    return result


def _structure_string(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise InvalidValueError(f"is {value!r}", "a string")
    return value


def _read_distribution(row: object, _: object) -> Distribution:
    # Anything else might be an option or a place to uv, which runs an sdist's setup.py.
    match row:
        case [str(name), str(version), *hashes] if (
            NAME.fullmatch(name)
            and VERSION.fullmatch(version)
            and hashes
            and all(isinstance(h, str) and SHA256.fullmatch(h) for h in hashes)
        ):
            return Distribution(name=name, version=version, hashes=tuple(map(str, hashes)))
    raise InvalidValueError(f"is {row!r}", "a list of name, version and one sha256 or more")


def _write_distributions(distributions: tuple[Distribution, ...]) -> list[list[str]]:
    # A row each, not a table: the lock has hundreds and is reviewed by people.
    ordered = sorted(distributions, key=lambda d: d.name)
    return [[d.name, d.version, *sorted(d.hashes)] for d in ordered]


def find_problems(error: BaseException, at: tuple[str, ...] = ()) -> list[InvalidValueError]:
    """Return what structuring found wrong, with whole paths, from the error that it raised."""
    from cattrs import AttributeValidationNote, ForbiddenExtraKeysError, IterableValidationNote

    # cattrs notes on each exception which attribute or item of its parent it came from.
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            at = (*at, key_name(note.name))
        elif isinstance(note, IterableValidationNote):
            at = (*at, str(note.index))
    if isinstance(error, BaseExceptionGroup):
        return [p for nested in error.exceptions for p in find_problems(nested, at)]
    if isinstance(error, ForbiddenExtraKeysError):
        known = key_names(error.cl)
        expected = f"one of {', '.join(known)}"
        return [
            InvalidValueError(f"is not a key here{did_you_mean(key, known)}", expected, (*at, key))
            for key in error.extra_fields
        ]
    # The code that cattrs generates indexes the table for a key that has no default.
    if isinstance(error, KeyError):
        return [InvalidValueError("is missing", at=at)]
    if isinstance(error, InvalidValueError):
        return [InvalidValueError(error.message, error.expected, (*at, *error.at))]
    if isinstance(error, RecursionError):
        return [InvalidValueError("is nested too deeply", at=at)]
    # Anything else is a fault of patchwheel, not of the file.
    raise error


def read_file(path: Path, kind: str, *, missing: str, hint: str) -> Any:
    """Return the data in a TOML or JSON file of the project; raises ManifestError."""
    try:
        text = path.read_text(encoding="utf-8")
        return parsed_toml(text) if kind == "TOML" else parsed(text)
    except FileNotFoundError as err:
        raise ManifestError(missing, where=path, hint=hint) from err
    except OSError as err:
        raise ManifestError(f"cannot be read: {err.strerror}", where=path) from err
    except ValueError as err:
        raise ManifestError(f"is not valid {kind}: {err}", where=path, hint=hint) from err


def save_json(path: Path, data: object) -> str:
    """Write JSON with sorted keys and a line for each, a list of names or numbers on one line.

    Returns the text.
    """
    text = json.dumps(data, indent=1, sort_keys=True)
    text = re.sub(FLAT_LIST, lambda flat: "[" + re.sub(r"\n *", " ", flat[1]) + "]", text)
    # Commands may run at the same time; a reader sees the old file or the new one.
    try:
        with exclusive_lock(path.parent):
            write_atomically(path, f"{text}\n".encode())
    except OSError as err:
        hint = "free some room, or see who may write it, then run the command again"
        problem = f"cannot be written: {err.strerror}"
        raise MachineError(problem, where=path, hint=hint) from err
    return text
