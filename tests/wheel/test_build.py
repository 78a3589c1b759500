"""Several forks in one run: all at once, and what happens when one fails."""

import contextlib
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from patchwheel.kit import Jobs
from patchwheel.kit.context import Progress
from patchwheel.kit.errors import BuildError
from patchwheel.manifest.model import Fork
from patchwheel.wheel import build
from patchwheel.wheel.make import BuiltWheel

FORKS = [
    cast("Fork", SimpleNamespace(name=name, lock_key=name)) for name in ("one", "two", "three")
]


class Run:
    """Runs of `build_wheels` whose wheels are made by `make`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, make: Callable[[str], None]) -> None:
        self.make = make
        self.published: list[str] = []
        self.jobs = Jobs(2)
        monkeypatch.setattr(build, "build_wheel", self.wheel)
        monkeypatch.setattr(build, "_check_tags", lambda *_, **__: None)
        monkeypatch.setattr(build, "publish", lambda _, wheels: self.published.extend(wheels))

    def wheel(self, _project: object, fork: Fork, *, made: dict[str, Any], **_: object) -> None:
        self.make(fork.name)
        made[fork.lock_key] = fork.name

    def build(self, **options: bool) -> list[str]:
        given = {"lock": None, "remote": None, "progress": Progress()}
        context = SimpleNamespace(interpreter=None, pool=self.jobs)
        project = cast("Any", SimpleNamespace(context=context, **given))
        _, failures = build.build_wheels(project, FORKS, elsewhere=None, **options)
        return list(failures)


def test_wheels_are_made_together_and_reported_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = threading.Barrier(len(FORKS), timeout=10)
    run = Run(monkeypatch, lambda _name: cast("None", barrier.wait()))
    run.build()
    assert run.published == ["one", "two", "three"]


def fail(name: str) -> None:
    if name != "two":
        raise BuildError(f"{name} does not compile")


def test_the_first_failure_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, fail)
    with pytest.raises(BuildError, match="one does not compile"):
        run.build()
    assert run.published == []


def test_a_failure_ends_what_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = threading.Barrier(len(FORKS), timeout=10), list[str]()

    def make(name: str) -> None:
        try:
            with run.jobs.take():
                if name == "three":
                    begun.wait()
                    raise BuildError("three does not compile")
                begun.wait()
                while True:
                    run.jobs.balance()
        finally:
            ended.append(name)

    run = Run(monkeypatch, make)
    run.jobs = Jobs(3)
    with pytest.raises(BuildError, match="three does not compile"):
        run.build()
    assert sorted(ended) == ["one", "three", "two"]
    assert run.jobs.free == 3


def test_keep_going_makes_what_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, fail)
    failures = run.build(keep_going=True)
    assert run.published == ["two"]
    assert failures == ["one", "three"]


def test_a_wheel_that_several_need_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, calls = build.Made(), list[str]()

    def make(_project: object, fork: Fork, _made: object) -> BuiltWheel:
        calls.append(fork.name)
        if fork.name == "two":
            raise BuildError("two does not compile")
        return cast("BuiltWheel", fork.name)

    monkeypatch.setattr(build, "_build", make)
    project = cast("Any", None)
    for fork in (*FORKS[:2], *FORKS[:2]):
        with contextlib.suppress(BuildError):
            assert build.build_wheel(project, fork, made=made) == cast("Any", "one")
    assert calls == ["one", "two"]
    # Who needs one that failed gets its error.
    with pytest.raises(BuildError, match="two does not compile"):
        build.build_wheel(project, FORKS[1], made=made)


def test_an_internal_error_is_never_a_failure_to_go_on_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_name: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Run(monkeypatch, broken).build(keep_going=True)
