from __future__ import annotations

import gzip
import io
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from patchwheel.kit.errors import InputError
from patchwheel.source.sdist import Sdist
from patchwheel.wheelfile import archive

if TYPE_CHECKING:
    Member = tuple[tarfile.TarInfo, bytes]


def member(
    name: str,
    data: bytes = b"x",
    *,
    kind: bytes = tarfile.REGTYPE,
    target: str = "",
    mode: int = 0o644,
    mtime: int = 1_700_000_000,
) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.mtime = kind, target, mode, mtime
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    return info, data


def write(path: Path, *members: Member) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


def repacked(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))
    return path


def test_files_come_below_the_top_folder_with_their_git_modes(tmp_path: Path) -> None:
    members = [
        member("p-1/", kind=tarfile.DIRTYPE, mtime=5),
        member("p-1/a.py", b"a\n", mtime=7),
        member("p-1/tools/run.sh", b"#!\n", mode=0o755, mtime=6),
        member("p-1/tools", kind=tarfile.DIRTYPE),
        member("p-1/späß.txt", b""),
    ]
    sdist = Sdist(write(tmp_path / "p-1.tar.gz", *members))
    assert list(sdist) == [
        ("a.py", "100644", b"a\n"),
        ("tools/run.sh", "100755", b"#!\n"),
        ("späß.txt", "100644", b""),
    ]


def test_the_link_of_a_submodule_to_its_git_folder_is_left_out(tmp_path: Path) -> None:
    members = [
        member("p-1/a.py", b"a\n"),
        member("p-1/.git", b"gitdir: /home/me/p/.git/worktrees/p\n"),
        member("p-1/tests/data/.git", b"gitdir: ../../.git/modules/tests/data\n"),
        member("p-1/tests/data/.gitignore", b""),
    ]
    sdist = Sdist(write(tmp_path / "p-1.tar.gz", *members))
    assert [path for path, *_ in sdist] == ["a.py", "tests/data/.gitignore"]


def test_epoch_is_the_newest_time_in_the_archive(tmp_path: Path) -> None:
    members = [member("p-1/new", mtime=1_800_000_000), member("p-1/old", mtime=3)]
    sdist = Sdist(write(tmp_path / "p-1.tar.gz", *members))
    list(sdist)
    assert sdist.epoch == 1_800_000_000


REFUSED = {
    "absolute": [member("/etc/passwd")],
    "above": [member("p-1/../../evil")],
    "dot": [member("p-1/./a")],
    "empty part": [member("p-1//a")],
    "control character": [member("p-1/a\nb")],
    "backslash": [member("p-1/..\\a")],
    "git folder": [member("p-1/.git/hooks/post-checkout")],
    "empty git folder": [member("p-1/a"), member("p-1/.git/", kind=tarfile.DIRTYPE)],
    "file in the place of a git folder": [member("p-1/a"), member("p-1/.git", b"[core]")],
    "link in the place of a git folder": [
        member("p-1/.git", kind=tarfile.SYMTYPE, target="gitdir: a")
    ],
    "below a submodule's link": [
        member("p-1/sub/.git", b"gitdir: ../.git/modules/sub"),
        member("p-1/sub/.git/config"),
    ],
    "git folder in capitals": [member("p-1/sub/.GIT/config")],
    "second top folder": [member("p-1/a"), member("q-1/b")],
    "file at the top": [member("setup.py")],
    "same file twice": [member("p-1/a"), member("p-1/a", b"other")],
    "below a file": [member("p-1/a"), member("p-1/a/b")],
    "file where a folder is": [member("p-1/a/b"), member("p-1/a")],
    "folder where a file is": [member("p-1/a"), member("p-1/a", kind=tarfile.DIRTYPE)],
    "link to the outside": [member("p-1/l", kind=tarfile.SYMTYPE, target="../../etc/passwd")],
    "link inside": [member("p-1/a"), member("p-1/l", kind=tarfile.SYMTYPE, target="a")],
    "hard link": [member("p-1/l", kind=tarfile.LNKTYPE, target="/etc/passwd")],
    "device": [member("p-1/null", kind=tarfile.CHRTYPE)],
    "pipe": [member("p-1/pipe", kind=tarfile.FIFOTYPE)],
    "no files": [member("p-1/", kind=tarfile.DIRTYPE)],
}


