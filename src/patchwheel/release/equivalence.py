"""Is a graft what a compile of the same tree makes? Compared file by file, libraries before their relocation."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from patchwheel.build.backend import check_machine
from patchwheel.kit.errors import CheckError, first
from patchwheel.plan.plan import Planner
from patchwheel.series.patched import patched_tree
from patchwheel.wheel.build import build_needs, build_wheel
from patchwheel.wheel.make import make_wheel
from patchwheel.wheelfile.read import output_names, read_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from patchwheel.manifest.model import Fork
    from patchwheel.project import Project
    from patchwheel.series.apply import PatchedTree
    from patchwheel.wheel.make import BuiltWheel


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """`equal` files are the compile's, `taken` are built ones of upstream's that no change reaches.

    `needless` were remade although they came out as they were: what following the changes over-approximates.
    """

    fork: str
    equal: int
    taken: int
    needless: tuple[str, ...]
    differences: tuple[str, ...]

    @property
    def summary(self) -> str:
        return (
            f"{self.fork}: {self.equal} files are a compile's, {self.taken} are upstream's own and unaffected, "
            f"{len(self.needless)} remade without need, {len(self.differences)} different"
        )

    def check(self) -> None:
        """Raise CheckError when anything differs."""
        if self.differences:
            raise CheckError(
                f"the graft of {self.fork} is not what a compile makes",
                tail=first(self.differences),
                hint="build it with --from-source, and report what the plan missed",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The hashes of a wheel's outputs as RECORD has them, those of its libraries as they were before relocation."""

    outputs: Mapping[str, str]
    built: Mapping[str, str]
    record: Mapping[str, Any]


def check_equivalence(project: Project, fork: Fork, *, dev: bool = False) -> Proof:
    """Compare a fork's graft with a compile of its tree and, on upstream's base, of the pin."""
    made: dict[str, BuiltWheel] = {}
    # A compile may need more than the graft, which would be made for nothing.
    check_machine(fork, store=project.store)
    tree = patched_tree(project, fork, dev=dev)
    graft = build_wheel(project, fork, dev=dev, made=made)
    # Against the same wheels as the graft: another SciPy would make another scikit-learn.
    build_needs(project, fork, dev=dev, made=made)

    def compiled(tree: PatchedTree) -> BuiltWheel:
        planner = Planner(project, tree, from_source=True, made=made, configure=True)
        return make_wheel(planner.plan(), project.store)

    unpatched = replace(
        tree, tree=tree.source.tree, series=replace(tree.series, patches=()), dev=False
    )
    return compare(graft, compiled(tree), lambda: compiled(unpatched))


def compare(graft: BuiltWheel, compiled: BuiltWheel, pin: Callable[[], BuiltWheel]) -> Proof:
    """Compare; `pin` compiles the pin without a series, which shows the effect of the series."""
    one, two = _content(graft.path), _content(compiled.path)
    fork, base = graft.plan.fork, graft.plan.base
    changed: frozenset[str] | None = None
    if base and base.kind == "upstream":
        plain = _content(pin().path).built
        paths = plain.keys() | two.built.keys()
        changed = frozenset(p for p in paths if plain.get(p) != two.built.get(p))
    old = _content(base.path).built if base and base.kind == "built" else {}
    upstream = fork.upstream_wheel
    globs = (*upstream.only_in_base, *upstream.only_in_build) if upstream else ()
    found: dict[str, list[str]] = {w: [] for w in ("equal", "taken", "needless", "other")}
    for path in sorted(one.outputs.keys() | two.outputs.keys()):
        bundled = path.partition("/")[0].endswith(".libs")
        if not bundled and not any(fnmatchcase(path, g) for g in globs):
            found[_judge(path, one, two, old, changed)].append(path)
    return Proof(
        fork=fork.name,
        equal=len(found["equal"]) + len(found["needless"]),
        taken=len(found["taken"]),
        needless=tuple(found["needless"]),
        differences=tuple(found["other"]),
    )


def _judge(
    path: str,
    graft: Content,
    compiled: Content,
    old: Mapping[str, str],
    changed: frozenset[str] | None,
) -> Literal["equal", "taken", "needless", "other"]:
    if path not in graft.outputs or path not in compiled.outputs:
        return "other"
    if path not in compiled.built:
        return "equal" if graft.outputs[path] == compiled.outputs[path] else "other"
    if path not in graft.built and changed is not None:
        return "other" if path in changed else "taken"
    if (graft.built.get(path) or old.get(path)) != compiled.built[path]:
        return "other"
    return "needless" if changed is not None and path not in changed else "equal"


def _content(path: Path) -> Content:
    wheel = read_wheel(path)
    record = json.loads(wheel.metadata("patchwheel.json"))
    names = output_names(wheel.entries, wheel.name)
    return Content(
        outputs={plain: wheel.entries[name].sha256 for plain, name in names.items()},
        built=record["compiled"].get("built", {}),
        record=record,
    )
