from dataclasses import replace
from pathlib import Path

import pytest

from patchwheel.kit import Distribution, ManifestError, Store
from patchwheel.locking import changes, committed_lock
from patchwheel.manifest import (
    BaseWheel,
    BuildInventory,
    EnvironmentLock,
    ForkBuild,
    ForkLock,
    Lock,
    save_lock,
)
from patchwheel.project import Project
from tests.fixtures.support import Recorder, git, make_manifest, make_upstream


def pinned(name: str, version: str, sha256: str = "1") -> Distribution:
    return Distribution(name=name, version=version, hashes=(sha256 * 64,))


CYTHON = pinned("cython", "3.2.8")
INVENTORY = BuildInventory(
    verbatim={"demo/a.py": "src/a.py"},
    built=frozenset({"demo/x.so"}),
    reads=frozenset({"meson.build", "src/x.pyx"}),
)
OPENED = {"gen.py": frozenset("*")}
BASE = BaseWheel(filename="demo-1.0-py3-none-any.whl", sha256="a" * 64)
BUILD = ForkBuild(base=BASE, build_requires=(CYTHON,), inventory=INVENTORY)
FORK = ForkLock(
    pin={"version": "1.0", "sdist": "b" * 64},
    settings="c" * 64,
    tree="d" * 40,
    commit=None,
    patches={"0010-x.patch": "e" * 64},
    builds={"3.12": BUILD},
)
NUMPY = pinned("numpy", "2.5.4")
ENVIRONMENT = EnvironmentLock(inputs="", packages=(NUMPY,), groups={"test": (CYTHON,)})
LOCK = Lock(path=Path("forks.lock"), environments={"3.12": ENVIRONMENT}, forks={"demo": FORK})


def with_build(build: ForkBuild) -> Lock:
    return replace(LOCK, forks={"demo": replace(FORK, builds={"3.12": build})})


def with_reads(*reads: str) -> Lock:
    return with_build(replace(BUILD, inventory=replace(INVENTORY, reads=frozenset(reads))))


def test_what_is_the_same_is_not_mentioned() -> None:
    assert changes(LOCK, LOCK) == []
    shuffled = replace(BUILD, build_requires=(replace(CYTHON, hashes=CYTHON.hashes[::-1]),))
    assert changes(LOCK, with_build(shuffled)) == []


def test_a_build_is_one_line() -> None:
    newer = replace(BUILD, build_requires=(pinned("cython", "3.2.9"),))
    reads = INVENTORY.reads | {"a", "b", "c"}
    newer = replace(newer, inventory=replace(INVENTORY, reads=reads))
    line = "demo 3.12: cython 3.2.8 -> 3.2.9, 3 more files are read"
    assert changes(LOCK, with_build(newer)) == [line]


@pytest.mark.parametrize(
    ("new", "line"),
    [
        (with_reads("meson.build"), "demo 3.12: 1 fewer file is read"),
        (with_reads("a", "b"), "demo 3.12: 2 more files are read, 2 fewer files are read"),
        (with_build(replace(BUILD, base=None)), f"demo 3.12: base {BASE.filename} -> none"),
        (with_build(replace(BUILD, base=replace(BASE, sha256="f" * 64))),
         "demo 3.12: base has other content"),
        (with_build(replace(BUILD, needs=("one", "two"))),
         "demo 3.12: needs no other fork -> one and two"),
        (with_build(replace(BUILD, build_requires=())), "demo 3.12: cython is gone"),
        (with_build(replace(BUILD, build_requires=(CYTHON, NUMPY))),
         "demo 3.12: numpy 2.5.4 is new"),
        (with_build(replace(BUILD, build_requires=(pinned("cython", "3.2.8", "2"),))),
         "demo 3.12: cython has other content"),
        (with_build(replace(BUILD, inventory=replace(INVENTORY, verbatim={}))),
         "demo 3.12: 1 fewer file is copied"),
        (with_build(replace(BUILD, inventory=replace(INVENTORY, opened=OPENED))),
         "demo 3.12: 1 more file is opened by scripts"),
        (with_build(replace(BUILD, inventory=replace(INVENTORY, pure=True))),
         "demo 3.12: wheel for one platform -> for any platform"),
        (replace(LOCK, forks={"demo": replace(FORK, pin={"version": "1.1"})}),
         "demo: version 1.0 -> 1.1"),
        (replace(LOCK, forks={"demo": replace(FORK, platforms={"demo.whl": "0" * 64})}),
         "demo: 1 more file is known of other platforms"),
        (replace(LOCK, forks={"demo": replace(FORK, tree="0" * 40)}),
         "demo: version has other content"),
        (replace(LOCK, forks={"demo": replace(FORK, settings="0" * 64)}),
         "demo: build settings cccccccc -> 00000000"),
        (replace(LOCK, forks={"demo": replace(FORK, commit="0" * 40)}),
         f"demo: commit None -> {'0' * 40}"),
        (replace(LOCK, forks={"demo": replace(FORK, patches={"0010-x.patch": "0" * 64})}),
         "demo: 0010-x.patch eeeeeeee -> 00000000"),
        (replace(LOCK, forks={"demo": replace(FORK, builds={"3.12": BUILD, "3.13": BUILD})}),
         "demo 3.13: new"),
        (replace(LOCK, environments={}), "environment 3.12: gone"),
        (replace(LOCK, environments={"3.12": replace(ENVIRONMENT, groups={})}),
         "environment 3.12: test cython is gone"),
        (replace(LOCK, environments={"3.12": replace(ENVIRONMENT, packages=())}),
         "environment 3.12: numpy is gone"),
    ],
)  # fmt: skip
def test_each_difference_has_words(new: Lock, line: str) -> None:
    assert changes(LOCK, new) == [line]


def test_a_fork_that_is_new_or_gone() -> None:
    none = replace(LOCK, forks={})
    assert changes(none, LOCK) == ["demo: new", "demo 3.12: new"]
    assert changes(LOCK, none) == ["demo: gone", "demo 3.12: gone"]


def test_the_lock_is_compared_with_that_of_the_last_commit(tmp_path: Path) -> None:
    sdist = f'sdist = {{ filename = "demo-1.0.tar.gz", sha256 = "{"b" * 64}" }}'
    manifest = make_manifest(tmp_path / "sub", {"demo": f'version = "1.0"\n{sdist}\n'})
    project = Project(manifest, Store(tmp_path / "store"), Recorder())
    with pytest.raises(ManifestError, match="not a git repository"):
        committed_lock(project)
    make_upstream(tmp_path, {})
    path = manifest.with_suffix(".lock")
    save_lock(replace(LOCK, path=path))
    git(tmp_path, "add", "sub")
    git(tmp_path, "commit", "-qm", "Lock")
    save_lock(replace(with_reads("meson.build"), path=path))
    assert changes(committed_lock(project), project.lock) == ["demo 3.12: 1 fewer file is read"]
    path.write_text('{"schema": 3}')
    git(tmp_path, "commit", "-qam", "Lock as before")
    with pytest.raises(ManifestError, match="last commit: has another schema") as caught:
        committed_lock(project)
    assert caught.value.where == path
