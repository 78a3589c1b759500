"""The job slots that all builds of a run share, and the FIFOs through which they get them."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchwheel.kit import limits
from patchwheel.kit.limits import Jobs, StoppedError, job_count
from patchwheel.kit.store import Store
from tests.fixtures import support
from tests.fixtures.contexts import make_context


class Client:
    """A command as GNU make's jobserver has it: one job without a token, and one for each."""

    def __init__(self, jobs: Jobs, fifo: Path, variables: dict[str, str]) -> None:
        assert variables == {"MAKEFLAGS": f"-- --jobserver-auth=fifo:{fifo}"}
        self.jobs, self.fifo = jobs, os.open(fifo, os.O_RDWR | os.O_NONBLOCK)

    def grab(self) -> int:
        """Take all tokens that there are."""
        self.look()
        with contextlib.suppress(BlockingIOError):
            return len(os.read(self.fifo, 1 << 16))
        return 0

    def give(self, count: int) -> None:
        os.write(self.fifo, b"+" * count)

    def look(self) -> None:
        time.sleep(limits.LOOK)
        self.jobs.balance()


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def client(self, jobs: Jobs, name: str) -> Iterator[Client]:
        with jobs.serve(fifo := self.folder / name, fifo) as variables:
            client = Client(jobs, fifo, variables)
            try:
                yield client
            finally:
                os.close(client.fifo)
        assert not fifo.exists()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize(
    ("asked", "memory", "expected"),
    [(7, 10**15, 7), (7, 5 * 10**9, 3), (7, 1, 1), (None, 1, 1), (None, 10**15, 5)],
)
def test_jobs_are_as_asked_for_or_by_cores_and_as_memory_allows(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, memory: int, expected: int
) -> None:
    monkeypatch.setattr(limits, "free_memory", lambda: memory)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(5)))
    assert job_count(asked) == expected


def test_contexts_share_a_pool_and_say_when_memory_is_short(
    store: Store, report: support.Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "free_memory", lambda: 5 * 10**9)
    context = make_context(store, progress=report, jobs=7)
    assert context.for_python("3.13").pool is context.pool
    assert context.pool.total == 3
    assert report.lines == ["jobs: 3 at once, of 7: there is no memory for more"]
    assert make_context(store, progress=report, jobs=2).pool.total == 2
    assert len(report.lines) == 1


def test_a_command_alone_may_take_all_slots(bench: Bench) -> None:
    with bench.client(jobs := Jobs(4), "one") as one:
        assert one.grab() == 3
        assert one.grab() == 0
        one.give(2)
        assert one.grab() == 2
    assert jobs.free == 4


def test_what_one_leaves_the_other_gets(bench: Bench) -> None:
    with bench.client(jobs := Jobs(4), "one") as one:
        assert one.grab() == 3
        one.give(1)
        # It begins with what the first leaves.
        with bench.client(jobs, "two") as two:
            assert two.grab() == one.grab() == 0
            one.give(2)
            assert sum(two.grab() for _ in range(3)) == 2
            assert one.grab() == 0
        assert one.grab() == 3
    assert jobs.free == 4


def test_a_slot_that_is_used_again_at_once_goes_to_who_waits(bench: Bench) -> None:
    jobs, ended = Jobs(2), threading.Event()
    with bench.client(jobs, "one") as one:
        assert one.grab() == 1

        def work() -> None:
            # As ninja, which starts the next job when one ended, after a little work of its own.
            while not ended.wait(0.05):
                with contextlib.suppress(BlockingIOError):
                    one.give(1)
                    time.sleep(0.002)
                    os.read(one.fifo, 1)

        worker = threading.Thread(target=work)
        worker.start()
        start = time.monotonic()
        try:
            with bench.client(jobs, "two"):
                assert time.monotonic() - start < 5
        finally:
            ended.set()
            worker.join()


def test_a_build_that_makes_up_tokens_gets_nobody_elses(bench: Bench) -> None:
    with bench.client(jobs := Jobs(3), "liar") as liar, bench.client(jobs, "other") as other:
        for _ in range(5):
            liar.give(100)
            liar.look()
        assert sum(other.grab() for _ in range(5)) == 1
        # A FIFO that is full takes no more.
        with contextlib.suppress(BlockingIOError):
            while True:
                liar.give(1 << 12)
        other.give(1)
        assert sum(other.grab() for _ in range(5)) == 1
    assert jobs.free == 3


def test_a_build_that_dies_with_its_tokens_loses_none(bench: Bench) -> None:
    jobs = Jobs(4)
    with bench.client(jobs, "other") as other:
        with contextlib.suppress(ZeroDivisionError), bench.client(jobs, "killed") as killed:
            taken = other.grab()
            assert taken + killed.grab() + killed.grab() == 2
            raise ZeroDivisionError
        assert sum(other.grab() for _ in range(5)) == 3 - taken
    assert jobs.free == 4


def test_a_number_of_jobs_is_taken_beforehand(bench: Bench) -> None:
    jobs = Jobs(8)
    with jobs.take(8) as alone:
        assert alone == 8
    with bench.client(jobs, "one"), jobs.take(8) as shared:
        # Two builds are there: each gets half.
        assert shared == 4
        with jobs.take(8) as third:
            assert third == 2
    assert jobs.free == 8


def test_with_one_job_one_command_runs_at_a_time() -> None:
    jobs, running, most = Jobs(1), list[int](), list[int]()

    def command() -> None:
        with jobs.take():
            running.append(1)
            most.append(len(running))
            time.sleep(0.01)
            running.pop()

    threads = [threading.Thread(target=command) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


def test_after_a_stop_nothing_goes_on_and_nothing_begins(bench: Bench) -> None:
    jobs, ended = Jobs(1), list[type]()

    def wait() -> None:
        try:
            with jobs.take():
                pass
        except StoppedError as err:
            ended.append(type(err))

    with bench.client(jobs, "one") as one:
        waiting = threading.Thread(target=wait)
        waiting.start()
        jobs.stopped = True
        waiting.join(5)
        with pytest.raises(StoppedError):
            one.look()
    assert ended == [StoppedError]
    assert jobs.free == 1
