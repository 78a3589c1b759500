"""P9: what a build left is taken without following links, from regular files within a size."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from patchwheel.kit import BuildError, rmtree
from patchwheel.kit.untrusted import copy_untrusted, copy_untrusted_tree, read_untrusted


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A folder that a build wrote, beside a secret of the host."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "key").write_text("secret")
    folder = tmp_path / "left"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_text("content")
    return folder


def link_to_file(left: Path) -> str:
    (left / "x").symlink_to("../secret")
    return "x"


def link_to_folder(left: Path) -> str:
    (left / "x").symlink_to("../home")
    return "x/key"


def link_inside(left: Path) -> str:
    (left / "x").symlink_to("sub/file")
    return "x"


def dangling_link(left: Path) -> str:
    (left / "x").symlink_to("nowhere")
    return "x"


def fifo(left: Path) -> str:
    os.mkfifo(left / "x")
    return "x"


def unix_socket(left: Path) -> str:
    with socket.socket(socket.AF_UNIX) as server:
        handle = os.open(left, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{handle}/x")
        os.close(handle)
    return "x"


def folder(_left: Path) -> str:
    return "sub"


def through_a_file(_left: Path) -> str:
    return "sub/file/x"


def parent(_left: Path) -> str:
    return "../secret"


def parent_from_below(_left: Path) -> str:
    return "sub/../../secret"


def absolute(left: Path) -> str:
    return str(left.parent / "secret")


def larger_than_allowed(left: Path) -> str:
    with (left / "x").open("wb") as file:
        file.truncate(1001)
    return "x"


REFUSED = [
    link_to_file,
    link_to_folder,
    link_inside,
    dangling_link,
    fifo,
    unix_socket,
    folder,
    through_a_file,
    parent,
    parent_from_below,
    absolute,
    larger_than_allowed,
]


@pytest.mark.parametrize("trap", REFUSED)
def test_only_a_regular_file_below_the_folder_is_read(
    left: Path, trap: Callable[[Path], str]
) -> None:
    name = trap(left)
    with pytest.raises(BuildError, match="which the build left") as caught:
        read_untrusted(left, name, limit=1000)
    assert caught.value.exit_code == 5
    with pytest.raises(BuildError):
        copy_untrusted(left, name, left.parent / "copy", limit=1000)
    assert not (left.parent / "copy").exists()


def test_a_file_is_read_and_one_that_is_not_there_is_told_apart(left: Path) -> None:
    assert read_untrusted(left, "sub/file") == b"content"
    for name in ("gone", "gone/file"):
        with pytest.raises(FileNotFoundError):
            read_untrusted(left, name)


def test_a_copied_tree_holds_plain_files_only(left: Path, tmp_path: Path) -> None:
    link_to_file(left)
    (left / "linked").symlink_to("../home")
    os.mkfifo(left / "sub" / "fifo")
    (left / "sub" / "tool").write_text("#!/bin/sh\n")
    (left / "sub" / "tool").chmod(0o6755)
    (left / "empty").mkdir()
    target = tmp_path / "target"
    copy_untrusted_tree(left, target)
    names = sorted(str(path.relative_to(target)) for path in target.rglob("*"))
    assert names == ["empty", "sub", "sub/file", "sub/tool"]
    assert stat.S_IMODE((target / "sub" / "tool").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "sub" / "file").stat().st_mode) == 0o644


@pytest.mark.parametrize("length", [1, 50])
def test_folders_of_any_depth_are_refused_and_removed(
    left: Path, tmp_path: Path, length: int
) -> None:
    name = "d" * length
    # Deeper than Python's recursion may go.
    script = f"import os\nfor _ in range(1100): os.mkdir('{name}'); os.chdir('{name}')"
    subprocess.run([sys.executable, "-c", script], cwd=left, check=True)
    try:
        with pytest.raises(BuildError, match="lies too deep"):
            copy_untrusted_tree(left, tmp_path / "target")
        # The control: Python's own function cannot.
        with pytest.raises(RecursionError):
            shutil.rmtree(left)
        rmtree(left)
        assert not left.exists()
    finally:
        # pytest could not either.
        subprocess.run(["rm", "-rf", left], check=True)
