import os
import py_compile
from collections.abc import Mapping
from pathlib import Path

import pytest

from patchwheel.environment.compose import unpack
from tests.fixtures.support import make_wheel

FILES = {"pw/__init__.py": "x = 1\n", "pw/core.py": "y = 1\n", "pw/data.bin": "z"}


def unpacked(folder: Path, files: Mapping[str, str], before: Path | None = None) -> Path:
    wheel = make_wheel(folder / "wheels", "pw", "1.0", files)
    place = folder / f"made{len([*folder.glob('made*')])}"
    unpack(wheel, place, before)
    return place


def test_a_wheel_is_unpacked_for_import(tmp_path: Path) -> None:
    place = unpacked(tmp_path, {**FILES, "pw-1.0.data/platlib/pw/more.py": "m = 1\n"})
    assert (place / "pw/core.py").read_text() == "y = 1\n"
    assert (place / "pw/more.py").read_text() == "m = 1\n"
    assert (place / "pw-1.0.dist-info/METADATA").exists()


def test_what_did_not_change_is_copied_with_its_bytecode(tmp_path: Path) -> None:
    first = unpacked(tmp_path, FILES)
    caches = [py_compile.compile(str(first / name)) for name in ("pw/__init__.py", "pw/core.py")]
    second = unpacked(tmp_path, {**FILES, "pw/core.py": "y = 2\n"}, first)
    for name in ("pw/__init__.py", "pw/data.bin"):
        # An edit of one must not change the other.
        assert not (second / name).samefile(first / name)
        assert (second / name).stat().st_mtime_ns == (first / name).stat().st_mtime_ns
    assert (second / "pw/core.py").read_text() == "y = 2\n"
    assert (first / "pw/core.py").read_text() == "y = 1\n"
    kept, gone = (second / os.path.relpath(str(path), first) for path in caches)
    assert kept.exists()
    assert not gone.exists()


def test_what_is_gone_meanwhile_is_written(tmp_path: Path) -> None:
    first = unpacked(tmp_path, FILES)
    (first / "pw/core.py").unlink()
    second = unpacked(tmp_path, FILES, first)
    assert (second / "pw/core.py").read_text() == "y = 1\n"


@pytest.mark.parametrize("old", ["pw/part/x", "pw/part", "pw/part/__init__.py"])
@pytest.mark.parametrize("new", ["pw/part/x/y", "pw/part", "pw/part.py", "other"])
def test_nothing_stays_of_what_the_last_wheel_had_alone(tmp_path: Path, old: str, new: str) -> None:
    first = unpacked(tmp_path, {**FILES, old: "old"})
    # An empty folder could be imported, and a file of no wheel would stay for ever.
    (first / "pw/stray.py").touch()
    second = unpacked(tmp_path, {**FILES, new: "new"}, first)
    fresh = unpacked(tmp_path, {**FILES, new: "new"})
    found, wanted = ({path.relative_to(p) for path in p.rglob("*")} for p in (second, fresh))
    assert found == wanted
    assert (second / new).read_text() == "new"
