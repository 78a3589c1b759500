"""Move a series to another pin: `git rebase` in the work tree, then all at once, see `_finish`."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Never

from patchwheel import kit, series
from patchwheel.locking import write_lock
from patchwheel.manifest import Fork, transaction
from patchwheel.patch import Cursor, Patch, read_diffs
from patchwheel.project import Project
from patchwheel.source import Source, fetch_pin
from patchwheel.upstream.adding import pin_of, with_pin
from patchwheel.upstream.forecast import explain_stops
from patchwheel.upstream.history import find_target, import_pin
from patchwheel.upstream.merge import KEPT, OURS, find_moves, move_files, simulate_files

ONTO = "refs/patchwheel/onto"
RENAMED = "refs/patchwheel/renamed"
# In patches/FORK, for a project that shares its resolutions of conflicts.
RERERE = "rr-cache"
SETTINGS = shlex.split(
    "-c merge.conflictStyle=zdiff3 -c rerere.enabled=true -c rerere.autoUpdate=true "
    "-c core.commentChar=auto -c user.name=patchwheel -c user.email=patchwheel@localhost"
)
# git leaves out a commit whose like is upstream, which may have been reverted there: keep all, and
# stop at what becomes empty.
REBASE = ("rebase", "--merge", "--reapply-cherry-picks", "--empty=ask", "--no-stat")

ENDS = (series.BASE, series.EXPORTED)
PIN = frozenset({"version", "tag", "commit", "sdist"})
COMMIT = re.compile(r"[0-9a-f]{40}")
EXEC = re.compile(r"^\s*(x|exec)\b", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RebaseState:
    """A rebase in progress, as it is kept in the work tree's `.git`."""

    # What the fork's table of the manifest gets at the end; None removes a key.
    pin: Mapping[str, Any]
    # The commits to rebase: those after the first one, up to the second.
    commits: Sequence[str]
    # The refs of the work tree, and the text of its state file, as before the rebase.
    refs: Mapping[str, str]
    worktree: str
    # What history tells of a patch, by its commit.
    told: Mapping[str, str] = field(default_factory=dict)


def start_rebase(project: Project, fork: Fork, ref: str) -> series.ExportResult:
    """Move the fork's series to a tag, branch, commit or release of upstream's."""
    folder = project.work_folder(fork)
    with project.exclusive(fork):
        series.check_no_rebase(folder)
        onto, tree = find_target(project, fork, ref), series.patched_tree(project, fork)
        told = explain_stops(project, fork, ref)
        start(tree, onto, folder, store=project.store, say=project.progress.say, told=told)
        return _finish(project, fork)


def proceed_rebase(project: Project, fork: Fork, how: str) -> series.ExportResult | None:
    """Go on with a rebase that stopped; `how` is `continue`, `skip` or `abort`."""
    folder = project.work_folder(fork)
    with project.exclusive(fork):
        if how == "abort":
            abort(folder)
            transaction.unstage(project.manifest.root, fork.name)
            return None
        resume(folder, how)
        return _finish(project, fork)


def _finish(project: Project, fork: Fork) -> series.ExportResult:
    """Make pin, lock and series beside the project, then put them in place together."""
    folder, others = project.work_folder(fork), series.load_all_series(project)
    # An earlier try may have been interrupted after `set_base`.
    restore_base(folder)
    with transaction.changed(project.manifest, fork.name) as manifest:
        try:
            text = with_pin(manifest.read_text("utf-8"), fork.name, state(folder).pin)
            manifest.write_text(text, encoding="utf-8")
            other = replace(project, manifest_path=manifest)
            onto = fetch_pin(other.context, other.manifest.forks[fork.name])
            set_base(folder, onto)
            result = series.export_commits(folder, onto, store=project.store, others=others)
            write_lock(other, [fork.name])
        except BaseException:
            restore_base(folder)
            raise
        # git does not bring the files of a work tree to the disk.
        kit.sync(folder)
    # Also when the patches keep their bytes: the pin is another.
    series.write_message(folder, onto.fork, result)
    return result


