"""`lock` writes to the store and the project, and to no other place of the machine."""

import os
import sys
from pathlib import Path

import pytest

from patchwheel.manifest import load_lock
from tests.fixtures import support
from tests.fixtures.projects import VERSION, Project, make_project, sdist_table

pytestmark = [pytest.mark.network, pytest.mark.heavy]

# It does what a build may do: make its output. And what it may not, wherever it can.
GENERATOR = """\
import contextlib, pathlib, sys
for place in @PLACES@:
    with contextlib.suppress(OSError):
        pathlib.Path(place, "sprung").write_text("by generate.py")
pathlib.Path(sys.argv[1]).write_text("x = 1")
"""
FILES = {
    "pyproject.toml": '[build-system]\nbuild-backend = "mesonpy"\nrequires = ["meson-python"]\n'
    f'[project]\nname = "tinyext"\nversion = "{VERSION}"\n',
    "meson.build": f"project('tinyext', version: '{VERSION}')\n"
    "py = import('python').find_installation()\n"
    "py.install_sources('tinyext.py')\n"
    "custom_target(\n"
    "  'made', output: 'made.py', command: [py, files('generate.py'), '@OUTPUT@'],\n"
    "  install: true, install_dir: py.get_install_dir(),\n"
    ")\n",
    "tinyext.py": "",
}


def machine(*more: Path) -> dict[str, tuple[int, int, int]]:
    """Return size, time and inode of every file where installers and settings write."""
    roots = [Path("/etc"), Path("/usr/local"), Path(sys.base_prefix), Path(sys.prefix), *more]
    found = {}
    for root in roots:
        for top, folders, names in os.walk(root):
            # Other processes of the same Python write there.
            folders[:] = [name for name in folders if name != "__pycache__"]
            for name in names:
                info = (path := Path(top, name)).lstat()
                found[str(path)] = (info.st_size, info.st_mtime_ns, info.st_ino)
    return found


@pytest.mark.parametrize("sandbox", [pytest.param("required", marks=pytest.mark.sandbox), "none"])
def test_lock_changes_nothing_outside_store_and_project(tmp_path: Path, sandbox: str) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    for folder in (home, temporary, tmp_path / "shelf"):
        folder.mkdir()
    text = GENERATOR.replace("@PLACES@", repr([str(home), str(temporary), str(tmp_path)]))
    sdist = support.make_sdist(
        tmp_path / "shelf", "tinyext", VERSION, {**FILES, "generate.py": text}
    )
    project: Project = make_project(
        tmp_path / "project", sdist_table(sdist), {}, tmp_path / "store", tmp_path / "shelf"
    )
    before = machine(home, temporary)
    said = project.start(
        "lock",
        "--sandbox",
        sandbox,
        HOME=str(home),
        TMPDIR=str(temporary),
        # The downloads that uv keeps for all its users.
        UV_CACHE_DIR=str(tmp_path / "uv"),
    ).communicate(timeout=300)[1]
    assert (project.root / "forks.lock").exists(), said
    after = machine(home, temporary)
    assert {p for p in before.keys() | after if before.get(p) != after.get(p)} == set()
    assert not (tmp_path / "sprung").exists()
    assert ("not run without bubblewrap: generate.py" in said) == (sandbox == "none")
    [build] = load_lock(project.root / "forks.lock").forks["tinyext"].builds.values()
    assert build.inventory.built == {"made.py"}
