"""The project's own forks: their grafts are real, and the same bytes wherever they are made."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from patchwheel.kit.store import Store
from patchwheel.project import Project
from patchwheel.series import patch_alone
from patchwheel.wheelfile.read import read_wheel
from tests.conftest import Stack
from tests.fixtures import support

# SciPy and CuPy have compiled code: SciPy is configured twice; of CuPy 2 GB of CUDA are needed, and
# 20,000 lines of C++ are compiled twice. That of tinyext is compared in test_project.py.
HEAVY = ("scipy", "scikit-image", "cupy")
FORKS = ("scikit-learn", *(pytest.param(fork, marks=pytest.mark.heavy) for fork in HEAVY))

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("forks")]


def build(root: Path, fork: str, store: Path, **variables: str) -> Path:
    """Build a fork from a copy of the project and return the wheel in its dist folder."""
    support.copy_project(root)
    subprocess.run(
        [sys.executable, "-m", "patchwheel", "build", fork],
        cwd=root,
        env={**os.environ, "PATCHWHEEL_STORE": str(store), **variables},
        check=True,
        timeout=500,
    )
    [wheel] = (root / "dist").glob("*.whl")
    return wheel


@pytest.mark.parametrize("fork", FORKS)
def test_a_graft_is_bit_identical_in_other_folders_and_circumstances(
    fork: str, stack: Stack, tmp_path: Path
) -> None:
    [first] = (stack.project / "dist").glob(f"{fork.replace('-', '_')}*.whl")
    assert ".graft-" in first.name
    # Downloads are pinned by hash; only they are shared, so all else is made again.
    other = tmp_path / "elsewhere" / "store"
    Store(other).ensure()
    shutil.copytree(stack.store / "files", other / "files", copy_function=os.link)
    umask = os.umask(0o077)
    try:
        second = build(
            tmp_path / "elsewhere" / "another",
            fork,
            other,
            PYTHONHASHSEED="2",
            TZ="Pacific/Kiritimati",
            LC_ALL="C",
        )
    finally:
        os.umask(umask)
    assert support.sha256(first) == support.sha256(second)
    record = json.loads(read_wheel(second).metadata("patchwheel.json"))
    assert record["route"] == "graft"


@pytest.mark.parametrize("fork", ["scipy", "scikit-learn", "scikit-image", "cupy"])
def test_a_patch_needs_no_other_than_it_says(fork: str, stack: Stack) -> None:
    """`Requires` names its own series too: `submit` and `test --each` take what it names."""
    manifest = stack.project / "forks.toml"
    project = Project(manifest, Store(stack.store), support.Recorder(), offline=True)
    [given] = project.manifest.select([fork])
    names = sorted(path.name for path in given.patches.glob("*.patch"))
    trees = {patch_alone(project, given, name).tree for name in names}
    assert len(trees) == len(names) > 1
