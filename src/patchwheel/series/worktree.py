"""The work tree of a fork: an ordinary git repository with a commit for each patch."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from patchwheel import kit
from patchwheel.manifest import Fork, transaction
from patchwheel.patch import SUBMODULE, Patch
from patchwheel.project import Project
from patchwheel.series.apply import REPORT, PatchedTree, apply_series, patch_trees
from patchwheel.series.checkout import NOTE, check_out, undo_checkout
from patchwheel.series.files import load_series
from patchwheel.series.markers import find_markers
from patchwheel.series.settings import ask_for_trailers, check_harmless, shown
from patchwheel.source import Source, fetch_source

BRANCH = "patchwheel"
BASE = "refs/patchwheel/base"
EXPORTED = "refs/patchwheel/exported"
# Where a series comes in until it is checked out.
NEXT = "refs/patchwheel/next"
DEV = "refs/patchwheel/dev"
STATE = "patchwheel-worktree.json"
# Attributes of the project must not change a byte between the source tree and the files.
ATTRIBUTES = "* -text -eol -ident -filter -working-tree-encoding\n"
UNFINISHED = {
    "rebase-merge": "rebase",
    "rebase-apply": "rebase or am",
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "sequencer": "cherry-pick or revert",
    "BISECT_LOG": "bisect",
}


def git_in(folder: Path, command: str) -> str:
    """Return a command of git's for a work tree, as a shell takes it."""
    return f"git -C {shlex.quote(str(folder))} {command}"


def move_away(folder: Path) -> str:
    """Return the command that makes room for another work tree."""
    name = shlex.quote(str(folder))
    return f"mv {name} {name}.old"


def check_no_rebase(folder: Path) -> None:
    """Refuse to act on a work tree whose commits are on their way to another pin."""
    name = folder.name
    if (folder / transaction.STATE).exists():
        hint = f"`patchwheel rebase {name} --continue`, --skip or --abort"
        raise kit.PatchError(f"a rebase of {name} is going on", where=folder, hint=hint)


class WorkTree:
    """An open work tree, the tree of its pin, and the names and sha256 of its patches."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repo = kit.Repository(folder / ".git", folder)
        if not folder.exists():
            hint = f"`patchwheel dev {folder.name}` opens one"
            raise kit.PatchError(f"there is no work tree of {folder.name}", where=folder, hint=hint)
        try:
            state = kit.parsed(kit.read_regular(folder / ".git" / STATE))
            self.tree, self.series = str(state["tree"]), list(state["series"])
        except (OSError, ValueError, KeyError, TypeError) as err:
            problem = "this is not a work tree that `patchwheel dev` opened"
            hint = f"move it away: {move_away(folder)}, then `patchwheel dev {folder.name}`"
            raise kit.PatchError(problem, where=folder, hint=hint) from err
        check_harmless(self.repo)
        self.repo.unlock()

    @property
    def name(self) -> str:
        """What the work tree's refs are called in the store."""
        return f"refs/patchwheel/work/{kit.digest(str(self.folder.absolute()))[:16]}"

    def check_pin(self, source: Source) -> None:
        if self.tree != source.tree:
            problem = "this work tree was opened for another pin than the manifest's"
            hint = "put the old pin back and `patchwheel export` first, or move the folder away"
            raise kit.PatchError(problem, where=self.folder, hint=hint)

    def unfinished(self) -> str | None:
        """Say what git was told to do here and has not ended."""
        if (self.folder / ".git" / NOTE).exists():
            return f"`patchwheel dev {self.folder.name}` was not finished; run it again"
        for name, what in UNFINISHED.items():
            if (self.folder / ".git" / name).exists():
                return f"a {what} is not finished"
        return None

    def edited(self) -> list[str]:
        """Name the files that differ from the last commit, new ones included."""
        # git would start another in a repository inside, by the settings there.
        argv = ("-z", "-uall", "--no-renames", "--ignore-submodules=dirty")
        out = self.repo.git(*shown(), "status", "--porcelain", *argv)
        return [row[3:] for row in out.decode(errors="replace").split("\0") if row]

    def edits(self) -> str | None:
        """Say that files differ from the last commit, and which."""
        listed = ", ".join(kit.first(self.edited(), 5))
        return f"there are changes without a commit: {listed}" if listed else None

    def check_markers(self, hint: str, commits: Sequence[str] | None = None) -> None:
        """Raise PatchError for conflict markers in the index or, if given, in what commits add."""
        if files := find_markers(self.repo, BASE, EXPORTED, commits):
            folder = shlex.quote(str(self.folder))
            hint += "; where such lines are meant, give the file longer markers: echo "
            hint += f"'{files[0]} conflict-marker-size=64' >> {folder}/.git/info/attributes"
            problem = f"markers of a conflict are left in {', '.join(files)}"
            raise kit.PatchError(problem, where=self.folder, hint=hint)

    def unexported(self) -> str | None:
        """Say what would be lost if the work tree were put to another state."""
        if problem := self.unfinished() or self.edits():
            return problem
        return None if self.is_exported() else "it has commits that were not exported"

    def is_exported(self) -> bool:
        """Say whether its last commit is a series that was exported, or one just opened."""
        known = self.repo.text(
            "for-each-ref", "--format=%(objectname)", EXPORTED, f"{NEXT}/exported"
        )
        return self.repo.text("rev-parse", "HEAD") in known.split()


