"""Follows changes through a build: the outputs that they reach, add and remove."""

from __future__ import annotations

import functools
import json
import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from patchwheel.build import MADE, configure_tree
from patchwheel.kit import Repository, digest
from patchwheel.plan.classify import CODE
from patchwheel.plan.graph import Graph
from patchwheel.plan.memory import Memory
from patchwheel.plan.scan_references import LAYOUT, RARE, is_scannable, scan_references
from patchwheel.plan.system_headers import SystemHeaders

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from patchwheel.build import BuildInputs, Configured
    from patchwheel.kit import Blob, Change, Store
    from patchwheel.manifest import BuildInventory
    from patchwheel.plan.graph import Reach
    from patchwheel.source import Source


HEADER = re.compile(r".*\.(h|hh|hpp|hxx|cuh|inc|inl|ipp|tcc)", re.IGNORECASE)
# Named as the cause where commands or the list of outputs differ.
DEFINITION = "the build's definition"
# Raised whenever the same files would be followed otherwise.
FOLLOWED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What happens to one output; `by` are the changed files that cause it.

    `source` is the file that it is copied from or, in the build folder, built as.
    """

    path: str
    action: Literal["remake", "add", "build", "remove"]
    source: str
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceResult:
    """What changes reach; `configured` is the tree whose configuration serves the build.

    `unknown` says what cannot be attributed to outputs, `idle` what reaches none.
    """

    effects: tuple[Effect, ...]
    configured: str
    unknown: tuple[str, ...]
    idle: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A tree with its configuration: the one before the changes, or the one after."""

    files: Mapping[str, Blob]
    configured: Configured
    graph: Graph
    users: Callable[[str], frozenset[str]]
    reached: dict[str, Reach]

    def reach(self, origin: str) -> Reach:
        if origin not in self.reached:
            self.reached[origin] = self.graph.reach(origin)
        return self.reached[origin]


class Tracer:
    """Opens configured trees of one fork to be followed; what is found out is remembered."""

    def __init__(self, source: Source, inputs: BuildInputs) -> None:
        self.source = source
        self.inputs = inputs
        self.repo = Repository(source.git_dir)
        self.inventory = inputs.build.inventory
        self.store = inputs.context.store
        self.pin = self.repo.files(source.tree)
        # What a script of the pin imports is known: the references in its modules are not followed.
        opened = self.inventory.opened
        seen = {p for paths in opened.values() for p in paths if p.endswith(".py")}
        self.fully_traced = frozenset(seen | opened.keys())
        self.system_headers = SystemHeaders(inputs.environment, self.store)
        facts = digest(
            *(LAYOUT, FOLLOWED, self.system_headers.key, source.tree),
            {script: sorted(paths) for script, paths in opened.items()},
        )
        self.memory = Memory(self.store, facts)

    def side(self, tree: str, configured: Configured, *, recall: bool) -> Side:
        """Return a tree with its configuration; `recall` what is known of its unchanged files."""
        files = self.repo.files(tree)
        plain = {p: b.oid for p, b in files.items() if b.mode.startswith("100")}
        pin = self.pin
        differs = {p for p, oid in plain.items() if p not in pin or pin[p].oid != oid}
        graph = Graph(
            configured.edges,
            [*plain, *configured.made],
            _mentions(self.repo, plain, configured, self.store, self.source.tree),
            opened=self.inventory.opened,
            fully_traced=self.fully_traced - differs,
            project_includes=self.system_headers.project_includes,
            followed=self.memory.recall(configured, plain) if recall else None,
        )
        return Side(
            files=files,
            configured=configured,
            graph=graph,
            users=functools.cache(lambda name: _users(self.repo, plain, name)),
            reached={},
        )


