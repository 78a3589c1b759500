"""The settings of a work tree's git: what they may hold, and what it says to whoever commits."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from patchwheel.kit import PatchError, Repository, user_settings

# Settings by which git starts a program, or reads more settings; others it is told to leave out.
PROGRAMS = (
    r"(?s)(filter|include|includeif|extensions|url)\..*|core\.worktree|merge\..*\.driver"
    r"|remote\..*\.(promisor|partialclonefilter|uploadpack|vcs)"
)
ELSEWHERE = ("objects/info/alternates", "commondir", "rebase-merge/strategy")
TEMPLATE = "patchwheel-template"
TEMPLATES = Path(__file__).with_name("templates")


def ask_for_trailers(repo: Repository) -> None:
    """Begin messages with the trailers in the editor, and say when a commit lacks them."""
    shutil.copyfile(TEMPLATES / "message", repo.git_dir / TEMPLATE)
    repo.git("config", "commit.template", f".git/{TEMPLATE}")
    hook = repo.git_dir / "hooks" / "commit-msg"
    hook.parent.mkdir()
    shutil.copyfile(TEMPLATES / "commit-msg", hook)
    hook.chmod(0o755)


def check_harmless(repo: Repository) -> None:
    """Raise PatchError for a repository in which git might start a program that it names.

    A work tree may come from somebody else, or from tests that ran in it.
    """
    git = repo.git_dir
    argv = ("--file", str(git / "config"), "--no-includes", "--null", "--name-only", "--list")
    keys = repo.git("config", *argv, ok=(0, 1)).decode(errors="replace").split("\0")[:-1]
    found = [f"{key!r} in its settings" for key in keys if re.fullmatch(PROGRAMS, key)]
    found += [f".git/{name}" for name in ELSEWHERE if (git / name).exists()]
    if found:
        hint = "remove it (`git config --unset KEY`), or have it in your own settings instead"
        message = f"git may start a program for {found[0]} of this work tree"
        raise PatchError(
            message, where=repo.work_tree, expected="settings as `dev` wrote", hint=hint
        )


def shown() -> list[str]:
    """Return the options by which git shows the files that it shows the user, and no others."""
    found = user_settings("--type=path", "--get", "core.excludesFile")
    return ["-c", f"core.excludesFile={found[0]}"] if found else []
