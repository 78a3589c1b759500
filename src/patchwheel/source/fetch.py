"""Fetch a pin as a git tree in the store, from its sdist or from git with its submodules."""

from __future__ import annotations

import contextlib
import functools
import os
import posixpath
import re
import shlex
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, Never, TypeAlias
from urllib.parse import unquote

from patchwheel import kit
from patchwheel.manifest import Fork
from patchwheel.project import Project
from patchwheel.source.submodules import addresses, joined

Origin: TypeAlias = Literal["sdist", "git"]
# A zip file, and so a wheel, can hold no time before and none after.
EARLIEST, LATEST = 315_532_800, 4_354_819_198
REMOTE = re.compile(r"(https|ssh|file)://.|/|\./|\.\./|[\w.-]+@[\w.-]+:")
# Small packs stay packed: unpacking one object by one, an interrupted fetch would leave a commit
# without its files.
SETTINGS = shlex.split("-c fetch.unpackLimit=1 -c http.lowSpeedLimit=1 -c http.lowSpeedTime=60")
REACH = "check the address, the network and the access rights"
HOLES = "it is a partial clone that lacks these files: name the repository that it was cloned from"
OFFLINE = "run once without --offline"
INSTEAD = "name another address of it, or `false`, in `submodules` of the fork in forks.toml"
UNREACHABLE = re.compile("unable to access|not read (from remote|Username)|' not allowed")
INTERVAL = 1.0
LOCAL = re.compile(r"file://|/|\./|\.\./")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A tree, the time for whatever is made from it, and its commit; None for an sdist's tree."""

    tree: str
    epoch: int
    commit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Fetched):
    """A fork's tree in the bare repository `git_dir`."""

    fork: Fork
    git_dir: Path


def fetch_source(project: Project, fork: Fork) -> Source:
    """Return the fork's pin as a git tree; raises ManifestError unless it is the locked tree."""
    return _checked(project, fetch_pin(project.context, fork), project.lock.entry(fork).tree)


def fetch_light(project: Project, fork: Fork, paths: Collection[str]) -> Source:
    """Return the pin for work on a series that names some paths.

    It need not be locked, and its other submodules may be out of reach. Then they are left out.
    """
    entry = project.locked(fork)
    locked = entry.tree if entry else None
    try:
        return _checked(project, fetch_pin(project.context, fork), locked)
    except kit.InputError:
        if fork.sdist:
            raise
    return fetch_pin(project.context, fork, only=paths)


def _checked(project: Project, source: Source, locked: str | None) -> Source:
    if locked not in {None, source.tree}:
        name = source.fork.name
        problem = f"{name}: the source tree is {source.tree}, not the locked {locked}"
        hint = "run `patchwheel lock` if the pin is right"
        raise kit.ManifestError(problem, where=project.lock.path, hint=hint)
    return source


def fetch_pin(
    context: kit.Context,
    fork: Fork,
    origin: Origin | None = None,
    only: Collection[str] | None = None,
) -> Source:
    """Return a pin as a git tree, locked or not; one that was fetched before needs no process.

    From git, with `only` some paths, submodules that have none of them stay entries of the tree.
    """
    store, git_dir = context.store, git_folder(context.store, fork)
    origin = origin or ("sdist" if fork.sdist else "git")
    # A pin with an sdist leaves the commit out, but a tree from git depends on it.
    where: list[object] | None = [fork.git, fork.tag, fork.commit] if origin == "git" else None
    if where and fork.submodules:
        where.append(dict(fork.submodules))
    inputs = [1, fork.pin, origin, where, *([sorted(only)] if only is not None else [])]
    ref = f"refs/patchwheel/source/{kit.digest(*inputs)}"
    kit.keep_sound(store, git_dir)

    def cached(fetch: Callable[[], Fetched]) -> Fetched:
        # The ref lies in the repository that holds the tree: they can only be lost together.
        whole = (git_dir / ref).exists
        return store.cached("source", Fetched, inputs, fetch, valid=lambda _: whole())

    @context.progress.step(f"{fork.name}: reading the source of the pin", brief=True)
    def fetch() -> Fetched:
        # Not needed where the tree is there.
        from patchwheel.source.download import download_file

        pin = fork.sdist if origin == "sdist" else None
        sdist = download_file(context, fork.name, pin.filename, pin.sha256) if pin else None
        # Only one process at a time changes the fork's repository.
        with store.lock(f"git-{fork.name}"), store.scratch():
            # Another process may have fetched it while we waited.
            fetched = cached(lambda: _import(context, fork, sdist, ref, only))
        kit.keep_sound(store, git_dir)
        return fetched

    return Source(fork=fork, git_dir=git_dir, **asdict(cached(fetch)))


