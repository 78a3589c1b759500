"""What planning decides, as records: outputs, the decision for a base, the plan of a wheel."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from patchwheel.build import BuildInputs, OwnWheel, SandboxLevel, interface_part
from patchwheel.kit import Change, MachineError, Repository, digest
from patchwheel.manifest import BuildInventory, Fork, PinGraph
from patchwheel.plan.base import Base, wheel_of
from patchwheel.series import PatchedTree, without_effect
from patchwheel.wheelfile import Output, metadata

if TYPE_CHECKING:
    from patchwheel.plan.trace import Effect

# Raised whenever what is built and fitted into a base would differ.
FITTING = 1
# The end of a line about a change of a test, of documentation and the like.
IDLE = "; nothing is remade for it"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What follows from trees, series and base; remembered in the store.

    While `undecided` names changes, only a configured tree can tell what they reach; `candidates`
    are the outputs that come into question.
    """

    route: Literal["graft", "compile"]
    outputs: tuple[Output, ...] = ()
    # How many files a graft takes from its base.
    taken: int = 0
    # What made it a compile, or which changes make no difference.
    why: tuple[str, ...] = ()
    # The tree whose configuration builds what is built, and a digest of the tools that it needs.
    configured: str = ""
    tools: str = ""
    # Where the inventory's steps make all that is built: the distributions that they need, and a
    # digest of the steps. Then nothing is configured.
    needs: tuple[str, ...] = ()
    steps: str = ""
    undecided: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()

    @property
    def rows(self) -> list[list[str]]:
        """What is done to which output, less the reason."""
        return [[o.path, o.action, o.source] for o in self.outputs]


