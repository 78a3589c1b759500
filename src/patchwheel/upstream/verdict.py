"""The verdict on a patch at a ref: which commit broke, took or reverted it, and the evidence."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Literal

from patchwheel.kit import GitError
from patchwheel.patch import paths_of
from patchwheel.series import FINE, try_patch
from patchwheel.upstream.merge import dry_run, find_moves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchwheel.kit import Repository
    from patchwheel.series import PatchStatus
    from patchwheel.upstream.forecast import Commit, Walk

State = Literal["clean", "offset", "conflict", "landed", "reverted", "unknown"]
PULL_REQUEST = re.compile(r"/(?:pull|merge_requests)/(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of one patch at a ref; `moved` is the new path of a file that it changes."""

    name: str
    state: State
    offset: int = 0
    problem: str | None = None
    where: str | None = None
    # It broke, took or reverted the patch; without one, a conflict is as old as the pin's branch.
    commit: Commit | None = None
    evidence: tuple[str, ...] = ()
    moved: str | None = None


def verdict_without_history(status: PatchStatus) -> Verdict:
    """Return the verdict where there are files and no history."""
    name = status.name
    if status.state == "landed":
        return Verdict(name=name, state="landed", evidence=("its changes are there",))
    if status.state in {"clean", "offset"}:
        return Verdict(name=name, state=status.state, offset=status.offset)
    return Verdict(name=name, state="conflict", problem=status.problem, where=status.where)


