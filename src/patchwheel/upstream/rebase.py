"""Moves a series to another pin: an ordinary `git rebase` in the work tree, three-way from the recorded pin.

Pin, lock and series change together at the end, see `journal`.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchwheel.kit.errors import PatchError
from patchwheel.kit.files import rmtree, write_atomically
from patchwheel.kit.repo import GitError, Repository
from patchwheel.patch.diff import Cursor, read_diffs
from patchwheel.patch.lint import SUBMODULE
from patchwheel.patch.simulate import Content, Simulation
from patchwheel.series.worktree import (
    BASE,
    BRANCH,
    EXPORTED,
    FETCH,
    WHO,
    WorkTree,
    open_work,
    write_commit,
)
from patchwheel.series.worktree import STATE as WORK
from patchwheel.upstream.merge import KEPT, moves

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from patchwheel.kit.store import Store
    from patchwheel.manifest.model import Fork
    from patchwheel.series.apply import PatchedTree
    from patchwheel.source.fetch import Source

ONTO = "refs/patchwheel/onto"
# Of a file in a conflict; in a rebase, ours is upstream's.
OURS = "2"
RENAMED = "refs/patchwheel/renamed"
STATE = "patchwheel-rebase.json"
# In patches/FORK, if a project wants to share what was resolved once.
RERERE = "rr-cache"
SETTINGS = (
    *("-c", "merge.conflictStyle=zdiff3", "-c", "rerere.enabled=true"),
    *("-c", "rerere.autoUpdate=true", "-c", "core.commentChar=auto"),
    *("-c", "user.name=patchwheel", "-c", "user.email=patchwheel@localhost"),
)
# Nothing is left out because its like is upstream: it may have been reverted there. What becomes empty is asked about.
REBASE = ("rebase", "--merge", "--reapply-cherry-picks", "--empty=ask", "--no-stat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A rebase that goes on: `pin` is what the manifest will say, by key."""

    folder: Path
    tree: str
    pin: dict[str, Any]


def start(
    tree: PatchedTree,
    onto: Source,
    folder: Path,
    *,
    store: Store,
    say: Callable[[str], None] = lambda _line: None,
) -> None:
    """Begin to move the commits of the fork's work tree, opened if need be, onto another source.

    Raises PatchError for a work tree that is not as it was exported, and at the first conflict.
    """
    open_work(tree, folder, store=store)
    work = WorkTree(folder)
    if problem := work.unexported():
        raise PatchError(
            f"the work tree cannot be rebased: {problem}",
            where=folder,
            hint=f"`patchwheel export {folder.name}` or discard them, then rebase",
        )
    kept = Repository(onto.git_dir)
    label = label_of(onto.fork)
    author = f"{WHO} {onto.epoch} +0000"
    commit = write_commit(kept, onto.tree, author=author, message=f"{label}\n")
    kept.git("update-ref", f"refs/patchwheel/onto/{commit}", commit)
    source = f"refs/patchwheel/onto/{commit}:{ONTO}"
    work.repo.git(*FETCH, str(onto.git_dir), source)
    shared = tree.source.fork.patches / RERERE
    own = folder / ".git" / RERERE
    if shared.is_dir() and not own.exists():
        own.symlink_to(shared.absolute())
    refs = {ref: work.repo.text("rev-parse", ref) for ref in (BASE, EXPORTED)}
    before = {"refs": refs, "tree": work.tree, "series": work.series}
    moved = moves(work.repo, BASE, ONTO, tree.series.patches)
    for old, new in moved.items():
        say(f"{old} is now {new}")
    state = {
        "tree": onto.tree,
        "pin": pin_of(onto.fork),
        "before": before,
        "from": _renamed(work.repo, moved),
    }
    write_atomically(state_of(folder), json.dumps(state, indent=1).encode())
    _begin(work)


