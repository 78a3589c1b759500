"""Release wheels of two small real forks: made, checked offline, built again, indexed, installed with pip and uv."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import support
from projectkit import PYTHON, VERSION, Project, sdist_table

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = Path(__file__).parent.parent / "packages"
FORKS = ("tinyext", "tinyset")

pytestmark = [
    pytest.mark.network,
    pytest.mark.compiled,
    pytest.mark.xdist_group("release"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Both forks, one with a patch, locked."""
    folder = tmp_path_factory.mktemp("release")
    shelf, root = folder / "shelf", folder / "project"
    shelf.mkdir()
    tables = {}
    for fork in FORKS:
        files = {
            str(path.relative_to(PACKAGES / fork)): path.read_bytes()
            for path in sorted((PACKAGES / fork).rglob("*"))
            if path.is_file()
        }
        sdist = support.make_sdist(shelf, fork, VERSION, files)
        tables[fork] = sdist_table(sdist)
        support.make_upstream(folder / fork, files)
    support.make_manifest(root, tables, python=PYTHON)
    init = folder / "tinyext/src/tinyext/__init__.py"
    why = "Carried for the tests.\n\nUpstream-Status: Backport [0123abc]\n"
    patch = support.make_patch(
        folder / "tinyext",
        {"src/tinyext/__init__.py": init.read_text() + '\nGREETING = "hello"\n'},
        subject="Greet",
        body=why,
    )
    support.make_series(root / "patches/tinyext", {"0010-greet.patch": patch})
    support.make_series(root / "patches/tinyset", {})
    made = Project(root=root, store=folder / "store", shelf=shelf)
    made.run("lock")
    return made


@pytest.fixture(scope="module")
def dist(project: Project) -> Path:
    project.run("build", "--release")
    return project.root / "dist"


@pytest.fixture
def copied(dist: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dist, tmp_path / "dist"))


def test_a_release_is_complete_and_labelled(dist: Path) -> None:
    names = sorted(path.name for path in dist.iterdir())
    wheels = [name for name in names if name.endswith(".whl")]
    assert [name.split("-")[0] for name in wheels] == list(FORKS)
    assert not any("graft" in name for name in wheels)
    assert all("manylinux" in name for name in wheels)
    beside = [f"{name}.intoto.json" for name in wheels]
    assert names == sorted([*wheels, *beside, "SHA256SUMS", "pylock.toml"])