def trace_changes(
    source: Source,
    inputs: BuildInputs,
    changes: Sequence[Change],
    trees: tuple[str, str],
    *,
    present: Collection[str],
) -> TraceResult:
    """Follow the changes between two trees to the outputs `present` in a base."""
    tracer = Tracer(source, inputs)
    changed = frozenset(change.path for change in changes)
    first = configure_tree(trees[0], source, inputs)
    again = any(c.status != "M" or c.path in first.observed.reads for c in changes)
    second = configure_tree(trees[1], source, inputs) if again else first
    new = tracer.side(trees[1], second, recall=second is first)
    old = tracer.side(trees[0], first, recall=True) if again else new
    effects = [
        effect
        for path in sorted({*first.observed.outputs, *second.observed.outputs})
        if ".dist-info/" not in path and (effect := _effect(path, old, new, changed, present))
    ]
    tracer.memory.keep()
    unknown = [
        *_unruled(first, new, changed, present, tracer.inventory),
        *not_copied(effects, tracer.inventory),
    ]
    if first.scripted or second.scripted:
        unknown += _unscripted(old, new, changed)
    else:
        unknown += _version(first, second)
    reached = {p for s in (old, new) for r in s.reached.values() for p in r.contents}
    known = {s for c in (first, second) for s in c.observed.outputs.values()}
    known |= reached | first.observed.reads | second.observed.reads
    unread, idle = unattributed(changed - known, unknown, tracer.inventory)
    return TraceResult(
        effects=tuple(effects),
        configured=trees[1] if again else trees[0],
        unknown=(*unknown, *unread),
        idle=tuple(idle),
    )


def not_copied(effects: Iterable[Effect], inventory: BuildInventory) -> list[str]:
    """Name copies whose file in the base is not equal to its source."""
    return [
        f"{e.source}: {e.path} in the base is not the same"
        for e in effects
        if e.action == "remake" and e.path in inventory.built
    ]


def unattributed(
    paths: Iterable[str], unknown: Iterable[str], inventory: BuildInventory
) -> tuple[list[str], list[str]]:
    """Sort changes that reach no output: files that the build reads, and code without effect."""
    told = {line.partition(":")[0] for line in unknown}
    unread, idle = [], []
    for path in sorted(set(paths) - told):
        opened = any(path in files for files in inventory.opened.values())
        if path in inventory.reads or opened:
            unread.append(f"{path}: the build reads it, for an unknown purpose")
        elif CODE.fullmatch(path):
            idle.append(f"{path}: nothing that is built mentions it")
    return unread, idle


def _effect(
    path: str, old: Side, new: Side, changed: frozenset[str], present: Collection[str]
) -> Effect | None:
    before = old.configured.observed.outputs.get(path)
    after = new.configured.observed.outputs.get(path)
    if after is None:
        why = tuple(sorted(changed & {before or "", *_reads(old, new)}))
        gone = path in present
        return Effect(path=path, action="remove", source="", by=why) if gone else None
    if before is not None and path not in present:
        return None  # the base leaves it out on purpose, see only-in-build
    if not after.startswith(MADE):
        if before == after and after not in changed:
            return None
        if before == after:
            return Effect(path=path, action="remake", source=after, by=(after,))
        why = tuple(sorted(changed & {after, *_reads(old, new)}))
        return Effect(path=path, action="add", source=after, by=why)
    by = _touched(before, after, old, new, changed)
    return Effect(path=path, action="build", source=after, by=by) if by else None


def _touched(
    before: str | None, after: str, old: Side, new: Side, changed: frozenset[str]
) -> tuple[str, ...]:
    """Return what makes a built output differ, or nothing."""
    reads = _reads(old, new)
    if before is None:
        return tuple(sorted(changed & reads)) or (DEFINITION,)
    one, two = old.reach(before), new.reach(after)
    by = sorted((one.contents | two.contents) & changed)
    by += sorted(one.exists ^ two.exists)
    for name in {name for name, _ in one.macros ^ two.macros}:
        users = new.users(name)
        # One that no text of the project uses is meant for somebody else's headers.
        if not users or users & (one.contents | two.contents):
            by += sorted(changed & reads) or [DEFINITION]
    made = (old.configured.made, new.configured.made)
    configured = {p for p in one.contents | two.contents if p.startswith(MADE)}
    if one.steps != two.steps or any(made[0].get(p) != made[1].get(p) for p in configured):
        by += sorted(changed & reads) or [DEFINITION]
    return tuple(by)


def _reads(old: Side, new: Side) -> frozenset[str]:
    return old.configured.observed.reads | new.configured.observed.reads


def _users(repo: Repository, oids: Mapping[str, str], word: str) -> frozenset[str]:
    """Return the sources and headers whose text has a word."""
    paths = [p for p in oids if is_scannable(p) and not RARE.fullmatch(p)]
    contents = repo.read([oids[path] for path in paths])
    pattern = re.compile(rb"\b" + re.escape(word.encode()) + rb"\b")
    return frozenset(p for p in paths if pattern.search(contents[oids[p]]))


