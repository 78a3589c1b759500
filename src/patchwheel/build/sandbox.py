"""Where build steps run: no network, no host writes, no secrets, killed with us.

There are three levels, recorded in every wheel. `bwrap` holds all four promises, `unshare` cuts the
network and ends what a build started, `none` promises nothing. The environment of a step is exactly
the one handed in, with PWD.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from patchwheel.kit import BuildError, Jobs, Limits, MachineError, Watch, process, rmtree

if TYPE_CHECKING:
    from patchwheel.kit import SandboxMode, Store

SandboxLevel = Literal["bwrap", "unshare", "none"]

# What is said of each level once a run.
PROMISES: dict[SandboxLevel, str] = {
    "bwrap": "bwrap (builds reach neither network nor files of yours)",
    "unshare": "unshare (no bubblewrap works here: builds have no network, but reach your files)",
    "none": "none (builds reach network and files, and may leave processes behind)",
}
INSIDE = Path("/build")
# At the end of standard input, when we are gone, ends all processes of a sandbox, which sees no
# others. While one is being made, nothing else would end it.
GUARD = """
exec 3<&0 </dev/null
( (read -r _ <&3; for _ in 1 2 3 4 5; do kill -s KILL -- -1; sleep 0.1; done) >/dev/null 2>&1 & )
"$@" 3<&-
exit
"""
# What a build ran last, beside its folders.
STEP = "step.json"
SYSTEM_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# `cc` is a link through /etc/alternatives, libraries are found through ld.so.*, and auditwheel asks
# the package manager where a library that it bundles comes from.
SYSTEM_FILES = shlex.split("""
    /etc/alternatives /etc/ld.so.cache /etc/ld.so.conf /etc/ld.so.conf.d
    /etc/os-release /var/lib/dpkg /var/lib/rpm
