"""Upstream's commits, in a repository of their own in the store, and its releases."""

from __future__ import annotations

import contextlib
import difflib
import re
import shlex
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from patchwheel.build import read_table
from patchwheel.kit import Context, GitError, InputError, Repository, digest, keep_sound
from patchwheel.manifest import VERSION, Fork
from patchwheel.project import Project
from patchwheel.source import Remote, Source, asking, fetch_pin, find_sdist, refuse

# Without files, which `fetch_blobs` gets; a server that cannot filter sends them all the same.
FETCH_COMMITS = ("fetch", "--quiet", "--no-write-fetch-head", "--filter=blob:none")
# Which releases contain a commit is then a tenth of the work.
GRAPH = ("-c", "fetch.writeCommitGraph=true")
REFS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
VERSION_FILE = re.compile(r"pyproject\.toml|([^/]+/){1,2}(__init__|_version|version)\.py")
HEAD = re.compile(r"(?m)^ref: refs/heads/(\S+)\tHEAD$")
STATED = re.compile(r"""(?m)^__version__ = ["']([^"']+)["']""")


class History:
    """The branches and tags of a fork's upstream, as of the last update.

    `failed` says why upstream's repository could not be reached just now.
    """

    def __init__(self, context: Context, fork: Fork) -> None:
        self.fork = fork
        self.context = context
        self.failed: InputError | None = None
        context.store.ensure()
        # Apart from the sources: git asks the network for objects that a partial clone lacks. And
        # one for each address: alternates of another folder do not have these objects.
        name = f"{fork.name}-upstream-{digest(fork.git)[:12]}.git"
        git_dir = context.store.root / "git" / name
        keep_sound(context.store, git_dir)
        self.repo = Repository.bare(git_dir)
        self.remote = Remote(context, fork, self.repo)

    def update(self) -> None:
        """Fetch new commits; raises InputError without a remote, or offline without any commits."""
        if self.context.offline:
            if not self.repo.text("for-each-ref", "--count=1", "refs/heads"):
                problem = "upstream's history is not in the store"
                refuse(self.fork, problem, hint="run once without --offline")
            return
        url, place = self.remote.url, str(self.repo.git_dir)
        # Several stages of a run ask, and what it compares must not change in between.
        if place in self.context.done:
            return
        self.remote.fail_again(url)
        self.use_alternates(url)
        self.repo.git("config", "remote.upstream.url", url)
        with self.context.progress.step(f"{self.fork.name}: fetching upstream's history"):
            self.remote.run(url, *GRAPH, *FETCH_COMMITS, "--prune", "upstream", *REFS)
        self.context.done[place] = True

    def use_alternates(self, url: str) -> None:
        """Use the objects of a repository on this machine in place, instead of copying them."""
        self.remote.check_local(url)
        folder = Path(url.removeprefix("file://"))
        for objects in (folder / ".git" / "objects", folder / "objects"):
            # git would look for the commits that it lacks, and fail, time and again.
            if objects.with_name("shallow").exists():
                hint = f"git -C {shlex.quote(str(folder))} fetch --unshallow"
                refuse(self.fork, f"{url} is a shallow clone", hint=hint)
            if objects.is_dir():
                alternates = self.repo.git_dir / "objects" / "info" / "alternates"
                alternates.parent.mkdir(exist_ok=True)
                alternates.write_text(f"{objects.absolute()}\n")

    def resolve(self, ref: str) -> str | None:
        """Return the commit of a tag, branch, version or commit id; None when there is none."""
        names = [f"refs/tags/{ref}", f"refs/tags/v{ref}", f"refs/heads/{ref}"]
        if re.fullmatch(r"[0-9a-f]{7,40}", ref):
            names.append(ref)
        for name in names:
            with contextlib.suppress(GitError):
                return self.repo.text("rev-parse", "--verify", f"{name}^{{commit}}")
        return None

    def nearest(self, *refs: str) -> str | None:
        """Ask whether branches and tags were meant whose names are like a ref; None without any."""
        argv = ("for-each-ref", "--format=%(refname:lstrip=2)", "refs/tags", "refs/heads")
        names = self.repo.text(*argv).split()
        near = [name for ref in refs for name in difflib.get_close_matches(ref, names, n=3)]
        return f"did you mean {', '.join(near)}?" if near else None

    def commit(self, ref: str) -> str:
        """Return the commit of a ref; raises InputError with names that are like it."""
        commit = self.resolve(ref)
        if commit is None:
            hint = self.nearest(ref) or "give a branch, tag, version or commit"
            refuse(self.fork, f"upstream has no branch, tag or commit {ref}", hint=hint)
        return commit

    def main(self) -> str:
        """Return the branch that upstream works on: the one that its repository names first."""
        if not self.context.offline:
            words = ("ls-remote", "--symref", "--", self.remote.url, "HEAD")
            if named := HEAD.search(self.remote.run(self.remote.url, *words)):
                return named[1]
        return next((name for name in ("main", "master") if self.resolve(name)), "main")

    def base(self) -> str:
        """Return the pin's commit; raises InputError when it is not in the history."""
        pin = self.fork.commit or self.fork.tag or self.fork.version
        commit = self.resolve(pin)
        if commit is None:
            problem = f"upstream's history has no {pin}, the pin"
            refuse(self.fork, problem, hint="correct tag or commit in the manifest")
        return commit

    def fetch_blobs(self, oids: Iterable[str]) -> None:
        """Fetch files that are not there yet, in one request: git would fetch them one by one."""
        setting = ("--default", "", "--get", "remote.upstream.promisor")
        out_of_reach = self.context.offline or self.failed
        if self.repo.text("config", *setting) == "true" and not out_of_reach:
            lines = "".join(f"{oid}\n" for oid in sorted(oids)).encode()
            argv = (*FETCH_COMMITS, "--no-tags", "--stdin", "upstream")
            self.remote.run(self.remote.url, *argv, stdin=lines)

    def tree(self, commit: str, paths: Collection[str]) -> str:
        """Return a commit's tree, with the files of the submodules that have some of the paths."""
        return self.remote.spliced(commit, self.remote.url, at="", only=paths)

    def stated_version(self, commit: str) -> str:
        """Return the version of a commit by its project table or its packages' `__version__`."""
        files = self.repo.files(self.repo.tree_of(commit))
        oids = {p: b.oid for p, b in files.items() if VERSION_FILE.fullmatch(p)}
        self.fetch_blobs(oids.values())
        contents = self.repo.read([*oids.values()])
        texts = {p: contents[oid].decode(errors="replace") for p, oid in oids.items()}
        text = texts.pop("pyproject.toml", "").encode()
        version = read_table(text, "project", commit).get("version")
        stated = {v for text in texts.values() for v in STATED.findall(text)}
        found = {version} if isinstance(version, str) else stated
        if len(found) == 1 and VERSION.fullmatch(*found):
            return str(*found)
        raise InputError(
            f"{self.fork.name}: its files do not tell the version of {commit[:12]}",
            expected="one `version` in pyproject.toml or `__version__` in a package"
            + (f", not {', '.join(sorted(found))}" if found else ""),
            hint="pin it by hand in a second manifest: `git`, `commit` and `version`",
        )


