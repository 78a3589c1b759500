"""Resolves one entry of forks.lock: a fork for each Python, or the environment beside the forks.

The lock also provides what a series changes in the requirements of its pin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from packaging.version import Version

from patchwheel import build, kit
from patchwheel.locking.inventory import built_with, inventory_of_pin
from patchwheel.manifest import (
    BaseWheel,
    EnvironmentLock,
    Fork,
    ForkBuild,
    ForkLock,
    build_settings,
    environment_inputs,
)
from patchwheel.project import Project
from patchwheel.series import apply_series, load_series
from patchwheel.source import (
    Remote,
    Source,
    check_version,
    download_file,
    fetch_pin,
    fetch_wheel,
    published_wheels,
    requirements,
)
from patchwheel.wheelfile import check_record, read_wheel

# What was locked before, and is to stay, by lock key ("" for the environment) and Python.
Known = Callable[[str, str], Sequence[kit.Distribution]]

# The extra by which CuPy's wheels ask for the CUDA libraries that they load.
GPU_EXTRA = "ctk"
CUDA_TOOLKIT = "cuda-toolkit"


def is_current(entry: ForkLock, fork: Fork) -> bool:
    """Whether a lock entry matches the manifest."""
    return dict(entry.pin) == fork.pin and entry.settings == build_settings(fork)


def lock_fork(
    project: Project, fork: Fork, old: ForkLock | None, known: Known, *, again: bool
) -> ForkLock:
    """Lock one fork for every Python; ManifestError for an sdist of another version."""
    # What an unchanged pin gave with unchanged settings is kept: to configure takes minutes.
    source = fetch_pin(project.context, fork)
    check_version(source, project.manifest.path)
    same = old and not again and is_current(old, fork) and old.tree == source.tree
    kept, ours = old.builds if old and same else {}, patched_source(project, source)
    # A series may ask for more than was locked.
    kept = {
        python: build
        for python, build in kept.items()
        if is_built_with(build, source, ours, f"{python}.0")
    }
    builds = {
        python: kept.get(python) or _lock_build(project, source, python, known)
        for python in project.manifest.environment.python
    }
    listed = old.platforms if old and same else None
    return ForkLock(
        pin=fork.pin,
        settings=build_settings(fork),
        tree=source.tree,
        commit=_commit(project.context, source, old),
        patches={p.name: p.sha256 for p in load_series(fork.patches).patches},
        builds=builds,
        platforms=listed or published_wheels(project.context, fork),
    )


def lock_environment(
    project: Project, python: str, forks: Mapping[str, ForkLock], known: Known
) -> EnvironmentLock:
    """Resolve what belongs beside the forks: what the manifest asks for, and their dependencies."""
    context, spec = project.context.for_python(python), project.manifest.environment
    wanted = list(spec.requires)
    gpu: list[str] = []
    bounds: list[str] = []
    for fork in project.manifest.forks.values():
        base = forks[fork.lock_key].builds[python].base
        wanted += _dependencies(project, context, fork, base)
        if base and (adds := requirements(base_wheel(context, fork, base), GPU_EXTRA)):
            gpu += adds
            # The release that the wheel was made with: a driver that runs it need not be newer.
            if cuda := base.made_with.get("cuda"):
                bounds.append(f"{CUDA_TOOLKIT}=={cuda}.*")
    left_out = {build.name_of(f.distribution) for f in project.manifest.forks.values()}

    def resolve(
        lines: Sequence[str], bounds: Sequence[str], group: str = ""
    ) -> tuple[kit.Distribution, ...]:
        what = f"the environment's group {group}" if group else "the environment"
        log = context.store.log("environment", f"resolve-{context.python}")
        limits, held = [*_pins(project), *bounds], known("", python)
        found = kit.uv.resolve(context, lines, what=what, constraints=limits, known=held, log=log)
        return tuple(d for d in found if d.name not in left_out)

    packages = resolve(wanted, [])
    # A group has only what it adds to the packages.
    left_out |= {d.name for d in packages}
    wanted += [f"{d.name}=={d.version}" for d in packages]
    groups = {
        name: resolve([*wanted, *lines], bounds, name) if lines else ()
        for name, lines in (("gpu", gpu), ("test", spec.test_requires))
    }
    return EnvironmentLock(
        inputs=environment_inputs(project.manifest), packages=packages, groups=groups
    )


def _commit(context: kit.Context, source: Source, old: ForkLock | None) -> str | None:
    """Return the pinned commit, or the one that the remote has for the tag, if it answers."""
    fork = source.fork
    known = old.commit if old and dict(old.pin) == fork.pin else None
    known = fork.commit or source.commit or known
    if known or not (fork.git and fork.tag):
        return known
    try:
        return Remote(context, fork, kit.Repository(source.git_dir)).commit()
    except kit.InputError as err:
        context.progress.say(f"{fork.name}: commit unverified: {err.message}")
        return None


def _lock_build(project: Project, source: Source, python: str, known: Known) -> ForkBuild:
    """Resolve the build requirements of a pin, and configure it once to list outputs and inputs."""
    context, fork = project.context.for_python(python), source.fork
    wheel, base, fetched = None, None, fetch_wheel(context, fork)
    try:
        if fetched:
            path, sha256 = fetched
            wheel = read_wheel(path)
            check_record(wheel)
            base = BaseWheel(filename=path.name, sha256=sha256, made_with=built_with(wheel))
    except kit.InputError as err:
        # To fetch it again would change nothing: its sha256 is that of the index.
        context.progress.say(f"{fork.name}: no graft, every change compiles: {err}")
        wheel = None
    requires, environment = _build_environment(
        project, context, source, base, known(fork.lock_key, python)
    )
    inventory, mismatch = inventory_of_pin(context, source, environment, base=wheel)
    if mismatch:
        context.progress.say(f"{fork.name}: no graft while this stands: {mismatch}")
    names = {d.name for d in requires}
    others = [f for f in project.manifest.forks.values() if f.name != fork.name]
    return ForkBuild(
        build_requires=requires,
        base=base,
        inventory=inventory,
        needs=tuple(f.name for f in others if build.name_of(f.distribution) in names),
    )


def _build_environment(
    project: Project,
    context: kit.Context,
    source: Source,
    base: BaseWheel | None,
    known: Sequence[kit.Distribution],
) -> tuple[tuple[kit.Distribution, ...], Path]:
    """Resolve the static build requirements, ask the backend for more, make the environment."""
    fork = source.fork
    constraints, revealed = _pins(project), base.made_with if base else {}
    # A graft mixes what is made here with upstream's files: both are of one Cython.
    if "cython" in revealed and "cython" not in map(build.name_of, fork.build_requires):
        constraints.append(f"cython=={revealed['cython']}")

    def install(wanted: Sequence[str]) -> tuple[tuple[kit.Distribution, ...], Path]:
        log = context.store.log(fork.name, "resolve")
        requires = kit.uv.resolve(
            context,
            wanted,
            what=f"{fork.lock_key}: its build environment",
            constraints=constraints,
            known=known,
            log=log,
        )
        return requires, build.build_environment(context, requires, ())

    ours = patched_source(project, source)
    wanted = build_requirements(source, ours)
    requires, environment = install(wanted)
    with build.open_session(
        context, fork, environment, epoch=source.epoch, step="requirements"
    ) as session:
        session.checkout(source, ours.tree)
        try:
            asked = session.requirements()
        except kit.BuildError as err:
            # A setup.py may look for libraries that only a compile needs.
            if base is None:
                raise
            context.progress.say(f"{err.message}: only those that it states are locked")
            return requires, environment
    if set(asked) <= set(wanted):
        return requires, environment
    return install(build.merged([*wanted, *asked], ()))


def _dependencies(
    project: Project, context: kit.Context, fork: Fork, base: BaseWheel | None
) -> list[str]:
    """Return a fork's dependencies, by upstream's wheel or project table, and its series."""
    source = fetch_pin(context, fork)
    if base is None:
        table = build.read_table(read_pyproject_of(source), "project", fork.name)
        if "dependencies" in build.string_list(table.get("dynamic", []), fork.name):
            problem = "pyproject.toml does not state its dependencies"
            context.progress.say(f"{fork.name}: {problem}; name them in environment.requires")
    lines = requirements(base_wheel(context, fork, base)) if base else None
    return dependencies(source, patched_source(project, source), lines)


def base_wheel(context: kit.Context, fork: Fork, base: BaseWheel) -> Path:
    return download_file(context, fork.distribution, base.filename, base.sha256)


def _pins(project: Project) -> list[str]:
    """Hold the forks at their versions."""
    # No index has one that was never released.
    return [
        f"{f.distribution}=={f.version}"
        for f in project.manifest.forks.values()
        if f.sdist or not Version(f.version).is_prerelease
    ]


def patched_source(project: Project, source: Source) -> Source:
    """Return the pin with its series applied; the pin alone if the series does not apply."""
    series = load_series(source.fork.patches)
    try:
        tree = apply_series(source, series, store=project.store).tree
    except kit.PatchError as err:
        problem = "requirements are read without the series, which does not apply"
        project.progress.say(f"{source.fork.name}: {problem}: {err.message}")
        return source
    return replace(source, tree=tree)


def read_pyproject_of(source: Source) -> bytes:
    """Return the project's pyproject.toml; an empty one means the same as none (PEP 518)."""
    repo = kit.Repository(source.git_dir)
    blobs = repo.files(source.tree, "pyproject.toml").values()
    return b"".join(repo.read([blob.oid for blob in blobs]).values())


