"""forks.inventory: which sources each built output of a pin is made from, and by which commands.

`patchwheel lock` writes it beside forks.lock, by configuring each pin once; people commit it. With
it a change of content alone is planned without a compiler. Where it is missing or is for another
pin, the plan says that it needs a configured tree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping  # noqa: TC003 - cattrs reads the types at run time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patchwheel.kit.errors import MachineError, ManifestError
from patchwheel.kit.files import exclusive_lock, write_atomically
from patchwheel.manifest.convert import InvalidValueError, make_converter
from patchwheel.manifest.inventory import Paths, register_paths

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cattrs import Converter

SCHEMA = 1
# Deeper tables, those of a group's folders, are written on one line.
DEPTH = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltOutput:
    """`source` is the file of the build folder; `reads` are source files that it may depend on.

    Of those in `exists` only the presence counts. An output without a `source` has no build rule
    in the locked configuration: it is attributed to sources by its name.
    """

    source: str
    reads: frozenset[str]
    exists: frozenset[str] = frozenset()
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The built outputs of one pin for one Python; `tree` and `settings` say what it is true of.

    `definition` are the files that decide what is built, `unfollowed` says what cannot be attributed
    to outputs whatever changes.
    """

    tree: str
    settings: str
    definition: frozenset[str]
    outputs: Mapping[str, BuiltOutput]
    unfollowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRow:
    source: str
    groups: tuple[int, ...]
    exists: tuple[str, ...]
    commands: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachTable:
    """A Reach as it is written: files that the same outputs read are one group.

    A command is a list of numbers of `words`. Without this CuPy's alone would be 7 MB.
    """

    tree: str
    settings: str
    definition: Paths
    unfollowed: tuple[str, ...]
    groups: tuple[Paths, ...]
    words: tuple[str, ...]
    outputs: Mapping[str, OutputRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryFile:
    schema: int
    forks: Mapping[str, Mapping[str, ReachTable]]


def load_reach(path: Path, lock_key: str, python: str) -> Reach | None:
    """Return what the file says of a fork for a Python; None where it says nothing.

    Raises ManifestError for a file that is damaged.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        table = data["forks"].get(lock_key, {}).get(python)
        return _unpack(_converter().structure(table, ReachTable)) if table else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, ExceptionGroup) as err:
        raise ManifestError(
            "is damaged", where=path, hint="run `patchwheel lock --force` to write it again"
        ) from err


def save_reach(path: Path, found: Mapping[tuple[str, str], Reach], keep: Iterable[str]) -> None:
    """Write the entries by lock key and Python, beside those in the file of the forks in `keep`."""
    kept: dict[str, Any] = {}
    if path.exists():
        names = set(keep)
        rows = json.loads(path.read_text(encoding="utf-8")).get("forks", {})
        kept = {name: row for name, row in rows.items() if name in names}
    if not (kept or found or path.exists()):
        return
    converter = _converter()
    for (lock_key, python), reach in found.items():
        row = kept.setdefault(lock_key, {})
        row[python] = converter.unstructure(_pack(reach))
    data = {"schema": SCHEMA, "forks": dict(sorted(kept.items()))}
    try:
        with exclusive_lock(path.parent):
            write_atomically(path, (_lines(data) + "\n").encode())
    except OSError as err:
        raise MachineError(f"cannot be written: {err.strerror}", where=path) from err


def _pack(reach: Reach) -> ReachTable:
    users: dict[str, list[str]] = {}
    for name, output in sorted(reach.outputs.items()):
        for path in output.reads:
            users.setdefault(path, []).append(name)
    groups: dict[tuple[str, ...], list[str]] = {}
    for path, names in sorted(users.items()):
        groups.setdefault(tuple(names), []).append(path)
    number = {names: at for at, names in enumerate(groups)}
    words: dict[str, int] = {}
    rows = {}
    for name, output in sorted(reach.outputs.items()):
        commands = tuple(
            tuple(words.setdefault(word, len(words)) for word in command.split(" "))
            for command in output.commands
        )
        rows[name] = OutputRow(
            source=output.source,
            groups=tuple(at for names, at in number.items() if name in names),
            exists=tuple(sorted(output.exists)),
            commands=commands,
        )
    return ReachTable(
        tree=reach.tree,
        settings=reach.settings,
        definition=Paths(tuple(sorted(reach.definition))),
        unfollowed=reach.unfollowed,
        groups=tuple(Paths(tuple(paths)) for paths in groups.values()),
        words=tuple(words),
        outputs=rows,
    )


def _unpack(table: ReachTable) -> Reach:
    outputs = {
        name: BuiltOutput(
            source=row.source,
            reads=frozenset(path for at in row.groups for path in table.groups[at]),
            exists=frozenset(row.exists),
            commands=tuple(" ".join(table.words[w] for w in words) for words in row.commands),
        )
        for name, row in table.outputs.items()
    }
    return Reach(
        tree=table.tree,
        settings=table.settings,
        definition=frozenset(table.definition),
        outputs=outputs,
        unfollowed=table.unfollowed,
    )


def _converter() -> Converter:
    converter = make_converter(strict=False)
    converter.register_structure_hook(int, _structure_number)
    register_paths(converter)
    return converter


def _structure_number(value: object, _: object) -> int:
    if not isinstance(value, int):
        raise InvalidValueError(f"is {value!r}", "a number")
    return value


def _lines(value: object, depth: int = 0) -> str:
    """Write JSON with a line for each output, group and folder."""
    pad = " " * depth
    if isinstance(value, dict) and value and depth < DEPTH:
        rows = [f"{pad} {json.dumps(k)}: {_lines(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{pad}}}"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "[\n" + ",\n".join(f"{pad} {_lines(v, depth + 1)}" for v in value) + f"\n{pad}]"
    return json.dumps(value, separators=(",", ":"))
