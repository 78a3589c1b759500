"""What a maintainer of a series asks of upstream's history: forecasts, and moving the series to another pin."""

from __future__ import annotations

import re
import shutil
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from patchwheel.kit.digest import digest
from patchwheel.kit.errors import InputError, PatchError
from patchwheel.locking.write import write_lock
from patchwheel.manifest.model import VERSION
from patchwheel.series.files import check_patch, load_series
from patchwheel.series.patched import load_all_series, patched_tree
from patchwheel.source.fetch import fetch_pin, fetch_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from patchwheel.kit.repo import Repository
    from patchwheel.manifest.model import Fork
    from patchwheel.project import Project
    from patchwheel.series.export import ExportResult
    from patchwheel.source.fetch import Source
    from patchwheel.upstream.forecast import Forecast
    from patchwheel.upstream.history import History
    from patchwheel.upstream.merge import MergeResult

VERSION_FILE = re.compile(r"pyproject\.toml|([^/]+/){1,2}(__init__|_version|version)\.py")
STATED = re.compile(r"""(?m)^__version__ = ["']([^"']+)["']""")


def forecasts(project: Project, fork: Fork, refs: Sequence[str]) -> list[Forecast]:
    """Follow the fork's series to tags, branches, commits and releases of upstream's.

    Where upstream's repository cannot be reached, releases are read from their sdists, and no commit is named.
    """
    from patchwheel.kit.repo import Repository
    from patchwheel.upstream.forecast import Forecast, Span, forecast
    from patchwheel.upstream.verdict import verdict_without_history
    from patchwheel.upstream.walk import try_series

    patches = load_series(fork.patches).patches
    for patch in patches:
        check_patch(patch)
    history = upstream_history(project, fork)
    base = history.base() if history else ""
    found = []
    for ref in refs:
        if history and (tip := history.resolve(ref)):
            span = Span(ref=ref, base=base, tip=tip)
            found.append(forecast(history.repo, patches, span, fetch_blobs=history.fetch_blobs))
            continue
        released = release(project, fork, ref)
        repo = Repository(released.git_dir)
        statuses = try_series(repo.files(released.tree), repo.read, patches)
        verdicts = map(verdict_without_history, (p.name for p in patches), statuses)
        found.append(Forecast(ref=ref, commit=None, commits=0, patches=tuple(verdicts)))
    return found


def remember_forecasts(project: Project, fork: Fork, found: Sequence[Forecast]) -> dict[str, Any]:
    """Note forecasts by ref and return what was noted the last time."""
    key = digest(str(project.manifest.path), fork.name)
    known: dict[str, Any] = project.store.memo("forecasts", key) or {}
    new: dict[str, object] = {row.ref: row.to_json()["patches"] for row in found}
    project.store.remember("forecasts", key, {**known, **new})
    return known


def release(project: Project, fork: Fork, version: str) -> Source:
    """Return another release of a fork's upstream, from its sdist."""
    from patchwheel.source.index import find_sdist

    if version == fork.version:
        return fetch_source(project, fork)
    sdist = find_sdist(project.context.index, fork.name, version)
    pin = replace(fork, version=version, git=None, tag=None, commit=None, sdist=sdist)
    return fetch_pin(project.context, pin, origin="sdist")


def upstream_history(project: Project, fork: Fork) -> History | None:
    """Return upstream's commits as they are now, or None, and why, where its repository cannot be reached."""
    from patchwheel.upstream.history import History

    try:
        history = History(project.context, fork)
        history.update()
    except InputError as err:
        project.progress.say(f"{err.message}; only releases can be had")
        return None
    return history


def target(project: Project, fork: Fork, ref: str) -> Source:
    """Return a tag, branch or commit of upstream's, or a release, as a source with the pin that it would have.

    A release is its sdist, with the tag named like the one of today's pin, where the repository has it.
    """
    history = upstream_history(project, fork)
    commit = history.resolve(ref) if history else None
    version = ref.removeprefix("v")
    tag = (fork.tag or "").replace(fork.version, version) or None
    try:
        released = release(project, fork, version)
    except InputError:
        if history is None or commit is None:
            raise
        version = stated_version(history, commit)
        pin = replace(fork, version=version, tag=None, commit=commit, sdist=None)
        return fetch_pin(project.context, pin, origin="git")
    named = replace(released.fork, git=fork.git, tag=tag, commit=commit)
    return replace(released, fork=named)


