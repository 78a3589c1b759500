"""Read build.ninja: which files each build edge makes, from what, and with which command.

The format is https://ninja-build.org/manual.html#ref_ninja_file, as far as generators such as Meson
write it: no includes, no subninja, no variables in paths.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from patchwheel.kit import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import PurePosixPath

# Before the path of a file in the build folder; without it a path is that of a source file.
MADE = "//"
SEPARATOR = re.compile(r"(?<!\$)(\s+|:|\|\|?)")
SPLIT = re.compile(r"""(?:\$ |[\s=,:@'"])+""")
ESCAPED = re.compile(r"\$([ :$])")
# Enough for `python tool.py` and `meson --internal copy`.
WORDS = 3
# What ninja shows of a step, and where its dependency file goes, make no difference to its outputs.
IGNORED = frozenset({"DESC", "description", "DEPFILE", "DEPFILE_UNQUOTED", "depfile"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """One step of a build, without the files that must merely be there first."""

    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    command: str
    # Files that only the command names.
    named: tuple[str, ...] = ()
    # What the command starts, without folders, with its next words.
    program: str = ""
    # Those that matter only where a text uses them; Meson has its macros in the command.
    macros: frozenset[tuple[str, str]] = frozenset()


def parse_ninja(text: str) -> list[Edge]:
    """Return the edges that run a command; raises BuildError for what is no build.ninja."""
    rules: dict[str, Mapping[str, str]] = {}
    edges = []
    for head, variables in _blocks(text):
        word, _, rest = head.partition(" ")
        if word == "rule":
            rules[rest.strip()] = variables
        elif word == "build":
            outputs, rule, inputs = _split(rest)
            if rule == "phony":
                continue
            parts = {**rules.get(rule, {}), **variables}
            started = (parts.get("COMMAND") or parts.get("command", "")).split()[:WORDS]
            program = " ".join(part.rpartition("/")[2] for part in started)
            command = " ".join(f"{k}={v}" for k, v in sorted(parts.items()) if k not in IGNORED)
            edges.append(Edge(outputs=outputs, inputs=inputs, command=command, program=program))
    if not edges:
        raise BuildError("build.ninja names no build step")
    return edges


def located(edge: Edge, build: PurePosixPath, source: PurePosixPath) -> Edge:
    """Return an edge with its files as paths in the source tree or the build folder."""

    def place(paths: Iterable[str]) -> tuple[str, ...]:
        places = []
        for path in paths:
            whole = posixpath.normpath(posixpath.join(build, path))
            # Files elsewhere, of the build environment or the machine, are left out.
            if whole.startswith(f"{source}/"):
                places.append(whole.removeprefix(f"{source}/"))
            elif whole.startswith(f"{build}/"):
                places.append(MADE + whole.removeprefix(f"{build}/"))
        return tuple(places)

    parts = {part for part in SPLIT.split(edge.command) if "/" in part}
    return replace(
        edge, outputs=place(edge.outputs), inputs=place(edge.inputs), named=place(sorted(parts))
    )


def _blocks(text: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield each unindented line with the variables that are indented below it."""
    head, variables = "", {}
    for line in text.replace("$\n", "").splitlines():
        if line.startswith(" "):
            name, _, value = line.strip().partition(" = ")
            variables[name] = value
        elif line and not line.startswith("#"):
            if head:
                yield head, variables
            head, variables = line, {}
    if head:
        yield head, variables


def _split(rest: str) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Take `out | out: rule in | implicit || order-only` apart; implicit ones count too."""
    parts: list[list[str]] = [[], [], []]
    at = 0
    for word in SEPARATOR.split(rest):
        if word == ":" and at == 0:
            at = 1
        elif word == "||":
            at = 2
        elif word.strip() and word != "|":
            parts[at].append(ESCAPED.sub(r"\1", word))
    outputs, (rule, *inputs), _ = parts
    return tuple(outputs), rule, tuple(inputs)
