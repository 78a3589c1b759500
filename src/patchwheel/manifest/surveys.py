"""forks.inventory: what configuring revealed of each pin, once for all builds of a fork.

`patchwheel lock` writes it beside forks.lock, and people commit both. The first build of a fork is
there in full, of those for other Pythons and variants what differs: a merge patch (RFC 7396). By
the `sources` of the built outputs, a change of content alone is planned without a compiler.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from patchwheel.kit import ManifestError, PlainReader, parsed, read_regular
from patchwheel.manifest.convert import save_json
from patchwheel.manifest.inventory import (
    BuiltOutput,
    PinGraph,
    SeriesTrace,
    folded,
    name_list,
    unfolded,
)

# The lock key of a fork, and a Python.
Build = tuple[str, str]

SCHEMA = 2
# What stands for the Python of a build; `lb` is the brace of a name that has one of these itself.
MARK = re.compile(r"\{(abi|version|lb)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryFile:
    """The entries of forks.inventory as text; only what is asked for is parsed."""

    path: Path
    entries: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> InventoryFile:
        try:
            # Newlines as they are: they count for the digest.
            text = read_regular(path).decode()
        except (FileNotFoundError, UnicodeDecodeError):
            text = ""
        except OSError as err:
            raise ManifestError(f"cannot be read: {err.strerror}", where=path) from err
        return cls.of(path, text)

    @classmethod
    def of(cls, path: Path, text: str) -> InventoryFile:
        return cls(path=path, entries=_tables(text.partition('\n "forks": {')[2], 2))

    def sha256(self, lock_key: str) -> str:
        """Return the digest of a fork's entry, which forks.lock holds."""
        return hashlib.sha256(self._entry(lock_key).encode()).hexdigest()

    def check(self, lock_key: str, sha256: str) -> None:
        """Raise ManifestError if a fork's entry is not the one that forks.lock was written with."""
        if self.sha256(lock_key) != sha256:
            name, lock = lock_key.partition(":")[0], self.path.with_suffix(".lock").name
            state = (
                f"its entry {name} is not the one"
                if self._entry(lock_key)
                else f"it lacks the entry {name}"
            )
            problem = f"{state} that {lock} was written with"
            hint = "take both files from the same commit, or run `patchwheel lock`"
            raise ManifestError(problem, where=self.path, hint=hint)

    def inventory(self, lock_key: str, python: str) -> object:
        """Return the data of a BuildInventory."""
        with self._reading():
            return self._build("inventory", lock_key, python)[1]

    def graph(self, lock_key: str, python: str) -> PinGraph | None:
        """Return what is known of the sources of the built outputs; None if nothing is."""
        with self._reading():
            if "sources" not in _tables(self._entry(lock_key), 3):
                return None
            data, row = self._build("sources", lock_key, python)
            return None if row is None else _graph(data, row)

    def _build(self, part: str, lock_key: str, python: str) -> tuple[Any, Any]:
        """Return a part of a fork's entry, and what it says of one build."""
        data = parsed(_filled(_tables(self._entry(lock_key), 3)[part], python))
        changes = data["builds"].get(_name(lock_key, python))
        return data, changes if changes is None else _merged(data["common"], changes)

    def _entry(self, lock_key: str) -> str:
        return self.entries.get(lock_key.partition(":")[0], "")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as err:
            hint = "run `patchwheel lock --force` to write it again"
            raise ManifestError("is damaged", where=self.path, hint=hint) from err


def save_inventories(
    path: Path, inventories: Mapping[Build, Any], graphs: Mapping[Build, PinGraph]
) -> InventoryFile:
    """Write forks.inventory: data of inventories, and the graphs of some of them."""
    forks: dict[str, Any] = {}
    for name in dict.fromkeys(key.partition(":")[0] for key, _ in inventories):
        # In this order, so that another Python adds only what differs.
        builds = sorted(
            (build for build in inventories if build[0].partition(":")[0] == name),
            key=lambda build: (build[0], len(build[1]), build[1]),
        )
        entry = {"inventory": _builds({build: inventories[build] for build in builds})}
        words: dict[str, int] = {}
        groups: dict[tuple[str, ...], int] = {}
        followed = {b: _rows(graphs[b], b[1], words, groups) for b in builds if b in graphs}
        if followed:
            entry["sources"] = {
                **_builds(followed),
                "words": [*words],
                "groups": [folded(paths) for paths in groups],
            }
        forks[name] = entry
    return InventoryFile.of(path, save_json(path, {"schema": SCHEMA, "forks": forks}))