""")
# What a home folder keeps for programs, secrets included.
PRIVATE = ("", ".local/share", ".config", ".cache", ".ssh", ".gnupg")
# keyctl's number, which most kinds of machine share, and the operation.
KEYCTL = {"x86_64": 250, "ppc64le": 271, "s390x": 280}.get(os.uname().machine, 219)
JOIN_SESSION_KEYRING = (KEYCTL, 1)
# Settings of the running kernel, which a build started by root could change.
KERNEL = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/acpi")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    level: SandboxLevel
    program: Path | None = None

    def wrap(
        self, argv: Sequence[str | Path], *, cwd: Path, mounts: Sequence[Mount] = ()
    ) -> list[str]:
        """Return the command that runs `argv` contained; only bwrap heeds `mounts` and `cwd`."""
        args = [os.fspath(arg) for arg in argv]
        match self.level:
            case "bwrap":
                return [*self._bwrap(), *_mounted(mounts), "--chdir", str(cwd), *args]
            case "unshare":
                user = ["--map-current-user"] if os.getuid() else []
                # Processes of its own, which end with it: a build leaves no daemon.
                alone = ["--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
                return [str(self.program), *user, *alone, "--", *args]
            case "none":
                return args

    def _bwrap(self) -> list[str]:
        argv = [str(self.program), "--unshare-all", "--unshare-user"]
        argv += ["--die-with-parent", "--new-session", "--hostname", "localhost"]
        argv += ["--uid", "1000", "--gid", "1000", "--cap-drop", "ALL"]
        argv += ["--ro-bind", "/usr", "/usr"]
        for name in SYSTEM_LINKS:
            if Path(name).is_symlink():
                argv += ["--symlink", str(Path(name).readlink()), name]
            elif Path(name).exists():
                argv += ["--ro-bind", name, name]
        for name in SYSTEM_FILES:
            argv += ["--ro-bind-try", name, name]
        argv += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108
        for name in KERNEL:
            argv += ["--ro-bind-try", name, name]
        return argv


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A folder of the host that a step sees at `inside`."""

    host: Path
    inside: Path
    write: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildDir:
    """One build's folders in `root`: steps see `work` as `inside`, and `env` as `env_inside`.

    Steps may write everywhere in `work`: the host writes there before the first step only, and
    reads by `read_untrusted`. What it hands to later steps goes to `scripts`, which they only read.
    """

    name: str
    sandbox: Sandbox
    root: Path
    env: Path
    limits: Limits = field(default_factory=Limits)
    # What is balanced while a step runs.
    jobs: Jobs | None = None
    # What steps see at its own path, and the entries of the compile cache.
    read: Sequence[Path] = ()
    cache: Path | None = None
    keep: bool = False

    def __post_init__(self) -> None:
        for path in self.read:
            _check_private(path)

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def scripts(self) -> Path:
        return self.root / "scripts"

    @property
    def inside(self) -> Path:
        return INSIDE if self.sandbox.level == "bwrap" else self.work

    @property
    def env_inside(self) -> Path:
        return self.path_inside(self.env)

    def path_inside(self, host: Path) -> Path:
        """Return the path at which steps see a path of the host."""
        for mount in reversed(self._mounts()) if self.sandbox.level == "bwrap" else ():
            if host.is_relative_to(mount.host):
                return mount.inside / host.relative_to(mount.host)
        return host

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path,
        env: Mapping[str, str],
        log: Path,
        on_line: Callable[[str], None] | None = None,
        on_end: Callable[[float], object] | None = None,
    ) -> None:
        """Run a step in `cwd`, a folder below `work`; `on_end` gets its seconds of CPU.

        Raises CommandError, and BuildError or MachineError for one that goes beyond a limit.
        """
        if self.keep:
            self._note(argv, cwd, env)
        guard = ["/bin/sh", "-c", GUARD, "sh", *process.AS_GIVEN]
        guard = guard if self.sandbox.level != "none" else []
        argv = self.wrapped([*guard, *argv], cwd=cwd)
        watch = Watch(self.name, self.limits, self.work)
        watch.jobs = self.jobs
        if self.sandbox.level == "bwrap":
            cwd = self.scripts
        elif cwd.is_symlink() or not cwd.is_dir():
            raise BuildError(f"{self.name}: its build removed the folder {cwd.name}", log=log)
        try:
            # If a leash killed bubblewrap while it begins, its other half would wait for ever.
            how = {"guarded": bool(guard), "leash": self.sandbox.level != "bwrap"}
            with watch.contain() as group:
                argv = [*group, *argv]
                process.logged(argv, cwd=cwd, env=env, log=log, on_line=on_line, watch=watch, **how)
        finally:
            if on_end:
                on_end(watch.cpu)

    def wrapped(self, argv: Sequence[str | Path], *, cwd: Path) -> list[str]:
        """Return the command that runs `argv` in the sandbox, with the folders of this build."""
        if self.sandbox.level == "bwrap":
            import ctypes

            # No mount hides the keys of the user's session, which are in the kernel: this thread,
            # and so what it starts, gets an empty keyring.
            ctypes.CDLL(None).syscall(*JOIN_SESSION_KEYRING, None)
        mounts = [*self._mounts(), *(Mount(host=path, inside=path) for path in self.read)]
        return self.sandbox.wrap(argv, cwd=self.path_inside(cwd), mounts=mounts)

    def _mounts(self) -> list[Mount]:
        # What is mounted below the folder covers it: a step can neither remove nor replace it.
        below = {"scripts": self.scripts, "env": self.env, "cache": self.cache}
        mounts = [Mount(host=host, inside=INSIDE / name) for name, host in below.items() if host]
        return [Mount(host=self.work, inside=INSIDE, write=True), *mounts]

    def _note(self, argv: Sequence[str | Path], cwd: Path, env: Mapping[str, str]) -> None:
        """Write down a step, for a shell after a failure."""
        step = {
            "argv": list(map(str, argv)),
            "cwd": str(self.path_inside(cwd)),
            "env": dict(env),
            "environment": str(self.env),
            "read": list(map(str, self.read)),
        }
        (self.root / STEP).write_text(json.dumps(step))


