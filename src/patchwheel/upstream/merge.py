"""A rebase dry run: `git merge-tree` merges each patch onto another tree; no work tree is touched.

After a conflict the patch's own side is taken for the patches after it, as if the conflict had been
resolved so: each conflict is reported once, for the patch that causes it.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from patchwheel.kit.files import rmtree
from patchwheel.kit.repo import Blob, Repository, in_memory
from patchwheel.patch.lint import LINK, SUBMODULE
from patchwheel.patch.simulate import Content, Replay
from patchwheel.series.status import try_patch
from patchwheel.upstream.moves import REMOVED, find_moves, move_files, update_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from typing import BinaryIO

    from patchwheel.series.files import Patch

KEPT = "nothing is left to merge, but lines that the patch removes are still there"
ATTRIBUTES = ".gitattributes"
# merge-tree puts the ids of commits into its markers. Unlike the markers alone, whole ids are in no
# file, so these lines are told from content that looks like them.
SETTINGS = ("-c", "merge.conflictStyle=zdiff3", "-c", "core.abbrev=40")
BASE, OURS, THEIRS = "1", "2", "3"
REASONS = {
    frozenset({BASE, THEIRS}): "upstream removed it",
    frozenset({BASE, OURS}): "the patch removes it, and upstream changed it",
    frozenset({OURS, THEIRS}): "upstream added it too, with other content",
    frozenset(
        {BASE, OURS, THEIRS}
    ): "it is binary (or a link, or declared so), and both changed it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """`text` is the file with conflict markers (zdiff3), empty where git wrote none.

    `spans` are the first and the last line of each conflict in it, counted from 1.
    """

    path: str
    why: str
    text: str = ""
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeResult:
    """What a rebase makes of a patch.

    `clean`, `offset`: the patch applies as it is; `merged`: git merges it; `landed`: nothing of it
    is left to apply. `moved` has the old and the new path of files that it changes.
    """

    name: str
    state: Literal["clean", "offset", "merged", "conflict", "landed"]
    conflicts: tuple[Conflict, ...] = ()
    moved: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """The trees that a series moves between, and their labels in conflict markers."""

    old: str
    new: str
    old_label: str
    new_label: str


def dry_run(
    repo: Repository,
    patches: Sequence[Patch],
    ends: Ends,
    *,
    fetch_blobs: Callable[[Iterable[str]], None] = lambda _oids: None,
) -> tuple[MergeResult, ...]:
    """Merge a series that applies to the old tree onto the new one; both are in `repo`.

    `fetch_blobs` is given the blobs of the new tree that the merge reads.
    """
    files, moved = repo.files(ends.new), find_moves(repo, ends.old, ends.new, patches)
    wanted = {*moved.values(), *(path for patch in patches for path in patch_paths(patch))}
    wanted |= {path for path in files if _holds_attributes(path)}
    fetch_blobs(files[p].oid for p in wanted & files.keys() if files[p].mode != SUBMODULE)
    with _scratch(repo) as scratch:
        # As `rebase` does: what left no file of its name behind, git follows by itself.
        in_place = {} if files.keys().isdisjoint(moved) else moved
        run = _DryRun(scratch, ends, moved)
        results = []
        with scratch.index(ends.old) as index:
            base = run.commit(ends.old, in_place)
            for patch in patches:
                argv = ("apply", "--cached", "--whitespace=nowarn", "-")
                scratch.git(*argv, stdin=patch.data, env=index)
                tree = scratch.text("write-tree", env=index)
                theirs = run.commit(tree, in_place, base)
                results.append(run.merge(patch, tree, base, theirs))
                base = theirs
    return tuple(results)


def patch_paths(patch: Patch) -> set[str]:
    """Return the paths that a patch names, old and new."""
    return {path for diff in patch.diffs for path in (diff.old, diff.new) if path}


def read_contents(repo: Repository, tree: str, paths: Collection[str]) -> dict[str, Content | None]:
    """Return those files of a tree that are among the paths."""
    files = repo.files(tree, *sorted(paths)) if paths else {}
    blobs = {path: files[path] for path in paths if path in files}
    data = repo.read([blob.oid for blob in blobs.values() if blob.mode != SUBMODULE])
    return {
        path: Content(mode=blob.mode, data=data.get(blob.oid), oid=blob.oid)
        for path, blob in blobs.items()
    }


class _Scratch(Repository):
    """A repository whose new objects are written to a folder of their own."""

    def __init__(self, repo: Repository, folder: Path) -> None:
        self.files_of = folder / "files"
        super().__init__(repo.git_dir.absolute(), self.files_of)
        self.env = {
            "GIT_OBJECT_DIRECTORY": str(folder / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(self.git_dir / "objects"),
        }

    def git(
        self,
        *words: str,
        stdin: bytes | BinaryIO = b"",
        env: Mapping[str, str] | None = None,
        ok: Sequence[int] = (0,),
    ) -> bytes:
        return super().git(*words, stdin=stdin, env={**self.env, **(env or {})}, ok=ok)


@contextlib.contextmanager
def _scratch(repo: Repository) -> Iterator[_Scratch]:
    with tempfile.TemporaryDirectory(dir=in_memory()) as name:
        for folder in ("files", "objects"):
            (Path(name) / folder).mkdir()
        yield _Scratch(repo, Path(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Merge:
    """What merge-tree wrote: `stages` has the sides of each path that conflicts, `messages` why."""

    tree: str
    stages: Mapping[str, Mapping[str, Blob]]
    messages: Mapping[str, str]


class _DryRun:
    """The new tree, merged with one patch after another."""

    def __init__(self, repo: _Scratch, ends: Ends, moved: Mapping[str, str]) -> None:
        self.repo = repo
        self.ends = ends
        self.moved = moved
        self.tree = ends.new
        self.write_attributes()

    def write_attributes(self) -> None:
        """Write the attribute files of the tree to where merge-tree reads them: a work tree."""
        folder = self.repo.files_of
        for path in folder.iterdir():
            rmtree(path) if path.is_dir() else path.unlink()
        names = [path for path in self.repo.files(self.tree) if _holds_attributes(path)]
        for name, content in read_contents(self.repo, self.tree, names).items():
            # git does not follow links here.
            if content and content.data is not None and content.mode != LINK:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content.data)

    def commit(self, tree: str, moved: Mapping[str, str], *parents: str) -> str:
        """Write a commit of a tree for merge-tree, its moved files in place."""
        tree = move_files(self.repo, tree, moved) if moved else tree
        return self.repo.commit(tree, "", *parents, epoch=0, name="patchwheel", mail="patchwheel")

    def merge(self, patch: Patch, tree: str, base: str, theirs: str) -> MergeResult:
        """Merge the step between two commits, which is a patch; `tree` is the files after it."""
        paths = patch_paths(patch)
        moved = {path: self.moved[path] for path in sorted(paths & self.moved.keys())}
        before = Replay({}, self.repo.read, ())
        before.state.update(read_contents(self.repo, self.tree, {*paths, *moved.values()}))
        ours = self.commit(self.tree, {}, base)
        merge = _merge_commits(self.repo, ours, theirs)
        labels = {ours: self.ends.new_label, base: self.ends.old_label, theirs: patch.name}
        conflicts = _conflicts(self.repo, merge, labels) if merge.stages else []
        merged = _take_theirs(self.repo, merge, conflicts)
        state: Literal["clean", "offset", "merged", "conflict", "landed"] = "merged"
        if merge.tree == self.tree and not conflicts:
            # Nothing is left to merge also where upstream moved the lines to another place.
            made = read_contents(self.repo, tree, paths)
            kept = before.still_has(patch.diffs, made, moved=self.moved)
            conflicts = [] if kept is None else [Conflict(path=kept, why=KEPT)]
            state = "landed"
        elif (found := try_patch(before, patch).state) in {"clean", "offset"}:
            state = found
        self.tree = merged
        if any(map(_holds_attributes, paths)):
            self.write_attributes()
        return MergeResult(
            name=patch.name,
            state="conflict" if conflicts else state,
            conflicts=tuple(conflicts),
            moved=tuple(moved.items()),
        )


def _merge_commits(repo: Repository, ours: str, theirs: str) -> _Merge:
    argv = ("merge-tree", "--write-tree", "-z", ours, theirs)
    out = repo.git(*SETTINGS, *argv, ok=(0, 1)).decode(errors="surrogateescape")
    tree, *fields = out.split("\0")
    rest = iter(fields)
    stages: dict[str, dict[str, Blob]] = {}
    # The rows of files end with an empty field; then come messages: paths, a kind and the text.
    for row in iter(lambda: next(rest, ""), ""):
        entry, path = row.split("\t", 1)
        mode, oid, stage = entry.split()
        stages.setdefault(path, {})[stage] = Blob(mode=mode, oid=oid)
    messages: dict[str, str] = {}
    for count in iter(lambda: next(rest, ""), ""):
        paths = [next(rest) for _ in range(int(count))]
        kind, text = next(rest), next(rest).strip()
        if kind.startswith("CONFLICT"):
            messages |= dict.fromkeys(paths, text)
    return _Merge(tree=tree, stages=stages, messages=messages)


def _conflicts(repo: Repository, merge: _Merge, labels: Mapping[str, str]) -> list[Conflict]:
    """Describe each file that conflicts; `labels` replace the ids of ours, base and theirs."""
    ids = re.compile("|".join(labels))

    def named(text: str) -> str:
        return ids.sub(lambda found: labels[found[0]], text)

    ours, _, theirs = labels
    contents = read_contents(repo, merge.tree, merge.stages.keys())
    found = []
    for path, sides in merge.stages.items():
        content = contents.get(path)
        text = (content.data or b"" if content else b"").decode(errors="replace")
        lines = list(enumerate(text.split("\n"), 1))
        first = [n for n, line in lines if re.match(f"<+ {ours}", line)]
        last = [n for n, line in lines if re.match(f">+ {theirs}", line)]
        spans = tuple(zip(first, last, strict=True))
        why = REASONS.get(frozenset(sides)) or merge.messages.get(path, "git cannot merge it")
        if spans and BASE in sides:
            why = f"{len(spans)} conflict{'s' if len(spans) > 1 else ''}"
        text = named(text) if spans else ""
        found.append(Conflict(path=named(path), why=named(why), text=text, spans=spans))
    return found


def _take_theirs(repo: Repository, merge: _Merge, conflicts: Sequence[Conflict]) -> str:
    """Return the merged tree, each conflict resolved in favour of the patch."""
    entries = {}
    for (path, sides), conflict in zip(merge.stages.items(), conflicts, strict=True):
        entries[path] = sides.get(THEIRS, REMOVED)
        if conflict.spans and BASE in sides:
            # The rest of the file is merged; only the lines in conflict are the patch's.
            oids = [sides[side].oid for side in (OURS, BASE, THEIRS)]
            contents = repo.read(oids)
            data = (contents[oid] for oid in oids)
            _, merged = repo.merge_file(*data, labels=("", "", ""), favour="theirs")
            oid = repo.git("hash-object", "-w", "--stdin", stdin=merged).decode().strip()
            entries[path] = Blob(mode=sides[THEIRS].mode, oid=oid)
    return update_tree(repo, merge.tree, entries) if entries else merge.tree


def _holds_attributes(path: str) -> bool:
    return path.rpartition("/")[2] == ATTRIBUTES
