"""The stages composed: manifest -> source -> tree -> plan -> wheel -> environment."""

from __future__ import annotations

import contextlib
import functools
import shutil
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from patchwheel.kit.digest import digest
from patchwheel.kit.errors import (
    InputError,
    ManifestError,
    PatchwheelError,
    UnfitError,
)
from patchwheel.kit.store import Store
from patchwheel.kit.store_entry import listed
from patchwheel.kit.transaction import recover
from patchwheel.manifest.lock import load_lock
from patchwheel.manifest.model import load_manifest
from patchwheel.plan.plan import Base, make_plan
from patchwheel.series.apply import apply_series
from patchwheel.series.files import load_series
from patchwheel.source.fetch import fetch
from patchwheel.wheelfile.sbom import STATEMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from patchwheel.build.requirements import Shop
    from patchwheel.environment.compose import Environment
    from patchwheel.kit.interpreter import Interpreter
    from patchwheel.kit.progress import Report
    from patchwheel.kit.repo import Change
    from patchwheel.manifest.lock import ForkBuild, Lock
    from patchwheel.manifest.model import Fork, Manifest
    from patchwheel.plan.plan import Plan
    from patchwheel.plan.trace import Traced
    from patchwheel.release.equivalence import Proof
    from patchwheel.release.reproduce import Rebuilt
    from patchwheel.series.apply import PatchedTree
    from patchwheel.series.export import ExportResult
    from patchwheel.series.files import Patch
    from patchwheel.series.status import ForkStatus
    from patchwheel.series.worktree import Work
    from patchwheel.source.fetch import Source
    from patchwheel.source.index import IndexConfig
    from patchwheel.wheel.make import Finished, Wheel

LINK = ".venv-forks"
# As many of a fork's own compiles are considered as a base for its next change.
BASES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line decides; `python` is a version such as 3.12 or the path of an interpreter."""

    manifest: Path
    store: Path
    python: str | None = None
    offline: bool = False
    jobs: int | None = None
    sandbox: Literal["auto", "required", "none"] = "auto"
    verbose: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A fork whose wheel could not be made, for --keep-going."""

    fork: str
    error: PatchwheelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tooling:
    """The means of a plan: what is needed to compile is made, found and looked at only when it is asked for."""

    tree: PatchedTree
    build: ForkBuild
    shop: Shop
    need: Callable[[], list[Wheel]]

    def parts(self, *, graft: bool) -> dict[str, str]:
        from patchwheel.build.configure import lean
        from patchwheel.wheel.compile import compile_parts

        source = self.tree.source
        fork = lean(source.fork) if graft else source.fork
        return compile_parts(fork, self.build, self.shop, needs=self.need(), epoch=source.epoch)

    def trace(
        self,
        changes: Sequence[Change],
        trees: tuple[str, str],
        present: Collection[str],
    ) -> Traced | None:
        from patchwheel.build.configure import can_follow, lean
        from patchwheel.plan.trace import trace
        from patchwheel.wheel.compile import locked_environment

        source = self.tree.source
        if not can_follow(source):
            return None
        environment, _ = locked_environment(self.build, self.need(), self.shop)
        return trace(
            source,
            lean(source.fork),
            self.build.survey,
            changes,
            trees,
            present=present,
            environment=environment,
            shop=self.shop,
        )


