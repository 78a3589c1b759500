"""Upstream's commits: a repository of their own in the store, without the files that nobody asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from patchwheel.kit.digest import digest
from patchwheel.kit.repo import GitError, Repository
from patchwheel.source.git_remote import Remote, refuse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from patchwheel.kit.context import Context
    from patchwheel.manifest.model import Fork
    from patchwheel.source.fetch import Source

# Files are fetched when they are wanted, many at once; from some servers, and from folders, all of them come.
FETCH = ("fetch", "--quiet", "--no-write-fetch-head", "--filter=blob:none")
REFS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")


class History:
    """The branches and tags of a fork's upstream, as they were when they were last asked for."""

    def __init__(self, context: Context, fork: Fork) -> None:
        self.fork = fork
        self.offline = context.offline
        self.progress = context.progress
        context.store.ensure()
        # Apart from the sources: a repository with holes asks the network for what it lacks.
        # And one for each address: what is borrowed from a folder is not found in another.
        name = f"{fork.name}-upstream-{digest(fork.git)[:12]}.git"
        self.repo = Repository.bare(context.store.root / "git" / name)
        self.remote = Remote(context, fork, self.repo)

    def update(self) -> None:
        """Fetch what is new; raises InputError when the remote cannot be reached, or offline when nothing is there."""
        if self.offline:
            if not self.repo.text("for-each-ref", "--count=1", "refs/heads"):
                refuse(
                    self.fork,
                    "upstream's history is not in the store",
                    hint="run once without --offline",
                )
            return
        url = self.remote.url
        self.borrow(url)
        self.progress.say(f"{self.fork.name}: fetching upstream's history")
        self.repo.git("config", "remote.upstream.url", url)
        self.remote.run(url, *FETCH, "--prune", "upstream", *REFS)

    def borrow(self, url: str) -> None:
        """Use the objects of a repository on this machine where they lie, instead of copying them."""
        folder = Path(url.removeprefix("file://"))
        for objects in (folder / ".git" / "objects", folder / "objects"):
            # git would ask for the commits beyond its end, and again, without an end.
            if objects.with_name("shallow").exists():
                hint = f"git -C {folder} fetch --unshallow"
                refuse(self.fork, f"{url} is a shallow clone", hint=hint)
            if objects.is_dir():
                place = self.repo.git_dir / "objects" / "info" / "alternates"
                place.parent.mkdir(exist_ok=True)
                place.write_text(f"{objects.absolute()}\n")

    def take(self, source: Source) -> None:
        """Have the files of a pin here too."""
        kept = Repository(source.git_dir)
        who = {"name": "patchwheel", "mail": "patchwheel"}
        commit = kept.commit(source.tree, "pin", epoch=0, **who)
        ref = f"refs/patchwheel/pins/{commit}"
        kept.git("update-ref", ref, commit)
        flags = ("fetch", "-q", "--no-tags", "--no-write-fetch-head", "--force")
        self.repo.git(*flags, str(source.git_dir), f"{ref}:{ref}")

    def resolve(self, ref: str) -> str | None:
        """Return the commit of a tag, a branch, a version or a commit id; None when there is none."""
        names = [f"refs/tags/{ref}", f"refs/tags/v{ref}", f"refs/heads/{ref}"]
        if re.fullmatch(r"[0-9a-f]{7,40}", ref):
            names.append(ref)
        for name in names:
            try:
                return self.repo.text("rev-parse", "--verify", f"{name}^{{commit}}")
            except GitError:
                continue
        return None

    def base(self) -> str:
        """Return the pin's commit; raises InputError when it is not in the history."""
        wanted = self.fork.commit or self.fork.tag or self.fork.version
        commit = self.resolve(wanted)
        if commit is None:
            refuse(
                self.fork,
                f"upstream's history has no {wanted}, the pin",
                hint="correct tag or commit in the manifest",
            )
        return commit

    def have(self, oids: Iterable[str]) -> None:
        """Fetch the files that are not there yet, all in one request: git would ask for one at a time."""
        words = ("config", "--default", "", "--get", "remote.upstream.promisor")
        if self.repo.text(*words) == "true" and not self.offline:
            lines = "".join(f"{oid}\n" for oid in sorted(oids)).encode()
            flags = (*FETCH, "--no-tags", "--stdin", "upstream")
            self.remote.run(self.remote.url, *flags, stdin=lines)
