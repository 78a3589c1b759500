"""P6: dist/ holds the bytes that were built, and a release has sums of no others."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from patchwheel.environment.compose import unpack
from patchwheel.kit.entry import Hold
from patchwheel.kit.errors import BusyError, CheckError, InputError
from patchwheel.kit.store import Store
from patchwheel.release.publish import complete_release
from patchwheel.wheelfile import make_entry, read_wheel, write_wheel
from tests.fixtures import support
from tests.fixtures.projects import Site
from tests.security.hostile import RELEASE

KEY = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, locked_site: Site) -> Site:
    made = locked_site.apart(tmp_path_factory.mktemp("dist"))
    made.run("build")
    return made


def same_size(wheel: Path) -> None:
    info = wheel.stat()
    wheel.write_bytes(bytes([wheel.read_bytes()[0] ^ 1]) + wheel.read_bytes()[1:])
    os.utime(wheel, ns=(info.st_atime_ns, info.st_mtime_ns))


def another_file(wheel: Path) -> None:
    wheel.rename(wheel.with_name("moved"))
    wheel.with_name("moved").rename(wheel)
    same_size(wheel)


def link_out(wheel: Path) -> None:
    other = wheel.parents[1] / "victim"
    other.write_bytes(b"mine")
    wheel.unlink()
    wheel.symlink_to(other)


def planted_part(wheel: Path) -> None:
    other = wheel.parents[1] / "victim"
    other.write_bytes(b"mine")
    wheel.unlink()
    wheel.with_name(f".{wheel.name}.part").symlink_to(other)
    wheel.with_name(f".{wheel.name}.12345678.tmp").symlink_to(other)


@pytest.mark.parametrize("change", [same_size, another_file, link_out, planted_part])
def test_what_is_in_dist_is_what_was_built(site: Site, change: object) -> None:
    [wheel] = (site.root / "dist").glob("*.whl")
    honest = wheel.read_bytes()
    assert callable(change)
    change(wheel)
    site.run("build")
    assert wheel.read_bytes() == honest
    assert not wheel.is_symlink()
    victim = site.root / "victim"
    assert not victim.exists() or victim.read_bytes() == b"mine"


def test_a_release_has_sums_of_the_wheels_that_were_built_only(site: Site) -> None:
    [wheel] = (site.root / "dist").glob("*.whl")
    store, honest, found = Store(site.store), wheel.read_bytes(), read_wheel(wheel)
    complete_release(wheel.parent, store)
    more = make_entry("more.py", b"", mode=0o644, date=(1980, 1, 1, 0, 0, 0))
    kept = [e for e in found.entries.values() if not e.name.endswith("/RECORD")]
    try:
        # Sound, and of the same name and version.
        write_wheel(wheel, found.dist_info, [more, *kept])
        with pytest.raises(CheckError, match="is not the wheel that was built") as caught:
            complete_release(wheel.parent, store)
        assert caught.value.expected == f"sha256 {support.sha256(honest)}"
        other = support.make_wheel(site.root / "other", "demo", "1.0", {"demo.py": "other"})
        wheel.write_bytes(other.read_bytes())
        with pytest.raises(InputError, match=r"its dist-info folder is demo-1\.0"):
            complete_release(wheel.parent, store)
    finally:
        wheel.write_bytes(honest)


def test_environments_share_no_file(tmp_path: Path, site: Site) -> None:
    """An edit in one must change neither another nor the cache that installs the next one."""
    site.run("env")
    files = [p for p in site.store.glob("*/*/lib/**/*") if p.is_file() and not p.is_symlink()]
    assert files
    assert [path for path in files if path.stat().st_nlink > 1] == []
    wheel = support.make_wheel(tmp_path, "pw", "1.0", {"pw.py": "x = 1\n"})
    for name, before in (("one", None), ("two", tmp_path / "one")):
        unpack(wheel, tmp_path / name, before)
    with (tmp_path / "one" / "pw.py").open("a") as file:
        file.write("x = 2\n")
    assert (tmp_path / "two" / "pw.py").read_text() == "x = 1\n"


CHILD = """
import pathlib, sys
from patchwheel.kit.store import Store
store = Store(pathlib.Path(sys.argv[1]))
count, _ = store.prune(older_than_days=-1)
print(count)
"""


def pruned(store: Store) -> int:
    """Let another process prune everything, and return how many entries it removed."""
    words = [sys.executable, "-c", CHILD, str(store.root)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def test_prune_takes_no_environment_that_is_being_made(store: Store) -> None:
    def make(folder: Path) -> None:
        support.write(folder, {"first": ""})
        assert pruned(store) == 0
        support.write(folder, {"second": ""})

    path = store.get("build-envs", KEY, make)
    assert sorted(p.name for p in path.iterdir() if p.suffix != ".json") == ["first", "second"]


@pytest.mark.parametrize("how", ["get", "find", "find hashed"])
def test_prune_takes_nothing_that_is_used(store: Store, how: str) -> None:
    def make(folder: Path) -> None:
        support.write(folder, {"file": ""})

    Store(store.root).get("wheels", KEY, make)
    user = Store(store.root)
    hashed = how.endswith("hashed")
    path = (
        user.get("wheels", KEY, make) if how == "get" else user.find("wheels", KEY, hashed=hashed)
    )
    assert path
    assert pruned(store) == 0
    assert (path / "file").exists()
    # The control: once nobody uses it, it goes.
    user.held.clear()
    assert pruned(store) == 1
    assert not path.exists()


def test_prune_takes_no_folder_of_a_running_build(store: Store) -> None:
    with store.scratch() as folder:
        os.utime(folder, (0, 0))
        pruned(store)
        assert folder.exists()
    left = store.root / "tmp" / "left"
    left.mkdir()
    os.utime(left, (0, 0))
    pruned(store)
    assert not left.exists()


def test_a_lock_is_shared_by_users_and_refused_to_who_removes(tmp_path: Path) -> None:
    one, two = Hold(tmp_path), Hold(tmp_path)
    with pytest.raises(BusyError):
        Hold(tmp_path, alone=True)
    del one, two
    alone = Hold(tmp_path, alone=True)
    with pytest.raises(BusyError):
        Hold(tmp_path)
    del alone
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match="link"):
        Hold(tmp_path / "link")


def test_each_kind_of_wheel_has_a_folder_of_its_own(site: Site) -> None:
    dist = site.root / "dist"
    shutil.rmtree(dist)
    site.run(*RELEASE)
    release = {path.name: path.read_bytes() for path in (dist / "release").iterdir()}
    # Nor is it indexed before there is a release: later builds would not be what its sums say.
    kept = (dist / "release").rename(site.root / "away")
    said = site.run("index", "dist", status=6)
    assert "next: `patchwheel build --release` fills dist/release" in said
    assert not (dist / "SHA256SUMS").exists()
    kept.rename(dist / "release")
    # Somebody put a wheel there that is named like ours.
    mine = dist / "demo-1.0+arrayapi.hffffffff-py3-none-any.whl"
    mine.write_bytes(b"mine")
    patch = site.patches / "0010-a.patch"
    patch.write_bytes(patch.read_bytes().replace(b"+ours", b"+others"))
    old = site.build()
    patch.write_bytes(patch.read_bytes().replace(b"+others", b"+ours"))
    new = site.build()
    # The wheel of an earlier build goes, and nothing else.
    assert {path.name for path in dist.glob("*.whl")} == {mine.name, new.name}
    assert old != new
    assert mine.read_bytes() == b"mine"
    mine.unlink()
    assert {path.name: path.read_bytes() for path in (dist / "release").iterdir()} == release
    assert "that it is the file that was published" in site.run("verify", "dist")
    assert site.run("index", "dist") == "dist/release/simple\n"
    assert (dist / "release/simple/demo/index.html").exists()
    # A file in the release that its sums do not name is no part of it, whoever made it.
    shutil.copy(new, dist / "release" / new.name.replace("1.0", "1.1"))
    assert "is in no SHA256SUMS" in site.run("verify", "dist", status=6)


def test_that_there_are_no_tests_is_said_before_anything_is_built(site: Site) -> None:
    shutil.rmtree(site.root / "dist")
    said = site.run("test", "demo", status=6)
    assert "upstream has no tests of what the series changes" in said
    # What a job of CI does: the first fork of a project may have none.
    status, said = site.tried("test", "demo", "--allow-none")
    assert (status, said) == (0, "demo: upstream has no tests of what the series changes\n")
    assert not (site.root / "dist").exists()
