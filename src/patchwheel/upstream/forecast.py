"""What a series meets in upstream's later history: which commit breaks a patch, and which took it.

The series is tried in memory on each state of upstream's files; nothing is checked out. Only the
commits that touch the patched paths matter, one in twenty to fifty. They are those of the first
parents: a merged pull request counts as one. History says which commit matters, git's merge what a
rebase would do there: `status --against`, the dry run of a rebase and each of its stops say the
same of a patch.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from patchwheel.kit import Blob, InputError, PatchError, Repository, digest
from patchwheel.manifest import Fork
from patchwheel.patch import SUBMODULE, Files, Patch, Simulation, check_patch, paths_of
from patchwheel.project import Project
from patchwheel.series import PatchStatus, light_tree, load_series, try_patch
from patchwheel.source import Source, fetch_pin
from patchwheel.upstream.evidence import first_release
from patchwheel.upstream.history import History, import_pin, label_of, release, upstream_history
from patchwheel.upstream.merge import MergeResult, dry_run
from patchwheel.upstream.verdict import DROPPED, Judge, Verdict, verdict_without_history

Reader = Callable[[Sequence[str]], Mapping[str, bytes]]

# What a merge decides.
UNSURE = ("conflict", "unknown")
GONE = "000000"
LOG = ("log", "--first-parent", "-z")
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

    @property
    def source(self) -> str:
        """What messages call it."""
        return f"pull request {self.request}" if self.request else f"commit {self.oid[:12]}"


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
    history, found = upstream_history(project, fork), []
    pin = functools.partial(fetch_pin, project.context, fork)
    for ref in refs:
        if history and (tip := history.resolve(ref)):
            found.append(follow(history, patches, ref, tip))
            continue
        found.append(_at_release(release(project, fork, ref, history), ref, patches, pin))
    return found


def preview_rebase(project: Project, fork: Fork, ref: str) -> Sequence[MergeResult]:
    """Merge the fork's series onto another state of upstream's, in memory."""
    tree, history = light_tree(project, fork), upstream_history(project, fork)
    patches, fetch_blobs = tree.series.patches, None
    commit = history.resolve(ref) if history else None
    try:
        # A rebase goes onto the files of the release's sdist, where there is one.
        released = release(project, fork, ref, history)
        repo, new = Repository(released.git_dir), released.tree
    except InputError:
        if history is None or commit is None:
            raise
        import_pin(history.repo, tree.source, f"refs/patchwheel/pins/{tree.source.tree}")
        fetch_blobs = history.fetch_blobs
        repo, new = history.repo, history.tree(commit, paths_of(patches))
    trees, labels = (tree.source.tree, new), (label_of(fork), f"upstream {ref}")
    merged = dry_run(repo, patches, trees, labels, fetch_blobs)
    if not (history and commit):
        return merged
    told = follow(history, patches, ref, commit, merged).patches
    return [replace(m, state=v.state, verdict=v) for m, v in zip(merged, told, strict=True)]


def explain_stops(project: Project, fork: Fork, ref: str) -> list[str]:
    """Return for each patch what a rebase says if it stops there, in lines after the first."""
    skip = f"if that commit has what it is for, `patchwheel rebase {fork.name} --skip` drops it"
    verdicts = [patch.verdict for patch in preview_rebase(project, fork, ref)]
    rows = [[*describe(v), *[skip] * (v.state in DROPPED)] if v else [] for v in verdicts]
    return ["".join(f"\n  {line}" for line in lines) for lines in rows]


def describe(verdict: Verdict) -> Iterator[str]:
    """Say in lines what became of a patch: the commit, its release, the reasons and the hunks."""
    yield f"{verdict.state} {since(verdict)}".rstrip()
    yield from filter(None, [*verdict.evidence, verdict.problem])
    names = ("the patch", verdict.commit.oid[:12] if verdict.commit else "upstream")
    for name, hunk in zip(names, verdict.hunks, strict=False):
        yield f"in {name}:"
        yield from (f"  {line}" for line in hunk.split("\n"))


def since(verdict: Verdict) -> str:
    """Name the commit that matters to a patch, and the first release that contains it."""
    if not (commit := verdict.commit):
        return ""
    release = f"first in {verdict.release}" if verdict.release else "in no release yet"
    who = f"{commit.when[:10]} {commit.author}: {commit.subject}"
    return f"since {commit.oid[:12]} {who} ({release})"


def follow(
    history: History,
    patches: Sequence[Patch],
    ref: str,
    tip: str,
    merged: Sequence[MergeResult] | None = None,
) -> Forecast:
    """Follow a series from the pin to a commit; `merged` is what a merge makes of it there."""
    base = history.base()
    found = forecast(history.repo, patches, ref, (base, tip), history.fetch_blobs)
    if merged is None and any(v.state in UNSURE for v in found.patches):
        # A series that the pin's commit does not take, or a submodule that cannot be reached.
        with contextlib.suppress(PatchError, InputError):
            old, new = (history.tree(commit, paths_of(patches)) for commit in (base, tip))
            get = history.fetch_blobs
            merged = dry_run(history.repo, patches, (old, new), fetch_blobs=get)
    if merged is None:
        return found
    both = zip(found.patches, merged, strict=True)
    return replace(found, patches=tuple(itertools.starmap(_combined, both)))


def _at_release(
    released: Source, ref: str, patches: Sequence[Patch], pin: Callable[[], Source]
) -> Forecast:
    """Try a series on a release by its sdist, which has the files, but not the commits."""
    repo = Repository(released.git_dir)
    statuses = try_series(repo.files(released.tree), repo.read, patches)
    verdicts = [
        verdict_without_history(status, _left_out(patches[:number], statuses, patches[number]))
        for number, status in enumerate(statuses)
    ]
    if any(verdict.state in UNSURE for verdict in verdicts):
        with contextlib.suppress(PatchError):
            merged = dry_run(repo, patches, (pin().tree, released.tree))
            verdicts = [*itertools.starmap(_combined, zip(verdicts, merged, strict=True))]
    return Forecast(ref=ref, commit=None, commits=0, patches=tuple(verdicts))


def _left_out(earlier: Sequence[Patch], statuses: Sequence[PatchStatus], patch: Patch) -> list[str]:
    """Name the earlier patches that do not apply and change files of a patch."""
    pairs = zip(earlier, statuses, strict=False)
    lost = [p for p, status in pairs if status.state == "fails"]
    return [p.name for p in lost if paths_of([p]) & paths_of([patch])]


def _combined(verdict: Verdict, merged: MergeResult) -> Verdict:
    """Return what is said of a patch that git merges in this way."""
    fine = {"clean", "offset", "merged"}
    if merged.state == "conflict":
        meets = verdict.state in {*fine, "unknown"}
        return replace(verdict, state="conflict") if meets else verdict
    if verdict.state in UNSURE and merged.state == "landed":
        verdict = replace(verdict, evidence=("a merge leaves nothing of it",), commit=None)
        return replace(verdict, state="landed", problem=None, where=None)
    if verdict.state == "unknown":
        return replace(verdict, state=merged.state, problem=None, reason=None)
    return replace(verdict, state="merged") if verdict.state == "conflict" else verdict


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
    commits, states = _changes(repo, start, tip, sorted(paths_of(patches)))
    oids = sorted({blob.oid for files in states for blob in files.values()})
    # One request and one process for all states: later ones share most files with earlier ones.
    fetch_blobs(oids)
    contents = repo.read(oids)
    walk = Walk(patches, states, lambda _oids: contents, commits)
    # Once more among all files of the tip: messages name those that are like a missing one.
    files = repo.files(repo.tree_of(tip))
    last = try_series(files, walk.read, patches, walk.results)
    out = repo.git(*LOG, f"--format={FIELDS}", f"{start}..{tip}").decode(errors="surrogateescape")
    log = [_commit(row) for row in out.split("\0") if row]
    # A submodule of the pin may be gone at the ref.
    fails = any(status.state == "fails" for status in walk.statuses[0])
    pinned = repo.files(repo.tree_of(start)) if fails else {}
    verdicts = []
    for number, (patch, status) in enumerate(zip(patches, last, strict=True)):
        if module := submodule_of(patch, files, pinned):
            problem = f"it changes files of the submodule {module}, whose history is not followed"
            verdicts.append(
                Verdict(name=patch.name, state="unknown", problem=problem, reason="in-a-submodule")
            )
        else:
            verdicts.append(Judge(repo, walk, number, status, log).verdict())
    # The first release with the commit is the day by which somebody has to act.
    named = {verdict.commit.oid for verdict in verdicts if verdict.commit}
    tags = {oid: first_release(repo, oid) for oid in named}
    told = tuple(replace(v, release=tags[v.commit.oid]) if v.commit else v for v in verdicts)
    return Forecast(ref=ref, commit=tip, commits=len(commits), patches=told)


def _changes(
    repo: Repository, start: str, tip: str, paths: Sequence[str]
) -> tuple[list[Commit], list[dict[str, Blob]]]:
    """Return the commits that touch the paths, and the files at the start and after each."""
    if not paths:
        return [], [{}]
    commits, states = [], [_contents(repo.files(repo.tree_of(start), *paths))]
    options = ("-m", "--raw", "--no-abbrev", "--no-renames", "--reverse")
    out = repo.git(*LOG, *options, f"--format=%x1e{FIELDS}%x1e", f"{start}..{tip}", "--", *paths)
    parts = out.decode(errors="surrogateescape").split("\x1e")[1:]
    for head, rows in zip(parts[::2], parts[1::2], strict=True):
        fields = [field for field in re.split(r"[\0\n]", rows) if field]
        after = dict(states[-1])
        for raw, path in zip(fields[::2], fields[1::2], strict=True):
            _, mode, _, oid, _ = raw.split()
            after[path] = Blob(mode=mode, oid=oid)
        states.append(_contents(after))
        commits.append(_commit(head))
    return commits, states


def _contents(files: Mapping[str, Blob]) -> dict[str, Blob]:
    return {path: blob for path, blob in files.items() if blob.mode not in {GONE, SUBMODULE}}


def _commit(text: str) -> Commit:
    oid, author, when, subject = text.strip("\0\n").split("\x1f")
    named = REQUEST.search(subject)
    request = next(filter(None, named.groups())) if named else None
    return Commit(oid=oid, author=author, when=when, subject=subject, request=request)


def submodule_of(patch: Patch, *trees: Mapping[str, Blob]) -> str | None:
    """Return the submodule in which a patch changes files, in one of the trees."""
    parents = {p[:at] for p in paths_of([patch]) for at, char in enumerate(p) if char == "/"}
    found = (p for files in trees for p in parents & files.keys() if files[p].mode == SUBMODULE)
    return min(found, default=None)


def try_series(
    files: Mapping[str, Blob],
    read: Reader,
    patches: Sequence[Patch],
    results: dict[str, Files] | None = None,
) -> list[PatchStatus]:
    """Try a series on files; a patch that does not apply is left out for those after it."""
    simulation = Simulation(files, read, paths_of(patches), results)
    return [try_patch(simulation, patch) for patch in patches]


class Walk:
    """A series tried on states of upstream's files: the first, and the one after each commit."""

    def __init__(
        self,
        patches: Sequence[Patch],
        states: Sequence[Mapping[str, Blob]],
        read: Reader,
        commits: Sequence[Commit] = (),
    ) -> None:
        self.patches, self.states, self.read, self.commits = patches, states, read, commits
        # What each patch made of its files where it last applied.
        self.results: dict[str, Files] = {}
        # The status of each patch at each state.
        self.statuses = list(self._follow())

    def _follow(self) -> Iterator[list[PatchStatus]]:
        current = try_series(self.states[0], self.read, self.patches, self.results)
        yield current
        for before, after in itertools.pairwise(self.states):
            changed = {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
            # Most commits touch few patches: the others stay as they were.
            numbers = self.numbers_on(changed)
            patches = [self.patches[number] for number in numbers]
            again = try_series(after, self.read, patches, self.results)
            new = dict(zip(numbers, again, strict=True))
            current = [new.get(number, status) for number, status in enumerate(current)]
            yield current

    def numbers_on(self, paths: set[str]) -> list[int]:
        """Return the numbers of patches that change some files or, with others, build on them."""
        numbers = [n for n, patch in enumerate(self.patches) if paths_of([patch]) & paths]
        further = paths | paths_of([self.patches[number] for number in numbers])
        return numbers if further == paths else self.numbers_on(further)

    def simulation_at(self, n: int, numbers: Iterable[int]) -> Simulation:
        """Return state n with those of some patches that apply to it."""
        simulation = Simulation(self.states[n], self.read, paths_of(self.patches))
        for number in numbers:
            try_patch(simulation, self.patches[number])
        return simulation
