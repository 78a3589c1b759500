"""Patches on a tree: applied in memory, looked at, and only then kept."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from patchwheel.kit.repo import in_memory, read_changes

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from patchwheel.kit.repo import Change, Repository

# For objects that are not kept in this form.
UNSYNCED = ("-c", "core.fsync=none", "-c", "core.looseCompression=0")
MANY_PACKS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What patches make of a tree, in objects of its own that are gone with it."""

    repo: Repository
    tree: str
    changes: Sequence[Change]
    env: Mapping[str, str]

    def read(self, oids: Sequence[str], *, but: Container[str]) -> dict[str, bytes]:
        wanted = [oid for oid in oids if oid not in but]
        return self.repo.read(wanted, env=self.env)

    def keep(
        self,
        contents: Mapping[str, bytes] | None = None,
        *,
        ref: str | None = None,
    ) -> str:
        """Write what the patches made as one pack; return the id of the tree, which a commit at `ref` then has.

        `contents` are those of changed files, by their ids, that need not be asked for again.
        """
        repo, known = self.repo, contents or {}
        changed = [c for c in self.changes if c.status != "D"]
        found = {**known, **self.read([c.new.oid for c in changed], but=known)}
        settings = ("-c", "core.compression=0", "-c", "fastimport.unpackLimit=0")
        with tempfile.TemporaryFile(dir=in_memory()) as stream:
            tree = repo.fast_import(
                cast("BinaryIO", stream),
                ((c.path, c.new.mode, found[c.new.oid]) for c in changed),
                settings=settings,
                onto=self.tree,
                removed=[c.path for c in self.changes if c.status == "D"],
                ref=ref,
            )
        packs = repo.git_dir / "objects" / "pack"
        if sum(1 for _ in packs.glob("*.pack")) > MANY_PACKS:
            repo.git("repack", "-q", "-d", "--geometric=2")
        return tree


@contextlib.contextmanager
def applied(repo: Repository, tree: str, patches: Sequence[Path]) -> Iterator[Trial]:
    """Apply patch files in order to a tree, all or nothing, without fuzz; nothing is kept yet. Raises GitError."""
    # Half of the work and nearly all of the waiting would be loose objects, most of them of steps between.
    with repo.index(tree) as index:
        aside = Path(index["GIT_INDEX_FILE"]).with_name("objects")
        aside.mkdir()
        env = {
            **index,
            "GIT_OBJECT_DIRECTORY": str(aside),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": f"{repo.git_dir.absolute()}/objects",
        }
        names = [str(path.absolute()) for path in patches]
        words = (*UNSYNCED, "apply", "--cached", "--whitespace=nowarn", *names)
        repo.git(*words, env=env)
        words = ("diff-index", "--cached", "-r", "-z", "--no-renames", tree)
        changes = read_changes(repo.git(*words, env=env))
        yield Trial(repo=repo, tree=tree, changes=changes, env=env)


def apply(repo: Repository, tree: str, patches: Sequence[Path]) -> str:
    """Apply patch files and return the id of the tree that they make, which no ref holds."""
    with applied(repo, tree, patches) as trial:
        return trial.keep()
