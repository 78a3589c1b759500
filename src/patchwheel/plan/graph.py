"""The dependency graph of a build: its steps, and what sources mention. It over-approximates."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from patchwheel.build import MADE
from patchwheel.kit import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from patchwheel.build import Edge

MARKERS = ("__init__.py", "__init__.pyx", "__init__.pxd")
CYTHON = re.compile(r".*\.(pyx|pxd)")
COPY = "meson --internal copy"
# These read only the files that they are given; other programs may read a whole folder.
READS_FILES = re.compile(
    r"(rm -f|(ccache )?([\w.]+-)*(gcc|g\+\+|cc|c\+\+|clang|clang\+\+|gfortran|ar)(-[\d.]+)?"
    rf"|(python[\d.]* )?(cython\w*|pythran)(\.py)?|{COPY})( .*)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What an output may depend on: its steps, files by content, and package markers by existence.

    `steps` is the digest of commands and inputs without macros; `exists` are files whose presence
    matters and not their content, such as the markers of packages for Cython.
    """

    steps: str
    macros: frozenset[tuple[str, str]]
    contents: frozenset[str]
    exists: frozenset[str]


class Graph:
    """The steps of a build over the files that exist before it.

    `scan_references` gives the references in a file. `opened` are the files that a script of the
    project opens; those of a `fully_traced` module are complete. `project_includes` gives what the
    headers of the build environment include of the project. `followed` is where files lead, as far
    as it is known, and grows.
    """

    def __init__(
        self,
        edges: Iterable[Edge],
        files: Iterable[str],
        scan_references: Callable[[str], Iterable[str]],
        *,
        opened: Mapping[str, frozenset[str]],
        fully_traced: frozenset[str],
        project_includes: Callable[[str], Iterable[str]] = lambda _end: (),
        followed: dict[str, list[str]] | None = None,
    ) -> None:
        self.files = frozenset(files)
        self._references = scan_references
        self._opened = opened
        self._fully_traced = fully_traced
        self._project_includes = project_includes
        self._makes = {path: edge for edge in edges for path in edge.outputs}
        self._by_name: dict[str, list[str]] = {}
        for path in (*self.files, *self._makes):
            self._by_name.setdefault(_name(path), []).append(path)
        self._resolved: dict[str, list[str]] = {}
        self.followed = {} if followed is None else followed

    def reach(self, output: str) -> Reach:
        seen: set[str] = set()
        exists: set[str] = set()
        steps: set[tuple[str, tuple[str, ...]]] = set()
        macros: set[tuple[str, str]] = set()
        todo = [output]
        while todo:
            path = todo.pop()
            if path in seen:
                continue
            seen.add(path)
            if edge := self._makes.get(path):
                steps.add((edge.command, edge.inputs))
                macros |= edge.macros
                cython = any(CYTHON.fullmatch(name) for name in edge.inputs)
                for name in (*edge.inputs, *self._named(edge)):
                    marker = _name(name) in MARKERS
                    if marker and (cython or name not in edge.named):
                        exists.add(name.removeprefix(MADE))
                    elif name.endswith(".py") and edge.program == COPY:
                        # What it imports matters to who runs it, not to who copies it.
                        seen.add(name)
                    else:
                        todo.append(name)
            if path not in self.followed:
                self.followed[path] = list(dict.fromkeys(self._follow(path)))
            todo += self.followed[path]
            if CYTHON.fullmatch(path):
                exists |= self._markers(path)
        return Reach(
            steps=digest(sorted(steps)),
            macros=frozenset(macros),
            contents=frozenset(seen & self.files),
            exists=frozenset(exists),
        )

    def commands(self, output: str) -> list[str]:
        """Return the commands that make an output, those of its inputs included."""
        seen: set[str] = set()
        todo, commands = [output], []
        while todo:
            path = todo.pop()
            edge = self._makes.get(path)
            if edge and path not in seen:
                seen.update(edge.outputs)
                commands.append(edge.command)
                todo += edge.inputs
        return commands

    def resolve(self, end: str) -> list[str]:
        if end not in self._resolved:
            self._resolved[end] = self._resolve(end)
        return self._resolved[end]

    def _resolve(self, end: str) -> list[str]:
        """Return every file that the end of a path may mean; `*` in it means anything."""
        name = _name(end)
        if "*" not in end:
            found = self._by_name.get(name, [])
            return [path for path in found if f"/{path}".endswith(f"/{end}")]
        names = fnmatch.filter(self._by_name, name)
        found = [path for one in names for path in self._by_name[one]]
        return [path for path in found if fnmatch.fnmatchcase(f"/{path}", f"*/{end}")]

    def _follow(self, path: str) -> Iterator[str]:
        yield from (p for p in self._opened.get(path, ()) if p in self.files)
        if path in self.files and path not in self._fully_traced:
            for end in self._references(path):
                if not end.startswith("^"):
                    yield from self.resolve(end)
                    for name in self._project_includes(end):
                        yield from self.resolve(name)
                    continue
                for found in self.resolve(end[1:]):
                    if path.startswith(found[: 1 - len(end)]):
                        yield found
        if CYTHON.fullmatch(path):
            # Cython reads the .pxd file of a module and of its packages without a reference.
            plain = path.removeprefix(MADE)
            near = [plain.rpartition(".")[0] + ".pxd"]
            near += [f"{folder}/__init__.pxd" for folder in PurePosixPath(plain).parents]
            for one in near:
                yield from (p for p in (one, MADE + one) if self._is(p))

    def _markers(self, path: str) -> set[str]:
        folders = PurePosixPath(path.removeprefix(MADE)).parents
        names = {f"{folder}/{marker}" for folder in folders for marker in MARKERS}
        return {name for name in names if self._is(name)}

    def _named(self, edge: Edge) -> Iterator[str]:
        """Give the files that a command names without declaring them."""
        one_file = READS_FILES.fullmatch(edge.program)
        for word in edge.named:
            if self._is(word):
                yield word
            elif not one_file and not word.startswith(MADE):
                yield from (path for path in self.files if path.startswith(f"{word}/"))

    def _is(self, path: str) -> bool:
        return path in self.files or path in self._makes


def _name(path: str) -> str:
    return path.rpartition("/")[2]
