"""Compares a graft with a compile of its tree, and a release wheel with its repetition."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeAlias

from patchwheel.build import CLOCK, check_machine, toolchain
from patchwheel.guest import CLOCK_SOURCE
from patchwheel.kit import BuildError, CheckError, Store, first, process
from patchwheel.manifest import Fork
from patchwheel.plan import Planner
from patchwheel.project import Project
from patchwheel.series import PatchedTree, patched_tree
from patchwheel.wheel import BuiltWheel, Made, build_needs, build_wheel, make_wheel
from patchwheel.wheelfile import output_names, read_wheel

UMASK = 0o077
# Of the store only what is named by its content, and what cost a download, is used again.
SHARED = ("files", "git")
ENVIRONMENT = {"TZ": "Pacific/Kiritimati", "LC_ALL": "POSIX", "PYTHONHASHSEED": "4711"}
CONDITIONS = ("folder", "home", "store", "time zone", "locale", "hash seed", "umask", "clock")
# RECORD's hashes of a wheel's files, and those of its built files before relocation.
Content: TypeAlias = tuple[Mapping[str, str], Mapping[str, str]]
SETTINGS = re.compile(r"PATCHWHEEL_(?!LIMIT_)")


@dataclass(frozen=True, slots=True, kw_only=True)
class EquivalenceCheck:
    """How many files of a graft are the compile's, and which are not."""

    fork: str
    equal: int
    # Built files of upstream's wheel that no change reaches.
    taken: int
    # Remade, and as they were before: following changes over-approximates.
    unnecessary: tuple[str, ...]
    differences: tuple[str, ...]

    @property
    def summary(self) -> str:
        return (
            f"{self.fork}: {self.equal} files equal the compile's, "
            f"{self.taken} are upstream's and not affected, "
            f"{len(self.unnecessary)} were remade unnecessarily, {len(self.differences)} differ"
        )

    def check(self) -> None:
        """Raise CheckError when anything differs."""
        if self.differences:
            raise CheckError(
                f"the graft of {self.fork} is not what a compile makes",
                tail=first(self.differences),
                hint="build it with --from-source, and report what the plan missed",
            )


def check_equivalence(project: Project, fork: Fork) -> EquivalenceCheck:
    """Compare a fork's graft with a compile of its tree and, on upstream's base, of the pin."""
    made = Made()
    # A compile may need more than the graft, which would be made for nothing.
    check_machine(fork, store=project.store)
    tree = patched_tree(project, fork)
    graft = build_wheel(project, fork, made=made)
    # Against the same wheels as the graft: another SciPy would make another scikit-learn.
    build_needs(project, fork, made=made)

    def compiled(tree: PatchedTree) -> Content:
        planner = Planner(replace(project, from_source=True), tree, made, configure=True)
        return _content(make_wheel(planner.plan(), project.store).path)

    new, base = compiled(tree), graft.plan.base
    changed = set(new[1])
    # Upstream had another toolchain, so only a compile of the pin shows what the series changes.
    if base and base.kind == "upstream":
        unpatched = replace(tree.series, patches=())
        pin = compiled(replace(tree, tree=tree.source.tree, series=unpatched, dev=False))[1]
        changed = {path for path, sha256 in new[1].items() if pin.get(path) != sha256}
    return _compare(graft, new, changed)


def _compare(graft: BuiltWheel, compiled: Content, changed: set[str]) -> EquivalenceCheck:
    """Compare with a compile's content; `changed` has the built files that the series changes."""
    (old, old_built), (new, new_built) = _content(graft.path), compiled
    base, upstream = graft.plan.base, graft.plan.fork.upstream_wheel
    if base and base.kind == "built":
        old_built = {**_content(base.path)[1], **old_built}
    globs = (*upstream.only_in_base, *upstream.only_in_build) if upstream else ()
    taken, equal = 0, 0
    unnecessary, differences = [], []
    for path in sorted(old.keys() | new.keys()):
        bundled = path.partition("/")[0].endswith(".libs")
        if bundled or any(fnmatchcase(path, glob) for glob in globs):
            continue
        # Built files as they were before relocation, which names bundled libraries by their hash.
        is_built = path in new_built
        was, now = (old_built, new_built) if is_built else (old, new)
        if path in old and path not in was and path not in changed:
            taken += 1
        elif path not in old or was.get(path) != now.get(path):
            differences.append(path)
        else:
            equal += 1
            unnecessary += [path] if is_built and path not in changed else []
    return EquivalenceCheck(
        fork=graft.plan.fork.name,
        equal=equal,
        taken=taken,
        unnecessary=tuple(unnecessary),
        differences=tuple(differences),
    )


