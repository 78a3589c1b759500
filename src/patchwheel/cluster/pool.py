"""The pool of a cluster: cells as tasks of dask.distributed, and what comes back, checked."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from patchwheel import __version__, kit
from patchwheel.build import required_variables
from patchwheel.cluster.worker import LOST, Data, resources, run_task
from patchwheel.plan import Plan, plan_fork
from patchwheel.remote import is_loopback
from patchwheel.wheel import KIND, BuiltWheel, Made, take_shared

if TYPE_CHECKING:
    from distributed import Client, Future

    from patchwheel.project import Project

# Seconds to connect, between two looks, and until there has to be a worker, and one that fits.
CONNECT, EVERY, NONE, UNFIT = 10, 0.5, 30, 3
WAITING = "{}: waiting for a worker"


def scheduler_address(place: str) -> str:
    """Return the address of a scheduler, which is given by it or by its scheduler file."""
    if "://" in place:
        return check_address(place)
    try:
        return check_address(str(json.loads(Path(place).read_bytes())["address"]))
    except (OSError, ValueError, KeyError, TypeError) as err:
        expected = "tls://HOST:PORT, tcp://127.0.0.1:PORT, or the file that a scheduler wrote"
        hint = f"start one: `patchwheel cluster scheduler {place}`"
        problem = f"is no scheduler file: {err!r}"
        raise kit.InputError(problem, where=place, expected=expected, hint=hint) from err


def check_address(address: str) -> str:
    """Return an address that only those reach who may run code: dask runs what it is sent.

    Raises ManifestError for another, MachineError without dask.
    """
    try:
        import dask.config
        import distributed  # noqa: F401  (which adds its settings)
    except ImportError as err:
        hint = "install patchwheel[cluster]"
        raise kit.MachineError(f"a cluster needs dask.distributed: {err}", hint=hint) from err
    parts, problem = urlsplit(address), "whoever reaches this address could run code there"
    if parts.scheme == "tls" and not dask.config.get("distributed.comm.tls.ca-file"):
        problem = "no certificates are named for it"
    elif parts.scheme == "tls" or (parts.scheme == "tcp" and is_loopback(parts.hostname)):
        return address
    expected = "tls://, or tcp:// on the loopback of this machine"
    hint = "docs/how-to/cluster.md says how to make and name certificates"
    raise kit.ManifestError(problem, where=address, expected=expected, hint=hint)


@contextlib.contextmanager
def open_cluster(place: str, project: Project) -> Iterator[Cluster]:
    """Connect to a scheduler; at the end, however it comes, workers end what is not done."""
    address = scheduler_address(place)
    if not project.remote:
        hint = "set PATCHWHEEL_REMOTE; docs/how-to/cluster.md says how"
        raise kit.ManifestError("a cluster hands its wheels over in a shared store", hint=hint)
    from distributed import Client, Security

    # What becomes of a task is said by us.
    for name in [*logging.root.manager.loggerDict]:
        if name.startswith("distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    security = Security(require_encryption=address.startswith("tls:"))
    try:
        client = Client(address, timeout=CONNECT, security=security, set_as_default=False)
    except (OSError, ValueError) as err:
        hint = "start one: `patchwheel cluster scheduler FILE`"
        raise kit.MachineError(f"no scheduler answers: {err}", where=address, hint=hint) from err
    with client:
        # One that listens to every network names an address of those.
        check_address(client.scheduler_info()["address"])
        cluster = Cluster(client, project.progress)
        try:
            yield cluster
        finally:
            cluster.cancel()


class Cluster:
    """Tasks on a cluster, by three calls: `submit`, `wait`, `cancel`; `build` makes wheels so."""

    def __init__(self, client: Client, progress: kit.Progress) -> None:
        self.client, self.progress, self.run = client, progress, secrets.token_hex(8)
        self.futures: dict[str, Future] = {}
        # The workers that each task of ours may be on.
        self.out, self.freed = list[dict[str, int]](), threading.Condition()

    def build(self, project: Project, plan: Plan, made: Made) -> BuiltWheel | None:
        """Return a plan's wheel as a worker made it; None where it is here, or a second's work."""
        known = plan.node_key and project.store.find(KIND, plan.node_key)
        if plan.shared_as is None or known:
            return None
        task = make_task(project, plan)
        cell, balance = task["cell"], project.context.pool.balance
        with self._turn(task, balance):
            result = self.wait(self.submit(task), task, balance)
            if result["status"] < 0:
                self.progress.say(f"{cell}: its worker was lost; once more, with half the jobs")
                task["again"] = True
                result = self.wait(self.submit(task), task, balance)
        where, status = result["worker"], result["status"]
        if status < 0:
            hint = "look at the memory of the workers; `--jobs` of a worker sets its compilers"
            raise kit.MachineError(f"{cell}: its worker was lost twice", where=where, hint=hint)
        if status:
            kinds = [k for k in kit.PatchwheelError.__subclasses__() if k.exit_code == status != 1]
            raise [*kinds, kit.PatchwheelError][0](
                f"{cell}: {result['message'].strip()}", where=where
            )
        if plan.route == "graft" and result["route"] == "compile":
            plan = plan_fork(project, plan.fork, refused="as the worker found", made=made)
        wheel = take_shared(project, plan)
        if wheel is None or wheel.sha256 != result["sha256"]:
            there = f"a wheel with the sha256 {wheel.sha256}" if wheel else "no such wheel"
            raise kit.CheckError(
                f"{cell}: the shared store gives {there}",
                where=where,
                expected=f"the sha256 {result['sha256']}, which this worker says that it added",
                hint="see whether it writes to this store, with a key in PATCHWHEEL_REMOTE_TRUST",
                tail=result["message"].splitlines()[-5:],
            )
        return wheel

    def submit(self, task: Data) -> str:
        """Hand a task out, and return its key."""
        key, needs = f"{task['cell']}-{self.run}{'-again' * task['again']}", _needs(task)
        self.futures[key] = self.client.submit(run_task, task, key=key, resources=needs, retries=0)
        return key

    def cancel(self) -> None:
        """End all tasks, and what they started."""
        with contextlib.suppress(OSError):
            self.client.cancel([*self.futures.values()])

    def wait(self, key: str, task: Data, check: Callable[[], None]) -> Data:
        """Return what becomes of a task; MachineError if nothing can, or what `check` raises."""
        from distributed import CancelledError, KilledWorker

        cell, future, needs = task["cell"], self.futures[key], _needs(task)
        where, fitted, error = "", time.monotonic(), None
        # What is asked of a scheduler just as it goes is closed, or gets no connection.
        with contextlib.suppress(CancelledError, OSError), contextlib.ExitStack() as waiting:
            waiting.enter_context(self.progress.step(WAITING.format(cell), brief=True))
            while self.client.status == "running" and not future.done():
                with contextlib.suppress(TimeoutError):
                    error = future.exception(timeout=EVERY)
                check()
                fitted = self._fits(cell, needs, fitted)
                if not where and (where := self.client.get_metadata([key], default="")):
                    waiting.close()
                    self.progress.say(f"{cell}: on {where}")
            error = error or (future.exception() if future.status == "error" else None)
        if not error and future.status != "finished":
            hint = "start it again, and run the command again: what was built is in the store"
            raise kit.MachineError(f"{cell}: the scheduler is gone", hint=hint)
        if isinstance(error, KilledWorker):
            return {"status": LOST, "worker": where}
        if error:
            hint = f"see its log; it has to have patchwheel[cluster] {__version__}, as here"
            raise kit.MachineError(f"{cell}: the worker failed: {error!r}", hint=hint)
        result: Data = future.result()
        return result

    @contextlib.contextmanager
    def _turn(self, task: Data, check: Callable[[], None]) -> Iterator[None]:
        """Wait until fewer tasks of ours are out than the workers for this one can have at once.

        dask gives a task to a worker as it is submitted, and does not know how long each will take.
        """
        with self.progress.step(WAITING.format(task["cell"]), brief=True):
            while True:
                fit = {w: n for w, lacks, n in self._workers(_needs(task)) if not lacks}
                with self.freed:
                    ahead = sum(not fit.keys().isdisjoint(other) for other in self.out)
                    # Without one that fits, it is for `wait` to say so.
                    if not fit or ahead < sum(fit.values()):
                        self.out.append(fit)
                        break
                    self.freed.wait(EVERY)
                check()
        try:
            yield
        finally:
            with self.freed:
                self.out.remove(fit)
                self.freed.notify_all()

    def _workers(self, needs: dict[str, float]) -> list[tuple[str, list[str], int]]:
        """Return the address of each worker, what it lacks, and its number of threads."""
        workers: dict[str, Data] = {}
        # A scheduler that is gone has none.
        with contextlib.suppress(OSError, KeyError):
            workers = self.client.scheduler_info(n_workers=-1)["workers"]
        rows = []
        for where, has in workers.items():
            lacks = [n for n, least in needs.items() if has["resources"].get(n, 0) < least]
            rows.append((where, lacks, has["nthreads"]))
        return rows

    def _fits(self, cell: str, needs: dict[str, float], last: float) -> float:
        """Return when a worker could last have a task; MachineError where that is too long ago."""
        lacks = {where: names for where, names, _ in self._workers(needs)}
        if not all(lacks.values()):
            return time.monotonic()
        if time.monotonic() - last > (UNFIT if lacks else NONE):
            rows = "; ".join(f"{where} lacks {', '.join(names)}" for where, names in lacks.items())
            hint = "start one with this toolchain and sandbox: `patchwheel cluster worker FILE`"
            problem = f"{cell}: no worker can build it: {rows or 'there is none'}"
            raise kit.MachineError(problem, hint=hint)
        return last


def _needs(task: Data) -> dict[str, float]:
    return resources(task["tools"], task["level"], kit.MEMORY_PER_JOB)


def make_task(project: Project, plan: Plan) -> Data:
    """Return the cell of a plan as data."""
    fork, tools = plan.fork, dict[str, str]()
    # Who has no compiler takes a wheel of any.
    with contextlib.suppress(kit.MachineError):
        tools = {n: tool.identity for n, tool in plan.inputs.tools.items()} if plan.inputs else {}
    with project.store.scratch() as folder:
        project.copy_to(folder)
        paths = [path for path in folder.rglob("*") if path.is_file()]
        files = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    words = [fork.name, "--manifest", project.manifest.path.name, "--python", project.python]
    words += ["--sandbox", project.sandbox, *(["--variant", fork.variant] if fork.variant else [])]
    flags = {"--from-source": project.from_source, "--without-patches": project.without_patches}
    return {
        "cell": "-".join(filter(None, (fork.name, project.python, fork.variant))),
        "version": __version__,
        "words": [*words, *(flag for flag, given in flags.items() if given)],
        "variables": required_variables(fork),
        "project": files,
        "python": project.python,
        "tools": tools,
        "level": plan.sandbox or "bwrap",
        "sandbox": project.sandbox,
        "again": False,
    }
