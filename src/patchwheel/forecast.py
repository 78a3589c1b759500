"""What a series meets in upstream's later history: which commit stops a patch, and which took it.

Only the commits that touch the patched paths matter, one in twenty to fifty. At each of them the patches to what it
touches are tried in memory, so nothing is bisected and nothing checked out. Commits are those of the first parents: a merged pull request
counts as one.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Literal

from patchwheel.preview import Ends, merge
from patchwheel.replay import Replay
from patchwheel.repo import Blob, GitError
from patchwheel.status import FINE, try_patch

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Collection,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )

    from patchwheel.repo import Repository
    from patchwheel.series import Patch
    from patchwheel.status import PatchStatus

SUBMODULE = "160000"
GONE = "0" * 40
FIELDS = "%H%x1f%an%x1f%aI%x1f%s"
REQUEST = re.compile(r"\(#(\d+)\)|^Merge pull request #(\d+)")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """`commits` were looked at of all those up to the ref; a ref that was read from an sdist has none."""

    ref: str
    commit: str | None
    commits: int
    patches: tuple[Outlook, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    def without(self, known: Iterable[object]) -> Forecast:
        """Return what is not among the outlooks `known`, which are as in JSON."""
        old = list(known)
        new = tuple(
            o for o in self.patches if json.loads(json.dumps(asdict(o))) not in old
        )
        return replace(self, patches=new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From the pin's commit `base` to the commit `tip` that `ref` names."""

    ref: str
    base: str
    tip: str


def forecast(
    repo: Repository,
    patches: Sequence[Patch],
    span: Span,
    *,
    have: Callable[[Iterable[str]], None],
) -> Forecast:
    """Follow a series through upstream's history; `have` gets blobs that are not there yet."""
    ref, base, tip = span.ref, span.base, span.tip
    start = repo.text("merge-base", base, tip)
    paths = sorted({p for patch in patches for p in _paths(patch)})
    changes = list(_history(repo, start, tip, paths))
    files = {p: b for p, b in _files(repo, start, paths).items() if b.mode != SUBMODULE}
    oids = {b.oid for b in files.values()}
    oids |= {b.oid for _, new in changes for b in new.values() if b.oid != GONE}
    have(oids)
    contents = repo.read(sorted(oids))

    def read(wanted: Sequence[str]) -> Mapping[str, bytes]:
        return {oid: contents[oid] for oid in wanted if oid in contents}

    states = [files]
    for _, new in changes:
        files = {**files, **new}
        files = {p: b for p, b in files.items() if b.oid != GONE}
        states.append(files)
    steps = list(followed(states, [new.keys() for _, new in changes], read, patches))
    # Once more with all files around, for what the messages say.
    around = repo.files(repo.tree_of(tip))
    last = tried(around, read, patches)
    inside = {p for p, blob in around.items() if blob.mode == SUBMODULE}
    log = list(_log(repo, start, tip)) if patches else []
    commits = [commit for commit, _ in changes]
    found = []

    def emptied(number: int, at: int) -> bool:
        """Say whether a three-way merge of a patch onto the state after `at` leaves nothing of it."""
        old, new = (Replay(states[n], read, patches) for n in (at, at + 1))
        for earlier in patches[:number]:
            try_patch(old, earlier)
            try_patch(new, earlier)
        before = dict(old.state)
        old.apply(patches[number])
        ends = Ends(old="", new="", old_label="", new_label="")
        sides = (before, old.state, new)
        return merge(repo, patches[number], sides, (ends, {})).state == "landed"

    def stopped_with(number: int, at: int) -> str | None:
        """Name the patches that the commit after `at` stops too, if this one cannot do without them."""
        before, after = steps[at : at + 2]
        out = [
            n
            for n in range(number)
            if before[n].state in FINE and after[n].state == "fails"
        ]
        old = Replay(states[at], read, patches)
        for n in sorted({*range(number)} - {*out}):
            try_patch(old, patches[n])
        if not out or try_patch(old, patches[number]).state in FINE:
            return None
        near = [n for n in out if _paths(patches[n]) & _paths(patches[number])]
        return ", ".join(patches[n].name for n in near or out)

    for number, patch in enumerate(patches):
        history = [step[number] for step in steps]
        module = next((m for m in inside if _within(patch, m)), None)
        if module:
            problem = f"it changes files of the submodule {module}, whose history is not followed"
            found.append(Outlook(name=patch.name, state="unknown", problem=problem))
        else:
            seen = _Seen(
                patch=patch,
                history=history,
                last=last[number],
                emptied=partial(emptied, number),
                stopped_with=partial(stopped_with, number),
            )
            found.append(_judge(repo, seen, commits, log))
    return Forecast(ref=ref, commit=tip, commits=len(changes), patches=tuple(found))


def followed(
    states: Sequence[Mapping[str, Blob]],
    touched: Sequence[Collection[str]],
    read: Callable[[Sequence[str]], Mapping[str, bytes]],
    patches: Sequence[Patch],
) -> Iterator[list[PatchStatus]]:
    """Try the series on the first state, and on each later one the patches that have to do with what was touched."""
    step = tried(states[0], read, patches)
    yield step
    groups = _groups(patches)
    for files, paths in zip(states[1:], touched, strict=True):
        step = list(step)
        for numbers, theirs in groups:
            if not theirs.isdisjoint(paths):
                again = tried(files, read, [patches[n] for n in numbers])
                for number, status in zip(numbers, again, strict=True):
                    step[number] = status
        yield step


def tried(
    files: Mapping[str, Blob],
    read: Callable[[Sequence[str]], Mapping[str, bytes]],
    patches: Sequence[Patch],
) -> list[PatchStatus]:
    """Try a series on files; what does not apply is left out for the patches after it."""
    follow = Replay(files, read, patches)
    return [try_patch(follow, patch) for patch in patches]


