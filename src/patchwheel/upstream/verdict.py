"""What is said of one patch at a ref: which of upstream's commits stopped it, took it, or reverted it, and on what evidence."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Literal

from patchwheel.kit.repo import GitError
from patchwheel.series.status import FINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from patchwheel.kit.repo import Repository
    from patchwheel.series.files import Patch
    from patchwheel.series.status import PatchStatus

ASKED = re.compile(r"/(?:pull|merge_requests)/(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit of upstream's; `when` is the author's date in ISO 8601.

    `request` is the number of the pull request that it came from, where its subject tells.
    """

    oid: str
    author: str
    when: str
    subject: str
    request: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What becomes of one patch at a ref; `commit` stopped it, took it, or reverted it.

    Without one, a conflict is as old as the branch of the pin. `moved` is where the file went that it changes.
    """

    name: str
    state: Literal["clean", "offset", "conflict", "landed", "reverted", "unknown"]
    offset: int = 0
    problem: str | None = None
    where: str | None = None
    commit: Commit | None = None
    evidence: tuple[str, ...] = ()
    moved: str | None = None


def plain(name: str, status: PatchStatus) -> Outlook:
    """Return what is known of a patch where there are files and no history."""
    if status.state == "landed":
        evidence = ("its changes are there",)
        return Outlook(name=name, state="landed", evidence=evidence)
    if status.state in FINE:
        fine: Literal["clean", "offset"] = "offset" if status.offset else "clean"
        return Outlook(name=name, state=fine, offset=status.offset)
    return Outlook(name=name, state="conflict", problem=status.problem, where=status.where)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A patch with its states: before the first commit and after each, and with all files at the end.

    `emptied` says of the state before a commit whether that commit leaves nothing of the patch to merge;
    `stopped_with` names the earlier patches that it needs and the commit stops; `still_there` says
    of a state whether it has, in its place, what the patch removes.
    """

    patch: Patch
    history: Sequence[PatchStatus]
    last: PatchStatus
    emptied: Callable[[int], bool]
    stopped_with: Callable[[int], str | None]
    still_there: Callable[[int], bool]


def judge(
    repo: Repository, seen: Seen, commits: Sequence[Commit], log: Sequence[Commit]
) -> Outlook:
    """Tell from the states before and after each commit which commit matters."""
    patch, history, last = seen.patch, seen.history, seen.last
    outlook = plain(patch.name, last)
    landed = [at for at, step in enumerate(history) if step.state == "landed"]
    merged = _merged(patch, log)
    if landed:
        # Since it last applied: before, it may have landed too, and been reverted.
        fine = [at for at, step in enumerate(history) if step.state in FINE]
        last_fine = max((at for at in fine if at < landed[-1]), default=-1)
        first = next(at for at in landed if at > last_fine)
        took = commits[first - 1] if first else None
        evidence = [
            f"its changes are there since {took.oid[:12]}" if took else "its changes are there"
        ]
        if took and _same_patch(repo, patch, took):
            evidence.append("with the patch-id of the patch")
        if merged:
            evidence.append(f"pull request {merged.request} was merged")
        if fine and fine[-1] > landed[-1]:
            undone = commits[landed[-1]]
            evidence.append(f"it applies again since {undone.oid[:12]}")
            return _with(outlook, "reverted", undone, evidence)
        found = _unless_reverted(repo, outlook, took, evidence, log)
        if outlook.state == "landed" or found.state != "landed":
            return found
        if not seen.still_there(len(commits)):
            return found
        # Put back beside other changes, and no message says so.
        later = range(landed[-1] + 1, len(history))
        back = next(filter(seen.still_there, later), len(commits))
        undone = commits[back - 1]
        evidence.append(f"what it removes is there again since {undone.oid[:12]}")
        return _with(outlook, "reverted", undone, evidence)
    if merged and last.state not in FINE:
        evidence = [f"pull request {merged.request}, its Upstream-Status, was merged"]
        found = _unless_reverted(repo, outlook, merged, evidence, log)
        if found.state == "reverted" or not seen.still_there(len(commits)):
            return found
    return _stopped(repo, seen, outlook, commits)