def build_requirements(source: Source, patched: Source) -> list[str]:
    """Return the stated build requirements, as the series has them where it has other ones."""
    fork, where = source.fork, f"{source.fork.name}: pyproject.toml"
    pin, ours = (
        build.static_build_requirements(build.parse_build_system(read_pyproject_of(s), where), fork)
        for s in (source, patched)
    )
    return _replaced(pin, pin, ours)


def dependencies(source: Source, patched: Source, base: Iterable[str] | None) -> list[str]:
    """Return what a patched wheel requires: what `base` or the project does, and the series."""
    pin, ours = (_stated(s) for s in (source, patched))
    return _replaced(pin if base is None else base, pin, ours)


def has_added(project: Project, entry: EnvironmentLock, python: str) -> bool:
    """Say whether a locked environment has the dependencies that the series add or change."""
    names = {f.distribution for f in project.manifest.forks.values()}
    for fork in project.manifest.forks.values():
        source = fetch_pin(project.context, fork)
        pin, ours = _stated(source), _stated(patched_source(project, source))
        lines = [n for n in ours if n not in pin and build.name_of(n) not in names]
        if not is_provided(source, lines, entry.packages, f"{python}.0"):
            return False
    return True


def is_provided(
    source: Source, lines: list[str], packages: Iterable[kit.Distribution], python: str
) -> bool:
    """Say whether locked packages meet the dependencies."""
    versions = {d.name: d.version for d in packages}
    try:
        build.check_satisfied(source.fork, lines, versions, python=python)
    except kit.ManifestError:
        return False
    return True


def is_built_with(build: ForkBuild, source: Source, patched: Source, python: str) -> bool:
    """Say whether what is locked for a build has what the series requires of it."""
    if source.tree == patched.tree or read_pyproject_of(source) == read_pyproject_of(patched):
        return True
    lines = build_requirements(source, patched)
    return is_provided(source, lines, build.build_requires, python)


def _stated(source: Source) -> list[str]:
    table = build.read_table(read_pyproject_of(source), "project", source.fork.name)
    return [*build.string_list(table.get("dependencies", []), source.fork.name)]


def _replaced(lines: Iterable[str], old: list[str], new: list[str]) -> list[str]:
    """Put the new lines in the place of those about the same names, where they are others."""
    changed = {build.name_of(line) for line in {*old} ^ {*new}}
    kept = [line for line in lines if build.name_of(line) not in changed]
    return [*kept, *(line for line in new if build.name_of(line) in changed)]
