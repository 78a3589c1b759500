"""Several forks in one run: together or in turn, and what happens when one fails."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from patchwheel.kit.context import Progress
from patchwheel.kit.errors import BuildError
from patchwheel.manifest.model import Fork
from patchwheel.wheel import build

FORKS = [
    cast("Fork", SimpleNamespace(name=name, lock_key=name)) for name in ("one", "two", "three")
]


class Run:
    """Runs of `build_wheels` whose wheels are made by `make`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, make: Callable[[str], None]) -> None:
        self.make = make
        self.published: list[str] = []
        monkeypatch.setattr(build, "build_wheel", self.wheel)
        monkeypatch.setattr(build, "_check_tags", lambda *_, **__: None)
        monkeypatch.setattr(build, "publish", lambda _, wheels: self.published.extend(wheels))

    def wheel(self, _project: object, fork: Fork, *, made: dict[str, Any], **_: object) -> None:
        self.make(fork.name)
        made[fork.lock_key] = fork.name

    def build(self, *, from_source: bool = False, **options: bool) -> list[str]:
        given = {"lock": None, "remote": None, "progress": Progress(), "from_source": from_source}
        context = SimpleNamespace(interpreter=None)
        project = cast("Any", SimpleNamespace(context=context, **given))
        _, failures = build.build_wheels(project, FORKS, **options)
        return list(failures)


def test_grafts_are_made_together_and_reported_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = threading.Barrier(len(FORKS), timeout=10)
    run = Run(monkeypatch, lambda _name: cast("None", barrier.wait()))
    run.build()
    assert run.published == ["one", "two", "three"]


def test_compiles_are_made_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    run = Run(monkeypatch, lambda _name: threads.append(threading.get_ident()))
    run.build(from_source=True)
    assert threads == [threading.get_ident()] * len(FORKS)


def fail(name: str) -> None:
    if name != "two":
        raise BuildError(f"{name} does not compile")


@pytest.mark.parametrize("from_source", [False, True])
def test_the_first_failure_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, *, from_source: bool
) -> None:
    run = Run(monkeypatch, fail)
    with pytest.raises(BuildError, match="one does not compile"):
        run.build(from_source=from_source)
    assert run.published == []


@pytest.mark.parametrize("from_source", [False, True])
def test_keep_going_makes_what_can_be_made(
    monkeypatch: pytest.MonkeyPatch, *, from_source: bool
) -> None:
    run = Run(monkeypatch, fail)
    failures = run.build(from_source=from_source, keep_going=True)
    assert run.published == ["two"]
    assert failures == ["one", "three"]


def test_an_internal_error_is_never_a_failure_to_go_on_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_name: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Run(monkeypatch, broken).build(keep_going=True)
