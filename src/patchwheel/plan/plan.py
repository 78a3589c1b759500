"""Decides how a wheel comes to be: as a graft or a compile, what is remade, and under which key.

It builds nothing. A part of the key that depends on a wheel or a toolchain that is not there stays
pending, and a change that only a configured tree can attribute is named as such.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from patchwheel import wheelfile
from patchwheel.build import BuildInputs, OwnWheel, interface_part, without_missing_tools
from patchwheel.kit import BuildError, Change, MachineError, Repository, digest, file_sha256
from patchwheel.manifest import Fork, ForkBuild, InventoryFile, PinGraph, build_settings
from patchwheel.plan.base import (
    Base,
    base_mismatch,
    built_bases,
    left_behind,
    start_base,
    upstream_base,
)
from patchwheel.plan.records import FITTING, IDLE, Decision, Plan, output_of, patches_by_path
from patchwheel.plan.replay import added_modules, needs_of, reduced, replays
from patchwheel.series import PatchedTree, patched_tree

if TYPE_CHECKING:
    from patchwheel.plan.trace import Effect, TraceResult
    from patchwheel.project import Project

# Raised whenever the same inputs would give different bytes: it is part of every key.
RECIPE = "4"


def plan_fork(
    project: Project,
    fork: Fork,
    *,
    refused: str | None = None,
    made: Mapping[str, OwnWheel] | None = None,
    configure: bool = False,
) -> Plan:
    """Plan a fork's wheel; `refused` says why a graft that was planned could not be made.

    `made` are wheels of this run, by lock key. With `configure` the build's inputs must be there:
    trees are configured where that decides, and nothing is left pending.
    """
    # The lock must fit before anything is downloaded.
    wait_for_base = start_base(project, fork)
    planner = Planner(project, patched_tree(project, fork), made or {}, configure, refused)
    wait_for_base()
    return planner.plan()


@dataclass
class Planner:
    """Plans one patched tree on the base wheels that there are."""

    project: Project
    tree: PatchedTree
    made: Mapping[str, OwnWheel] = field(default_factory=dict)
    configure: bool = False
    refused: str | None = None
    # What configured trees told, where the inventory could not.
    traced: TraceResult | None = None

    @property
    def fork(self) -> Fork:
        return self.tree.source.fork

    @functools.cached_property
    def build(self) -> ForkBuild:
        return self.project.build(self.fork)

    @functools.cached_property
    def repo(self) -> Repository:
        return Repository(self.tree.source.git_dir)

    @functools.cached_property
    def needs(self) -> dict[str, OwnWheel | None]:
        """The wheels of other forks to compile against, None for one that is not made."""
        return {name: self._needed(name) for name in self.build.needs}

    def inputs(self, *, graft: bool, needs: tuple[str, ...] = ()) -> BuildInputs:
        return reduced(self._inputs[graft], needs) if needs else self._inputs[graft]

    @functools.cached_property
    def _inputs(self) -> tuple[BuildInputs, BuildInputs]:
        """The inputs of a compile, and those of a graft, which does without some tools."""
        compiled = BuildInputs(
            context=self.project.context,
            fork=self.fork,
            build=self.build,
            needs=[wheel for wheel in self.needs.values() if wheel],
            epoch=self.tree.source.epoch,
        )
        return compiled, replace(compiled, fork=without_missing_tools(self.fork))

    def plan(self) -> Plan:
        """Choose the cheapest plan; one that compiles nothing is taken at once."""
        if self.project.from_source or not self.build.inventory.compiles(self.fork):
            return self.on(None)
        upstream = upstream_base(self.project, self.fork)
        plan = self.on(upstream)
        cheap = plan.route == "graft" and not plan.built and not plan.undecided
        known = plan.node_key and self.project.store.find("wheels", plan.node_key)
        if self.refused or cheap or known:
            return plan
        parts, pending = self._build_parts(graft=True)
        others = [] if pending else [*map(self.on, built_bases(self.project, self.fork, parts))]
        # What made it a compile says more than that there is no base.
        plans = [plan, *others] if upstream else [*others, plan]
        # To follow the change from another base is not worth a configured tree.
        plans = [p for p in plans if not (p.undecided and any(q.needs for q in plans))]
        return min(plans, key=lambda p: (p.route == "compile", len(p.built)))

    def on(self, base: Base | None, *, replayed: bool = False) -> Plan:
        """Return the plan on one base; also of where the inventory's steps can be `replayed`."""

        @functools.cache
        def changes() -> list[Change]:
            old = base.made_from(self.tree) if base else self.tree.source.tree
            return self.repo.changes(old, self.tree.tree)

        decision = self._decision(base, changes)
        graft = decision.route == "graft"
        steps, inputs, elsewhere = decision.steps, self.inputs(graft=True), None
        if decision.needs and not (replayed or replays(steps, self.tree.tree, inputs)):
            elsewhere = self.on(base, replayed=True)
            decision = replace(decision, needs=(), steps="")
        key_parts, pending = self._key_parts(decision, base if graft else None)
        builds = not graft or decision.configured or decision.tools or decision.undecided
        inputs = self.inputs(graft=graft, needs=decision.needs)
        return Plan(
            **vars(decision),
            tree=self.tree,
            base=base if graft else None,
            label=self.project.manifest.environment.label,
            key_parts=key_parts,
            pending=pending,
            sandbox=inputs.sandbox if builds else None,
            inventory=self.build.inventory,
            inputs=inputs if builds and None not in self.needs.values() else None,
            changes=changes,
            graph=lambda: self._pin_graph,
            left_behind=functools.partial(left_behind, self.project, self.build) if graft else list,
            elsewhere=elsewhere,
        )

    def _decision(self, base: Base | None, changes: Callable[[], list[Change]]) -> Decision:
        """Return the decision, remembered if it was made before."""
        refused = self.refused
        if self.project.from_source or base is None:
            asked = self.project.from_source
            why = "requested with --from-source" if asked else "there is no base wheel"
            why = "it compiles nothing" if not self.build.inventory.compiles(self.fork) else why
            return Decision(route="compile", why=(refused or why,))
        no_graft = Decision(route="compile", why=(refused or "",))

        def decide() -> Decision:
            return no_graft if refused else self.decide(base, changes())

        def holds(known: Decision) -> bool:
            # What another toolchain decided stays remembered.
            if known.undecided:
                return False
            if refused or not known.tools:
                return not refused or known == no_graft
            # With other tools than it was found with, it may be another.
            parts, pending = self._build_parts(graft=True)
            return bool(pending) or known.tools == digest(parts)

        store = self.project.store
        return store.cached("plan", Decision, self._question(base), decide, valid=holds)

    def _question(self, base: Base) -> list[object]:
        """Return all that a decision depends on."""
        tree, inventory, wheel = self.tree, self.build.inventory, self.fork.upstream_wheel
        path = self.project.manifest.inventory_path
        return [
            file_sha256(path) if path.exists() else None,
            [RECIPE, tree.source.tree, tree.tree],
            [tree.dev, *tree.series.digests],
            [base.kind, base.sha256],
            [dict(inventory.verbatim), sorted(inventory.built), sorted(inventory.reads)],
            inventory.unwatched,
            wheel and [wheel.distribution, *wheel.only_in_base, "", *wheel.only_in_build],
            self.fork.version,
        ]

    def decide(self, base: Base, changes: list[Change]) -> Decision:
        """Return the decision on a base; `changes` lead from the tree that it was made from."""
        # A decision that is remembered needs none of them: a no-op imports little.
        from patchwheel.plan.classify import METADATA, Rules
        from patchwheel.plan.trace import Effect

        inventory, present = self.build.inventory, base.outputs
        mismatch = base_mismatch(present, inventory, self.fork)
        if mismatch and base.kind == "upstream":
            why = f"{base.path.name} is not the pin's own build: {mismatch}"
            return Decision(route="compile", why=(why,))
        rules, culprit = Rules(inventory), patches_by_path(self.tree)
        lines: defaultdict[str, list[str]] = defaultdict(list)
        copied = []
        for change in changes:
            verdict = rules.judge_with(change, self.repo, base)
            path = change.path
            lines[verdict.effect].append(f"{path}: {verdict.why} ({culprit(path)})")
            if verdict.effect == "remake":
                names = [name for name, source in inventory.verbatim.items() if source == path]
                copied += [
                    Effect(path=name, action="remake", source=path, by=(path,))
                    for name in names or [METADATA]
                ]
        if lines["compile"]:
            return Decision(route="compile", why=tuple(lines["compile"]))
        idle = tuple(f"{line}{IDLE}" for line in lines["nothing"])
        decision, effects = Decision(route="graft", why=idle), copied
        if lines["trace"]:
            edits = [effect for effect in copied if effect.path == METADATA]
            decision, traced = self._trace(base, changes, lines["trace"], decision)
            if decision.route == "compile":
                return decision
            effects = [*traced, *edits]
        taken = len(present) - sum(effect.path in present for effect in effects)
        outputs = tuple(output_of(effect, culprit) for effect in effects)
        by_inventory = decision.configured == self.tree.source.tree and not decision.tools
        built = [output.path for output in outputs if output.action == "build"]
        needs, steps = needs_of(self._pin_graph if by_inventory else None, built)
        return replace(decision, outputs=outputs, taken=taken, needs=needs, steps=steps)

    def _trace(
        self, base: Base, changes: list[Change], follow: list[str], decision: Decision
    ) -> tuple[Decision, tuple[Effect, ...]]:
        """Follow changes through the build."""
        from patchwheel.build import backend_kind
        from patchwheel.plan.trace import Tracer, candidates

        source = self.tree.source
        if not backend_kind(source).steps:
            return Decision(route="compile", why=tuple(follow)), ()
        idle = {line.partition(":")[0] for line in decision.why}
        followed = [c for c in changes if c.status != "A" or c.path not in idle]
        traced, tools = self._trace_by_inventory(base, followed), ""
        if traced is None and (self.configure or None not in self.needs.values()):
            trees = (base.made_from(self.tree), self.tree.tree)
            inputs, inventory = self.inputs(graft=True), self.build.inventory
            tracer = Tracer(changes=changes, present=base.outputs, inventory=inventory)
            try:
                traced = tracer.by_trees(source, inputs, trees, configure=self.configure)
            except BuildError as err:
                if backend_kind(source).listed_by != "cmake":
                    raise
                # Not all that CMake can install can be listed before it is built.
                return Decision(route="compile", why=(err.message, *follow)), ()
            self.traced, tools = traced, digest(self._build_parts(graft=True)[0])
        if traced is None:
            graph, built = self._pin_graph, tuple(sorted(self.build.inventory.built))
            outputs = candidates(graph, changes) if graph else built
            name = self.project.manifest.inventory_path.name
            advice = "`patchwheel lock` writes it where the project can be configured"
            why = (*decision.why, *(() if graph else (f"{name} lacks this pin: {advice}",)))
            return replace(decision, why=why, undecided=tuple(follow), candidates=outputs), ()
        if traced.unknown:
            return Decision(route="compile", why=(*traced.unknown, *follow)), ()
        why, configured = (*decision.why, *traced.idle), traced.configured
        return replace(decision, why=why, configured=configured, tools=tools), traced.effects

    def _trace_by_inventory(self, base: Base, changes: list[Change]) -> TraceResult | None:
        """Follow changes of content by the committed inventory, if it is true of the base."""
        from patchwheel.plan.scan_references import same_references
        from patchwheel.plan.trace import Tracer, TraceResult

        source, old = self.tree.source, base.made_from(self.tree)
        since_pin = self.repo.changes(source.tree, old) if old != source.tree else []
        graph, inventory = self._pin_graph, self.build.inventory
        if graph is None or not same_references(self.repo, since_pin):
            return None
        if graph.series and (graph.series.tree, base.kind) == (self.tree.tree, "upstream"):
            return TraceResult.known(graph.series)
        places = added_modules(changes, source, inventory, graph)
        tracer = Tracer(changes=changes, present=base.outputs, inventory=inventory)
        return tracer.by_inventory(graph, places)

    @functools.cached_property
    def _pin_graph(self) -> PinGraph | None:
        """The entry of forks.inventory; None if it is for another pin or other settings."""
        file = InventoryFile.read(self.project.manifest.inventory_path)
        graph = file.graph(self.fork.lock_key, self.project.python)
        current = (self.tree.source.tree, build_settings(self.fork))
        return graph if graph and (graph.tree, graph.settings) == current else None

    def _key_parts(
        self, decision: Decision, base: Base | None
    ) -> tuple[dict[str, str], tuple[str, ...]]:
        """Return the content of the node key, and what its missing parts wait for."""
        # Normalised: the manifest and METADATA may spell it differently.
        name = re.sub("[-_.]+", "-", self.fork.distribution).lower()
        parts = {
            "tree": self.tree.tree,
            "base": base.sha256 if base else "none",
            "wheel": digest([name, self.fork.version, self.project.manifest.environment.label]),
            "recipe": RECIPE,
            "zlib": zlib.ZLIB_RUNTIME_VERSION,
            **({} if base else {"sbom": wheelfile.sbom.LAYOUT}),
        }
        pending: tuple[str, ...] = ()
        if base and decision.undecided:
            pending = ("a configured tree, which says what is remade",)
        elif base:
            parts["remade"] = digest([FITTING, *decision.rows])
        if base and not decision.configured and not decision.undecided:
            return parts, ()
        parts |= {"steps": decision.steps} if decision.steps else {}
        build_parts, more = self._build_parts(graft=base is not None, needs=decision.needs)
        return parts | build_parts, (*more, *pending)

    def _build_parts(
        self, *, graft: bool, needs: tuple[str, ...] = ()
    ) -> tuple[dict[str, str], tuple[str, ...]]:
        """Return the key parts of a build, and what is pending; to `configure`, it raises."""
        parts: dict[str, str] = {}
        pending = []
        try:
            parts |= self.inputs(graft=graft, needs=needs).toolchain_parts
        except MachineError as err:
            if self.configure:
                raise
            pending.append(f"the toolchain: {err.message}")
        if missing := [name for name, wheel in self.needs.items() if wheel is None]:
            pending.append(f"the wheel of {' and '.join(missing)}, which it compiles against")
        else:
            wheels = self.inputs(graft=graft).needs
            parts["interface"] = interface_part(wheels, self.project.store)
        return parts, tuple(pending)

    def _needed(self, name: str) -> OwnWheel | None:
        """Return another fork's wheel, from this run or from the store, if it was made."""
        fork = self.project.manifest.forks[name]
        if fork.lock_key in self.made or self.configure:
            return self.made.get(fork.lock_key)
        plan = plan_fork(self.project, fork, made=self.made)
        entry = plan.node_key and self.project.store.find("wheels", plan.node_key)
        return plan.wheel_in(entry) if entry else None
