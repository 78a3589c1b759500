"""Finds which files of a wheel are copies of source files, where no backend can be asked.

What decides is the content, and the place: `demo/a.py` may be a copy of `src/demo/a.py`. A source
that the build's configuration or its code names counts as read: it may become something else too.
"""

from __future__ import annotations

import functools
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from patchwheel.kit import Blob, Repository, blob_id, parsed_toml
from patchwheel.source import Source
from patchwheel.wheelfile import WheelFile, output_names

PYPROJECT = "pyproject.toml"
# Any word of these may be the name of a file that is read; documents and examples are not built.
CONFIGURATION = re.compile(
    r"(?!(?:docs?|examples?)/)(.*/)?"
    r"(pyproject\.toml|setup\.(py|cfg)|MANIFEST\.in|meson\.build|CMakeLists\.txt|[^/]+\.cmake"
    r"|(?i:Cargo)\.toml|build\.rs|Makefile|CMakePresets\.json)"
)
# Meson's function that only copies.
COPYING = re.compile(r"install_sources\s*\([^()]*\)")
INSTALLED = re.compile(r"install_sources\s*\(\s*(\w+)\b")
DEFINED_AND_USED = 2
# Of these, text in quotes: include_str!("../table.py") of Rust.
CODE = re.compile(r".*\.(rs|c|cc|cpp|cxx|h|hpp|cu|pyx|pxd|pxi|go|f90|in|tmpl)", re.IGNORECASE)
MODULE = re.compile(r"\.(so|pyd|dylib)$")
WORD = re.compile(r"[\w./+-]*\w")
QUOTED = re.compile(r"""["']([\w./+-]*\w\.\w+)["']""")
IMPORTED = re.compile(r"(?m)^\s*(?:import|from)\s+([\w.]+)")
# What these tools read of a project makes no difference to a wheel.
OTHERS = re.compile(
    "asv|autopep8|bandit|basedpyright|black|bump-?my-?version|bumpver(sion)?|check-manifest"
    "|check-wheel-contents|cibuildwheel|codespell|commitizen|coverage|cython-lint|deptry|flake8"
    "|interrogate|isort|mutmut|mypy|nox|pixi|pydocstyle|pylint|pyrefly|pyright|pytest|ruff"
    "|semantic[_-]release|slotscheck|spin|tbump|towncrier|tox|ty|typos|uv|vulture|yapf"
)


def find_copies(
    source: Source, wheel: WheelFile
) -> tuple[dict[str, str], frozenset[str], list[str]]:
    """Return the source of each file that is a copy, and the sources that a build reads.

    The last are the files of the wheel at the place of a source that has another content. A copy
    may have the line endings of Windows.
    """
    files = _files(Repository(source.git_dir), source.tree)
    same: defaultdict[str, list[str]] = defaultdict(list)
    for path, blob in files.items():
        same[blob.oid].append(path)
    copies: dict[str, str] = {}
    changed: list[str] = []
    reads = {p for p in files if re.fullmatch(r"README[^/]*", p, re.IGNORECASE)}
    outputs = output_names(wheel.entries, wheel.name)
    # Such as mypyc's, which Python imports in the place of the source beside it.
    compiled = {name.partition(".")[0] + ".py" for name in outputs if MODULE.search(name)}
    for name, member in outputs.items():
        place = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", name)
        content = wheel.entries[member].content()
        equal = same[blob_id(content)] or same[blob_id(content.replace(b"\r\n", b"\n"))]
        at_place = _ending(equal, place)
        base = posixpath.basename(place)
        moved = equal if [posixpath.basename(path) for path in equal] == [base] else []
        # Of two, nobody knows which it was.
        if len(found := at_place or moved) == 1:
            copies[name] = found[0]
        # One that was changed on the way, or that another output is made of.
        if name not in copies or name in compiled:
            reads.update(near := _ending(files, place))
            changed += [name] if near and not equal else []
    reads |= named_by_build(source.git_dir, source.tree)
    return copies, frozenset(reads), sorted(changed)


def _ending(paths: Iterable[str], end: str) -> list[str]:
    return [path for path in paths if f"/{path}".endswith(f"/{end}")]


# Upstream may have fifty wheels of a pin.
@functools.cache
def named_by_build(git_dir: Path, tree: str) -> frozenset[str]:
    """Return the files that the build's configuration or its code names."""
    repo = Repository(git_dir)
    files = _files(repo, tree)
    texts = {path: b.oid for path, b in files.items() if CONFIGURATION.fullmatch(path)}
    texts |= {path: blob.oid for path, blob in files.items() if CODE.fullmatch(path)}
    contents = repo.read([*texts.values()])
    words: set[str] = set()
    for path, oid in texts.items():
        text = contents[oid].decode(errors="replace")
        if path == PYPROJECT:
            text = "\n".join(_strings(_build_tables(text)))
        if path.endswith("meson.build"):
            text = copied_lists(text)[0]
        pattern = WORD if CONFIGURATION.fullmatch(path) else QUOTED
        words.update(posixpath.normpath(f"/{word}")[1:] for word in pattern.findall(text))
        if path.endswith(".py"):
            modules = [name.replace(".", "/") for name in IMPORTED.findall(text)]
            words.update(end for name in modules for end in (f"{name}.py", f"{name}/__init__.py"))
    return frozenset(path for path in files if any(end in words for end in _ends(path)))


def copied_lists(text: str) -> tuple[str, list[str]]:
    """Return a meson.build without what it only copies, and the lists of that."""
    names = dict.fromkeys(INSTALLED.findall(text))
    # What else uses a list may do something else with its files.
    only = [name for name in names if len(re.findall(rf"\b{name}\b", text)) == DEFINED_AND_USED]
    lists: list[str] = []
    for pattern in (*(re.compile(rf"\b{name}\s*=\s*\[[^\[\]]*\]") for name in only), COPYING):
        lists += pattern.findall(text)
        text = pattern.sub("", text)
    return text, lists


def _files(repo: Repository, tree: str) -> dict[str, Blob]:
    return {p: b for p, b in repo.files(tree).items() if b.mode.startswith("100")}


def _ends(path: str) -> Iterator[str]:
    """Give the ends of a path that are paths themselves."""
    parts = path.split("/")
    return ("/".join(parts[at:]) for at in range(len(parts)) if "." in parts[-1] or at == 0)


def _build_tables(text: str) -> dict[str, Any]:
    """Return a pyproject.toml without the tables of tools that build nothing."""
    tables = parsed_toml(text)
    tools = tables.get("tool", {})
    kept = {name: tools[name] for name in tools if not OTHERS.fullmatch(name)}
    return {**tables, "tool": kept}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    parts = value.values() if isinstance(value, dict) else value
    for part in parts if isinstance(value, (dict, list)) else ():
        yield from _strings(part)
