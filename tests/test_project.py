"""Several forks in one run: together or in turn, and what happens when one fails."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from patchwheel.kit.errors import BuildError
from patchwheel.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from patchwheel.manifest.model import Fork

FORKS = [
    cast("Fork", SimpleNamespace(name=name, locked_as=name)) for name in ("one", "two", "three")
]


class Stub(Pipeline):
    """A pipeline whose wheels are made by `make`."""

    index = lock = interpreter = cast("Any", None)

    def __init__(self, make: Callable[[str], None]) -> None:
        self.make = make
        self.made: list[str] = []

    def wheel(self, fork: Fork, made: dict[str, Any], **_: object) -> Any:  # noqa: ANN401
        self.make(fork.name)
        made[fork.name] = fork.name

    def publish(self, wheels: Any) -> None:  # noqa: ANN401
        self.made.extend(wheels)


def test_grafts_are_made_together_and_reported_in_order() -> None:
    barrier = threading.Barrier(len(FORKS), timeout=10)
    stub = Stub(lambda _name: cast("None", barrier.wait()))
    stub.build(FORKS)
    assert stub.made == ["one", "two", "three"]


def test_compiles_are_made_in_turn() -> None:
    threads: list[int] = []
    stub = Stub(lambda _name: threads.append(threading.get_ident()))
    stub.build(FORKS, from_source=True)
    assert threads == [threading.get_ident()] * len(FORKS)


def fail(name: str) -> None:
    if name != "two":
        raise BuildError(f"{name} does not compile")


@pytest.mark.parametrize("from_source", [False, True])
def test_the_first_failure_ends_the_run(*, from_source: bool) -> None:
    stub = Stub(fail)
    with pytest.raises(BuildError, match="one does not compile"):
        stub.build(FORKS, from_source=from_source)
    assert stub.made == []


@pytest.mark.parametrize("from_source", [False, True])
def test_keep_going_makes_what_can_be_made(*, from_source: bool) -> None:
    stub = Stub(fail)
    _, failures = stub.build(FORKS, from_source=from_source, keep_going=True)
    assert stub.made == ["two"]
    assert [failure.fork for failure in failures] == ["one", "three"]


def test_an_internal_error_is_never_a_failure_to_go_on_after() -> None:
    def broken(_name: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Stub(broken).build(FORKS, keep_going=True)
