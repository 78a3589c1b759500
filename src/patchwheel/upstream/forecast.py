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

from patchwheel.kit.repo import Blob
from patchwheel.patch.simulate import Simulation
from patchwheel.series.status import FINE, try_patch
from patchwheel.upstream.merge import Ends, merge
from patchwheel.upstream.verdict import Commit, Outlook, Seen, judge

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Collection,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )

    from patchwheel.kit.repo import Repository
    from patchwheel.patch.simulate import Files
    from patchwheel.series.files import Patch
    from patchwheel.series.status import PatchStatus

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
        new = tuple(o for o in self.patches if json.loads(json.dumps(asdict(o))) not in old)
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
    touched = [new.keys() for _, new in changes]
    home: dict[str, Files] = {}
    steps = list(followed(states, touched, read, patches, home))
    # Once more with all files around, for what the messages say.
    around = repo.files(repo.tree_of(tip))
    last = tried(around, read, patches, home)
    inside = {p for p, blob in around.items() if blob.mode == SUBMODULE}
    log = list(_log(repo, start, tip)) if patches else []
    commits = [commit for commit, _ in changes]
    found = []

    course = _Course(repo=repo, patches=patches, states=states, steps=steps, read=read, home=home)
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
                emptied=partial(course.emptied, number),
                stopped_with=partial(course.stopped_with, number),
                still_there=partial(course.still_there, number),
            )
            found.append(judge(repo, seen, commits, log))
    return Forecast(ref=ref, commit=tip, commits=len(changes), patches=tuple(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Course:
    """A series that was followed, and what can be asked of its patches at one state."""

    repo: Repository
    patches: Sequence[Patch]
    states: Sequence[Mapping[str, Blob]]
    steps: Sequence[Sequence[PatchStatus]]
    read: Callable[[Sequence[str]], Mapping[str, bytes]]
    home: Mapping[str, Files]

    def at(self, at: int, earlier: Iterable[int]) -> Simulation:
        """Return a state with those of the earlier patches that apply."""
        follow = Simulation(self.states[at], self.read, self.patches)
        for number in earlier:
            try_patch(follow, self.patches[number])
        return follow

    def emptied(self, number: int, at: int) -> bool:
        """Say whether a three-way merge of a patch onto the state after `at` leaves nothing of it."""
        old, new = (self.at(n, range(number)) for n in (at, at + 1))
        patch, before = self.patches[number], dict(old.state)
        old.apply(patch)
        ends = Ends(old="", new="", old_label="", new_label="")
        sides = (before, old.state, new)
        return merge(self.repo, patch, sides, (ends, {})).state == "landed"

    def still_there(self, number: int, at: int) -> bool:
        """Say whether a state has, in its place, what a patch removes."""
        patch, follow = self.patches[number], self.at(at, range(number))
        made = self.home.get(patch.name, {})
        return follow.still_has(patch.diffs, made, in_place=True) is not None

    def stopped_with(self, number: int, at: int) -> str | None:
        """Name the patches that the commit after `at` stops too, if this one cannot do without them."""
        before, after = self.steps[at : at + 2]
        out = [n for n in range(number) if before[n].state in FINE and after[n].state == "fails"]
        old = self.at(at, sorted({*range(number)} - {*out}))
        patch = self.patches[number]
        if not out or try_patch(old, patch).state in FINE:
            return None
        near = [n for n in out if _paths(self.patches[n]) & _paths(patch)]
        return ", ".join(self.patches[n].name for n in near or out)


def followed(
    states: Sequence[Mapping[str, Blob]],
    touched: Sequence[Collection[str]],
    read: Callable[[Sequence[str]], Mapping[str, bytes]],
    patches: Sequence[Patch],
    home: dict[str, Files] | None = None,
) -> Iterator[list[PatchStatus]]:
    """Try the series on the first state, and on each later one the patches that have to do with what was touched.

    `home` is given what each patch made of its files where it last applied.
    """
    home = {} if home is None else home
    step = tried(states[0], read, patches, home)
    yield step
    groups = _groups(patches)
    for files, paths in zip(states[1:], touched, strict=True):
        step = list(step)
        for numbers, theirs in groups:
            if not theirs.isdisjoint(paths):
                again = tried(files, read, [patches[n] for n in numbers], home)
                for number, status in zip(numbers, again, strict=True):
                    step[number] = status
        yield step


def tried(
    files: Mapping[str, Blob],
    read: Callable[[Sequence[str]], Mapping[str, bytes]],
    patches: Sequence[Patch],
    home: dict[str, Files] | None = None,
) -> list[PatchStatus]:
    """Try a series on files; what does not apply is left out for the patches after it.

    `home` has what each patch made where it last applied, and is brought up to date.
    """
    follow = Simulation(files, read, patches, earlier_results=home)
    found = [try_patch(follow, patch) for patch in patches]
    if home is not None:
        home.update(follow.results)
    return found


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
