"""The state of a rebase, kept in the work tree's `.git` from its start to its end."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchwheel.kit import PatchError, parsed
from patchwheel.manifest import transaction
from patchwheel.series import BASE, EXPORTED, move_away

ENDS = (BASE, EXPORTED)
PIN = frozenset({"version", "tag", "commit", "sdist"})
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RebaseState:
    """A rebase in progress, as it is kept in the work tree's `.git`."""

    # What the fork's table of the manifest gets at the end; None removes a key.
    pin: Mapping[str, Any]
    # The commits to rebase: those after the first one, up to the second.
    commits: Sequence[str]
    # The refs of the work tree, and the text of its state file, as before the rebase.
    refs: Mapping[str, str]
    worktree: str
    # What history tells of a patch, by its commit.
    told: Mapping[str, str] = field(default_factory=dict)


def state(folder: Path) -> RebaseState:
    """Return the rebase in progress; raises PatchError when there is none."""
    path = state_path(folder)
    try:
        found = RebaseState(**parsed(path.read_text()))
        base, tip = found.commits
        oids = [*found.refs.values(), *{base, tip}.difference(ENDS)]
        known = found.refs.keys() == {*ENDS} and found.pin.keys() <= PIN
        if not known or not all(map(COMMIT.fullmatch, oids)):
            raise ValueError("it names other refs or commits than a rebase does")  # noqa: TRY301
    except FileNotFoundError as err:
        message = f"no rebase of {folder.name} is going on"
        hint = f"`patchwheel rebase {folder.name} --onto REF`"
        raise PatchError(message, where=folder, hint=hint) from err
    except (OSError, ValueError, TypeError, AttributeError) as err:
        hint = f"move the work tree away: {move_away(folder)}"
        raise PatchError(f"its rebase cannot go on: {err}", where=path, hint=hint) from err
    return found


def state_path(folder: Path) -> Path:
    """Return the file that is there from `start` until the rebase is finished or aborted."""
    return folder / transaction.STATE
