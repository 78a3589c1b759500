"""Apply a series in memory: where each hunk goes and, when one does not apply, why.

The rules are those of `git apply` without fuzz. Where git is more lenient than a series should
be, this refuses: it never chooses between two places for a hunk, and accepts no unsafe link.
git could tell what applies (`git apply --check`), but not for hundreds of commits in seconds.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Never

from patchwheel.kit import Blob, PatchError, blob_id
from patchwheel.patch import matching
from patchwheel.patch.diff import FileDiff, Hunk, split_lines
from patchwheel.patch.file import LINK, SUBMODULE, Patch
from patchwheel.patch.lint import link_problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A file during a simulation; `data` is None where only the id is known (binary changes)."""

    mode: str
    oid: str
    # The id stands for it when two are compared.
    data: bytes | None = field(default=None, compare=False)


Files = Mapping[str, Content | None]


@dataclass(eq=False, repr=False, kw_only=True)
class DoesNotApplyError(PatchError):
    """A patch does not apply, at the file `path`; `landed` if its change is already there."""

    path: str
    landed: bool = False
    # Its lines are in several places.
    ambiguous: bool = False


class Simulation:
    """The files of a tree, changed patch by patch; `read` gets the contents of blobs by their ids.

    Only files at `paths` have data. `results` maps the name of a patch to what it made of its
    files where it applied last, which may be another state of the tree.
    """

    def __init__(
        self,
        files: Mapping[str, Blob],
        read: Callable[[Sequence[str]], Mapping[str, bytes]],
        paths: Iterable[str],
        results: dict[str, Files] | None = None,
    ) -> None:
        self.files = files
        self.results = {} if results is None else results
        blobs = {path: files[path] for path in paths if path in files}
        # In one process; the id of a submodule is a commit of another repository.
        data = read([b.oid for b in blobs.values() if b.mode != SUBMODULE])
        self.state: dict[str, Content | None] = {
            p: Content(mode=b.mode, oid=b.oid, data=data.get(b.oid)) for p, b in blobs.items()
        }

    def get(self, path: str) -> Content | None:
        """Return a file as it is now."""
        return self.state[path] if path in self.state else self.original(path)

    def original(self, path: str) -> Content | None:
        """Return a file of the tree without its data."""
        blob = self.files.get(path)
        return Content(mode=blob.mode, oid=blob.oid) if blob else None

    def changed(self) -> Files:
        """Return the files that differ from the tree at the beginning."""
        return {path: now for path, now in self.state.items() if now != self.original(path)}

    def apply(self, patch: Patch) -> list[int]:
        """Apply a patch, all or nothing; return the offset of each hunk from its place, in lines.

        Raises DoesNotApplyError.
        """
        step = _Step(self, patch)
        try:
            for diff in patch.diffs:
                step.apply_diff(diff)
        except DoesNotApplyError as err:
            if not self.has_landed(patch):
                raise
            reason = "holds all that it changes" if self.get(err.path) else "is gone"
            raise DoesNotApplyError(
                f"{patch.name} is already applied (landed?): {err.path} {reason}",
                where=f"{patch.path}:{patch.diffs[0].line}",
                path=err.path,
                landed=True,
                hint=f"if upstream took it, remove it from the series of {patch.fork}",
            ) from err
        self.state.update(step.changed)
        self.results[patch.name] = step.changed
        return step.offsets

    def has_landed(self, patch: Patch) -> bool:
        """Whether all that the patch adds is there, and all that it removes is gone."""
        results = self.results.get(patch.name, {})
        return all(map(self._has_added, patch.diffs)) and not self.still_has(patch.diffs, results)

    def _has_added(self, diff: FileDiff) -> bool:
        if diff.removed and self.get(diff.removed):
            return False
        if diff.new is None:
            return True
        now = self.get(diff.new)
        if now is None or diff.new_mode not in {None, now.mode}:
            return False
        if diff.binary:
            return now.oid == diff.binary[1]
        lines = split_lines(now.data or b"")
        if diff.old is None and diff.hunks:
            return lines == diff.hunks[0].after
        # A hunk that makes nothing leaves an empty file.
        return all(
            matching.occurrences(lines, hunk.after) if hunk.after else not lines
            for hunk in diff.hunks
        )

    def still_has(
        self,
        diffs: Iterable[FileDiff],
        results: Files,
        *,
        moved: Mapping[str, str] | None = None,
        in_place: bool = False,
    ) -> str | None:
        """Name a file that still has what the diffs remove, or return None.

        `results` is what they made where they applied, `moved` maps files to their new paths.
        With `in_place`, removed lines count only beside their context.
        """
        for diff in diffs:
            if diff.removed and self.get(diff.removed):
                return diff.removed
            path = (moved or {}).get(diff.path, diff.path)
            now, result = self.get(path), results.get(diff.path)
            if diff.new is None or now is None or now.data is None:
                continue
            known = None if result is None or result.data is None else split_lines(result.data)
            lines = split_lines(now.data)
            if matching.has_removed_lines(lines, diff.hunks, known, in_place=in_place):
                return path
        return None


