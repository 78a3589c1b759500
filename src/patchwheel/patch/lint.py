"""Refuse unsafe or incomplete patches before git reads them, and warn about odd ones."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from patchwheel.patch.diff import FileDiff
from patchwheel.patch.file import LINK, SUBMODULE, Patch

MODES = {"100644", "100755", LINK}
# The vocabulary of OpenEmbedded.
STATUS = re.compile(
    r"Pending(\s+\[.+\])?|Submitted\s+\[https?://\S+\]|(Denied|Inappropriate)\s+\[.+\]"
    r"|Backport\s+\[(https?://\S+|[0-9a-f]{7,40})\]"
)
STATUSES = (
    "Pending | Submitted [URL of the pull request] | Backport [commit or URL] | "
    "Denied [reason or URL] | Inappropriate [reason]"
)
REQUIRES = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)/([A-Za-z0-9][A-Za-z0-9._+-]*)")
# A binary file of this size makes every clone of the project slower for good.
LARGE = 100_000
# What Linux takes.
MAX_PATH = 4096
# Code points that HFS+ ignores in names: `.g\u200cit` is `.git` there.
IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")


def check_patch(patch: Patch) -> None:
    """Raise PatchError, with the line, for a malformed or unsafe patch or a missing trailer."""
    seen: dict[str, FileDiff] = {}
    links = {diff.new for diff in patch.diffs if diff.mode == LINK}
    for diff in patch.diffs:
        _check_modes(patch, diff)
        for path in diff.paths:
            if problem := path_problem(path):
                patch.fail(f"{path!r} {problem}", line=diff.line)
        # A file that becomes a link is written as its removal and a new file.
        if (before := seen.get(diff.path)) and (before.new is not None or diff.old is not None):
            patch.fail(f"{diff.path} is changed twice, first in line {before.line}", line=diff.line)
        seen[diff.path] = diff
        for above in map(str, PurePosixPath(diff.path).parents):
            if above in links:
                problem = f"{diff.path!r} goes through the symbolic link {above!r}"
                patch.fail(problem, line=diff.line)
    _check_status(patch)
    for value in patch.trailer("Requires"):
        if not REQUIRES.fullmatch(value):
            line = _line(patch, "Requires")
            patch.fail(f"cannot read `Requires: {value}`", line=line, expected="FORK/PATCH")


def warnings(patches: Sequence[Patch], files: Iterable[str]) -> Iterator[str]:
    """Name what is allowed but probably a mistake, in patches to a source tree with `files`."""
    numbers: dict[str, str] = {}
    known = {path.casefold(): path for path in files}
    for patch in patches:
        where = f"{patch.fork}/{patch.name}"
        number = re.match(r"\d+", patch.name)
        first = numbers.setdefault(number[0], patch.name) if number else patch.name
        if first != patch.name:
            yield f"{where}: has the number of {first}; only the series orders them"
        # A series keeps such text, but whoever sends the patch upstream loses it.
        if re.search(r"(?m)^---$", patch.mail.message):
            yield f"{where}: `git am` drops what its message says after the line `---`"
        if any(diff.binary for diff in patch.diffs) and len(patch.data) > LARGE:
            yield f"{where}: {len(patch.data):,} bytes, with a binary file in them"
        for path in filter(None, (diff.removed for diff in patch.diffs)):
            known.pop(path.casefold(), None)
        for diff in patch.diffs:
            path, here = diff.path, f"{where}:{diff.line}"
            if path == ".gitmodules":
                yield f"{here}: {path}: submodules are plain files of the source tree"
            if diff.old and diff.old_mode and diff.new_mode:
                yield f"{here}: the mode of {path} becomes {diff.new_mode}"
            new = diff.new not in {None, diff.old}
            twin = known.setdefault(path.casefold(), path) if new else path
            if twin != path:
                yield f"{here}: {path} and {twin} are one file where case does not count"


def path_problem(path: str) -> str | None:
    """Return why a path of a patch is unsafe on some system, or None."""
    parts = path.split("/")
    if len(path) > MAX_PATH or "\0" in path:
        return f"holds a NUL, or more than {MAX_PATH:,} characters"
    if path.startswith("/"):
        return "is an absolute path"
    if not all(parts) or "." in parts:
        return "is not a plain path"
    if ".." in parts:
        return "escapes the source tree"
    # Windows drops blanks and dots at the end and calls a stream `.git::$INDEX`; its short name
    # for .git is git~1.
    for part in parts:
        name = IGNORED.sub("", part).partition(":")[0].rstrip(" .").casefold()
        if name == ".git" or re.fullmatch(r"git~\d+", name):
            return "reaches into a .git folder"
    return None


def link_problem(path: str, target: bytes) -> str | None:
    """Return why a symbolic link at `path` is unsafe, or None."""
    text = target.decode(errors="surrogateescape")
    if not text or set(text) & set("\n\0"):
        return "has no plain target"
    if text.startswith("/"):
        return f"points to the absolute path {text!r}"
    resolved = posixpath.normpath(posixpath.join(posixpath.dirname(path), text))
    if problem := resolved != "." and path_problem(resolved):
        return f"points to {text!r}, which {problem}"
    return None


def check_requires(forks: Mapping[str, Sequence[Patch]]) -> None:
    """Raise PatchError for a `Requires` that names no patch, given the series of all forks.

    Within one series, the required patch must come first.
    """
    for fork, patches in forks.items():
        for place, patch in enumerate(patches):
            for value in patch.trailer("Requires"):
                required, _, name = value.partition("/")
                known = patches[:place] if required == fork else forks.get(required, ())
                if not any(name in {p.name, p.path.stem} for p in known):
                    where = " before it in its series" if required == fork else ""
                    problem = f"Requires: {value}, and there is no such patch{where}"
                    hint = f"add the patch to patches/{required}, or correct the trailer"
                    patch.fail(problem, line=_line(patch, "Requires"), hint=hint)


def required_patches(forks: Mapping[str, Sequence[Patch]], patch: Patch) -> list[Patch]:
    """Return a patch and what it requires of its own series, through other forks too, in order."""
    check_requires(forks)
    found = [patch]
    # What is found on the way is looked at in turn.
    for each in found:
        for value in each.trailer("Requires"):
            fork, _, name = value.partition("/")
            found += [p for p in forks[fork] if name in {p.name, p.path.stem} and p not in found]
    return [p for p in forks[patch.fork] if p in found]


def _check_status(patch: Patch) -> None:
    """Refuse a patch unless it has one Upstream-Status trailer with a value of STATUSES."""
    values = patch.trailer("Upstream-Status")
    line = _line(patch, "Upstream-Status")
    if len(values) != 1:
        problem = "two Upstream-Status trailers" if values else "no Upstream-Status trailer"
        if not values and re.search(r"(?m)^Upstream-Status:", patch.mail.message):
            problem += " in its last paragraph"
        expected = f"a last paragraph with Upstream-Status: {STATUSES}"
        patch.fail(f"the message has {problem}", line=line, expected=expected)
    if not STATUS.fullmatch(values[0]):
        patch.fail(f"cannot read `Upstream-Status: {values[0]}`", line=line, expected=STATUSES)


def _check_modes(patch: Patch, diff: FileDiff) -> None:
    for mode in (diff.old_mode, diff.new_mode):
        if mode == SUBMODULE:
            problem = f"{diff.path} is a submodule, whose commit a patch cannot change"
            hint = "patch the files in it: the source tree holds them as plain files"
            patch.fail(problem, line=diff.line, hint=hint)
        if mode is not None and mode not in MODES:
            expected = ", ".join(sorted(MODES))
            patch.fail(f"{diff.path} has the mode {mode}", line=diff.line, expected=expected)
    for hunk in diff.hunks[:1] if diff.mode == LINK else ():
        if why := diff.new and link_problem(diff.new, b"".join(hunk.after)):
            patch.fail(f"the symbolic link {diff.new!r} {why}", line=hunk.line)


def _line(patch: Patch, key: str) -> int:
    """Return the line of a trailer, or else of the first diff."""
    match = re.search(b"(?im)^%s:" % key.encode(), patch.plain)
    return patch.plain.count(b"\n", 0, match.start()) + 1 if match else patch.diffs[0].line
