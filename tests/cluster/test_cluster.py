"""`build --cluster` with real processes on the loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.fixtures import clusters, support
from tests.fixtures.clusters import Loopback

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.fixtures.projects import Project

pytestmark = [
    pytest.mark.network,
    pytest.mark.compiled,
    pytest.mark.heavy,
    pytest.mark.xdist_group("cluster"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two forks, built here."""
    folder = tmp_path_factory.mktemp("packages")
    made = clusters.packages(folder, store=folder / "store")
    made.run("build")
    return made


@pytest.fixture
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    made = Loopback(tmp_path_factory.mktemp("loopback"))
    try:
        made.scheduler()
        yield made
    finally:
        made.close()


@pytest.fixture
def client(project: Project, loopback: Loopback) -> Project:
    """The same project elsewhere, with a store that has all but the wheels."""
    loopback.warm("client", project)
    return replace(project.copied(loopback.folder / "p"), store=loopback.store("client"))


def ours(client: Project, loopback: Loopback) -> dict[str, str]:
    return loopback.environment(PATCHWHEEL_REMOTE_WRITE="", PATCHWHEEL_STORE=str(client.store))


def build(client: Project, loopback: Loopback, *words: str) -> support.Done:
    return client.done("build", "--cluster", str(loopback.file), *words, **ours(client, loopback))


def begin(client: Project, loopback: Loopback, *words: str) -> subprocess.Popen[str]:
    """Start it, and return once a worker compiles."""
    process = client.start(
        "build", "--cluster", str(loopback.file), *words, **ours(client, loopback)
    )
    clusters.wait_for(lambda: compiling(loopback))
    return process


def compiling(loopback: Loopback) -> bool:
    return bool(cells(loopback))


def cells(loopback: Loopback) -> list[int]:
    """Return the processes of workers that build, however deep."""
    lines = clusters.below(loopback.folder).items()
    return [pid for pid, line in lines if " build " in line and "--cluster" not in line]


def others(loopback: Loopback) -> list[str]:
    """Return what runs besides the scheduler and the workers."""
    lines = clusters.below(loopback.folder).values()
    return [
        line for line in lines if not (" cluster scheduler " in line or " cluster worker " in line)
    ]


def workers(project: Project, loopback: Loopback, *names: str) -> None:
    for name in names:
        loopback.warm(name, project)
        loopback.worker(name, **project.index)


def test_two_workers_make_the_wheels_that_this_machine_makes(
    project: Project, loopback: Loopback, client: Project
) -> None:
    workers(project, loopback, "one", "two")
    done = build(client, loopback)
    assert done.returncode == 0, done.stderr
    assert clusters.digests(client) == clusters.digests(project)
    for fork in ("tinyext", "tinyset"):
        assert f"{fork}-3.11: on tcp://127.0.0.1:" in done.stderr
        assert f"{fork}: taken from the shared store, made by somebody" in done.stderr
    # Nothing is handed out for what is there.
    again = build(client, loopback)
    assert again.returncode == 0
    assert ": on tcp://" not in again.stderr