def open_work(tree: PatchedTree, folder: Path, *, store: kit.Store, detach: bool = False) -> bool:
    """Open a work tree in `folder`, or, to `detach`, write the patched sources there without git.

    Returns whether one was open there, which stays as it was left. Raises PatchError where another
    pin or series would cost something that was not exported.
    """
    with store.lock(f"work-{kit.digest(str(folder.absolute()))[:16]}"):
        if folder.exists() and any(folder.iterdir()):
            if detach:
                hint = "name another one, or remove it"
                raise kit.PatchError("the folder is not empty", where=folder, hint=hint)
            return _reopen(tree, folder)
        # An interrupted `dev` leaves no half of a work tree under its name.
        new = folder.with_name(f".{folder.name}.new")
        kit.rmtree(new)
        if detach:
            kit.Repository(tree.source.git_dir).checkout(tree.tree, new)
        else:
            new.mkdir(parents=True)
            repo = kit.Repository(new / ".git", new)
            repo.git("init", "-q", "--template=", f"--initial-branch={BRANCH}")
            (new / ".git" / "info").mkdir()
            (new / ".git" / "info" / "attributes").write_text(ATTRIBUTES)
            repo.git("config", "core.autocrlf", "false")
            ask_for_trailers(repo)
            repo.git("reset", "-q", "--hard", _import(tree, repo))
            record(new, tree.source, tree.series.digests)
        new.rename(folder)
    return False


def patched_tree(project: Project, fork: Fork) -> PatchedTree:
    """Return the tree that a build of the fork uses; raises PatchError for a series that fails."""
    source = fetch_source(project, fork)
    if project.dev and not project.without_patches:
        return work_tree_source(project.work_folder(fork), source, store=project.store)
    series = load_series(fork.patches)
    if project.without_patches:
        series = replace(series, patches=())
    return apply_series(source, series, store=project.store)


def work_tree_source(folder: Path, source: Source, *, store: kit.Store) -> PatchedTree:
    """Return the files of the work tree, uncommitted and new ones too; without one the series'."""
    series = load_series(source.fork.patches)
    if not folder.exists():
        return apply_series(source, series, store=store)
    work = WorkTree(folder)
    work.check_pin(source)
    if (folder / ".git" / NOTE).exists():
        raise kit.PatchError(str(work.unfinished()), where=folder)
    if work.repo.git("ls-files", "--unmerged"):
        hint = git_in(folder, "status")
        raise kit.PatchError("there are conflicts to resolve", where=folder, hint=hint)
    # `git add` starts another git in a known repository inside, by the settings there.
    for row in work.repo.git("ls-files", "--stage", "-z").split(b"\0"):
        path = folder / os.fsdecode(row.partition(b"\t")[2])
        if row.startswith(SUBMODULE.encode()) and (path / ".git").exists():
            raise _inner_repository(path)
    with tempfile.TemporaryDirectory() as scratch:
        # A copy of the index knows which files were not touched, and spares hashing them.
        index = Path(scratch) / "index"
        shutil.copyfile(folder / ".git" / "index", index)
        env = {"GIT_INDEX_FILE": str(index)}
        work.repo.git(*shown(), "add", "--all", env=env)
        tree = work.repo.text("write-tree", env=env)
    repo = kit.Repository(source.git_dir)
    if not repo.has(tree):
        # Its parent is known to the store: all that is sent is what differs from it.
        commit = work.repo.commit(tree, "dev", work.repo.text("rev-parse", EXPORTED))
        # Two builds that move a ref at once fail.
        with store.lock(f"work-{work.name[-16:]}"):
            work.repo.git("update-ref", DEV, commit)
            repo.fetch(work.repo.git_dir, f"{DEV}:{work.name}/dev")
    for change in repo.changes(source.tree, tree):
        if change.new.mode == SUBMODULE:
            raise _inner_repository(folder / change.path)
    return PatchedTree(source=source, tree=tree, series=series, dev=True)