class Judge:
    """One patch of a walk; state n is the one before commit n, and n + 1 the one after it."""

    def __init__(
        self, repo: Repository, walk: Walk, number: int, last: PatchStatus, log: Sequence[Commit]
    ) -> None:
        self.repo, self.walk, self.number = repo, walk, number
        self.patch = walk.patches[number]
        self.commits = walk.commits
        # All commits, also those that touch no patch; the newest is the first.
        self.log = log
        self.at_ref = verdict_without_history(last)

    def verdict(self) -> Verdict:
        """Find the commit that matters to the patch."""
        if self.states("landed"):
            return self.landed()
        # Reviewed into another form, its lines never were upstream; what it removes must be gone.
        if (merged := self.merged_request()) and self.at_ref.state not in FINE:
            evidence = [f"pull request {merged.request}, its Upstream-Status, was merged"]
            verdict = self.unless_reverted(merged, evidence)
            if verdict.state == "reverted" or not self.has_removed_lines(len(self.commits)):
                return verdict
        return self.broken()

    def landed(self) -> Verdict:
        """Judge a patch that had landed at some state: it may have been reverted since."""
        commits, landed, applies = self.commits, self.states("landed"), self.states(*FINE)
        # Since it last applied: before, it may have landed too, and been reverted.
        applied = max((n for n in applies if n < landed[-1]), default=-1)
        first = next(n for n in landed if n > applied)
        # Without a commit, the first state had its changes already.
        took = commits[first - 1] if first else None
        evidence = ["its changes are there" + (f" since {took.oid[:12]}" if took else "")]
        if took and self.has_patch_id(took):
            evidence.append("with the patch-id of the patch")
        if merged := self.merged_request():
            evidence.append(f"pull request {merged.request} was merged")
        if applies and applies[-1] > landed[-1]:
            undone, sign = commits[landed[-1]], "it applies again"
        else:
            verdict = self.unless_reverted(took, evidence)
            conflicts = self.at_ref.state != "landed" and verdict.state == "landed"
            if not conflicts or not self.has_removed_lines(len(commits)):
                return verdict
            # Its lines were put back beside other changes, and no message says so.
            later = range(landed[-1] + 1, len(commits) + 1)
            back = next(filter(self.has_removed_lines, later), len(commits))
            undone, sign = commits[back - 1], "what it removes is there again"
        return self.because("reverted", undone, [*evidence, f"{sign} since {undone.oid[:12]}"])

    def unless_reverted(self, took: Commit | None, evidence: list[str]) -> Verdict:
        """Return that a commit took the patch, or that the message of a later one reverts that."""
        if took is None or self.at_ref.state == "landed":
            return self.because("landed", took, evidence)
        title = took.subject.partition(" (#")[0]
        argv = ("log", "--first-parent", "--format=%H", "--fixed-strings")
        grep = f"--grep=This reverts commit {took.oid}"
        reverting = self.repo.text(*argv, grep, f"{took.oid}..{self.log[0].oid}").split()
        for commit in takewhile(lambda commit: commit != took, self.log):
            # Forges write the subject only, git writes the id into the message.
            named = commit.subject.startswith((f'Revert "{title}"', f'Revert "{title} (#'))
            if named or commit.oid in reverting:
                evidence.append(f"and reverted by {commit.oid[:12]}")
                return self.because("reverted", commit, evidence)
        return self.because("landed", took, evidence)

    def broken(self) -> Verdict:
        """Name the commit after the last state to which it applied, or say that it took it."""
        applies = self.states(*FINE)
        # It applies at the end, or nowhere: then the conflict is older than the history.
        if self.at_ref.state != "conflict" or not applies or applies[-1] == len(self.commits):
            return self.at_ref
        commit, verdict = self.commits[applies[-1]], self.at_ref
        if self.merges_to_nothing(applies[-1]):
            evidence = [f"a merge onto {commit.oid[:12]} leaves nothing of it"]
            return self.because("landed", commit, evidence)
        if names := self.broken_with(applies[-1]):
            problem = f"it builds on {names}, which that commit stops"
            verdict = replace(verdict, problem=problem, where=None)
        moves = find_moves(self.repo, f"{commit.oid}^", commit.oid, [self.patch])
        return replace(verdict, commit=commit, moved=next(iter(moves.values()), None))

    def because(self, state: State, commit: Commit | None, evidence: Sequence[str]) -> Verdict:
        verdict = replace(self.at_ref, state=state, commit=commit, evidence=tuple(evidence))
        # What landed has no problem at the ref, if it no longer applies there.
        return replace(verdict, problem=None, where=None) if state == "landed" else verdict

    def states(self, *wanted: str) -> list[int]:
        """Return the numbers at which the patch has one of some states."""
        rows = enumerate(self.walk.statuses)
        return [n for n, statuses in rows if statuses[self.number].state in wanted]

    def has_removed_lines(self, n: int) -> bool:
        """Say whether state n still has, in its place, what the patch removes."""
        made = self.walk.results.get(self.patch.name, {})
        replay = self.walk.replay(n, range(self.number))
        return replay.still_has(self.patch.diffs, made, in_place=True) is not None

    def merges_to_nothing(self, n: int) -> bool:
        """Say whether merging the patch from state n, where it applies, onto n + 1 is a no-op."""
        # Commit n may have taken the patch beside other changes: then it matches nowhere.
        oid, statuses = self.commits[n].oid, self.walk.statuses[n]
        patches = [
            self.walk.patches[m]
            for m in self.walk.numbers_on(paths_of([self.patch]))
            if m <= self.number and statuses[m].state in FINE
        ]
        trees = (self.repo.tree_of(f"{oid}^"), self.repo.tree_of(oid))
        return dry_run(self.repo, patches, trees, ("", ""))[-1].state == "landed"

    def broken_with(self, n: int) -> str | None:
        """Name the earlier patches that commit n breaks too, if this one cannot do without them."""
        before, after = self.walk.statuses[n : n + 2]
        earlier = range(self.number)
        broken = [m for m in earlier if before[m].state in FINE and after[m].state == "fails"]
        rest = self.walk.replay(n, (m for m in earlier if m not in broken))
        if not broken or try_patch(rest, self.patch).state in FINE:
            return None
        patches = [self.walk.patches[m] for m in broken]
        # Those that change the same files, if any do, are what it builds on.
        near = [p for p in patches if paths_of([p]) & paths_of([self.patch])]
        return ", ".join(patch.name for patch in near or patches)

    def merged_request(self) -> Commit | None:
        """Return the commit that merged the pull request which its Upstream-Status names."""
        status = self.patch.trailer("Upstream-Status")
        requests = {number for line in status for number in PULL_REQUEST.findall(line)}
        return next((commit for commit in self.log if commit.request in requests), None)

    def has_patch_id(self, commit: Commit) -> bool:
        """Compare by `git patch-id`, which leaves out line numbers and white space."""
        try:
            diff = self.repo.git("diff-tree", "-p", f"{commit.oid}^", commit.oid)
        except GitError:  # a partial clone, offline: other files of the commit cannot be had
            return False
        argv = ("patch-id", "--stable")
        ids = [self.repo.git(*argv, stdin=d).split(b" ")[0] for d in (diff, self.patch.data)]
        return ids[0] == ids[1]
