"""A source tree and a series to a patched tree: in memory, all or nothing, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Never

from patchwheel.kit.digest import digest
from patchwheel.kit.errors import MachineError, PatchError
from patchwheel.kit.repo import GitError, Repository
from patchwheel.patch.simulate import Replay
from patchwheel.series.files import check_patch
from patchwheel.series.staged import applied

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchwheel.kit.repo import Blob
    from patchwheel.kit.store import Store
    from patchwheel.patch.simulate import Content
    from patchwheel.series.files import Patch, Series
    from patchwheel.series.staged import Trial
    from patchwheel.source.fetch import Source

REF = "refs/patchwheel/trees"
REMOVED = "000000"
FULL_DISK = ("No space left on device", "Disk quota exceeded")
REPORT = "this should not happen: please report it with the patch"


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchedTree:
    """`tree` is in the source's git dir; `dev` marks the files of an open work tree, edits included."""

    source: Source
    tree: str
    series: Series
    dev: bool = False


def apply_series(source: Source, series: Series, *, store: Store) -> PatchedTree:
    """Apply a series; raises PatchError naming patch, file, hunk and nearest match, and then changes nothing."""
    if not series.patches:
        return PatchedTree(source=source, tree=source.tree, series=series)
    key = digest(source.tree, [patch.sha256 for patch in series.patches])
    known = store.memo("tree", key)
    tree = str(known["tree"]) if known else ""
    # The ref keeps the tree from git's pruning, and is gone with a repository that was made anew.
    if not tree or not (source.git_dir / REF / key).exists():
        tree = _applied(source, series.patches, ref=f"{REF}/{key}")
        store.remember("tree", key, {"tree": tree})
    return PatchedTree(source=source, tree=tree, series=series)


def replay(source: Source, patches: Sequence[Patch]) -> Replay:
    repo = Repository(source.git_dir)
    return Replay(repo.files(source.tree), repo.read, patches)


def _applied(source: Source, patches: Sequence[Patch], *, ref: str) -> str:
    for patch in patches:
        check_patch(patch)
    repo = Repository(source.git_dir)
    try:
        with applied(repo, source.tree, [patch.path for patch in patches]) as trial:
            return trial.keep(_checked(trial, patches), ref=ref)
    except GitError as err:
        if any(words in err.stderr for words in FULL_DISK):
            raise MachineError("the disk is full", where=source.git_dir) from err
        _explain(source, patches, err)


def _checked(trial: Trial, patches: Sequence[Patch]) -> dict[str, bytes]:
    """Compare git's result with ours, where every path that a patch names is as the patch says.

    Returns the contents of what changed, by their ids.
    """
    found = {change.path: change for change in trial.changes}
    named = {p for x in patches for d in x.diffs for p in (d.old, d.new) if p}
    # What else the tree holds git has looked at.
    files = {p: c.old for p, c in found.items() if c.old.mode != REMOVED}
    if same := named - found.keys():
        files |= trial.repo.files(trial.tree, *sorted(same))
    follow = Replay(files, trial.repo.read, patches)
    for patch in patches:
        follow.apply(patch)
    expected = follow.changed()
    for path in sorted(expected.keys() | found.keys()):
        change = found.get(path)
        if not (path in expected and change and _agree(expected[path], change.new)):
            raise PatchError(f"{path} did not become what the series says", hint=REPORT)
    made = [content for content in expected.values() if content]
    return {each.oid: each.data for each in made if each.data is not None}


def _agree(wanted: Content | None, found: Blob) -> bool:
    if wanted is None:
        return found.mode == REMOVED
    # Of a binary file that a later patch changes again only git knows the bytes.
    return wanted.mode == found.mode and wanted.oid in {found.oid, ""}


def _explain(source: Source, patches: Sequence[Patch], err: GitError) -> Never:
    """Raise the error that names what did not apply."""
    follow = replay(source, patches)
    for patch in patches:
        follow.apply(patch)
    # Ours found nothing: let git say which patch it refuses.
    repo = Repository(source.git_dir)
    for count, patch in enumerate(patches, 1):
        try:
            with applied(repo, source.tree, [p.path for p in patches[:count]]):
                pass
        except GitError as refusal:
            raise PatchError(
                f"{patch.name} does not apply: {refusal.stderr.strip()}",
                where=patch.path,
            ) from refusal
    raise PatchError(f"the series does not apply: {err.stderr}", hint=REPORT) from err