def _moment(epoch: int) -> int:
    return min(max(EARLIEST, epoch), LATEST)


def git_folder(store: kit.Store, fork: Fork) -> Path:
    """Return the place of a fork's repository in the store, which its first fetch makes."""
    return store.root / "git" / f"{fork.name}.git"


def _import(
    context: kit.Context, fork: Fork, sdist: Path | None, ref: str, only: Collection[str] | None
) -> Fetched:
    """Bring the pin into the fork's repository, from the sdist or from upstream."""
    from patchwheel.source.sdist import Sdist

    git_dir = git_folder(context.store, fork)
    try:
        repo = kit.Repository.bare(git_dir)
        if sdist:
            files = Sdist(sdist)
            tree = repo.import_files(files)
            fetched = Fetched(tree=tree, epoch=_moment(files.epoch))
        else:
            fetched = Remote(context, fork, repo).fetch(only)
        repo.keep_index(fetched.tree)
        # A ref says that the tree is whole, and keeps git from dropping it.
        repo.git("update-ref", ref, repo.commit(fetched.tree, fork.name))
    except kit.GitError as err:
        problem = f"{fork.name}: git cannot use its repository: {err.message}"
        hint = "remove that folder: it is fetched again"
        raise kit.InputError(problem, where=git_dir, tail=err.tail, hint=hint) from err
    return fetched


