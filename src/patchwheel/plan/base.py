"""Wheels of the same pin to take unaffected files from: upstream's, and those compiled here."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from patchwheel import wheelfile
from patchwheel.kit import Entry, InputError, Repository, digest, process
from patchwheel.manifest import BuildInventory, Fork, ForkBuild
from patchwheel.project import Project
from patchwheel.series import PatchedTree, patched_tree

# What others compile against, made from a template or not.
INTERFACE = r"(?i).*\.(pxd|pxi|h|hh|hpp|hxx|inc|tcc|ipp)(\.\w+)?"
# So many of a fork's own compiles are considered as a base for its next change.
BASES = 3


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base wheel; its content is read, and compared with `sha256`, once.

    One of upstream's for a `platform` is taken as a file, also where it could be run.
    """

    kind: Literal["upstream", "platform", "built"]
    path: Path
    sha256: str

    @functools.cached_property
    def wheel(self) -> wheelfile.WheelFile:
        if not self.path.exists():
            raise InputError("no such wheel", where=self.path)
        return wheelfile.read_wheel(self.path, sha256=self.sha256)

    @functools.cached_property
    def outputs(self) -> dict[str, str]:
        """The names of its files, by the name of the output that each is."""
        return wheelfile.output_names(self.wheel.entries, self.wheel.name)

    def made_from(self, tree: PatchedTree) -> str:
        """Return the tree that it was made from; raises InputError when it has no record."""
        return self.wheel.record.trees.patched if self.kind == "built" else tree.source.tree


def upstream_base(project: Project, fork: Fork) -> Base | None:
    """Return the wheel that upstream published, downloaded if it is not in the store."""
    wheel = project.build(fork).base
    if wheel is None or fork.upstream_wheel is None:
        return None
    return published_base(project, fork, wheel.filename, wheel.sha256, kind="upstream")


def start_base(project: Project, fork: Fork) -> Callable[[], object]:
    """Begin to download the wheel that a plan starts from; return what waits for it."""
    build = project.build(fork)
    used = not project.from_source and build.inventory.compiles(fork)
    if not (build.base and used) or project.store.path("files", build.base.sha256).exists():
        return lambda: None
    # While the source is downloaded and read.
    brought = process.started(functools.partial(upstream_base, project, fork))
    return functools.partial(brought, None)


def published_base(
    project: Project, fork: Fork, filename: str, sha256: str, kind: Literal["upstream", "platform"]
) -> Base:
    """Return one of the wheels that upstream published, downloaded if it is not in the store."""
    entry = project.store.find("files", sha256)
    if entry:
        path = entry / filename
    else:
        # A no-op finds it in the store.
        from patchwheel.source import download_file

        path = download_file(project.context, fork.distribution, filename, sha256)
    return Base(kind=kind, path=path, sha256=sha256)


def built_bases(project: Project, fork: Fork, key_parts: Mapping[str, str]) -> list[Base]:
    """Return the newest wheels of the fork's pin that were compiled here with the same tools."""
    keys = _noted(project, fork).get(digest(dict(key_parts)), [])
    found = filter(None, (project.store.find("wheels", key) for key in keys))
    wheels = map(wheel_of, found)
    return [Base(kind="built", path=path, sha256=sha256) for path, sha256 in wheels]


def wheel_of(entry: Path) -> tuple[Path, str]:
    """Return the wheel of an entry in the store, and its sha256."""
    files = Entry(kind="wheels", key=entry.name, path=entry).listed()
    name = next(name for name in files if name.endswith(".whl"))
    return entry / name, files[name][3]


def remember_base(
    project: Project, fork: Fork, node_key: str, key_parts: Mapping[str, str]
) -> None:
    """Note a compiled wheel as a base for the next change."""
    noted = _noted(project, fork)
    names = ("env", "toolchain", "flags", "interface")
    parts = digest({name: key_parts[name] for name in names})
    older = [key for key in noted.get(parts, []) if key != node_key]
    noted[parts] = [node_key, *older][:BASES]
    project.store.remember("bases", digest(fork.pin, project.python), noted)


def _noted(project: Project, fork: Fork) -> dict[str, Any]:
    return project.store.memo("bases", digest(fork.pin, project.python)) or {}


def base_mismatch(present: Iterable[str], inventory: BuildInventory, fork: Fork) -> str | None:
    """Say in what the base's files differ from the pin's own outputs, or None."""
    upstream = fork.upstream_wheel
    extra, missing = base_differences(present, inventory)
    for verb, found, globs in (
        ("has", extra, upstream.only_in_base if upstream else ()),
        ("lacks", missing, upstream.only_in_build if upstream else ()),
    ):
        names = [n for n in found if not any(fnmatchcase(n, g) for g in globs)]
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return f"it {verb} {names[0]}{more}"
    return None


def base_differences(
    present: Iterable[str], inventory: BuildInventory
) -> tuple[list[str], list[str]]:
    """Return the files of a base that the pin's build lacks, and those that only the build makes.

    auditwheel's folder of bundled libraries is left out: no build makes it itself.
    """
    theirs = {n for n in present if not n.partition("/")[0].endswith(".libs")}
    ours = inventory.verbatim.keys() | set(inventory.built)
    return sorted(theirs - ours), sorted(ours - theirs)


def left_behind(project: Project, build: ForkBuild) -> list[str]:
    """Name the forks whose changed headers upstream's binaries do not know."""
    needs = build.needs if build.inventory.built else ()
    trees = {name: patched_tree(project, project.manifest.forks[name]) for name in needs}
    found = {name: changed_interface(tree) for name, tree in trees.items()}
    kept = "what is not remade stays upstream's binary"
    how = "--from-source compiles against it"
    return [f"{kept}, and {name} changes {path}; {how}" for name, path in found.items() if path]


def changed_interface(tree: PatchedTree) -> str | None:
    """Return a file that a series changes and that other projects compile against, if any."""
    repo = Repository(tree.source.git_dir)
    changes = repo.changes(tree.source.tree, tree.tree)
    return min((c.path for c in changes if re.fullmatch(INTERFACE, c.path)), default=None)