def start(
    tree: series.PatchedTree,
    onto: Source,
    folder: Path,
    *,
    store: kit.Store,
    say: Callable[[str], None] = lambda _line: None,
    told: Sequence[str] = (),
) -> None:
    """Begin to move the commits of the work tree, opened if need be, onto another source.

    `told` is what to say of each patch where the rebase stops at it.
    Raises PatchError for a work tree with unexported changes, and at the first conflict.
    """
    series.open_work(tree, folder, store=store)
    work, fork = series.WorkTree(folder), onto.fork
    if problem := work.unexported():
        hint = f"`patchwheel export {folder.name}` or discard them, then rebase"
        raise kit.PatchError(f"the work tree cannot be rebased: {problem}", where=folder, hint=hint)
    import_pin(work.repo, onto, ONTO)
    shared, own = tree.source.fork.patches / RERERE, folder / ".git" / RERERE
    if shared.is_dir() and not own.exists():
        own.symlink_to(shared.absolute())
    moved = find_moves(work.repo, series.BASE, ONTO, tree.series.patches)
    for old, new in moved.items():
        say(f"{old} is now {new}")
    first, last = _commits_to_rebase(work.repo, tree.series.patches, moved)
    oids = work.repo.text("rev-list", "--reverse", f"{first}..{last}").split()
    state = RebaseState(
        pin=pin_of(fork),
        commits=(first, last),
        told=dict(zip(oids, told, strict=False)),
        refs={ref: work.repo.text("rev-parse", ref) for ref in ENDS},
        worktree=(folder / ".git" / series.STATE).read_text(),
    )
    kit.write_atomically(state_path(folder), json.dumps(asdict(state), indent=1).encode())
    _begin(work)


def resume(folder: Path, how: str) -> None:
    """Continue after a conflict was resolved (`continue`) or drop its patch (`skip`)."""
    state(folder)
    work = series.WorkTree(folder)
    killed = _killed(folder / ".git" / "rebase-merge")
    if work.unfinished() and not killed:
        _check_steps(work)
        if how == "continue":
            work.check_markers("resolve them, then git add FILE and --continue again")
        _rebase(work, "rebase", f"--{how}")
    elif how == "skip":
        hint = f"`patchwheel rebase {folder.name} --continue`"
        raise kit.PatchError("there is no patch to skip", where=folder, hint=hint)
    elif killed or work.repo.text("rev-list", "-1", ONTO, f"^{series.BRANCH}"):
        # Interrupted before git began: the branch is not on the new pin yet.
        _reset(work)
        _begin(work)


def _check_steps(work: series.WorkTree) -> None:
    """Raise PatchError for a step that runs a command: we write none."""
    steps = work.folder / ".git" / "rebase-merge" / "git-rebase-todo"
    if steps.exists() and EXEC.search(steps.read_text("utf-8", "replace")):
        message = "a step of the rebase runs a command"
        raise kit.PatchError(message, where=steps, expected="picks only", hint="remove its line")


def abort(folder: Path) -> None:
    """Put the work tree back as it was before the rebase."""
    _reset(series.WorkTree(folder))
    state_path(folder).unlink()


def set_base(folder: Path, onto: Source) -> None:
    """Make the new pin the base of the work tree: an export then writes patches against it."""
    work = series.WorkTree(folder)
    work.repo.git("update-ref", series.BASE, ONTO)
    series.record(folder, onto, work.series)


def restore_base(folder: Path) -> None:
    """Undo `set_base` and what an export recorded after it, so that both can be done again."""
    before = state(folder)
    repo = series.WorkTree(folder).repo
    for ref, oid in before.refs.items():
        repo.git("update-ref", ref, oid)
    kit.write_atomically(folder / ".git" / series.STATE, before.worktree.encode())


def state(folder: Path) -> RebaseState:
    """Return the rebase in progress; raises PatchError when there is none."""
    path = state_path(folder)
    try:
        found = RebaseState(**kit.parsed(path.read_text()))
        base, tip = found.commits
        oids = [*found.refs.values(), *{base, tip}.difference(ENDS)]
        known = found.refs.keys() == {*ENDS} and found.pin.keys() <= PIN
        if not known or not all(map(COMMIT.fullmatch, oids)):
            raise ValueError("it names other refs or commits than a rebase does")  # noqa: TRY301
    except FileNotFoundError as err:
        message = f"no rebase of {folder.name} is going on"
        hint = f"`patchwheel rebase {folder.name} --onto REF`"
        raise kit.PatchError(message, where=folder, hint=hint) from err
    except (OSError, ValueError, TypeError, AttributeError) as err:
        hint = f"move the work tree away: {series.move_away(folder)}"
        raise kit.PatchError(f"its rebase cannot go on: {err}", where=path, hint=hint) from err
    return found


def state_path(folder: Path) -> Path:
    """Return the file that is there from `start` until the rebase is finished or aborted."""
    return folder / transaction.STATE


def _commits_to_rebase(
    repo: kit.Repository, patches: Sequence[Patch], moved: Mapping[str, str]
) -> tuple[str, str]:
    """Return the ends of the commits to rebase: the exported ones, or copies of them."""
    if repo.files(ONTO).keys().isdisjoint(moved):
        return series.BASE, series.EXPORTED
    # git follows a file only if its old name is gone. Upstream left other files at the names of
    # moved ones, so the copies have the files where they went.
    base, *commits = repo.text("rev-list", "--reverse", "--first-parent", series.EXPORTED).split()
    tip = base = repo.commit(move_files(repo, repo.tree_of(base), moved), "")
    for commit, patch in zip(commits, patches, strict=True):
        tip = series.commit_patch(repo, patch, move_files(repo, repo.tree_of(commit), moved), tip)
    repo.git("update-ref", RENAMED, tip)
    return base, tip