def label_of(fork: Fork) -> str:
    """Return what conflict markers call a pin."""
    return f"upstream {fork.tag or fork.version}"


def import_pin(repo: Repository, source: Source, ref: str) -> None:
    """Copy the files of a pin into another repository, as a commit at `ref`."""
    pins = Repository(source.git_dir)
    label = f"{label_of(source.fork)}\n"
    commit = pins.commit(source.tree, label, when=f"{source.epoch} +0000")
    kept = f"refs/patchwheel/onto/{commit}"
    pins.git("update-ref", kept, commit)
    repo.fetch(source.git_dir, f"{kept}:{ref}")


def upstream_history(project: Project, fork: Fork) -> History | None:
    """Return upstream's commits as they are now, or were when its repository was last reached.

    None for a fork whose pin names no repository.
    """
    if fork.git is None:
        project.context.note(f"{fork.name}: the pin names no repository; only releases can be had")
        return None
    history = History(project.context, fork)
    try:
        history.update()
    except InputError as err:
        history.failed = err
        words = ("--sort=-committerdate", "--count=1", "--format=%(committerdate:short)")
        last = ""
        # Commits that were used in place are gone with their repository.
        with contextlib.suppress(GitError):
            last = history.repo.text("for-each-ref", *words, "refs/heads")
        known = f"commits up to {last}, which were fetched before, and " if last else ""
        project.context.note(f"{_why(err)}; {known or 'only '}releases can be compared")
    return history


def _why(err: InputError) -> str:
    """Return the message with git's own reason."""
    reasons = [line for line in err.tail if line.startswith(("fatal: ", "error: ", "ssh: "))]
    return ": ".join([err.message, *reasons[:1]])


def known_history(project: Project, fork: Fork) -> History:
    """Return upstream's commits; raises InputError where its repository cannot be reached."""
    history = upstream_history(project, fork)
    if history is None:
        refuse(fork, "the pin names no repository", hint="add `git` to the fork in forks.toml")
    if history.failed:
        raise history.failed
    return history


def release(project: Project, fork: Fork, ref: str, history: History | None = None) -> Source:
    """Return another release of a fork's upstream, from its sdist; raises InputError."""
    version = ref.removeprefix("v")
    if version == fork.version:
        return fetch_pin(project.context, fork)
    try:
        with asking(project.context, fork.name):
            sdist = find_sdist(project.context.index, fork.name, version)
    except InputError as err:
        if history is None:
            raise
        if history.failed:
            problem = f"{err.message}, and upstream's branches and commits are out of reach: "
            problem += _why(history.failed).removeprefix(f"{fork.name}: ")
            raise InputError(problem, expected=err.expected, hint=history.failed.hint) from err
        problem = f"{fork.name}: upstream has no branch, tag or commit {ref}, and {err.message}"
        raise InputError(problem, hint=history.nearest(ref) or err.hint) from err
    pin = replace(fork, version=version, git=None, tag=None, commit=None, sdist=sdist)
    return fetch_pin(project.context, pin, origin="sdist")


def find_target(project: Project, fork: Fork, ref: str) -> Source:
    """Return a tag, branch, commit or release of upstream's, with the pin that it would have."""
    history = upstream_history(project, fork)
    commit = history.resolve(ref) if history else None
    version = ref.removeprefix("v")
    # Upstream names the tags of its releases alike.
    tag = (fork.tag or "").replace(fork.version, version) or None
    try:
        released = release(project, fork, ref, history)
    except InputError:
        if history is None or commit is None:
            raise
        version = history.stated_version(commit)
        pin = replace(fork, version=version, tag=None, commit=commit, sdist=None)
        return fetch_pin(project.context, pin, origin="git")
    named = replace(released.fork, git=fork.git, tag=tag, commit=commit)
    return replace(released, fork=named)
