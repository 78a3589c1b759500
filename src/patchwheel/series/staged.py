"""`git apply` on a tree, its result looked at before it is committed to the repository."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from patchwheel.kit.repo import read_changes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from patchwheel.kit.repo import Change, Repository

# The staged objects are temporary: neither the disk nor their size matters.
TEMPORARY = ("-c", "core.fsync=none", "-c", "core.looseCompression=0")
# A pack for each series; git gets slow when it has to look into hundreds of them.
MANY_PACKS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedTree:
    """What patches change in a tree, in temporary objects that `env` points git to."""

    repo: Repository
    tree: str
    changes: Sequence[Change]
    env: Mapping[str, str]

    def commit(self, contents: Mapping[str, bytes] | None = None, *, ref: str | None = None) -> str:
        """Write the result to the repository; return the id of its tree.

        A commit at `ref` holds the tree; without one nothing does. `contents` are blobs by id
        that need not be read again, which is a process less.
        """
        contents = contents or {}
        changed = [change for change in self.changes if change.status != "D"]
        unread = [change.new.oid for change in changed if change.new.oid not in contents]
        contents = {**contents, **self.repo.read(unread, env=self.env)}
        with tempfile.TemporaryFile() as stream:
            # One pack: git would compress and sync each loose object by itself, the blobs between
            # two patches included. For fifty patches that costs five times as much.
            tree = self.repo.fast_import(
                cast("BinaryIO", stream),
                ((c.path, c.new.mode, contents[c.new.oid]) for c in changed),
                settings=("-c", "core.compression=0", "-c", "fastimport.unpackLimit=0"),
                onto=self.tree,
                removed=[change.path for change in self.changes if change.status == "D"],
                ref=ref,
            )
        packs = self.repo.git_dir / "objects" / "pack"
        if sum(1 for _ in packs.glob("*.pack")) > MANY_PACKS:
            self.repo.git("repack", "-q", "-d", "--geometric=2")
        return tree


@contextlib.contextmanager
def stage_patches(repo: Repository, tree: str, patches: Sequence[Path]) -> Iterator[StagedTree]:
    """Apply patch files in order to a tree, all or nothing, without fuzz; raises GitError.

    The result is gone at the end of the context, unless it is committed.
    """
    with repo.index(tree) as index:
        objects = Path(index["GIT_INDEX_FILE"]).with_name("objects")
        objects.mkdir()
        env = {
            **index,
            "GIT_OBJECT_DIRECTORY": str(objects),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": f"{repo.git_dir.absolute()}/objects",
        }
        names = [str(path.absolute()) for path in patches]
        repo.git(*TEMPORARY, "apply", "--cached", "--whitespace=nowarn", *names, env=env)
        out = repo.git("diff-index", "--cached", "-r", "-z", "--no-renames", tree, env=env)
        yield StagedTree(repo=repo, tree=tree, changes=read_changes(out), env=env)


def apply_patches(repo: Repository, tree: str, patches: Sequence[Path]) -> str:
    """Apply patch files and return the id of the resulting tree, which no ref holds."""
    with stage_patches(repo, tree, patches) as staged:
        return staged.commit()
