"""What a run makes of a cluster, of what its workers say, and of one that is not there."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import dask.config
import pytest

import patchwheel
from patchwheel.build import toolchain
from patchwheel.cluster import check_address, pool, scheduler_address, worker
from patchwheel.kit import Jobs
from patchwheel.kit.errors import (
    BuildError,
    CheckError,
    InputError,
    MachineError,
    ManifestError,
    PatchwheelError,
)
from patchwheel.wheel import Made
from tests.fixtures import support
from tests.fixtures.projects import make_site

if TYPE_CHECKING:
    from pathlib import Path

    from patchwheel.kit.store import Store

NEEDS = worker.resources({"gcc": "1" * 64, "cargo": "2" * 64}, "bwrap", 1e9)


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("tcp://127.0.0.1:8786", True),
        ("tcp://[::1]:8786", True),
        ("tcp://localhost:8786", True),
        ("tls://10.0.0.1:8786", "with certificates"),
        ("tcp://10.0.0.1:8786", False),
        ("tcp://0.0.0.0:8786", False),
        ("tcp://localhost.example.org:8786", False),
        ("ws://127.0.0.1:8786", False),
        ("inproc://127.0.0.1", False),
        ("tcp://:8786", False),
    ],
)
def test_only_tls_and_the_loopback_are_addresses_of_a_cluster(
    monkeypatch: pytest.MonkeyPatch, address: str, *, good: bool | str
) -> None:
    if good == "with certificates":
        with pytest.raises(ManifestError, match="no certificates are named for it"):
            check_address(address)
        monkeypatch.setattr(dask.config, "get", lambda name: f"/etc/{name}")
    if good:
        assert check_address(address) == address
        return
    with pytest.raises(ManifestError, match="could run code there") as caught:
        check_address(address)
    assert caught.value.where == address


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"address"', b"\xff"])
def test_what_is_no_scheduler_file_is_told(tmp_path: Path, text: str | bytes | None) -> None:
    file = tmp_path / "scheduler.json"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match="is no scheduler file") as caught:
        scheduler_address(str(file))
    assert str(file) in str(caught.value)
    file.write_text('{"address": "tcp://192.0.2.1:8786"}')
    with pytest.raises(ManifestError):
        scheduler_address(str(file))
    file.write_text('{"address": "tcp://127.0.0.1:8786"}')
    assert scheduler_address(str(file)) == "tcp://127.0.0.1:8786"


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MachineError, match=r"needs dask\.distributed") as caught:
        check_address("tcp://127.0.0.1:8786")
    assert caught.value.hint == "install patchwheel[cluster]"


def test_nothing_but_a_cluster_imports_dask() -> None:
    code = (
        "import sys, patchwheel.cli.building, patchwheel.cli.maintenance, patchwheel.cluster as c"
    )
    code += "; c.check_address, c.advertised; print('distributed' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_a_cluster_needs_a_shared_store_and_builds_nothing_that_stays_here(tmp_path: Path) -> None:
    site = make_site(tmp_path, {})
    place = ("build", "--cluster", "tcp://127.0.0.1:1")
    message = site.run(*place, status=2)
    assert "a cluster hands its wheels over in a shared store" in message
    for words in (("--release",), ("--report", "x.html")):
        assert "are for builds on this machine" in site.run(*place, *words, status=2)
    assert "a worker adds its wheels to a shared store" in site.run(
        "cluster", "worker", "tcp://127.0.0.1:1", status=7
    )
    assert "could run code there" in site.run(
        "cluster", "scheduler", "s.json", "--host", "tcp://0.0.0.0", status=2
    )


def cluster(workers: dict[str, dict[str, float]], report: support.Recorder) -> pool.Cluster:
    info = {name: {"resources": has, "nthreads": 1} for name, has in workers.items()}
    client = SimpleNamespace(scheduler_info=lambda n_workers: {"workers": info})
    return pool.Cluster(cast("Any", client), report)


@pytest.mark.parametrize(
    ("workers", "waits", "message"),
    [
        ({}, pool.NONE, "a-3.12: no worker can build it: there is none"),
        ({"one": NEEDS | {"gcc-" + "1" * 16: 0.0}}, pool.UNFIT, "one lacks gcc-1111"),
        ({"one": NEEDS | {"memory": 9e8}}, pool.UNFIT, "one lacks memory"),
        ({"one": {}, "two": NEEDS | {"level-bwrap": 0}}, pool.UNFIT, "two lacks level-bwrap"),
        ({"one": {}, "two": NEEDS}, 0, ""),
    ],
)
def test_a_task_waits_for_a_worker_that_can_have_it(
    monkeypatch: pytest.MonkeyPatch,
    workers: dict[str, dict[str, float]],
    waits: float,
    message: str,
) -> None:
    made = cluster(workers, support.Recorder())
    monkeypatch.setattr("time.monotonic", lambda: waits + 1.0)
    if not message:
        assert made._fits("a-3.12", NEEDS, 0) == 1
        return
    assert made._fits("a-3.12", NEEDS, 1.5) == 1.5
    with pytest.raises(MachineError, match=message):
        made._fits("a-3.12", NEEDS, 0.5)


TASK: dict[str, Any] = {"cell": "a-3.12", "again": False, "tools": {}, "level": "none"}


HERE, THERE, NOWHERE = {"gcc-1": 1.0}, {"gcc-2": 1.0}, {"gcc-3": 1.0}


@pytest.mark.parametrize(
    ("needs", "most"),
    [
        # Of two workers each can have one; what another worker is for does not wait for these.
        ([{}] * 5, 2),
        ([HERE] * 3, 1),
        ([HERE, HERE, THERE, THERE], 2),
        # Nobody waits to be told that no worker can have it.
        ([NOWHERE] * 4, 4),
    ],
)
def test_no_more_tasks_are_out_than_workers_can_have(
    monkeypatch: pytest.MonkeyPatch, needs: list[dict[str, float]], most: int
) -> None:
    made, seen = cluster({"one": HERE, "two": THERE}, support.Recorder()), list[int]()
    monkeypatch.setattr(pool, "_needs", lambda task: task["needs"])
    monkeypatch.setattr(pool, "EVERY", 0.05)
    lock, out, enough = threading.Lock(), [0], threading.Barrier(most)

    def built(need: dict[str, float]) -> None:
        with made._turn(TASK | {"needs": need}, lambda: None):
            with lock:
                out[0] += 1
                seen.append(out[0])
            # The first ones meet, so they were out at once.
            with contextlib.suppress(threading.BrokenBarrierError):
                enough.wait(5 if len(seen) <= most else 0)
            with lock:
                out[0] -= 1

    with ThreadPoolExecutor(len(needs)) as threads:
        list(threads.map(built, needs))
    assert (max(seen), len(seen)) == (most, len(needs))
    assert made.out == []


def test_a_scheduler_that_goes_while_a_task_waits_lets_it_through() -> None:
    made, gone = cluster({"one": {}}, support.Recorder()), list[int]()
    answer = made.client.scheduler_info

    def scheduler_info(n_workers: int) -> Any:
        if gone:
            raise KeyError("workers")
        return answer(n_workers)

    made.client.scheduler_info = scheduler_info
    made.out.append({"one": 1})
    with made._turn(TASK, lambda: gone.append(1)):
        assert made.out == [{"one": 1}, {}]


def away(
    monkeypatch: pytest.MonkeyPatch, results: list[dict[str, Any]], found: str | None
) -> tuple[Any, list[Any], list[str]]:
    """Let a worker answer so, and the store have a wheel of that sha256."""
    report, tasks = support.Recorder(), list[Any]()
    made = cluster({}, report)

    def answer(key: str, *_: object) -> dict[str, Any]:
        return {"worker": "tls://w:1", **results[int(key)]}

    def submit(task: dict[str, Any]) -> str:
        tasks.append(dict(task))
        return str(len(tasks) - 1)

    monkeypatch.setattr(made, "submit", submit)
    monkeypatch.setattr(made, "wait", answer)
    monkeypatch.setattr(pool, "make_task", lambda *_: dict(TASK))
    wheel = SimpleNamespace(sha256=found) if found else None
    monkeypatch.setattr(pool, "take_shared", lambda *_: wheel)
    plan = SimpleNamespace(node_key=None, shared_as=("graft", "k"), route="graft", fork=None)
    project = cast("Any", SimpleNamespace(store=None, context=SimpleNamespace(pool=Jobs(1))))
    return lambda: made.build(project, cast("Any", plan), Made()), tasks, report.lines


GOOD = {"status": 0, "sha256": "5" * 64, "route": "graft", "message": "one\ntwo"}


@pytest.mark.parametrize(
    ("results", "found", "error", "message"),
    [
        ([{"status": 5, "message": "no such luck"}], None, BuildError, "a-3.12: no such luck"),
        ([{"status": 7, "message": "no room"}], None, MachineError, "a-3.12: no room"),
        ([{"status": 1, "message": "Traceback"}], None, PatchwheelError, "a-3.12: Traceback"),
        ([{"status": -9}, {"status": -9}], None, MachineError, "its worker was lost twice"),
        ([GOOD], None, CheckError, "the shared store gives no such wheel"),
        ([GOOD], "6" * 64, CheckError, "a wheel with the sha256 6666"),
    ],
)
def test_what_went_wrong_on_a_worker_has_its_exit_status(
    monkeypatch: pytest.MonkeyPatch,
    results: list[dict[str, Any]],
    found: str | None,
    error: type[PatchwheelError],
    message: str,
) -> None:
    call, tasks, _ = away(monkeypatch, results, found)
    with pytest.raises(error, match=message) as caught:
        call()
    assert type(caught.value) is error
    assert caught.value.where == "tls://w:1"
    assert [task["again"] for task in tasks] == [False, True][: len(results)]


def test_a_lost_worker_is_told_and_its_cell_built_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call, tasks, said = away(monkeypatch, [{"status": -9}, GOOD], "5" * 64)
    assert call().sha256 == "5" * 64
    assert [task["again"] for task in tasks] == [False, True]
    assert said == ["a-3.12: its worker was lost; once more, with half the jobs"]


def test_a_graft_that_became_a_compile_is_looked_up_as_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call, _, _ = away(monkeypatch, [{**GOOD, "route": "compile"}], "5" * 64)
    asked: list[object] = []
    monkeypatch.setattr(pool, "plan_fork", lambda *_, **named: asked.append(named["refused"]))
    assert call()
    assert asked == ["as the worker found"]


def asked(store: Store, **changes: Any) -> dict[str, Any]:
    tools = {n: t.identity for n, t in toolchain.identify(["gcc"], store=store).items()}
    return {
        "version": patchwheel.__version__,
        "tools": tools,
        "python": "3.12",
        "sandbox": "none",
        "level": "none",
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "9.9"}, r"it has patchwheel \d"),
        ({"tools": {"gcc": "0" * 64}}, "its gcc is another one: .*gcc"),
        ({"tools": {"no-such-program": "0" * 64}}, "no-such-program is not installed"),
        ({"level": "bwrap"}, "its sandbox has the level none"),
    ],
)
def test_a_worker_refuses_what_it_would_build_differently(
    store: Store, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("PATCHWHEEL_REMOTE", "file:///nowhere")
    with pytest.raises(MachineError, match="adds its wheels to a shared store"):
        worker._check(asked(store), store)
    monkeypatch.setenv("PATCHWHEEL_REMOTE_WRITE", "unsigned")
    worker._check(asked(store), store)
    with pytest.raises(MachineError, match=message):
        worker._check(asked(store, **changes), store)


def test_a_worker_sets_nothing_that_changes_a_wheel() -> None:
    kept = {"PATCHWHEEL_STORE", "PATCHWHEEL_REMOTE_WRITE", "PATCHWHEEL_LIMIT_TIME", "PATH"}
    given = [*kept, "PATCHWHEEL_FROM_SOURCE", "PATCHWHEEL_PYTHON", "PATCHWHEEL_CLUSTER"]
    assert {name for name in given if not worker.SETTINGS.match(name)} == kept


@pytest.mark.parametrize("change", ["cancelled", "forgotten", "closing"])
def test_a_cancelled_task_ends_its_processes(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """With a signal first, and by force if that does not help."""
    sent: list[object] = []
    monkeypatch.setattr("os.kill", lambda *what: sent.append(what))
    task, status = SimpleNamespace(state="executing"), SimpleNamespace(name="running")
    state = SimpleNamespace(tasks={"key": task})
    leash = worker.Leash(cast("Any", SimpleNamespace(state=state, status=status)), "key")
    leash.hear(1)
    leash.check(99)
    assert not sent
    if change == "forgotten":
        state.tasks.clear()
    elif change == "closing":
        status.name = change
    else:
        task.state = change
    leash.check(99)
    leash.check(99)
    assert sent == [(99, signal.SIGTERM)]
    leash.ended -= worker.PATIENCE
    with pytest.raises(MachineError, match="the task was cancelled"):
        leash.check(99)
