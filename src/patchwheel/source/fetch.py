"""Fetch a pin as a git tree in the store: from its sdist, or from upstream's repository."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from patchwheel.kit.digest import digest
from patchwheel.kit.errors import InputError, MachineError, ManifestError, disk_is_full
from patchwheel.kit.repo import GitError, Repository
from patchwheel.source.git_remote import EARLIEST, Fetched, Remote, refuse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from patchwheel.kit.context import Context
    from patchwheel.kit.store import Store
    from patchwheel.manifest.model import Fork
    from patchwheel.project import Project

Origin: TypeAlias = Literal["sdist", "git"]


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
    inputs = [1, fork.pin, origin, where]
    ref = f"refs/patchwheel/source/{digest(*inputs)}"

    def is_whole(_: Fetched) -> bool:
        # The ref lies in the repository that holds the tree: they can only be lost together.
        return (git_dir / ref).exists()

    def fetch() -> Fetched:
        sdist = None
        if origin == "sdist":
            from patchwheel.source.download import download_file

            if fork.sdist is None:
                refuse(fork, "the pin names no sdist", hint="add `sdist` to the fork")
            sdist = download_file(context, fork.name, fork.sdist.filename, fork.sdist.sha256)
        with _using(fork, store):
            make = functools.partial(_import, context, fork, sdist, ref)
            # Another process may have fetched it while we waited.
            return store.cached("source", Fetched, inputs, make, valid=is_whole)

    fetched = store.cached("source", Fetched, inputs, fetch, valid=is_whole)
    return Source(
        fork=fork,
        git_dir=git_dir,
        tree=fetched.tree,
        epoch=fetched.epoch,
        origin=origin,
        commit=fetched.commit,
    )


def git_folder(store: Store, fork: Fork) -> Path:
    return store.root / "git" / f"{fork.name}.git"


def _import(context: Context, fork: Fork, sdist: Path | None, ref: str) -> Fetched:
    """Bring the pin into the fork's repository, from the sdist or from upstream."""
    from patchwheel.source.sdist import Sdist

    repo = Repository.bare(git_folder(context.store, fork))
    if sdist:
        files = Sdist(sdist)
        tree = repo.import_files(files)
        fetched = Fetched(tree=tree, epoch=max(EARLIEST, files.epoch))
    else:
        fetched = Remote(context, fork, repo).fetch()
    repo.keep_index(fetched.tree)
    # A ref says that the tree is whole, and keeps git from dropping it.
    author = "patchwheel"
    commit = repo.commit(fetched.tree, fork.name, epoch=0, name=author, mail=author)
    repo.git("update-ref", ref, commit)
    return fetched


@contextlib.contextmanager
def _using(fork: Fork, store: Store) -> Iterator[None]:
    """Hold the fork's repository; raise MachineError for a full disk, InputError for the rest."""
    with store.lock(f"git-{fork.name}"), store.scratch():
        try:
            yield
        except GitError as err:
            if disk_is_full(err.stderr):
                raise MachineError("the disk is full", where=store.root, tail=err.tail) from err
            raise InputError(
                f"{fork.name}: git cannot use its repository: {err.message}",
                where=git_folder(store, fork),
                tail=err.tail,
                hint="remove that folder: it is fetched again",
            ) from err