def _renamed(repo: Repository, moved: Mapping[str, str]) -> list[str]:
    """Return the ends of the commits to rebase: the exported ones or, where files moved, copies in which they have.

    git follows a file whose name is gone, but not one that left another of its name.
    """
    if not repo.files(ONTO).keys() & moved.keys():
        return [BASE, EXPORTED]
    words = ("rev-list", "--reverse", "--first-parent", EXPORTED)
    ends: list[str] = []
    for commit in repo.text(*words).split():
        files = repo.files(commit)
        rows = [f"0 {'0' * 40}\t{old}" for old in moved if old in files]
        rows += [
            f"{files[old].mode} {files[old].oid}\t{new}"
            for old, new in moved.items()
            if old in files
        ]
        with repo.index(commit) as env:
            text = "".join(f"{row}\0" for row in rows)
            stdin = text.encode(errors="surrogateescape")
            repo.git("update-index", "-z", "--index-info", stdin=stdin, env=env)
            tree = repo.text("write-tree", env=env)
        # Whatever else it says stays, to the byte.
        data = repo.git("cat-file", "commit", commit)
        head, gap, message = data.partition(b"\n\n")
        parents = b"".join(b"\nparent %s" % parent.encode() for parent in ends[-1:])
        kept = re.sub(rb"(?m)^(tree|parent) .*\n", b"", head)
        made = b"tree %s%s\n%s" % (tree.encode(), parents, kept + gap + message)
        words_of = ("hash-object", "-t", "commit", "-w", "--stdin")
        ends.append(repo.git(*words_of, stdin=made).decode().strip())
    repo.git("update-ref", RENAMED, ends[-1])
    return [ends[0], ends[-1]]


def _begin(work: WorkTree) -> None:
    base, tip = json.loads(state_of(work.folder).read_text())["from"]
    work.repo.git("checkout", "-q", "--force", "-B", BRANCH, tip)
    _git(work, "--onto", ONTO, base, BRANCH)


def proceed(folder: Path, how: str) -> None:
    """Go on after a conflict was resolved (`continue`) or its patch dropped (`skip`); raises PatchError at the next one."""
    begun(folder)
    work = WorkTree(folder)
    onto = work.repo.text("rev-parse", ONTO)
    killed = _killed(folder / ".git" / "rebase-merge")
    if work.unfinished() and not killed:
        if how == "continue":
            work.check_markers("resolve them, then git add FILE and --continue again")
        _git(work, f"--{how}")
    elif how == "skip":
        raise PatchError(
            "there is no patch to skip",
            where=folder,
            hint=f"`patchwheel rebase {folder.name} --continue`",
        )
    elif killed or not _follows(work, onto):
        _restore(work)
        _begin(work)


def abort(folder: Path) -> None:
    """Put the work tree back as it was before the rebase."""
    begun(folder)
    _restore(WorkTree(folder))
    close(folder)


def _follows(work: WorkTree, onto: str) -> bool:
    words = ("merge-base", onto, BRANCH)
    return work.repo.git(*words, ok=(0, 1)).decode().strip() == onto


def _killed(state: Path) -> bool:
    """Say whether git's rebase ended without having stopped: then it may not know the patch that it was at."""
    if not state.exists() or (state / "stopped-sha").exists():
        return False
    done = state / "done"
    last = done.read_text("utf-8").splitlines()[-1:] if done.exists() else []
    return not (last and last[0].startswith(("b", "x", "exec")))


def _restore(work: WorkTree) -> None:
    """Undo all of a rebase; not with `git rebase --abort`, which needs more than a git that was killed may leave."""
    unsettle(work.folder)
    for state in ("rebase-merge", "rebase-apply"):
        rmtree(work.folder / ".git" / state)
    work.repo.git("checkout", "-q", "--force", "-B", BRANCH, EXPORTED)
    # And files that it had written, and not noted yet.
    others = work.repo.git("ls-files", "--others", "-z").split(b"\0")
    for path in work.repo.files(ONTO):
        if os.fsencode(path) in others:
            (work.folder / path).unlink()


def begun(folder: Path) -> Begun:
    """Return the rebase that is going on; raises PatchError when there is none."""
    try:
        data = json.loads(state_of(folder).read_text())
    except OSError as err:
        raise PatchError(
            f"no rebase of {folder.name} is going on",
            where=folder,
            hint=f"`patchwheel rebase {folder.name} --onto REF`",
        ) from err
    return Begun(folder=folder, tree=data["tree"], pin=data["pin"])


def is_begun(folder: Path) -> bool:
    return state_of(folder).exists()


def settle(folder: Path, onto: Source) -> None:
    """Let the work tree stand on its new pin: what is exported now are patches against that."""
    work = WorkTree(folder)
    work.repo.git("update-ref", BASE, ONTO)
    work.record(onto, work.series)


def unsettle(folder: Path) -> None:
    """Undo `settle` and what an export recorded after it, so that both can be done again."""
    before = json.loads(state_of(folder).read_text())["before"]
    repo = WorkTree(folder).repo
    for ref, oid in before["refs"].items():
        repo.git("update-ref", ref, oid)
    state = {"tree": before["tree"], "series": before["series"]}
    write_atomically(folder / ".git" / WORK, json.dumps(state, indent=1).encode())


