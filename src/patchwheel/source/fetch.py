"""A pin as a git tree in the store: from the sdist, or from upstream's repository with its submodules."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from patchwheel.kit.digest import digest
from patchwheel.kit.errors import InputError, MachineError, ManifestError
from patchwheel.kit.repo import GitError, Repository
from patchwheel.source.git_remote import EARLIEST, Remote, refuse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from patchwheel.kit.context import Context
    from patchwheel.kit.store import Store
    from patchwheel.manifest.model import Fork
    from patchwheel.project import Project

Origin: TypeAlias = Literal["sdist", "git"]

FULL_DISK = ("No space left on device", "Disk quota exceeded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """`tree` is in the bare repository `git_dir`; `epoch` is the time for whatever is made from it.

    `commit` is known when the tree comes from git.
    """

    fork: Fork
    git_dir: Path
    tree: str
    epoch: int
    origin: Origin
    commit: str | None = None


def fetch_source(project: Project, fork: Fork) -> Source:
    """Return the fork's pin as a git tree; raises ManifestError unless it is the locked tree."""
    locked = project.lock.tree(fork)
    source = fetch_pin(project.context, fork)
    if source.tree != locked:
        raise ManifestError(
            f"{fork.name}: the source tree is {source.tree}",
            where=project.lock.path,
            expected=f"{locked}, which was locked for this pin",
            hint="run `patchwheel lock` if the pin is right",
        )
    return source


def fetch_pin(context: Context, fork: Fork, *, origin: Origin | None = None) -> Source:
    """Return a pin as a git tree, locked or not; one that was fetched before needs no process.

    Raises InputError when the pin cannot be downloaded or its content does not match.
    """
    store = context.store
    origin = origin or ("sdist" if fork.sdist else "git")
    git_dir = git_folder(store, fork)
    # A pin with an sdist leaves the commit out, but a tree from git depends on it.
    where = [fork.git, fork.tag, fork.commit] if origin == "git" else None
    key = digest(fork.pin, origin, where)
    known = _known(store, git_dir, key)
    if known is None:
        sdist = None
        if origin == "sdist":
            sdist = _sdist(context, fork)
        with _using(fork, store):
            # Another process may have fetched it while we waited.
            known = _known(store, git_dir, key)
            if known is None:
                repo = Repository.bare(git_dir)
                known = _from_sdist(repo, sdist) if sdist else Remote(context, fork, repo).fetch()
                _keep(repo, key, known, f"{fork.name}: {origin}")
                store.remember("source", key, known)
    commit = known.get("commit")
    return Source(
        fork=fork,
        git_dir=git_dir,
        tree=str(known["tree"]),
        epoch=int(str(known["epoch"])),
        origin=origin,
        commit=str(commit) if commit else None,
    )


def git_folder(store: Store, fork: Fork) -> Path:
    return store.root / "git" / f"{fork.name}.git"


def _sdist(context: Context, fork: Fork) -> Path:
    from patchwheel.source.download import download_file

    if fork.sdist is None:
        refuse(fork, "the pin names no sdist", hint="add `sdist` to the fork")
    return download_file(context, fork.name, fork.sdist.filename, fork.sdist.sha256)


def _from_sdist(repo: Repository, path: Path) -> dict[str, object]:
    from patchwheel.source.sdist import read_sdist

    files = read_sdist(path)
    tree = repo.import_files(files)
    return {"tree": tree, "epoch": max(EARLIEST, files.epoch)}


def _known(store: Store, git_dir: Path, key: str) -> dict[str, object] | None:
    # The ref lies in the repository that holds the tree: they can only be lost together.
    return store.memo("source", key) if (git_dir / _ref(key)).exists() else None


def _keep(repo: Repository, key: str, known: dict[str, object], message: str) -> None:
    """Point a ref at the tree: it says that the tree is whole, and keeps git from dropping it."""
    repo.keep_index(str(known["tree"]))
    commit = repo.commit(str(known["tree"]), message, epoch=0, name="patchwheel", mail="patchwheel")
    repo.git("update-ref", _ref(key), commit)


def _ref(key: str) -> str:
    return f"refs/patchwheel/source/{key}"


@contextlib.contextmanager
def _using(fork: Fork, store: Store) -> Iterator[None]:
    """Hold the fork's repository; a full disk is the machine's fault, anything else git's own words."""
    with store.lock(f"git-{fork.name}"), store.scratch():
        try:
            yield
        except GitError as err:
            if any(word in err.stderr for word in FULL_DISK):
                raise MachineError("the disk is full", where=store.root, tail=err.tail) from err
            raise InputError(
                f"{fork.name}: git cannot use its repository: {err.message}",
                where=git_folder(store, fork),
                tail=err.tail,
                hint="remove that folder: it is fetched again",
            ) from err