def _tables(text: str, indent: int) -> dict[str, str]:
    """Return the text of each table, by the lines on which `save_json` begins and ends it."""
    # The file of four forks has a megabyte: a command parses what it needs of it.
    end = f"\n{' ' * indent}}}"
    parts = (part.partition(": {\n") for part in text.split(end)[:-1])
    return {head.rpartition("\n")[2].strip(' "'): f"{{\n{body}{end}" for head, _, body in parts}


def _name(lock_key: str, python: str) -> str:
    """Return the key of a build: 3.12, or 3.12:rocm7 for a variant."""
    return f"{python}{lock_key[len(lock_key.partition(':')[0]) :]}"


def _builds(rows: Mapping[Build, Any]) -> dict[str, Any]:
    hidden = {build: json.loads(_hidden(json.dumps(row), build[1])) for build, row in rows.items()}
    first = next(iter(hidden.values()))
    return {
        "common": first,
        "builds": {_name(*build): _changes(first, row) for build, row in hidden.items()},
    }


def _hidden(text: str, python: str) -> str:
    text = MARK.sub(r"{lb}\1}", text)
    text = text.replace(f"cpython-{python.replace('.', '')}", "{abi}")
    return text.replace(f"python{python}", "python{version}")


def _filled(text: str, python: str) -> str:
    values = {"abi": f"cpython-{python.replace('.', '')}", "version": python, "lb": "{"}
    return MARK.sub(lambda mark: values[mark[1]], text)


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch from one table to another; lists are replaced."""
    changes: dict[str, Any] = dict.fromkeys(old.keys() - new.keys())
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(old.get(key), dict)
        if key not in old or old[key] != value:
            changes[key] = _changes(old[key], value) if both else value
    return changes


def _merged(old: Any, changes: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(changes, dict)):
        return changes
    new = {**old, **{key: _merged(old.get(key), value) for key, value in changes.items()}}
    return {key: value for key, value in new.items() if value is not None}


def _rows(
    graph: PinGraph, python: str, words: dict[str, int], groups: dict[tuple[str, ...], int]
) -> dict[str, object]:
    """Write files that the same outputs read as a group, and a command as numbers of words."""
    # Without both, the file of CuPy alone would be 7 MB.
    outputs = dict(sorted(graph.outputs.items()))
    users: dict[tuple[str, ...], list[str]] = {}
    for path in sorted({path for output in outputs.values() for path in output.reads}):
        names = tuple(name for name, output in outputs.items() if path in output.reads)
        users.setdefault(names, []).append(_hidden(path, python))
    numbers = {n: groups.setdefault(tuple(paths), len(groups)) for n, paths in users.items()}
    return {
        "tree": graph.tree,
        "settings": graph.settings,
        "definition": folded(graph.definition),
        "unfollowed": [*graph.unfollowed],
        **({"series": asdict(graph.series)} if graph.series else {}),
        "outputs": {
            name: {
                "source": output.source,
                "groups": [number for names, number in numbers.items() if name in names],
                "exists": sorted(output.exists),
                "commands": [
                    [words.setdefault(_hidden(w, python), len(words)) for w in command.split(" ")]
                    for command in output.commands
                ],
                **({"needs": [*output.needs]} if output.needs else {}),
                **({"included": output.included} if output.needs else {}),
            }
            for name, output in outputs.items()
        },
    }


def _graph(data: dict[str, Any], row: dict[str, Any]) -> PinGraph:
    groups, words = [unfolded(folders) for folders in data["groups"]], name_list(data["words"])
    outputs = {
        name: BuiltOutput(
            source=output["source"],
            reads=frozenset(path for at in output["groups"] for path in groups[at]),
            exists=frozenset(name_list(output["exists"])),
            commands=tuple(" ".join(words[at] for at in command) for command in output["commands"]),
            needs=tuple(name_list(output.get("needs", []))),
            included=str(output.get("included", "")),
        )
        for name, output in row["outputs"].items()
    }
    return PinGraph(
        tree=row["tree"],
        settings=row["settings"],
        definition=frozenset(unfolded(row["definition"])),
        outputs=outputs,
        unfollowed=tuple(name_list(row["unfollowed"])),
        series=PlainReader().structure(row.get("series"), SeriesTrace | None),
    )
