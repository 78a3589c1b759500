"""Cython and pythran from the compile cache: only what would give the same is replayed.

A small tool stands for Cython: it searches include folders as Cython does, by the same calls.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from patchwheel.compilecache import Shared
from patchwheel.compilecache import cache as ours
from patchwheel.compilecache.cache import LAYER, open_cache
from patchwheel.guest import REPLAY_TRANSPILERS
from patchwheel.kit import Context, Store
from tests.fixtures import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOOL = """
import glob, os, signal, sys
source, target, *folders = sys.argv[1:]
text = open(source).read()
os.close(os.open(os.devnull, os.O_RDWR))
said = [VERSION, text, os.environ.get("CYTHON_SETTING", "")]
for name in [line.split()[1] for line in text.splitlines() if line.startswith("cimport")]:
    for folder in [*folders, *sys.path]:
        found = glob.glob(os.path.join(folder, name) + ".cython-*.pxd")
        if not found and os.path.exists(os.path.join(folder, name) + ".pxd"):
            found = [os.path.join(folder, name) + ".pxd"]
        if found:
            said += [found[0], open(found[0]).read()]
            break
if "FAIL" in text:
    sys.exit("refused")
if "KILL" in text:
    os.kill(os.getpid(), signal.SIGKILL)
if "REMOVE" in text:
    os.path.exists("b.pyx")
    os.remove("b.pyx")
if "APPEND" in text:
    open("log", "a").close()
if "SHELL" in text:
    os.system("true")
if "FORK" in text:
    os.waitpid(os.fork() or os._exit(0), 0)
with open(target, "w") as stream:
    stream.write("\\n".join(said))
