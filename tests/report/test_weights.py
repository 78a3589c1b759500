"""What builds took, kept for the next estimate."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from patchwheel.kit.context import Event
from patchwheel.report import weights
from patchwheel.report.weights import Estimate, known_weights, learn, write_costs

if TYPE_CHECKING:
    from pathlib import Path

    from patchwheel.kit.store import Store

SO = ".cpython-312-x86_64-linux-gnu.so"


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})


def step(what: str, start: float, end: float, *needs: str) -> Event:
    return Event(kind="compile", what=what, fork="demo", start=start, end=end, needs=needs)


def run(start: float, end: float, cpu: float, what: str = "compiling demo") -> Event:
    return Event(kind="run", what=what, fork="demo", start=start, end=end, cpu=cpu)


# Two cores that were busy with other work half of the time: 20 s of steps, and 5 s besides.
COMPILE = [
    step(f"a{SO}.p/a.o", 15, 21),
    step("shared.o", 15, 19),
    step(f"a{SO}", 21, 22, f"a{SO}.p/a.o", "shared.o"),
    step(f"b{SO}", 19, 28, "shared.o"),
    run(10, 28, 12.5),
    Event(kind="phase", what="building demo", start=0, end=30, cpu=1),
]


def told(store: Store, root: Path, *outputs: str, route: str = "graft") -> Estimate:
    known = known_weights(store, root, "demo")
    assert known
    found = known.estimate(route, outputs if route == "graft" else None)
    assert found
    return found


def test_a_compile_is_estimated_and_then_a_part_of_it(store: Store, tmp_path: Path) -> None:
    assert known_weights(store, tmp_path, "demo") is None
    learn(store, "demo", "compile", COMPILE, {})
    whole = told(store, tmp_path, route="compile")
    assert [whole.cpu, whole.wall] == pytest.approx([13.5, 8.5])
    assert (whole.cores, whole.here) == (2, True)
    # Another Python's module has the same cost; what both need counts once.
    assert told(store, tmp_path, "a.cpython-313-x86_64-linux-gnu.so").cpu == pytest.approx(5.5)
    assert told(store, tmp_path, f"a{SO}", f"b{SO}").cpu == pytest.approx(10)
    known = known_weights(store, tmp_path, "demo")
    assert known
    assert known.estimate("graft", ["unknown.so"]) is None


def test_what_was_replayed_makes_no_step_cheaper(store: Store, tmp_path: Path) -> None:
    learn(store, "demo", "compile", COMPILE, {"hits": 0, "misses": 4})
    cheap = [step("shared.o", 2, 2.1), run(0, 2.2, 2)]
    learn(store, "demo", "compile", cheap, {"hits": 4, "misses": 0})
    whole = told(store, tmp_path, route="compile")
    assert whole.cpu == pytest.approx(13.5)
    assert whole.replayed == pytest.approx(2)
    # Of a build with other sources some steps ran.
    learn(
        store, "demo", "compile", [step("shared.o", 2, 8), run(0, 8, 8)], {"hits": 4, "misses": 1}
    )
    assert told(store, tmp_path, route="compile").replayed == pytest.approx(2)
    learn(store, "demo", "compile", [step("shared.o", 2, 3), run(2, 3, 1)], {})
    assert told(store, tmp_path, "shared.o").cpu == 1


def test_runs_without_steps_or_time_are_learned_from(store: Store, tmp_path: Path) -> None:
    events = [*COMPILE, run(1, 9, 6, "configuring demo"), run(30, 30, 0), run(31, 32, 0.5)]
    learn(store, "demo", "graft", events, {})
    # To configure again is needed elsewhere only.
    assert told(store, tmp_path, f"a{SO}").cpu == pytest.approx(4 * 0.5 + 3.5 + 3.5 + 0.5, abs=1)
    known = known_weights(store, tmp_path, "demo")
    assert known
    assert known.estimate("compile") is None, "no compile was measured"


def test_costs_travel_beside_the_lock(store: Store, tmp_path: Path) -> None:
    learn(store, "demo", "compile", [*COMPILE, run(1, 9, 6, "configuring demo")], {})
    (tmp_path / weights.COSTS).write_text('{"other": {"date": "x"}}')
    path = write_costs(store, tmp_path, ["demo", "unbuilt"])
    found = json.loads(path.read_text())
    assert (found.keys(), found["other"]) == ({"demo", "other"}, {"date": "x"})
    # One number for each output; what two need is told with the first.
    assert found["demo"]["steps"] == {"a.so": 5.5, "b.so": 4.5}
    here = told(store, tmp_path, route="compile")
    store.remember(weights.KIND, "demo", {"steps": "damaged"})
    there = told(store, tmp_path, route="compile")
    assert there.cpu == pytest.approx(here.cpu, rel=0.1)
    # A graft needs a configured tree, which is not there.
    assert told(store, tmp_path, f"a{SO}").cpu == pytest.approx(5.5 + 6)
    assert (there.here, there.date) == (False, here.date)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"demo": 1}', '{"demo": {"date": 1, "x": 2}}'])
def test_damaged_costs_give_no_estimate(store: Store, tmp_path: Path, text: str) -> None:
    (tmp_path / weights.COSTS).write_text(text)
    assert known_weights(store, tmp_path, "demo") is None
    learn(store, "demo", "compile", COMPILE, {})
    assert json.loads(write_costs(store, tmp_path, ["demo"]).read_text())["demo"]["steps"]
