"""Resolves and surveys one thing at a time for forks.lock: a fork for a Python, or the environment beside the forks."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchwheel.build.backend import open_workplace
from patchwheel.build.requirements import (
    Shop,
    build_environment,
    merged,
    name_of,
    static_build_requirements,
)
from patchwheel.kit import uv
from patchwheel.kit.errors import InputError
from patchwheel.kit.repo import Repository
from patchwheel.locking.inventory import made_with, survey_pin
from patchwheel.manifest.lock import (
    BaseWheel,
    EnvironmentLock,
    ForkBuild,
    ForkLock,
    build_settings,
    environment_inputs,
)
from patchwheel.series.files import load_series
from patchwheel.source.download import download
from patchwheel.source.fetch import fetch
from patchwheel.source.git_remote import Remote
from patchwheel.source.upstream_wheel import fetch_wheel, requirements
from patchwheel.wheel.compile import requirements_for
from patchwheel.wheelfile.read import read_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from patchwheel.build.sandbox import Wanted
    from patchwheel.kit.interpreter import Interpreter
    from patchwheel.kit.progress import Report
    from patchwheel.kit.store import Store
    from patchwheel.manifest.lock import Distribution
    from patchwheel.manifest.model import Fork, Manifest
    from patchwheel.source.fetch import Source
    from patchwheel.source.index import IndexConfig

# The extra by which CuPy's wheels ask for the CUDA libraries that they load.
GPU_EXTRA = "ctk"
CUDA_TOOLKIT = "cuda-toolkit"


def current(entry: ForkLock, fork: Fork) -> bool:
    """Say whether an entry is for what the manifest says of a fork."""
    return dict(entry.pin) == fork.pin and entry.settings == build_settings(fork)


@dataclass(frozen=True, slots=True, kw_only=True)
class Locker:
    """What every step of locking needs."""

    manifest: Manifest
    interpreter: Callable[[str], Interpreter]
    store: Store
    index: Callable[[], IndexConfig]
    report: Report
    offline: bool
    sandbox: Wanted

    def fork(self, fork: Fork, old: ForkLock | None) -> ForkLock:
        """Lock one fork for every Python; builds of `old` that are for the same pin and settings are kept."""
        source = fetch(
            fork,
            store=self.store,
            index=self.index,
            report=self.report,
            offline=self.offline,
        )
        kept = old.builds if old and current(old, fork) and old.tree == source.tree else {}
        builds = {
            python: kept.get(python) or self.build(source, python)
            for python in self.manifest.environment.python
        }
        return ForkLock(
            pin=fork.pin,
            settings=build_settings(fork),
            tree=source.tree,
            commit=self.commit(source, old),
            patches={p.name: p.sha256 for p in load_series(fork.patches).patches},
            builds=builds,
        )

    def commit(self, source: Source, old: ForkLock | None) -> str | None:
        """Return the pinned commit, or the one that the remote has for the tag, if it answers."""
        fork = source.fork
        if known := fork.commit or source.commit:
            return known
        if old and old.commit and dict(old.pin) == fork.pin:
            return old.commit
        if fork.git and fork.tag:
            remote = Remote(fork, Repository(source.git_dir), self.report, offline=self.offline)
            try:
                return remote.commit()
            except InputError as err:
                self.report.say(f"{fork.name}: commit unverified: {err.message}")
        return None

    def build(self, source: Source, python: str) -> ForkBuild:
        """Resolve what a build of the pin needs, and configure it once to see what it makes and reads."""
        fork = source.fork
        interpreter = self.interpreter(python)
        base = fetch_wheel(
            fork,
            interpreter,
            store=self.store,
            index=self.index,
            report=self.report,
            offline=self.offline,
        )
        path, sha256 = base or (None, "")
        revealed = made_with(read_wheel(path)) if path else {}
        requires, environment = self.build_environment(source, interpreter, revealed)
        shop = self.shop(interpreter)
        surveyed = survey_pin(source, environment, shop, base=path)
        if surveyed.gap:
            self.report.say(f"{fork.name}: no graft while this stands: {surveyed.gap}")
        names = {d.name for d in requires}
        others = [f for f in self.manifest.forks.values() if f.name != fork.name]
        return ForkBuild(
            build_requires=requires,
            base=BaseWheel(filename=path.name, sha256=sha256, made_with=surveyed.made_with)
            if path
            else None,
            survey=surveyed.survey,
            needs=tuple(f.name for f in others if name_of(f.distribution) in names),
        )

    def build_environment(
        self, source: Source, interpreter: Interpreter, revealed: Mapping[str, str]
    ) -> tuple[tuple[Distribution, ...], Path]:
        """Resolve the static build requirements, ask the backend for more, and make the environment."""
        fork = source.fork
        repo = Repository(source.git_dir)
        with self.store.scratch() as folder:
            for name in {"pyproject.toml"} & repo.files(source.tree).keys():
                (folder / name).write_bytes(self.read(source, name))
            wanted = static_build_requirements(folder, fork)
        requires, environment = self.made(fork, wanted, interpreter, revealed)
        shop = self.shop(interpreter)
        with open_workplace(
            fork, environment, shop, epoch=source.epoch, step="requirements"
        ) as workplace:
            repo.checkout(source.tree, workplace.source)
            asked = requirements_for(workplace)
        if set(asked) <= set(wanted):
            return requires, environment
        return self.made(fork, merged([*wanted, *asked], ()), interpreter, revealed)

    def made(
        self,
        fork: Fork,
        wanted: Sequence[str],
        interpreter: Interpreter,
        revealed: Mapping[str, str],
    ) -> tuple[tuple[Distribution, ...], Path]:
        """Resolve build requirements to what upstream used, as far as its wheel tells, and install them."""
        constraints = self.pins(self.manifest.forks.values())
        forced = {name_of(line) for line in fork.build_requires}
        if "cython" in revealed and "cython" not in forced:
            constraints.append(f"cython=={revealed['cython']}")
        requires = uv.resolve(
            wanted,
            interpreter=interpreter,
            constraints=constraints,
            index=self.index(),
            offline=self.offline,
            log=self.store.log(fork.name, "resolve"),
            report=self.report,
        )
        return requires, build_environment(requires, (), self.shop(interpreter))

    def shop(self, interpreter: Interpreter) -> Shop:
        return Shop(
            find_interpreter=lambda: interpreter,
            find_index=self.index,
            store=self.store,
            report=self.report,
            sandbox=self.sandbox,
            offline=self.offline,
        )

    def environment(self, python: str, forks: Mapping[str, ForkLock]) -> EnvironmentLock:
        """Resolve what belongs beside the forks: what is asked for, and what the forks depend on."""
        spec = self.manifest.environment
        wanted = list(spec.requires)
        gpu: list[str] = []
        bounds: list[str] = []
        for fork in self.manifest.forks.values():
            base = forks[fork.name].builds[python].base
            wanted += self.dependencies(fork, base)
            if base and (adds := requirements(self.wheel(fork, base), GPU_EXTRA)):
                gpu += adds
                # The release that the wheel was made with: drivers that run it need not run a later one.
                if cuda := base.made_with.get("cuda"):
                    bounds.append(f"{CUDA_TOOLKIT}=={cuda}.*")
        packages = self.resolved(wanted, python)
        pins = [f"{d.name}=={d.version}" for d in packages]
        groups = {
            name: self.resolved([*pins, *wanted, *lines], python, bounds=bounds, without=packages)
            if lines
            else ()
            for name, lines in (("gpu", gpu), ("test", spec.test_requires))
        }
        return EnvironmentLock(
            inputs=environment_inputs(self.manifest), packages=packages, groups=groups
        )

    def resolved(
        self,
        wanted: Sequence[str],
        python: str,
        *,
        bounds: Sequence[str] = (),
        without: Iterable[Distribution] = (),
    ) -> tuple[Distribution, ...]:
        forks = self.manifest.forks.values()
        left_out = {name_of(f.distribution) for f in forks} | {d.name for d in without}
        found = uv.resolve(
            wanted,
            interpreter=self.interpreter(python),
            constraints=[*self.pins(forks), *bounds],
            index=self.index(),
            offline=self.offline,
            log=self.store.log("environment", f"resolve-{python}"),
            report=self.report,
        )
        return tuple(d for d in found if d.name not in left_out)

    def dependencies(self, fork: Fork, base: BaseWheel | None) -> list[str]:
        """Return what a fork depends on: upstream's wheel says it, or its project table."""
        if base:
            return requirements(self.wheel(fork, base))
        source = fetch(fork, store=self.store, index=self.index, report=self.report, offline=True)
        text = self.read(source, "pyproject.toml").decode()
        project = tomllib.loads(text).get("project", {})
        if "dependencies" in project.get("dynamic", ()):
            self.report.say(
                f"{fork.name}: what it depends on is not stated in pyproject.toml; name it in environment.requires"
            )
        return list(project.get("dependencies", ()))

    def wheel(self, fork: Fork, base: BaseWheel) -> Path:
        return download(
            fork.distribution,
            base.filename,
            base.sha256,
            store=self.store,
            index=self.index,
            report=self.report,
            offline=self.offline,
        )

    def read(self, source: Source, path: str) -> bytes:
        repo = Repository(source.git_dir)
        blob = repo.files(source.tree).get(path)
        return repo.read([blob.oid])[blob.oid] if blob else b""

    @staticmethod
    def pins(forks: Iterable[Fork]) -> list[str]:
        """Hold the forks at their versions; one that was never released is not on the index, and its last release stands for it."""
        from packaging.version import Version

        return [
            f"{f.distribution}=={f.version}"
            for f in forks
            if f.sdist or not Version(f.version).is_prerelease
        ]
