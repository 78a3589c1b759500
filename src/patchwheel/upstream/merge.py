"""A rebase without touching anything: each patch merged three-way onto other files, every conflict told at once.

Where a patch conflicts, its own side is taken for the patches after it, as if the conflict had been resolved so: each
conflict is the patch's own. The merge is git's (`git merge-file`), from what the patch makes of its own pin, as in a
rebase.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from patchwheel.kit.digest import blob_id
from patchwheel.patch.simulate import Content, Simulation
from patchwheel.series.status import try_patch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from patchwheel.kit.repo import Repository
    from patchwheel.series.files import Patch

Files = dict[str, Content | None]
KEPT = "nothing is left to merge, but lines that the patch removes are still there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """`text` has markers, the original between them (zdiff3); it is empty where there is nothing to merge."""

    path: str
    why: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """`merged`: git merged it, at other places than it says; `landed`: nothing is left of it to apply.

    `moved` are the files that it changes and where they went.
    """

    name: str
    state: Literal["clean", "offset", "merged", "conflict", "landed"]
    conflicts: tuple[Conflict, ...] = ()
    moved: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """The trees that a series moves between, and what conflict markers call them."""

    old: str
    new: str
    old_label: str
    new_label: str


def preview(
    repo: Repository,
    patches: Sequence[Patch],
    ends: Ends,
    *,
    have: Callable[[Iterable[str]], None] = lambda _oids: None,
) -> tuple[Merged, ...]:
    """Merge a series that applies to the old tree onto the new one, both in `repo`; `have` gets files not there yet."""
    old = Simulation(repo.files(ends.old), repo.read, patches)
    files, moved = repo.files(ends.new), moves(repo, ends.old, ends.new, patches)
    named = {p for patch in patches for d in patch.diffs for p in (d.old, d.new) if p}
    have(files[p].oid for p in named | {*moved.values()} if p in files)
    new = Simulation(files, repo.read, patches, earlier_results=old.results)
    for path in moved.values():
        blob = new.files[path]
        data = repo.read([blob.oid])[blob.oid]
        new.state[path] = Content(mode=blob.mode, data=data, oid=blob.oid)
    found = []
    for patch in patches:
        before = dict(old.state)
        old.apply(patch)
        status = try_patch(new, patch)
        if status.state in {"clean", "offset", "landed"}:
            found.append(Merged(name=patch.name, state=status.state))
        else:
            found.append(merge(repo, patch, (before, old.state, new), (ends, moved)))
    return tuple(found)


def merge(
    repo: Repository,
    patch: Patch,
    files: tuple[Files, Files, Simulation],
    names: tuple[Ends, Mapping[str, str]],
) -> Merged:
    """Merge one patch, given the files before and after it at home, onto the new ones, which take the result."""
    before, after, new = files
    ends, moved = names
    result: Files = {}
    conflicts = []
    paths = dict.fromkeys(p for diff in patch.diffs for p in (diff.old, diff.new) if p)
    went = {path: moved[path] for path in paths if moved.get(path, path) != path}
    for path in paths:
        base, theirs = before.get(path), after.get(path)
        place = moved.get(path, path)
        ours = new.get(place)
        if _same(base, theirs) or _same(ours, theirs):
            continue
        if _same(base, ours):
            result[place] = theirs
            continue
        if why := _unmergeable(base, ours, theirs):
            conflicts.append(Conflict(path=place, why=why))
            continue
        labels = (ends.new_label, ends.old_label, patch.name)
        sides = [side.data or b"" for side in (ours, base, theirs) if side]
        count, data = repo.merge_file(*sides, labels=labels)
        if count:
            text = data.decode(errors="replace")
            why = f"{count} conflict{'s' if count > 1 else ''}"
            conflicts.append(Conflict(path=place, why=why, text=text))
            _, data = repo.merge_file(*sides, labels=labels, favour="theirs")
        if theirs and data != sides[0]:
            result[place] = Content(mode=theirs.mode, data=data, oid=blob_id(data))
    # A merge leaves nothing also where upstream moved the lines to another place.
    kept = None if result else new.still_has(patch.diffs, after, moved=moved)
    if kept is not None and not conflicts:
        conflicts.append(Conflict(path=kept, why=KEPT))
    state: Literal["merged", "conflict", "landed"] = "merged" if result else "landed"
    if conflicts:
        state = "conflict"
    new.state.update(result)
    return Merged(
        name=patch.name,
        state=state,
        conflicts=tuple(conflicts),
        moved=tuple(went.items()),
    )


def _same(one: Content | None, other: Content | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.mode, one.oid) == (other.mode, other.oid)


def _unmergeable(base: Content | None, ours: Content | None, theirs: Content | None) -> str | None:
    if ours is None:
        return "upstream removed it"
    if base is None:
        return "upstream added it too, with other content"
    if theirs is None:
        return "the patch removes it, and upstream changed it"
    if any(side.data is None for side in (base, ours, theirs)):
        return "it is binary, and both sides changed it"
    return None


def moves(repo: Repository, before: str, after: str, patches: Iterable[Patch]) -> dict[str, str]:
    """Return where files that the patches change are in the new tree, by git's detection of renames."""
    named = {diff.old for patch in patches for diff in patch.diffs if diff.old}
    old, new = repo.files(before), repo.files(after)
    if all(old.get(path) == new.get(path) for path in named):
        return {}
    # Broken up (-B): a file may have moved and left a small one that imports it. git calls that a
    # copy, and a change of the old one which has a score.
    words = ("diff-tree", "-r", "-z", "-B", "-M", "-l0", "--diff-filter=BMRC")
    out = repo.git(*words, "--name-status", before, after)
    parts = iter(out.decode(errors="surrogateescape").split("\0")[:-1])
    found: dict[str, tuple[str, str]] = {}
    rewritten = set()
    for kind in parts:
        path = next(parts)
        if kind[0] == "M":
            rewritten |= {path} if kind != "M" else set()
            continue
        best = (kind[1:], next(parts))
        if kind[0] == "R":
            rewritten.add(path)
        found[path] = max(best, found.get(path, best))
    return {p: found[p][1] for p in sorted(named & found.keys() & rewritten)}
