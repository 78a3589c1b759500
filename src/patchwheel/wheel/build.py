"""Makes the wheels of several forks and copies them into the project's dist/."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from patchwheel import kit
from patchwheel.build import OwnWheel, check_machine
from patchwheel.manifest import Fork
from patchwheel.plan import FAILED, Plan, plan_fork, remember_base, start_environment
from patchwheel.project import Project
from patchwheel.wheel.make import KIND, BuiltWheel, make_wheel
from patchwheel.wheel.shared import share, take_shared
from patchwheel.wheelfile import STATEMENT, metadata

PUBLISHED = "published"
# Seconds for builds to remove their folders, after another one failed.
ENDING = 3.0


class Made(dict[str, BuiltWheel]):
    """The wheels of a run by lock key; each is made by one thread, for which others wait.

    `elsewhere` makes the wheel of a plan on another machine; None is for one to be made here.
    """

    def __init__(self, elsewhere: Elsewhere | None = None) -> None:
        super().__init__()
        self.elsewhere = elsewhere
        self._turns: dict[str, threading.Lock] = {}
        self._failed: dict[str, kit.PatchwheelError] = {}

    @contextlib.contextmanager
    def turn(self, key: str) -> Iterator[None]:
        """Let no other thread make it meanwhile; raises the error of one that failed before."""
        with self._turns.setdefault(key, threading.Lock()):
            if err := self._failed.get(key):
                raise err
            try:
                yield
            except kit.PatchwheelError as err:
                self._failed[key] = err
                raise


Elsewhere = Callable[[Project, Plan, Made], BuiltWheel | None]


def build_wheel(project: Project, fork: Fork, *, made: Made | None = None) -> BuiltWheel:
    """Make one wheel, unless it is in `made`, which it is added to, or in the store.

    Wheels of other forks that it compiles against are made first.
    """
    made = Made() if made is None else made
    with made.turn(fork.lock_key):
        if fork.lock_key not in made:
            made[fork.lock_key] = _build(project, fork, made)
        return made[fork.lock_key]


def _build(project: Project, fork: Fork, made: Made) -> BuiltWheel:
    if project.from_source:
        check_machine(fork, store=project.store)
    if not made.elsewhere:
        start_environment(project, fork)
    plan = plan_fork(project, fork, made=made)
    if plan.node_key is None and project.remote:
        # What is looked up in a shared store names what it was compiled against.
        build_needs(project, fork, made=made)
        plan = plan_fork(project, fork, made=made)
    if shared := take_shared(project, plan):
        return shared
    wheel = made.elsewhere(project, plan, made) if made.elsewhere else None
    return wheel or _make(project, fork, plan, made)


def _make(project: Project, fork: Fork, plan: Plan, made: Made) -> BuiltWheel:
    say, refused, complete = project.progress.say, None, plan.node_key is not None
    wheel: BuiltWheel | None = None
    while wheel is None:
        if not complete:
            build_needs(project, fork, made=made)
            plan = plan_fork(project, fork, refused=refused, made=made, configure=True)
            # Only now its key is known.
            if plan.route == "compile" and (shared := take_shared(project, plan)):
                return shared
        try:
            wheel = _take(project, plan)
        except kit.GraftNotPossible as err:
            # Some things show only once outputs were built.
            say(f"{fork.name}: no graft, a compile: {err.message}")
            refused = err.message
        except kit.NotReplayedError as err:
            say(f"{err.message}: its project is configured")
            project.store.remember(FAILED, kit.digest(plan.tree.tree, plan.steps), {})
        complete = False
    if not wheel.cached:
        how = plan.description.replace("about a second, ", "").removesuffix(": about a second")
        say(f"{fork.name}: {how}, in {wheel.seconds:.1f} s")
        for line in plan.warnings:
            say(f"warning: {fork.name}: {line}")
        if plan.route == "compile":
            remember_base(project, fork, wheel.node_key, plan.key_parts)
    share(project, wheel)
    return wheel


def _take(project: Project, plan: Plan) -> BuiltWheel:
    """Return a plan's wheel, hashed before it is read; one that is in dist/ already is not read."""
    store, wheel = project.store, make_wheel(plan, project.store, project.progress)
    if not wheel.cached or published(store, project.dist / wheel.path.name) == wheel.sha256:
        return wheel
    found = store.find(KIND, wheel.node_key, hashed=True)
    return wheel if found else make_wheel(plan, store, project.progress)


