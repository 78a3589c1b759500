"""Plans a change of content from forks.inventory, without a configured tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchwheel.build import MADE, configure_tree
from patchwheel.manifest import BuiltOutput, Reach, build_settings
from patchwheel.plan.classify import FILES
from patchwheel.plan.scan_references import is_scannable, scan_references
from patchwheel.plan.trace import (
    Effect,
    Tracer,
    TraceResult,
    build_code,
    not_copied,
    reads_by_name,
    unattributed,
    unfollowed,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from patchwheel.build import BuildInputs
    from patchwheel.kit import Change, Repository
    from patchwheel.manifest import BuildInventory
    from patchwheel.source import Source


def reach_of_pin(source: Source, inputs: BuildInputs, present: Collection[str]) -> Reach:
    """Configure a pin and follow each built output; `present` are the files of upstream's wheel."""
    tracer = Tracer(source, inputs)
    configured = configure_tree(source.tree, source, inputs)
    side = tracer.side(source.tree, configured, recall=True)
    # The file is committed: it must not name places of this machine.
    python = str(inputs.context.interpreter.path.parent.parent)

    def portable(command: str) -> str:
        return command.replace(configured.inside, "/build").replace(python, "{python}")

    outputs = {}
    ruled = configured.observed.outputs
    for name, path in ruled.items():
        if path.startswith(MADE) and ".dist-info/" not in name:
            reach = side.reach(path)
            outputs[name] = BuiltOutput(
                source=path,
                reads=frozenset(p for p in reach.contents if p in side.files),
                exists=reach.exists,
                commands=tuple(map(portable, side.graph.commands(path))),
            )
    for name in sorted(set(present) - ruled.keys() - tracer.inventory.verbatim.keys()):
        if not name.partition("/")[0].endswith(".libs"):
            reads = reads_by_name(name, side, tracer.inventory)
            outputs[name] = BuiltOutput(source="", reads=reads)
    definition = {p for p in configured.observed.reads if p in side.files}
    if configured.scripted:
        definition |= build_code(side, definition)
    tracer.memory.keep()
    return Reach(
        tree=source.tree,
        settings=build_settings(inputs.fork),
        definition=frozenset(definition),
        outputs=outputs,
        unfollowed=tuple(unfollowed(side)) if configured.scripted else (),
    )


def trace_by_inventory(
    reach: Reach, inventory: BuildInventory, changes: Sequence[Change], present: Collection[str]
) -> TraceResult | None:
    """Say what changes of content reach; None where only a configured tree can tell."""
    if not is_content_only(changes, reach):
        return None
    changed = frozenset(change.path for change in changes)
    effects, unknown = [], list(reach.unfollowed)
    for name, output in reach.outputs.items():
        by = tuple(sorted(output.reads & changed))
        if not by or name not in present:
            continue
        if output.source:
            effects.append(Effect(path=name, action="build", source=output.source, by=by))
        else:
            unknown.append(f"{by[0]}: it may reach {name}, which cannot be built here")
    effects += [
        Effect(path=name, action="remake", source=source, by=(source,))
        for name, source in inventory.verbatim.items()
        if source in changed and name in present
    ]
    effects.sort(key=lambda effect: effect.path)
    unknown += not_copied(effects, inventory)
    known = {p for output in reach.outputs.values() for p in output.reads & changed}
    known |= set(inventory.verbatim.values())
    unread, idle = unattributed(changed - known, unknown, inventory)
    return TraceResult(
        effects=tuple(effects), configured=reach.tree, unknown=(*unknown, *unread), idle=tuple(idle)
    )


def candidates(reach: Reach, changes: Iterable[Change]) -> tuple[str, ...]:
    """Name the built outputs that undecided changes may reach."""
    changed = {change.path for change in changes}
    built = {name: output for name, output in reach.outputs.items() if output.source}
    # A changed definition may give any of them another command.
    if changed & reach.definition:
        return tuple(sorted(built))
    return tuple(sorted(name for name, output in built.items() if output.reads & changed))


def is_content_only(changes: Iterable[Change], reach: Reach) -> bool:
    """Whether changes neither add nor remove files, nor touch what decides what is built."""
    return all(
        change.status == "M"
        and {change.old.mode, change.new.mode} <= FILES
        and change.path not in reach.definition
        for change in changes
    )


def same_references(repo: Repository, changes: Iterable[Change]) -> bool:
    """Whether changed files mention the same files as before.

    Then what the inventory says of the pin is true of a tree that a base was built from, too.
    """
    wanted = [c for c in changes if is_scannable(c.path)]
    contents = repo.read([blob.oid for c in wanted for blob in (c.old, c.new)])
    return all(c.status == "M" and _mentions(c, contents) for c in wanted)


def _mentions(change: Change, contents: Mapping[str, bytes]) -> bool:
    old, new = (
        scan_references(change.path, contents[blob.oid].decode(errors="replace"))
        for blob in (change.old, change.new)
    )
    return old == new
