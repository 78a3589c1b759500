from pathlib import Path

import pytest

from patchwheel.kit.errors import PatchError
from patchwheel.series.files import load_series, name_patches
from tests.fixtures.patches import ONE, mail, patch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "patches" / "demo"
    folder.mkdir(parents=True)
    for name in ("0010-a.patch", "0020-b.patch"):
        (folder / name).write_bytes(mail(ONE))
    return folder


def error_of(folder: Path, text: str) -> PatchError:
    (folder / "series").write_bytes(text.encode())
    with pytest.raises(PatchError) as caught:
        load_series(folder)
    return caught.value


def test_comments_blanks_crlf_and_a_missing_last_newline_are_tolerated(folder: Path) -> None:
    text = "# head\r\n\r\n  0020-b.patch  \r\n0010-a.patch # why"
    (folder / "series").write_bytes(text.encode())
    series = load_series(folder)
    assert [p.name for p in series.patches] == ["0020-b.patch", "0010-a.patch"]
    assert series.lines == ("# head", "", "  0020-b.patch", "0010-a.patch # why")
    assert series.folder.name == "demo"


def test_an_empty_series_is_a_fork_without_patches(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "series").touch()
    assert load_series(folder).patches == ()


def test_a_fork_without_series_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(PatchError, match="the fork demo has no series") as caught:
        load_series(tmp_path / "demo")
    assert "touch" in str(caught.value.hint)


@pytest.mark.parametrize(
    "line",
    [
        "0010-a.patch -p0",
        "../demo/0010-a.patch",
        "sub/0010-a.patch",
        "/etc/0010-a.patch",
        "-p1.patch",
        "README.md",
        "0010-a.patch\t-R",
    ],
)
def test_what_is_no_plain_patch_name_is_refused_with_its_line(folder: Path, line: str) -> None:
    error = error_of(folder, f"# comment\n{line}\n")
    assert "is not the name of a patch" in error.message
    assert str(error.where).endswith("series:2")


def test_a_missing_patch_names_the_line_and_a_near_name(folder: Path) -> None:
    error = error_of(folder, "0010-a.patch\n0020-c.patch\n")
    assert error.message == "there is no patch 0020-c.patch (did you mean '0020-b.patch'?)"
    assert str(error.where).endswith("series:2")


def test_a_doubled_patch_is_refused(folder: Path) -> None:
    error = error_of(folder, "0010-a.patch\n0020-b.patch\n0010-a.patch\n")
    assert error.message == "0010-a.patch is listed twice"
    assert str(error.where).endswith("series:3")


def test_a_patch_that_is_not_listed_is_refused_with_the_command(folder: Path) -> None:
    error = error_of(folder, "0010-a.patch\n")
    assert "0020-b.patch is not listed" in error.message
    assert "rm " in str(error.hint)


def test_links_are_refused(folder: Path) -> None:
    (folder / "0030-c.patch").symlink_to(folder / "0010-a.patch")
    error = error_of(folder, "0010-a.patch\n0020-b.patch\n0030-c.patch\n")
    assert "symbolic link" in error.message


def test_a_folder_in_place_of_a_patch_or_of_the_series_is_an_error(folder: Path) -> None:
    (folder / "0030-c.patch").mkdir()
    assert "cannot be read" in error_of(folder, "0030-c.patch\n").message
    (folder / "series").unlink()
    (folder / "series").mkdir()
    with pytest.raises(PatchError, match="cannot be read"):
        load_series(folder)


def test_loading_parses_nothing(folder: Path) -> None:
    (folder / "0010-a.patch").write_bytes(b"\xff\0 anything")
    (folder / "series").write_text("0010-a.patch\n0020-b.patch\n")
    assert len(load_series(folder).patches) == 2


@pytest.mark.parametrize(
    ("names", "at", "expected"),
    [
        ([], 0, ["0010-n"]),
        (["0010-a"], 1, ["0020-n"]),
        (["0010-a"], 0, ["0005-n"]),
        (["0010-a", "0020-b"], 1, ["0015-n"]),
        (["0010-a", "0050-b"], 1, ["0020-n"]),
        (["0010-a", "0011-b"], 1, ["0010-n"]),
        (["0017-a"], 1, ["0020-n"]),
        (["0030-a", "0010-b"], 1, ["0040-n"]),
        (["a", "b"], 1, ["0010-n"]),
        (["0010-n"], 1, ["0020-n"]),
        (["0020-a", "0010-n"], 0, ["0010-n-2"]),
        (["0010-a", "0020-b"], 1, ["0013-n", "0016-n"]),
    ],
)
def test_new_patches_are_numbered_by_their_place(
    names: list[str], at: int, expected: list[str]
) -> None:
    data = mail(ONE, subject="n")
    old = [patch(data, f"{name}.patch") for name in names]
    commits = [patch(data) for _ in expected]
    mixed = [*old[:at], *([None] * len(expected)), *old[at:]]
    fresh = [*old[:at], *commits, *old[at:]]
    found = name_patches(fresh, mixed)
    assert found[at : at + len(expected)] == [f"{name}.patch" for name in expected]
