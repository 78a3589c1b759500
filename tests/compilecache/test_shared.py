"""ccache in the place of gcc, and what a build may add to what others read."""

import errno
import importlib.metadata
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from patchwheel import kit
from patchwheel.compilecache import CompileCache, Shared, all_shared
from patchwheel.compilecache import cache as ours
from patchwheel.compilecache.cache import LAYER, NOTE, header_names, open_cache
from patchwheel.kit import Blob, Context, Store
from tests.fixtures import support

SOURCE = '#include "value.h"\nint answer(void) { return VALUE; }\n'
NAME = "demo-bwrap"
COMMAND = ("gcc", "-O2", "-Inew", "-Iold", "-c", "answer.c", "-o")
CUDA = ("/bin/sh", "-c", '$NVCC -O2 -Iold -c answer.cu -o "$0"')


@dataclass(kw_only=True)
class Build:
    """Builds of one C file, one after the other, each in a folder of its own."""

    store: Store
    report: support.Recorder
    root: Path
    extra: dict[str, str] = field(default_factory=dict)
    path: str = os.defpath
    count: int = 0

    @property
    def shared(self) -> Shared:
        return Shared(store=self.store, name=NAME)

    @property
    def names(self) -> list[str]:
        return sorted(self.shared.read().rows)

    def open(self, *, adds: bool = True, identity: str = "one") -> CompileCache:
        context = Context(self.store, self.report)
        context.compile_cache = "write" if adds else "read"
        cache = open_cache(context, NAME, ["gcc"], identity)
        assert cache
        return cache

    def run(
        self,
        cache: CompileCache | None = None,
        *,
        status: int = 0,
        meanwhile: Callable[[Path], object] = lambda _work: None,
        late: Callable[[Path], object] = lambda _work: None,
        argv: Sequence[str] = COMMAND,
    ) -> tuple[bytes, dict[str, int]]:
        """Compile in a new folder; return the object and the counts."""
        cache, self.count = cache or self.open(), self.count + 1
        root = self.store.root / "tmp" / f"build{self.count}"
        for name in ("work/tmp", "scripts"):
            (root / name).mkdir(parents=True)
        variables = {"PATH": self.path, **self.extra}
        target = root / "work" / "answer.o"
        with cache.used(root / "scripts", variables, lambda path: path):
            meanwhile(root / "work")
            done = subprocess.run([*argv, str(target)], cwd=self.root, env=variables, check=False)
            assert done.returncode == status
            counts = cache.counts(root / "work")
            late(root / "work")
        made = target.read_bytes() if status == 0 else b""
        shutil.rmtree(root)
        return made, counts

    def compiled(self) -> bytes:
        """Return what the compiler alone makes."""
        argv = ["gcc", "-O2", "-Inew", "-Iold", "-c", "answer.c", "-o", "alone.o"]
        subprocess.run(argv, cwd=self.root, env={"PATH": os.defpath}, check=True)
        return (self.root / "alone.o").read_bytes()


@pytest.fixture
def build(store: Store, report: support.Recorder, tmp_path: Path) -> Build:
    root = tmp_path / "source"
    (root / "old").mkdir(parents=True)
    (root / "new").mkdir()
    (root / "answer.c").write_text(SOURCE)
    (root / "old" / "value.h").write_text("#define VALUE 1\n")
    store.ensure()
    return Build(store=store, report=report, root=root)


HIT, MISS = {"hits": 1, "misses": 0}, {"hits": 0, "misses": 1}


def test_a_step_that_ran_is_replayed_with_the_same_bytes(build: Build) -> None:
    # Another compiler may say the same version.
    build.run(build.open(identity="another"))
    assert build.run() == (build.compiled(), MISS)
    assert build.run() == (build.compiled(), HIT)
    read = build.shared.read()
    assert (read.hits, read.misses, len(read.rows)) == (1, 2, 4)
    (build.root / "answer.c").write_text(SOURCE.replace("VALUE", "VALUE + 1"))
    assert build.run() == (build.compiled(), MISS)


def test_nvcc_is_replayed_until_any_file_that_it_may_include_changes(build: Build) -> None:
    # There is no nvcc here; ccache takes a program for one by its name.
    nvcc = build.root / "nvcc"
    nvcc.write_text(f'#!/bin/sh\nexec {shutil.which("gcc")} -x c "$@"\n')
    nvcc.chmod(0o755)
    shutil.copy(build.root / "answer.c", build.root / "answer.cu")

    def run(sources: str, cuda: str) -> tuple[bytes, dict[str, int]]:
        build.extra = {"NVCC": str(nvcc), "PATCHWHEEL_SOURCES": sources}
        return build.run(replace(build.open(), cuda=cuda), argv=CUDA)

    made, counts = run("a", "13")
    assert counts == MISS
    assert run("a", "13") == (made, HIT)
    assert run("b", "13") == (made, MISS)
    assert run("a", "14") == (made, MISS)
    assert run("a", "") == (made, {"hits": 0, "misses": 0})
    files = {path: Blob(mode="100644", oid="1" * 40) for path in ("a.cuh", "b.def", "c.py")}
    before = header_names(files, "env")["PATCHWHEEL_SOURCES"]
    for path, counted in {"a.cuh": True, "b.def": True, "c.py": False}.items():
        other = files | {path: Blob(mode="100644", oid="2" * 40)}
        assert (header_names(other, "env")["PATCHWHEEL_SOURCES"] != before) == counted