@pytest.mark.parametrize("case", REFUSED)
def test_hostile_entries_are_refused_by_name(tmp_path: Path, case: str) -> None:
    path = write(tmp_path / "p-1.tar.gz", *REFUSED[case])
    with pytest.raises(InputError) as caught:
        list(Sdist(path))
    assert caught.value.where == path
    assert caught.value.expected


def test_links_are_named_as_links(tmp_path: Path) -> None:
    path = write(tmp_path / "p-1.tar.gz", *REFUSED["link inside"])
    with pytest.raises(InputError, match="'p-1/l' is a link"):
        list(Sdist(path))


def test_a_bomb_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "p-1.tar.gz"
    info = tarfile.TarInfo("p-1/zeros")
    info.size = 3 << 30
    with gzip.open(path, "wb", compresslevel=1) as sink:
        sink.write(info.tobuf())
        for _ in range(256):
            sink.write(bytes(1 << 20))
    start = time.process_time()
    with pytest.raises(InputError, match="unpacks to more than"):
        list(Sdist(path))
    assert time.process_time() - start < 1


def test_many_small_files_cannot_add_up_to_a_bomb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "RATIO_FLOOR", 1 << 16)
    path = write(tmp_path / "p-1.tar.gz", *[member(f"p-1/{n}", bytes(5000)) for n in range(200)])
    with pytest.raises(InputError, match="unpacks to more than"):
        list(Sdist(path))


def test_a_huge_extended_header_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "RATIO_FLOOR", 1 << 20)
    path = tmp_path / "p-1.tar.gz"
    info = tarfile.TarInfo("header")
    info.type, info.size = tarfile.XHDTYPE, 8 << 20
    path.write_bytes(gzip.compress(info.tobuf() + bytes(8 << 20)))
    with pytest.raises(InputError, match="unpacks to more than"):
        list(Sdist(path))


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchwheel.source.sdist.MAX_ENTRIES", 3)
    path = write(tmp_path / "p-1.tar.gz", *[member(f"p-1/{n}") for n in range(5)])
    with pytest.raises(InputError, match="more than 3 entries"):
        list(Sdist(path))


def test_an_archive_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = write(
        tmp_path / "p-1.tar.gz", *[member(f"p-1/{n}", bytes(range(256)) * 9) for n in range(9)]
    ).read_bytes()
    path = tmp_path / "cut.tar.gz"
    for size in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            list(Sdist(path))


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path: Path) -> None:
    path = write(tmp_path / "p-1.tar.gz", member("p-1/a", bytes(range(256)) * 99))
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # in gzip's checksum
    path.write_bytes(data)
    with pytest.raises(InputError, match="is damaged"):
        list(Sdist(path))


def test_a_damaged_header_in_the_middle_does_not_end_the_archive_early(tmp_path: Path) -> None:
    path = write(tmp_path / "p-1.tar.gz", *[member(f"p-1/{n}") for n in range(4)])
    path = repacked(path, lambda tar: tar[:2048] + b"?" * 512 + tar[2560:])
    with pytest.raises(InputError, match="something else follows"):
        list(Sdist(path))


def test_something_behind_the_archive_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "p-1.tar.gz", member("p-1/a"))
    with pytest.raises(InputError, match="something else follows"):
        list(Sdist(repacked(path, lambda tar: tar + b"payload")))


def test_a_tail_of_padding_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "RATIO_FLOOR", 1 << 20)
    path = write(tmp_path / "p-1.tar.gz", member("p-1/a"))
    with pytest.raises(InputError, match="unpacks to more than"):
        list(Sdist(repacked(path, lambda tar: tar + bytes(4 << 20))))


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p-1.tar.gz"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match="is damaged"):
        list(Sdist(path))


def test_a_negative_size_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("p-1/a")
    info.size = -512
    path = tmp_path / "p-1.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048)))
    with pytest.raises(InputError):
        list(Sdist(path))
