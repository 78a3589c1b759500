"""Follows headers of a build environment back into the project: CUDA's include copies of CuPy's.

Headers of the machine are not followed: they include nothing that a project brings.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from patchwheel.build import site_packages
from patchwheel.kit import digest

if TYPE_CHECKING:
    from pathlib import Path

    from patchwheel.kit import Store

# Raised whenever the same environment would be told of otherwise.
LAYOUT = 1
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.MULTILINE)
STANDARD = re.compile(r"\w+")


class SystemHeaders:
    """The headers below the `include` folders of an environment."""

    def __init__(self, environment: Path, store: Store) -> None:
        self.root = site_packages(environment)
        self._store, self.key = store, digest(LAYOUT, environment.name)
        self._by_name: dict[str, list[str]] | None = None
        self._found: dict[str, frozenset[str]] = {}
        self._read: dict[str, list[tuple[str, str]]] = {}

    def project_includes(self, end: str) -> frozenset[str]:
        """Return what the headers of a reference may include from a project, at any depth."""
        if end not in self._found:
            self._found[end] = self._follow(end)
        return self._found[end]

    def _follow(self, end: str) -> frozenset[str]:
        project_includes: set[str] = set()
        seen: set[str] = set()
        todo = self._resolve(end)
        while todo:
            path = todo.pop()
            if path in seen:
                continue
            seen.add(path)
            for quote, name in self._includes(path):
                beside = f"{path.rpartition('/')[0]}/{name}"
                if quote == '"' and (self.root / beside).is_file():
                    todo.append(beside)
                    continue
                # A name without folder and ending is a header of the standard library.
                if STANDARD.fullmatch(name):
                    continue
                project_includes.add(name)
                todo += self._resolve(name)
        return frozenset(project_includes)

    def _includes(self, path: str) -> list[tuple[str, str]]:
        if path not in self._read:
            text = (self.root / path).read_text(encoding="utf-8", errors="replace")
            self._read[path] = INCLUDE.findall(text)
        return self._read[path]

    def _resolve(self, end: str) -> list[str]:
        found = self._names().get(end.rpartition("/")[2], [])
        return [path for path in found if path.endswith(f"/{end}")]

    def _names(self) -> dict[str, list[str]]:
        if self._by_name is None:
            # An environment never changes; walking through it takes a while.
            memo: dict[str, Any] | None = self._store.memo("headers", self.key)
            if memo is None:
                memo = {}
                for folder in self.root.rglob("include"):
                    for file in folder.rglob("*"):
                        if file.is_file():
                            path = file.relative_to(self.root).as_posix()
                            memo.setdefault(file.name, []).append(path)
                self._store.remember("headers", self.key, memo)
            self._by_name = memo
        return self._by_name
