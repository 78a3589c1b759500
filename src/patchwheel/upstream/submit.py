"""A branch of upstream with one patch and what it requires, to be offered there; pushes nothing."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from patchwheel.environment import find_tests, run_tests
from patchwheel.kit import PatchError
from patchwheel.locking import write_lock
from patchwheel.series import FORMAT, commit_patch, patch_alone, project_with
from patchwheel.upstream.forecast import submodule_of
from patchwheel.upstream.history import find_target, import_pin, known_history, label_of
from patchwheel.upstream.merge import dry_run
from patchwheel.upstream.rebase import pin_of, with_pin
from patchwheel.wheel import build_wheels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchwheel.manifest import Fork
    from patchwheel.patch import Patch
    from patchwheel.project import Project
    from patchwheel.series import PatchedTree
    from patchwheel.upstream.history import History
    from patchwheel.upstream.merge import MergeResult

REF = "refs/patchwheel/submit"
# What the series says for us, and upstream does not want to know.
OWN_TRAILERS = re.compile(r"(?mi)^(Upstream-Status|Requires|Drop-When)[ \t]*:.*\n(?:[ \t].*\n)*")
# Who pushes has a copy of upstream's repository, at most hosts below another name.
OWNER = re.compile(r"[^/:]+(?=/[^/]+$)")


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
    tree, history = patch_alone(project, fork, name), known_history(project, fork)
    [patch] = [p for p in tree.series.patches if name in {p.name, p.path.stem}]
    onto = base or history.main()
    commit = history.commit(onto)
    merged = _merged(history, tree, patch, (onto, commit))
    kept = [(p, m.tree) for p, m in zip(tree.series.patches, merged, strict=True) if _left(m)]
    repo, tip, ours = history.repo, commit, commit
    for each, files in kept:
        mail, message = each.mail, _for_upstream(each)
        who = {"author": mail.author, "committer": mail.author, "when": mail.when}
        tip = repo.commit(files, message, tip, **who)
        ours = commit_patch(repo, each, files, ours)
    if test:
        _test(project, fork, onto, _exported(history, f"{commit}..{ours}", [p for p, _ in kept]))
    ref = f"{REF}/{patch.path.stem}"
    repo.git("update-ref", ref, tip)
    address = OWNER.sub("YOU", history.remote.url)
    to = f"{ref}:refs/heads/{patch.path.stem}"
    return Submission(
        repository=str(repo.git_dir),
        ref=ref,
        base=f"{onto} ({commit[:12]})",
        commits=tuple(p.mail.subject for p, _ in kept),
        landed=tuple(m.name for m in merged if not _left(m)),
        tested=test,
        push=shlex.join(["git", "-C", str(repo.git_dir), "push", address, to]),
        text=_draft(patch, [p for p, _ in kept if p != patch], f"{onto} at {commit[:12]}", test),
    )


def _left(merged: MergeResult) -> bool:
    return merged.state != "landed"


def _merged(
    history: History, tree: PatchedTree, patch: Patch, onto: tuple[str, str]
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
    if not any(_left(m) for m in merged if m.name == patch.name):
        problem = f"nothing is left of {patch.name}: upstream {ref} has it"
        hint = f"`patchwheel status {fork.name} --against {ref}` names the commit"
        raise PatchError(problem, where=patch.path, hint=hint)
    return merged


def _for_upstream(patch: Patch) -> str:
    return OWN_TRAILERS.sub("", patch.mail.message).rstrip() + "\n"


def _exported(history: History, span: str, patches: Sequence[Patch]) -> list[Patch]:
    """Return the patches as they are on the branch, with the trailers of the series."""
    commits = history.repo.text("rev-list", "--reverse", span).split()
    return [
        replace(patch, data=history.repo.git(*FORMAT, "--stdout", "-1", commit))
        for patch, commit in zip(patches, commits, strict=True)
    ]


def _test(project: Project, fork: Fork, onto: str, patches: Sequence[Patch]) -> None:
    """Build the fork there with these patches alone, and run upstream's tests of what they change.

    Raises CheckError when one fails.
    """
    target = find_target(project, fork, onto).fork
    with project.store.scratch() as folder:
        copy = project_with(project, fork, patches, folder)
        text = copy.manifest_path.read_text("utf-8")
        copy.manifest_path.write_text(with_pin(text, fork.name, pin_of(target)), encoding="utf-8")
        write_lock(copy, [fork.name])
        # The lock is read anew.
        copy = replace(copy)
        forks = copy.manifest.forks
        tree, files = find_tests(copy, forks[fork.name])
        wheels, _ = build_wheels(copy, list(forks.values()))
        run_tests(copy, tree, files, wheels, (), note=True)


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
