import stat
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from patchwheel.kit.errors import InputError
from patchwheel.wheelfile import archive as archive_module
from patchwheel.wheelfile.archive import make_entry, zip_date
from patchwheel.wheelfile.read import check_record, output_names, read_wheel, write_wheel
from tests.fixtures import support

INFO = "demo-1.0.dist-info"
DATE = (2023, 11, 14, 22, 13, 20)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    files = {"demo/a.py": "a = 1\n" * 50, "demo/ü.py": "u = 1\n", "demo/empty": ""}
    return support.make_wheel(tmp_path, "demo", "1.0", files)


def rewrite(wheel: Path, edit: Callable[[dict[str, bytes]], None], folder: str = "edited") -> Path:
    """Write the wheel's files again after an edit, RECORD as it was unless edited."""
    with zipfile.ZipFile(wheel) as archive:
        files = {n: archive.read(n) for n in archive.namelist()}
    edit(files)
    target = wheel.parent / folder / wheel.name
    target.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target


def test_reads_what_a_wheel_holds(wheel: Path) -> None:
    found = read_wheel(wheel, sha256=support.sha256(wheel))
    with zipfile.ZipFile(wheel) as archive:
        assert list(found.entries) == archive.namelist()
    assert found.dist_info == INFO
    assert found.entries["demo/a.py"].checked() == b"a = 1\n" * 50
    assert found.entries["demo/empty"].checked() == b""
    assert b"Name: demo" in found.metadata("METADATA")
    assert b"demo/a.py" in found.metadata("RECORD")
    check_record(found)


def test_written_again_it_has_the_same_packed_bytes_and_installs(wheel: Path) -> None:
    before = read_wheel(wheel)
    kept = [e for e in before.entries.values() if e.name != f"{INFO}/RECORD"]
    fresh = make_entry("demo/b.py", b"b = 2\n", mode=0o755, date=DATE)
    target = wheel.parent / "out" / wheel.name
    target.parent.mkdir()
    write_wheel(target, INFO, [*kept, fresh])
    after = read_wheel(target)
    check_record(after)
    for entry in kept:
        assert after.entries[entry.name] == entry
    assert list(after.entries)[-1] == f"{INFO}/RECORD"
    assert list(after.entries).index("demo/b.py") < list(after.entries).index(f"{INFO}/METADATA")
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        mode = archive.getinfo("demo/b.py").external_attr >> 16
        assert mode == stat.S_IFREG | 0o755
        assert archive.getinfo("demo/b.py").date_time == DATE
    place = wheel.parent / "installed"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(target), str(place)], check=True)
    assert (place / "demo" / "ü.py").read_text() == "u = 1\n"


def test_the_same_entries_give_the_same_bytes(wheel: Path) -> None:
    entries = [e for e in read_wheel(wheel).entries.values() if "RECORD" not in e.name]
    one, other = wheel.parent / "one.whl", wheel.parent / "other.whl"
    write_wheel(one, INFO, entries)
    write_wheel(other, INFO, entries)
    assert one.read_bytes() == other.read_bytes()


def test_other_bytes_than_pinned(wheel: Path) -> None:
    with pytest.raises(InputError, match="sha256 mismatch") as caught:
        read_wheel(wheel, sha256="0" * 64)
    assert "0" * 64 in str(caught.value)


