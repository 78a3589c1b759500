"""The project's own forks: their grafts are real, and the same bytes wherever they are made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import support

from patchwheel.wheelfile import read_wheel

ROOT = Path(__file__).parents[2]
FORKS = {"scipy", "scikit-learn", "scikit-image", "cupy"}

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("forks")]


def build(root: Path, store: Path, **variables: str) -> dict[str, Path]:
    """Build every fork from a copy of the project; by distribution, the wheels that lie in its dist folder."""
    root.mkdir()
    for name in ("forks.toml", "forks.lock"):
        shutil.copy(ROOT / name, root)
    shutil.copytree(ROOT / "patches", root / "patches")
    subprocess.run(
        [sys.executable, "-m", "patchwheel", "build"],
        cwd=root,
        env={**os.environ, "PATCHWHEEL_STORE": str(store), **variables},
        check=True,
        timeout=500,
    )
    return {p.name.partition("-")[0]: p for p in (root / "dist").glob("*.whl")}


def test_grafts_of_all_forks_are_bit_identical_in_other_folders_and_circumstances(
    tmp_path: Path,
) -> None:
    first = build(tmp_path / "one", tmp_path / "store", PYTHONHASHSEED="1")
    assert len(first) == len(FORKS)
    for wheel in first.values():
        assert ".graft-" in wheel.name
    # Downloads are pinned by hash; only they are shared, so all else is made again.
    other = tmp_path / "elsewhere" / "store"
    shutil.copytree(
        tmp_path / "store" / "files", other / "files", copy_function=os.link
    )
    umask = os.umask(0o077)
    try:
        second = build(
            tmp_path / "elsewhere" / "another",
            other,
            PYTHONHASHSEED="2",
            TZ="Pacific/Kiritimati",
            LC_ALL="C",
        )
    finally:
        os.umask(umask)
    sums = {name: support.sha256(path) for name, path in first.items()}
    assert {name: support.sha256(path) for name, path in second.items()} == sums
    for name, wheel in second.items():
        record = json.loads(read_wheel(wheel).metadata("patchwheel.json"))
        assert record["route"] == "graft", name
