"""P5: a full or read-only disk is one message that leaves nothing half done; a power cut."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures import projects, support
from tests.fixtures.projects import Site

# In KiB: something else is written when the disk becomes full.
SIZES = range(4, 204, 4)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = projects.make_site(
        tmp_path_factory.mktemp("disks"), {"2.0": {"a": projects.lines(), "b": projects.lines()}}
    )
    made.run("lock")
    made.run("build")
    made.run("dev", "demo")
    return made


def mounted(site: Site, mount: str, *words: str) -> support.Done:
    """Run a command in a mount namespace of its own."""
    if not shutil.which("unshare"):
        support.lacking("mounting needs unshare")
    own = ["--map-root-user"] if os.geteuid() else []
    command = ["unshare", *own, "-m", "--propagation", "private", "sh", "-c"]
    if support.run(*command, "mount -t tmpfs none /mnt && mkdir /mnt/p").returncode:
        support.lacking("no mount namespace can be made here")
    listed = 'status=$?; echo "LEFT: $(find . -name "*.tmp" -o -name "*.part" | tr "\\n" " ")"'
    script = f'{mount} && cd "$PWD" && "$@"; {listed} >&2; exit $status'
    env = {"PATCHWHEEL_STORE": str(site.store), "PATCHWHEEL_PYTHON": "", **site.index}
    return support.run(
        *(*command, script, "sh", sys.executable, "-m", "patchwheel", *words),
        cwd=site.root,
        env=env,
    )


def check(done: support.Done) -> None:
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in {0, 3, 7}, done.stderr
    assert "LEFT: \n" in done.stderr, done.stderr
    if done.returncode == 7:
        assert "error: " in done.stderr
        assert "  next: " in done.stderr


WORDS = (("build",), ("build", "--from-source"), ("lock", "--force"), ("env",), ("export", "demo"))
FULL = {
    "dist": "mkdir -p dist && mount -t tmpfs -o size={size}k none dist",
    "project": "mount -t tmpfs none /mnt && mkdir /mnt/p && "
    "mount -t tmpfs -o size=64m none /mnt/p && cp -a . /mnt/p && "
    # Not mounted again with another size, which only root may do.
    "used=$(du -sk /mnt/p | cut -f1) && umount /mnt/p && "
    "mount -t tmpfs -o size=$((used + {size}))k none /mnt/p && cp -a . /mnt/p && "
    'mount --bind /mnt/p "$PWD"',
    "memory": "mount -t tmpfs -o size={size}k none /dev/shm",
    "temporary files": "mount -t tmpfs -o size={size}k none {temporary} && "
    "export TMPDIR={temporary}",
}


def full(site: Site, where: str, size: int, words: tuple[str, ...]) -> None:
    temporary = site.root.parent / "temporary"
    temporary.mkdir(exist_ok=True)
    mount = FULL[where].format(size=size, temporary=temporary)
    check(mounted(site, mount, *words))


@pytest.mark.parametrize("where", FULL)
def test_a_full_disk_is_one_message(site: Site, where: str) -> None:
    shutil.rmtree(site.root / "dist", ignore_errors=True)
    full(site, where, 4, ("build",))
    site.run("build")


@pytest.mark.heavy
@pytest.mark.parametrize("words", WORDS, ids=" ".join)
@pytest.mark.parametrize("where", FULL)
def test_a_disk_that_is_full_at_any_size_is_one_message(
    site: Site, where: str, words: tuple[str, ...]
) -> None:
    for size in SIZES:
        shutil.rmtree(site.root / "dist", ignore_errors=True)
        full(site, where, size, words)
    site.run("build")


READ_ONLY = {
    "dist": "mkdir -p dist && mount --bind dist dist && mount -o remount,ro,bind dist",
    "project": 'mount --bind "$PWD" "$PWD" && mount -o remount,ro,bind "$PWD"',
}


@pytest.mark.parametrize("where", READ_ONLY)
@pytest.mark.parametrize("words", [("build",), ("lock", "--force"), ("export", "demo")])
def test_a_read_only_folder_is_one_message(site: Site, where: str, words: tuple[str, ...]) -> None:
    shutil.rmtree(site.root / "dist", ignore_errors=True)
    (site.root / "dist").mkdir()
    done = mounted(site, READ_ONLY[where], *words)
    check(done)
    if words == ("build",):
        assert done.returncode == 7
        assert "Read-only file system" in done.stderr
    # It is not the store that cannot be written.
    assert "the store cannot be used" not in done.stderr


def test_an_environment_that_is_up_to_date_is_checked_on_a_read_only_disk(site: Site) -> None:
    site.run("env")
    done = mounted(site, READ_ONLY["project"], "env", "--check")
    assert done.returncode == 0, done.stderr
    check(mounted(site, READ_ONLY["project"], "env", "other/link"))


@pytest.mark.parametrize("there", ["", "nowhere/dist", "dist"])
def test_what_is_in_the_place_of_a_folder_is_one_message(site: Site, there: str) -> None:
    dist = site.root / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    if there:
        dist.symlink_to(there)
    else:
        dist.write_text("mine")
    try:
        err = site.run("build", status=7)
    finally:
        dist.unlink()
    assert f"error: {dist}: cannot be written: File exists" in err
    assert "  next: see what is there" in err


PATCHWHEEL = f"{sys.executable} -m patchwheel"
CUT = """
import fcntl, os, struct, sys
handle = os.open(sys.argv[1], os.O_RDONLY)
# FS_IOC_SHUTDOWN without flushing the log: what is not on the disk by now is lost.
fcntl.ioctl(handle, 0x8004587D, struct.pack("I", 2))
"""
POWER = """
set -e
mount -o loop {image} {place}
cp -a {project} {place}/project; sync
cd {place}/project
{command} > {out} 2>&1
{python} -c '{cut}' {place}
cd /; umount {place}; mount -o loop {image} {place}
cd {place}/project
{listing}
umount -l {place}
"""


def after_a_power_cut(site: Site, folder: Path, command: str, listing: str) -> str:
    """Run a command on an ext4 of its own, cut the power as it ends, and list what is there."""
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        support.lacking("a power cut needs root and mkfs.ext4")
    image, place = folder / "image", folder / "place"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(256 << 20)
    support.run("mkfs.ext4", "-q", "-F", image, status=0)
    script = POWER.format(
        image=image,
        place=place,
        project=site.root,
        command=command,
        out=folder / "out",
        python=sys.executable,
        cut=CUT,
        listing=listing,
    )
    env = {"PATCHWHEEL_STORE": str(site.store), "PATCHWHEEL_PYTHON": "", **site.index}
    words = ["unshare", "-m", "--propagation", "private", "sh", "-c", script]
    done = subprocess.run(
        words, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    if done.returncode and "mount" in done.stderr:
        support.lacking(f"no file system of its own can be made here: {done.stderr}")
    said = (folder / "out").read_text() if (folder / "out").exists() else ""
    assert done.returncode == 0, done.stderr + said
    return done.stdout


def test_a_wheel_that_was_reported_survives_a_power_cut(site: Site, tmp_path: Path) -> None:
    shutil.rmtree(site.root / "dist", ignore_errors=True)
    out = after_a_power_cut(site, tmp_path, f"{PATCHWHEEL} build", "sha256sum dist/*.whl")
    site.run("build")
    [wheel] = (site.root / "dist").glob("*.whl")
    assert out.split()[0] == hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_the_files_of_a_rebase_survive_a_power_cut(site: Site, tmp_path: Path) -> None:
    listing = "git -C work/demo status --porcelain; sha256sum forks.* patches/demo/* work/demo/a"
    words = ("rebase", "demo", "--onto", "2.0")
    command = " ".join([PATCHWHEEL, *words])
    out = after_a_power_cut(site, tmp_path, command, listing)
    whole = site.at(tmp_path / "whole")
    whole.run(*words)
    expected = support.run("sh", "-c", listing, cwd=whole.root).stdout
    assert out == expected
    assert "forks.toml" in out


def test_the_power_cut_loses_what_was_not_brought_to_the_disk(site: Site, tmp_path: Path) -> None:
    """The control: a plain copy is gone, or has no bytes."""
    out = after_a_power_cut(site, tmp_path, "cp forks.lock copy", "cat copy 2>/dev/null || true")
    assert out == ""
