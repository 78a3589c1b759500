"""Files that upstream moved: where they went, and trees in which they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchwheel.kit.repo import Blob

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from patchwheel.kit.repo import Repository
    from patchwheel.series.files import Patch

REMOVED = Blob(mode="0", oid="0" * 40)


def find_moves(
    repo: Repository, before: str, after: str, patches: Iterable[Patch]
) -> dict[str, str]:
    """Return where files that the patches change are in the new tree, by git's rename detection."""
    named = {diff.old for patch in patches for diff in patch.diffs if diff.old}
    old, new = repo.files(before), repo.files(after)
    if all(old.get(path) == new.get(path) for path in named):
        return {}
    # -B breaks up rewritten files: a file may have moved and left a small one that imports it. git
    # calls that a copy, and a change of the old one which has a score. `git merge` does not see it.
    argv = ("diff-tree", "-r", "-z", "-B", "-M", "-l0", "--diff-filter=BMRC", "--name-status")
    fields = iter(repo.git(*argv, before, after).decode(errors="surrogateescape").split("\0")[:-1])
    best: dict[str, tuple[str, str]] = {}
    rewritten = set()
    for kind in fields:
        path = next(fields)
        if kind[0] == "M":
            rewritten |= {path} if kind != "M" else set()
            continue
        candidate = (kind[1:], next(fields))
        if kind[0] == "R":
            rewritten.add(path)
        best[path] = max(candidate, best.get(path, candidate))
    return {path: best[path][1] for path in sorted(named & best.keys() & rewritten)}


def move_files(repo: Repository, tree: str, moved: Mapping[str, str]) -> str:
    """Return a tree in which those of the moved files that it has are where they went."""
    files = repo.files(tree, *moved)
    entries = {old: REMOVED for old in moved if old in files}
    entries |= {new: files[old] for old, new in moved.items() if old in files}
    return update_tree(repo, tree, entries)


def update_tree(repo: Repository, tree: str, entries: Mapping[str, Blob]) -> str:
    """Write a tree with other entries; REMOVED takes one out."""
    rows = "".join(f"{blob.mode} {blob.oid}\t{path}\0" for path, blob in entries.items())
    with repo.index(tree) as env:
        stdin = rows.encode(errors="surrogateescape")
        repo.git("update-index", "-z", "--index-info", stdin=stdin, env=env)
        return repo.text("write-tree", env=env)