def _inner_repository(path: Path) -> kit.PatchError:
    problem = "a git repository lies in the work tree; its files cannot be built"
    return kit.PatchError(problem, where=path, hint="move it out of the work tree")


def record(folder: Path, source: Source, series: Sequence[Sequence[str]]) -> None:
    """Write down the pin and the patches that the work tree's refs stand for."""
    _write_state(folder, {"tree": source.tree, "series": series})


def _write_state(folder: Path, state: object) -> None:
    kit.write_atomically(folder / ".git" / STATE, json.dumps(state, indent=1).encode())


def _reopen(tree: PatchedTree, folder: Path) -> bool:
    work = WorkTree(folder)
    if then := undo_checkout(work.repo, folder):
        _settle(work.repo, folder, then)
        work = WorkTree(folder)
    if (work.tree, work.series) == (tree.source.tree, tree.series.digests):
        return True
    tip = _import(tree, work.repo, NEXT)
    if problem := work.unexported():
        message = f"the work tree is of another pin or series, and {problem}"
        hint = f"`patchwheel export {folder.name}`, or move it away: {move_away(folder)}"
        raise kit.PatchError(message, where=folder, hint=hint)
    then = {"tree": tree.source.tree, "series": tree.series.digests}
    check_out(work.repo, folder, BRANCH, tip, then)
    _settle(work.repo, folder, then)
    return False


def _settle(repo: kit.Repository, folder: Path, then: object) -> None:
    """Let all that is written down say what was checked out; some of it may do so already."""
    if repo.text("for-each-ref", NEXT):
        refs = ((BASE, f"{NEXT}/base"), (EXPORTED, f"{NEXT}/exported"))
        moves = "".join(f"update {ref} {new}\ndelete {new}\n" for ref, new in refs)
        repo.git("update-ref", "--stdin", stdin=moves.encode())
    _write_state(folder, then)
    (folder / ".git" / NOTE).unlink()


def _import(tree: PatchedTree, repo: kit.Repository, place: str = "refs/patchwheel") -> str:
    """Copy the pin and a commit for each patch into a work tree's repository, below `place`."""
    source, patches = tree.source, tree.series.patches
    store = kit.Repository(source.git_dir)
    message = f"{source.fork.name} {source.fork.version}\n"
    tip = base = store.commit(source.tree, message, when=f"{source.epoch} +0000")
    for patch, files in zip(patches, patch_trees(store, source.tree, patches), strict=True):
        tip = commit_patch(store, patch, files, tip)
    if (made := store.tree_of(tip)) != tree.tree:
        raise kit.PatchError(
            f"the commits end with the tree {made}", expected=tree.tree, hint=REPORT
        )
    refs = f"refs/patchwheel/open/{tip}"
    store.git("update-ref", f"{refs}/base", base)
    store.git("update-ref", f"{refs}/exported", tip)
    repo.fetch(source.git_dir, f"{refs}/*:{place}/*")
    return tip


def commit_patch(repo: kit.Repository, patch: Patch, tree: str, parent: str) -> str:
    """Write the commit of a patch, whose id depends on nothing else, and return it."""
    mail = patch.mail
    return repo.commit(tree, mail.message, parent, author=mail.author, when=mail.when)
