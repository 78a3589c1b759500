"""Sorts a series' changes by what each makes necessary, and names the patches behind them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from patchwheel.kit import InputError
from patchwheel.plan.classify import Verdict, arrange, judge
from patchwheel.wheelfile import metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from patchwheel.kit import Change, Repository
    from patchwheel.manifest import BuildInventory
    from patchwheel.plan.base import Base
    from patchwheel.series import PatchedTree

PYPROJECT = "pyproject.toml"
METADATA = "METADATA"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributed:
    """By effect: rows of outputs to remake, else lines that say why."""

    compile: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    remake: list[dict[str, Any]] = field(default_factory=list)
    nothing: list[str] = field(default_factory=list)


def attribute_changes(
    changes: Iterable[Change],
    repo: Repository,
    survey: BuildInventory,
    base: Base,
    culprit: Callable[[str], str],
) -> Attributed:
    """Judge each change by itself."""
    facts, found = arrange(survey), Attributed()
    for change in changes:
        by = culprit(change.path)
        plain = change.path not in survey.reads and change.path not in facts.ships
        if change.path == PYPROJECT and plain:
            verdict = _judge_project(repo, change, base)
        else:
            verdict = judge(change, facts)
        line = f"{change.path}: {verdict.why} ({by})"
        match verdict.effect:
            case "remake":
                for path in facts.ships.get(change.path, [METADATA]):
                    row = {"path": path, "source": change.path, "why": by, "action": "remake"}
                    found.remake.append(row)
            case "nothing":
                found.nothing.append(f"{line}; nothing is remade for it")
            case "compile":
                found.compile.append(line)
            case "trace":
                found.trace.append(line)
    return found


def patches_by_path(tree: PatchedTree) -> Callable[[str], str]:
    """Return what names the patches that touch a path."""
    names: dict[str, list[str]] = {}
    for patch in tree.series.patches:
        for path in {p for d in patch.diffs for p in (d.old, d.new) if p}:
            names.setdefault(path, []).append(patch.name)
    nobody = "the open work tree" if tree.dev else "no patch of the series"
    return lambda path: ", ".join(names.get(path, [nobody]))


def read_projects(repo: Repository, change: Change) -> list[dict[str, Any]]:
    """Return pyproject.toml before and after a change."""
    blobs = repo.read([change.old.oid, change.new.oid])
    return [tomllib.loads(blobs[blob.oid].decode()) for blob in (change.old, change.new)]


def _judge_project(repo: Repository, change: Change, base: Base) -> Verdict:
    """Compare pyproject.toml as data: a change of dependency fields is an edit of METADATA."""
    if change.status != "M":
        return Verdict(effect="compile", why="it was added or removed")
    try:
        old, new = read_projects(repo, change)
    except ValueError:
        return Verdict(effect="compile", why="it cannot be read as TOML")
    if old == new:
        return Verdict(effect="nothing", why="its content as TOML is the same")
    changed = {f"[{k}]" for k in old.keys() | new.keys() if old.get(k) != new.get(k)}
    if changed == {"[project]"}:
        before, after = old["project"], new["project"]
        keys = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
        if keys <= set(metadata.EDITABLE):
            return _judge_dependencies(base, before, after)
        changed = {f"[project] {k}" for k in keys - set(metadata.EDITABLE)}
    return Verdict(effect="compile", why=f"it changes {', '.join(sorted(changed))}")


def _judge_dependencies(base: Base, before: dict[str, Any], after: dict[str, Any]) -> Verdict:
    try:
        metadata.set_dependencies(base.wheel.metadata(METADATA), before, after)
    except InputError as err:
        return Verdict(effect="compile", why=err.message)
    return Verdict(effect="remake", why="it changes requirements only")
