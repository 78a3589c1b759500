"""What a build would do now: nothing, or what changed since the last one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from patchwheel.build import IN_BUILD_DIR
from patchwheel.kit import InputError, Repository, digest
from patchwheel.plan.records import Plan
from patchwheel.project import Project
from patchwheel.report import Estimate, known_weights
from patchwheel.wheelfile import FILENAME, WheelRecord, read_wheel, record

# What patches and files tell better.
TREES = frozenset({"tree", "base", "remade"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A plan beside the last wheel in dist/: its version, how long it took, and what changed since.

    `state` is `stored` where the wheel was made before and only has to be copied to dist/.
    """

    plan: Plan
    state: Literal["up-to-date", "stored", "to-make"]
    last: str | None = None
    seconds: float | None = None
    # What it was and what it is.
    pin: str | None = None
    patches: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    # Parts of the node key that differ besides.
    parts: tuple[str, ...] = ()
    cost: Estimate | None = None

    def to_json(self) -> dict[str, object]:
        since = {n: getattr(self, n) for n in ("pin", "patches", "files", "parts")}
        last = {"version": self.last, "seconds": self.seconds} if self.last else None
        cost = self.cost and asdict(self.cost)
        now = {"state": self.state, "last": last, "changed": since, "estimate": cost}
        return {**self.plan.to_json(), **now}


def look_ahead(project: Project, plan: Plan) -> Outlook:
    """Compare a plan with the last wheel in dist/, which tells nothing if it cannot be read."""
    stored = plan.node_key and project.store.find("wheels", plan.node_key)
    if not stored and project.remote and (place := plan.shared_as):
        stored = project.store.find("shared", digest(*place))
    state: Literal["stored", "to-make"] = "stored" if stored else "to-make"
    found = sorted(project.wheels_here(plan.fork), key=lambda path: path.stat().st_mtime)
    last: WheelRecord | None = None
    with contextlib.suppress(InputError, KeyError, IndexError):
        last = record.parse_record(read_wheel(found[-1]).metadata(FILENAME), where=found[-1])
    now = Outlook(plan=plan, state=state, cost=_cost(project, plan, state, last))
    if not last:
        return now
    made: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        folder = project.store.path("wheels", digest(dict(last.key)))
        made = json.loads((folder / "made.json").read_text())
    now = replace(now, last=last.version, seconds=made.get("seconds"))
    if stored and dict(last.key) == dict(plan.key_parts):
        return replace(now, state="up-to-date")
    patches = {patch.name: patch.sha256 for patch in last.patches}
    series, diffs = plan.tree.series, made.get("diffs", {})
    said = {p.name for p in series.patches if diffs.get(patches.get(p.name)) == p.changes_sha256}
    return replace(
        now,
        pin=_pin(plan, last),
        patches=_differing(patches, dict(series.digests), messages=said),
        files=_files(plan, last),
        parts=() if plan.pending else _differing(last.key, plan.key_parts, without=TREES),
    )


def _cost(project: Project, plan: Plan, state: str, last: WheelRecord | None) -> Estimate | None:
    # What only a configured tree can tell is most often what it was the last time.
    outputs = plan.built or (last.remade if last and plan.undecided else ())
    built = [o.source.removeprefix(IN_BUILD_DIR) for o in outputs if o.action == "build"]
    whole = plan.route == "compile"
    if state != "to-make" or not (whole or built):
        return None
    of, configures = None if whole else built, bool(plan.undecided)
    known = known_weights(project.store, project.root, plan.fork.name)
    return known.estimate(plan.route, of, configures=configures) if known else None


def _pin(plan: Plan, last: WheelRecord) -> str | None:
    old, new = (last.pin.version, last.trees.source), (plan.fork.version, plan.tree.source.tree)
    # The same version may be pinned to other files.
    ends = [v if old[0] != new[0] else f"{v} (tree {tree[:12]})" for v, tree in (old, new)]
    return " to ".join(ends) if old != new else None


def _differing(
    old: Mapping[str, str],
    new: Mapping[str, str],
    without: frozenset[str] = frozenset(),
    messages: Collection[str] = (),
) -> tuple[str, ...]:
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    how = {name: "removed" if name not in new else "changed" for name in names}
    how |= {name: "new" for name in names if name not in old}
    how |= {name: "message changed" for name in names if name in messages}
    return tuple(f"{name} ({how[name]})" for name in sorted(set(names) - without))


def _files(plan: Plan, last: WheelRecord) -> tuple[str, ...]:
    """Return the files that differ from those of the last wheel, if git still has them."""
    repo, old = Repository(plan.tree.source.git_dir), last.trees.patched
    if not repo.has(f"{old}^{{tree}}"):
        return ()
    how = {"A": "new", "D": "removed"}
    changes = repo.changes(old, plan.tree.tree)
    return tuple(f"{c.path} ({how.get(c.status, 'changed')})" for c in changes)
