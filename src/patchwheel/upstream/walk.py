"""A series tried in memory on each state of upstream's files; nothing is checked out."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchwheel.patch.simulate import Simulation
from patchwheel.series.status import FINE, try_patch
from patchwheel.upstream.merge import patch_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from patchwheel.kit.repo import Blob, Repository
    from patchwheel.patch.simulate import Content, Files
    from patchwheel.series.files import Patch
    from patchwheel.series.status import PatchStatus

    Reader = Callable[[Sequence[str]], Mapping[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit of upstream's; `when` is the author's date in ISO 8601.

    `request` is the number of the pull request that it came from, where its subject has one.
    """

    oid: str
    author: str
    when: str
    subject: str
    request: str | None


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
    """A series tried on the states of upstream's files: the first, and the one after each commit.

    `statuses[n]` has the status of each patch at state n, `made` what each patch made of its files
    where it last applied. `read` returns the content of blobs by their ids.
    """

    def __init__(
        self, patches: Sequence[Patch], states: Sequence[Mapping[str, Blob]], read: Reader
    ) -> None:
        self.patches = patches
        self.states = states
        self.read = read
        self.results: dict[str, Files] = {}
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
    """One patch of a walk: `state(n)` is its status before commit n, and n + 1 the one after it."""

    def __init__(self, walk: Walk, number: int, commits: Sequence[Commit]) -> None:
        self.walk = walk
        self.number = number
        self.commits = commits
        self.patch = walk.patches[number]

    def state(self, n: int) -> str:
        return self.walk.statuses[n][self.number].state

    def states(self, *wanted: str) -> list[int]:
        """Return the numbers at which the patch has one of some states."""
        return [n for n in range(len(self.walk.states)) if self.state(n) in wanted]

    def applies(self, n: int, *, without: Iterable[int] = ()) -> bool:
        """Say whether the patch applies to state n on those before it, some of them left out."""
        earlier = sorted({*range(self.number)} - {*without})
        return try_patch(self.walk.replay(n, earlier), self.patch).state in FINE

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
            sides = after.get(path), base.get(path), before.get(path)
            if not _merges_to_ours(repo, *sides):
                return False
        return after.still_has(self.patch.diffs, before.state) is None

    def broken_with(self, n: int) -> str | None:
        """Name the earlier patches that commit n breaks too, if this one cannot do without them."""
        before, after = self.walk.statuses[n : n + 2]
        broken = [
            number
            for number in range(self.number)
            if before[number].state in FINE and after[number].state == "fails"
        ]
        if not broken or self.applies(n, without=broken):
            return None
        patches = [self.walk.patches[number] for number in broken]
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
