"""The commits of a work tree back to a series: byte-stable, lazy, atomic, checked."""

from __future__ import annotations

import contextlib
import copy
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Never, TypeAlias

from patchwheel import patch as patching
from patchwheel.kit import GitError, PatchError, Repository, Store, new_folder, replace_folder
from patchwheel.manifest import BuildInventory, Fork
from patchwheel.patch import Patch
from patchwheel.project import Project
from patchwheel.series import files, worktree
from patchwheel.series.apply import REPORT, apply_series, start_simulation
from patchwheel.series.effect import without_effect
from patchwheel.series.files import Series
from patchwheel.series.light import light_source, light_tree
from patchwheel.source import Source

Essence: TypeAlias = tuple[patching.Mail, list[object]]

# Every setting that could change a byte of the output is given, or isolated away by `repo`.
FORMAT = shlex.split(
    "format-patch --zero-commit --no-signature --no-stat --full-index -N --no-thread --no-attach "
    "--no-to --no-cc --no-add-header --no-encode-email-headers --find-renames=50% --binary -U3 "
    "--diff-algorithm=myers --inter-hunk-context=0 --no-ext-diff --no-textconv "
    "--submodule=short --pretty=mboxrd --numbered-files"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What was written, or with `check` what would be; `changed` may also mean an order only."""

    written: tuple[str, ...]
    kept: tuple[str, ...]
    removed: tuple[str, ...]
    changed: bool
    range_diff: str
    warnings: tuple[str, ...]


def export_series(
    project: Project, fork: Fork, *, check: bool = False, exact: bool = False
) -> ExportResult:
    """Write the open work tree's commits to the fork's series; with `check` write nothing."""
    folder, store = project.work_folder(fork), project.store
    source, others = light_source(project, fork), files.load_all_series(project)
    with contextlib.ExitStack() as stack:
        if folder.exists() or not check:
            stack.enter_context(project.exclusive(fork))
            worktree.check_no_rebase(folder)
        else:
            # Without a work tree, it is the series itself that is checked.
            folder = stack.enter_context(store.scratch()) / fork.name
            worktree.open_work(light_tree(project, fork), folder, store=store)
        locked = project.locked(fork)
        builds = [*locked.builds.values()] if locked else []
        return export_commits(
            folder,
            source,
            store=store,
            check=check,
            exact=exact,
            others=others,
            inventory=builds[0].inventory if builds else None,
        )


def export_commits(
    folder: Path,
    source: Source,
    *,
    store: Store,
    check: bool = False,
    exact: bool = False,
    others: Mapping[str, Sequence[Patch]] | None = None,
    inventory: BuildInventory | None = None,
) -> ExportResult:
    """Write the commits of the work tree in `folder` to the fork's series, all or nothing.

    With `exact` no patch keeps its old bytes; the series of `others` may require its patches. By
    the `inventory` a change without effect is found.
    """
    target = source.fork.patches
    with store.lock(f"export-{source.fork.name}"), store.scratch() as scratch:
        place = scratch / source.fork.name if check else new_folder(target)
        series = files.load_series(target)
        job = _Job(worktree.WorkTree(folder), source, series)
        patches = job.patches(scratch, exact=exact)
        if others is not None:
            patching.check_requires({**others, source.fork.name: patches})
        old = {patch.name: patch.sha256 for patch in series.patches}
        new = {patch.name: patch.sha256 for patch in patches}
        changed = list(old.items()) != list(new.items())
        if changed:
            job.write(place, patches, store)
        if changed and not check:
            replace_folder(target)
        changes = Repository(source.git_dir).changes(source.tree, job.tree)
        idle = without_effect(source, job.tree, inventory, changes) if inventory else ()
        result = ExportResult(
            written=tuple(n for n in new if old.get(n) != new[n]),
            kept=tuple(n for n in new if old.get(n) == new[n]),
            removed=tuple(n for n in old if n not in new),
            changed=changed,
            range_diff=job.range_diff(),
            warnings=(*job.warnings, *idle),
        )
        if not check:
            job.work.repo.git("update-ref", worktree.EXPORTED, job.tip)
            worktree.record(folder, source, list(new.items()))
            if changed:
                write_message(folder, source.fork, result)
        return result


def message_of(folder: Path) -> Path:
    """Return the file with a message, to be edited, for committing what was exported last."""
    return folder / ".git" / "patchwheel-message"


def write_message(folder: Path, fork: Fork, result: ExportResult) -> None:
    """Write the message for committing an export, or a rebase."""
    text = f"{fork.name} {fork.version}: \n\n{result.range_diff}"
    message_of(folder).write_text(text, encoding="utf-8")


class _Job:
    """The commits between the pin and HEAD, copied to where no setting of a user's counts."""

    def __init__(self, work: worktree.WorkTree, source: Source, series: Series) -> None:
        self.work, self.source, self.series = work, source, series
        work.check_pin(source)
        if problem := work.unfinished() or work.edits():
            self.fail(problem, "status")
        self.repo = Repository(source.git_dir)
        refs = {
            ref: f"{work.name}/{ref.rpartition('/')[2]}"
            for ref in (worktree.BASE, worktree.EXPORTED, "HEAD")
        }
        try:
            self.repo.fetch(work.repo.git_dir, *map(":".join, refs.items()))
        except GitError as err:
            self.fail(f"git cannot read its commits: {err.stderr.strip()}", "status")
        self.base, self.exported, self.tip = self.repo.text("rev-parse", *refs.values()).split()
        self.tree = self.repo.tree_of(self.tip)
        self.commits = list(self.read_commits())
        command = worktree.git_in(work.folder, f"rebase -i {worktree.BASE}")
        work.check_markers(f"resolve them, and commit to the patch: {command}", self.commits)
        self.warnings: tuple[str, ...] = ()

    def fail(self, problem: str, command: str, expected: str | None = None) -> Never:
        folder, hint = self.work.folder, worktree.git_in(self.work.folder, command)
        raise PatchError(problem, where=folder, expected=expected, hint=hint)

    def read_commits(self) -> Iterator[str]:
        above, before = self.base, self.repo.tree_of(self.base)
        # Along the first parents, so that a merge is met, and not what it brings in.
        argv = ("log", "--reverse", "--first-parent", "--format=%H %T %P")
        for row in self.repo.text(*argv, f"{self.base}..{self.tip}").splitlines():
            commit, tree, *parents = row.split()
            if len(parents) > 1:
                self.fail(f"commit {commit[:12]} is a merge", f"rebase {worktree.BASE}")
            if parents != [above]:
                self.fail("HEAD is not based on the pin", f"rebase --onto {worktree.BASE}")
            if tree == before:
                self.fail(f"commit {commit[:12]} changes nothing", f"rebase -i {worktree.BASE}")
            above, before = commit, tree
            yield commit

    def write(self, place: Path, patches: Sequence[Patch], store: Store) -> None:
        """Write the patches as a new series; raises PatchError where they do not give the tree."""
        self.check_fresh()
        files.write_series(place, self.series, patches)
        made = apply_series(self.source, files.load_series(place), store=store)
        if made.tree != self.tree:
            problem = f"the exported series gives the tree {made.tree}"
            raise PatchError(problem, expected=self.tree, hint=REPORT)

    def check_fresh(self) -> None:
        """Refuse to write over a series that is not the one that the commits come from."""
        if self.work.series != self.series.digests:
            folder, fork = self.work.folder, self.source.fork.name
            problem = "the series on disk is not the one that the work tree was opened with"
            hint = f"put it back, or move the work tree away: {worktree.move_away(folder)}, "
            hint += f"`patchwheel dev {fork}`, then cherry-pick"
            if self.work.is_exported():
                # As after an import that was cut off.
                hint = f"`patchwheel dev {fork}` opens the new one: nothing here is lost by that"
            raise PatchError(problem, where=self.series.folder / files.SERIES, hint=hint)

    def patches(self, scratch: Path, *, exact: bool) -> list[Patch]:
        """Return the new patches; unless `exact`, old files that say the same are kept."""
        out = scratch / "patches"
        self.repo.git(*FORMAT, "-o", str(out), f"{self.base}..{self.tip}")
        fresh = [
            Patch(path=self.series.folder / f"commit {c[:12]}", data=(out / str(n)).read_bytes())
            for n, c in enumerate(self.commits, 1)
        ]
        for patch in fresh:
            self.check(patch)
        self.check_mails(fresh)
        old = self.identify(fresh)
        follow = start_simulation(self.source, [*fresh, *self.series.patches])
        found = []
        for patch, was, name in zip(fresh, old, files.name_patches(fresh, old), strict=True):
            renamed = Patch(path=self.series.folder / name, data=patch.data)
            found.append(_lazily(follow, renamed, None if exact else was))
        self.warnings = tuple(patching.warnings(found, follow.files))
        return found

    def check(self, patch: Patch) -> None:
        """Lint a commit as the patch that it becomes."""
        try:
            patching.check_patch(patch)
            if re.match(r"(fixup|squash|amend)! ", patch.mail.subject):
                patch.fail(f"{patch.mail.subject!r} is not squashed")
        except PatchError as err:
            problem = f"{patch.name}: {err.message}"
            last = patch.name == f"commit {self.tip[:12]}" and "squashed" not in err.message
            command = "commit --amend" if last else f"rebase -i --autosquash {worktree.BASE}"
            self.fail(problem, command, err.expected)

    def check_mails(self, fresh: Sequence[Patch]) -> None:
        """Refuse a commit of which a mail would say something else, as `git am` reads it."""
        argv = ("log", "-z", "--reverse", "--format=%an <%ae>%n%B", f"{self.base}..{self.tip}")
        for patch, said in zip(fresh, self.repo.text(*argv).split("\0"), strict=False):
            if f"{patch.mail.author} {patch.mail.message}".split() != said.split():
                problem = f"{patch.name}: a mail of it would be read otherwise"
                expected = "a message without a line `---`, and not with `From:` or `Date:` on top"
                self.fail(problem, f"rebase -i {worktree.BASE}", expected)

    def identify(self, fresh: Sequence[Patch]) -> list[Patch | None]:
        """Find for each commit the patch that it was: by all it says, its subject, or its diff."""
        old = {patch.name: patch for patch in self.series.patches}
        left = {name: _essence(patch) for name, patch in old.items()}
        found: list[Patch | None] = [None] * len(fresh)
        keys: tuple[Callable[[Essence], object], ...] = (
            lambda said: said,
            lambda said: said[0].subject,
            lambda said: said[1],
        )
        for key in keys:
            for number, said in enumerate(map(_essence, fresh)):
                name = next((n for n, was in left.items() if key(was) == key(said)), None)
                if name and not found[number]:
                    found[number] = old[name]
                    del left[name]
        return found

    def range_diff(self) -> str:
        if self.exported == self.tip:
            return ""
        # The pin is a commit without parents; a rebase moves the series to another one.
        root = self.repo.text("rev-list", "--max-parents=0", self.exported)
        # Not two ranges: git refuses an empty one, as of a series without patches.
        ends: tuple[str, ...] = (self.base, self.exported, self.tip)
        if root != self.base:
            if root == self.exported or self.base == self.tip:
                return ""
            ends = (f"{root}..{self.exported}", f"{self.base}..{self.tip}")
        return self.repo.git("range-diff", "--no-color", *ends).decode(errors="replace")


def _lazily(follow: patching.Simulation, fresh: Patch, old: Patch | None) -> Patch:
    """Apply a patch to `follow`; return its old file where that does and says the same."""
    before = copy.copy(follow)
    before.state = dict(follow.state)
    follow.apply(fresh)
    if old is None or _essence(old) != _essence(fresh):
        return fresh
    with contextlib.suppress(patching.DoesNotApplyError):
        # It is refused where its old line numbers would leave two places to choose from.
        before.apply(old)
        if before.state == follow.state:
            return old
    return fresh


def _essence(patch: Patch) -> Essence:
    """Return what a patch says, without ids, line numbers and the names of functions."""
    changes: list[object] = []
    for diff in patch.diffs:
        made = diff.binary[1] if diff.binary else [hunk.rows for hunk in diff.hunks]
        changes.append((diff.old, diff.new, diff.new_mode, diff.copy, made))
    return patch.mail, changes
