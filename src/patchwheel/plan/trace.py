"""Follows changes through a build: the outputs that they reach, add and remove."""

from __future__ import annotations

import functools
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
from patchwheel.patch import FileDiff
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


@dataclass(frozen=True, kw_only=True)
class Tracer:
    """Follows changes to the outputs `present` in a base; the inventory is the pin's."""

    changes: Sequence[Change]
    present: Collection[str]
    inventory: BuildInventory

    @functools.cached_property
    def changed(self) -> frozenset[str]:
        return frozenset(change.path for change in self.changes)

    def by_trees(
        self, source: Source, inputs: BuildInputs, trees: tuple[str, str], *, configure: bool = True
    ) -> TraceResult | None:
        """Follow what changed between two trees.

        Without `configure`, return None where the store lacks what configuring them told.
        """
        configured_tree = configure_tree if configure else find_configured
        first = configured_tree(trees[0], source, inputs)
        if first is None:
            return None
        follower = Follower(source, inputs, self.present)
        if same_build(self.changes, first.observed.reads):
            both = follower.follow(trees[1], first)
            return self._between(both, both, trees[0])
        second = configured_tree(trees[1], source, inputs)
        if second is None:
            return None
        old, new = follower.follow(trees[0], first), follower.follow(trees[1], second)
        return self._between(old, new, trees[1])

    def by_inventory(
        self, graph: PinGraph, added: Mapping[str, str] = MappingProxyType({})
    ) -> TraceResult | None:
        """Say what changes of content reach; None where only a configured tree can tell.

        `added` are new files that ship as they are, with their places in the wheel.
        """
        if not same_build((c for c in self.changes if c.path not in added), graph.definition):
            return None
        built = {name: output.source for name, output in graph.outputs.items() if output.source}
        rows = graph.outputs.items()
        old = Side(
            outputs={**self.inventory.verbatim, **built},
            closures={name: Closure(contents=o.reads, exists=o.exists) for name, o in rows},
            reads=graph.definition,
            unfollowed=graph.unfollowed,
        )
        places = {name: path for path, name in added.items()}
        return self._between(old, replace(old, outputs={**old.outputs, **places}), graph.tree)

    def _between(self, old: Side, new: Side, configured: str) -> TraceResult:
        paths = sorted({*old.outputs, *new.outputs})
        effects = tuple(filter(None, (self._effect(path, old, new) for path in paths)))
        unknown = self._unknown(old, new)
        unknown |= {
            f"{effect.source}: {effect.path} in the base is not the same"
            for effect in effects
            if effect.action == "remake" and effect.path in self.inventory.built
        }
        known = old.reads | new.reads | {line.partition(":")[0] for line in unknown}
        for side in (old, new):
            known |= {*side.outputs.values()}.union(*(r.contents for r in side.closures.values()))
        read = self.inventory.reads.union(*self.inventory.opened.values())
        left = self.changed - known
        unknown |= {f"{path}: the build reads it, for an unknown purpose" for path in left & read}
        idle = sorted(path for path in left - read if CODE.fullmatch(path))
        return TraceResult(
            effects=effects,
            configured=configured,
            unknown=tuple(sorted(unknown)),
            idle=tuple(f"{path}: nothing that is built mentions it" for path in idle),
        )

    def _unknown(self, old: Side, new: Side) -> set[str]:
        """Name what cannot be attributed to outputs that are built here."""
        unknown = {*old.unfollowed, *new.unfollowed}
        code = self.changed & (old.code | new.code)
        unknown |= {f"{path}: the build's own code reads it" for path in code}
        if old.project != new.project:
            unknown.add("the project's version or licence changed")
        outputs = old.outputs.keys() | new.outputs.keys()
        for name in new.closures.keys() & set(self.present) - outputs:
            if hit := sorted(new.closures[name].contents & self.changed):
                unknown.add(f"{hit[0]}: it may reach {name}, which cannot be built here")
        return unknown

    def _effect(self, path: str, old: Side, new: Side) -> Effect | None:
        before, after = old.outputs.get(path), new.outputs.get(path)
        reads = old.reads | new.reads
        if after is None:
            why = tuple(sorted(self.changed & {before or "", *reads}))
            gone = path in self.present
            return Effect(path=path, action="remove", source="", by=why) if gone else None
        if before is not None and path not in self.present:
            return None  # the base leaves it out on purpose, see only-in-build
        if after.startswith(IN_BUILD_DIR):
            by = _touched(path, old, new, self.changed)
            return Effect(path=path, action="build", source=after, by=by) if by else None
        if before != after:
            why = tuple(sorted(self.changed & {after, *reads}))
            return Effect(path=path, action="add", source=after, by=why)
        same = after not in self.changed
        return None if same else Effect(path=path, action="remake", source=after, by=(after,))


def candidates(pin_graph: PinGraph, changes: Iterable[Change | FileDiff]) -> tuple[str, ...]:
    """Name the built outputs that undecided changes may reach."""
    changed = {change.path for change in changes}
    # A changed definition may give any of them another command.
    every = bool(changed & pin_graph.definition)
    outputs = pin_graph.outputs.items()
    return tuple(sorted(n for n, o in outputs if o.source and (every or o.reads & changed)))


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
