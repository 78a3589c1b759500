"""What a patch must not do, checked before git sees it."""

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
STATUSES = {
    "Pending": (r"(\[.+\])?", "Pending"),
    "Submitted": (rf"\[{URL}\]", "Submitted [URL of the pull request]"),
    "Backport": (rf"\[({URL}|[0-9a-f]{{7,40}})\]", "Backport [commit or URL]"),
    "Denied": (r"\[.+\]", "Denied [reason or URL]"),
    "Inappropriate": (r"\[.+\]", "Inappropriate [reason]"),
}
REQUIRES = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)/([A-Za-z0-9][A-Za-z0-9._+-]*)")
LARGE = 100_000
# Code points that HFS+ ignores in names: `.g\u200cit` is `.git` there.
IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")


def check_patch(patch: Patch) -> None:
    """Raise PatchError, with the line, for a patch that is malformed, unsafe or lacks its trailers."""
    diffs = patch.diffs
    made: dict[str, FileDiff] = {}
    for diff in diffs:
        _check_modes(patch, diff)
        for path in {diff.old, diff.new} - {None}:
            if problem := path_problem(str(path)):
                patch.fail(f"{path!r} {problem}", line=diff.line)
        _check_twice(patch, diff, made.get(diff.path))
        made[diff.path] = diff
    links = {d.new: d for d in diffs if d.new and _mode(d) == LINK}
    for diff in diffs:
        for link in links:
            if diff.path.startswith(f"{link}/"):
                patch.fail(
                    f"{diff.path!r} goes through the symbolic link {link!r}",
                    line=diff.line,
                )
    check_status(patch)
    for value in patch.trailer("Requires"):
        if not REQUIRES.fullmatch(value):
            patch.fail(
                f"cannot read `Requires: {value}`",
                line=_line(patch, "Requires"),
                expected="Requires: FORK/PATCH",
            )


def warnings(patches: Sequence[Patch], files: Iterable[str]) -> Iterator[str]:
    """Tell what is allowed, and hardly meant, in sound patches to the source tree with `files`."""
    numbers: dict[str, str] = {}
    known = {path.casefold(): path for path in files}
    for patch in patches:
        where = f"{patch.fork}/{patch.name}"
        number = re.match(r"\d+", patch.name)
        other = numbers.setdefault(number[0], patch.name) if number else patch.name
        if other != patch.name:
            yield f"{where}: has the number of {other}; only the series orders them"
        if re.search(r"(?m)^---\s*$", patch.mail.message):
            yield f"{where}: `git am` drops what its message says after the line `---`"
        if any(diff.binary for diff in patch.diffs) and len(patch.data) > LARGE:
            yield f"{where}: {len(patch.data):,} bytes, with a binary file in them"
        for line, odd in _odd_diffs(patch, known):
            yield f"{where}:{line}: {odd}"


def _odd_diffs(patch: Patch, known: dict[str, str]) -> Iterator[tuple[int, str]]:
    """`known` holds the files so far, by their names where case does not count."""
    for old in {d.old for d in patch.diffs if d.old and d.old != d.new and not d.copy}:
        known.pop(old.casefold(), None)
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
    """Say why a path of a patch is unsafe on some system, or None."""
    parts = path.split("/")
    if path.startswith("/"):
        return "is an absolute path"
    if not all(parts) or "." in parts:
        return "is not a plain path"
    if ".." in parts:
        return "escapes the source tree"
    for part in parts:
        name = IGNORED.sub("", part).partition(":")[0].rstrip(" .").casefold()
        if name == ".git" or re.fullmatch(r"git~\d+", name):
            return "reaches into a .git folder"
    return None


def link_problem(path: str, target: bytes) -> str | None:
    """Say why a symbolic link at `path` is unsafe, or None."""
    text = target.decode(errors="surrogateescape")
    if not text or "\n" in text or "\0" in text:
        return "has no plain target"
    if text.startswith("/"):
        return f"points to the absolute path {text!r}"
    whole = posixpath.normpath(posixpath.join(posixpath.dirname(path), text))
    if problem := whole != "." and path_problem(whole):
        return f"points to {text!r}, which {problem}"
    return None


def check_status(patch: Patch) -> None:
    """Require one Upstream-Status trailer of the known vocabulary."""
    found = patch.trailer("Upstream-Status")
    forms = " | ".join(form for _, form in STATUSES.values())
    if len(found) != 1:
        written = re.search(r"(?m)^Upstream-Status:", patch.mail.message)
        where = " in its last paragraph" if written and not found else ""
        patch.fail(
            f"the message has {'two' if found else 'no'} Upstream-Status trailer{'s' if found else where}",
            line=_line(patch, "Upstream-Status"),
            expected=f"Upstream-Status: {forms}",
            hint="end the message with that line: `git commit --amend` in `patchwheel dev {fork}`, "
            "then `patchwheel export {fork}`",
        )
    word, _, rest = found[0].partition(" ")
    if word not in STATUSES or not re.fullmatch(STATUSES[word][0], rest.strip()):
        patch.fail(
            f"cannot read `Upstream-Status: {found[0]}`",
            line=_line(patch, "Upstream-Status"),
            expected=STATUSES[word][1] if word in STATUSES else forms,
        )


def check_requires(forks: Mapping[str, Sequence[Patch]]) -> None:
    """Check every `Requires` trailer against all the series; within one, the required patch comes first."""
    for fork, patches in forks.items():
        for place, patch in enumerate(patches):
            for value in patch.trailer("Requires"):
                other, _, name = value.partition("/")
                known = patches[:place] if other == fork else forks.get(other, ())
                if not any(name in {p.name, p.path.stem} for p in known):
                    raise PatchError(
                        f"Requires: {value}, and there is no such patch"
                        + (" before it in its series" if other == fork else ""),
                        where=f"{patch.path}:{_line(patch, 'Requires')}",
                        hint=f"add the patch to patches/{other}, or correct the trailer",
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
    # A file that becomes a link is written as its removal and a new file.
    retyped = before is not None and before.new is None and diff.old is None
    if before is not None and not retyped:
        patch.fail(f"{diff.path} is changed twice, first in line {before.line}", line=diff.line)


def _mode(diff: FileDiff) -> str | None:
    return diff.new_mode or diff.old_mode


def _line(patch: Patch, key: str) -> int:
    """Find the line of a trailer, or the one after the message."""
    lines = patch.data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if line.lower().startswith(key.lower().encode() + b":"):
            return number
    return next((n for n, x in enumerate(lines, 1) if x.startswith(b"diff ")), 1)
