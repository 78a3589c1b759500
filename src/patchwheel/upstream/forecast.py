"""What a series meets in upstream's later history: which commit breaks a patch, and which took it.

Only the commits that touch the patched paths matter, one in twenty to fifty. Commits are those of
the first parents: a merged pull request counts as one.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from patchwheel.kit.repo import Blob
from patchwheel.patch.lint import SUBMODULE
from patchwheel.upstream.merge import patch_paths
from patchwheel.upstream.verdict import Verdict, judge
from patchwheel.upstream.walk import Commit, PatchTimeline, Walk, try_series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from patchwheel.kit.repo import Repository
    from patchwheel.series.files import Patch

REMOVED = "0" * 40
FIELDS = "%H%x1f%an%x1f%aI%x1f%s"
REQUEST = re.compile(r"\(#(\d+)\)|^Merge pull request #(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The verdicts on a series at a ref; `commits` is how many commits up to it touch the series.

    A release that was read from its sdist has no `commit`, and no `commits`.
    """

    ref: str
    commit: str | None
    commits: int
    patches: tuple[Verdict, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    def without(self, known: Iterable[object]) -> Forecast:
        """Return the forecast without the verdicts that are `known`, in the form of `to_json`."""
        old = list(known)
        new = tuple(v for v in self.patches if json.loads(json.dumps(asdict(v))) not in old)
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
    fetch_blobs: Callable[[Iterable[str]], None],
) -> Forecast:
    """Follow a series through upstream's history; `fetch_blobs` is given the blobs it needs."""
    # A pin on a release branch is followed from where that branch left the ref's.
    start = repo.text("merge-base", span.base, span.tip)
    paths = sorted({path for patch in patches for path in patch_paths(patch)})
    changes = list(_changes(repo, start, span.tip, paths))
    commits = [commit for commit, _ in changes]
    states = _states(repo.files(repo.tree_of(start), *paths) if paths else {}, changes)
    blobs = (blob for files in states for blob in files.values() if blob.mode != SUBMODULE)
    oids = sorted({blob.oid for blob in blobs})
    # One request and one process for all states: later ones share most files with earlier ones.
    fetch_blobs(oids)
    contents = repo.read(oids)
    walk = Walk(patches, states, lambda _oids: contents)
    # Once more among all files of the tip: messages name those that are like a missing one.
    files = repo.files(repo.tree_of(span.tip))
    last = try_series(files, walk.read, patches, walk.results)
    log = list(_log(repo, start, span.tip)) if patches else []
    verdicts = []
    for number, (patch, status) in enumerate(zip(patches, last, strict=True)):
        if module := _submodule(patch, files):
            problem = f"it changes files of the submodule {module}, whose history is not followed"
            verdicts.append(Verdict(name=patch.name, state="unknown", problem=problem))
        else:
            verdicts.append(judge(repo, PatchTimeline(walk, number, commits), status, log))
    return Forecast(ref=span.ref, commit=span.tip, commits=len(commits), patches=tuple(verdicts))


def _states(
    files: Mapping[str, Blob], changes: Iterable[tuple[Commit, Mapping[str, Blob]]]
) -> list[dict[str, Blob]]:
    """Return the files at the start, and after each commit."""
    states = [{path: blob for path, blob in files.items() if blob.mode != SUBMODULE}]
    for _, changed in changes:
        after = {**states[-1], **changed}
        states.append({path: blob for path, blob in after.items() if blob.oid != REMOVED})
    return states


def _changes(
    repo: Repository, start: str, tip: str, paths: Sequence[str]
) -> Iterator[tuple[Commit, dict[str, Blob]]]:
    """Yield, oldest first, the commits that touch the paths, with what they made of them."""
    argv = ["log", "--first-parent", "-m", "--raw", "-z", "--no-abbrev", "--no-renames"]
    argv += ["--reverse", f"--format=%x1e{FIELDS}%x1e", f"{start}..{tip}", "--", *paths]
    parts = repo.git(*argv).decode(errors="surrogateescape").split("\x1e")[1:]
    for head, rows in zip(parts[::2], parts[1::2], strict=True):
        fields = [field for field in re.split(r"[\0\n]", rows) if field]
        changed = {}
        for raw, path in zip(fields[::2], fields[1::2], strict=True):
            _, mode, _, oid, _ = raw.split()
            changed[path] = Blob(mode=mode, oid=oid)
        yield _commit(head), changed


def _log(repo: Repository, start: str, tip: str) -> Iterator[Commit]:
    argv = ("log", "--first-parent", "-z", f"--format={FIELDS}", f"{start}..{tip}")
    out = repo.git(*argv).decode(errors="surrogateescape")
    return map(_commit, filter(None, out.split("\0")))


def _commit(text: str) -> Commit:
    oid, author, when, subject = text.strip("\0\n").split("\x1f")
    named = REQUEST.search(subject)
    request = next(filter(None, named.groups())) if named else None
    return Commit(oid=oid, author=author, when=when, subject=subject, request=request)


def _submodule(patch: Patch, files: Mapping[str, Blob]) -> str | None:
    """Return the submodule in which a patch changes files."""
    parents = {p[:at] for p in patch_paths(patch) for at, char in enumerate(p) if char == "/"}
    found = sorted(p for p in parents if p in files and files[p].mode == SUBMODULE)
    return found[0] if found else None
