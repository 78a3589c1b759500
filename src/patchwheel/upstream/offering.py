"""What is offered: a patch to upstream, and an upgrade to this project, on a branch each.

Nothing is pushed. Of an upgrade, a patch that stops the rebase is left out, and kept beside the
series: a person decides.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchwheel import series
from patchwheel.environment import build_and_test
from patchwheel.kit import (
    BuildError,
    ManifestError,
    PatchError,
    PatchwheelError,
    Repository,
    process,
)
from patchwheel.locking import write_lock
from patchwheel.manifest import Fork
from patchwheel.patch import Patch, required_patches
from patchwheel.project import Project
from patchwheel.upstream.adding import pin_of, with_pin
from patchwheel.upstream.forecast import describe, preview_rebase, submodule_of
from patchwheel.upstream.history import History, find_target, import_pin, known_history, label_of
from patchwheel.upstream.merge import MergeResult, dry_run
from patchwheel.upstream.rebase import proceed_rebase, start_rebase, state_path

REF = "refs/patchwheel/submit"
# What the series says for us, and upstream does not want to know.
OWN_TRAILERS = re.compile(r"(?mi)^(Upstream-Status|Requires|Drop-When)[ \t]*:.*\n(?:[ \t].*\n)*")
# Who pushes has a copy of upstream's repository, at most hosts below another name.
OWNER = re.compile(r"[^/:]+(?=/[^/]+$)")
# Below patches/FORK.
STOPPED = "stopped"
WHO = "patchwheel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A branch in the store: `commits` are the subjects of what it has on `base`."""

    repository: str
    ref: str
    base: str
    commits: tuple[str, ...]
    # Required patches that are not needed on the branch.
    landed: tuple[str, ...]
    tested: bool
    push: str
    text: str


def submit_patch(
    project: Project, fork: Fork, name: str, *, base: str | None = None, test: bool = False
) -> Submission:
    """Put a patch and what it requires on a commit of upstream's, by default on its main branch.

    Raises PatchError where it does not apply, and with `test` CheckError where tests fail.
    """
    tree, history = series.patch_alone(project, fork, name), known_history(project, fork)
    [patch] = [p for p in tree.series.patches if name in {p.name, p.path.stem}]
    onto = base or history.main()
    commit = history.commit(onto)
    merged = _merged(history, tree, patch, (onto, commit))
    pairs = zip(tree.series.patches, merged, strict=True)
    kept = [(p, m.tree) for p, m in pairs if m.state != "landed"]
    repo, tip = history.repo, commit
    for each, files in kept:
        mail, message = each.mail, _for_upstream(each)
        who = {"author": mail.author, "committer": mail.author, "when": mail.when}
        tip = repo.commit(files, message, tip, **who)
    if test:
        _test(project, fork, onto, _exported(repo, commit, kept))
    ref = f"{REF}/{patch.path.stem}"
    repo.git("update-ref", ref, tip)
    address = OWNER.sub("YOU", history.remote.url)
    to = f"{ref}:refs/heads/{patch.path.stem}"
    return Submission(
        repository=str(repo.git_dir),
        ref=ref,
        base=f"{onto} ({commit[:12]})",
        commits=tuple(p.mail.subject for p, _ in kept),
        landed=tuple(m.name for m in merged if m.state == "landed"),
        tested=test,
        push=shlex.join(["git", "-C", str(repo.git_dir), "push", address, to]),
        text=_draft(patch, [p for p, _ in kept if p != patch], f"{onto} at {commit[:12]}", test),
    )


def _merged(
    history: History, tree: series.PatchedTree, patch: Patch, onto: tuple[str, str]
) -> tuple[MergeResult, ...]:
    """Merge the patches onto a commit, of which each must take something."""
    fork, patches, (ref, commit) = history.fork, tree.series.patches, onto
    repo, new = history.repo, history.repo.tree_of(commit)
    for each in patches:
        if module := submodule_of(each, repo.files(new)):
            problem = f"{each.name} changes the submodule {module}, a repository of its own"
            raise PatchError(problem, where=each.path, hint=f"offer it to {module}'s upstream")
    import_pin(repo, tree.source, f"refs/patchwheel/pins/{tree.source.tree}")
    labels = (label_of(fork), f"upstream {ref}")
    merged = dry_run(repo, patches, (tree.source.tree, new), labels, history.fetch_blobs)
    if stuck := [f"{m.name} in {c.path} ({c.why})" for m in merged for c in m.conflicts]:
        problem = f"it conflicts with upstream {ref}: {', '.join(stuck)}"
        hint = f"`patchwheel rebase {fork.name} --onto {ref}` first, or another --base"
        raise PatchError(problem, where=patch.path, hint=hint)
    if any(m.name == patch.name and m.state == "landed" for m in merged):
        problem = f"nothing is left of {patch.name}: upstream {ref} has it"
        hint = f"`patchwheel status {fork.name} --against {ref}` names the commit"
        raise PatchError(problem, where=patch.path, hint=hint)
    return merged