def test_a_header_that_comes_before_a_known_one_is_seen(build: Build) -> None:
    blob = Blob(mode="100644", oid="0" * 40)
    build.extra = header_names({"old/value.h": blob}, "environment")
    before = build.run()[0]
    assert build.run()[1] == HIT
    (build.root / "new" / "value.h").write_text("#define VALUE 2\n")
    build.extra = header_names({"old/value.h": blob, "new/value.h": blob}, "environment")
    after = build.run()[0]
    assert after == build.compiled() != before
    # A rule of the build may have made the header.
    names = [header_names({"meson.build": replace(blob, oid=c * 40)}, "e") for c in "12"]
    assert names[0] != names[1]


def truncate(entries: list[Path]) -> None:
    for path in entries:
        os.truncate(path, path.stat().st_size // 2)


def swap(entries: list[Path]) -> None:
    contents = [path.read_bytes() for path in entries]
    for path, data in zip(entries, reversed(contents), strict=True):
        path.write_bytes(data)


def flip(entries: list[Path]) -> None:
    for path in entries:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)


def link(entries: list[Path]) -> None:
    for path in entries:
        path.rename(path.parents[3] / path.name)
        path.symlink_to(path.parents[3] / path.name)


def plant(entries: list[Path]) -> None:
    for path in entries:
        path.rename(path.with_name("f" * 38))


def forget(entries: list[Path]) -> None:
    (entries[0].parents[2] / "index.json").write_bytes(b"{}")


@pytest.mark.parametrize("harm", [truncate, swap, flip, link, plant, forget])
def test_what_is_not_as_it_was_stored_is_told_and_never_read(
    build: Build, harm: Callable[[list[Path]], None]
) -> None:
    first = build.run()[0]
    harm([build.shared.entries / name for name in build.names])
    cache = build.open()
    assert build.names == []
    assert [path for path in cache.shared.entries.rglob("*") if not path.is_dir()] == []
    message = "store: compiles/demo-bwrap: 2 damaged or foreign; removed, and compiled again"
    assert message in build.report.lines
    assert build.run(cache) == (first, MISS)


def test_an_entry_that_was_copied_is_read_and_kept(build: Build) -> None:
    first = build.run()[0]
    for name in build.names:
        shutil.copyfile(build.shared.entries / name, build.root / "copy")
        (build.root / "copy").replace(build.shared.entries / name)
    assert build.run() == (first, HIT)


def test_only_new_entries_are_taken_from_what_a_build_left(build: Build, tmp_path: Path) -> None:
    build.run()
    [known, _] = build.names
    secret = tmp_path / "secret"
    secret.write_text("secret")
    outside = tmp_path / "outside"
    (outside / ("3" * 38)).mkdir(parents=True)

    def leave(work: Path) -> None:
        layer = work / LAYER
        for part in ("aa", known[:2]):
            (layer / part).mkdir(parents=True, exist_ok=True)
        (layer / known).write_bytes(b"another")
        (layer / "aa" / ("1" * 38)).symlink_to(secret)
        os.mkfifo(layer / "aa" / ("2" * 38))
        (layer / "aa" / "evil").write_bytes(b"x")
        (layer / "bb").symlink_to(outside)
        (layer / "cc").write_bytes(b"no folder")
        (layer / "aa" / ("4" * 38)).write_bytes(b"taken")

    before = (build.shared.entries / known).read_bytes()
    names = {*build.names, f"aa/{'4' * 38}"}
    build.run(late=leave)
    assert set(build.names) == names
    assert (build.shared.entries / known).read_bytes() == before
    assert build.shared.check(hashed=True) == []


def test_a_layer_that_leads_elsewhere_is_not_taken(build: Build, tmp_path: Path) -> None:
    (tmp_path / "aa").mkdir()
    (tmp_path / "aa" / ("1" * 38)).write_bytes(b"elsewhere")

    def leave(work: Path) -> None:
        shutil.rmtree(work / LAYER)
        (work / LAYER).symlink_to(tmp_path)

    build.run(late=leave)
    assert build.names == []


def test_one_build_adds_no_more_than_there_is_room_for(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "MOST", 1)
    build.run()
    assert len(build.names) == 1
    monkeypatch.setattr(ours, "MOST", 10)
    monkeypatch.setattr(ours, "LARGEST", 10)
    build.run()
    assert len(build.names) == 1


