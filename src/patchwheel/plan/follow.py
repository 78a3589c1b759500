"""Follows each output of a configured tree to what it may be made from."""

from __future__ import annotations

import functools
import json
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from patchwheel.build import IN_BUILD_DIR, BuildInputs, Configured, configure_tree, site_packages
from patchwheel.kit import Repository
from patchwheel.manifest import ANYTHING, BuiltOutput, PinGraph, build_settings
from patchwheel.plan.classify import CODE
from patchwheel.plan.graph import Closure, Graph
from patchwheel.plan.scan_references import (
    LAYOUT,
    RARE,
    SYSTEM,
    is_scannable,
    list_headers,
    scan_header,
    scan_references,
)
from patchwheel.source import Source

UNSAID = "nothing says what it is made from"
HEADER = re.compile(r".*\.(h|hh|hpp|hxx|cuh|inc|inl|ipp|tcc)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A tree as its configuration or forks.inventory tells of it: before a change, or after it."""

    # The wheel's files, each with its source file, or with its file of the build folder, marked.
    outputs: Mapping[str, str]
    # Of built outputs, and of files of the base that this configuration does not make.
    closures: Mapping[str, Closure]
    # The files that decide what is built.
    reads: frozenset[str]
    # Those of them that are code, with all that it imports, where the project's own code builds.
    code: frozenset[str] = frozenset()
    # What cannot be attributed to outputs, whatever changes.
    unfollowed: tuple[str, ...] = ()
    # The files that configuring made, with their sha256.
    made: Mapping[str, str] = field(default_factory=dict)
    # METADATA is the base's: what Meson tells of the project must be the same.
    project: tuple[object, ...] = ()
    # Gives the sources and headers whose text has a word.
    users: Callable[[str], frozenset[str]] = lambda _word: frozenset()


class Follower:
    """Follows trees of one fork; `present` are the files of a base wheel."""

    def __init__(self, source: Source, inputs: BuildInputs, present: Collection[str]) -> None:
        self.present = present
        self.repo = Repository(source.git_dir)
        self.inventory = inputs.build.inventory
        pin = self.repo.files(source.tree).items()
        self.pin = {path: blob.oid for path, blob in pin if blob.mode.startswith("100")}
        self.packages = site_packages(inputs.environment)
        store = inputs.context.store
        self.headers = list_headers(inputs.environment, store)
        # To read all of a project takes a second.
        self.references = store.cached(
            "references", dict[str, list[str]], [LAYOUT, source.tree], self._scan_pin
        )

    def follow(self, tree: str, configured: Configured) -> Side:
        """Follow a tree with its own configuration, or one that serves it as well."""
        files = self.repo.files(tree)
        plain = {path: blob.oid for path, blob in files.items() if blob.mode.startswith("100")}
        observed, graph = configured.observed, self._graph(plain, configured)
        closure = functools.cache(graph.closure)
        outputs = {n: origin for n, origin in observed.outputs.items() if ".dist-info/" not in n}
        closures = {
            n: closure(origin) for n, origin in outputs.items() if origin.startswith(IN_BUILD_DIR)
        }
        for name in set(self.present) - observed.outputs.keys() - self.inventory.verbatim.keys():
            # auditwheel's folder of bundled libraries is in no build's own output.
            if not name.partition("/")[0].endswith(".libs"):
                seeds = self._seeds(name, files)
                contents = {p for seed in seeds for p in closure(seed).contents}
                closures[name] = Closure(contents=frozenset(contents))
        reads, code = observed.reads & files.keys(), set[str]()
        if configured.scripted:
            # What it reads of a header shows in macros; what else it reads may decide anything.
            code |= {path for path in reads if not HEADER.fullmatch(path)}
            imported = {p for path in reads if path.endswith(".py") for p in closure(path).contents}
            code |= {path for path in imported if path.endswith(".py")}
        info = {"version": observed.metadata}
        if not configured.scripted and not observed.metadata:
            info = json.loads(configured.text("meson-info/intro-projectinfo.json"))
        return Side(
            outputs=outputs,
            closures=closures,
            reads=reads,
            code=frozenset(code),
            unfollowed=tuple(sorted({*_unfollowed(configured, outputs, files)})),
            made=configured.made,
            project=(info.get("version"), info.get("license")),
            users=functools.cache(functools.partial(self._users, plain)),
        )

    def _graph(self, oids: Mapping[str, str], configured: Configured) -> Graph:
        opened = {
            script: frozenset(oids) if ANYTHING in paths else paths
            for script, paths in self.inventory.opened.items()
        }
        # What a script of the pin imports is known: the references in its modules are not followed.
        known = opened.keys() - {*self.inventory.unwatched}
        traced = known | {p for s in known for p in opened[s] if p.endswith(".py")}
        same = frozenset(p for p in traced if p not in oids or oids[p] == self.pin.get(p))
        return Graph(
            configured.edges,
            [*oids, *configured.made],
            functools.partial(self._references, oids, configured),
            opened_by_script=opened,
            fully_traced=same,
            headers=self.headers,
        )

    def _seeds(self, output: str, files: Iterable[str]) -> list[str]:
        """Attribute an output without a build rule: to its .pyx file, or the code of its folder."""
        verbatim = self.inventory.verbatim.items()
        folders = {posixpath.dirname(w): posixpath.dirname(s) for w, s in verbatim}
        folder, name = posixpath.split(output)
        place = folders.get(folder, folder)
        own = f"{place}/{name.partition('.')[0]}.pyx"
        near = [p for p in files if p.startswith(f"{place}/") and CODE.fullmatch(p)]
        return [own] if own in files else near

    def _scan_pin(self) -> dict[str, list[str]]:
        paths = list(filter(is_scannable, self.pin))
        texts = self._texts(self.pin, paths)
        return {path: sorted(scan_references(path, texts[path])) for path in paths}

    def _references(
        self, oids: Mapping[str, str], configured: Configured, path: str
    ) -> Iterable[str]:
        if path.startswith(SYSTEM):
            file = self.packages / path.removeprefix(SYSTEM)
            text = file.read_text(encoding="utf-8", errors="replace")
            return scan_header(path, text, self.headers)
        if not is_scannable(path):
            return ()
        if path.startswith(IN_BUILD_DIR):
            return scan_references(path, configured.text(path))
        if path in self.references and oids[path] == self.pin[path]:
            return self.references[path]
        return scan_references(path, self._texts(oids, [path])[path])

    def _users(self, oids: Mapping[str, str], word: str) -> frozenset[str]:
        texts = self._texts(oids, [p for p in oids if is_scannable(p) and not RARE.fullmatch(p)])
        pattern = re.compile(rf"\b{re.escape(word)}\b", re.ASCII)
        return frozenset(path for path, text in texts.items() if pattern.search(text))

    def _texts(self, oids: Mapping[str, str], paths: Collection[str]) -> dict[str, str]:
        contents = self.repo.read([oids[path] for path in paths])
        return {path: contents[oids[path]].decode(errors="replace") for path in paths}


def graph_of_pin(source: Source, inputs: BuildInputs, present: Collection[str]) -> PinGraph:
    """Configure a pin and follow each built output; `present` are the files of upstream's wheel."""
    configured = configure_tree(source.tree, source, inputs)
    side = Follower(source, inputs, present).follow(source.tree, configured)
    # The file is committed: it must not name places of this machine.
    python = str(inputs.context.interpreter.path.parent.parent)

    def portable(command: str) -> str:
        return command.replace(configured.inside, "/build").replace(python, "{python}")

    outputs = {
        name: BuiltOutput(
            source=side.outputs.get(name, ""),
            reads=frozenset(path for path in closure.contents if not path.startswith(IN_BUILD_DIR)),
            exists=closure.exists,
            commands=tuple(sorted({portable(command) for command, _ in closure.steps})),
        )
        for name, closure in side.closures.items()
    }
    return PinGraph(
        tree=source.tree,
        settings=build_settings(source.fork),
        definition=side.reads | side.code,
        outputs=outputs,
        unfollowed=side.unfollowed,
    )


def _unfollowed(
    configured: Configured, outputs: Mapping[str, str], files: Collection[str]
) -> Iterator[str]:
    """Name what cannot be attributed where Python code of the project carries the steps out."""
    for edge in configured.edges if configured.scripted else ():
        if not edge.inputs:
            # CMake or another build makes it, started by setup.py.
            what = (
                edge.outputs[0].removeprefix(IN_BUILD_DIR) if edge.outputs else "a static library"
            )
            yield f"{what}: {UNSAID}"
        elif not edge.outputs:
            yield f"{edge.inputs[0]}: it is a part of a static library"
        yield from (f"{p}: {UNSAID}" for p in edge.inputs if p not in files)
    for name, origin in outputs.items() if configured.scripted else ():
        if origin == IN_BUILD_DIR:
            yield f"{name}: {UNSAID}"
