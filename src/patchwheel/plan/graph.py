"""The dependency graph of a build: its steps, and what sources mention. It over-approximates."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from patchwheel.build import IN_BUILD_DIR, Edge
from patchwheel.plan.scan_references import SYSTEM

MARKERS = ("__init__.py", "__init__.pyx", "__init__.pxd")
CYTHON = re.compile(r".*\.(pyx|pxd)")
COPY = "meson --internal copy"
# These read only the files that they are given; other programs may read a whole folder.
READS_FILES = re.compile(
    r"(rm -f|(ccache )?([\w.]+-)*(gcc|g\+\+|cc|c\+\+|clang|clang\+\+|gfortran|ar)(-[\d.]+)?"
    rf"|(python[\d.]* )?(cython\w*|pythran)(\.py)?|{COPY})( .*)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """What an output may depend on: its steps, and files by content or only by existence."""

    # Each is a command without macros, with its inputs.
    steps: frozenset[tuple[str, tuple[str, ...]]] = frozenset()
    macros: frozenset[tuple[str, str]] = frozenset()
    contents: frozenset[str]
    # Such as the markers of packages, which Cython looks for and does not read.
    exists: frozenset[str] = frozenset()


class Graph:
    """The steps of a build over the `files` that exist before it.

    `references` gives the references in a file. `opened_by_script` are the files that a script of
    the project opens; those of a `fully_traced` module are complete. `headers` are the build
    environment's.
    """

    def __init__(
        self,
        edges: Iterable[Edge],
        files: Iterable[str],
        references: Callable[[str], Iterable[str]],
        *,
        opened_by_script: Mapping[str, frozenset[str]],
        fully_traced: frozenset[str],
        headers: Iterable[str] = (),
    ) -> None:
        self.files = frozenset(files)
        self._references = references
        self._opened_by_script = opened_by_script
        self._fully_traced = fully_traced
        self._makes = {path: edge for edge in edges for path in edge.outputs}
        self._by_name: dict[str, list[str]] = {}
        for path in (*self.files, *self._makes, *headers):
            self._by_name.setdefault(_name(path), []).append(path)
        # The reaches of most outputs overlap.
        self._leads_to = functools.cache(self._follow)
        self._resolve = functools.cache(self._find)

    def closure(self, output: str) -> Closure:
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
                        exists.add(name.removeprefix(IN_BUILD_DIR))
                    elif name.endswith(".py") and edge.program == COPY:
                        # What it imports matters to who runs it, not to who copies it.
                        seen.add(name)
                    else:
                        todo.append(name)
            todo += self._leads_to(path)
            if CYTHON.fullmatch(path):
                folders = PurePosixPath(path.removeprefix(IN_BUILD_DIR)).parents
                markers = {f"{folder}/{marker}" for folder in folders for marker in MARKERS}
                exists.update(filter(self._is, markers))
        return Closure(
            steps=frozenset(steps),
            macros=frozenset(macros),
            contents=frozenset(seen & self.files),
            exists=frozenset(exists),
        )

    def _find(self, end: str) -> list[str]:
        """Return every file that the end of a path may mean; `*` in it means anything."""
        name = _name(end)
        if "*" not in end:
            found = self._by_name.get(name, [])
            return [path for path in found if f"/{path}".endswith(f"/{end}")]
        names = fnmatch.filter(self._by_name, name)
        found = [path for one in names for path in self._by_name[one]]
        # What a template of the project fills in is a file of the project.
        found = [path for path in found if not path.startswith(SYSTEM)]
        return [path for path in found if fnmatch.fnmatchcase(f"/{path}", f"*/{end}")]

    def _follow(self, path: str) -> frozenset[str]:
        found = {p for p in self._opened_by_script.get(path, ()) if p in self.files}
        unknown = path in self.files and path not in self._fully_traced
        for end in self._references(path) if unknown or path.startswith(SYSTEM) else ():
            if end.startswith("^"):
                same_start = (
                    p for p in self._resolve(end[1:]) if path.startswith(p[: 1 - len(end)])
                )
                found.update(same_start)
            else:
                found.update(self._resolve(end))
        if CYTHON.fullmatch(path):
            # Cython reads the .pxd file of a module and of its packages without a reference.
            plain = path.removeprefix(IN_BUILD_DIR)
            near = [plain.rpartition(".")[0] + ".pxd"]
            near += [f"{folder}/__init__.pxd" for folder in PurePosixPath(plain).parents]
            found.update(p for one in near for p in (one, IN_BUILD_DIR + one) if self._is(p))
        return frozenset(found)

    def _named(self, edge: Edge) -> Iterator[str]:
        """Give the files that a command names without declaring them."""
        one_file = READS_FILES.fullmatch(edge.program)
        for word in edge.named:
            if self._is(word):
                yield word
            elif not one_file and not word.startswith(IN_BUILD_DIR):
                yield from (path for path in self.files if path.startswith(f"{word}/"))

    def _is(self, path: str) -> bool:
        return path in self.files or path in self._makes


def _name(path: str) -> str:
    return path.rpartition("/")[2]
