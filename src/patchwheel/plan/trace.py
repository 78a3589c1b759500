"""Follows changes through a build: the outputs that they reach, add and remove."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, TypeAlias, cast

from patchwheel.build import (
    IN_BUILD_DIR,
    BuildInputs,
    configure_tree,
    find_configured,
    same_build,
)
from patchwheel.kit import Change
from patchwheel.manifest import BuildInventory, PinGraph, SeriesTrace
from patchwheel.plan.classify import CODE
from patchwheel.plan.follow import Follower, Side
from patchwheel.plan.graph import Closure
from patchwheel.source import Source

Action: TypeAlias = Literal["remake", "add", "build", "remove"]
# Named as the cause where commands or the list of outputs differ.
DEFINITION = "the build's definition"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What happens to one output; `by` are the changed files that cause it.

    `source` is the file that it is copied from or, in the build folder, built as.
    """

    path: str
    action: Action
    source: str
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceResult:
    """What changes reach; `configured` is the tree whose configuration serves the build.

    `unknown` says what cannot be attributed to outputs, `idle` what reaches none.
    """

    effects: tuple[Effect, ...]
    configured: str
    unknown: tuple[str, ...] = ()
    idle: tuple[str, ...]

    @classmethod
    def known(cls, series: SeriesTrace) -> TraceResult:
        """Return what the inventory has of a series."""
        effects = [
            Effect(path=path, action=cast("Action", action), source=source, by=tuple(by))
            for path, action, source, *by in series.effects
        ]
        return cls(effects=tuple(effects), configured=series.tree, idle=series.idle)

    def noted(self, tree: str) -> SeriesTrace | None:
        """Return what the inventory keeps of a series, None where it does not lead to a graft."""
        if self.unknown:
            return None
        rows = tuple((e.path, e.action, e.source, *e.by) for e in self.effects)
        return SeriesTrace(tree=tree, effects=rows, idle=self.idle)


def trace_changes(
    source: Source,
    inputs: BuildInputs,
    changes: Sequence[Change],
    trees: tuple[str, str],
    *,
    present: Collection[str],
    configure: bool = True,
) -> TraceResult | None:
    """Follow the changes between two trees to the outputs `present` in a base.

    Without `configure`, return None where the store lacks what configuring them told.
    """
    configured_tree = configure_tree if configure else find_configured
    first = configured_tree(trees[0], source, inputs)
    if first is None:
        return None
    follower = Follower(source, inputs, present)
    if same_build(changes, first.observed.reads):
        new = old = follower.follow(trees[1], first)
    else:
        second = configured_tree(trees[1], source, inputs)
        if second is None:
            return None
        old, new = follower.follow(trees[0], first), follower.follow(trees[1], second)
    configured = trees[0] if new is old else trees[1]
    inventory = inputs.build.inventory
    return _trace(old, new, changes, present, inventory=inventory, configured=configured)


def trace_by_inventory(
    graph: PinGraph,
    inventory: BuildInventory,
    changes: Sequence[Change],
    present: Collection[str],
    added: Mapping[str, str] = MappingProxyType({}),
) -> TraceResult | None:
    """Say what changes of content reach; None where only a configured tree can tell.

    `added` are new files that ship as they are, with their places in the wheel.
    """
    if not same_build((c for c in changes if c.path not in added), graph.definition):
        return None
    built = {name: output.source for name, output in graph.outputs.items() if output.source}
    side = Side(
        outputs={**inventory.verbatim, **built},
        closures={n: Closure(contents=o.reads, exists=o.exists) for n, o in graph.outputs.items()},
        reads=graph.definition,
        unfollowed=graph.unfollowed,
    )
    places = {name: path for path, name in added.items()}
    new = replace(side, outputs={**side.outputs, **places})
    return _trace(side, new, changes, present, inventory=inventory, configured=graph.tree)


