"""Foreign patches to patches of a series: files, folders of quilt, mailboxes, branches, commits."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from patchwheel import patch as patches
from patchwheel import series
from patchwheel.kit import Blob, InputError, PatchError, Repository, did_you_mean, redacted
from patchwheel.manifest import Fork
from patchwheel.project import Project
from patchwheel.source import get_body
from patchwheel.upstream.history import History, known_history

T = TypeVar("T")
IMPORTED = "refs/patchwheel/imported"
PENDING = "Pending"
# As much as quilt and GNU patch allow.
MAX_FUZZ = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a foreign patch; with `pending` its Upstream-Status is for a person to say."""

    name: str
    origin: str
    did: tuple[str, ...]
    pending: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    imported: tuple[Imported, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    path: Path
    data: bytes
    strip: int | None = None
    status: str = ""


def import_patches(
    project: Project, fork: Fork, places: Sequence[str], *, strip: int | None = None
) -> ImportResult:
    """Add patches at the end of the fork's series, all or nothing."""
    folder, hint = project.work_folder(fork), f"`patchwheel export {fork.name}`, then import again"
    with project.exclusive(fork), project.store.scratch() as scratch:
        if folder.exists() and (problem := series.WorkTree(folder).unexported()):
            message = f"the series cannot be added to: {problem}"
            raise PatchError(message, where=folder, hint=hint)
        files = [file for place in places for file in _collect(project, fork, place, strip)]
        paths = {path for file in files for path in _told(fork, file, _paths_of)}
        tree, work = series.light_tree(project, fork, paths), scratch / fork.name
        series.open_work(tree, work, store=project.store)
        repo = series.WorkTree(work).repo
        made = [_told(fork, file, functools.partial(_commit, repo)) for file in files]
        repo.git("reset", "-q", "--hard")
        others = series.load_all_series(project)
        done = series.export_commits(work, tree.source, store=project.store, others=others)
        if folder.exists():
            series.open_work(series.light_tree(project, fork), folder, store=project.store)
    names = done.written[-len(made) :]
    rows = [
        Imported(name=name, origin=str(file.path), did=did, pending=pending)
        for name, file, (did, pending) in zip(names, files, made, strict=True)
    ]
    return ImportResult(imported=tuple(rows), warnings=done.warnings)


def _told(fork: Fork, file: _File, read: Callable[[_File], T]) -> T:
    """Read a file; an error names its own line, not that of the mail that is made of it."""
    try:
        return read(file)
    except PatchError as err:
        err.hint = f"correct it, or commit it by hand in `patchwheel dev {fork.name}` "
        err.hint += f"and import the rest; nothing of {fork.name} was changed"
        if (number := str(err.where).removeprefix(f"{file.path}:")).isdecimal():
            *above, line = _mail(file).splitlines()[: int(number)] or [b""]
            same = [n for n, row in enumerate(file.data.splitlines(), 1) if row == line]
            place = same[above.count(line) :]
            err.where = f"{file.path}:{place[0]}" if place else file.path
        raise


def _mail(file: _File) -> bytes:
    return patches.to_git(file.data.replace(b"\r\n", b"\n"), file.path.name, (), file.strip)


def _paths_of(file: _File) -> set[str]:
    """Return the paths that a patch names, before the files that it meets are known."""
    return patches.paths_of([patches.Foreign(path=file.path, data=_mail(file))])


def _commit(repo: Repository, file: _File) -> tuple[tuple[str, ...], bool]:
    """Commit a patch onto HEAD; return what was done to it, and whether its status is to say."""
    head = repo.text("rev-parse", "HEAD")
    tree = repo.tree_of(head)
    patch, changed, did = _fitting(repo, repo.files(tree), file)
    if not patch.trailer("Upstream-Status"):
        status = file.status or PENDING
        patch = patches.Foreign(path=patch.path, data=patch.data, fuzz=patch.fuzz, status=status)
        did += [f"Upstream-Status: {status}"]
    patches.check_patch(patch)
    if any(diff.binary for diff in patch.diffs):
        [made] = series.patch_trees(repo, tree, [patch])
    else:
        contents = [(p, now.mode, now.data or b"") for p, now in changed.items() if now]
        gone = [path for path, now in changed.items() if now is None]
        made = repo.import_files(contents, onto=tree, removed=gone)
    mail = patch.mail
    commit = repo.commit(made, patch.message, head, author=mail.author, when=mail.when)
    repo.git("update-ref", "HEAD", commit)
    return tuple(did), patch.status == PENDING


def _fitting(
    repo: Repository, files: Mapping[str, Blob], file: _File
) -> tuple[patches.Foreign, Mapping[str, patches.Content | None], list[str]]:
    """Return the reading of a patch that applies, what it changes, and what was done to it.

    Each hunk goes to one place only: first with all of its context, then with less.
    """
    failed: patches.DoesNotApplyError | None = None
    for fuzz in (*range(MAX_FUZZ + 1), patches.NO_CONTEXT):
        for data in patches.without_crlf(file.data):
            mail = patches.to_git(data, file.path.name, files, file.strip)
            patch = patches.Foreign(path=file.path, data=mail, fuzz=fuzz)
            simulation = patches.Simulation(files, repo.read, patches.paths_of([patch]))
            try:
                offsets = simulation.apply(patch)
            except patches.DoesNotApplyError as err:
                if err.ambiguous or err.landed:
                    raise
                failed = failed or err
                continue
            far = max(map(abs, offsets), default=0)
            did = [f"hunks moved by up to {far} lines"] if far else []
            did += [f"fuzz {fuzz}"] if fuzz > 0 else []
            did += ["no context, placed by line numbers"] if fuzz == patches.NO_CONTEXT else []
            did += ["CRLF line ends removed"] if data != file.data else []
            did += ["names no author"] if "unknown" in patch.mail.author else []
            return patch, simulation.changed(), did
    if failed is None:
        raise PatchError("the patch is empty", where=file.path)
    raise failed


def _collect(project: Project, fork: Fork, place: str, strip: int | None) -> list[_File]:
    """Read the patches of a place: a path, a URL, URL@BRANCH, or commits of upstream."""
    path, address = Path(place), re.fullmatch(r"(.+://.+|/.+)@([^:@]+)", place)
    if path.is_dir() or path.name == "series":
        found = list(_read_folder(path, strip))
    elif path.is_file():
        found = _mails(path, path.read_bytes(), strip)
    elif address:
        found = list(_read_branch(project, fork, address[1], address[2]))
    elif path.suffix in {".patch", ".diff", ".mbox"} and "://" not in place:
        raise InputError("there is no such file", where=path)
    elif "://" in place:
        found = _mails(Path(place.rpartition("/")[2]), _download(project, place), strip)
    else:
        found = list(_read_commits(project, fork, place))
    if not found:
        raise InputError("there are no patches", where=redacted(place))
    return found


def _mails(path: Path, data: bytes, strip: int | None) -> list[_File]:
    return [_File(path=path, data=mail, strip=strip) for mail in patches.split_mails(data)]


def _read_folder(path: Path, strip: int | None) -> Iterator[_File]:
    """Read the patches that a `series` of quilt lists, with its -p, or all of a folder."""
    places = (path, path / "series", path / "patches/series", path / "debian/patches/series")
    series = next((file for file in places if file.is_file()), None)
    if series is None:
        for file in sorted(f for f in path.iterdir() if f.suffix in {".patch", ".diff"}):
            yield from _mails(file, file.read_bytes(), strip)
        return
    for number, line in enumerate(series.read_text("utf-8-sig").splitlines(), 1):
        name, *options = re.sub(r"(^|\s)#.*", "", line).split() or [""]
        file, own = series.parent / name, strip
        for option in options:
            if not (level := re.fullmatch(r"-p(\d)", option)):
                problem = f"cannot read the option {option}"
                raise PatchError(problem, where=f"{series}:{number}", expected="NAME -pN")
            own = int(level[1])
        if name and not file.is_file():
            raise PatchError(f"there is no patch {name}", where=f"{series}:{number}")
        yield from _mails(file, file.read_bytes(), own) if name else ()


def _download(project: Project, url: str) -> bytes:
    if project.context.offline:
        raise InputError(f"{redacted(url)} is not downloaded offline", hint="without --offline")
    if url.startswith("file://"):
        return Path(url.removeprefix("file://")).read_bytes()
    return get_body(f"downloading {redacted(url)}", url)


def _read_branch(project: Project, fork: Fork, url: str, branch: str) -> Iterator[_File]:
    """Read the commits of a branch that upstream does not have, at least not before the pin."""
    history = known_history(project, fork)
    url = f"file://{url}" if url.startswith("/") else url
    heads = history.remote.run(url, "ls-remote", "--heads", "--", url)
    known = re.findall(r"(?m)\trefs/heads/(.+)$", heads)
    if branch not in known:
        problem = f"{redacted(url)} has no branch {branch!r}{did_you_mean(branch, known)}"
        raise InputError(problem, hint="URL@BRANCH")
    refspec = f"+refs/heads/{branch}:{IMPORTED}"
    history.remote.run(url, "fetch", "--quiet", "--no-tags", "--", url, refspec)
    own = _listed(history, IMPORTED, "--not", history.base(), "--branches", "--tags")
    # A branch of upstream's repository itself.
    own = own or _listed(history, IMPORTED, "--not", history.base())
    yield from (_of_commit(history, commit) for commit in own)


def _read_commits(project: Project, fork: Fork, place: str) -> Iterator[_File]:
    history = known_history(project, fork)
    ends = {end: history.resolve(end) for end in place.split("..", 1)}
    if wrong := [end for end, commit in ends.items() if commit is None]:
        problem = f"{place!r} is no file, and no commit or range A..B of upstream's"
        hint = "Give a path, a URL, URL@BRANCH, or a commit of upstream's"
        near = history.nearest(*wrong)
        raise InputError(problem, hint=f"{near} {hint}" if near else hint)
    commits = [*ends.values()]
    # Of a merge, the commits that it brought in.
    first = commits[0] if ".." in place else f"{commits[0]}^1"
    for commit in _listed(history, str(commits[-1]), f"^{first}"):
        yield _of_commit(history, commit, f"Backport [{commit}]")


def _listed(history: History, *words: str) -> list[str]:
    return history.repo.text("rev-list", "--reverse", "--no-merges", *words).split()


def _of_commit(history: History, commit: str, status: str = "") -> _File:
    data = history.repo.git(*series.FORMAT, "--stdout", "-1", commit)
    return _File(path=Path(commit[:12]), data=data, status=status)
