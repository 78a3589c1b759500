"""Refuse unsafe or incomplete patches before git reads them, and warn about odd ones."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from patchwheel.kit.errors import PatchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from patchwheel.patch.diff import FileDiff
    from patchwheel.patch.mail import Patch

LINK = "120000"
SUBMODULE = "160000"
MODES = {"100644", "100755", LINK}
URL = r"https?://\S+"
# The vocabulary of OpenEmbedded: a pattern for what follows the word, and the form to show.
STATUSES = {
    "Pending": (r"(\[.+\])?", "Pending"),
    "Submitted": (rf"\[{URL}\]", "Submitted [URL of the pull request]"),
    "Backport": (rf"\[({URL}|[0-9a-f]{{7,40}})\]", "Backport [commit or URL]"),
    "Denied": (r"\[.+\]", "Denied [reason or URL]"),
    "Inappropriate": (r"\[.+\]", "Inappropriate [reason]"),
}
REQUIRES = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)/([A-Za-z0-9][A-Za-z0-9._+-]*)")
# A binary file of this size makes every clone of the project slower for good.
LARGE = 100_000
# Code points that HFS+ ignores in names: `.g\u200cit` is `.git` there.
IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")


def check_patch(patch: Patch) -> None:
    """Raise PatchError, with the line, for a malformed or unsafe patch or a missing trailer."""
    diffs = patch.diffs
    seen: dict[str, FileDiff] = {}
    for diff in diffs:
        _check_modes(patch, diff)
        for path in diff.paths:
            if problem := path_problem(path):
                patch.fail(f"{path!r} {problem}", line=diff.line)
        _check_twice(patch, diff, seen.get(diff.path))
        seen[diff.path] = diff
    links = {d.new: d for d in diffs if d.new and _mode(d) == LINK}
    for diff in diffs:
        for link in links:
            if diff.path.startswith(f"{link}/"):
                problem = f"{diff.path!r} goes through the symbolic link {link!r}"
                patch.fail(problem, line=diff.line)
    check_status(patch)
    for value in patch.trailer("Requires"):
        if not REQUIRES.fullmatch(value):
            patch.fail(
                f"cannot read `Requires: {value}`",
                line=_line(patch, "Requires"),
                expected="Requires: FORK/PATCH",
            )


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
        if re.search(r"(?m)^---\s*$", patch.mail.message):
            yield f"{where}: `git am` drops what its message says after the line `---`"
        if any(diff.binary for diff in patch.diffs) and len(patch.data) > LARGE:
            yield f"{where}: {len(patch.data):,} bytes, with a binary file in them"
        for line, problem in _odd_diffs(patch, known):
            yield f"{where}:{line}: {problem}"


def _odd_diffs(patch: Patch, known: dict[str, str]) -> Iterator[tuple[int, str]]:
    """Give line and problem; `known` maps casefolded paths to paths, and is brought up to date."""
    for diff in patch.diffs:
        if diff.old and diff.removes_old:
            known.pop(diff.old.casefold(), None)
    for diff in patch.diffs:
        path = diff.path
        if path == ".gitmodules":
            yield diff.line, f"{path}: submodules are plain files of the source tree"
        if diff.old and diff.old_mode and diff.new_mode:
            yield diff.line, f"the mode of {path} becomes {diff.new_mode}"
        new = diff.new not in {None, diff.old}
        twin = known.setdefault(path.casefold(), path) if new else path
        if twin != path:
            yield diff.line, f"{path} and {twin} are one file where case does not count"


def path_problem(path: str) -> str | None:
    """Return why a path of a patch is unsafe on some system, or None."""
    parts = path.split("/")
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
    if not text or "\n" in text or "\0" in text:
        return "has no plain target"
    if text.startswith("/"):
        return f"points to the absolute path {text!r}"
    resolved = posixpath.normpath(posixpath.join(posixpath.dirname(path), text))
    if problem := resolved != "." and path_problem(resolved):
        return f"points to {text!r}, which {problem}"
    return None


def check_status(patch: Patch) -> None:
    """Raise PatchError unless there is one Upstream-Status trailer, with a value of STATUSES."""
    values = patch.trailer("Upstream-Status")
    forms = " | ".join(form for _, form in STATUSES.values())
    if len(values) != 1:
        problem = "two Upstream-Status trailers" if values else "no Upstream-Status trailer"
        if not values and re.search(r"(?m)^Upstream-Status:", patch.mail.message):
            problem += " in its last paragraph"
        patch.fail(
            f"the message has {problem}",
            line=_line(patch, "Upstream-Status"),
            expected=f"Upstream-Status: {forms}",
            hint="end the message with that line: `git commit --amend` in `patchwheel dev {fork}`, "
            "then `patchwheel export {fork}`",
        )
    word, _, rest = values[0].partition(" ")
    if word not in STATUSES or not re.fullmatch(STATUSES[word][0], rest.strip()):
        patch.fail(
            f"cannot read `Upstream-Status: {values[0]}`",
            line=_line(patch, "Upstream-Status"),
            expected=STATUSES[word][1] if word in STATUSES else forms,
        )


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
                    raise PatchError(
                        f"Requires: {value}, and there is no such patch"
                        + (" before it in its series" if required == fork else ""),
                        where=f"{patch.path}:{_line(patch, 'Requires')}",
                        hint=f"add the patch to patches/{required}, or correct the trailer",
                    )


def _check_modes(patch: Patch, diff: FileDiff) -> None:
    for mode in (diff.old_mode, diff.new_mode):
        if mode == SUBMODULE:
            patch.fail(
                f"{diff.path} is a submodule, whose commit a patch cannot change",
                line=diff.line,
                hint="patch the files in it: the source tree holds them as plain files",
            )
        if mode is not None and mode not in MODES:
            patch.fail(
                f"{diff.path} has the mode {mode}",
                line=diff.line,
                expected=", ".join(sorted(MODES)),
            )
    if not (diff.new and _mode(diff) == LINK and diff.hunks):
        return
    if problem := link_problem(diff.new, b"".join(diff.hunks[0].after)):
        patch.fail(f"the symbolic link {diff.new!r} {problem}", line=diff.hunks[0].line)


def _check_twice(patch: Patch, diff: FileDiff, before: FileDiff | None) -> None:
    if before is None:
        return
    # A file that becomes a link is written as its removal and a new file.
    retyped = before.new is None and diff.old is None
    if not retyped:
        patch.fail(f"{diff.path} is changed twice, first in line {before.line}", line=diff.line)


def _mode(diff: FileDiff) -> str | None:
    return diff.new_mode or diff.old_mode


def _line(patch: Patch, key: str) -> int:
    """Return the line of a trailer, or else of the first diff."""
    lines = patch.data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if line.lower().startswith(key.lower().encode() + b":"):
            return number
    return next((n for n, x in enumerate(lines, 1) if x.startswith(b"diff ")), 1)