def build_needs(project: Project, fork: Fork, *, made: Made) -> list[BuiltWheel]:
    """Make the wheels of other forks that a fork compiles against, or wait for them."""
    wheels = []
    for name in project.build(fork).needs:
        with project.progress.step(f"building {name} for {fork.name}", brief=True):
            wheels.append(build_wheel(project, project.manifest.forks[name], made=made))
    return wheels


def build_wheels(
    project: Project,
    forks: Sequence[Fork],
    *,
    keep_going: bool = False,
    strict_tag: bool = False,
    elsewhere: Elsewhere | None = None,
) -> tuple[list[BuiltWheel], dict[str, kit.PatchwheelError]]:
    """Make the wheels of `forks`, all at once, and copy them into dist/.

    A failure ends the others, and is raised; with `keep_going`, failures are returned by fork.
    With `strict_tag` a graft whose platform tag is above its base's is a CheckError.
    """
    made, pool = Made(elsewhere), project.context.pool
    failures: dict[str, kit.PatchwheelError] = {}

    def make(fork: Fork) -> None:
        try:
            what = f" for Python {project.python}" if elsewhere else ""
            with project.progress.step(f"building {fork.name}{what}", brief=True):
                build_wheel(project, fork, made=made)
        except kit.PatchwheelError as err:
            failures[fork.name] = err
            if not keep_going:
                pool.stopped = True

    if len(forks) == 1:
        make(forks[0])
    else:
        # Read before the threads start, each of which needs them.
        _ = project.lock, project.context.interpreter, project.remote
        calls = [kit.process.started(functools.partial(make, fork)) for fork in forks]
        try:
            for call in calls:
                call(None)
        except BaseException:
            pool.stopped = True
            project.progress.say("ending the other builds")
            for call in calls:
                with contextlib.suppress(kit.PatchwheelError, TimeoutError):
                    call(ENDING / len(calls))
            raise
    failures = {fork.name: failures[fork.name] for fork in forks if fork.name in failures}
    if failures and not keep_going:
        raise next(err for err in failures.values() if not isinstance(err, kit.StoppedError))
    wheels = [made[f.lock_key] for f in forks if f.lock_key in made]
    _check_tags(project, wheels, strict=strict_tag)
    publish(project, wheels)
    return wheels, failures


def _check_tags(project: Project, wheels: Sequence[BuiltWheel], *, strict: bool) -> None:
    policy = project.manifest.environment.platform if project.release else None
    # What nobody refuses is said once, when the wheel is made.
    wheels = [wheel for wheel in wheels if strict or policy or not wheel.cached]
    if not wheels:
        return
    # A no-op imports little.
    from patchwheel.wheel.fit import above_policy, risen_tag

    for wheel in wheels:
        if high := policy and above_policy(wheel.path, policy):
            hint = f"compile it in an image of {policy}, or change `platform` in forks.toml"
            expected = f"what {policy} has, as forks.toml says"
            raise kit.CheckError(
                f"{wheel.fork}: {high}", where=wheel.path, expected=expected, hint=hint
            )
        risen = risen_tag(wheel.plan, wheel.path)
        if risen and strict:
            hint = "build in an image of the older policy, or without --strict-tag"
            raise kit.CheckError(f"{wheel.fork}: {risen}", where=wheel.path, hint=hint)
        if risen:
            project.progress.say(f"warning: {wheel.fork}: {risen}")