def test_a_missing_or_broken_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such wheel"):
        read_wheel(tmp_path / "demo-1.0-py3-none-any.whl")
    broken = tmp_path / "demo-1.0-py3-none-any.whl"
    broken.write_bytes(b"PK\5\6 not a zip")
    with pytest.raises(InputError, match="no sound wheel"):
        read_wheel(broken)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda f: f.pop(f"{INFO}/RECORD"), "has no demo-1.0.dist-info/RECORD"),
        (lambda f: f.update({"demo/extra.py": b""}), "RECORD lacks demo/extra.py"),
        (lambda f: f.pop("demo/a.py"), "lists demo/a.py, which it lacks"),
        (lambda f: f.update({"demo/a.py": b"longer" * 99}), "no true hash and size"),
        (lambda f: f.update({f"{INFO}/RECORD": b"\xff"}), "cannot be read"),
        (lambda f: f.update({f"{INFO}/RECORD": b"one,two\n"}), "has the row"),
        (lambda f: f.update({"x-1.dist-info/A": b""}), "has 2 dist-info folders"),
        (lambda f: f.update({"../up.py": b""}), "no safe name"),
        (lambda f: f.update({"/abs.py": b""}), "no safe name"),
        (lambda f: f.update({"a//b.py": b""}), "no safe name"),
        (lambda f: f.update({"a\\b.py": b""}), "no safe name"),
        (lambda f: f.update({"C:/b.py": b""}), "no safe name"),
        (lambda f: f.update({"demo/a.py/": b""}), "demo/a.py is in it twice"),
    ],
)
def test_unsound_wheels_are_refused(
    wheel: Path, edit: Callable[[dict[str, bytes]], None], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        read_wheel(rewrite(wheel, edit))


def test_a_record_that_lies_is_found_when_the_file_is_used(wheel: Path) -> None:
    lying = rewrite(wheel, lambda f: f.update({"demo/a.py": b"b = 1\n" * 50}))
    found = read_wheel(lying)
    with pytest.raises(InputError, match=r"demo/a\.py: does not match RECORD"):
        found.entries["demo/a.py"].checked()
    with pytest.raises(InputError, match="does not match RECORD"):
        check_record(found)
    # What is the same as in a wheel that was checked before is not hashed again; anything else is.
    check_record(found, trusted=found)
    with pytest.raises(InputError, match="does not match RECORD"):
        check_record(found, trusted=read_wheel(wheel))


def test_the_dist_info_folder_may_write_the_version_otherwise(tmp_path: Path) -> None:
    wheel = support.make_wheel(tmp_path, "de.mo", "1.0", {"demo.py": ""})
    other = wheel.rename(tmp_path / "de_mo-1.0.0-py3-none-any.whl")
    assert read_wheel(other).dist_info.endswith("-1.0.dist-info")
    with pytest.raises(InputError, match="dist-info folder is"):
        read_wheel(other.rename(tmp_path / "de_mo-1.0.1-py3-none-any.whl"))


def test_a_wheel_of_another_name(wheel: Path) -> None:
    other = wheel.rename(wheel.with_name("other-1.0-py3-none-any.whl"))
    with pytest.raises(InputError, match=r"dist-info folder is demo-1\.0"):
        read_wheel(other)
    strange = other.rename(other.with_name("strange.whl"))
    with pytest.raises(InputError, match="no wheel's file name"):
        read_wheel(strange)


def special(wheel: Path, filename: str = "demo/special", data: str = "", **fields: object) -> None:
    """Add an entry with other fields of the directory than a wheel has."""
    row = zipfile.ZipInfo(filename)
    for name, value in fields.items():
        setattr(row, name, value)
    with zipfile.ZipFile(wheel, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(row, data)


def overwrite(wheel: Path, at: int, data: bytes) -> None:
    content = bytearray(wheel.read_bytes())
    content[at : at + len(data)] = data
    wheel.write_bytes(content)


def overwrite_row(wheel: Path, offset: int, data: bytes) -> None:
    """Overwrite a field of RECORD's row in the central directory."""
    start = wheel.read_bytes().rindex(f"{INFO}/RECORD".encode()) - 46
    overwrite(wheel, start + offset, data)


def comment(wheel: Path) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.comment = b"hello"


def fill_folder(wheel: Path) -> None:
    special(wheel, "demo/sub", "content")
    wheel.write_bytes(wheel.read_bytes().replace(b"demo/sub", b"demo/su/"))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda w: special(w, "demo/a.py", "other"), r"demo/a\.py is in it twice"),
        (lambda w: special(w, external_attr=(stat.S_IFLNK | 0o777) << 16), "neither a file nor"),
        (lambda w: special(w, compress_type=zipfile.ZIP_BZIP2), "compressed with method 12"),
        (comment, "comment"),
        (lambda w: overwrite_row(w, 8, b"\1\0"), "encrypted"),
        # Two rows of the directory that point to one local header.
        (lambda w: overwrite_row(w, 42, b"\0\0\0\0"), "is not where the directory says"),
        (
            lambda w: overwrite(w, w.read_bytes().index(b"demo/a.py"), b"demo/b"),
            "not what it says",
        ),
        (lambda w: overwrite(w, 8, b"\0\0"), "not what it says"),
        (lambda w: overwrite_row(w, 20, b"\0\0\x10\0"), "no sound wheel"),
        (fill_folder, "folder with content"),
    ],
)
def test_unsound_archives_are_refused(
    wheel: Path, damage: Callable[[Path], None], problem: str
) -> None:
    damage(wheel)
    with pytest.raises(InputError, match=problem):
        read_wheel(wheel)


def test_damaged_content(wheel: Path) -> None:
    found = read_wheel(wheel)
    entry = found.entries["demo/a.py"]
    damaged = replace(entry, packed=b"\xff" * len(entry.packed))
    with pytest.raises(InputError, match="cannot be decompressed"):
        damaged.content()
    with pytest.raises(InputError, match="does not match its checksum"):
        replace(entry, crc=1).content()
    with pytest.raises(InputError, match=f"has no {INFO}/nothing"):
        found.metadata("nothing")


def test_folders_and_stored_entries(wheel: Path) -> None:
    special(wheel, "demo/sub/", external_attr=(stat.S_IFDIR | 0o755) << 16)
    assert "demo/sub/" not in read_wheel(wheel).entries
    stored = support.make_wheel(wheel.parent / "s", "demo", "1.0", {"demo/a.py": "a"})
    entry = read_wheel(stored).entries["demo/a.py"]
    plain = replace(entry, method=zipfile.ZIP_STORED, packed=b"a")
    assert plain.checked() == b"a"


def test_too_large_for_a_plain_zip(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = read_wheel(wheel).entries.values()
    monkeypatch.setattr(archive_module, "MAX_SIZE", 100)
    with pytest.raises(InputError, match="larger than a zip"):
        write_wheel(wheel, INFO, entries)
    with pytest.raises(InputError, match="has 4 GiB or more"):
        read_wheel(wheel)


def test_dates_fit_a_zip() -> None:
    assert zip_date(support.EPOCH) == DATE
    assert zip_date(0) == (1980, 1, 1, 0, 0, 0)
    assert zip_date(10**11)[0] == 2107


def test_the_data_folder_is_named_without_the_label(tmp_path: Path) -> None:
    files = {"a.py": "", "demo-1.0+x.h1.data/scripts/run": ""}
    wheel = read_wheel(support.make_wheel(tmp_path, "demo", "1.0+x.h1", files))
    assert output_names(wheel.entries, wheel.name) == {
        "a.py": "a.py",
        "demo-1.0.data/scripts/run": "demo-1.0+x.h1.data/scripts/run",
    }