@dataclass(frozen=True, kw_only=True)
class Plan(Decision):
    """How a wheel comes to be.

    `key_parts` is the node key's content as far as it is known; `pending` says what the rest waits
    for. `changes` lead from the tree that the base was made from, or the pin, to the patched tree.
    `inputs` are those of the build, if anything is built.
    """

    tree: PatchedTree
    base: Base | None
    label: str
    key_parts: Mapping[str, str]
    pending: tuple[str, ...] = ()
    # The level that build steps will run at; None when there are none, or no sandbox as required.
    sandbox: SandboxLevel | None = None
    inventory: BuildInventory = field(compare=False, repr=False)
    inputs: BuildInputs | None = field(default=None, compare=False, repr=False)
    changes: Callable[[], list[Change]] = field(compare=False, repr=False)
    graph: Callable[[], PinGraph | None] = field(default=lambda: None, compare=False, repr=False)
    # Says which other forks' interfaces upstream's binaries in a graft were not compiled against.
    left_behind: Callable[[], list[str]] = field(default=list, compare=False, repr=False)
    # What it is where the recorded steps can be replayed, if they cannot be here.
    elsewhere: Plan | None = field(default=None, compare=False, repr=False)

    @property
    def node_key(self) -> str | None:
        """The key of the wheel; None while a part of it is pending."""
        return None if self.pending or self.undecided else digest(dict(self.key_parts))

    @property
    def shared_as(self) -> tuple[str, str] | None:
        """The namespace and the key of the wheel in a shared store, None if a second makes it.

        The key of a graft lacks what a toolchain decides, so that who has none can look it up.
        """
        inputs = self.inputs
        if inputs is None or not self.inventory.compiles(self.fork):
            return None
        if self.route == "compile":
            return ("compile", self.node_key) if self.node_key else None
        # Of one that only copies, it may have taken a configured tree to know that.
        if not (self.built or self.undecided or self.tools):
            return None
        parts = {name: self.key_parts[name] for name in ("tree", "base", "wheel", "recipe")}
        interface = interface_part(inputs.needs, inputs.context.store)
        try:
            flags = inputs.flags(self.fork, "any")
        except MachineError:
            return None
        return "graft", digest(FITTING, parts, inputs.env, flags, interface)

    @property
    def fork(self) -> Fork:
        return self.tree.source.fork

    @property
    def built(self) -> tuple[Output, ...]:
        return tuple(output for output in self.outputs if output.action == "build")

    def wheel_in(self, entry: Path) -> OwnWheel:
        """Return the plan's wheel from its entry in the store."""
        path, sha256 = wheel_of(entry)
        return OwnWheel(fork=self.fork.name, path=path, sha256=sha256, version=self.version)

    def changes_since_pin(self) -> list[Change]:
        """List what the series changes; `changes` may begin with that of a wheel built here."""
        if self.base and self.base.kind != "built":
            return self.changes()
        source = self.tree.source
        return Repository(source.git_dir).changes(source.tree, self.tree.tree)

    @property
    def warnings(self) -> list[str]:
        """What the series changes without effect, and what the wheel may lack."""
        source, tree = self.tree.source, self.tree.tree
        idle = without_effect(source, tree, self.inventory, self.changes_since_pin())
        return [*idle, *self.left_behind()]

    def may_rise(self) -> list[str]:
        """Say that what is compiled here may need a newer glibc than the base does."""
        import platform

        tag = re.search(r"manylinux_2_(\d+)_", self.base.path.name) if self.base else None
        here = re.fullmatch(r"2\.(\d+)", platform.libc_ver()[1])
        if not (tag and here and (self.built or self.undecided)) or int(here[1]) <= int(tag[1]):
            return []
        found = f"it is compiled on glibc {here[0]}: its platform tag may rise above {tag[0][:-1]}"
        return [f"{found}, which `build --strict-tag` refuses"]

    @property
    def version(self) -> str:
        """The version of the wheel, with its label; of a pending one the label lacks its digest."""
        key = metadata.label_key(self.key_parts) if self.node_key else None
        return metadata.labelled(self.fork.version, self.label, key, graft=self.route == "graft")

    @property
    def description(self) -> str:
        """What carrying the plan out amounts to, in a few words."""
        if not self.inventory.compiles(self.fork):
            return "built by its backend: about a second"
        if self.route == "compile":
            modules = sum(name.endswith(".so") for name in self.inventory.built)
            # A build that looks for a library, as PyYAML's does, may show none beforehand.
            number = f": {modules} extension module{'s' * (modules != 1)}" if modules else ""
            return f"a compile{number}"
        if self.undecided:
            return f"a graft: up to {len(self.candidates)} compiled, once it is configured"
        total = len(self.outputs) + self.taken
        built = f"{len(self.built)} compiled" if self.built else "about a second"
        return f"a graft: {built}, {len(self.outputs)} of {total} files remade"

    def to_json(self) -> dict[str, object]:
        base = self.base
        return {
            "fork": self.fork.name,
            "version": self.version,
            "route": self.route,
            "cost": self.description,
            "base": base and {"kind": base.kind, "filename": base.path.name, "sha256": base.sha256},
            "outputs": [asdict(output) for output in self.outputs],
            "taken": self.taken,
            "why": list(self.why),
            "warnings": [*self.warnings, *self.may_rise()],
            "undecided": list(self.undecided),
            "candidates": list(self.candidates),
            "sandbox": self.sandbox,
            "patches": [patch.name for patch in self.tree.series.patches],
            "trees": {"source": self.tree.source.tree, "patched": self.tree.tree},
            "key": dict(self.key_parts),
            "pending": list(self.pending),
            "node-key": self.node_key,
        }


def output_of(effect: Effect, culprit: Callable[[str], str]) -> Output:
    """Return what a change does to a file of the wheel, with the patches that it is of."""
    by = dict.fromkeys(culprit(path) if "." in path else path for path in effect.by)
    return Output(path=effect.path, action=effect.action, source=effect.source, why=", ".join(by))


def patches_by_path(tree: PatchedTree) -> Callable[[str], str]:
    """Return what names the patches that touch a path."""
    names: dict[str, list[str]] = {}
    for patch in tree.series.patches:
        for path in {p for d in patch.diffs for p in (d.old, d.new) if p}:
            names.setdefault(path, []).append(patch.name)
    nobody = "the open work tree" if tree.dev else "no patch of the series"
    return lambda path: ", ".join(names.get(path, [nobody]))
