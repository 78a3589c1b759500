"""A small real project of scikit-build-core: what a change reaches, followed through CMake."""

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.fixtures import support
from tests.fixtures.projects import VERSION, Project, built_pin, edited

PACKAGE = Path(__file__).parent.parent / "packages" / "tinycmake"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
SUM, TABLE = (f"tinycmake/{name}{SUFFIX}" for name in ("_sum", "_table"))
LIMITS, HEADER = "tinycmake/limits.py", "tinycmake/include/tinysums.h"
LIST = "CMakeLists.txt"
FILES = {
    str(path.relative_to(PACKAGE)): path.read_bytes()
    for path in sorted(PACKAGE.rglob("*"))
    if path.is_file()
}

pytestmark = [pytest.mark.network, pytest.mark.compiled, pytest.mark.xdist_group("cmake")]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("upstream") / "tinycmake"
    support.make_upstream(folder, FILES, tag=f"v{VERSION}")
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("cmake")
    (shelf := folder / "shelf").mkdir()
    return built_pin(folder, shelf, "tinycmake", FILES)


@pytest.mark.parametrize(
    ("path", "old", "new", "outputs"),
    [
        ("src/sum.c", "METH_VARARGS", "METH_VARARGS ", {SUM}),
        # Through a static library, and installed under another name.
        ("src/sums.h", ";", " ;", {SUM, HEADER}),
        ("src/sums.c", "one + two", "one - two", {SUM}),
        # Through a header that a script makes, and what the script imports.
        ("cmake/table.py", "ITEM}", "ITEM + 1}", {TABLE}),
        ("cmake/more.py", "3", "4", {TABLE}),
        # What configuring reads: only what it decides is made again.
        ("limit.inc", "7", "8", {TABLE, LIMITS}),
        (LIST, "_sum PRIVATE sums", "_sum PRIVATE sums -s", {SUM}),
        (LIST, "project(", "# A remark.\nproject(", set()),
    ],
)
def test_only_what_a_change_reaches_is_built(
    project: Project,
    upstream: Path,
    tmp_path: Path,
    path: str,
    old: str,
    new: str,
    outputs: set[str],
) -> None:
    other = edited(project, upstream, tmp_path / "p", {path: (old, new)})
    plan = other.decided()
    assert plan["route"] == "graft", plan["why"]
    assert {o["path"] for o in plan["outputs"]} == outputs


def test_another_version_is_a_compile(project: Project, upstream: Path, tmp_path: Path) -> None:
    other = edited(
        project, upstream, tmp_path / "p", {"src/tinycmake/__init__.py": ("1.2.0", "1.2.1")}
    )
    [wheel] = json.loads(other.run("build", "--json"))
    assert wheel["plan"]["why"][0] == "the project's version or licence changed"


def test_what_cannot_be_listed_is_a_compile(
    project: Project, upstream: Path, tmp_path: Path
) -> None:
    # Here a compile fails too; of others, CMake cannot install what only a build makes.
    script = 'install(CODE "message(FATAL_ERROR nothing)")\ninstall(TARGETS'
    other = edited(project, upstream, tmp_path / "p", {LIST: ("install(TARGETS", script)})
    assert "nothing" in other.run("build", status=5)
    [plan] = json.loads(other.run("plan", "--json"))
    assert plan["route"] == "compile"
    assert plan["why"][0] == "tinycmake: the project cannot be configured"


def test_the_graft_is_what_a_compile_makes(
    project: Project, upstream: Path, tmp_path: Path
) -> None:
    edits = {"src/sums.c": ("one + two", "one - two"), "limit.inc": ("7", "8")}
    other = edited(project, upstream, tmp_path / "p", edits)
    # It configures where ccache is found as the compiler; a proof has none.
    other.run("build")
    proof = json.loads(other.run("verify", "tinycmake", "--from-source", "--json"))
    assert (proof["differences"], proof["unnecessary"]) == ([], [])
    other.run("env", str(tmp_path / "env"))
    script = "import tinycmake as t, tinycmake.limits as l; print(t.total(5, 2), t.LIMIT, l.LIMIT)"
    python = tmp_path / "env" / "bin" / "python"
    assert subprocess.check_output([python, "-c", script], text=True) == "3 8 8\n"