# A worker that is not as it should be, what is said, and the exit status.
BROKEN = {
    "another version": (
        "import patchwheel; patchwheel.__version__ = '9.9'",
        "tinyset-3.11: it has patchwheel 9.9",
        7,
    ),
    "a lie": (
        "import patchwheel.cluster.worker as w; w.kit.file_sha256 = lambda path: '0' * 64",
        "tinyset-3.11: the shared store gives a wheel with the sha256 ",
        6,
    ),
    "nothing added": (
        (
            "import patchwheel.cluster.worker as w; "
            "w.check_shares = lambda: w.os.environ.pop('PATCHWHEEL_REMOTE_WRITE', 0)"
        ),
        "tinyset-3.11: the shared store gives no such wheel",
        6,
    ),
    "an exception": (
        "import patchwheel.cluster.worker as w; w.SETTINGS = None",
        "tinyset-3.11: the worker failed: AttributeError",
        7,
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_a_broken_worker_says_is_not_believed(
    project: Project, loopback: Loopback, client: Project, what: str
) -> None:
    broken, message, status = BROKEN[what]
    loopback.warm("one", project)
    loopback.worker("one", broken=broken, **project.index)
    done = build(client, loopback, "tinyset")
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert "error: tcp://127.0.0.1:" in done.stderr or what == "an exception"
    assert not (client.root / "dist").exists()
    assert not clusters.digests(client)


def test_a_full_disk_of_a_worker_is_one_message(
    project: Project, loopback: Loopback, client: Project
) -> None:
    loopback.warm("one", project)
    broken = (
        "from pathlib import Path; import patchwheel.cluster.worker as w; "
        "w._check = lambda *_: Path('/dev/full').write_bytes(bytes(9))"
    )
    loopback.worker("one", broken=broken, **project.index)
    done = build(client, loopback, "tinyset")
    assert done.returncode == 7, done.stderr
    assert ": tinyset-3.11: " in done.stderr
    assert "next: free some room" in done.stderr
    assert not [*(loopback.store("one") / "tmp").iterdir()]


def test_a_task_lands_on_no_other_compiler(
    project: Project, loopback: Loopback, client: Project
) -> None:
    gcc = support.program(loopback.folder / "bin" / "gcc", 'exec /usr/bin/gcc "$@"')
    path = f"{gcc.parent}:{loopback.environment()['PATH']}"
    loopback.worker("one", PATH=path, **project.index)
    done = build(client, loopback, "tinyset")
    assert done.returncode == 7, done.stderr
    assert "tinyset-3.11: no worker can build it: tcp://127.0.0.1:" in done.stderr
    assert " lacks gcc-" in done.stderr


def test_a_compile_error_is_final_and_told_as_here(
    project: Project, loopback: Loopback, client: Project
) -> None:
    patch = client.root / "patches" / "tinyset" / "0010-change.patch"
    patch.write_text(patch.read_text().replace("/* patched */", "#error no such luck"))
    workers(project, loopback, "one")
    done = build(client, loopback, "--keep-going")
    assert done.returncode == 5, done.stderr
    assert "no such luck" in done.stderr
    assert done.stderr.count("tinyset-3.11: on ") == 1
    assert [path.split("-")[0] for path in clusters.digests(client)] == ["tinyext"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_cancelled_leaves_no_process(
    project: Project, loopback: Loopback, client: Project, how: signal.Signals
) -> None:
    workers(project, loopback, "one", "two")
    process = begin(client, loopback)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -9), said
    clusters.wait_for(lambda: not compiling(loopback), 30)
    # The scheduler and the workers go on, and nothing else; and the next run is as if first.
    clusters.wait_for(lambda: not others(loopback), 30)
    done = build(client, loopback)
    assert done.returncode == 0, done.stderr
    assert clusters.digests(client) == clusters.digests(project)


def test_a_lost_worker_is_replaced_once(
    project: Project, loopback: Loopback, client: Project
) -> None:
    workers(project, loopback, "one")
    process = begin(client, loopback, "tinyset")
    loopback.processes[-1].kill()
    clusters.wait_for(lambda: not compiling(loopback))
    workers(project, loopback, "two")
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert "tinyset-3.11: its worker was lost; once more, with half the jobs" in said
    assert clusters.digests(client).items() <= clusters.digests(project).items()


def test_a_worker_that_is_lost_twice_is_told(
    project: Project, loopback: Loopback, client: Project
) -> None:
    for name in ("one", "two"):
        loopback.warm(name, project)
    broken = (
        "import os, patchwheel.cluster.worker as w; w._check = lambda *_: os.kill(os.getpid(), 9)"
    )
    for name in ("one", "two", "three", "four"):
        loopback.worker(name, broken=broken, **project.index)
    done = build(client, loopback, "tinyset")
    assert done.returncode == 7, done.stderr
    assert "tinyset-3.11: its worker was lost twice" in done.stderr


def test_a_stopped_worker_is_replaced_and_harmless_when_it_wakes(
    project: Project, loopback: Loopback, client: Project
) -> None:
    workers(project, loopback, "one")
    process = begin(client, loopback, "tinyset")
    stopped = loopback.processes[-1]
    stopped.send_signal(signal.SIGSTOP)
    workers(project, loopback, "two")
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert clusters.digests(client).items() <= clusters.digests(project).items()
    stopped.send_signal(signal.SIGCONT)
    time.sleep(2)
    again = build(client, loopback)
    assert again.returncode == 0, again.stderr
    assert clusters.digests(client) == clusters.digests(project)


def test_a_scheduler_that_is_gone_is_one_message_and_leaves_no_process(
    project: Project, loopback: Loopback, client: Project
) -> None:
    workers(project, loopback, "one")
    process = begin(client, loopback, "tinyset")
    loopback.processes[0].kill()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 7, said
    assert "tinyset-3.11: the scheduler is gone" in said
    assert "Traceback" not in said
    # The worker ends, too: it has nobody to tell.
    clusters.wait_for(lambda: loopback.processes[1].poll() is not None, 90)
    clusters.wait_for(lambda: not compiling(loopback), 30)
    done = build(client, loopback, "tinyset")
    assert done.returncode == 7, done.stderr
    assert "no scheduler answers" in done.stderr


# How many processes are killed, each at a random instant of a build.
KILLS = int(os.environ.get("TEST_KILLS") or 5)
VICTIMS = ("client", "one", "cell", "scheduler", "two")


def test_whatever_is_killed_at_any_instant_nothing_is_lost(
    project: Project, loopback: Loopback, client: Project
) -> None:
    random, names = Random(50), ("one", "two")
    workers(project, loopback, *names)
    running = dict(zip(("scheduler", *names), loopback.processes, strict=True))
    assert build(client, loopback, "tinyset").returncode == 0
    forget_wheels(client, loopback, *names)
    start, kills = time.monotonic(), 0
    assert build(client, loopback, "tinyset").returncode == 0
    whole = time.monotonic() - start
    while kills < KILLS:
        forget_wheels(client, loopback, *names)
        words = ("build", "tinyset", "--cluster", str(loopback.file))
        process = client.start(*words, **ours(client, loopback))
        time.sleep(random.uniform(0, whole))
        victim, found = VICTIMS[kills % len(VICTIMS)], cells(loopback)
        pids = {name: one.pid for name, one in running.items()}
        pids |= {"client": process.pid, "cell": found[0] if found else 0}
        if process.poll() is None and pids[victim]:
            kills += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[victim], signal.SIGKILL)
        _, said = process.communicate(timeout=200)
        # Only without its scheduler a build fails, and by -9 if it was killed itself.
        assert process.returncode in {"scheduler": {0, 7}, "client": {0, -9}}.get(victim, {0}), said
        assert "Traceback" not in said
        if running["scheduler"].poll() is not None:
            clusters.wait_for(lambda: all(p.poll() is not None for p in running.values()), 90)
            loopback.file.unlink()
            running["scheduler"] = loopback.scheduler()
        clusters.wait_for(lambda: not others(loopback), 30)
        for name in names:
            if running[name].poll() is not None:
                running[name] = loopback.worker(name, **project.index)
        done = build(client, loopback, "tinyset")
        assert done.returncode == 0, done.stderr
        assert len(clusters.digests(client)) == 1
        assert clusters.digests(client).items() <= clusters.digests(project).items()
    for store in map(loopback.store, ("client", *names)):
        done = client.done("cache", "verify", PATCHWHEEL_STORE=str(store))
        assert "no entry is damaged" in done.stderr


def forget_wheels(client: Project, loopback: Loopback, *names: str) -> None:
    """Let the next build make all wheels again."""
    kinds = ("wheels", "shared", "compiles")
    made = [loopback.store(name) / kind for name in ("client", *names) for kind in kinds]
    for folder in (client.root / "dist", loopback.folder / "shared", *made):
        shutil.rmtree(folder, ignore_errors=True)
    # The shared one has to be there.
    loopback.environment()