def _begin(work: series.WorkTree) -> None:
    base, tip = state(work.folder).commits
    work.repo.git("checkout", "-q", "--force", "-B", series.BRANCH, tip)
    _rebase(work, *REBASE, "--onto", ONTO, base, series.BRANCH)


def _killed(merge: Path) -> bool:
    """Say whether git's rebase ended without stopping: it may have lost the patch it was at."""
    if not merge.exists() or (merge / "stopped-sha").exists():
        return False
    done = merge / "done"
    last = done.read_text("utf-8").splitlines()[-1:] if done.exists() else []
    # It also stops at a `break`, and at an `exec` that fails.
    return not (last and last[0].startswith(("b", "x", "exec")))


def _reset(work: series.WorkTree) -> None:
    """Undo all of a rebase."""
    restore_base(work.folder)
    # `git rebase --abort` needs more than a git that was killed may have left.
    for name in ("rebase-merge", "rebase-apply"):
        kit.rmtree(work.folder / ".git" / name)
    work.repo.git("checkout", "-q", "--force", "-B", series.BRANCH, series.EXPORTED)
    # A git that was killed may have written files of the new pin that are not in its index yet.
    untracked = work.repo.git("ls-files", "--others", "-z").split(b"\0")
    for path in work.repo.files(ONTO):
        if os.fsencode(path) in untracked:
            (work.folder / path).unlink()


def _rebase(work: series.WorkTree, *argv: str, known: str = "") -> None:
    """Run git's rebase; where it stops, raise what to do."""
    repo = work.repo
    try:
        repo.git(*SETTINGS, *argv, env={"GIT_EDITOR": "true"})
    except kit.GitError as err:
        if not work.unfinished():
            message = f"git cannot rebase: {err.stderr.strip()}"
            raise kit.PatchError(message, where=work.folder) from err
        conflicts = _unmerged(repo)
        stopped = repo.text("rev-parse", "REBASE_HEAD")
        resolved = repo.text("diff", "--cached", "--name-only", "HEAD")
        if conflicts or not resolved or stopped == known:
            _raise_stopped(work, conflicts, err)
        # rerere has put in the recorded resolution: go on, but at one commit only once.
        _rebase(work, "rebase", "--continue", known=stopped)


def _unmerged(repo: kit.Repository) -> list[str]:
    """Return the files that conflict, and which of them upstream does not have."""
    stages: dict[str, str] = {}
    for row in repo.git("ls-files", "-z", "--unmerged").split(b"\0")[:-1]:
        entry, _, path = os.fsdecode(row).partition("\t")
        stages[path] = stages.get(path, "") + entry[-1]
    missing = " (upstream has no such file)"
    return [path + ("" if OURS in sides else missing) for path, sides in stages.items()]


def _raise_stopped(work: series.WorkTree, conflicts: Sequence[str], err: kit.GitError) -> Never:
    """Raise what stopped the rebase: conflicts, or a patch of which nothing is left."""
    command = f"`patchwheel rebase {work.folder.name}"
    oid, subject = work.repo.text("log", "-1", "--format=%H %s", "REBASE_HEAD").split(" ", 1)
    told = state(work.folder).told.get(oid, "")
    hint = f"then {command} --continue`; --skip drops the patch, --abort puts everything back"
    expected: str | None = None
    if conflicts:
        message = f"{subject!r} conflicts in {', '.join(conflicts)}"
        expected = "the conflicts resolved between the markers and added: git add FILE"
    elif kept := _file_with_removed_lines(work.repo):
        message = f"{subject!r} cannot be merged: {KEPT}: {kept}"
        expected = "the lines removed: git add FILE"
    else:
        message = f"nothing is left of {subject!r}: upstream has it"
        hint = f"{command} --skip` drops the patch, --abort puts everything back"
    raise kit.PatchError(message + told, where=work.folder, expected=expected, hint=hint) from err


def _file_with_removed_lines(repo: kit.Repository) -> str | None:
    """Return a file that still has what the commit removes of which git found nothing left."""
    argv = ("diff-tree", "-p", "-M", "--binary", "--full-index", "REBASE_HEAD^", "REBASE_HEAD")
    diffs = list(read_diffs(Cursor(Path("REBASE_HEAD"), repo.git(*argv))))
    paths = {path for diff in diffs for path in diff.paths}
    made = simulate_files(repo, "REBASE_HEAD", paths).state
    return simulate_files(repo, "HEAD", paths).still_has(diffs, made)
