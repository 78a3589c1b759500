"""What configuring a pin reveals of its build: the records, and paths written by folder."""

# No `from __future__ import annotations`: the reader reads the annotated types at run time.
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, Any

from patchwheel.kit import refuse
from patchwheel.manifest.convert import Hook
from patchwheel.manifest.model import Fork

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
    """As in the file: a source is at `source_root` plus its wheel path, or named in `moved`."""

    source_root: str
    same: Paths
    moved: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltOutput:
    """`source` is the file of the build folder; `reads` are source files that it may depend on.

    Of those in `exists` only the presence counts. An output without a `source` has no build rule
    in the locked configuration: it is attributed to sources by its name.

    With `needs`, the `commands` make it without the project's configuration, of these distributions
    alone; `included` is the digest of the files that they read there and in the sources.
    """

    source: str
    reads: frozenset[str]
    exists: frozenset[str] = frozenset()
    commands: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    included: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesTrace:
    """What a series does to the files of upstream's wheel that only configured trees could tell.

    `tree` is the patched one. A row has path, action, source, and the changed files behind it.
    """

    tree: str
    effects: tuple[tuple[str, ...], ...]
    idle: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PinGraph:
    """The built outputs of one pin for one Python; `tree` and `settings` say what it is true of.

    `definition` are the files that decide what is built, `unfollowed` says what cannot be
    attributed to outputs whatever changes. `series` is of the series that was locked with it.
    """

    tree: str
    settings: str
    definition: frozenset[str]
    outputs: Mapping[str, BuiltOutput]
    unfollowed: tuple[str, ...] = ()
    series: SeriesTrace | None = None


def _from_table(table: CopiesTable) -> Mapping[str, str]:
    same = {path: table.source_root + path for path in table.same}
    return MappingProxyType({**same, **table.moved})


def _to_table(copies: Mapping[str, str]) -> Any:
    # The prefix that most sources have before their wheel path, such as `src/`. Without it, each
    # path below it would be written twice.
    roots = sorted(s.removesuffix(w) for w, s in copies.items() if s.endswith(w))
    root = max(dict.fromkeys(roots), key=roots.count, default="")
    same = frozenset(w for w, s in copies.items() if s == root + w)
    moved = {w: s for w, s in copies.items() if w not in same}
    return CopiesTable(source_root=root, same=same, moved=moved)


def folded(paths: Iterable[str]) -> dict[str, list[str]]:
    folders: dict[str, list[str]] = {}
    for path in sorted(paths):
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, []).append(name)
    return folders


def unfolded(folders: object) -> list[str]:
    # By hand: there are thousands of names, and every command reads them.
    if not isinstance(folders, dict):
        refuse("is not a table")
    return [
        f"{folder}/{name}" if folder else name
        for folder, names in folders.items()
        for name in name_list(names, folder)
    ]


def name_list(value: object, *at: str) -> list[str]:
    if not isinstance(value, list) or not {*map(type, value)} <= {str}:
        refuse(f"is {value!r}", "a list of names", at)
    return value


# What a reader calls by type, with itself.
INVENTORY_HOOKS: dict[Any, Hook] = {
    Paths: lambda folders, _: frozenset(unfolded(folders)),
    Copies: lambda table, reader: _from_table(reader.structure(table, CopiesTable)),
}
INVENTORY_WRITERS: dict[type, Callable[[Any], object]] = {
    frozenset: folded,
    BuildInventory: lambda found: replace(found, verbatim=_to_table(found.verbatim)),
}
