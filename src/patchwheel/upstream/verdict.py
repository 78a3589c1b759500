"""The verdict on a patch at a ref: which commit broke, took or reverted it, and the evidence."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Literal

from patchwheel.kit import GitError
from patchwheel.series import FINE
from patchwheel.upstream.merge import find_moves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchwheel.kit import Repository
    from patchwheel.patch import Patch
    from patchwheel.series import PatchStatus
    from patchwheel.upstream.forecast import Commit, PatchTimeline

PULL_REQUEST = re.compile(r"/(?:pull|merge_requests)/(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of one patch at a ref; `moved` is the new path of a file that it changes."""

    name: str
    state: Literal["clean", "offset", "conflict", "landed", "reverted", "unknown"]
    offset: int = 0
    problem: str | None = None
    where: str | None = None
    # It broke, took or reverted the patch; without one, a conflict is as old as the pin's branch.
    commit: Commit | None = None
    evidence: tuple[str, ...] = ()
    moved: str | None = None

    def landed(self, commit: Commit | None, evidence: Sequence[str]) -> Verdict:
        """Return the verdict that a commit took the patch; a problem at the ref is none then."""
        took = replace(self, state="landed", commit=commit, evidence=tuple(evidence))
        return replace(took, problem=None, where=None)

    def reverted(self, commit: Commit, evidence: Sequence[str]) -> Verdict:
        return replace(self, state="reverted", commit=commit, evidence=tuple(evidence))


def verdict_without_history(status: PatchStatus) -> Verdict:
    """Return the verdict where there are files and no history."""
    name = status.name
    if status.state == "landed":
        return Verdict(name=name, state="landed", evidence=("its changes are there",))
    if status.state in {"clean", "offset"}:
        return Verdict(name=name, state=status.state, offset=status.offset)
    return Verdict(name=name, state="conflict", problem=status.problem, where=status.where)


def judge(
    repo: Repository, timeline: PatchTimeline, last: PatchStatus, log: list[Commit]
) -> Verdict:
    """Find the commit of `log` that matters to a patch; `last` is its status at the ref."""
    at_ref = verdict_without_history(last)
    if timeline.states("landed"):
        return _judge_landed(repo, timeline, at_ref, log)
    merged = _merged_request(timeline.patch, log)
    # Reviewed into another form: its lines never were upstream, but what it removes must be gone.
    if merged and last.state not in FINE:
        evidence = [f"pull request {merged.request}, its Upstream-Status, was merged"]
        verdict = _unless_reverted(repo, at_ref, merged, evidence, log)
        if verdict.state == "reverted" or not timeline.has_removed_lines(len(timeline.commits)):
            return verdict
    return _judge_broken(repo, timeline, at_ref)


def _judge_landed(
    repo: Repository, timeline: PatchTimeline, at_ref: Verdict, log: list[Commit]
) -> Verdict:
    """Judge a patch that had landed at some state: it may have been reverted since."""
    commits, landed, applies = timeline.commits, timeline.states("landed"), timeline.states(*FINE)
    # Since it last applied: before, it may have landed too, and been reverted.
    applied = max((n for n in applies if n < landed[-1]), default=-1)
    first = next(n for n in landed if n > applied)
    # Without a commit, the first state had its changes already.
    took = commits[first - 1] if first else None
    evidence = [f"its changes are there since {took.oid[:12]}" if took else "its changes are there"]
    if took and _has_patch_id(repo, timeline.patch, took):
        evidence.append("with the patch-id of the patch")
    if merged := _merged_request(timeline.patch, log):
        evidence.append(f"pull request {merged.request} was merged")
    if applies and applies[-1] > landed[-1]:
        reverted = commits[landed[-1]]
        evidence.append(f"it applies again since {reverted.oid[:12]}")
        return at_ref.reverted(reverted, evidence)
    verdict = _unless_reverted(repo, at_ref, took, evidence, log)
    conflicts = at_ref.state != "landed" and verdict.state == "landed"
    if not conflicts or not timeline.has_removed_lines(len(commits)):
        return verdict
    # Its lines were put back beside other changes, and no message says so.
    later = range(landed[-1] + 1, len(commits) + 1)
    back = next(filter(timeline.has_removed_lines, later), len(commits))
    reverted = commits[back - 1]
    evidence.append(f"what it removes is there again since {reverted.oid[:12]}")
    return at_ref.reverted(reverted, evidence)


def _unless_reverted(
    repo: Repository, at_ref: Verdict, took: Commit | None, evidence: list[str], log: list[Commit]
) -> Verdict:
    """Return that a commit took the patch, or that the message of a later one reverts that."""
    if took is None or at_ref.state == "landed":
        return at_ref.landed(took, evidence)
    title = took.subject.partition(" (#")[0]
    argv = ("log", "--first-parent", "--format=%H", "--fixed-strings")
    grep = f"--grep=This reverts commit {took.oid}"
    reverting = repo.text(*argv, grep, f"{took.oid}..{log[0].oid}").split()
    for commit in takewhile(lambda commit: commit != took, log):
        # Forges write the subject only, git writes the id into the message.
        named = commit.subject.startswith((f'Revert "{title}"', f'Revert "{title} (#'))
        if named or commit.oid in reverting:
            evidence.append(f"and reverted by {commit.oid[:12]}")
            return at_ref.reverted(commit, evidence)
    return at_ref.landed(took, evidence)


def _judge_broken(repo: Repository, timeline: PatchTimeline, at_ref: Verdict) -> Verdict:
    """Name the commit after the last state to which the patch applied, or say that it took it."""
    applies = timeline.states(*FINE)
    # It applies at the end, or nowhere: then the conflict is older than the history.
    if at_ref.state != "conflict" or not applies or applies[-1] == len(timeline.commits):
        return at_ref
    commit = timeline.commits[applies[-1]]
    if timeline.merges_to_nothing(repo, applies[-1]):
        return at_ref.landed(commit, [f"a merge onto {commit.oid[:12]} leaves nothing of it"])
    if names := timeline.broken_with(applies[-1]):
        problem = f"it builds on {names}, which that commit stops"
        at_ref = replace(at_ref, problem=problem, where=None)
    moves = find_moves(repo, f"{commit.oid}^", commit.oid, [timeline.patch])
    return replace(at_ref, commit=commit, moved=next(iter(moves.values()), None))


def _merged_request(patch: Patch, log: list[Commit]) -> Commit | None:
    """Return the commit that merged the pull request which a patch's Upstream-Status names."""
    status = patch.trailer("Upstream-Status")
    requests = {number for line in status for number in PULL_REQUEST.findall(line)}
    return next((commit for commit in log if commit.request in requests), None)


def _has_patch_id(repo: Repository, patch: Patch, commit: Commit) -> bool:
    """Compare by `git patch-id`, which leaves out line numbers and white space."""
    try:
        diff = repo.git("diff-tree", "-p", f"{commit.oid}^", commit.oid)
    except GitError:  # a partial clone, offline: other files of the commit cannot be had
        return False
    argv = ("patch-id", "--stable")
    ids = [repo.git(*argv, stdin=data).split(b" ")[0] for data in (diff, patch.data)]
    return ids[0] == ids[1]
