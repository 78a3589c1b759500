"""What a worker does: builds a cell by `patchwheel build`, in processes that end with the task."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from patchwheel import __version__, kit
from patchwheel.build import detect_sandbox, toolchain
from patchwheel.remote import open_remote
from patchwheel.wheelfile import read_wheel

if TYPE_CHECKING:
    from distributed import Worker

# What a scheduler sees: plain values. A task has the words and variables of `patchwheel build`, the
# project's files, and what it asks of a worker: version, tools, level. A result has the exit
# status, and for 0 the sha256 of the wheel, which is in the shared store by then, and its route.
Data = dict[str, Any]
# The status of a task whose worker was killed.
LOST = -9
# Seconds in which a cancelled build may end by itself.
PATIENCE = 10
# What else is set on a worker would give another wheel.
SETTINGS = re.compile("PATCHWHEEL_(?!STORE|REMOTE|LIMIT_)")


def resources(tools: dict[str, str], level: str, memory: float) -> dict[str, float]:
    """Return what a worker has, or a task needs, in dask's words; of some programs."""
    names = [f"{n}-{tools[n][:16]}" for n in ("gcc", "g++", "gfortran") if n in tools]
    return {**dict.fromkeys([*names, f"level-{level}"], 1.0), "memory": memory}


def advertised(store: kit.Store) -> dict[str, float]:
    """Return the resources of a worker here; MachineError where none can work."""
    check_shares()
    names = [name for name in toolchain.VARIABLES if toolchain.find(name)]
    tools = {n: tool.identity for n, tool in toolchain.identify(names, store=store).items()}
    return resources(tools, detect_sandbox().level, kit.free_memory())


def check_shares() -> None:
    """Raise MachineError unless what is built here comes into a shared store."""
    remote = open_remote(lambda _: None, 1)
    if not (remote and remote.write):
        hint = "set PATCHWHEEL_REMOTE, and PATCHWHEEL_REMOTE_WRITE to the file of a key"
        raise kit.MachineError("a worker adds its wheels to a shared store, none is set", hint=hint)


def run_task(task: Data) -> Data:
    """Build a task's cell, unless a worker that began it was lost."""
    from distributed import get_worker
    from distributed.utils import sync

    worker = get_worker()
    key, ours, ask = worker.get_current_task(), {"worker": worker.address}, worker.scheduler
    if sync(worker.loop, ask.get_metadata, keys=[key], default=""):
        # dask gives it to another worker as often as its own settings say.
        return {**ours, "status": LOST}
    sync(worker.loop, ask.set_metadata, keys=[key], value=worker.address)
    try:
        return {**ours, **_build(task, Leash(worker, key))}
    except (kit.PatchwheelError, OSError) as err:
        error = kit.disk_error(err) if isinstance(err, OSError) else err
        if error is None:
            raise
        return {**ours, "status": error.exit_code, "message": str(error)}


def _build(task: Data, leash: Leash) -> Data:
    store = kit.Store(kit.default_root())
    _check(task, store)
    jobs = kit.job_count(int(os.environ.get("PATCHWHEEL_JOBS") or 0))
    jobs = max(1, jobs // 2) if task["again"] else jobs
    argv = [sys.executable, "-m", "patchwheel", "build", *task["words"], "--jobs", str(jobs)]
    env = {name: value for name, value in os.environ.items() if not SETTINGS.match(name)}
    with store.scratch() as folder:
        for name, data in task["project"].items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        log = folder / "cell.log"
        try:
            kit.process.logged(argv, cwd=folder, env=env | task["variables"], log=log, watch=leash)
        except kit.process.CommandError as err:
            said = log.read_text("utf-8", "replace").partition("\nerror: ")[2]
            return {"status": err.status, "message": said or "\n".join(err.tail)}
        [wheel] = (folder / "dist").rglob("*.whl")
        made = {"sha256": kit.file_sha256(wheel), "route": read_wheel(wheel).record.route}
        return {"status": 0, "message": log.read_text("utf-8", "replace"), **made}


def _check(task: Data, store: kit.Store) -> None:
    """Raise MachineError where the same task would give another wheel."""
    if task["version"] != __version__:
        hint = "install the same version on both"
        raise kit.MachineError(
            f"it has patchwheel {__version__}", expected=task["version"], hint=hint
        )
    check_shares()
    wanted = dict(task["tools"])
    # The lock pins a CUDA compiler that comes with the build requirements.
    python, _ = wanted.pop("python", None), wanted.pop("nvcc", None)
    tools = toolchain.identify(wanted, store=store)
    if python:
        path = kit.Context(store, kit.Progress(), python=task["python"]).interpreter.path
        tools["python"] = toolchain.identify_program("python", [str(path)], path, store=store)
    for name, tool in tools.items():
        if tool.identity != task["tools"][name]:
            hint = "build on workers that have the same toolchain"
            raise kit.MachineError(f"its {name} is another one: {tool.version}", hint=hint)
    level = detect_sandbox(task["sandbox"]).level
    if level != task["level"]:
        raise kit.MachineError(f"its sandbox has the level {level}", expected=task["level"])


class Leash(kit.Watch):
    """Ends what a task started when nobody waits for the task any more."""

    def __init__(self, worker: Worker, key: str) -> None:
        self.worker, self.key, self.ended = worker, key, 0.0

    def hear(self, size: int) -> None:
        """Whoever runs the steps limits what they say."""

    def check(self, pid: int) -> None:
        task = self.worker.state.tasks.get(self.key)
        alive = self.worker.status.name in {"running", "paused", "closing_gracefully"}
        if alive and task and task.state == "executing":
            return
        if not self.ended:
            # As with Ctrl-C, it ends what it started, and removes what it was writing.
            os.kill(pid, signal.SIGTERM)
            self.ended = time.monotonic()
        elif time.monotonic() - self.ended > PATIENCE:
            raise kit.MachineError("the task was cancelled")
