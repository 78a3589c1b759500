"""What configuring a pin reveals of its build, as forks.lock and forks.inventory hold it.

`patchwheel lock` writes forks.inventory beside forks.lock, and people commit both. With it a change
of content alone is planned without a compiler; without it, the plan needs a configured tree.
"""

# No `from __future__ import annotations`: cattrs reads the annotated types at run time.
import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from patchwheel.kit import ManifestError, parsed
from patchwheel.manifest.convert import InvalidValueError, save_json

if TYPE_CHECKING:
    from cattrs import Converter

    from patchwheel.manifest.model import Fork

SCHEMA = 1
# In `opened`, of a script that could not be watched.
ANYTHING = "*"

# Both are written by folder: the file is short, and its differences are readable.
Paths = Annotated[frozenset[str], "by folder"]
Copies = Annotated[Mapping[str, str], "by folder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildInventory:
    """`verbatim` maps wheel paths to the sources that they are copies of; `built` are the others.

    `reads` are the sources that the build reads. `opened` has, for each script of the project, the
    files that it opened besides those that its command names, ANYTHING where nobody could watch.
    The wheel of a `pure` one is for any platform, and its backend builds it in a second.
    """

    verbatim: Copies
    built: Paths
    reads: Paths
    opened: Mapping[str, Paths] = field(default_factory=lambda: MappingProxyType({}))
    pure: bool = False

    def compiles(self, fork: "Fork") -> bool:
        """Whether a whole build takes a compiler; `programs` say so where the pin compiles none."""
        return not self.pure or bool(fork.programs)

    @property
    def unwatched(self) -> list[str]:
        """The scripts that may have read any file."""
        return sorted(script for script, paths in self.opened.items() if ANYTHING in paths)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiesTable:
    """As in forks.lock: a source is at `source_root` plus its wheel path, or named in `moved`."""

    source_root: str
    same: Paths
    moved: Mapping[str, str]


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
class PinGraph:
    """The built outputs of one pin for one Python; `tree` and `settings` say what it is true of.

    `definition` are the files that decide what is built, `unfollowed` says what cannot be
    attributed to outputs whatever changes.
    """

    tree: str
    settings: str
    definition: frozenset[str]
    outputs: Mapping[str, BuiltOutput]
    unfollowed: tuple[str, ...] = ()


def register_inventory(converter: "Converter") -> None:
    """Let a converter read and write the paths of a BuildInventory by folder."""
    converter.register_structure_hook_func(
        lambda hint: hint == Paths, lambda folders, _: frozenset(_unfold(folders))
    )
    converter.register_unstructure_hook_func(lambda hint: hint == Paths, _fold)
    converter.register_structure_hook_func(
        lambda hint: hint == Copies,
        lambda table, _: _from_table(converter.structure(table, CopiesTable)),
    )
    converter.register_unstructure_hook_func(
        lambda hint: hint == Copies, lambda copies: converter.unstructure(_to_table(copies))
    )


def load_pin_graph(path: Path, lock_key: str, python: str) -> PinGraph | None:
    """Return what forks.inventory says of a fork for a Python; None without an entry."""
    try:
        data = parsed(path.read_text(encoding="utf-8"))
        table = data["forks"].get(lock_key, {}).get(python)
        return _unpack(table) if table else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as err:
        hint = "run `patchwheel lock --force` to write it again"
        raise ManifestError("is damaged", where=path, hint=hint) from err


def save_pin_graph(
    path: Path, found: Mapping[tuple[str, str], PinGraph], keep: Collection[str]
) -> None:
    """Write the entries by lock key and Python, beside those in the file of the forks in `keep`."""
    forks: dict[str, Any] = {}
    # A damaged file is written anew.
    with contextlib.suppress(FileNotFoundError, ValueError, AttributeError):
        old = parsed(path.read_text(encoding="utf-8")).get("forks", {})
        forks = {name: row for name, row in old.items() if name in keep}
    for (lock_key, python), pin_graph in found.items():
        forks.setdefault(lock_key, {})[python] = _pack(pin_graph)
    if forks or path.exists():
        save_json(path, {"schema": SCHEMA, "forks": forks})


def _from_table(table: CopiesTable) -> Mapping[str, str]:
    same = {path: table.source_root + path for path in table.same}
    return MappingProxyType({**same, **table.moved})


def _to_table(copies: Mapping[str, str]) -> CopiesTable:
    # The prefix that most sources have before their wheel path, such as `src/`. Without it, each
    # path below it would be written twice.
    roots = sorted(s.removesuffix(w) for w, s in copies.items() if s.endswith(w))
    root = max(dict.fromkeys(roots), key=roots.count, default="")
    same = frozenset(w for w, s in copies.items() if s == root + w)
    moved = {w: s for w, s in copies.items() if w not in same}
    return CopiesTable(source_root=root, same=same, moved=moved)


def _pack(pin_graph: PinGraph) -> dict[str, object]:
    """Write files that the same outputs read as a group, and a command as numbers of words."""
    # Without both, the file of CuPy alone would be 7 MB.
    outputs = dict(sorted(pin_graph.outputs.items()))
    groups: dict[tuple[str, ...], list[str]] = {}
    for path in sorted({path for output in outputs.values() for path in output.reads}):
        users = tuple(name for name, output in outputs.items() if path in output.reads)
        groups.setdefault(users, []).append(path)
    words: dict[str, int] = {}
    rows = {
        name: {
            "source": output.source,
            "groups": [at for at, users in enumerate(groups) if name in users],
            "exists": sorted(output.exists),
            "commands": [
                [words.setdefault(word, len(words)) for word in command.split(" ")]
                for command in output.commands
            ],
        }
        for name, output in outputs.items()
    }
    return {
        "tree": pin_graph.tree,
        "settings": pin_graph.settings,
        "definition": _fold(pin_graph.definition),
        "unfollowed": [*pin_graph.unfollowed],
        "groups": [_fold(paths) for paths in groups.values()],
        "words": [*words],
        "outputs": rows,
    }


def _unpack(table: dict[str, Any]) -> PinGraph:
    groups = [_unfold(folders) for folders in table["groups"]]
    words = _names(table["words"])
    outputs = {
        name: BuiltOutput(
            source=row["source"],
            reads=frozenset(path for at in row["groups"] for path in groups[at]),
            exists=frozenset(_names(row["exists"])),
            commands=tuple(" ".join(words[at] for at in command) for command in row["commands"]),
        )
        for name, row in table["outputs"].items()
    }
    return PinGraph(
        tree=table["tree"],
        settings=table["settings"],
        definition=frozenset(_unfold(table["definition"])),
        outputs=outputs,
        unfollowed=tuple(_names(table["unfollowed"])),
    )


def _fold(paths: Iterable[str]) -> dict[str, list[str]]:
    folders: dict[str, list[str]] = {}
    for path in sorted(paths):
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, []).append(name)
    return folders


def _unfold(folders: object) -> list[str]:
    # By hand: there are thousands of names, and every command reads them.
    if not isinstance(folders, dict):
        raise InvalidValueError("is not a table")
    return [
        f"{folder}/{name}" if folder else name
        for folder, names in folders.items()
        for name in _names(names, folder)
    ]


def _names(value: object, *at: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InvalidValueError(f"is {value!r}", "a list of names", at)
    return value
