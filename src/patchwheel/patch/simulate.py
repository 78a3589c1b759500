"""Follow a series in memory: where each hunk lands and, when one does not, why.

git is the judge of what applies; this says what git leaves out, and checks git's result.
The rules for where a hunk may match are those of `git apply` without fuzz.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Never

from patchwheel.kit.errors import PatchError
from patchwheel.patch.lint import LINK, SUBMODULE, link_problem
from patchwheel.patch.matching import (
    blob_id,
    find,
    nearest,
    occurrences,
    shown,
    split,
    still_there,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from patchwheel.kit.repo import Blob
    from patchwheel.patch.diff import FileDiff, Hunk
    from patchwheel.series.files import Patch

PLAIN = "100644"


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """Where a hunk landed; `unique` says whether its lines occur only there."""

    path: str
    hunk: int
    line: int
    offset: int
    unique: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A file while the series is followed; `data` is None where only the id is known (binary changes)."""

    mode: str
    data: bytes | None
    oid: str


Files = Mapping[str, Content | None]


class MisfitError(PatchError):
    """`landed` means that what the patch does is there already."""

    def __init__(
        self,
        message: str,
        *,
        where: str,
        path: str,
        expected: str | None = None,
        hint: str | None = None,
        landed: bool = False,
    ) -> None:
        super().__init__(message, where=where, expected=expected, hint=hint)
        self.path = path
        self.landed = landed


class Replay:
    """The files of a tree, changed patch by patch; `read` gets the content of blobs by their ids.

    `home` has, by the names of patches, what they made of their files where they last applied;
    `made` is what they make of them here.
    """

    def __init__(
        self,
        files: Mapping[str, Blob],
        read: Callable[[Sequence[str]], Mapping[str, bytes]],
        patches: Iterable[Patch],
        *,
        home: Mapping[str, Files] | None = None,
    ) -> None:
        self.files = files
        self.home: Mapping[str, Files] = {} if home is None else home
        self.made: dict[str, Files] = {}
        self.state: dict[str, Content | None] = {}
        named = {p for patch in patches for d in patch.diffs for p in (d.old, d.new)}
        blobs = {p: files[p] for p in named if p is not None and p in files}
        contents = read([b.oid for b in blobs.values() if b.mode != SUBMODULE])
        for path, blob in blobs.items():
            data = contents.get(blob.oid)
            self.state[path] = Content(mode=blob.mode, data=data, oid=blob.oid)

    def apply(self, patch: Patch) -> tuple[Landing, ...]:
        """Apply one patch, all or nothing; raises MisfitError."""
        step = _Step(self, patch)
        try:
            for diff in patch.diffs:
                step.file(diff)
                step.check_effect(diff)
        except MisfitError as err:
            if not step.landed():
                raise
            what = "holds all that it changes" if self.get(err.path) else "is gone"
            raise MisfitError(
                f"{patch.name} is already applied (landed?): {err.path} {what}",
                where=f"{patch.path}:{patch.diffs[0].line}",
                path=err.path,
                hint=f"if upstream took it, remove it from the series of {patch.fork}",
                landed=True,
            ) from err
        self.state.update(step.changed)
        self.made[patch.name] = step.changed
        return tuple(step.landings)

    def changed(self) -> dict[str, Content | None]:
        """Return what differs from the tree that it began with."""
        found = {}
        for path, now in self.state.items():
            was = self.files.get(path)
            if (was and (was.mode, was.oid)) != (now and (now.mode, now.oid)):
                found[path] = now
        return found

    def still_has(
        self,
        diffs: Iterable[FileDiff],
        home: Files,
        *,
        moved: Mapping[str, str] | None = None,
        in_place: bool = False,
    ) -> str | None:
        """Name a file that still has what diffs remove; `home` is what they made where they applied.

        `moved` says where files went. With `in_place`, lines count beside their context only.
        """
        went = moved or {}
        for diff in diffs:
            leaves = diff.old != diff.new and not diff.copy
            if diff.old is not None and leaves and self.get(diff.old):
                return diff.old
            if diff.new is None or diff.old is None or diff.binary:
                continue
            place = went.get(diff.new, diff.new)
            now, made = self.get(place), home.get(diff.new)
            if now is None or now.data is None:
                continue
            known = made.data if made else None
            was = None if known is None else split(known)
            lines = split(now.data)
            if still_there(lines, diff.hunks, was, in_place=in_place):
                return place
        return None

    def get(self, path: str) -> Content | None:
        if path in self.state:
            return self.state[path]
        if blob := self.files.get(path):
            return Content(mode=blob.mode, data=None, oid=blob.oid)
        return None