def plain(name: str, status: PatchStatus) -> Outlook:
    """Return what is known of a patch where there are files and no history."""
    if status.state == "landed":
        evidence = ("its changes are there",)
        return Outlook(name=name, state="landed", evidence=evidence)
    if status.state in FINE:
        fine: Literal["clean", "offset"] = "offset" if status.offset else "clean"
        return Outlook(name=name, state=fine, offset=status.offset)
    return Outlook(
        name=name, state="conflict", problem=status.problem, where=status.where
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A patch with its states: before the first commit and after each, and with all files at the end.

    `emptied` says of the state before a commit whether that commit leaves nothing of the patch to merge;
    `stopped_with` names the earlier patches that it needs and the commit stops.
    """

    patch: Patch
    history: Sequence[PatchStatus]
    last: PatchStatus
    emptied: Callable[[int], bool]
    stopped_with: Callable[[int], str | None]


def _judge(
    repo: Repository, seen: _Seen, commits: Sequence[Commit], log: Sequence[Commit]
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
            f"its changes are there since {took.oid[:12]}"
            if took
            else "its changes are there"
        ]
        if took and _same_patch(repo, patch, took):
            evidence.append("with the patch-id of the patch")
        if merged:
            evidence.append(f"pull request {merged.request} was merged")
        if fine and fine[-1] > landed[-1]:
            undone = commits[landed[-1]]
            evidence.append(f"it applies again since {undone.oid[:12]}")
            return _with(outlook, "reverted", undone, evidence)
        return _unless_reverted(repo, outlook, took, evidence, log)
    if merged and last.state not in FINE:
        evidence = [f"pull request {merged.request}, its Upstream-Status, was merged"]
        return _unless_reverted(repo, outlook, merged, evidence, log)
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


def _stopped(
    repo: Repository, seen: _Seen, outlook: Outlook, commits: Sequence[Commit]
) -> Outlook:
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
    asked = {
        n for line in patch.trailer("Upstream-Status") for n in ASKED.findall(line)
    }
    return next((commit for commit in log if commit.request in asked), None)


def _same_patch(repo: Repository, patch: Patch, commit: Commit) -> bool:
    """Compare by `git patch-id`, which leaves out line numbers and white space."""
    try:
        change = repo.git("diff-tree", "-p", f"{commit.oid}^", commit.oid)
    except GitError:  # other files of the commit are not here, and cannot be had now
        return False
    ids = [
        repo.git("patch-id", "--stable", stdin=data).split(b" ")[0]
        for data in (change, patch.data)
    ]
    return ids[0] == ids[1]


def _moved(repo: Repository, patch: Patch, commit: Commit) -> str | None:
    """Return where the commit moved a file that the patch changes."""
    words = ("diff-tree", "-r", "-z", "-M", "--diff-filter=R", "--name-status")
    out = repo.git(*words, f"{commit.oid}^", commit.oid).decode(
        errors="surrogateescape"
    )
    rows = out.split("\0")[:-1]
    old = {diff.old for diff in patch.diffs}
    return next(
        (new for was, new in zip(rows[1::3], rows[2::3], strict=True) if was in old),
        None,
    )


def _history(
    repo: Repository, start: str, tip: str, paths: Sequence[str]
) -> Iterator[tuple[Commit, dict[str, Blob]]]:
    """Give, oldest first, the commits that touch the paths, with what they made of them."""
    words = (
        "log",
        "--first-parent",
        "-m",
        "--raw",
        "-z",
        "--no-abbrev",
        "--no-renames",
    )
    flags = ("--reverse", f"--format=%x1e{FIELDS}%x1e")
    out = repo.git(*words, *flags, f"{start}..{tip}", "--", *paths)
    parts = out.decode(errors="surrogateescape").split("\x1e")[1:]
    for head, rows in zip(parts[::2], parts[1::2], strict=True):
        words_of = [word for word in re.split(r"[\0\n]", rows) if word]
        found = {}
        for raw, path in zip(words_of[::2], words_of[1::2], strict=True):
            _, mode, _, oid, _ = raw.split()
            found[path] = Blob(mode=mode, oid=oid)
        yield _commit(head), found


def _log(repo: Repository, start: str, tip: str) -> Iterator[Commit]:
    words = ("log", "--first-parent", "-z", f"--format={FIELDS}")
    out = repo.git(*words, f"{start}..{tip}").decode(errors="surrogateescape")
    return map(_commit, filter(None, out.split("\0")))


def _commit(text: str) -> Commit:
    oid, author, when, subject = text.strip("\0\n").split("\x1f")
    found = REQUEST.search(subject)
    request = next(filter(None, found.groups())) if found else None
    return Commit(oid=oid, author=author, when=when, subject=subject, request=request)


def _files(repo: Repository, commit: str, paths: Sequence[str]) -> dict[str, Blob]:
    files = repo.files(repo.tree_of(commit))
    return {path: files[path] for path in paths if path in files}


def _paths(patch: Patch) -> set[str]:
    return {path for diff in patch.diffs for path in (diff.old, diff.new) if path}


def _groups(patches: Sequence[Patch]) -> list[tuple[list[int], set[str]]]:
    """Return the numbers of patches that have to do with one another, and all their paths."""
    groups: list[tuple[list[int], set[str]]] = []
    for number, patch in enumerate(patches):
        numbers, paths = [number], _paths(patch)
        for group in [g for g in groups if g[1] & paths]:
            groups.remove(group)
            numbers, paths = [*group[0], *numbers], group[1] | paths
        groups.append((sorted(numbers), paths))
    return groups


def _within(patch: Patch, module: str) -> bool:
    return any(path.startswith(f"{module}/") for path in _paths(patch))
