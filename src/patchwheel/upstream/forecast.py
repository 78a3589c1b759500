"""What a series meets in upstream's later history: which commit breaks a patch, and which took it.

The series is tried in memory on each state of upstream's files; nothing is checked out. Only the
commits that touch the patched paths matter, one in twenty to fifty. They are those of the first
parents: a merged pull request counts as one.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from patchwheel.kit import Blob, Repository, digest
from patchwheel.patch import SUBMODULE, Simulation, check_patch
from patchwheel.series import FINE, load_series, try_patch
from patchwheel.upstream.history import release, upstream_history
from patchwheel.upstream.merge import patch_paths
from patchwheel.upstream.verdict import Verdict, judge, verdict_without_history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from patchwheel.manifest import Fork
    from patchwheel.patch import Content, Files, Patch
    from patchwheel.project import Project
    from patchwheel.series import PatchStatus

    Reader = Callable[[Sequence[str]], Mapping[str, bytes]]

REMOVED = "0" * 40
FIELDS = "%H%x1f%an%x1f%aI%x1f%s"
REQUEST = re.compile(r"\(#(\d+)\)|^Merge pull request #(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit of upstream's; `request` is the number of its pull request, if it names one."""

    oid: str
    author: str
    # The author's date in ISO 8601.
    when: str
    subject: str
    request: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The verdicts on a series at a ref."""

    ref: str
    # None for a release that was read from its sdist.
    commit: str | None
    # How many commits up to this one touch the series.
    commits: int
    patches: tuple[Verdict, ...]

    def without(self, known: Sequence[object]) -> Forecast:
        """Return the forecast without the verdicts that are `known`, as read from JSON."""
        new = tuple(v for v in self.patches if json.loads(json.dumps(asdict(v))) not in known)
        return replace(self, patches=new)


def forecasts(project: Project, fork: Fork, refs: Sequence[str]) -> list[Forecast]:
    """Follow the fork's series to tags, branches, commits and releases of upstream's."""
    patches = load_series(fork.patches).patches
    for patch in patches:
        check_patch(patch)
    history = upstream_history(project, fork)
    base = history.base() if history else ""
    found = []
    for ref in refs:
        if history and (tip := history.resolve(ref)):
            found.append(forecast(history.repo, patches, ref, (base, tip), history.fetch_blobs))
            continue
        # Its sdist has the files, but not the commits.
        released = release(project, fork, ref)
        repo = Repository(released.git_dir)
        statuses = try_series(repo.files(released.tree), repo.read, patches)
        verdicts = tuple(map(verdict_without_history, statuses))
        found.append(Forecast(ref=ref, commit=None, commits=0, patches=verdicts))
    return found


def remember_forecasts(project: Project, fork: Fork, found: Sequence[Forecast]) -> dict[str, Any]:
    """Note forecasts by ref and return what was noted the last time."""
    key = digest(str(project.manifest.path), fork.name)
    known = project.store.memo("forecasts", key) or {}
    new = {row.ref: asdict(row)["patches"] for row in found}
    project.store.remember("forecasts", key, {**known, **new})
    return known


def forecast(
    repo: Repository,
    patches: Sequence[Patch],
    ref: str,
    span: tuple[str, str],
    fetch_blobs: Callable[[Iterable[str]], None],
) -> Forecast:
    """Follow a series through upstream's history, from the pin's commit to the one of a ref."""
    base, tip = span
    # A pin on a release branch is followed from where that branch left the ref's.
    start = repo.text("merge-base", base, tip)
    paths = sorted({path for patch in patches for path in patch_paths(patch)})
    commits, states = _changes(repo, start, tip, paths)
    blobs = (blob for files in states for blob in files.values() if blob.mode != SUBMODULE)
    oids = sorted({blob.oid for blob in blobs})
    # One request and one process for all states: later ones share most files with earlier ones.
    fetch_blobs(oids)
    contents = repo.read(oids)
    walk = Walk(patches, states, lambda _oids: contents)
    # Once more among all files of the tip: messages name those that are like a missing one.
    files = repo.files(repo.tree_of(tip))
    last = try_series(files, walk.read, patches, walk.results)
    argv = ("log", "--first-parent", "-z", f"--format={FIELDS}", f"{start}..{tip}")
    out = repo.git(*argv).decode(errors="surrogateescape")
    log = [_commit(row) for row in out.split("\0") if row]
    verdicts = []
    for number, (patch, status) in enumerate(zip(patches, last, strict=True)):
        if module := _submodule(patch, files):
            problem = f"it changes files of the submodule {module}, whose history is not followed"
            verdicts.append(Verdict(name=patch.name, state="unknown", problem=problem))
        else:
            verdicts.append(judge(repo, PatchTimeline(walk, number, commits), status, log))
    return Forecast(ref=ref, commit=tip, commits=len(commits), patches=tuple(verdicts))


def _changes(
    repo: Repository, start: str, tip: str, paths: Sequence[str]
) -> tuple[list[Commit], list[dict[str, Blob]]]:
    """Return the commits that touch the paths, and the files at the start and after each."""
    files = repo.files(repo.tree_of(start), *paths) if paths else {}
    states = [{path: blob for path, blob in files.items() if blob.mode != SUBMODULE}]
    commits = []
    argv = ["log", "--first-parent", "-m", "--raw", "-z", "--no-abbrev", "--no-renames"]
    argv += ["--reverse", f"--format=%x1e{FIELDS}%x1e", f"{start}..{tip}", "--", *paths]
    parts = repo.git(*argv).decode(errors="surrogateescape").split("\x1e")[1:]
    for head, rows in zip(parts[::2], parts[1::2], strict=True):
        fields = [field for field in re.split(r"[\0\n]", rows) if field]
        after = dict(states[-1])
        for raw, path in zip(fields[::2], fields[1::2], strict=True):
            _, mode, _, oid, _ = raw.split()
            after[path] = Blob(mode=mode, oid=oid)
        states.append({path: blob for path, blob in after.items() if blob.oid != REMOVED})
        commits.append(_commit(head))
    return commits, states


def _commit(text: str) -> Commit:
    oid, author, when, subject = text.strip("\0\n").split("\x1f")
    named = REQUEST.search(subject)
    request = next(filter(None, named.groups())) if named else None
    return Commit(oid=oid, author=author, when=when, subject=subject, request=request)


def _submodule(patch: Patch, files: Mapping[str, Blob]) -> str | None:
    """Return the submodule in which a patch changes files."""
    parents = {p[:at] for p in patch_paths(patch) for at, char in enumerate(p) if char == "/"}
    return min((p for p in parents if p in files and files[p].mode == SUBMODULE), default=None)


def try_series(
    files: Mapping[str, Blob],
    read: Reader,
    patches: Sequence[Patch],
    made: dict[str, Files] | None = None,
) -> list[PatchStatus]:
    """Try a series on files; a patch that does not apply is left out for those after it.

    `made` has what each patch made of its files where it last applied, and is updated.
    """
    replay = Simulation(files, read, patches, earlier_results=made)
    statuses = [try_patch(replay, patch) for patch in patches]
    if made is not None:
        made.update(replay.results)
    return statuses


class Walk:
    """A series tried on states of upstream's files: the first, and the one after each commit."""

    def __init__(
        self, patches: Sequence[Patch], states: Sequence[Mapping[str, Blob]], read: Reader
    ) -> None:
        self.patches = patches
        self.states = states
        self.read = read
        # What each patch made of its files where it last applied.
        self.results: dict[str, Files] = {}
        # The status of each patch at each state.
        self.statuses = list(self._follow())

    def _follow(self) -> Iterator[list[PatchStatus]]:
        groups = _groups(self.patches)
        current = try_series(self.states[0], self.read, self.patches, self.results)
        yield current
        for before, after in itertools.pairwise(self.states):
            current = list(current)
            changed = {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
            for numbers, paths in groups:
                # Most commits touch one group of patches: the others stay as they were.
                if not paths.isdisjoint(changed):
                    group = [self.patches[number] for number in numbers]
                    again = try_series(after, self.read, group, self.results)
                    for number, status in zip(numbers, again, strict=True):
                        current[number] = status
            yield current

    def replay(self, n: int, numbers: Iterable[int]) -> Simulation:
        """Return state n with those of some patches that apply to it."""
        replay = Simulation(self.states[n], self.read, self.patches)
        for number in numbers:
            try_patch(replay, self.patches[number])
        return replay


class PatchTimeline:
    """One patch of a walk; state n is the one before commit n, and n + 1 the one after it."""

    def __init__(self, walk: Walk, number: int, commits: Sequence[Commit]) -> None:
        self.walk = walk
        self.number = number
        self.commits = commits
        self.patch = walk.patches[number]

    def states(self, *wanted: str) -> list[int]:
        """Return the numbers at which the patch has one of some states."""
        rows = enumerate(self.walk.statuses)
        return [n for n, statuses in rows if statuses[self.number].state in wanted]

    def has_removed_lines(self, n: int) -> bool:
        """Say whether state n still has, in its place, what the patch removes."""
        made = self.walk.results.get(self.patch.name, {})
        replay = self.walk.replay(n, range(self.number))
        return replay.still_has(self.patch.diffs, made, in_place=True) is not None

    def merges_to_nothing(self, repo: Repository, n: int) -> bool:
        """Say whether merging the patch from state n, where it applies, onto n + 1 is a no-op."""
        # Commit n may have taken the patch beside other changes: then it matches nowhere.
        before, after = (self.walk.replay(at, range(self.number)) for at in (n, n + 1))
        base = dict(before.state)
        before.apply(self.patch)
        for path in patch_paths(self.patch):
            if not _merges_to_ours(repo, after.get(path), base.get(path), before.get(path)):
                return False
        return after.still_has(self.patch.diffs, before.state) is None

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
        near = [p for p in patches if patch_paths(p) & patch_paths(self.patch)]
        return ", ".join(patch.name for patch in near or patches)


def _merges_to_ours(
    repo: Repository, ours: Content | None, base: Content | None, theirs: Content | None
) -> bool:
    """Say whether a three-way merge of one file leaves it as it is on our side."""
    was, mine, other = (side and (side.mode, side.oid) for side in (base, ours, theirs))
    if other in {was, mine}:
        return True
    sides = [side.data for side in (ours, base, theirs) if side and side.data is not None]
    # Only the patch changed it, or it conflicts: a side is missing or binary.
    if mine == was or len(sides) < 3 or b"\0" in b"".join(sides):  # noqa: PLR2004
        return False
    return repo.merge_file(*sides) == sides[0]


def _groups(patches: Sequence[Patch]) -> list[tuple[list[int], set[str]]]:
    """Return the numbers of patches that share paths, directly or not, and these paths."""
    groups: list[tuple[list[int], set[str]]] = []
    for number, patch in enumerate(patches):
        numbers, paths = [number], patch_paths(patch)
        for group in [g for g in groups if g[1] & paths]:
            groups.remove(group)
            numbers, paths = [*group[0], *numbers], group[1] | paths
        groups.append((sorted(numbers), paths))
    return groups