class Pipeline:
    """One run over one manifest; each answer is computed once, when it is first asked for."""

    def __init__(self, options: Options, report: Report) -> None:
        self.options = options
        self.report = report
        self.store = Store(options.store, say=report.say)
        self._once = threading.RLock()

    @functools.cached_property
    def manifest(self) -> Manifest:
        # What a rebase had complete when it was cut off is put in place before anything is read.
        if done := recover(self.options.manifest.absolute().parent):
            self.report.say(f"pin, lock and series of {done} are changed, as was begun")
        return load_manifest(self.options.manifest)

    @functools.cached_property
    def lock(self) -> Lock:
        return load_lock(self.manifest.lock_path)

    @property
    def index(self) -> IndexConfig:
        # Forks are made at the same time, and a no-op wants neither this nor the interpreter.
        with self._once:
            return self._index

    @functools.cached_property
    def _index(self) -> IndexConfig:
        from patchwheel.source.index import load_index_config

        return load_index_config(self.manifest.root)

    @functools.cached_property
    def python(self) -> str:
        """The Python that the wheels are for, such as 3.12."""
        wanted = self.options.python
        supported = self.manifest.environment.python
        if wanted is None:
            return supported[0]
        version = wanted if wanted[0].isdigit() else self.interpreter.python
        if version not in supported:
            raise ManifestError(
                f"Python {version} is not one that the manifest builds for",
                where=self.manifest.path,
                expected=f"one of {', '.join(supported)}",
            )
        return version

    @property
    def interpreter(self) -> Interpreter:
        with self._once:
            return self._interpreter

    @functools.cached_property
    def _interpreter(self) -> Interpreter:
        from patchwheel.kit.interpreter import (
            find_interpreter,
            interpreter_hints,
            noted,
            recall,
        )

        wanted = self.options.python or ""
        explicit = wanted if wanted and not wanted[0].isdigit() else None
        version = wanted if wanted and not explicit else self.manifest.environment.python[0]
        # Starting every candidate takes a quarter of a second; what was found stays true while its file is the same.
        key = digest(version, explicit, interpreter_hints())
        if found := recall(self.store.memo("interpreter", key)):
            return found
        found = find_interpreter(version, explicit=explicit, report=self.report)
        self.store.remember("interpreter", key, noted(found))
        return found

    def write_lock(self, names: Sequence[str], *, force: bool) -> Lock:
        """Resolve and pin what is not ours; this is the one place where anything is resolved."""
        from patchwheel.kit.interpreter import find_interpreter
        from patchwheel.locking.write import write_lock

        old = None
        # One that is not there, or damaged by a merge, is written anew.
        with contextlib.suppress(ManifestError):
            old = self.lock
        return write_lock(
            self.manifest,
            old,
            forks=self.manifest.select(names) if names else (),
            interpreter=functools.cache(
                lambda wanted: find_interpreter(wanted, report=self.report)
            ),
            store=self.store,
            index=lambda: self.index,
            report=self.report,
            offline=self.options.offline,
            sandbox=self.options.sandbox,
            force=force,
        )

    def source(self, fork: Fork) -> Source:
        """Return the fork's pin as a git tree; it must be the tree that was locked."""
        source = fetch(
            fork,
            store=self.store,
            index=lambda: self.index,
            report=self.report,
            offline=self.options.offline,
        )
        locked = self.lock.tree(fork)
        if source.tree != locked:
            raise ManifestError(
                f"{fork.name}: the source tree is {source.tree}",
                where=self.lock.path,
                expected=f"{locked}, which was locked for this pin",
                hint="run `patchwheel lock` if the pin is right",
            )
        return source

    def tree(self, fork: Fork, *, dev: bool = False) -> PatchedTree:
        source = self.source(fork)
        if dev:
            from patchwheel.series.worktree import work_tree_source

            return work_tree_source(self.work_folder(fork), source, store=self.store)
        return apply_series(source, load_series(fork.patches), store=self.store)

    def work_folder(self, fork: Fork) -> Path:
        return self.manifest.root / "work" / fork.name

    def alone(self, fork: Fork) -> contextlib.AbstractContextManager[None]:
        """Let nobody else change the fork's work tree, series or pin meanwhile."""
        place = digest(str(self.work_folder(fork).absolute()))[:16]
        busy = f"another patchwheel is changing {fork.name}"
        return self.store.lock(f"change-{place}", busy=busy)

    def locked(self, fork: Fork) -> ForkBuild:
        return self.lock.fork(fork, self.python)

    def base(self, fork: Fork) -> Base | None:
        """Return upstream's wheel, fetched if it is not in the store."""
        wheel = self.locked(fork).base
        if wheel is None or fork.upstream_wheel is None:
            return None
        found = self.store.find("files", wheel.sha256)
        if found:
            path = found / wheel.filename
        else:
            from patchwheel.source.download import download

            path = download(
                fork.upstream_wheel.distribution,
                wheel.filename,
                wheel.sha256,
                store=self.store,
                index=lambda: self.index,
                report=self.report,
                offline=self.options.offline,
            )
        return Base(kind="upstream", path=path, sha256=wheel.sha256)

    def plan(
        self,
        fork: Fork,
        *,
        from_source: bool = False,
        dev: bool = False,
        made: dict[str, Wheel] | None = None,
        refused: str | None = None,
    ) -> tuple[Plan, list[Wheel]]:
        """Return the plan, and the wheels of other forks that it compiles against, made if need be."""
        build = self.locked(fork)
        made = {} if made is None else made
        needs: list[Wheel] = []

        def need() -> list[Wheel]:
            if len(needs) < len(build.needs):
                for name in build.needs:
                    other = self.manifest.forks[name]
                    needs.append(self.wheel(other, made, from_source=from_source, dev=dev))
            return needs

        tree = self.tree(fork, dev=dev)
        tooling = Tooling(tree=tree, build=build, shop=self.shop, need=need)

        def on(base: Base | None) -> Plan:
            return make_plan(
                tree,
                build,
                base=base,
                from_source=from_source,
                means=tooling,
                store=self.store,
                label=self.manifest.environment.label,
                refused=refused,
            )

        upstream = None if from_source else self.base(fork)
        plan = on(upstream)
        quick = plan.route == "graft" and not plan.built
        made_before = self.store.find("wheels", plan.node_key)
        if from_source or refused or quick or made_before:
            return plan, needs
        others = [on(base) for base in self.built_bases(fork, tooling)]
        # What made it a compile says more than that there is no base.
        every = [plan, *others] if upstream else [*others, plan]
        return min(every, key=lambda p: p.burden), needs

    def built_bases(self, fork: Fork, tooling: Tooling) -> list[Base]:
        """Return the newest wheels of the fork's pin that were compiled here, with the tools that there are now."""
        memo: dict[str, Any] = self.store.memo("bases", digest(fork.pin, self.python)) or {}
        parts = digest(tooling.parts(graft=True)) if memo else ""
        found = []
        for key in memo.get(parts, [])[:BASES]:
            folder = self.store.find("wheels", key)
            for path in folder.glob("*.whl") if folder else ():
                sha256 = listed(path.parent)[path.name][1]
                found.append(Base(kind="built", path=path, sha256=sha256))
        return found

    def remember_base(self, wheel: Wheel) -> None:
        """Note a compiled wheel as a base for the next change."""
        fork = self.manifest.forks[wheel.fork]
        key = digest(fork.pin, self.python)
        memo: dict[str, Any] = self.store.memo("bases", key) or {}
        names = ("env", "toolchain", "flags", "interface")
        parts = digest({name: wheel.plan.key_parts[name] for name in names})
        older = [k for k in memo.get(parts, []) if k != wheel.node_key]
        memo[parts] = [wheel.node_key, *older][:BASES]
        self.store.remember("bases", key, memo)

    def wheel(
        self,
        fork: Fork,
        made: dict[str, Wheel],
        *,
        from_source: bool = False,
        dev: bool = False,
    ) -> Wheel:
        """Make one wheel, unless it is in `made` or in the store."""
        from patchwheel.wheel.make import make_wheel

        if fork.locked_as in made:
            return made[fork.locked_as]
        if from_source:
            from patchwheel.build.backend import check_machine

            check_machine(fork, store=self.store)
        build, shop = self.locked(fork), self.shop
        plan, needs = self.plan(fork, from_source=from_source, dev=dev, made=made)
        try:
            wheel = make_wheel(plan, build, shop, needs=needs)
        except UnfitError as err:
            self.report.say(f"{fork.name}: no graft, a compile: {err.message}")
            plan, needs = self.plan(fork, dev=dev, made=made, refused=err.message)
            wheel = make_wheel(plan, build, shop, needs=needs)
        if plan.route == "compile" and not wheel.cached:
            self.remember_base(wheel)
        made[fork.locked_as] = wheel
        return wheel

    @property
    def shop(self) -> Shop:
        from patchwheel.build.requirements import Shop

        return Shop(
            find_interpreter=lambda: self.interpreter,
            find_index=lambda: self.index,
            store=self.store,
            report=self.report,
            jobs=self.options.jobs,
            sandbox=self.options.sandbox,
            offline=self.options.offline,
        )

    def build(
        self,
        forks: Sequence[Fork],
        *,
        from_source: bool = False,
        dev: bool = False,
        keep_going: bool = False,
    ) -> tuple[list[Wheel], list[Failure]]:
        """Make the wheels of `forks` and copy them into dist/ beside the manifest."""
        made: dict[str, Wheel] = {}
        errors: dict[str, BaseException] = {}

        def make(fork: Fork) -> None:
            try:
                self.wheel(fork, made, from_source=from_source, dev=dev)
            except BaseException as err:  # noqa: BLE001  (raised again by who waits)
                errors[fork.name] = err

        def check(fork: Fork) -> None:
            error = errors.get(fork.name)
            if error and not (keep_going and isinstance(error, PatchwheelError)):
                raise error

        if from_source or len(forks) == 1:
            for fork in forks:
                make(fork)
                check(fork)
        else:
            # A graft downloads, configures and compiles a file or two: together they keep a machine busy.
            _ = self.lock
            # Daemons: Ctrl-C ends the run at once, and what they were writing has a temporary name.
            threads = [threading.Thread(target=make, args=[fork], daemon=True) for fork in forks]
            for thread in threads:
                thread.start()
            for thread, fork in zip(threads, forks, strict=True):
                thread.join()
                check(fork)
        failures = [
            Failure(fork=fork.name, error=error)
            for fork in forks
            if isinstance(error := errors.get(fork.name), PatchwheelError)
        ]
        wheels = [made[f.locked_as] for f in forks if f.locked_as in made]
        self.publish(wheels)
        return wheels, failures

    def publish(self, wheels: Sequence[Wheel]) -> None:
        """Copy wheels into dist/, and remove what older builds for the same Python left there."""
        dist = self.manifest.root / "dist"
        dist.mkdir(exist_ok=True)
        for wheel in wheels:
            target = dist / wheel.path.name
            if not (target.exists() and same_size(target, wheel.path)):
                temporary = dist / f".{target.name}.part"
                shutil.copyfile(wheel.path, temporary)
                temporary.replace(target)
            for old in self.published(wheel.plan.fork):
                if old != target and python_tag(old) == python_tag(target):
                    old.unlink()
                    old.with_name(f"{old.name}{STATEMENT}").unlink(missing_ok=True)

    def status(self, fork: Fork) -> ForkStatus:
        from patchwheel.series.status import fork_status
        from patchwheel.source.index import latest_version

        def newest() -> str | None:
            if self.options.offline:
                return None
            return latest_version(self.index, fork.name)

        return fork_status(
            self.source(fork),
            load_series(fork.patches),
            store=self.store,
            commit=self.lock.forks[fork.name].commit,
            wheel=next((p.name.split("-")[1] for p in self.published(fork)), None),
            newest=newest,
        )

    def fetched(self, pin: Fork, origin: Literal["sdist", "git"]) -> Source:
        """Return another pin's source, from its sdist or from git alone."""
        return fetch(
            pin,
            store=self.store,
            index=lambda: self.index,
            report=self.report,
            offline=self.options.offline,
            origin=origin,
        )

    def patches(self) -> dict[str, tuple[Patch, ...]]:
        """Return the patches of all the forks, which may require one another."""
        forks = self.manifest.forks.values()
        return {f.name: load_series(f.patches).patches for f in forks}

    def published(self, fork: Fork, folder: Path | None = None) -> list[Path]:
        """Return the fork's wheels that lie in a folder, dist/ by default."""
        folder = folder or self.manifest.root / "dist"
        name = fork.distribution.replace("-", "_")
        label = self.manifest.environment.label
        return sorted(folder.glob(f"{name}-*+{label}.*.whl"))

    def wheels(
        self, folder: Path | None, *, from_source: bool = False, dev: bool = False
    ) -> Sequence[Finished]:
        """Return a wheel of each fork: what lies in a folder, made elsewhere, or else what is made now."""
        forks = list(self.manifest.forks.values())
        if folder is None:
            return self.build(forks, from_source=from_source, dev=dev)[0]
        if from_source or dev:
            raise ManifestError("--wheels names what was made, and nothing is made then")
        return [self.wheel_in(folder, fork) for fork in forks]

    def wheel_in(self, folder: Path, fork: Fork) -> Finished:
        """Return the fork's one wheel in the folder for the Python that was asked for."""
        from packaging.utils import parse_wheel_filename

        from patchwheel.kit.digest import file_sha256
        from patchwheel.wheel.make import Finished

        wanted = {f"cp{self.python.replace('.', '')}", "py3"}
        found = [
            path.absolute()
            for path in self.published(fork, folder)
            if any(
                tag.interpreter in wanted or tag.abi == "abi3"
                for tag in parse_wheel_filename(path.name)[3]
            )
        ]
        if len(found) != 1:
            raise InputError(
                f"there are {len(found)} wheels of {fork.distribution} for Python {self.python}: "
                f"{', '.join(path.name for path in found) or 'none'}",
                where=folder,
                expected="one, with the manifest's label",
            )
        return Finished(
            fork=fork.name,
            path=found[0],
            sha256=file_sha256(found[0]),
            version=found[0].name.split("-")[1],
        )

    def test(
        self,
        fork: Fork,
        arguments: Sequence[str],
        wheels: Sequence[Finished],
        *,
        dev: bool = False,
    ) -> None:
        """Run upstream's tests of what the series changes, in an environment of all the wheels."""
        from patchwheel.environment.upstream_tests import run_tests

        environment = self.environment(wheels, link=None, groups=("test",), layered=True)
        tree = self.tree(fork, dev=dev)
        survey = self.locked(fork).survey
        run_tests(tree, survey, environment, arguments, store=self.store)

    def prove(self, fork: Fork, *, dev: bool = False) -> Proof:
        """Compare the fork's graft with compiles of its tree and, on upstream's base, of the pin."""
        from patchwheel.release.equivalence import prove
        from patchwheel.wheel.compile import tools_of
        from patchwheel.wheel.make import make_wheel

        # A compile may need more than the graft, which would be made for nothing.
        tools_of(fork, self.locked(fork), self.shop)

        def compiled(tree: PatchedTree) -> Wheel:
            build = self.locked(fork)
            plan = make_plan(
                tree,
                build,
                base=None,
                from_source=True,
                means=Tooling(tree=tree, build=build, shop=self.shop, need=lambda: needs),
                store=self.store,
                label=self.manifest.environment.label,
            )
            return make_wheel(plan, build, self.shop, needs=needs)

        made: dict[str, Wheel] = {}
        tree = self.tree(fork, dev=dev)
        graft = self.wheel(fork, made, dev=dev)
        # Against the same wheels as the graft: another SciPy would make another scikit-learn.
        needs = [self.wheel(self.manifest.forks[n], made, dev=dev) for n in self.locked(fork).needs]
        pin = replace(
            tree,
            tree=tree.source.tree,
            series=replace(tree.series, patches=()),
            dev=False,
        )
        return prove(graft, compiled(tree), lambda: compiled(pin))

    def rebuild(self, fork: Fork) -> Rebuilt:
        """Compile a fork again in other circumstances and compare it with its release wheel."""
        from patchwheel.release.reproduce import build_again

        made: dict[str, Wheel] = {}
        wheel = self.wheel(fork, made, from_source=True)
        needs = [made[name] for name in self.locked(fork).needs]
        given = self.options
        words = ["--python", str(self.interpreter.path), "--sandbox", given.sandbox]
        words += ["--jobs", str(given.jobs)] if given.jobs else []
        words += ["--offline"] if given.offline else []
        words += ["--variant", fork.variant] if fork.variant else []
        return build_again(wheel, needs, self.manifest, self.store, words)

    def open_work(self, fork: Fork, *, detach: bool) -> Work:
        from patchwheel.series.worktree import open_work

        folder = self.work_folder(fork)
        return open_work(self.tree(fork), folder, store=self.store, detach=detach)

    def export(self, fork: Fork, *, check: bool = False, exact: bool = False) -> ExportResult:
        """Write the open work tree's commits back; with `check` and no work tree, the series is opened for it."""
        from patchwheel.series.export import export
        from patchwheel.series.worktree import open_work

        folder = self.work_folder(fork)
        write = functools.partial(
            export,
            source=self.source(fork),
            store=self.store,
            check=check,
            exact=exact,
            others=self.patches(),
        )
        if folder.exists() or not check:
            with self.alone(fork):
                return write(folder)
        with self.store.scratch() as scratch:
            open_work(self.tree(fork), scratch / fork.name, store=self.store)
            return write(scratch / fork.name)

    def environment(
        self,
        wheels: Sequence[Finished],
        *,
        link: Path | None,
        groups: Sequence[str] = (),
        layered: bool = False,
    ) -> Environment:
        from patchwheel.environment.compose import compose

        return compose(
            self.manifest,
            self.lock.environment(self.manifest, self.python),
            wheels,
            interpreter=self.interpreter,
            store=self.store,
            index=lambda: self.index,
            report=self.report,
            offline=self.options.offline,
            link=link,
            groups=groups,
            layered=layered,
        )


def python_tag(wheel: Path) -> str:
    return wheel.name.split("-")[-3]


def same_size(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size