def _for_upstream(patch: Patch) -> str:
    return OWN_TRAILERS.sub("", patch.mail.message).rstrip() + "\n"


def _exported(repo: Repository, tip: str, kept: Sequence[tuple[Patch, str]]) -> list[Patch]:
    """Return the patches as they are on the branch, with the trailers of the series."""
    made = []
    for patch, files in kept:
        tip = series.commit_patch(repo, patch, files, tip)
        data = repo.git(*series.FORMAT, "--stdout", "-1", tip)
        made.append(replace(patch, data=data))
    return made


def _test(project: Project, fork: Fork, onto: str, patches: Sequence[Patch]) -> None:
    """Build there with these patches alone, and run upstream's tests of what they change."""
    target = find_target(project, fork, onto).fork
    with project.store.scratch() as folder:
        copy = series.project_with(project, fork, patches, folder)
        text = copy.manifest_path.read_text("utf-8")
        copy.manifest_path.write_text(with_pin(text, fork.name, pin_of(target)), encoding="utf-8")
        write_lock(copy, [fork.name])
        # The lock is read anew.
        copy = replace(copy)
        build_and_test(copy, copy.manifest.forks[fork.name], note=True)


def _draft(patch: Patch, required: Sequence[Patch], onto: str, tested: bool) -> str:  # noqa: FBT001
    """Return a text for the pull request, to be edited."""
    lines = [_for_upstream(patch)]
    if required:
        lines += ["It builds on these commits, which come first:", ""]
        lines += [*(f"* {p.mail.subject}" for p in required), ""]
    others = [v for v in patch.trailer("Requires") if not v.startswith(f"{patch.fork}/")]
    if others:
        lines += [f"It also needs changes of other projects: {', '.join(others)}.", ""]
    lines.append(f"The commits apply to {onto}.")
    if tested:
        lines.append("The tests of the files that they change pass there.")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A branch of the project with one commit, whose message is title and text."""

    branch: str
    commit: str
    title: str
    text: str


def propose_upgrade(project: Project, fork: Fork, onto: str | None = None) -> Proposal | None:
    """Rebase a copy of the series onto a ref, by default upstream's newest release, on a branch.

    Returns None where the pin is the newest. Work tree, series and checkout stay as they are.
    """
    from packaging.version import Version

    newest = onto or series.newest_version(project.context, fork) or fork.version
    if not onto and Version(newest) <= Version(fork.version):
        return None
    checkout, branch = _Checkout(project.root), f"{WHO}/{fork.name}"
    checkout.check_free(branch)
    with project.store.scratch() as folder:
        copy, title, text = _describe(project, fork, newest, folder)
        commit = checkout.commit(copy, fork, f"{title}\n\n{text}")
    checkout.repo.git("branch", "-q", "--no-track", "--force", branch, commit)
    return Proposal(branch=branch, commit=commit, title=title, text=text)


def _describe(project: Project, fork: Fork, onto: str, folder: Path) -> tuple[Path, str, str]:
    """Rebase a copy of the project below a folder; return it, and what became of its patches."""
    forks = series.load_all_series(project)
    previews = {patch.name: patch for patch in preview_rebase(project, fork, onto)}
    waiting = _waiting(forks, fork, previews)
    patches = [p for p in forks[fork.name] if p.name not in waiting]
    copy = series.project_with(project, fork, patches, folder)
    try:
        result, landed = _rebase(copy, copy.manifest.forks[fork.name], onto, patches)
    except PatchwheelError as err:
        # Of the copy, nothing is left to look at.
        if err.where:
            err.where = str(err.where).replace(str(copy.root), str(project.root))
        if isinstance(err, BuildError):
            err.hint = f"`patchwheel rebase {fork.name} --onto {onto}` ends in the same error: "
            err.hint += "correct what forks.toml says of its build, then add `--continue`"
        raise
    there = {*result.kept, *result.written, *landed}
    stopped = [patch for patch in forks[fork.name] if patch.name not in there]
    for patch in stopped:
        place = copy.root / "patches" / fork.name / STOPPED / patch.name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(patch.data)
    groups = {
        f"Stopped: left out, and kept in `patches/{fork.name}/{STOPPED}`": [
            p.name for p in stopped
        ],
        "Landed upstream: dropped": landed,
        "Merged: written anew": result.written,
        "Kept their bytes": result.kept,
    }
    told = {heading: [*_told(previews, names, waiting)] for heading, names in groups.items()}
    left = f", {len(stopped)} of {len(previews)} patches stopped" if stopped else ""
    title = f"{fork.name} {fork.version} to {onto}{left}"
    return copy.root, title, _text(fork, onto, told, stopped)


class _Checkout:
    """The project's repository, its HEAD, and the project's folder in it."""

    def __init__(self, root: Path) -> None:
        argv = ("git", "rev-parse", "--absolute-git-dir", "HEAD", "--show-prefix")
        try:
            out = process.capture(argv, cwd=root, env=os.environ).decode(errors="surrogateescape")
        except process.CommandError as err:
            problem = f"a branch needs a git repository with a commit: {' '.join(err.tail)}"
            hint = "git init, then commit the project"
            raise ManifestError(problem, where=root, hint=hint) from err
        folder, self.head, self.prefix = (*out.splitlines(), "")[:3]
        self.repo = Repository(Path(folder))

    def check_free(self, branch: str) -> None:
        """Raise ManifestError where somebody else has committed to the branch."""
        out = self.repo.text("for-each-ref", "--format=%(committername)", f"refs/heads/{branch}")
        if out not in {"", WHO}:
            hint = f"rename it first: git --git-dir {shlex.quote(str(self.repo.git_dir))} branch "
            hint += f"-m {branch} OTHER"
            raise ManifestError(f"the branch {branch} has a commit of {out}'s", hint=hint)

    def commit(self, folder: Path, fork: Fork, message: str) -> str:
        """Commit pin, lock and series of a copy of the project on top of HEAD."""
        place, head, repo = folder / "patches" / fork.name, self.head, self.repo
        made = [place / series.SERIES, *(p.path for p in series.load_series(place).patches)]
        made += [*(p for p in folder.iterdir() if p.is_file()), *place.glob(f"{STOPPED}/*")]
        new = {f"{self.prefix}{path.relative_to(folder)}": path.read_bytes() for path in made}
        old = repo.files(head, f"{self.prefix}patches/{fork.name}")
        gone = [p for p in old if p.endswith((".patch", ".diff")) and p not in new]
        rows = ((path, "100644", data) for path, data in new.items())
        tree = repo.import_files(rows, onto=repo.tree_of(head), removed=gone)
        when = repo.text("log", "-1", "--format=%ct +0000", head)
        return repo.commit(tree, message, head, when=when)


def _waiting(
    forks: Mapping[str, Sequence[Patch]], fork: Fork, previews: Mapping[str, MergeResult]
) -> dict[str, str]:
    """Return the patches that require one that will be gone, with its name."""
    gone = [name for name, patch in previews.items() if patch.state in {"conflict", "landed"}]
    found = {}
    for patch in forks[fork.name]:
        needed = [p.name for p in required_patches(forks, patch) if p != patch]
        if lost := [name for name in needed if name in gone]:
            found[patch.name] = lost[0]
    return found


def _rebase(
    copy: Project, fork: Fork, onto: str, patches: Sequence[Patch]
) -> tuple[series.ExportResult, list[str]]:
    """Rebase, leaving out what stops it; return also the patches of which nothing was left."""
    folder, stops = copy.work_folder(fork), list[str]()
    result: series.ExportResult | None = None
    while result is None:
        try:
            again = bool(stops)
            result = proceed_rebase(copy, fork, "skip") if again else start_rebase(copy, fork, onto)
        except PatchError as err:
            if not state_path(folder).exists() or not series.WorkTree(folder).unfinished():
                raise
            stops.append(err.message)
    said = [(p.name, f"nothing is left of {p.mail.subject!r}") for p in patches]
    return result, [name for name, text in said if any(s.startswith(text) for s in stops)]


def _told(
    previews: Mapping[str, MergeResult], names: Sequence[str], waiting: Mapping[str, str]
) -> Iterator[str]:
    """Say of each patch what became of it, and which commit of upstream's did it."""
    for name in names:
        verdict = previews[name].verdict
        why = [f"it requires {waiting[name]}"] if name in waiting else []
        lines = [*why, *(describe(verdict) if verdict else [previews[name].state])]
        yield f"* `{name}`: {lines[0]}"
        yield from (f"      {line}" for line in lines[1:])


def _text(
    fork: Fork, onto: str, groups: Mapping[str, Sequence[str]], stopped: Sequence[Patch]
) -> str:
    lines = [f"What `patchwheel rebase {fork.name} --onto {onto}` makes of the series."]
    for heading, rows in groups.items():
        lines += ["", f"### {heading}", "", *rows] if rows else []
    if stopped:
        lines += ["", f"To resolve what stopped, run that command on {fork.version}; it stops at"]
        lines += ["each. On this branch, `patchwheel import` takes a patch that applies again:", ""]
        place = f"patches/{fork.name}/{STOPPED}"
        lines += [f"    patchwheel import {fork.name} {place}/{stopped[0].name}"]
    return "\n".join(lines) + "\n"
