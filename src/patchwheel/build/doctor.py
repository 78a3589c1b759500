"""What this machine lacks, for each fork, and the command that gets it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from patchwheel import kit
from patchwheel.build import cuda, rocm, toolchain
from patchwheel.build.sandbox import detect_sandbox
from patchwheel.build.toolchain import CUDA, HIPCC, compilers
from patchwheel.manifest import Fork, Lock
from patchwheel.project import Project

# The first with `git merge-tree --write-tree`.
OLDEST_GIT = (2, 38)
# Sources, environments and wheels of four forks: SciPy's build folder and CUDA's wheels are large.
DISK_GRAFT, DISK_COMPILE = 2_000_000_000, 10_000_000_000
# Where a distribution forbids user namespaces to programs that it does not know.
APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, and the command that mends it, if it is not well."""

    what: str
    detail: str
    fix: str = ""
    _: KW_ONLY
    # None for all forks.
    fork: str | None = None
    # Whether the next build fails without it; else only others do, or something is weaker.
    needed: bool = False

    @property
    def ok(self) -> bool:
        return not self.fix


def diagnose(
    project: Project, names: Collection[str], uses: Mapping[str, Fork | None]
) -> list[Finding]:
    """Look at all that a build of the named forks may need; never raises for what is missing.

    `uses` has each fork as its next build compiles it, None for one that compiles nothing.
    """
    findings = [_git(), *_pythons(project), _sandbox(), _disk(project.store.root), _memory()]
    # Before the first lock, too, it tells what locking needs.
    lock = project.lock if project.manifest.lock_path.exists() else None
    for name, fork in project.manifest.forks.items():
        if name in names or not names:
            findings += _fork(fork, lock, uses)
    return findings


def _git() -> Finding:
    fix = toolchain.install_command(["git"])
    try:
        out = kit.process.capture(["git", "--version"], cwd=Path("/"), env=kit.process.base_env())
    except kit.PatchwheelError:
        return Finding("git", "not found", fix, needed=True)
    text = out.decode().strip()
    if tuple(int(n) for n in re.findall(r"\d+", text)[:2]) >= OLDEST_GIT:
        return Finding("git", text, needed=True)
    oldest = ".".join(map(str, OLDEST_GIT))
    return Finding("git", f"{text}, and {oldest} is needed", fix, needed=True)


def _pythons(project: Project) -> Iterator[Finding]:
    for wanted in project.manifest.environment.python:
        needed = wanted == project.python

        def find(wanted: str = wanted, needed: bool = needed) -> str:  # noqa: FBT001
            python = kit.find_interpreter(wanted, progress=kit.Progress(), install=needed)
            return f"{python.version} at {python.path}"

        yield _look(f"Python {wanted}", find, needed=needed)


def _sandbox() -> Finding:
    level = detect_sandbox("auto").level
    if level == "bwrap":
        return Finding("sandbox", "bubblewrap: no network, no writes elsewhere")
    weaker = "only the network is cut" if level == "unshare" else "compiles run as you"
    if shutil.which("bwrap") is None:
        fix = toolchain.install_command(["bwrap"])
    elif APPARMOR.exists() and APPARMOR.read_text().strip() == "1":
        fix = f"sudo sysctl {'.'.join(APPARMOR.parts[3:])}=0"
    else:
        fix = "allow user namespaces; a container needs --security-opt seccomp=unconfined"
    return Finding("sandbox", f"no bubblewrap: {weaker}", fix)


def _disk(store: Path) -> Finding:
    place = next(path for path in (store, *store.parents) if path.exists())
    free = shutil.disk_usage(place).free
    detail = f"{free / 1e9:.1f} GB free at {place}"
    if free >= DISK_COMPILE:
        return Finding("disk", detail)
    graft, compiled = (f"{size / 1e9:.0f}" for size in (DISK_GRAFT, DISK_COMPILE))
    detail += f"; a graft takes up to {graft}, a compile of all {compiled}"
    fix = "patchwheel cache prune, or set PATCHWHEEL_STORE to a folder on a larger disk"
    return Finding("disk", detail, fix, needed=free < DISK_GRAFT)


def _memory() -> Finding:
    cores, jobs, free = len(os.sched_getaffinity(0)), kit.job_count(None), kit.free_memory()
    detail = f"{free / 1e9:.1f} GB free: {jobs} of {cores} cores will compile at once"
    fix = "" if free >= kit.MEMORY_PER_JOB else "close something, or compile with -j 1"
    return Finding("memory", detail, fix)


def _fork(fork: Fork, lock: Lock | None, uses: Mapping[str, Fork | None]) -> Iterator[Finding]:
    used = uses.get(fork.name)
    wanted = compilers(used) if used else ()
    for name in compilers(fork):
        found, needed = toolchain.find(name), name in wanted
        why = "the next build" if needed else "only a build that compiles"
        detail = str(found[1]) if found else f"not found; {why} needs it"
        fix = "" if found else toolchain.install_command([name])
        yield Finding(name, detail, fix, fork=fork.name, needed=needed)
    if CUDA in fork.programs:
        yield _cuda(fork, lock, needed=used is not None)
    if fork.crates:
        yield _look("crates", lambda: toolchain.crates(fork), fork=fork.name, needed=bool(used))
    if HIPCC in fork.programs:
        yield from _rocm(fork, needed=used is not None or fork.name not in uses)


def _cuda(fork: Fork, lock: Lock | None, *, needed: bool) -> Finding:
    builds = lock.forks[fork.name].builds if lock and fork.name in lock.forks else {}
    locked = [d.name for build in builds.values() for d in build.build_requires]
    if cuda.COMPILER in locked:
        return Finding("CUDA toolkit", "from the CUDA wheels in forks.lock", fork=fork.name)
    return _look("CUDA toolkit", cuda.complete_toolkit, fork=fork.name, needed=needed)


def _rocm(fork: Fork, *, needed: bool) -> Iterator[Finding]:
    """Find what the project is configured against, for a graft as for a compile."""
    for piece, lacks in rocm.missing_parts(rocm.home(fork)).items():
        detail, fix = str(rocm.home(fork)), ""
        if lacks:
            detail += f" lacks {', '.join(lacks)}"
            fix = toolchain.install_command([f"{piece}-dev"])
        yield Finding(f"ROCm {piece}", detail, fix, fork=fork.name, needed=needed)
    yield _look(rocm.TARGET, lambda: rocm.target(fork), fork=fork.name, needed=needed)


def _look(
    what: str, find: Callable[[], object], *, fork: str | None = None, needed: bool = False
) -> Finding:
    """Look as a build does; what it would say is the finding."""
    try:
        return Finding(what, str(find()), fork=fork, needed=needed)
    except kit.PatchwheelError as err:
        detail = f"{err.where}: {err.message}" if err.where else err.message
        return Finding(what, detail, err.hint or "see the message", fork=fork, needed=needed)
