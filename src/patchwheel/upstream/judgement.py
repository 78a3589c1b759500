"""One judgement of a patch for the forecast, the dry run of a rebase and each of its stops.

History says which commit matters, git's merge what a rebase would do there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from patchwheel.kit import InputError, Repository
from patchwheel.manifest import Fork
from patchwheel.patch import paths_of
from patchwheel.project import Project
from patchwheel.series import light_tree
from patchwheel.upstream.forecast import follow
from patchwheel.upstream.history import import_pin, label_of, release, upstream_history
from patchwheel.upstream.merge import MergeResult, dry_run
from patchwheel.upstream.verdict import DROPPED, Verdict


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
    skip = (
        f"if that commit has what the patch is for, `patchwheel rebase {fork.name} --skip` drops it"
    )
    return [
        "\n  ".join(["", *describe(v), *([skip] if v.state in DROPPED else [])]) if v else ""
        for v in (patch.verdict for patch in preview_rebase(project, fork, ref))
    ]


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