def kept_folder(name: str, sandbox: Sandbox, place: Path) -> Path:
    """Return where the folder of a failed build lies below the store's folder for such."""
    # Without bubblewrap its files hold its path.
    start = "failed" if sandbox.level == "bwrap" else "build"
    return place / f"{start}-{os.getuid()}-{name}"


def detect_sandbox(wanted: SandboxMode = "auto") -> Sandbox:
    """Return the strongest sandbox that works here; `required` takes bwrap or MachineError."""
    sandbox = Sandbox(level="none") if wanted == "none" else _strongest()
    if wanted == "required" and sandbox.level != "bwrap":
        message = "the sandbox is required, and bubblewrap does not work here"
        hint = "`patchwheel doctor` says how to install it, or how to allow it user namespaces"
        raise MachineError(message, hint=hint)
    return sandbox


@contextlib.contextmanager
def open_build_dir(
    name: str, *, sandbox: Sandbox, store: Store, keep: bool = False, **parts: Any
) -> Iterator[BuildDir]:
    """Give an empty folder for one build of `name`, with other `parts` of a BuildDir.

    With `keep`, the folder of a build that fails stays for `patchwheel shell`.
    """
    kept = kept_folder(name, sandbox, store.root / "tmp")
    with _root(name, sandbox, store) as root:
        for folder in ("src", "out", "modules", "home", "tmp", "env", "scripts"):
            (root / "work" / folder).mkdir(parents=True)
        (root / "scripts").mkdir()
        parts = {"env": root / "work" / "env", **parts}
        try:
            yield BuildDir(name=name, sandbox=sandbox, root=root, keep=keep, **parts)
            keep = False
        finally:
            if not keep:
                rmtree(root)
            elif root != kept:
                rmtree(kept)
                root.rename(kept)


@contextlib.contextmanager
def _root(name: str, sandbox: Sandbox, store: Store) -> Iterator[Path]:
    if sandbox.level == "bwrap":
        # Any number of builds run side by side, and all see the same path.
        with store.scratch() as folder:
            yield folder
        return
    if {*":'"} & {*str(store.root)}:
        problem = "builds without bubblewrap see the path of the store: it has a colon or a quote"
        raise MachineError(problem, where=store.root, hint="set PATCHWHEEL_STORE to another folder")
    # A path that steps see, and so a fixed one: a second build of the fork waits.
    with store.lock(f"{name}-{os.getuid()}"):
        rmtree(fixed := kept_folder(name, sandbox, store.root / "tmp"))
        yield fixed


@functools.cache
def _strongest() -> Sandbox:
    levels: tuple[SandboxLevel, ...] = ("bwrap", "unshare")
    for level in levels:
        if program := shutil.which(level):
            sandbox = Sandbox(level=level, program=Path(program).resolve())
            if _works(sandbox):
                return sandbox
    return Sandbox(level="none")


def _works(sandbox: Sandbox) -> bool:
    argv = sandbox.wrap(["/usr/bin/env", "true"], cwd=Path("/"))
    try:
        process.capture(argv, cwd=Path("/"), env={"PATH": os.defpath})
    except (process.CommandError, MachineError):
        return False
    return True


def _mounted(mounts: Sequence[Mount]) -> list[str]:
    argv: list[str] = []
    seen = [Path("/usr")]
    for mount in mounts:
        # A folder inside one that is already there needs no mount, and on a link there is none.
        if mount.host == mount.inside and not mount.write:
            if any(mount.host.is_relative_to(path) for path in seen):
                continue
            seen.append(mount.host)
        option = "--bind" if mount.write else "--ro-bind"
        argv += [option, str(mount.host), str(mount.inside)]
    return [*argv, "--remount-ro", "/"]


def _check_private(path: Path) -> None:
    if any((Path.home() / name).is_relative_to(path) for name in PRIVATE):
        raise MachineError(
            f"{path} would show a build what is yours in your home folder",
            expected="compilers and Python in a folder of their own",
            hint="move that installation, or use the system's",
        )
