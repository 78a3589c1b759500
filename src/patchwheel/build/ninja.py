"""Read build.ninja: which files each build edge makes, from what, and with which command.

The format is https://ninja-build.org/manual.html#ref_ninja_file, as far as generators such as Meson
write it: no includes, no subninja, no variables in paths. CMake's rules, which it includes, have to
stand before the text.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from patchwheel.kit import BuildError

# Before the path of a file in the build folder; without it a path is that of a source file.
IN_BUILD_DIR = "//"
SEPARATOR = re.compile(r"(?<!\$)(\s+|:|\|\|?)")
SPLIT = re.compile(r"""(?:\$ |[\s=,:@'"])+""")
ESCAPED = re.compile(r"\$([ :$])")
# Of .ninja_log: start and end in ms since ninja began, a time of the file, an output, the command.
LOGGED = re.compile(r"(\d{1,12})\t(\d{1,12})\t\d+\t([^\t]+)\t(\w+)")
# Before a custom command of CMake.
CHANGED_FOLDER = re.compile(r"^cd \S+ && ")
# Enough for `python tool.py` and `meson --internal copy`.
WORDS = 3
# What ninja shows of a step, and where its dependency file goes, make no difference to its outputs.
IGNORED = frozenset({"DESC", "description", "DEPFILE", "DEPFILE_UNQUOTED", "depfile"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """One step of a build, without the files that must merely be there first."""

    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    command: str = ""
    # Files that only the command names.
    named: tuple[str, ...] = ()
    # What the command starts, without folders, with its next words.
    program: str = ""
    # Those that matter only where a text uses them; Meson has its macros in the command.
    macros: frozenset[tuple[str, str]] = frozenset()


def parse_ninja(text: str, build: PurePosixPath, source: PurePosixPath) -> list[Edge]:
    """Return the edges that run a command; raises BuildError for what is no build.ninja.

    Their files are paths in the source tree or, marked, in the build folder.
    """
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
            start = parts.get("COMMAND") or parts.get("command", "")
            started = CHANGED_FOLDER.sub("", start).split()[:WORDS]
            command = " ".join(f"{k}={v}" for k, v in sorted(parts.items()) if k not in IGNORED)
            named = {part for part in SPLIT.split(command) if "/" in part}
            edges.append(
                Edge(
                    outputs=tuple(_places(outputs, build, source)),
                    inputs=tuple(_places(inputs, build, source)),
                    command=command,
                    named=tuple(_places(sorted(named), build, source)),
                    program=" ".join(part.rpartition("/")[2] for part in started),
                )
            )
    if not edges:
        raise BuildError("build.ninja names no build step")
    return edges


def parse_log(text: str) -> list[tuple[tuple[str, ...], float, float]]:
    """Return the steps of a .ninja_log: outputs, and start and end in seconds since ninja began.

    Lines that are none, or end before they start, are left out.
    """
    found: dict[tuple[int, int, str], list[str]] = {}
    for match in map(LOGGED.fullmatch, text.splitlines()):
        # A step with several outputs has a line for each.
        if match and (start := int(match[1])) <= (end := int(match[2])):
            found.setdefault((start, end, match[4]), []).append(match[3])
    return [(tuple(outs), start / 1000, end / 1000) for (start, end, _), outs in found.items()]


def _places(paths: Iterable[str], build: PurePosixPath, source: PurePosixPath) -> Iterator[str]:
    for path in paths:
        whole = posixpath.normpath(posixpath.join(build, path))
        # Files elsewhere, of the build environment or the machine, are left out.
        if whole.startswith(f"{source}/"):
            yield whole.removeprefix(f"{source}/")
        elif whole.startswith(f"{build}/"):
            yield IN_BUILD_DIR + whole.removeprefix(f"{build}/")


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


def _split(rest: str) -> tuple[list[str], str, list[str]]:
    """Take `out | out: rule in | implicit || order-only` apart; implicit ones count too."""
    words = [word for word in SEPARATOR.split(rest) if word.strip() and word != "|"]
    if "||" in words:
        words = words[: words.index("||")]
    if ":" not in words[:-1]:
        raise BuildError(f"build.ninja has a step without a rule: {rest[:80]}")
    colon = words.index(":")
    plain = [ESCAPED.sub(r"\1", word) for word in words]
    return plain[:colon], plain[colon + 1], plain[colon + 2 :]
