"""What to remake of a wheel. It never under-approximates: what cannot be proven unaffected makes it a compile."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, Protocol

from patchwheel.kit.digest import digest
from patchwheel.kit.errors import InputError
from patchwheel.kit.repo import Repository
from patchwheel.plan.classify import Verdict, arrange, judge
from patchwheel.wheelfile import metadata, sbom
from patchwheel.wheelfile.archive import ZLIB, names
from patchwheel.wheelfile.read import output_names, read_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from patchwheel.kit.repo import Change
    from patchwheel.kit.store import Store
    from patchwheel.manifest.lock import ForkBuild, Survey
    from patchwheel.manifest.model import Fork
    from patchwheel.plan.trace import Effect, Traced
    from patchwheel.series.apply import PatchedTree

# Raised whenever the same inputs would give other bytes: it is part of every key.
RECIPE = "2"
PYPROJECT = "pyproject.toml"
METADATA = "METADATA"


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A wheel of the same pin to take unaffected outputs from: upstream's, or one built here."""

    kind: Literal["upstream", "built"]
    path: Path
    sha256: str


class Means(Protocol):
    """What planning may ask for when a change reaches what is built."""

    def parts(self, *, graft: bool) -> Mapping[str, str]:
        """Return the parts of the node key that are the tools'."""

    def trace(
        self,
        changes: Sequence[Change],
        trees: tuple[str, str],
        present: Collection[str],
    ) -> Traced | None:
        """Follow changes through the build; None when this kind of build cannot be followed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A file of the wheel that is not just taken; `path` is METADATA for an edit of the wheel's metadata.

    It is remade from (or added with) the file `source` of the patched tree, built as `source` of the build folder,
    or removed.
    """

    path: str
    action: Literal["remake", "add", "build", "remove"]
    source: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a wheel comes to be.

    `outputs` are the files that a graft remakes, `taken` counts its others; `why` says what made it a compile,
    or which changes make no difference. `configured` is the tree whose configuration builds what is built.
    """

    tree: PatchedTree
    route: Literal["graft", "compile"]
    base: Base | None
    label: str
    outputs: tuple[Output, ...]
    taken: int
    why: tuple[str, ...]
    configured: str | None = None
    key_parts: Mapping[str, str]

    @property
    def node_key(self) -> str:
        return digest(dict(self.key_parts))

    @property
    def fork(self) -> Fork:
        return self.tree.source.fork

    @property
    def version(self) -> str:
        """The version of the wheel that comes out, with its label."""
        return metadata.labelled(
            self.fork.version, self.label, self.node_key, graft=self.route == "graft"
        )

    @property
    def cost(self) -> str:
        if self.route == "compile":
            return "a compile: minutes to half an hour"
        count = f"{len(self.outputs)} of {len(self.outputs) + self.taken} files remade"
        built = len(self.built)
        return f"a graft: {f'{built} compiled, ' if built else 'about a second, '}{count}"

    @property
    def burden(self) -> tuple[bool, int]:
        """What orders plans by their cost: a compile, then how much is compiled."""
        return self.route == "compile", len(self.built)

    @property
    def built(self) -> tuple[Output, ...]:
        return tuple(output for output in self.outputs if output.action == "build")

    def to_json(self) -> dict[str, object]:
        return {
            "fork": self.fork.name,
            "version": self.version,
            "route": self.route,
            "cost": self.cost,
            "base": self.base
            and {
                "kind": self.base.kind,
                "filename": self.base.path.name,
                "sha256": self.base.sha256,
            },
            "outputs": [asdict(output) for output in self.outputs],
            "taken": self.taken,
            "why": list(self.why),
            "patches": [patch.name for patch in self.tree.series.patches],
            "trees": {"source": self.tree.source.tree, "patched": self.tree.tree},
            "key": dict(self.key_parts),
            "node-key": self.node_key,
        }


def make_plan(
    tree: PatchedTree,
    build: ForkBuild,
    *,
    base: Base | None,
    from_source: bool,
    means: Means,
    store: Store,
    label: str,
    refused: str | None = None,
) -> Plan:
    """Decide between a graft and a compile, and what a graft remakes; `refused` says why a graft could not be made.

    The decision is remembered in the store: made again for the same inputs, no wheel and no tree is opened.
    """
    fork, survey = tree.source.fork, build.survey
    wheel = fork.upstream_wheel
    key = digest(
        [RECIPE, from_source, tree.source.tree, tree.tree],
        [tree.dev, *([p.name, p.sha256] for p in tree.series.patches)],
        base and [base.kind, base.sha256],
        [dict(survey.verbatim), sorted(survey.built), sorted(survey.reads)],
        wheel and [wheel.distribution, *wheel.only_in_base, "", *wheel.only_in_build],
        fork.version,
    )
    memo = store.memo("plan", key)
    # What was found by configuring holds for the tools that it was configured with.
    lean: Mapping[str, str] = {}
    if memo and memo["under"] and memo["under"] != digest(lean := means.parts(graft=True)):
        memo = None
    if refused:
        memo = _compile([refused])
    if memo is None or refused:
        memo = memo or _decide(tree, survey, base, means, from_source=from_source)
        store.remember("plan", key, memo)
    outputs = tuple(Output(**row) for row in memo["outputs"])  # type: ignore[attr-defined]
    graft = memo["route"] == "graft" and base is not None
    parts = {
        "tree": tree.tree,
        "base": base.sha256 if base and graft else "none",
        "wheel": digest([fork.distribution, fork.version, label]),
        "recipe": RECIPE,
        "zlib": ZLIB,
    }
    if graft:
        parts["remade"] = digest([[o.path, o.action, o.source] for o in outputs])
    else:
        parts["sbom"] = sbom.LAYOUT
    if not graft or memo["under"]:
        parts |= (graft and lean) or means.parts(graft=graft)
    return Plan(
        tree=tree,
        route="graft" if graft else "compile",
        base=base if graft else None,
        label=label,
        outputs=outputs,
        taken=int(memo["taken"]),  # type: ignore[call-overload]
        why=tuple(memo["why"]),  # type: ignore[arg-type]
        configured=memo["configured"] or None,  # type: ignore[arg-type]
        key_parts=parts,
    )


def old_tree(tree: PatchedTree, base: Base) -> str:
    """Return the tree that the base was made from; raises InputError when it does not say."""
    if base.kind == "upstream":
        return tree.source.tree
    try:
        record = read_wheel(base.path, sha256=base.sha256).metadata("patchwheel.json")
        return str(json.loads(record)["trees"]["patched"])
    except (ValueError, KeyError, TypeError) as err:
        raise InputError("says not what it was made from", where=base.path) from err


def read_projects(repo: Repository, change: Change) -> list[dict[str, Any]]:
    """Return pyproject.toml before and after a change."""
    found = repo.read([change.old.oid, change.new.oid])
    pair = (found[change.old.oid], found[change.new.oid])
    return [tomllib.loads(content.decode()) for content in pair]


def _decide(
    tree: PatchedTree,
    survey: Survey,
    base: Base | None,
    means: Means,
    *,
    from_source: bool,
) -> dict[str, object]:
    if from_source or base is None:
        asked = "asked for from source" if from_source else "there is no base wheel"
        return _compile([asked])
    name = metadata.parse_filename(base.path.name, where=base.path)
    present = output_names(names(base.path), name)
    gap = find_gap(present, survey, tree.source.fork)
    if gap and base.kind == "upstream":
        return _compile([f"{base.path.name} is not the pin's own build: {gap}"])
    repo = Repository(tree.source.git_dir)
    old = old_tree(tree, base)
    changes = repo.changes(old, tree.tree)
    sorted_out = _sort_out(changes, repo, tree, survey, base)
    outputs, notes = sorted_out["remake"], sorted_out["nothing"]
    if reasons := sorted_out["compile"]:
        return _compile(reasons)
    found = {"configured": "", "under": ""}
    if follow := sorted_out["trace"]:
        traced = means.trace(changes, (old, tree.tree), present)
        if traced is None or traced.unknown:
            return _compile([*(traced.unknown if traced else ()), *follow])
        notes += traced.idle
        edits = [row for row in outputs if row["path"] == METADATA]
        outputs = [*map(_row(_culprits(tree)), traced.effects), *edits]
        under = digest(means.parts(graft=True))
        found = {"configured": traced.configured, "under": under}
    kept = len(present) - sum(o["path"] in present for o in outputs)
    return {"route": "graft", "outputs": outputs, "taken": kept, "why": notes, **found}


def _sort_out(
    changes: Iterable[Change],
    repo: Repository,
    tree: PatchedTree,
    survey: Survey,
    base: Base,
) -> dict[str, list[Any]]:
    """Judge each change by itself: rows of outputs for `remake`, else lines that say why, by effect."""
    facts, culprit = arrange(survey), _culprits(tree)
    found: dict[str, list[Any]] = {
        effect: [] for effect in ("compile", "trace", "remake", "nothing")
    }
    for change in changes:
        by = culprit(change.path)
        plain = change.path not in survey.reads and change.path not in facts.ships
        if change.path == PYPROJECT and plain:
            verdict = _judge_project(repo, change, base)
        else:
            verdict = judge(change, facts)
        line = f"{change.path}: {verdict.why} ({by})"
        if verdict.effect == "remake":
            for path in facts.ships.get(change.path, [METADATA]):
                row = {"path": path, "source": change.path, "why": by}
                found["remake"].append({**row, "action": "remake"})
        elif verdict.effect == "nothing":
            found["nothing"].append(f"{line}; nothing is remade for it")
        else:
            found[verdict.effect].append(line)
    return found


def _row(culprit: Callable[[str], str]) -> Callable[[Effect], dict[str, str]]:
    def row(effect: Effect) -> dict[str, str]:
        by = dict.fromkeys(culprit(path) if "." in path else path for path in effect.by)
        why = ", ".join(by)
        named = {"path": effect.path, "action": effect.action, "source": effect.source}
        return {**named, "why": why}

    return row


def _compile(reasons: list[str]) -> dict[str, object]:
    nothing = {"outputs": [], "taken": 0, "configured": "", "under": ""}
    return {"route": "compile", "why": reasons, **nothing}


def find_gap(present: Iterable[str], survey: Survey, fork: Fork) -> str | None:
    """Say in what the base's files differ from the pin's own outputs, or None.

    auditwheel's folder of bundled libraries is in no build's own output, and in every repaired wheel.
    """
    upstream = fork.upstream_wheel
    allowed = (
        upstream.only_in_base if upstream else (),
        upstream.only_in_build if upstream else (),
    )
    theirs = {n for n in present if not n.partition("/")[0].endswith(".libs")}
    ours = survey.verbatim.keys() | set(survey.built)
    for what, extra, globs in (
        ("has", theirs - ours, allowed[0]),
        ("lacks", ours - theirs, allowed[1]),
    ):
        odd = sorted(n for n in extra if not any(fnmatchcase(n, g) for g in globs))
        if odd:
            more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
            return f"it {what} {odd[0]}{more}"
    return None


def _culprits(tree: PatchedTree) -> Callable[[str], str]:
    found: dict[str, list[str]] = {}
    for patch in tree.series.patches:
        for path in {p for d in patch.diffs for p in (d.old, d.new) if p}:
            found.setdefault(path, []).append(patch.name)
    nobody = "the open work tree" if tree.dev else "no patch of the series"
    return lambda path: ", ".join(found.get(path, [nobody]))


def _judge_project(repo: Repository, change: Change, base: Base) -> Verdict:
    """Compare pyproject.toml as data: a change of [project]'s dependency fields is an edit of METADATA."""
    if change.status != "M":
        return Verdict(effect="compile", why="it was added or removed")
    try:
        old, new = read_projects(repo, change)
    except ValueError:
        return Verdict(effect="compile", why="it cannot be read as TOML")
    if old == new:
        return Verdict(effect="nothing", why="it says the same")
    changed = {f"[{k}]" for k in old.keys() | new.keys() if old.get(k) != new.get(k)}
    if changed == {"[project]"}:
        before, after = old["project"], new["project"]
        keys = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
        if keys <= set(metadata.EDITABLE):
            return _judge_dependencies(base, before, after)
        changed = {f"[project] {k}" for k in keys - set(metadata.EDITABLE)}
    return Verdict(effect="compile", why=f"it changes {', '.join(sorted(changed))}")


def _judge_dependencies(base: Base, before: dict[str, Any], after: dict[str, Any]) -> Verdict:
    wheel = read_wheel(base.path, sha256=base.sha256)
    try:
        metadata.set_dependencies(wheel.metadata("METADATA"), before, after)
    except InputError as err:
        return Verdict(effect="compile", why=err.message)
    return Verdict(effect="remake", why="it changes requirements only")