class _Step:
    """One patch on the way: what it changed so far."""

    def __init__(self, replay: Replay, patch: Patch) -> None:
        self.replay = replay
        self.patch = patch
        self.changed: dict[str, Content | None] = {}
        self.landings: list[Landing] = []
        # Removed by this patch, wherever it says so: what is put in their place is no conflict.
        self.leaving = {d.old for d in patch.diffs if d.old != d.new and not d.copy}

    def fail(
        self, diff: FileDiff, why: str, *, hunk: Hunk | None = None, **more: str | None
    ) -> Never:
        raise MisfitError(
            f"{self.patch.name} does not apply: {why}",
            where=f"{self.patch.path}:{(hunk or diff).line}",
            path=diff.path,
            expected=more.get("expected"),
            hint=more.get("hint"),
        )

    def file(self, diff: FileDiff) -> None:
        """Change one file; it reads what was there before the patch, as in git."""
        source = None
        if diff.old is not None:
            source = self.replay.get(diff.old)
            if source is None:
                self.fail(diff, f"there is no file {diff.old}", hint=self.near(diff.old))
            if source.mode == SUBMODULE:
                self.fail(diff, f"{diff.old} is a submodule")
        if diff.new is not None and diff.new != diff.old:
            self.check_room(diff, diff.new)
        result = self.result(diff, source)
        if diff.old is not None and diff.old in self.leaving:
            self.changed.setdefault(diff.old, None)
        if diff.new is not None:
            self.changed[diff.new] = result

    def check_effect(self, diff: FileDiff) -> None:
        before, now = self.replay.get(diff.path), self.changed.get(diff.path)
        if before and now and now.oid and (before.mode, before.oid) == (now.mode, now.oid):
            self.fail(diff, f"{diff.path} is already as it makes it")

    def result(self, diff: FileDiff, source: Content | None) -> Content | None:
        was = source.mode if source else PLAIN
        mode = diff.new_mode or was
        if diff.old_mode and source and (diff.old_mode == LINK) != (was == LINK):
            self.fail(diff, f"{diff.old} has the mode {was}, not {diff.old_mode}")
        if diff.binary and diff.ids:
            if source and source.oid != diff.ids[0]:
                self.fail(
                    diff,
                    f"the binary file {diff.old} has other bytes than the patch was made for",
                )
            return Content(mode=mode, data=None, oid=diff.ids[1])
        if source and source.data is None:
            # Binary so far: git knows the bytes, and will judge.
            oid = "" if diff.hunks else source.oid
            return Content(mode=mode, data=None, oid=oid)
        data = b"".join(self.lines(diff, source.data or b"" if source else b""))
        if diff.new is None:
            if data:
                self.fail(diff, f"{diff.old} holds more than the patch removes")
            return None
        if mode == LINK and (problem := link_problem(diff.new, data)):
            self.fail(diff, f"the symbolic link {diff.new!r} {problem}")
        return Content(mode=mode, data=data, oid=blob_id(data))

    def lines(self, diff: FileDiff, data: bytes) -> list[bytes]:
        lines = split(data)
        # git does not let a hunk match lines that another hunk of the patch wrote.
        fresh = bytearray(len(lines))
        for number, hunk in enumerate(diff.hunks, 1):
            before, after = hunk.before, hunk.after
            wanted = max(hunk.new_start - 1, 0)
            places = find(lines, hunk, fresh)
            if not places:
                self.no_match(diff, number, hunk, lines)
            if wanted in places:
                at = wanted
            elif len(places) > 1:
                self.fail(
                    diff,
                    f"hunk {number} is ambiguous: its lines occur {len(places)} times in {diff.old},"
                    f" in lines {', '.join(str(p + 1) for p in places[:5])}",
                    hunk=hunk,
                    expected=f"line {wanted + 1}, or only one other place",
                )
            else:
                at = places[0]
            landing = Landing(
                path=diff.path,
                hunk=number,
                line=at + 1,
                offset=at - wanted,
                unique=len(places) == 1,
            )
            self.landings.append(landing)
            lines[at : at + len(before)] = after
            fresh[at : at + len(before)] = b"\1" * len(after)
        return lines

    def no_match(self, diff: FileDiff, number: int, hunk: Hunk, lines: list[bytes]) -> Never:
        what = f"hunk {number} does not match {diff.old or diff.new}"
        near = nearest(lines, hunk.before)
        if near is None:
            self.fail(diff, f"{what}, which holds nothing like it", hunk=hunk)
        start, equal = near
        if equal == len(hunk.before):
            # git holds a hunk without context on one side to that end of the file.
            end = "beginning" if hunk.old_start <= 1 else "end"
            self.fail(
                diff,
                f"{what} at its {end}: its lines are further in",
                hunk=hunk,
                hint=f"they begin in line {start + 1} of {diff.old}",
            )
        there = {i: lines[i] for i in range(max(start, 0), len(lines))}
        first = next((i for i, x in enumerate(hunk.before) if there.get(start + i) != x), 0)
        self.fail(
            diff,
            f"{what} at line {max(hunk.new_start, 1)}",
            hunk=hunk,
            expected=f"{shown(hunk.before[first])} in line {start + first + 1}, which is "
            + shown(there.get(start + first)),
            hint=f"the nearest match begins in line {max(start, 0) + 1} of {diff.old}: "
            f"{equal} of {len(hunk.before)} lines are equal",
        )

    def check_room(self, diff: FileDiff, path: str) -> None:
        """Refuse a new file where something is, or below something that is no folder."""
        if self.stays(path):
            self.fail(diff, f"there is a file {path} already")
        parts = path.split("/")
        kinds = {LINK: "a symbolic link", SUBMODULE: "a submodule"}
        for end in range(1, len(parts)):
            above = "/".join(parts[:end])
            if there := self.stays(above):
                self.fail(diff, f"{above} is {kinds.get(there.mode, 'a file')}, not a folder")
        known = {**self.replay.files, **self.replay.state, **self.changed}
        if any(p.startswith(f"{path}/") and self.stays(p) for p in known):
            self.fail(diff, f"{path} is a folder")

    def stays(self, path: str) -> Content | None:
        if path in self.changed:
            return self.changed[path]
        return None if path in self.leaving else self.replay.get(path)

    def near(self, path: str) -> str | None:
        name = path.rpartition("/")[2]
        twins = [p for p in self.replay.files if p.rpartition("/")[2] == name]
        found = difflib.get_close_matches(path, twins, n=1, cutoff=0.0)
        return f"moved? there is {found[0]}" if found else None

    def landed(self) -> bool:
        """Say whether all that the patch adds is there, and all that it removes is gone."""
        if not all(self.has_result(diff) for diff in self.patch.diffs):
            return False
        home = self.replay.home.get(self.patch.name, {})
        return self.replay.still_has(self.patch.diffs, home) is None

    def has_result(self, diff: FileDiff) -> bool:
        """Say whether a file has what the patch makes, lines that it removes aside."""
        old = self.replay.get(diff.old) if diff.old is not None else None
        if diff.new is None:
            return old is None
        now = self.replay.get(diff.new)
        moved = diff.old is not None and diff.old != diff.new and not diff.copy
        if now is None or (moved and old is not None):
            return False
        if diff.new_mode and diff.new_mode != now.mode:
            return False
        if diff.binary and diff.ids:
            return now.oid == diff.ids[1]
        lines = split(now.data or b"")
        if diff.old is None and diff.hunks:
            return lines == diff.hunks[0].after
        # A hunk that makes nothing leaves an empty file.
        return all(
            occurrences(lines, hunk.after) if hunk.after else not lines for hunk in diff.hunks
        )
