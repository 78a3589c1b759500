"""The cells of the CI matrix that need no GPU, run by the command that the workflows run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from patchwheel import __version__
from tests.conftest import Stack
from tests.fixtures import support
from tests.fixtures.projects import (
    PYTHON,
    Project,
    make_project,
    package_files,
    publish,
    sdist_table,
)

TEST = "from tinyext import GREETING\n\n\ndef test_greets():\n    assert GREETING == 'hello'\n"

pytestmark = pytest.mark.network


class Cells:
    """A project with workflows and scripts; `run` is what a job does."""

    def __init__(self, root: Path, env: dict[str, str]) -> None:
        self.root = root
        self.env = env

    def run(self, cell: str, *, status: int = 0) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        outputs, summary = self.root / "outputs", self.root / "summary.md"
        done = subprocess.run(
            ["ci/run-cell", cell],
            cwd=self.root,
            env={
                **os.environ,
                **self.env,
                "PATH": path,
                "GITHUB_OUTPUT": str(outputs),
                "GITHUB_STEP_SUMMARY": str(summary),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=580,
        )
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    def output(self, name: str) -> str:
        lines = (self.root / "outputs").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)[name]

    @property
    def summary(self) -> str:
        return (self.root / "summary.md").read_text()

    @property
    def matrix(self) -> dict[str, list[dict[str, Any]]]:
        self.run("plan")
        answer: dict[str, list[dict[str, Any]]] = json.loads(self.output("matrix"))
        return answer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, packages_store: Path) -> Cells:
    """A project of one small fork whose series brings a test, with an upstream wheel as base."""
    root = tmp_path_factory.mktemp("cells")
    upstream, shelf = root / "upstream", root / "shelf"
    files = package_files("tinyext")
    support.make_upstream(upstream, files)
    sdist = support.make_sdist(shelf, "tinyext", "1.2.0", files)
    init = files["src/tinyext/__init__.py"].decode()
    greet = support.make_patch(
        upstream,
        {"src/tinyext/__init__.py": f'{init}\nGREETING = "hello"\n', "tests/test_greet.py": TEST},
        subject="Greet | all",
        body="Carried for the tests.\n\nUpstream-Status: Inappropriate [a test]\n",
    )
    plain = make_project(root / "plain", sdist_table(sdist), {}, packages_store, shelf)
    plain.run("lock")
    support.make_index(shelf / "simple", sdist, publish(plain.build(), shelf))
    patches = {"0010-greet.patch": greet}
    table = sdist_table(sdist, extra="")
    project: Project = make_project(root / "project", table, patches, packages_store, shelf)
    manifest = project.root / "forks.toml"
    text = manifest.read_text()
    manifest.write_text(text.replace("requires = []", 'requires = []\ntest-requires = ["pytest"]'))
    project.run("lock")
    # Nothing of our own repository is there.
    project.run("ci")
    assert (project.root / "ci/requirements.txt").read_text() == f"patchwheel=={__version__}\n"
    return Cells(project.root, {"PATCHWHEEL_STORE": str(project.store), **project.index})


@pytest.mark.compiled
@pytest.mark.xdist_group("packages")
def test_a_pull_request_from_plan_to_a_composed_environment(tiny: Cells) -> None:
    matrix = tiny.matrix
    assert [row["cell"] for row in matrix["graft"]] == [f"graft-tinyext-{PYTHON}"]
    for kind in ("graft", "test", "compose"):
        for row in matrix[kind]:
            tiny.run(row["cell"])
    [wheel] = (tiny.root / "dist").glob("*.whl")
    assert ".graft-" in wheel.name
    report = json.loads((tiny.root / f"dist/reports/graft-tinyext-{PYTHON}.json").read_text())
    assert report["wheels"][0]["file"] == wheel.name
    assert report["wheels"][0]["sha256"] == support.sha256(wheel)
    # The artifact carries the key that is in the label.
    key = wheel.name.split("+arrayapi.h")[1][:8]
    assert tiny.output("artifact") == f"graft-tinyext-{PYTHON}-{key}"
    [line] = [x for x in tiny.summary.splitlines() if x.startswith("| tinyext |")]
    assert "| 1.2.0 (sdist) | 0010-greet.patch | graft |" in line
    assert support.sha256(wheel) in line
    python = tiny.root / f"publish/env-{PYTHON}/bin/python"
    found = subprocess.check_output(
        [python, "-c", "import tinyext; print(tinyext.GREETING)"], text=True
    )
    assert found == "hello\n"


@pytest.mark.compiled
@pytest.mark.xdist_group("packages")
def test_the_workflows_of_another_manifest_stop_the_plan(tiny: Cells) -> None:
    path = tiny.root / ".github/workflows/check.yml"
    text = path.read_text()
    try:
        path.write_text(text.replace("tinyext", "other"))
        assert "not what the manifest gives: check.yml" in tiny.run("plan", status=6)
        assert "### plan: failed, exit status 6" in tiny.summary
    finally:
        path.write_text(text)


@pytest.mark.compiled
@pytest.mark.xdist_group("packages")
def test_a_release_is_staged_validated_and_promoted(tiny: Cells) -> None:
    pytest.importorskip("patchwheel.release.check")
    for row in tiny.matrix["release"]:
        tiny.run(row["cell"])
    for cell in ("stage", "validate", "promote"):
        tiny.run(cell)
    [wheel] = (tiny.root / "publish/site").glob("*.whl")
    assert ".graft-" not in wheel.name
    page = tiny.root / "publish/site/simple/tinyext/index.html"
    assert wheel.name.replace("+", "%2B") in page.read_text()
    names = {path.name for path in (tiny.root / "publish/staged/release").iterdir()}
    assert {wheel.name, f"{wheel.name}.intoto.json", "SHA256SUMS"} <= names
    # Another file of a name that was published before stops the next release.
    earlier = tiny.root / "publish/earlier"
    support.write(earlier, {wheel.name: b"other"})
    assert f"two files are called {wheel.name}" in tiny.run("stage", status=6)
    assert not (tiny.root / "publish/staged").exists()
    shutil.rmtree(earlier)
    # A byte that changes after staging is found before anything is installed.
    tiny.run("stage")
    staged = tiny.root / "publish/staged/release" / wheel.name
    data = bytearray(staged.read_bytes())
    data[len(data) // 2] ^= 1
    staged.write_bytes(data)
    tiny.run("validate", status=6)


@pytest.mark.compiled
@pytest.mark.xdist_group("packages")
def test_a_scheduled_rebuild(tiny: Cells) -> None:
    pytest.importorskip("patchwheel.release.recompile")
    for row in tiny.matrix["rebuild"]:
        tiny.run(row["cell"])


def real(stack: Stack) -> Cells:
    """Give the project of the four forks its scripts and workflows."""
    shutil.copytree(support.ROOT / "ci", stack.project / "ci", dirs_exist_ok=True)
    shutil.copytree(support.ROOT / ".github", stack.project / ".github", dirs_exist_ok=True)
    env = {"PATCHWHEEL_STORE": str(stack.store), "UV_CACHE_DIR": os.environ["UV_CACHE_DIR"]}
    return Cells(stack.project, env)


@pytest.mark.heavy
@pytest.mark.xdist_group("forks")
def test_the_pull_request_cells_of_the_real_forks(stack: Stack) -> None:
    cells = real(stack)
    matrix = cells.matrix
    for kind in ("graft", "compose"):
        for row in matrix[kind]:
            cells.run(row["cell"])
    assert len(list((stack.project / "dist").glob("*.whl"))) == len(matrix["graft"])
    assert (stack.project / "publish/env-3.12/bin/python").exists()


@pytest.mark.heavy
@pytest.mark.xdist_group("forks")
def test_the_heavy_cells_of_the_real_forks(stack: Stack) -> None:
    cells = real(stack)
    # Without ROCm's image this variant cannot be built here, and would stop the publication.
    manifest = cells.root / "forks.toml"
    text, cut = re.subn(
        r"(?ms)^\[forks\.cupy\.variants\.rocm7\]\n.*?(?=^\[|\Z)", "", manifest.read_text()
    )
    assert cut == 1
    manifest.write_text(text)
    stack.run("ci")
    matrix = cells.matrix
    for kind in ("graft", "test", "release"):
        for row in matrix[kind]:
            assert not row.get("container")
            cells.run(row["cell"])
    for cell in ("stage", "validate", "promote"):
        cells.run(cell)
    for row in matrix["rebuild"]:
        cells.run(row["cell"])
