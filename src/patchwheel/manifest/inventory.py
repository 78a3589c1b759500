"""The build inventory of a pin, and how it is written: a table of file names for each folder."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - cattrs reads the types at run time
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NewType

from patchwheel.manifest.convert import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cattrs import Converter

# A tuple of paths that is written as a table of names by folder.
Paths = NewType("Paths", tuple[str, ...])


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildInventory:
    """What configuring the pin revealed about its build.

    `verbatim` maps wheel paths to the source files that they are copies of, `built` lists the
    other outputs, `reads` the source files that the build reads. `opened` has, for each script of
    the project, the files that it opened besides those that its command names.
    """

    verbatim: Mapping[str, str]
    built: tuple[str, ...]
    reads: frozenset[str]
    opened: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryTable:
    """The inventory as it is written.

    A file of `verbatim` has its wheel path below `source_root`; `moved` has the others' sources.
    """

    source_root: str
    verbatim: Paths
    moved: Mapping[str, str]
    built: Paths
    reads: Paths
    opened: Mapping[str, tuple[str, ...]]


def register_inventory(converter: Converter) -> None:
    """Let a converter write and read BuildInventory as InventoryTable."""
    register_paths(converter)
    converter.register_structure_hook(
        BuildInventory, lambda data, _: _from_table(converter.structure(data, InventoryTable))
    )
    converter.register_unstructure_hook(
        BuildInventory, lambda inventory: converter.unstructure(_to_table(inventory))
    )


def register_paths(converter: Converter) -> None:
    """Let a converter write and read Paths as a table of names by folder."""
    converter.register_structure_hook_func(lambda hint: hint is Paths, _unfold)
    converter.register_unstructure_hook_func(lambda hint: hint is Paths, _fold)


def _from_table(table: InventoryTable) -> BuildInventory:
    root = table.source_root
    verbatim = {**{path: root + path for path in table.verbatim}, **table.moved}
    return BuildInventory(
        verbatim=MappingProxyType(verbatim),
        built=table.built,
        reads=frozenset(table.reads),
        opened=MappingProxyType({s: frozenset(paths) for s, paths in table.opened.items()}),
    )


def _to_table(inventory: BuildInventory) -> InventoryTable:
    verbatim = inventory.verbatim
    root = _common_root(verbatim)
    return InventoryTable(
        source_root=root,
        verbatim=Paths(tuple(w for w, s in verbatim.items() if s == root + w)),
        moved={w: s for w, s in verbatim.items() if s != root + w},
        built=Paths(inventory.built),
        reads=Paths(tuple(inventory.reads)),
        opened={s: tuple(sorted(paths)) for s, paths in inventory.opened.items() if paths},
    )


def _common_root(verbatim: Mapping[str, str]) -> str:
    """Return the prefix that most source paths have before their wheel path, such as `src/`."""
    # Without it, each path below `src/` would be written twice.
    roots = [s.removesuffix(w) for w, s in verbatim.items() if s.endswith(w)]
    return max(sorted(set(roots)), key=roots.count, default="")


def _fold(paths: Iterable[str]) -> dict[str, list[str]]:
    """Group paths by folder: a line for each keeps the file short and its differences readable."""
    folders: dict[str, list[str]] = {}
    for path in sorted(paths):
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, []).append(name)
    return dict(sorted(folders.items()))


def _unfold(folders: object, _: object) -> Paths:
    # By hand: there are thousands of names, and every command reads them.
    if not isinstance(folders, dict):
        raise InvalidValueError("is not a table")
    paths: list[str] = []
    for folder, names in folders.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InvalidValueError(f"is {names!r}", "a list of file names", (folder,))
        paths += [f"{folder}/{name}" for name in names] if folder else names
    return Paths(tuple(paths))