def candidates(pin_graph: PinGraph, changes: Iterable[Change]) -> tuple[str, ...]:
    """Name the built outputs that undecided changes may reach."""
    changed = {change.path for change in changes}
    # A changed definition may give any of them another command.
    every = bool(changed & pin_graph.definition)
    outputs = pin_graph.outputs.items()
    return tuple(sorted(n for n, o in outputs if o.source and (every or o.reads & changed)))


def _trace(
    old: Side,
    new: Side,
    changes: Iterable[Change],
    present: Collection[str],
    *,
    inventory: BuildInventory,
    configured: str,
) -> TraceResult:
    changed = frozenset(change.path for change in changes)
    effects = [
        effect
        for path in sorted({*old.outputs, *new.outputs})
        if (effect := _effect(path, old, new, changed, present))
    ]
    unknown = _unknown(old, new, changed, present)
    unknown |= {
        f"{effect.source}: {effect.path} in the base is not the same"
        for effect in effects
        if effect.action == "remake" and effect.path in inventory.built
    }
    known = old.reads | new.reads | {line.partition(":")[0] for line in unknown}
    for side in (old, new):
        known |= {*side.outputs.values()}.union(*(r.contents for r in side.closures.values()))
    read = inventory.reads.union(*inventory.opened.values())
    left = changed - known
    unknown |= {f"{path}: the build reads it, for an unknown purpose" for path in left & read}
    idle = sorted(path for path in left - read if CODE.fullmatch(path))
    return TraceResult(
        effects=tuple(effects),
        configured=configured,
        unknown=tuple(sorted(unknown)),
        idle=tuple(f"{path}: nothing that is built mentions it" for path in idle),
    )


def _unknown(old: Side, new: Side, changed: frozenset[str], present: Collection[str]) -> set[str]:
    """Name what cannot be attributed to outputs that are built here."""
    unknown = {*old.unfollowed, *new.unfollowed}
    code = changed & (old.code | new.code)
    unknown |= {f"{path}: the build's own code reads it" for path in code}
    if old.project != new.project:
        unknown.add("the project's version or licence changed")
    for name in new.closures.keys() & set(present) - old.outputs.keys() - new.outputs.keys():
        if hit := sorted(new.closures[name].contents & changed):
            unknown.add(f"{hit[0]}: it may reach {name}, which cannot be built here")
    return unknown


def _effect(
    path: str, old: Side, new: Side, changed: frozenset[str], present: Collection[str]
) -> Effect | None:
    before, after = old.outputs.get(path), new.outputs.get(path)
    reads = old.reads | new.reads
    if after is None:
        why = tuple(sorted(changed & {before or "", *reads}))
        gone = path in present
        return Effect(path=path, action="remove", source="", by=why) if gone else None
    if before is not None and path not in present:
        return None  # the base leaves it out on purpose, see only-in-build
    if after.startswith(IN_BUILD_DIR):
        by = _touched(path, old, new, changed)
        return Effect(path=path, action="build", source=after, by=by) if by else None
    if before != after:
        why = tuple(sorted(changed & {after, *reads}))
        return Effect(path=path, action="add", source=after, by=why)
    return (
        Effect(path=path, action="remake", source=after, by=(after,)) if after in changed else None
    )


def _touched(path: str, old: Side, new: Side, changed: frozenset[str]) -> tuple[str, ...]:
    """Return what makes a built output differ, or nothing."""
    definition = sorted(changed & (old.reads | new.reads)) or [DEFINITION]
    if not old.outputs.get(path, "").startswith(IN_BUILD_DIR):
        return tuple(definition)
    one, two = old.closures[path], new.closures[path]
    contents = one.contents | two.contents
    by = sorted(contents & changed)
    by += sorted(one.exists ^ two.exists)
    for name in {name for name, _ in one.macros ^ two.macros}:
        users = new.users(name)
        # One that no text of the project uses is meant for somebody else's headers.
        if not users or users & contents:
            by += definition
    if one.steps != two.steps or any(old.made.get(p) != new.made.get(p) for p in contents):
        by += definition
    return tuple(by)