def _content(path: Path) -> Content:
    wheel = read_wheel(path)
    compiled, names = wheel.record.compiled, output_names(wheel.entries, wheel.name)
    outputs = {plain: wheel.entries[name].sha256 for plain, name in names.items()}
    return outputs, compiled.built if compiled else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildResult:
    """A release wheel compared with its second build, `kept` if any of its files differs."""

    fork: str
    wheel: str
    # The first one.
    path: str
    sha256: str
    varied_conditions: tuple[str, ...] = CONDITIONS
    differences: tuple[str, ...]
    kept: str | None

    @property
    def summary(self) -> str:
        result = f"{len(self.differences)} files differ" if self.kept else "bit-identical"
        conditions = ", ".join(self.varied_conditions)
        return f"{self.fork}: {self.wheel}, built again with another {conditions}: {result}"

    def check(self) -> None:
        """Raise CheckError when anything differs."""
        if self.kept:
            pair = shlex.join((self.path, self.kept))
            raise CheckError(
                f"{self.fork}: the same build made another wheel",
                where=self.kept,
                tail=first(self.differences),
                hint=f"where diffoscope is installed, `diffoscope {pair}` shows how they differ",
            )


def check_reproducible(project: Project, fork: Fork) -> RebuildResult:
    """Compile a fork again under other conditions, against the same wheels, and compare."""
    made = Made()
    project = replace(project, from_source=True)
    wheel = build_wheel(project, fork, made=made)
    needs = build_needs(project, fork, made=made)
    log = project.store.log(wheel.fork, "rebuild")
    kept, differences = None, []
    with project.store.scratch() as folder:
        env = _other_conditions(folder, project.store, needs)
        again = _build_again(project, fork, folder / "project", env, log)
        if again.read_bytes() != wheel.path.read_bytes():
            kept = str(shutil.copyfile(again, log.with_name(again.name)))
            differences = _differences(wheel.path, again)
    return RebuildResult(
        fork=wheel.fork,
        wheel=wheel.path.name,
        path=str(wheel.path),
        sha256=wheel.sha256,
        differences=tuple(differences),
        kept=kept,
    )


def _build_again(
    project: Project, fork: Fork, folder: Path, env: Mapping[str, str], log: Path
) -> Path:
    """Return the wheel that another process makes in a copy of the project."""
    folder.mkdir()
    project.copy_to(folder)
    context = project.context
    argv = [sys.executable, "-m", "patchwheel", "build", fork.name, "--from-source"]
    argv += ["--manifest", project.manifest.path.name, "--sandbox", context.sandbox]
    argv += ["--python", str(context.interpreter.path)]
    argv += ["--jobs", str(context.jobs)] if context.jobs else []
    argv += ["--no-compile-cache", *(["--offline"] if context.offline else [])]
    argv += ["--variant", fork.variant] if fork.variant else []
    try:
        process.logged(argv, cwd=folder, env=env, log=log, umask=UMASK)
    except process.CommandError as err:
        message = f"{fork.name}: cannot be built under other conditions"
        raise BuildError(message, tail=err.tail, log=err.log) from err
    [wheel] = (folder / "dist").glob("*.whl")
    return wheel


def _other_conditions(folder: Path, store: Store, needs: Sequence[BuiltWheel]) -> dict[str, str]:
    """Make another home, store and clock, and return the environment of a build that has them."""
    home, other, tmp = (folder / name for name in ("home", "store", "tmp"))
    Store(other).ensure()
    for path in (home, other / "memo", other / "wheels", tmp):
        path.mkdir(parents=True)
    for inside in Path.home().iterdir():
        (home / inside.name).symlink_to(inside)
    for name in SHARED:
        (other / name).symlink_to(store.root / name)
    shutil.copytree(store.root / "memo/source", other / "memo/source")
    for need in needs:
        shutil.copytree(need.path.parent, other / "wheels" / need.node_key)
    # Programs that load this library read another clock.
    clock, gcc = folder / "clock.so", toolchain.identify(["gcc"], store=store)["gcc"]
    argv: list[str | Path] = [*gcc.words, "-O1", "-shared", "-fPIC", "-o", clock, CLOCK_SOURCE]
    process.capture(argv, cwd=folder, env=process.base_env())
    # The settings of this run would make it the same build; what reaches an index is needed.
    env = {k: v for k, v in os.environ.items() if not SETTINGS.match(k)}
    places = {"HOME": home, "PATCHWHEEL_STORE": other, "TMPDIR": tmp, CLOCK: clock}
    return env | {name: str(place) for name, place in places.items()} | ENVIRONMENT


def _differences(one: Path, two: Path) -> list[str]:
    """Name each file that only one wheel has, or that differs in content, mode or date."""
    old, new = read_wheel(one).entries, read_wheel(two).entries
    rows = [f"{name}: only in one" for name in sorted(old.keys() ^ new.keys())]
    for name in sorted(old.keys() & new.keys()):
        for what, field in (("content", "sha256"), ("mode", "mode"), ("date", "date")):
            if getattr(old[name], field) != getattr(new[name], field):
                rows.append(f"{name}: another {what}")
    return rows or ["the archive: another order or compression of the same files"]