class Remote:
    """Upstream's repository and those of its submodules, fetched into one bare repository."""

    def __init__(self, context: kit.Context, fork: Fork, repo: kit.Repository) -> None:
        if fork.git is None:
            refuse(fork, "the pin names no repository", hint="add `git` to the fork")
        self.fork = fork
        self.url = fork.git
        self.repo = repo
        self.context = context
        # The paths of those that were met.
        self.submodules = set[str]()

    def fetch(self, only: Collection[str] | None = None) -> Fetched:
        """Return the commit, and the tree of its files with those of the submodules."""
        commit = self.commit()
        self.get(self.url, commit, what="the pinned commit")
        epoch = int(self.repo.text("show", "-s", "--format=%ct", commit))
        tree = self.spliced(commit, self.url, at="", only=only)
        known = self.submodules
        if only is None and (odd := [path for path in self.fork.submodules if path not in known]):
            problem = f"there is no submodule {odd[0]}{kit.did_you_mean(odd[0], known)}"
            expected = f"one of {', '.join(sorted(known))}" if known else None
            refuse(self.fork, problem, expected=expected, hint="correct `submodules` in forks.toml")
        return Fetched(tree=tree, epoch=_moment(epoch), commit=commit)

    def commit(self) -> str:
        """Return the pinned commit, or that of the tag; unless offline, the two must agree."""
        fork = self.fork
        if fork.commit and (self.context.offline or fork.tag is None):
            return fork.commit
        if fork.tag is None:
            hint = f"add the release's `tag` or `commit` to [forks.{fork.name}] in forks.toml"
            refuse(fork, "the pin names neither tag nor commit", hint=hint)
        if self.context.offline:
            refuse(fork, f"the commit of tag {fork.tag} is not known offline", hint=OFFLINE)
        name = f"refs/tags/{fork.tag}"
        out = self.run(self.url, "ls-remote", "--", self.url, name, f"{name}^{{}}")
        refs = {ref: oid for oid, ref in map(str.split, out.splitlines())}
        # An annotated tag is listed twice: itself, and the commit that it names.
        tagged = refs.get(f"{name}^{{}}") or refs.get(name)
        if tagged is None:
            out = self.run(self.url, "ls-remote", "--tags", "--refs", "--", self.url)
            near = kit.did_you_mean(fork.tag, [row.split("\t")[1][10:] for row in out.splitlines()])
            refuse(fork, f"{kit.redacted(self.url)} has no tag {fork.tag}{near}")
        if fork.commit not in {None, tagged}:
            problem = f"tag {fork.tag} of {kit.redacted(self.url)} is commit {tagged}"
            hint = "upstream moved the tag, or the pin is wrong: find out which first"
            refuse(fork, problem, expected=f"the pinned commit {fork.commit}", hint=hint)
        return tagged

    def get(self, url: str, commit: str, *, what: str) -> None:
        """Fetch the commit with its files, unless the repository has them."""
        if self.repo.has(f"{commit}^{{tree}}"):
            return
        shown = kit.redacted(url)
        if self.context.offline:
            refuse(self.fork, f"{what} {commit} of {shown} is not in the store", hint=OFFLINE)
        self.context.note(f"{self.fork.name}: fetching {commit[:12]} from {shown}")
        flags = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--force")
        try:
            self.run(url, *flags, "--depth=1", "--", url, commit)
        except kit.InputError:
            # A server may refuse to send a commit by its id; then all of its refs are fetched.
            everything = f"+refs/*:refs/patchwheel/remote/{kit.digest(url)[:12]}/*"
            self.run(url, *flags, "--", url, everything)
        if not self.repo.has(f"{commit}^{{tree}}"):
            hint = "correct the commit in the manifest, or pin the fork to its sdist"
            refuse(self.fork, f"{shown} has no commit {commit}, {what}", hint=hint)

    def spliced(
        self, commit: str, url: str, *, at: str, only: Collection[str] | None = None
    ) -> str:
        """Return the commit's tree with the files of each submodule in the submodule's place.

        Given paths, only submodules that have some of them count; others stay as they are.
        """
        tree = self.repo.tree_of(commit)
        files = self.repo.files(tree)
        links = {path: blob.oid for path, blob in files.items() if blob.mode == "120000"}
        self.check_links(links, at)
        modules = {path: b.oid for path, b in files.items() if b.mode == "160000"}
        if only is not None:
            wanted = {p for p in modules if any(o.startswith(f"{at}{p}/") for o in only)}
            modules = {path: modules[path] for path in wanted}
        if not modules:
            return tree
        urls = addresses(self.repo, files[".gitmodules"].oid) if ".gitmodules" in files else {}
        with self.repo.index(tree) as env:
            for path, oid in sorted(modules.items()):
                # Its entry has to go before files can take its place.
                gone = f"0 {'0' * 40}\t{path}\0".encode(errors="surrogateescape")
                self.repo.git("update-index", "-z", "--index-info", stdin=gone, env=env)
                self.submodules.add(at + path)
                if address := self.address(url, at + path, urls.get(path)):
                    self.get(address, oid, what=f"submodule {at + path}")
                    below = self.spliced(oid, address, at=f"{at}{path}/", only=only)
                    self.repo.git("read-tree", "-i", f"--prefix={path}/", below, env=env)
            return self.repo.text("write-tree", env=env)

    def address(self, url: str, path: str, named: str | None) -> str | None:
        """Return the address of a submodule, None if it is left out.

        The manifest's comes before the one `named` in .gitmodules; `url` is that of its parent.
        """
        if path in self.fork.submodules:
            return self.fork.submodules[path] or None
        if named is None:
            refuse(self.fork, f"submodule {path} has no url in .gitmodules", hint=INSTEAD)
        address = joined(url, named)
        if LOCAL.match(address) and not LOCAL.match(url):
            problem = f"submodule {path} is at a path of this machine"
            refuse(self.fork, problem, hint=INSTEAD)
        return address

    def check_links(self, links: dict[str, str], at: str) -> None:
        """Refuse links that lead out of the tree, which is checked out where builds run."""
        targets = self.repo.read(list(links.values()))
        for path, oid in links.items():
            target = os.fsdecode(targets[oid])
            end = posixpath.normpath(posixpath.join(at, posixpath.dirname(path), target))
            # After a name, `..` leaves the folder that a link of this name leads to.
            winding = re.search(r"(^|/)(?!\.\.?/)[^/]+/+(\./+)*\.\.(/|$)", target)
            if winding or end.startswith("/") or not {"..", ".git"}.isdisjoint(end.split("/")):
                refuse(self.fork, f"link {at + path} leads out of the tree, to {target}")

    def check_local(self, url: str) -> None:
        """Refuse a repository on this machine by which git would read another one's objects."""
        folder = Path(unquote(url.removeprefix("file:")))
        places = (folder / ".git/objects", folder / "objects") if LOCAL.match(url) else ()
        if any(p.is_symlink() or (p / "info/alternates").exists() for p in places):
            hint = f"git -C {shlex.quote(str(folder))} repack -a -d, then remove "
            hint += "objects/info/alternates there"
            refuse(self.fork, f"{kit.redacted(url)} reads objects of another repository", hint=hint)

    def run(self, url: str, *argv: str, stdin: bytes = b"") -> str:
        """Run a git command that talks to a remote, by https, ssh or file only.

        What failed before in this run fails at once, of an address out of reach whatever is asked.
        """
        done, asked = self.context.done, f"{url} {argv} {stdin!r}"
        self.fail_again(url, asked)
        if not REMOTE.match(url):
            problem = f"{kit.redacted(url)}: patchwheel does not fetch from such an address"
            refuse(self.fork, problem, expected="https://, ssh:// or file://")
        self.check_local(url)
        settings = {"GIT_ALLOW_PROTOCOL": os.environ.get("GIT_ALLOW_PROTOCOL", "file:https:ssh")}
        try:
            with kit.user_remotes() as users:
                env = settings | users
                git = functools.partial(self.repo.git, *SETTINGS, *argv, stdin=stdin, env=env)
                return self.shown(url, kit.process.started(git)).decode(errors="replace")
        except kit.GitError as err:
            problem = f"{self.fork.name}: git cannot fetch from {kit.redacted(url)}"
            hint = HOLES if "promisor remote" in err.stderr else REACH
            tail = kit.redacted(err.stderr).splitlines()[-10:]
            error = kit.InputError(problem, tail=tail, hint=hint)
            done[url if UNREACHABLE.search(err.stderr) else asked] = error
            raise error from err

    def fail_again(self, *asked: str) -> None:
        """Raise the error with which something failed before, perhaps for another fork."""
        for known in map(self.context.done.get, asked):
            if isinstance(known, kit.InputError):
                why = known.message.partition(": ")[2]
                raise replace(known, message=f"{self.fork.name}: {why}")

    def shown(self, url: str, git: Callable[[float], bytes]) -> bytes:
        """Return what git writes, and show the size of the incoming pack until it does."""
        task, most = f"{self.fork.name}: from {kit.redacted(url)}", 0
        progress = self.context.progress.progress
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    return git(INTERVAL)
                # A finished pack is renamed.
                with contextlib.suppress(OSError):
                    packs = (self.repo.git_dir / "objects" / "pack").glob("tmp_pack_*")
                    most = max([most, *(pack.stat().st_size for pack in packs)])
                if most:
                    progress(task, most, None)
        finally:
            if most:
                progress(task, most, most)


def refuse(fork: Fork, why: str, *, expected: str | None = None, hint: str | None = None) -> Never:
    """Raise InputError for a pin that cannot be fetched."""
    raise kit.InputError(f"{fork.name}: {why}", expected=expected, hint=hint)
