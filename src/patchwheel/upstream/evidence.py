"""What a commit of upstream's has in common with a patch: lines, hunks, and its first release."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from patchwheel.kit import GitError, Repository
from patchwheel.patch import SIGNIFICANT, Hunk, Patch

Lines = Counter[bytes]

# Above this share of its lines, a patch is said to be in a commit; each side needs the lower one,
# since a commit that rewrites the same place removes the same lines.
ENOUGH, EACH = 0.7, 0.5
# Whole commits of more files (new line ends, another formatter) say nothing about one patch.
MANY_FILES = 300
# A hunk is shown up to this line.
SHOWN = 40
DIFF = ("diff-tree", "-r", "-p", "--no-renames", "--no-ext-diff", "--no-textconv")
PART = re.compile(rb"(?m)^diff --git ")
HUNK = re.compile(rb"(?m)^(?=@@ -\d)")


def files_of(repo: Repository, oid: str) -> set[str]:
    """Return the paths that a commit changes, against its first parent."""
    return {change.path for change in repo.changes(f"{oid}^", oid)}


def diff_of(repo: Repository, oid: str, paths: Iterable[str]) -> bytes:
    """Return the diff of a commit, or of some paths where it changes very many files."""
    if len(files_of(repo, oid)) <= MANY_FILES:
        # Of a partial clone, offline, other files of the commit cannot be had.
        with contextlib.suppress(GitError):
            return repo.git(*DIFF, f"{oid}^", oid)
    return repo.git(*DIFF, f"{oid}^", oid, "--", *sorted(paths))


def changed_lines(diff: bytes) -> tuple[Lines, Lines]:
    """Count the significant lines that a diff adds and removes, without white space around them.

    What a file loses and gets again, moved or indented or with another line end, is no change.
    """
    added: Lines = Counter()
    removed: Lines = Counter()
    for part in PART.split(diff)[1:]:
        rows = part.partition(b"\n@@ ")[2].split(b"\n")
        plus, minus = (
            Counter(r[1:].strip() for r in rows if r[:1] == mark and SIGNIFICANT.search(r))
            for mark in (b"+", b"-")
        )
        added += plus - minus
        removed += minus - plus
    return added, removed


def net_lines(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> tuple[Lines, Lines]:
    """Count what `changed_lines` does, without a diff, for files in one piece."""
    added, removed = Counter[bytes](), Counter[bytes]()
    for path in before.keys() | after.keys():
        if before.get(path) != after.get(path):
            old, new = (_lines(files.get(path, b"")) for files in (before, after))
            added, removed = added + (new - old), removed + (old - new)
    return added, removed


def _lines(data: bytes) -> Lines:
    return Counter(line.strip() for line in data.split(b"\n") if SIGNIFICANT.search(line))


def share(patch: Patch, theirs: tuple[Lines, Lines], files: Mapping[str, bytes]) -> float:
    """Return which part of the lines that a patch adds and removes others have too, 0 to 1.

    Lines that its `files` have elsewhere too say nothing: a large commit has all of them.
    """
    common = sum(map(_lines, files.values()), Counter[bytes]())
    added, removed = changed_lines(patch.data)
    ours = (
        Counter({line: n for line, n in added.items() if not common[line]}),
        Counter({line: n for line, n in removed.items() if common[line] <= n}),
    )
    # What only removes has landed, is moot, or meets a rewrite, which removes the same lines.
    if not ours[0]:
        return 0.0
    # Additions cannot be told from a rewrite of the same place by what is removed, nor vice versa.
    pairs = [(o.total(), (o & t).total()) for o, t in zip(ours, theirs, strict=True)]
    if any(found < EACH * total for total, found in pairs):
        return 0.0
    return sum(found for _, found in pairs) / max(sum(total for total, _ in pairs), 1)


def has_lost(patch: Patch, diff: bytes) -> bool:
    """Say whether a commit takes away all lines that the hunks of a patch find."""
    added, removed = changed_lines(diff)
    found = [lines for _, lines in _found(patch)]
    return bool(found) and all(lines and lines <= removed - added for lines in found)


def keeps_place(patch: Patch, files: Mapping[str, bytes]) -> bool:
    """Say whether files have at least half of the lines that some hunk of the patch finds."""
    there = {path: _lines(data) for path, data in files.items()}
    return any(
        2 * (lines & there.get(path, Counter())).total() > lines.total()
        for path, lines in _found(patch)
    )


def _found(patch: Patch) -> list[tuple[str, Lines]]:
    """Return the file of each hunk, and the lines that the hunk finds there."""
    diffs = [diff for diff in patch.diffs if diff.old]
    return [(diff.path, _lines(b"".join(hunk.before))) for diff in diffs for hunk in diff.hunks]


def side_by_side(hunk: Hunk, diff: bytes) -> tuple[str, str]:
    """Return a hunk of a patch, and the one of a diff of its file that meets it, as text."""
    mine = {row.strip() for row in hunk.before if SIGNIFICANT.search(row)}

    def nearness(text: bytes) -> tuple[int, int]:
        rows = text.split(b"\n")[1:]
        met = sum(row[1:].strip() in mine for row in rows if row[:1] == b"-")
        near = sum(row[1:].strip() in mine for row in rows)
        return met, near

    hunks = [part for part in HUNK.split(diff) if part.startswith(b"@@ ")]
    theirs = max(hunks, key=nearness, default=b"")
    ours = b"@@ -%d +%d @@\n" % (hunk.old_start, hunk.new_start) + b"".join(hunk.rows)
    return _shown(ours), _shown(theirs)


def _shown(hunk: bytes) -> str:
    lines = hunk.decode(errors="replace").rstrip("\n").split("\n")
    more = [f"... {len(lines) - SHOWN} more lines"] if len(lines) > SHOWN else []
    return "\n".join([*lines[:SHOWN], *more])


def first_release(repo: Repository, oid: str) -> str | None:
    """Return the tag of the first release that contains a commit, by its version.

    A pre-release comes after all others.
    """
    from packaging.version import Version

    found = []
    for tag in repo.text("tag", "--list", "--contains", oid).split():
        with contextlib.suppress(ValueError):
            version = Version(re.sub(r"^\D*", "", tag))
            found += [] if version.is_devrelease else [(version.is_prerelease, version, tag)]
    return min(found)[-1] if found else None


def merged_commits(repo: Repository, oid: str) -> list[Sequence[str]]:
    """Return id, author and subject of the commits that a merge brought in, merges left out."""
    out = repo.git("log", "-z", "--no-merges", "--format=%H%x1f%an <%ae>%x1f%s", f"{oid}^..{oid}")
    rows = out.decode(errors="replace").split("\0")
    return [row.strip().split("\x1f") for row in rows if row.strip()]
