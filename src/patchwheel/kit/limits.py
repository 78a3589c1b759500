"""What a build step may use, set by PATCHWHEEL_LIMIT_… variables, and the watch over one."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Never, TypeVar

from patchwheel.kit import process
from patchwheel.kit.errors import BuildError, MachineError, ManifestError

T = TypeVar("T")

VARIABLE = "PATCHWHEEL_LIMIT_"
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "MB": 10**6, "GB": 10**9, "TB": 10**12}
PAGE, TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
# Where a sandbox keeps files in memory.
MEMORY_FOLDERS = ("tmp", "dev")
# Seconds between two looks at the processes, and at least between two at the disk.
EVERY, DISK_EVERY = 0.5, 2.0
# A look at a large folder takes long: no more than this share of the time.
DISK_SHARE = 0.05
# Libraries start a thread for each core.
THREADS = 16


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


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return what a call returns; TimeoutError when it takes longer, and nobody waits for it."""
    return process.started(call)(seconds)


class Watch:
    """Ends a step that goes beyond a limit: BuildError, MachineError for memory and disk.

    `folders` are what it writes to. `check` is called several times a second.
    """

    def __init__(self, name: str, limits: Limits, folders: Sequence[Path]) -> None:
        self.name, self.limits, self.folders = name, limits, folders
        self.start = self.heard = time.monotonic()
        self.next = self.next_disk = self.start + EVERY
        self.logged, self.cpu = 0, 0.0

    def hear(self, size: int) -> None:
        """Count output."""
        self.heard = time.monotonic()
        self.logged += size
        if self.logged > self.limits.log:
            self._end("log", "its output has more than {:,} MB", self.limits.log // 10**6)

    def check(self, pid: int) -> None:
        """Look at the processes below `pid`, at most every EVERY seconds, and at the folder."""
        now, limits = time.monotonic(), self.limits
        if now < self.next:
            return
        self.next = now + EVERY
        if now - self.start > limits.time:
            self._end("time", "it takes longer than {:,} s", limits.time)
        if now - self.heard > limits.silence:
            self._end("silence", "it has said nothing for {:,} s", limits.silence)
        found = _below(pid)
        threads = sum(row.threads for row in found.values())
        # Of those that ended, too: the kernel adds theirs to their parents'.
        self.cpu = max(self.cpu, sum(row.ticks for row in found.values()) / TICKS)
        if len(found) > limits.processes or threads > limits.processes * THREADS:
            self._end("processes", "it has more than {:,} processes at once", limits.processes)
        if _memory(found, limits.memory) > limits.memory:
            self._end("memory", "it uses more than {:,} MB of memory", limits.memory // 10**6)
        if now > self.next_disk and _disk(self.folders) > limits.disk:
            self._end("disk", "it uses more than {:,} MB of disk", limits.disk // 10**6)
        if now > self.next_disk:
            took = time.monotonic() - now
            self.next_disk = now + max(DISK_EVERY, took / DISK_SHARE)

    def _end(self, name: str, problem: str, limit: int) -> Never:
        error = MachineError if name in {"memory", "disk"} else BuildError
        message = f"{self.name}: the build was ended: {problem.format(limit)}"
        hint = f"see the log; a build that needs more: set {VARIABLE}{name.upper()}"
        raise error(message, hint=hint)


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
                # The name before the bracket may hold anything.
                row = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()
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


def _disk(folders: Sequence[Path]) -> int:
    # du goes into folders of any depth.
    argv: list[str | Path] = ["du", "-scxB1", "--", *folders]
    out = process.capture(argv, cwd=folders[0], env=process.base_env(), ok=(0, 1))
    return int(out.splitlines()[-1].split()[0]) if out else 0