def test_an_untrusted_build_reads_and_adds_nothing(build: Build) -> None:
    def no_note(work: Path) -> None:
        assert not (work.parent / NOTE).exists()
        assert not (work / LAYER).exists()

    first = build.run(build.open(adds=False), late=no_note)
    assert (first[1], build.names, all_shared(build.store)) == (MISS, [], [])
    build.run()
    kept = build.shared.index.read_bytes()
    assert build.run(build.open(adds=False)) == (first[0], HIT)
    assert build.shared.index.read_bytes() == kept


def test_what_a_killed_build_left_is_replayed(build: Build, store: Store) -> None:
    cache, made = build.open(), build.compiled()
    # All that is there after kill -9: the build's folder with its layer, and the note.
    root = store.root / "tmp" / "killed"
    for name in ("work/tmp", "scripts"):
        (root / name).mkdir(parents=True)
    variables = {"PATH": os.defpath}
    running = cache.used(root / "scripts", variables, lambda path: path)
    running.__enter__()
    argv = ["gcc", "-O2", "-Inew", "-Iold", "-c", "answer.c", "-o", str(root / "work" / "a.o")]
    subprocess.run(argv, cwd=build.root, env=variables, check=True)
    assert build.names == []
    assert build.run() == (made, HIT)
    # Another fork's is not taken.
    assert Shared(store=store, name="other-bwrap").prepare().is_dir()
    assert Shared(store=store, name="other-bwrap").read().rows == {}


def test_a_compiler_that_is_killed_while_it_writes_is_never_replayed(
    build: Build, tmp_path: Path
) -> None:
    killer = tmp_path / "bin" / "gcc"
    killer.parent.mkdir()
    text = '#!/bin/sh\ncase " $* " in *" -E "*) exec /usr/bin/gcc "$@";; esac\n'
    killer.write_text(text + "printf half > answer.o\nkill -9 $$\n")
    killer.chmod(0o755)
    build.path = f"{killer.parent}:{os.defpath}"
    build.run(status=255)
    build.path = os.defpath
    assert build.run() == (build.compiled(), MISS)


def test_a_failed_build_adds_what_it_made(build: Build) -> None:
    def fail(work: Path) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        build.run(late=fail)
    assert build.run()[1] == HIT


def test_a_cache_that_is_full_stops_no_build(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a full disk, ccache can write nothing.
    made, counts = build.run(meanwhile=lambda work: (work / LAYER).write_bytes(b""))
    assert (made, counts, build.names) == (build.compiled(), MISS, [])

    def full(*_args: object, **_more: object) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "entry")

    monkeypatch.setattr(kit, "copy_untrusted", full)
    assert build.run()[0] == made
    [line] = [line for line in build.report.lines if "nothing was added" in line]
    assert "compile cache: nothing was added" in line
    assert "No space left on device" in line


def test_builds_that_share_a_cache_lose_nothing(build: Build) -> None:
    works = []
    for number in range(8):
        work = build.root / f"work{number}"
        (work / LAYER / "aa").mkdir(parents=True)
        for entry in (number, number + 1):
            (work / LAYER / "aa" / f"{entry:038}").write_bytes(b"%d" % entry)
        works.append(work)
    build.shared.prepare()
    threads = [
        threading.Thread(target=Shared(store=Store(build.store.root), name=NAME).merge, args=[w])
        for w in works
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert build.names == [f"aa/{entry:038}" for entry in range(9)]
    assert build.shared.check(hashed=True) == []


def test_a_ccache_that_is_missing_or_broken_is_said_and_done_without(
    build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def opened() -> str:
        report = support.Recorder()
        assert open_cache(Context(build.store, report), NAME, ["gcc"], "one") is None
        [line] = report.lines
        return line

    fake = tmp_path / "ccache"
    fake.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setattr(ours, "PACKAGE", "no-such-ccache")
    assert "no compile cache: no-such-ccache is not installed" in opened()
    assert "install patchwheel again, with its dependency" in opened()
    monkeypatch.undo()
    monkeypatch.setattr(importlib.metadata, "files", lambda _name: [])
    assert "lacks its program" in opened()
    path = importlib.metadata.PackagePath("ccache")
    path.dist = importlib.metadata.PathDistribution(tmp_path / "x")
    monkeypatch.setattr(importlib.metadata, "files", lambda _name: [path])
    assert "no compile cache: " in opened()
    assert "status 3" in opened()


def test_old_entries_are_pruned(build: Build) -> None:
    build.run()
    count, size = build.shared.size()
    long_ago = time.time() - 5 * 86400
    [old, new] = build.names
    os.utime(build.shared.entries / old, (long_ago, long_ago))
    assert build.shared.check() == []
    row = build.shared.read().rows[old]
    assert build.shared.prune(older_than_days=4) == (1, row[3])
    assert build.names == [new]
    assert build.shared.size() == (count - 1, size - row[3])


def test_a_build_that_ends_meanwhile_is_passed_over(
    build: Build, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    support.write(store.root / "tmp" / "ending", {NOTE: NAME})

    def gone(_self: Shared, work: Path, **_counts: int) -> None:
        raise FileNotFoundError(work)

    monkeypatch.setattr(Shared, "merge", gone)
    assert build.shared.prepare() == build.shared.entries
