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
from typing import TYPE_CHECKING

from patchwheel.outlook import Commit, Outlook, Seen, judge
from patchwheel.preview import Ends, merge
from patchwheel.replay import Replay
from patchwheel.repo import Blob
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
            seen = Seen(
                patch=patch,
                history=history,
                last=last[number],
                emptied=partial(emptied, number),
                stopped_with=partial(stopped_with, number),
            )
            found.append(judge(repo, seen, commits, log))
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