def publish(project: Project, wheels: Sequence[BuiltWheel]) -> None:
    """Copy wheels into dist/, and remove older ones of the same fork and Python from there."""
    with putting(project, project.dist, wheels):
        for wheel in wheels:
            target = project.dist / wheel.path.name
            # Nothing is removed through a link out of the project, nor what others put there.
            inside = project.dist.resolve().is_relative_to(project.root.resolve())
            for old in project.wheels_of(wheel.plan.fork) if inside else ():
                stated = old.with_name(f"{old.name}{STATEMENT}").exists() and not project.release
                known = published(project.store, old) and not stated
                if old != target and known and _python_tag(old) == _python_tag(target):
                    old.unlink()
                    for suffix in (STATEMENT, metadata.BESIDE):
                        old.with_name(f"{old.name}{suffix}").unlink(missing_ok=True)


@contextlib.contextmanager
def putting(project: Project, folder: Path, wheels: Sequence[BuiltWheel]) -> Iterator[None]:
    """Copy what a folder lacks of these wheels; meanwhile, nobody else does."""
    folder.mkdir(parents=True, exist_ok=True)
    with kit.exclusive_lock(folder):
        for wheel in wheels:
            if published(project.store, folder / wheel.path.name) != wheel.sha256:
                _copy(wheel, folder / wheel.path.name, project.store)
        yield


def published(store: kit.Store, wheel: Path) -> str | None:
    """Return the sha256 of a wheel that was published here, while its file is the one of then."""
    known = store.memo(PUBLISHED, kit.digest(str(wheel.absolute())))
    with contextlib.suppress(OSError):
        if known and known["stamp"] == [*kit.stamp("", wheel.lstat())]:
            return str(known["sha256"])
    return None


def published_before(store: kit.Store, wheel: Path) -> str | None:
    """Return the sha256 of what was published here under this name, whatever is there now."""
    known = store.memo(PUBLISHED, kit.digest(str(wheel.absolute())))
    return str(known["sha256"]) if known else None


def _copy(wheel: BuiltWheel, target: Path, store: kit.Store) -> None:
    data = wheel.path.read_bytes()
    if (actual := hashlib.sha256(data).hexdigest()) != wheel.sha256:
        problem = f"the file was read with the sha256 {actual}"
        hint = "run the command again; if this repeats, check the disk and the memory"
        raise kit.CheckError(problem, where=wheel.path, expected=wheel.sha256, hint=hint)
    kit.write_atomically(target, data, alone=True)
    row: dict[str, object] = {"sha256": wheel.sha256, "stamp": [*kit.stamp("", target.lstat())]}
    store.remember(PUBLISHED, kit.digest(str(target.absolute())), row)


def wheels_in(project: Project, folder: Path) -> list[OwnWheel]:
    """Return a wheel of each fork from a folder; raises InputError unless there is exactly one."""
    return [_wheel_in(project, folder, fork) for fork in project.manifest.forks.values()]


def _wheel_in(project: Project, folder: Path, fork: Fork) -> OwnWheel:
    paths = [
        path.absolute()
        for path in project.wheels_here(fork, folder)
        if not metadata.has_variant_label(path.name)
    ]
    if len(paths) != 1:
        count = f"are {len(paths)} wheels" if paths else "is no wheel"
        names = f": {', '.join(path.name for path in paths)}" if paths else ""
        raise kit.InputError(
            f"there {count} of {fork.distribution} for Python {project.python}{names}",
            where=folder,
            expected="one, with the manifest's label",
            hint="remove the others" if paths else f"`patchwheel build {fork.name}` fills dist/",
        )
    [path] = paths
    version = path.name.split("-")[1]
    return OwnWheel(fork=fork.name, path=path, sha256=kit.file_sha256(path), version=version)


def _python_tag(wheel: Path) -> str:
    return wheel.name.split("-")[-3]
