"""The verdict on a patch at a ref: which commit broke, took or reverted it, and the evidence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Literal

from patchwheel.kit import Repository
from patchwheel.patch import paths_of
from patchwheel.series import FINE, PatchStatus, try_patch
from patchwheel.upstream import evidence as found_in
from patchwheel.upstream.merge import State, dry_run, find_moves

if TYPE_CHECKING:
    from patchwheel.upstream.forecast import Commit, Walk

COMMIT = re.compile(r"^Backport \[(?:\S*/)?([0-9a-f]{7,40})\]")
Reason = Literal[
    "does-not-apply", "builds-on-another", "in-a-submodule",
    "lines-are-there", "nothing-left-to-merge", "named-and-merged", "share-of-lines",
    "files-are-gone", "lines-are-gone",
    "applies-again", "lines-are-back", "message-of-a-revert",
]  # fmt: skip
# What may be dropped.
DROPPED = ("landed", "reworked", "moot")
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
    # The evidence or the problem in one word, for programs.
    reason: Reason | None = None
    moved: str | None = None
    # The first release that contains the commit.
    release: str | None = None
    # A hunk of the patch, and the one of the commit that stops it.
    hunks: tuple[str, ...] = ()


def verdict_without_history(status: PatchStatus, left_out: Sequence[str] = ()) -> Verdict:
    """Return the verdict where there are files and no history.

    With patches of its files left out before it, it may only look as if it had landed.
    """
    name = status.name
    if status.state == "landed" and left_out:
        problem = f"it builds on {', '.join(left_out)}, which does not apply"
        return Verdict(name=name, state="conflict", problem=problem, reason="builds-on-another")
    if status.state == "landed":
        return Verdict(
            name=name, state="landed", evidence=("its changes are there",), reason="lines-are-there"
        )
    if status.state in {"clean", "offset"}:
        return Verdict(name=name, state=status.state, offset=status.offset)
    verdict = Verdict(name=name, state="conflict", problem=status.problem, where=status.where)
    return replace(verdict, reason="does-not-apply")


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
        if landed := [n for n in self.states("landed") if not self.is_left_out(n)]:
            return self.landed(landed)
        # Reviewed into another form, its lines never were upstream; what it removes must be gone.
        if (merged := self.merged_request()) and self.at_ref.state not in FINE:
            evidence = [f"{merged.source}, its Upstream-Status, was merged"]
            verdict = self.unless_reverted(merged, evidence, "named-and-merged")
            if verdict.state == "reverted" or not self.has_removed_lines(len(self.commits)):
                return verdict
        return self.broken()

    def landed(self, landed: Sequence[int]) -> Verdict:
        """Judge a patch that had landed at some states: it may have been reverted since."""
        commits, applies = self.commits, self.states(*FINE)
        why: Reason = "applies-again"
        # Since it last applied: before, it may have landed too, and been reverted.
        applied = max((n for n in applies if n < landed[-1]), default=-1)
        first = next(n for n in landed if n > applied)
        # Without a commit, the first state had its changes already.
        took = commits[first - 1] if first and self.touches(first - 1) else None
        evidence = ["its changes are there" + (f" since {took.oid[:12]}" if took else "")]
        if merged := self.merged_request():
            evidence.append(f"{merged.source} was merged")
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
            why = "lines-are-back"
        return self.because("reverted", undone, [*evidence, f"{sign} since {undone.oid[:12]}"], why)

    def unless_reverted(
        self, took: Commit | None, evidence: list[str], why: Reason = "lines-are-there"
    ) -> Verdict:
        """Return that a commit took the patch, or that the message of a later one reverts that."""
        state: State = "landed" if why == "lines-are-there" else "reworked"
        if took is None or self.at_ref.state == "landed":
            return self.because(state, took, evidence, why)
        title = took.subject.partition(" (#")[0]
        argv = ("log", "--first-parent", "--format=%H", "--fixed-strings")
        grep = f"--grep=This reverts commit {took.oid}"
        reverting = self.repo.text(*argv, grep, f"{took.oid}..{self.log[0].oid}").split()
        for commit in takewhile(lambda commit: commit != took, self.log):
            # Forges write the subject only, git writes the id into the message.
            named = commit.subject.startswith((f'Revert "{title}"', f'Revert "{title} (#'))
            if (named or commit.oid in reverting) and self.meets(commit):
                evidence.append(f"and reverted by {commit.oid[:12]}")
                return self.because("reverted", commit, evidence, "message-of-a-revert")
        return self.because(state, took, evidence, why)

    def broken(self) -> Verdict:
        """Name the commit after the last state to which it applied, or say that it took it."""
        applies, last = self.states(*FINE), len(self.commits)
        # It applies at the end, or nowhere: then the conflict is older than the history.
        if self.at_ref.state in FINE or not applies or applies[-1] == last:
            return self.at_ref
        n = applies[-1]
        commit, status = self.commits[n], self.walk.statuses[n + 1][self.number]
        # What it says is of the commit that stops it: later ones may have changed more.
        verdict = replace(self.at_ref, state="conflict", problem=status.problem, where=status.where)
        verdict = replace(verdict, reason="does-not-apply")
        if names := self.broken_with(n):
            stops = "that commit" if self.touches(n) else commit.oid[:12]
            problem = f"it builds on {names}, which {stops} stops"
            verdict = replace(verdict, problem=problem, where=None, reason="builds-on-another")
            if not self.touches(n):
                return verdict
        elif self.merges_to_nothing(n):
            evidence = [f"a merge onto {commit.oid[:12]} leaves nothing of it"]
            return self.because("landed", commit, evidence, "nothing-left-to-merge")
        elif other := self.reworked(n) or self.moot(n):
            return other
        moves = find_moves(self.repo, f"{commit.oid}^", commit.oid, [self.patch])
        moved = next(iter(moves.values()), None)
        return replace(verdict, commit=commit, moved=moved, hunks=self.hunks(commit, status))

    def reworked(self, n: int) -> Verdict | None:
        """Return that commit n, which stops it, or a later one has most lines of the patch."""
        hunks = self.hunks(self.commits[n], self.walk.statuses[n + 1][self.number])
        files = self.contents(n)
        for m in filter(self.touches, range(n, len(self.commits))):
            # Later ones only if the patch's own files tell, which takes no process.
            net = found_in.net_lines(self.contents(m), self.contents(m + 1))
            if m > n and found_in.share(self.patch, net, files) < found_in.EACH:
                continue
            commit = self.commits[m]
            part, named = self.share(commit, files)
            if part >= found_in.ENOUGH:
                asked = f", #{commit.request}" if commit.request else ""
                text = f"landed in another form ({part:.0%} of its lines{asked}): {named}"
                verdict = self.unless_reverted(commit, [text], "share-of-lines")
                return replace(verdict, hunks=hunks)
        return None

    def contents(self, n: int) -> dict[str, bytes]:
        """Return the files of the patch at state n."""
        state = self.walk.states[n]
        oids = {p: state[p].oid for p in paths_of([self.patch]) if p in state}
        read = self.walk.read([*oids.values()])
        return {path: read[oid] for path, oid in oids.items()}

    def share(self, commit: Commit, files: Mapping[str, bytes]) -> tuple[float, str]:
        """Return which part of the patch a commit has, or the branch that it merges.

        The branch counts only if a commit of it has the patch's author and subject: what was
        reviewed into another form there was in one of its commits.
        """
        mail, found = self.patch.mail, found_in.merged_commits(self.repo, commit.oid)
        best = self.share_of([commit.oid], files), commit.oid[:12]
        for oid, *who in found:
            if who == [mail.author, mail.subject]:
                by = f"{oid[:12]} of that branch, by the same author with the same subject"
                return max(best, (self.share_of([row[0] for row in found], files), by))
        return best

    def share_of(self, oids: Sequence[str], files: Mapping[str, bytes]) -> float:
        paths = paths_of([self.patch])
        diff = b"".join(found_in.diff_of(self.repo, oid, paths) for oid in oids)
        return found_in.share(self.patch, found_in.changed_lines(diff), files)

    def moot(self, n: int) -> Verdict | None:
        """Return that commit n removed the files that the patch changes, or all that it changes."""
        commit, states = self.commits[n], self.walk.states
        old = {d.old for d in self.patch.diffs if d.old} & states[n].keys()
        gone = old - states[n + 1].keys() - states[-1].keys()
        paths = paths_of([self.patch])
        if gone != old or find_moves(self.repo, f"{commit.oid}^", commit.oid, [self.patch]):
            gone = set()
        why: Reason = "files-are-gone"
        if gone:
            what = f"{', '.join(sorted(gone))} is gone"
        # Where other lines came in their place, it is rewritten, and the patch may still be needed.
        elif (
            not found_in.keeps_place(self.patch, self.contents(-1))
            and not found_in.net_lines(self.contents(n), self.contents(n + 1))[0]
            and found_in.has_lost(self.patch, found_in.diff_of(self.repo, commit.oid, paths))
        ):
            what, why = "the lines that it changes are gone", "lines-are-gone"
        else:
            return None
        return self.because("moot", commit, [f"{what} since {commit.oid[:12]}"], why)

    def hunks(self, commit: Commit, status: PatchStatus) -> tuple[str, ...]:
        """Return the hunk that does not apply after a commit, and the commit's that meets it."""
        line = (status.where or "").rpartition(":")[2]
        for diff in self.patch.diffs:
            hunk = next((h for h in diff.hunks if str(h.line) == line), None)
            if hunk and diff.old:
                argv = (*found_in.DIFF, f"{commit.oid}^", commit.oid, "--", diff.old)
                return found_in.side_by_side(hunk, self.repo.git(*argv))
        return ()

    def because(
        self, state: State, commit: Commit | None, evidence: Sequence[str], why: Reason
    ) -> Verdict:
        verdict = replace(
            self.at_ref, state=state, commit=commit, evidence=tuple(evidence), reason=why
        )
        # What landed or has nothing to do has no problem at the ref, if it no longer applies there.
        return replace(verdict, problem=None, where=None) if state in DROPPED else verdict

    def touches(self, n: int) -> bool:
        """Say whether commit n changes a file of the patch, and not only of those before it."""
        before, after = self.walk.states[n : n + 2]
        return any(before.get(p) != after.get(p) for p in paths_of([self.patch]))

    def meets(self, commit: Commit) -> bool:
        """Say whether a commit changes a file of the patch, under its name or where it went."""
        paths, changed = paths_of([self.patch]), found_in.files_of(self.repo, commit.oid)
        if changed & paths:
            return True
        # Only then, since to follow moves takes seconds in a large tree.
        span = (f"{self.log[-1].oid}^", self.log[0].oid)
        return bool(changed & {*find_moves(self.repo, *span, [self.patch]).values()})

    def is_left_out(self, n: int) -> bool:
        """Say whether it is only as if it had landed at state n: what it undoes is not there.

        The patches before it that do not apply there are left out of the state.
        """
        earlier = range(self.number)
        statuses = self.walk.statuses[n]
        lost = [m for m in earlier if statuses[m].state not in {*FINE, "landed"}]
        if not lost:
            return False
        at = max((m for m in self.states(*FINE) if m < n), default=0)
        simulation = self.walk.simulation_at(at, (m for m in earlier if m not in lost))
        return try_patch(simulation, self.patch).state == "landed"

    def states(self, *wanted: str) -> list[int]:
        """Return the numbers at which the patch has one of some states."""
        rows = enumerate(self.walk.statuses)
        return [n for n, statuses in rows if statuses[self.number].state in wanted]

    def has_removed_lines(self, n: int) -> bool:
        """Say whether state n still has, in its place, what the patch removes."""
        made = self.walk.results.get(self.patch.name, {})
        simulation = self.walk.simulation_at(n, range(self.number))
        return simulation.still_has(self.patch.diffs, made, in_place=True) is not None

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
        return dry_run(self.repo, patches, trees)[-1].state == "landed"

    def broken_with(self, n: int) -> str | None:
        """Name the earlier patches that commit n breaks too, if this one cannot do without them."""
        before, after = self.walk.statuses[n : n + 2]
        earlier = range(self.number)
        broken = [m for m in earlier if before[m].state in FINE and after[m].state == "fails"]
        rest = self.walk.simulation_at(n, (m for m in earlier if m not in broken))
        if not broken or try_patch(rest, self.patch).state in FINE:
            return None
        patches = [self.walk.patches[m] for m in broken]
        # Those that change the same files, if any do, are what it builds on.
        near = [p for p in patches if paths_of([p]) & paths_of([self.patch])]
        return ", ".join(patch.name for patch in near or patches)

    def merged_request(self) -> Commit | None:
        """Return the commit that its Upstream-Status names, or that merged its pull request."""
        status = self.patch.trailer("Upstream-Status")[0]
        # Another's pull request may be named by a patch that is pending.
        if not status.startswith(("Submitted", "Backport")):
            return None
        requests, oid = PULL_REQUEST.findall(status), COMMIT.search(status)
        for commit in self.log:
            if commit.request in requests or (oid and commit.oid.startswith(oid[1])):
                return commit if self.meets(commit) else None
        return None