def _unless_reverted(
    repo: Repository,
    outlook: Outlook,
    took: Commit | None,
    evidence: list[str],
    log: Sequence[Commit],
) -> Outlook:
    """Say that a commit took the patch, or that a later one says that it reverts that."""
    if took is None or outlook.state == "landed":
        return _with(outlook, "landed", took, evidence)
    title = took.subject.partition(" (#")[0]
    words = ("log", "--first-parent", "--format=%H", "--fixed-strings")
    said = f"--grep=This reverts commit {took.oid}"
    bodies = repo.text(*words, said, f"{took.oid}..{log[0].oid}").split()
    for commit in takewhile(lambda c: c != took, log):
        named = commit.subject.startswith((f'Revert "{title}"', f'Revert "{title} (#'))
        if named or commit.oid in bodies:
            evidence.append(f"and reverted by {commit.oid[:12]}")
            return _with(outlook, "reverted", commit, evidence)
    return _with(outlook, "landed", took, evidence)


def _stopped(repo: Repository, seen: Seen, outlook: Outlook, commits: Sequence[Commit]) -> Outlook:
    """Name the commit after the last state in which the patch applied, and whether that took it."""
    good = [at for at, step in enumerate(seen.history) if step.state in FINE]
    if outlook.state != "conflict" or not good or good[-1] == len(commits):
        return outlook
    commit = commits[good[-1]]
    if seen.emptied(good[-1]):
        evidence = [f"a merge onto {commit.oid[:12]} leaves nothing of it"]
        return _with(outlook, "landed", commit, evidence)
    if names := seen.stopped_with(good[-1]):
        why = f"it builds on {names}, which that commit stops"
        outlook = replace(outlook, problem=why, where=None)
    moved = _moved(repo, seen.patch, commit)
    return _with(outlook, "conflict", commit, (), moved)


def _with(
    outlook: Outlook,
    state: Literal["conflict", "landed", "reverted"],
    commit: Commit | None,
    evidence: Iterable[str],
    moved: str | None = None,
) -> Outlook:
    return Outlook(
        name=outlook.name,
        state=state,
        offset=outlook.offset,
        problem=None if state == "landed" else outlook.problem,
        where=None if state == "landed" else outlook.where,
        commit=commit,
        evidence=tuple(evidence),
        moved=moved,
    )


def _merged(patch: Patch, log: Sequence[Commit]) -> Commit | None:
    """Return the commit that merged the pull request which a patch's Upstream-Status names."""
    asked = {n for line in patch.trailer("Upstream-Status") for n in ASKED.findall(line)}
    return next((commit for commit in log if commit.request in asked), None)


def _same_patch(repo: Repository, patch: Patch, commit: Commit) -> bool:
    """Compare by `git patch-id`, which leaves out line numbers and white space."""
    try:
        change = repo.git("diff-tree", "-p", f"{commit.oid}^", commit.oid)
    except GitError:  # other files of the commit are not here, and cannot be had now
        return False
    ids = [
        repo.git("patch-id", "--stable", stdin=data).split(b" ")[0] for data in (change, patch.data)
    ]
    return ids[0] == ids[1]


def _moved(repo: Repository, patch: Patch, commit: Commit) -> str | None:
    """Return where the commit moved a file that the patch changes."""
    words = ("diff-tree", "-r", "-z", "-M", "--diff-filter=R", "--name-status")
    out = repo.git(*words, f"{commit.oid}^", commit.oid).decode(errors="surrogateescape")
    rows = out.split("\0")[:-1]
    old = {diff.old for diff in patch.diffs}
    return next(
        (new for was, new in zip(rows[1::3], rows[2::3], strict=True) if was in old),
        None,
    )