class _Step:
    """One patch while it is applied to the files `before` it: what it changed so far."""

    def __init__(self, before: Simulation, patch: Patch) -> None:
        self.before = before
        self.patch = patch
        self.changed: dict[str, Content | None] = {}
        self.offsets: list[int] = []
        # A file may be put in the place of one that another diff of the patch removes.
        self.removed = {diff.removed for diff in patch.diffs}

    def fail(self, diff: FileDiff, why: str, hunk: Hunk | None = None, **details: Any) -> Never:
        message = f"{self.patch.name} does not apply: {why}"
        where = f"{self.patch.path}:{(hunk or diff).line}"
        raise DoesNotApplyError(message, where=where, path=diff.path, **details)

    def apply_diff(self, diff: FileDiff) -> None:
        """Change one file; as in git, each diff reads the files as they were before the patch."""
        source = self.before.get(diff.old) if diff.old else None
        if diff.old and source is None:
            self.fail(diff, f"there is no file {diff.old}", hint=self.moved_hint(diff.old))
        if source and source.mode == SUBMODULE:
            self.fail(diff, f"{diff.old} is a submodule")
        if diff.new and diff.new != diff.old:
            self.check_free(diff, diff.new)
        result = self.result(diff, source)
        if result and result.oid and result == self.before.get(diff.path):
            self.fail(diff, f"it changes nothing in {diff.path}")
        # Not over a file that an earlier diff of the patch put there, as in a swap of two names.
        if diff.removed:
            self.changed.setdefault(diff.removed, None)
        if diff.new:
            self.changed[diff.new] = result

    def result(self, diff: FileDiff, source: Content | None) -> Content | None:
        old_mode = source.mode if source else "100644"
        mode = diff.new_mode or old_mode
        if diff.old_mode and source and (diff.old_mode == LINK) != (old_mode == LINK):
            self.fail(diff, f"{diff.old} has the mode {old_mode}, not {diff.old_mode}")
        if diff.binary:
            if source and source.oid != diff.binary[0]:
                self.fail(diff, f"the binary file {diff.old} is not the one the patch changes")
            return Content(mode=mode, oid=diff.binary[1])
        if source and source.data is None:
            # A binary change made this file, so only git knows its lines, and will judge.
            return Content(mode=mode, oid="" if diff.hunks else source.oid)
        data = b"".join(self.apply_hunks(diff, source.data or b"" if source else b""))
        if diff.new is None:
            if data:
                self.fail(diff, f"{diff.old} holds more than the patch removes")
            return None
        if mode == LINK and (problem := link_problem(diff.new, data)):
            self.fail(diff, f"the symbolic link {diff.new!r} {problem}")
        return Content(mode=mode, oid=blob_id(data), data=data)

    def apply_hunks(self, diff: FileDiff, data: bytes) -> list[bytes]:
        lines = split_lines(data)
        # git does not let a hunk match lines that another hunk of the patch wrote.
        written = bytearray(len(lines))
        for number, hunk in enumerate(diff.hunks, 1):
            size, after = len(hunk.before), hunk.after
            places = matching.match_places(lines, hunk, written)
            expected = matching.expected_place(hunk)
            if not places:
                self.fail_no_match(diff, number, hunk, lines)
            at = expected if expected in places else places[0]
            if at != expected and len(places) > 1:
                # git would take the nearest one without a warning.
                shown = ", ".join(str(place + 1) for place in places[:5])
                problem = f"hunk {number} is ambiguous: its lines occur {len(places)} times"
                problem += f" in {diff.old}, in lines {shown}"
                wanted = f"line {expected + 1}, or only one other place"
                self.fail(diff, problem, hunk, expected=wanted, ambiguous=True)
            self.offsets.append(at - expected)
            lines[at : at + size] = after
            written[at : at + size] = b"\1" * len(after)
        return lines

    def fail_no_match(self, diff: FileDiff, number: int, hunk: Hunk, lines: list[bytes]) -> Never:
        """Raise the error that shows the nearest match and its first line that differs."""
        before, path = hunk.before, diff.old or diff.new
        problem = f"hunk {number} does not match {path}"
        match = matching.nearest(lines, before)
        if match is None:
            self.fail(diff, f"{problem}, which holds nothing like it", hunk)
        start, equal = match
        if equal == len(before):
            # All lines are there, but the hunk has no context on one side.
            end = "beginning" if hunk.old_start <= 1 else "end"
            hint = f"they begin in line {start + 1} of {path}"
            if all(row[:1] != b" " for row in hunk.rows):
                hint += "; `patchwheel import` takes a patch without context (-U0)"
            self.fail(diff, f"{problem} at its {end}: its lines are further in", hunk, hint=hint)
        there = dict(enumerate(lines))
        first = next((n for n, line in enumerate(before) if there.get(start + n) != line), 0)
        expected, actual = map(matching.shown_line, (before[first], there.get(start + first)))
        expected += f" in line {start + first + 1}, which is {actual}"
        hint = f"the nearest match begins in line {max(start, 0) + 1} of {path}: "
        hint += f"{equal} of {len(before)} lines are equal"
        problem += f" at line {max(hunk.new_start, 1)}"
        self.fail(diff, problem, hunk, expected=expected, hint=hint)

    def check_free(self, diff: FileDiff, path: str) -> None:
        """Refuse a new file where something is, or below something that is no folder."""
        if self.remains(path):
            self.fail(diff, f"there is a file {path} already")
        kinds = {LINK: "a symbolic link", SUBMODULE: "a submodule"}
        for parent in map(str, PurePosixPath(path).parents):
            if content := self.remains(parent):
                self.fail(diff, f"{parent} is {kinds.get(content.mode, 'a file')}, not a folder")
        known = itertools.chain(self.before.files, self.before.state, self.changed)
        if any(p.startswith(f"{path}/") and self.remains(p) for p in known):
            self.fail(diff, f"{path} is a folder")

    def remains(self, path: str) -> Content | None:
        """Return what is at a path, unless this patch removes it."""
        if path in self.changed:
            return self.changed[path]
        return None if path in self.removed else self.before.get(path)

    def moved_hint(self, path: str) -> str:
        name = path.rpartition("/")[2]
        same_name = [p for p in self.before.files if p.rpartition("/")[2] == name]
        closest = difflib.get_close_matches(path, same_name, n=1, cutoff=0.0)
        return f"moved? there is {closest[0]}" if closest else ""