def close(folder: Path) -> None:
    state_of(folder).unlink(missing_ok=True)


def state_of(folder: Path) -> Path:
    return folder / ".git" / STATE


def label_of(fork: Fork) -> str:
    """Return what conflict markers call a pin."""
    return f"upstream {fork.tag or fork.version}"


def pin_of(fork: Fork) -> dict[str, Any]:
    """Return the keys of a fork's table that a rebase changes; None removes one."""
    sdist = fork.sdist and {
        "filename": fork.sdist.filename,
        "sha256": fork.sdist.sha256,
    }
    return {
        "version": fork.version,
        "tag": fork.tag,
        "commit": fork.commit,
        "sdist": sdist,
    }


def with_pin(text: str, name: str, pin: dict[str, Any]) -> str:
    """Return the text of a manifest with another pin of a fork; comments and order stay."""
    import tomlkit

    document = tomlkit.parse(text)
    table: Any = document["forks"][name]
    for key, value in pin.items():
        if value is None:
            table.pop(key, None)
        elif isinstance(value, dict):
            inline = tomlkit.inline_table()
            inline.update(value)
            table[key] = inline
        else:
            table[key] = value
    return str(tomlkit.dumps(document))


def _git(work: WorkTree, *words: str, known: str = "") -> None:
    """Run git's rebase; where it stops, say why and what to do. `known` was resolved by what rerere remembers."""
    name, folder = work.folder.name, work.folder
    try:
        work.repo.git(*SETTINGS, *_words(words), env={"GIT_EDITOR": "true"})
    except GitError as err:
        if not work.unfinished():
            raise PatchError(f"git cannot rebase: {err.stderr.strip()}", where=folder) from err
        patch = work.repo.text("log", "-1", "--format=%s", "REBASE_HEAD")
        stages: dict[str, set[str]] = {}
        for row in work.repo.git("ls-files", "-z", "--unmerged").split(b"\0")[:-1]:
            head, _, path = os.fsdecode(row).partition("\t")
            stages.setdefault(path, set()).add(head[-1])
        files = [
            path if OURS in there else f"{path} (upstream has no such file)"
            for path, there in stages.items()
        ]
        stopped = work.repo.text("rev-parse", "REBASE_HEAD")
        resolved = work.repo.text("diff", "--cached", "--name-only", "HEAD")
        if resolved and not files and stopped != known:
            _git(work, "--continue", known=stopped)
            return
        if not files:
            kept = _kept(work.repo)
            raise PatchError(
                f"nothing is left of {patch!r}: upstream has it"
                if kept is None
                else f"{patch!r} cannot be merged: {KEPT}: {kept}",
                where=folder,
                expected=None if kept is None else "the lines removed: git add FILE",
                hint=f"then `patchwheel rebase {name} --continue`; --skip drops the patch, --abort puts everything back"
                if kept
                else f"`patchwheel rebase {name} --skip` drops the patch, --abort puts everything back",
            ) from err
        raise PatchError(
            f"{patch!r} conflicts in {', '.join(files)}",
            where=folder,
            expected="the conflicts resolved between the markers and added: git add FILE",
            hint=f"then `patchwheel rebase {name} --continue`; --skip drops the patch, --abort puts everything back",
        ) from err


def _kept(repo: Repository) -> str | None:
    """Name a file that still has what the commit removes of which git found nothing left."""
    words = ("diff-tree", "-p", "-M", "--binary", "--full-index")
    data = repo.git(*words, "REBASE_HEAD^", "REBASE_HEAD")
    diffs = list(read_diffs(Cursor(Path("REBASE_HEAD"), data)))
    named = {path for diff in diffs for path in (diff.old, diff.new) if path}

    def files(commit: str) -> dict[str, Content | None]:
        blobs = repo.files(commit)
        there = {path: blobs[path] for path in named if path in blobs}
        data = repo.read([b.oid for b in there.values() if b.mode != SUBMODULE])
        return {
            path: Content(mode=blob.mode, data=data.get(blob.oid), oid=blob.oid)
            for path, blob in there.items()
        }

    ours = Simulation({}, repo.read, ())
    ours.state.update(files("HEAD"))
    return ours.still_has(diffs, files("REBASE_HEAD"))


def _words(words: tuple[str, ...]) -> tuple[str, ...]:
    return (*REBASE, *words) if words[0] == "--onto" else ("rebase", *words)