def stated_version(history: History, commit: str) -> str:
    """Return the version that upstream's files give a commit: its project table, or the one `__version__` of its packages."""
    files = history.repo.files(history.repo.tree_of(commit))
    oids = {p: b.oid for p, b in files.items() if VERSION_FILE.fullmatch(p)}
    history.fetch_blobs(oids.values())
    contents = history.repo.read([*oids.values()])
    texts = {p: contents[oid].decode(errors="replace") for p, oid in oids.items()}
    project = tomllib.loads(texts.pop("pyproject.toml", "")).get("project", {})
    stated = {v for text in texts.values() for v in STATED.findall(text)}
    found = {project["version"]} if "version" in project else stated
    if len(found) != 1 or not VERSION.fullmatch(*found):
        raise InputError(
            f"{history.fork.name}: its files do not tell the version of {commit[:12]}",
            expected="one `version` in pyproject.toml or `__version__` in a package"
            + (f", not {', '.join(sorted(found))}" if found else ""),
            hint="pin it by hand in a second manifest: `git`, `commit` and `version`",
        )
    return str(*found)


def preview_rebase(project: Project, fork: Fork, ref: str) -> tuple[MergeResult, ...]:
    """Merge the fork's series onto another state of upstream's, in memory."""
    from patchwheel.kit.repo import Repository
    from patchwheel.upstream.merge import Ends, dry_run
    from patchwheel.upstream.rebase import label_of

    def merged(repo: Repository, new: str) -> tuple[MergeResult, ...]:
        ends = Ends(
            old=tree.source.tree, new=new, old_label=label_of(fork), new_label=f"upstream {ref}"
        )
        return dry_run(repo, tree.series.patches, ends, fetch_blobs=fetch_blobs)

    tree, history = patched_tree(project, fork), upstream_history(project, fork)
    fetch_blobs: Callable[[Iterable[str]], None] = lambda _oids: None  # noqa: E731
    if history and (commit := history.resolve(ref)):
        history.import_pin(tree.source)
        fetch_blobs = history.fetch_blobs
        return merged(history.repo, history.repo.tree_of(commit))
    released = release(project, fork, ref)
    return merged(Repository(released.git_dir), released.tree)


def start_rebase(project: Project, fork: Fork, ref: str) -> ExportResult:
    from patchwheel.upstream import rebase

    folder = project.work_folder(fork)
    with project.exclusive(fork):
        if rebase.state_path(folder).exists():
            raise PatchError(
                f"a rebase of {fork.name} is going on",
                where=folder,
                hint=f"`patchwheel rebase {fork.name} --continue`, --skip or --abort",
            )
        onto = target(project, fork, ref)
        rebase.start(
            patched_tree(project, fork), onto, folder, store=project.store, say=project.progress.say
        )
        return finish_rebase(project, fork)


def proceed_rebase(project: Project, fork: Fork, how: str) -> ExportResult | None:
    from patchwheel.manifest import transaction
    from patchwheel.upstream import rebase

    folder = project.work_folder(fork)
    with project.exclusive(fork):
        if how == "abort":
            rebase.abort(folder)
            transaction.unstage(project.manifest.root, fork.name)
            return None
        rebase.resume(folder, how)
        return finish_rebase(project, fork)


def finish_rebase(project: Project, fork: Fork) -> ExportResult:
    """Make pin, lock and series of the rebased work tree beside the project, then put them in place together."""
    from patchwheel.manifest import transaction
    from patchwheel.series.export import export_commits
    from patchwheel.upstream import rebase

    root, folder = project.manifest.root, project.work_folder(fork)
    state = rebase.state(folder)
    # Tried before, and cut off: it can be done again.
    rebase.restore_base(folder)
    manifest_path = project.manifest.path
    generated = (project.manifest.lock_path, project.manifest.inventory_path)
    staged = transaction.stage(root, manifest_path, generated, fork.name)
    try:
        manifest = staged / project.manifest.path.name
        text = rebase.with_pin(manifest.read_text("utf-8"), fork.name, state.pin)
        manifest.write_text(text, encoding="utf-8")
        other = project.with_manifest(manifest)
        moved = other.manifest.forks[fork.name]
        onto = fetch_pin(other.context, moved)
        rebase.set_base(folder, onto)
        result = export_commits(folder, onto, store=project.store, others=load_all_series(project))
        write_lock(other, [fork.name])
    except BaseException:
        rebase.restore_base(folder)
        shutil.rmtree(staged, ignore_errors=True)
        raise
    names = [f.name for f in (*generated, manifest_path) if (staged / f.name).exists()]
    then = rebase.state_path(folder)
    transaction.commit(root, staged, names, fork.name, then=then)
    return result
