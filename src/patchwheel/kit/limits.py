"""What a build step may use, the watch over one, and how many run at once."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from patchwheel.kit import process
from patchwheel.kit.errors import BuildError, MachineError, ManifestError, PatchwheelError
from patchwheel.kit.files import rmtree

# In which file of a control group the kernel counts how often it held a bound.
HELD = {"memory": ("memory.events", "oom_kill"), "processes": ("pids.events", "max")}
# What sets each limit starts with it.
VARIABLE = "PATCHWHEEL_LIMIT_"
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "MB": 10**6, "GB": 10**9, "TB": 10**12}
PAGE, TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
# Where a sandbox keeps files in memory.
MEMORY_FOLDERS = ("tmp", "dev")
PROBLEMS = {
    "log": "its output has more than {:,} MB",
    "time": "it takes longer than {:,} s",
    "silence": "it has said nothing for {:,} s",
    "processes": "it has more than {:,} processes at once",
    "memory": "it uses more than {:,} MB of memory",
    "disk": "it uses more than {:,} MB of disk",
}
# Seconds between two looks at the processes, and at least between two at the disk.
EVERY, DISK_EVERY = 0.5, 2.0
# A look at a large folder takes long: no more than this share of the time.
DISK_SHARE = 0.05
# Libraries start a thread for each core.
THREADS = 16
# Peak of the heaviest template instantiations; more jobs than memory allows end in the OOM killer.
MEMORY_PER_JOB = 1_500_000_000
# Seconds between two looks at slots that nobody uses, and how many bytes a FIFO holds.
LOOK, FIFO = 0.05, 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds, bytes and processes of a build step, `disk` its folder's.

    `download` and `remote`, one answer of a shared store, are of no step.
    """

    time: int = 6 * 3600
    silence: int = 3600
    log: int = 100 * 10**6
    disk: int = 20 * 10**9
    download: int = 3600
    remote: int = 120
    memory: int = field(default_factory=lambda: os.sysconf("SC_PHYS_PAGES") * PAGE // 10 * 9)
    processes: int = field(default_factory=lambda: max(1000, 8 * (os.cpu_count() or 1)))


def load_limits(environ: Mapping[str, str]) -> Limits:
    """Return the defaults, changed by the variables; ManifestError for what is no amount."""
    given = {}
    for name in [row.name for row in fields(Limits)]:
        variable = VARIABLE + name.upper()
        text = environ.get(variable, "").strip()
        match = re.fullmatch(r"([1-9]\d{0,8}) ?(s|m|h|d|MB|GB|TB)?", text)
        if match:
            given[name] = int(match[1]) * UNITS[match[2] or ""]
        elif text:
            expected = "a number, with s, m, h, d, MB, GB or TB behind it"
            raise ManifestError(f"{variable} is {text!r}", expected=expected)
    return Limits(**given)


class StoppedError(BuildError):
    """A build was ended because another one failed, or the user ended the run."""


class Jobs:
    """The job slots of a run: of all its builds, no more than `total` jobs run at once.

    A command holds one slot. More are offered to each through a FIFO of its own, as GNU make's
    jobserver does it: whatever a build takes, loses or makes up there, it does to no other.
    """

    def __init__(self, total: int) -> None:
        self.total = self.free = total
        # Set to end all commands, and to let none begin.
        self.stopped = False
        self._lock = threading.Lock()
        # How many slots were put into each FIFO, and not taken back; the first is offered to first.
        self._given: dict[int, int] = {}
        self._waiting: list[object] = []
        self._held, self._next = 0, 0.0

    @contextlib.contextmanager
    def take(self, most: int = 1) -> Iterator[int]:
        """Wait for a slot, and hold it; give how many: up to `most`, as far as others want none."""
        me = object()
        self._waiting.append(me)
        try:
            while not (taken := self._take(me, most)):
                # Woken when a command gives one back, before it can take it again.
                poll = select.poll()
                for end in [*self._given]:
                    poll.register(end, select.POLLIN)
                poll.poll(LOOK * 1000)
        finally:
            self._waiting.remove(me)
        try:
            yield taken
        finally:
            with self._lock:
                self.free += taken
                self._held -= 1

    @contextlib.contextmanager
    def serve(self, fifo: Path, inside: Path) -> Iterator[dict[str, str]]:
        """Take a slot for a command; give the variable that offers it more, by a new FIFO."""
        with self.take():
            os.mkfifo(fifo, 0o600)
            end = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
            with self._lock:
                self._given[end], self._next = 0, 0.0
            try:
                self.balance()
                # Behind `--`, where ninja reads on, and a make older than 4.4 does not stop at it.
                yield {"MAKEFLAGS": f"-- --jobserver-auth=fifo:{inside}"}
            finally:
                with self._lock:
                    self.free += self._given.pop(end)
                os.close(end)
                rmtree(fifo)

    def balance(self) -> None:
        """Offer slots that nobody uses, in turn; called often while a command runs or waits."""
        if self.stopped:
            raise StoppedError("the build was ended before its time")
        with self._lock:
            if time.monotonic() < self._next or not self._given or self._waiting:
                return
            self._next = time.monotonic() + LOOK
            # Only one can take them: what it leaves now it may want when its next job ends.
            if len(self._given) > 1:
                self._collect()
            for end in itertools.islice(itertools.cycle([*self._given]), self.free):
                # One that a build filled up itself takes no more.
                with contextlib.suppress(BlockingIOError):
                    os.write(end, b"+")
                    self._given[end] += 1
                    self.free -= 1
            first = next(iter(self._given))
            self._given[first] = self._given.pop(first)

    def _take(self, me: object, most: int) -> int:
        self.balance()
        with self._lock:
            first = self._waiting[0] is me
            if first and not self.free:
                self._collect()
            share = max(1, self.total // (self._held + len(self._waiting)))
            taken = min(self.free, most, share) if first else 0
            self.free -= taken
            self._held += bool(taken)
            return taken

    def _collect(self) -> None:
        """Take back what commands leave unused; what one made up is not counted."""
        for end, given in self._given.items():
            with contextlib.suppress(BlockingIOError):
                unused = min(given, len(os.read(end, FIFO)))
                self._given[end] -= unused
                self.free += unused


def job_count(jobs: int | None) -> int:
    """Return how many jobs may run: as asked for, else by cores; never more than memory allows."""
    wanted = jobs or len(os.sched_getaffinity(0))
    return max(1, min(wanted, free_memory() // MEMORY_PER_JOB))


def free_memory() -> int:
    """Return how many bytes of memory are free."""
    text = Path("/proc/meminfo").read_text()
    match = re.search(r"MemAvailable:\s+(\d+) kB", text)
    assert match  # noqa: S101  (in every Linux since 3.14)
    return int(match[1]) * 1024


class Watch:
    """Ends a step that goes beyond a limit: BuildError, MachineError for memory and disk.

    `folder` is what it writes to. `check` is called several times a second, and balances `jobs`.
    """

    def __init__(self, name: str, limits: Limits, folder: Path) -> None:
        self.name, self.limits, self.folder = name, limits, folder
        self.jobs: Jobs | None = None
        self.start = self.heard = time.monotonic()
        self.next = self.next_disk = self.start + EVERY
        self.logged, self.cpu = 0, 0.0

    @contextlib.contextmanager
    def contain(self) -> Iterator[Sequence[str]]:
        """Give what the command begins with where the kernel can hold its bounds as well."""
        bounds = {"memory.max": self.limits.memory, "memory.swap.max": 0, "memory.oom.group": 1}
        bounds["pids.max"] = self.limits.processes * THREADS
        with process.control_group(bounds) as group:
            try:
                yield process.joining(group) if group else ()
            except process.CommandError as err:
                for name, (file, key) in HELD.items():
                    counted = (group / file).read_text() if group else ""
                    if re.search(rf"^{key} [1-9]", counted, re.MULTILINE):
                        error = self._error(name)
                        error.log, error.tail = err.log, err.tail
                        raise error from err
                raise

    def hear(self, size: int) -> None:
        """Count output."""
        self.heard = time.monotonic()
        self.logged += size
        self._bound("log", self.logged)

    def check(self, pid: int) -> None:
        """Look at the processes below `pid`, at most every EVERY seconds, and at the folder."""
        now = time.monotonic()
        if self.jobs:
            self.jobs.balance()
        if now < self.next:
            return
        self.next = now + EVERY
        self._bound("time", now - self.start)
        self._bound("silence", now - self.heard)
        found = _below(pid)
        threads = sum(row.threads for row in found.values())
        # Of those that ended, too: the kernel adds theirs to their parents'.
        self.cpu = max(self.cpu, sum(row.ticks for row in found.values()) / TICKS)
        many = max(len(found), threads / THREADS)
        self._bound("processes", many)
        used = _memory(found, self.limits.memory)
        self._bound("memory", used)
        if now > self.next_disk:
            self._bound("disk", _disk(self.folder))
            took = time.monotonic() - now
            self.next_disk = now + max(DISK_EVERY, took / DISK_SHARE)

    def _bound(self, name: str, value: float) -> None:
        if value > getattr(self.limits, name):
            raise self._error(name)

    def _error(self, name: str) -> PatchwheelError:
        kind = MachineError if name in {"memory", "disk"} else BuildError
        limit, problem = getattr(self.limits, name), PROBLEMS[name]
        told = problem.format(limit // 10**6 if " MB" in problem else limit)
        hint = f"see the log; a build that needs more: set {VARIABLE}{name.upper()}"
        return kind(f"{self.name}: the build was ended: {told}", hint=hint)


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    threads: int
    resident: int
    ticks: int


def _below(pid: int) -> dict[int, _Process]:
    """Return the processes that descend from `pid`, with it."""
    known: dict[int, _Process] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                with open(f"{entry.path}/stat", "rb") as stream:  # noqa: PTH123  (they are many)
                    # The name before the bracket may hold anything.
                    row = stream.read().rpartition(b")")[2].split()
                ticks = sum(map(int, row[11:15]))
                found = _Process(int(row[1]), int(row[17]), int(row[21]), ticks)
                known[int(entry.name)] = found
                children[found.parent].append(int(entry.name))
    tree, waiting = {}, [pid]
    while waiting:
        if (one := waiting.pop()) in known:
            tree[one] = known[one]
            waiting += children[one]
    return tree


def _memory(found: Mapping[int, _Process], limit: int) -> int:
    """Return the bytes that processes use, with what the sandbox keeps in memory for files."""
    used = sum(row.resident for row in found.values()) * PAGE
    if used > limit:
        # Shared pages were counted for each.
        used = sum(_share(pid, row) for pid, row in found.items())
    # The outer process of a sandbox sees the host's folders, and ids do not tell which it is.
    counted = {Path("/", place).stat().st_dev for place in MEMORY_FOLDERS}
    for pid, place in itertools.product(found, MEMORY_FOLDERS):
        with contextlib.suppress(OSError):
            inside = Path(f"/proc/{pid}/root/{place}")
            if (device := inside.stat().st_dev) not in counted:
                counted.add(device)
                state = os.statvfs(inside)
                used += (state.f_blocks - state.f_bfree) * state.f_frsize
    return used


def _share(pid: int, row: _Process) -> int:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        if match := re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE):
            return int(match[1]) * 1024
    return row.resident * PAGE


def _disk(folder: Path) -> int:
    # du goes into folders of any depth.
    argv: list[str | Path] = ["du", "-sxB1", "--", folder]
    out = process.capture(argv, cwd=folder, env=process.base_env(), ok=(0, 1))
    return int(out.splitlines()[-1].split()[0]) if out else 0
