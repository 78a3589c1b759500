"""Notes by which steps the modules of a pin are made, and of which distributions."""

from __future__ import annotations

import csv
import json
import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from patchwheel.build import IN_BUILD_DIR, BuildInputs, name_of, site_packages
from patchwheel.kit import BuildError
from patchwheel.manifest import BuiltOutput, PinGraph
from patchwheel.plan import LEVEL, included
from patchwheel.source import Source
from patchwheel.wheel import read_library
from patchwheel.wheelfile import WheelFile

INSIDE = re.compile(r"/build/env/")
# What starts a step that can be repeated.
STARTS = frozenset({"cython", "$CC", "$CXX", "env"})
# By module: the words of each step, and the files that they read.
NOTED = dict[str, dict[str, list[list[str]] | list[str]]]


def with_steps(
    graph: PinGraph, source: Source, inputs: BuildInputs, base: WheelFile | None
) -> PinGraph:
    """Return the graph with the steps of the modules that steps alone make."""
    if inputs.sandbox != LEVEL:
        return graph
    names = [o.source.removeprefix(IN_BUILD_DIR) for o in graph.outputs.values() if o.source]
    try:
        with inputs.session("record") as session:
            session.checkout(source, source.tree)
            what, asked = "the steps of its modules cannot be noted", json.dumps(names)
            found = session.ask(NOTED, "record", asked, what=what, out="modules")
    except BuildError as err:
        inputs.context.progress.say(f"{inputs.fork.lock_key}: {err}: a graft configures it")
        return graph
    known = {IN_BUILD_DIR + name: one for name, one in found.items()}
    provider = _Provider(inputs)
    outputs = dict(graph.outputs)
    for name, output in graph.outputs.items():
        linked = base.entries[name].content() if base and name in base.entries else b""
        if one := known.get(output.source):
            loaded = read_library(linked).needed if linked else ()
            outputs[name] = _noted(output, one, loaded, provider)
    return replace(graph, outputs=outputs)


def _noted(
    output: BuiltOutput, one: Mapping[str, list[Any]], loaded: Iterable[str], provider: _Provider
) -> BuiltOutput:
    """Return the output with its steps; as it was where nobody says what its files are of."""
    read: list[str] = one["read"]
    inside = {INSIDE.sub("", path) for path in read if INSIDE.match(path)}
    needs = {provider.of(path) for path in inside}
    rows = [_marked(argv, provider) for argv in one["steps"]]
    if "" in needs or not {argv[0] for argv in rows} <= STARTS:
        return output
    needs |= {argv[0] for argv in rows if argv[0] == "cython"}
    # What upstream's own module loads is linked for a reason.
    files = {path.rpartition("/")[2]: name for path, name in provider.items()}
    needs |= {files[name] for name in loaded if name in files}
    commands = tuple(shlex.join(argv).replace(provider.python, "{python}") for argv in rows)
    # One that needs none has a name all the same, to be told from an unknown one.
    named = tuple(sorted(needs)) or ("auditwheel",)
    return replace(output, commands=commands, needs=named, included=included(read))


def _marked(argv: list[str], provider: _Provider) -> list[str]:
    """Mark what is linked from a distribution: without that, the word is left out."""
    if "-c" in argv or argv[0] == "cython":
        return argv
    folders = [INSIDE.sub("", w[2:]) for w in argv if w.startswith("-L") and INSIDE.match(w[2:])]
    marked = []
    for word in argv:
        places = [INSIDE.sub("", word)] if INSIDE.match(word) else []
        if word.startswith("-l"):
            places = [f"{f}/lib{word[2:]}.{end}" for f in folders for end in ("so", "a")]
        found = [place for place in places if (provider.environment / place).exists()]
        # A file that is no distribution's is left out like one of what is not installed.
        marked.append(f"@{provider.of(found[0])}:{word}" if found else word)
    return marked


class _Provider(dict[str, str]):
    """The distribution of each file of an environment, by its path in there or one of a link.

    `python` is where that of the environment is from.
    """

    def __init__(self, inputs: BuildInputs) -> None:
        self.environment = inputs.environment.resolve()
        self.python = str(inputs.context.interpreter.path.parent.parent)
        super().__init__(_recorded(self.environment))

    def of(self, path: str) -> str:
        """Return its distribution; nothing for one that we made there, as the driver's stub."""
        real = (self.environment / path).resolve()
        return self.get(str(real).removeprefix(f"{self.environment}/"), "")


def _recorded(environment: Path) -> Iterator[tuple[str, str]]:
    packages = site_packages(environment)
    for record in sorted(packages.glob("*.dist-info/RECORD")):
        name = name_of(record.parent.name.partition("-")[0])
        with record.open(encoding="utf-8", newline="") as stream:
            for row in filter(None, csv.reader(stream)):
                path = posixpath.normpath(packages / row[0])
                yield path.removeprefix(f"{environment}/"), name
