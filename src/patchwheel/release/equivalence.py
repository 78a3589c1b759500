"""Compares a graft with a compile of the same tree, libraries by their hash before relocation."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from patchwheel.build.backend import check_machine
from patchwheel.kit.errors import CheckError, first
from patchwheel.plan.plan import Planner
from patchwheel.series.patched import patched_tree
from patchwheel.wheel.build import build_needs, build_wheel
from patchwheel.wheel.make import make_wheel
from patchwheel.wheelfile.read import output_names, read_wheel
from patchwheel.wheelfile.record import read_record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from patchwheel.manifest.model import Fork
    from patchwheel.project import Project
    from patchwheel.series.apply import PatchedTree
    from patchwheel.wheel.make import BuiltWheel

    Verdict = Literal["equal", "taken", "unnecessary", "different"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EquivalenceCheck:
    """How many files of a graft are the compile's, and which are not.

    `taken` counts built files of upstream's wheel that no change reaches; `unnecessary` files were
    remade although they came out as they were, because following changes over-approximates.
    """

    fork: str
    equal: int
    taken: int
    unnecessary: tuple[str, ...]
    differences: tuple[str, ...]

    @property
    def summary(self) -> str:
        return (
            f"{self.fork}: {self.equal} files equal the compile's, "
            f"{self.taken} are upstream's and not affected, "
            f"{len(self.unnecessary)} were remade unnecessarily, {len(self.differences)} differ"
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
    """RECORD's hashes of a wheel's files, and those of its built files before relocation."""

    outputs: Mapping[str, str]
    built: Mapping[str, str]


def check_equivalence(project: Project, fork: Fork, *, dev: bool = False) -> EquivalenceCheck:
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


def compare(
    graft: BuiltWheel, compiled: BuiltWheel, compile_pin: Callable[[], BuiltWheel]
) -> EquivalenceCheck:
    """Compare a graft with the compile of its tree.

    `compile_pin` compiles the pin without a series. It is called for a graft on upstream's wheel,
    to tell which built files the series changes: upstream had another toolchain.
    """
    one, two = _content(graft.path), _content(compiled.path)
    base = graft.plan.base
    changed: frozenset[str] | None = None
    if base and base.kind == "upstream":
        plain = _content(compile_pin().path).built
        paths = plain.keys() | two.built.keys()
        changed = frozenset(p for p in paths if plain.get(p) != two.built.get(p))
    old = _content(base.path).built if base and base.kind == "built" else {}
    upstream = graft.plan.fork.upstream_wheel
    globs = (*upstream.only_in_base, *upstream.only_in_build) if upstream else ()
    verdicts: defaultdict[Verdict, list[str]] = defaultdict(list)
    for path in sorted(one.outputs.keys() | two.outputs.keys()):
        bundled = path.partition("/")[0].endswith(".libs")
        if not bundled and not any(fnmatchcase(path, g) for g in globs):
            verdicts[_compare(path, one, two, old, changed)].append(path)
    return EquivalenceCheck(
        fork=graft.plan.fork.name,
        equal=len(verdicts["equal"]) + len(verdicts["unnecessary"]),
        taken=len(verdicts["taken"]),
        unnecessary=tuple(verdicts["unnecessary"]),
        differences=tuple(verdicts["different"]),
    )


def _compare(
    path: str,
    graft: Content,
    compiled: Content,
    old: Mapping[str, str],
    changed: frozenset[str] | None,
) -> Verdict:
    if path not in graft.outputs or path not in compiled.outputs:
        return "different"
    if path not in compiled.built:
        return "equal" if graft.outputs[path] == compiled.outputs[path] else "different"
    if path not in graft.built and changed is not None:
        return "different" if path in changed else "taken"
    if (graft.built.get(path) or old.get(path)) != compiled.built[path]:
        return "different"
    return "unnecessary" if changed is not None and path not in changed else "equal"


def _content(path: Path) -> Content:
    wheel = read_wheel(path)
    compiled = read_record(wheel).compiled
    names = output_names(wheel.entries, wheel.name)
    return Content(
        outputs={plain: wheel.entries[name].sha256 for plain, name in names.items()},
        built=compiled.built if compiled else {},
    )