def _unscripted(old: Side, new: Side, changed: frozenset[str]) -> list[str]:
    """Name what cannot be attributed where Python code of the project carries the steps out."""
    lines = set()
    # What it reads of a header shows in macros; what else it reads may decide anything.
    reads = {p for p in _reads(old, new) if not HEADER.fullmatch(p)}
    for side in (old, new):
        code = changed & {*reads, *build_code(side, reads)}
        lines |= {*unfollowed(side), *(f"{p}: the build's own code reads it" for p in code)}
    return sorted(lines)


def build_code(side: Side, reads: Iterable[str]) -> set[str]:
    """Return the Python files that a build's own code may import."""
    code = [path for path in reads if path.endswith(".py") and path in side.files]
    return {p for c in code for p in side.reach(c).contents if p.endswith(".py")}


def unfollowed(side: Side) -> list[str]:
    """Name what cannot be attributed where Python code of the project carries the steps out."""
    lines = []
    for edge in side.configured.edges:
        if not edge.outputs:
            lines.append(f"{edge.inputs[0]}: it is a part of a static library")
        lines += [f"{p}: it is made on the way" for p in edge.inputs if p not in side.files]
    for name, path in side.configured.observed.outputs.items():
        if path == MADE and ".dist-info/" not in name:
            lines.append(f"{name}: nothing says what it is made from")
    return sorted(set(lines))


def _version(first: Configured, second: Configured) -> list[str]:
    """METADATA is the base's: what Meson tells of the project must be the same."""
    found = []
    for configured in (first, second):
        info = json.loads(configured.text("meson-info/intro-projectinfo.json"))
        found.append((info["version"], info.get("license")))
    return [] if found[0] == found[1] else ["the project's version or licence changed"]


def _unruled(
    first: Configured,
    new: Side,
    changed: frozenset[str],
    present: Collection[str],
    inventory: BuildInventory,
) -> list[str]:
    """Name outputs of the base without a rule in this configuration that a change may reach."""
    lines = []
    ours = first.observed.outputs.keys() | new.configured.observed.outputs.keys()
    for path in sorted(set(present) - ours - inventory.verbatim.keys()):
        # auditwheel's folder of bundled libraries is in no build's own output.
        if path.partition("/")[0].endswith(".libs"):
            continue
        if hit := sorted(reads_by_name(path, new, inventory) & changed):
            lines.append(f"{hit[0]}: it may reach {path}, which cannot be built here")
    return lines


def reads_by_name(output: str, side: Side, inventory: BuildInventory) -> frozenset[str]:
    """Attribute an output without a build rule: to its .pyx file, or the code of its folder."""
    folders = {posixpath.dirname(w): posixpath.dirname(s) for w, s in inventory.verbatim.items()}
    folder, name = posixpath.split(output)
    place = folders.get(folder, folder)
    own = f"{place}/{name.partition('.')[0]}.pyx"
    near = (p for p in side.files if p.startswith(f"{place}/") and CODE.fullmatch(p))
    seeds = [own] if own in side.files else list(near)
    return frozenset(p for seed in seeds for p in side.reach(seed).contents if p in side.files)


def _mentions(
    repo: Repository, oids: Mapping[str, str], configured: Configured, store: Store, pin: str
) -> Callable[[str], Iterable[str]]:
    """Return what gives the references in a file; those of the pin's code are remembered."""

    def key(path: str) -> str:
        return oids[path] + posixpath.splitext(path)[1]

    memo: dict[str, Any] = store.memo("mentions", digest(LAYOUT, pin)) or {}
    fresh = not memo
    unread = [p for p in oids if is_scannable(p) and not RARE.fullmatch(p) and key(p) not in memo]
    contents = repo.read([oids[path] for path in unread])
    for path in unread:
        text = contents[oids[path]].decode(errors="replace")
        memo[key(path)] = sorted(scan_references(path, text))
    if fresh:
        store.remember("mentions", digest(LAYOUT, pin), memo)

    def tell(path: str) -> Iterable[str]:
        if not is_scannable(path):
            return ()
        if path.startswith(MADE):
            return scan_references(path, configured.text(path))
        if key(path) not in memo:
            [content] = repo.read([oids[path]]).values()
            memo[key(path)] = scan_references(path, content.decode(errors="replace"))
        return memo[key(path)]  # type: ignore[no-any-return]

    return tell