"""
SOURCE = "cimport near\ncimport far\n"


@dataclass(kw_only=True)
class Steps:
    """One command of the tool, in build folders that lie where those before them lay."""

    store: Store
    root: Path
    environment: Path
    extra: dict[str, str] = field(default_factory=lambda: {"PYTHONDONTWRITEBYTECODE": "1"})
    tool: str = "cython"

    @property
    def site(self) -> Path:
        version = f"python{sysconfig.get_python_version()}"
        return self.environment / "lib" / version / "site-packages"

    @property
    def shared(self) -> Shared:
        return Shared(store=self.store, name="demo-bwrap")

    @property
    def entries(self) -> list[Path]:
        return [self.shared.entries / name for name in sorted(self.shared.read().rows)]

    def install(self, version: str = "one") -> None:
        """Make an environment with the tool, and what starts with its Python."""
        shutil.rmtree(self.environment, ignore_errors=True)
        script = TOOL.replace("VERSION", f"{version!r}")
        support.write(
            self.environment,
            {
                "pyvenv.cfg": f"home = {os.path.realpath(sys.base_prefix)}/bin\n"
                "include-system-site-packages = false\n"
            },
        )
        digest = hashlib.sha256(script.encode()).hexdigest()
        support.write(
            self.site,
            {
                f"{self.tool}-3.0.dist-info/RECORD": f"Tool/main.py,sha256={digest},9\n",
                "Tool/main.py": script,
                "replay.py": REPLAY_TRANSPILERS.read_text(),
                "replay.pth": "import replay\n",
                "far.pxd": "far\n",
            },
        )
        binaries = self.environment / "bin"
        binaries.mkdir()
        (binaries / "python").symlink_to(os.path.realpath(sys.executable))
        start = "'''exec' \"$(dirname \"$0\")/python\" \"$0\" \"$@\"\n' '''\n"
        support.program(binaries / self.tool, f"{start}import Tool.main")

    def command(self) -> list[str]:
        return [str(self.environment / "bin" / self.tool), "a.pyx", "a.c", "new", "old"]

    @contextlib.contextmanager
    def build(self, name: str = "build", *, adds: bool = True) -> Iterator[dict[str, str]]:
        context = Context(self.store, support.Recorder())
        context.compile_cache = "write" if adds else "read"
        cache = open_cache(context, "demo-bwrap", ["gcc"], "one")
        assert cache
        root = self.store.root / "tmp" / name
        for folder in ("work/tmp", "scripts"):
            (root / folder).mkdir(parents=True)
        (self.root / "a.c").unlink(missing_ok=True)
        variables = {"PATH": os.defpath, **self.extra}
        with cache.used(root / "scripts", variables, lambda path: path):
            yield variables
            self.counts = cache.counts(root / "work")
        shutil.rmtree(root)

    def run(self, *, adds: bool = True, status: int = 0) -> tuple[str, bool]:
        """Run the step in a build; return what it made, and whether it was replayed."""
        with self.build(adds=adds) as variables:
            done = subprocess.run(self.command(), cwd=self.root, env=variables, check=False)
            assert done.returncode == status
        assert sum(self.counts.values()) == 1
        return (self.root / "a.c").read_text() if status == 0 else "", bool(self.counts["hits"])

    def plain(self) -> str:
        """Return what the tool makes without a cache."""
        (self.root / "a.c").unlink(missing_ok=True)
        variables = {"PATH": os.defpath, **self.extra}
        subprocess.run(self.command(), cwd=self.root, env=variables, check=True)
        return (self.root / "a.c").read_text()


@pytest.fixture
def steps(store: Store, tmp_path: Path) -> Steps:
    root = tmp_path / "source"
    support.write(root, {"a.pyx": SOURCE, "old/near.pxd": "near\n", "new/other.pxd": "x\n"})
    store.ensure()
    steps = Steps(store=store, root=root, environment=tmp_path / "env")
    steps.install()
    return steps


def add(name: str, text: str) -> Callable[[Steps], object]:
    return lambda steps: support.write(steps.root, {name: text})


def set_variable(name: str) -> Callable[[Steps], object]:
    return lambda steps: steps.extra.update({name: "1"})


CHANGES: dict[str, Callable[[Steps], object]] = {
    "the source": add("a.pyx", "cimport far\n"),
    "what it cimports": add("old/near.pxd", "nearer\n"),
    "what it cimports, of a requirement": lambda s: support.write(s.site, {"far.pxd": "farer\n"}),
    "a file that comes before": add("new/near.pxd", "first\n"),
    "a file of a pattern that comes before": add("new/near.cython-30.pxd", "first\n"),
    "a file that is gone": lambda steps: (steps.site / "far.pxd").unlink(),
    "a tool of the same version": lambda steps: steps.install("two"),
    "a variable that it asks for": set_variable("CYTHON_SETTING"),
    "a variable that Python asks for": set_variable("PYTHONHASHSEED"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_step_is_replayed_until_something_that_it_sees_changes(
    steps: Steps, change: Callable[[Steps], object]
) -> None:
    plain = steps.plain()
    assert steps.run() == (plain, False)
    assert steps.run() == (plain, True)
    change(steps)
    assert steps.run() == (steps.plain(), False)


def test_what_a_tool_does_not_see_makes_no_difference(steps: Steps, tmp_path: Path) -> None:
    steps.run()
    # Another folder of an environment: its path is in the output.
    steps.environment = tmp_path / "elsewhere" / "env"
    steps.install()
    add("old/unread.pxd", "x")(steps)
    os.utime(steps.root / "a.pyx", (1, 1))
    for name in ("OBJC_INCLUDE_PATH", "MAKEFLAGS", "CFLAGS"):
        set_variable(name)(steps)
    made = steps.run()
    assert made == (steps.plain(), True)
    assert str(steps.site) in made[0]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("FAIL", 1),
        ("KILL", -signal.SIGKILL),
        ("SHELL", 0),
        ("FORK", 0),
        ("UNAME_X", 0),
        ("REMOVE", 0),
        ("APPEND", 0),
    ],
)
def test_a_step_that_fails_or_does_more_is_not_kept(steps: Steps, text: str, status: int) -> None:
    add("a.pyx", text)(steps)
    for _ in range(2):
        add("b.pyx", "x")(steps)
        assert not steps.run(status=status)[1]
    assert steps.entries == []


def test_pythran_may_start_programs(steps: Steps) -> None:
    steps.tool = "pythran"
    steps.install()
    add("a.pyx", "SHELL")(steps)
    assert not steps.run()[1]
    assert steps.run()[1]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def swap(path: Path) -> None:
    """Put a whole entry of another command there."""
    check = json.loads(path.read_bytes().split(b"\n")[1]) | {"key": "0" * 64}
    reseal(path, check)


def strange(path: Path) -> None:
    reseal(path, [])


def reseal(path: Path, head: Any) -> None:
    rest = json.dumps(head).encode() + b"\n" + path.read_bytes().split(b"\n", 2)[2]
    path.write_bytes(hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)


@pytest.mark.parametrize("harm", [truncate, swap, strange])
def test_an_entry_that_is_harmed_while_a_build_runs_is_not_replayed(
    steps: Steps, harm: Callable[[Path], None]
) -> None:
    steps.run()
    [entry] = steps.entries
    with steps.build() as variables:
        harm(entry)
        subprocess.run(steps.command(), cwd=steps.root, env=variables, check=True)
    assert steps.counts == {"hits": 0, "misses": 1}
    assert (steps.root / "a.c").read_text() == steps.plain()


def test_a_build_that_adds_nothing_replays_and_stores_nothing(steps: Steps) -> None:
    assert not steps.run(adds=False)[1]
    assert steps.entries == []
    steps.run()
    [entry] = steps.entries
    assert steps.run(adds=False) == (steps.plain(), True)
    assert steps.entries == [entry]
    assert (steps.shared.read().hits, steps.shared.read().misses) == (0, 1)


def test_a_full_disk_stops_no_step(steps: Steps) -> None:
    with steps.build() as variables:
        # As on a full disk, nothing can be written there.
        (steps.store.root / "tmp" / "build" / "work" / LAYER).write_bytes(b"")
        subprocess.run(steps.command(), cwd=steps.root, env=variables, check=True)
    assert (steps.root / "a.c").read_text() == steps.plain()
    assert steps.entries == []


def test_two_builds_at_once_add_the_same_step_once(steps: Steps) -> None:
    with steps.build("one") as first, steps.build("two") as second:
        for variables in (first, second):
            subprocess.run(steps.command(), cwd=steps.root, env=variables, check=True)
            (steps.root / "a.c").unlink()
    assert len(steps.entries) == 1
    assert steps.run() == (steps.plain(), True)


def test_without_a_record_of_the_tool_nothing_is_replayed(steps: Steps) -> None:
    (steps.site / "cython-3.0.dist-info" / "RECORD").unlink()
    for _ in range(2):
        with steps.build() as variables:
            subprocess.run(steps.command(), cwd=steps.root, env=variables, check=True)
        assert steps.counts == {"hits": 0, "misses": 0}
    assert steps.entries == []


def test_a_file_that_changed_while_the_tool_ran_makes_no_entry(tmp_path: Path) -> None:
    entry = runpy.run_path(str(REPLAY_TRANSPILERS))["entry"]
    support.write(tmp_path, {"a.pyx": "before", "a.c": "made"})
    source, target = str(tmp_path / "a.pyx"), str(tmp_path / "a.c")
    seen = {source: hashlib.sha256(b"before").hexdigest(), target: "absent"}
    told = {"seen": seen, "variables": {}, "written": {target: True}, "beyond": False}
    assert entry(told, "key")
    assert entry(told | {"beyond": True}, "key") is None
    assert entry(told | {"written": {}, "seen": {}}, "key") is None
    (tmp_path / "a.pyx").write_text("after")
    assert entry(told, "key") is None


def test_an_output_that_was_there_is_written_anew(steps: Steps) -> None:
    add("a.pyx", "REMOVE")(steps)
    for _ in range(2):
        (steps.root / "b.pyx").write_text("x")
        with steps.build() as variables:
            (steps.root / "a.c").write_text("before")
            command = steps.command()
            command[2] = "b.pyx"
            subprocess.run(command, cwd=steps.root, env=variables, check=True)
        assert "REMOVE" in (steps.root / "b.pyx").read_text()
    assert steps.counts["hits"] == 1


def test_a_step_whose_reading_is_watched_runs(steps: Steps) -> None:
    steps.run()
    with steps.build() as variables:
        watched = variables | {"PATCHWHEEL_INSPECT_LOG": str(steps.root / "log")}
        subprocess.run(steps.command(), cwd=steps.root, env=watched, check=True)
    assert steps.counts == {"hits": 0, "misses": 0}


def test_the_folder_of_an_output_may_name_the_python() -> None:
    swapped = runpy.run_path(str(REPLAY_TRANSPILERS))["swapped"]
    path = f"/build/meson/_fast.{sys.implementation.cache_tag}-x86_64-linux-gnu.so.p/_fast.c"
    found = swapped(path)
    assert found == "/build/meson/_fast.\0tag\0-x86_64-linux-gnu.so.p/_fast.c"
    assert swapped(found, back=True) == path


def test_the_names_of_both_sides_agree() -> None:
    guest = runpy.run_path(str(REPLAY_TRANSPILERS))
    assert guest["ENTRIES"] == ours.TRANSPILED
    assert guest["NEW"] == f"{ours.TRANSPILED}_NEW"
