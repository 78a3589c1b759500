"""A rebase dry run: `git merge-tree` merges each patch onto another tree, without a work tree.

After a conflict the patch's own side is taken for the patches after it, as if the conflict had been
resolved so: each conflict is reported once, for the patch that causes it.
"""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from patchwheel.kit import Blob, GitError, MachineError, Repository
from patchwheel.patch import LINK, SUBMODULE, Patch, Simulation, paths_of
from patchwheel.series import patch_trees, try_patch

if TYPE_CHECKING:
    from patchwheel.upstream.verdict import Verdict

KEPT = "nothing is left to merge, but lines that the patch removes are still there"
REMOVED = Blob(mode="0", oid="0" * 40)
# merge-tree labels its markers with ids of commits. Whole ids are in no file, so such lines are
# told from content that only looks like markers.
SETTINGS = ("-c", "merge.conflictStyle=zdiff3", "-c", "core.abbrev=40")
# The exit status of an option that git does not know.
USAGE = 129
# The sides of a conflict; in a rebase too, git calls upstream's "ours".
BASE, OURS, THEIRS = "1", "2", "3"
# By the sides that a path in conflict has.
REASONS = {
    "123": "it is binary, a link or declared so, and both changed it",
    "13": "upstream removed it",
    "12": "the patch removes it, and upstream changed it",
    "23": "upstream added it too, with other content",
    "1": "upstream and the patch moved it, to different places",
    "2": "upstream alone has it there: the patch moved it, or has a folder there",
    "3": "the patch alone has it there: upstream moved it or its folder, or has a folder there",
}
# merged: it does not apply as it is, and git merges it; reworked: it landed in another form; moot:
# what it changes is gone. The last two are told by likeness, and proposed only.
State = Literal[
    "clean", "offset", "merged", "conflict", "landed", "reworked", "moot", "reverted", "unknown"
]
Stages = dict[str, dict[str, Blob]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A file in which a patch conflicts, and why."""

    path: str
    why: str
    # The file with conflict markers (zdiff3), empty where git wrote none.
    text: str = ""
    # The first and the last line of each conflict in it, counted from 1.
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeResult:
    """What a rebase makes of a patch; `moved` has old and new paths of files that it changes."""

    name: str
    state: State
    conflicts: tuple[Conflict, ...] = ()
    moved: tuple[tuple[str, str], ...] = ()
    # The files after it.
    tree: str
    # What `status --against` says of it; None where upstream's history cannot be had.
    verdict: Verdict | None = None


def dry_run(
    repo: Repository,
    patches: Sequence[Patch],
    trees: tuple[str, str],
    labels: tuple[str, str] = ("", ""),
    fetch_blobs: Callable[[Iterable[str]], None] | None = None,
) -> tuple[MergeResult, ...]:
    """Merge a series that applies to the first tree onto the second; `labels` are their names."""
    old, new = trees
    files, moved = repo.files(new), find_moves(repo, old, new, patches)
    paths = paths_of(patches) | {*moved.values()}
    attributes = {p for p in paths | files.keys() if p.rpartition("/")[2] == ".gitattributes"}
    if fetch_blobs:
        wanted = (files[path] for path in (paths | attributes) & files.keys())
        fetch_blobs(blob.oid for blob in wanted if blob.mode != SUBMODULE)
    run = _DryRun(repo, labels, moved, attributes, new)
    # As in `rebase`: a file that left none of its name behind is followed by git itself.
    in_place = {} if files.keys().isdisjoint(moved) else moved
    results, base = [], repo.commit(move_files(repo, old, in_place), "")
    for patch, tree in zip(patches, patch_trees(repo, old, patches), strict=True):
        theirs = repo.commit(move_files(repo, tree, in_place), "", base)
        results.append(run.merge(patch, tree, base, theirs))
        base = theirs
    return tuple(results)


@dataclass(slots=True)
class _DryRun:
    """The new tree, merged with one patch after another."""

    repo: Repository
    labels: tuple[str, str]
    moved: Mapping[str, str]
    # The paths of files of git's attributes, which change how it merges.
    attributes: set[str]
    tree: str

    def merge(self, patch: Patch, tree: str, base: str, theirs: str) -> MergeResult:
        """Merge a patch, the step between two commits; `tree` has the files after it, unmoved."""
        paths = paths_of([patch])
        moved = {path: self.moved[path] for path in sorted(paths & self.moved.keys())}
        before = simulate_files(self.repo, self.tree, {*paths, *moved.values()})
        ours = self.repo.commit(self.tree, "", base)
        merged, stages = self.merge_commits(ours, theirs)
        labels = {ours: self.labels[1], base: self.labels[0], theirs: patch.name}
        conflicts = _conflicts(self.repo, merged, stages, labels) if stages else []
        state: State = "conflict" if conflicts else "merged"
        if merged == self.tree and not conflicts:
            # Nothing is left to merge also where upstream moved the lines to another place.
            made = simulate_files(self.repo, tree, paths).state
            kept = before.still_has(patch.diffs, made, moved=self.moved)
            conflicts = [] if kept is None else [Conflict(path=kept, why=KEPT)]
            state = "landed" if kept is None else "conflict"
        elif not conflicts and (found := try_patch(before, patch).state) in {"clean", "offset"}:
            state = found
        self.tree = _take_theirs(self.repo, merged, stages, conflicts)
        went = tuple(moved.items())
        return MergeResult(
            name=patch.name, state=state, conflicts=tuple(conflicts), moved=went, tree=self.tree
        )

    def merge_commits(self, ours: str, theirs: str) -> tuple[str, Stages]:
        """Return the tree that git merges, and the sides of each path in conflict."""
        with tempfile.TemporaryDirectory() as folder:
            # git reads attributes from a work tree, and follows no links there.
            for path, content in simulate_files(self.repo, ours, self.attributes).state.items():
                if content and content.data is not None and content.mode != LINK:
                    Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
                    Path(folder, path).write_bytes(content.data)
            repo = Repository(self.repo.git_dir.absolute(), Path(folder))
            argv = ("merge-tree", "--write-tree", "--no-messages", "-z", ours, theirs)
            try:
                out = repo.git(*SETTINGS, *argv, ok=(0, 1)).decode(errors="surrogateescape")
            except GitError as err:
                if err.status != USAGE:
                    raise
                hint = "install git 2.38 or newer; `patchwheel doctor` checks it"
                raise MachineError("git cannot merge trees", hint=hint) from err
        tree, *rows = filter(None, out.split("\0"))
        stages: Stages = {}
        for row in rows:
            side, path = row.split("\t", 1)
            mode, oid, stage = side.split()
            stages.setdefault(path, {})[stage] = Blob(mode=mode, oid=oid)
        return tree, stages


def _conflicts(
    repo: Repository, tree: str, stages: Stages, labels: Mapping[str, str]
) -> list[Conflict]:
    """Describe each path in conflict; `labels` replace the ids of ours, base and theirs."""
    ours, _, theirs = labels
    merged = simulate_files(repo, tree, stages)

    def named(text: str) -> str:
        return re.sub("|".join(labels), lambda found: labels[found[0]], text)

    conflicts = []
    for path, sides in stages.items():
        content = merged.get(path)
        text = ((content and content.data) or b"").decode(errors="replace")
        lines = list(enumerate(text.split("\n"), 1))
        first = [number for number, line in lines if re.match(f"<+ {ours}", line)]
        last = [number for number, line in lines if re.match(f">+ {theirs}", line)]
        spans = tuple(zip(first, last, strict=True))
        why = REASONS["".join(sorted(sides))]
        if spans and BASE in sides:
            why = f"{len(spans)} conflict{'s' if len(spans) > 1 else ''}"
            texts = [repo.read([sides[side].oid])[sides[side].oid] for side in (BASE, OURS)]
            # By most lines.
            crlf = [2 * text.count(b"\r\n") > text.count(b"\n") for text in texts]
            ends = ["CRLF" if most else "LF" for most in crlf]
            if ends[0] != ends[1]:
                # All of the file is in conflict, and nobody reads thousands of lines.
                why, spans = f"upstream changed its line ends from {ends[0]} to {ends[1]}", ()
        text = named(text) if spans else ""
        conflicts.append(Conflict(path=named(path), why=why, text=text, spans=spans))
    return conflicts


def _take_theirs(repo: Repository, tree: str, stages: Stages, conflicts: Sequence[Conflict]) -> str:
    """Return the merged tree, each conflict resolved in favour of the patch."""
    entries = {path: sides.get(THEIRS, REMOVED) for path, sides in stages.items()}
    for (path, sides), conflict in zip(stages.items(), conflicts, strict=False):
        if conflict.spans and BASE in sides:
            # Only the lines in conflict are the patch's; the rest of the file is merged.
            oids = [sides[side].oid for side in (OURS, BASE, THEIRS)]
            contents = repo.read(oids)
            data = repo.merge_file(*(contents[oid] for oid in oids))
            oid = repo.git("hash-object", "-w", "--stdin", stdin=data).decode().strip()
            entries[path] = Blob(mode=sides[THEIRS].mode, oid=oid)
    return _update_tree(repo, tree, entries)


def simulate_files(repo: Repository, tree: str, paths: Collection[str]) -> Simulation:
    """Return a simulation on those files of a tree that are among the paths."""
    files = repo.files(tree, *sorted(paths)) if paths else {}
    return Simulation(files, repo.read, paths)


def find_moves(
    repo: Repository, before: str, after: str, patches: Iterable[Patch]
) -> dict[str, str]:
    """Return where files that the patches change are in the new tree, by git's rename detection."""
    named = {diff.old for patch in patches for diff in patch.diffs if diff.old}
    if named.isdisjoint(change.path for change in repo.changes(before, after)):
        return {}
    moves = _all_moves(repo.git_dir, before, after)
    return {path: moves[path] for path in sorted(named & moves.keys())}


# It takes a second in a large commit, and several patches may have stopped at it.
@functools.lru_cache(maxsize=16)
def _all_moves(git_dir: Path, before: str, after: str) -> dict[str, str]:
    # -B breaks up rewritten files: a file may have moved and left a small one that imports it. git
    # calls that a copy, and a change of the old one which has a score. Its merge does not see it.
    argv = ("diff-tree", "-r", "-z", "-B", "-M", "-l0", "--diff-filter=BMRC", "--name-status")
    out = Repository(git_dir).git(*argv, before, after).decode(errors="surrogateescape")
    fields = iter(out.split("\0")[:-1])
    best: dict[str, tuple[str, str]] = {}
    rewritten = set()
    for kind in fields:
        path = next(fields)
        if kind[0] in "RC":
            candidate = (kind[1:], next(fields))
            best[path] = max(candidate, best.get(path, candidate))
        if kind[0] == "R" or (kind[0] == "M" and kind != "M"):
            rewritten.add(path)
    return {path: best[path][1] for path in best.keys() & rewritten}


def move_files(repo: Repository, tree: str, moved: Mapping[str, str]) -> str:
    """Return a tree in which those of the moved files that it has are where they went."""
    files = repo.files(tree, *moved) if moved else {}
    there = [path for path in moved if path in files]
    entries = dict.fromkeys(there, REMOVED) | {moved[path]: files[path] for path in there}
    return _update_tree(repo, tree, entries)


def _update_tree(repo: Repository, tree: str, entries: Mapping[str, Blob]) -> str:
    if not entries:
        return tree
    rows = "".join(f"{blob.mode} {blob.oid}\t{path}\0" for path, blob in entries.items())
    with repo.index(tree) as index:
        stdin = rows.encode(errors="surrogateescape")
        repo.git("update-index", "-z", "--index-info", stdin=stdin, env=index)
        return repo.text("write-tree", env=index)
