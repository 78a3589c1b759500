"""The link to an environment of the store, which is what a user sees of it."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Final

from patchwheel.kit import MachineError, is_store, write_atomically

KIND: Final = "environments"
# In an environment: what `--with` asked for.
ADDED: Final = "added"
KEY = re.compile(r"[0-9a-f]{64}")


def added_to(link: Path) -> str:
    """Return what `--with` added to the environment at a link."""
    try:
        return (link / ADDED).read_text()
    except OSError:
        return ""


def check_link(link: Path) -> None:
    """Raise MachineError unless `link` can be made, or is a link to an environment of a store."""
    if link.is_symlink():
        kind, key = link.readlink().parent, link.readlink().name
        # A store that was removed leaves links that lead nowhere.
        ours = not link.exists() or is_store(kind.parent)
        if kind.name == KIND and KEY.fullmatch(key) and ours:
            return
    if link.is_symlink() or link.exists():
        raise MachineError(
            "this path exists and was not created by patchwheel",
            where=link,
            expected="nothing, or a link that patchwheel made",
            hint="move it away, or name another place for the environment",
        )
    above = next(path for path in link.parents if os.path.lexists(path))
    trial = above / f".patchwheel.{secrets.token_hex(8)}"
    try:
        # A permission does not tell that the file system takes links, or anything new.
        trial.symlink_to(link.name)
        trial.unlink()
    except OSError as err:
        raise MachineError(
            f"the environment's link cannot be written there: {err.strerror}",
            where=above,
            expected="a folder that can be written, and takes links",
            hint="name another place: `patchwheel env PATH`",
        ) from err


def flip_link(link: Path, target: Path) -> None:
    """Let a link lead to an environment, in one step."""
    # `prune` keeps environments in which a link is noted that still leads there.
    noted = target / "links"
    links = noted.read_text().splitlines() if noted.exists() else []
    if str(link) not in links:
        write_atomically(noted, "".join(f"{x}\n" for x in [*links, link]).encode())
    if link.is_symlink() and link.readlink() == target:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    # A link cannot be changed in place, only replaced by another.
    temporary = link.with_name(f".{link.name}.{secrets.token_hex(8)}")
    temporary.symlink_to(target)
    temporary.replace(link)
