from dataclasses import replace

import pytest

from patchwheel.kit.repo import Blob, Change
from patchwheel.manifest.inventory import ANYTHING
from patchwheel.plan.classify import Rules
from tests.fixtures.grafts import INVENTORY

RULES = Rules(INVENTORY)


def effect(path: str, status: str = "M", new_mode: str = "100644") -> str:
    old = Blob(mode="000000" if status == "A" else "100644", oid="0" * 40)
    new = Blob(mode="000000" if status == "D" else new_mode, oid="1" * 40)
    return RULES.judge(Change(path=path, status=status, old=old, new=new)).effect


def test_a_script_that_was_not_watched_may_read_any_file() -> None:
    unwatched = replace(INVENTORY, opened={"tools/gen.py": frozenset({ANYTHING})})
    blobs = {n: Blob(mode="100644", oid=n * 40) for n in "01"}
    for path, expected in {
        "src/pw_demo/a.py": "trace",
        "src/pw_demo/data.txt": "compile",
        "docs/index.md": "compile",
        "src/pw_demo/_fast.pyx": "trace",
    }.items():
        change = Change(path=path, status="M", old=blobs["0"], new=blobs["1"])
        verdict = Rules(unwatched).judge(change)
        assert verdict.effect == expected
        if path != "src/pw_demo/_fast.pyx":
            assert verdict.why == "tools/gen.py may read it: no sandbox, so it was not run"


@pytest.mark.parametrize("mode", ["100644", "100755"])
@pytest.mark.parametrize("name", ["a.py", "data.txt", "__init__.py"])
def test_a_file_that_only_ships_is_remade(name: str, mode: str) -> None:
    assert effect(f"src/pw_demo/{name}", new_mode=mode) == "remake"


@pytest.mark.parametrize(
    "path",
    [
        "docs/index.md",
        "doc/source/conf.py",
        "CHANGES.rst",
        "CITATION.cff",
        "tests/test_a.py",
        "tests/data/x.npy",
        "src/pw_demo/tests/test_b.py",
        "src/pw_demo/x/conftest.py",
        "benchmarks/time_a.py",
        "asv.conf.json",
        ".github/workflows/ci.yml",
        ".pre-commit-config.yaml",
        "tox.ini",
    ],
)
def test_what_is_neither_shipped_nor_read_changes_nothing(path: str) -> None:
    assert effect(path) == "nothing"


@pytest.mark.parametrize(
    "path",
    [
        # read, and read although it ships
        "meson.build",
        "tools/gen.py",
        "src/pw_demo/both.py",
        # code and templates, shipped or not, known to the inventory or not
        "src/pw_demo/_fast.pyx",
        "src/pw_demo/fast.h",
        "src/pw_demo/x.pxd",
        "src/x.c",
        "src/x.CPP",
        "src/x.cu",
        "src/x.f90",
        "src/x.pyx.in",
        "x.tmpl",
        "src/x.pyf.src",
        "sub/meson.build",
        "meson.options",
        "meson_options.txt",
        "setup.py",
        "setup.cfg",
        "CMakeLists.txt",
        "MANIFEST.in",
        "tests/_fast.pyx",
        # a helper that a script of the build may import
        "tools/helper.py",
        "src/pw_demo/unknown.py",
    ],
)
def test_what_outputs_may_be_made_from_is_followed(path: str) -> None:
    assert effect(path) == "trace"


@pytest.mark.parametrize(
    "path",
    [
        # metadata
        "LICENSE",
        "LICENCE.txt",
        "COPYING",
        "NOTICE.md",
        "AUTHORS.rst",
        # nothing is known about these
        "src/pw_demo/notes.rst.txt",
        "tools/data.json",
        "src/pw_demo/tests/data/table.txt",
        "requirements.txt",
        "thing",
        "pw_new.py",
    ],
)
def test_everything_else_is_a_compile(path: str) -> None:
    assert effect(path) == "compile"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("src/pw_demo/a.py", "D"),
        ("src/pw_demo/new.py", "A"),
        ("src/pw_demo/tests/test_new.py", "A"),
        ("tests/__init__.py", "A"),
        ("src/pw_demo/tests/test_old.py", "D"),
    ],
)
def test_additions_and_removals_where_files_ship(path: str, status: str) -> None:
    assert effect(path, status) == "trace"


@pytest.mark.parametrize("status", ["A", "D"])
def test_additions_and_removals_elsewhere(status: str) -> None:
    assert effect("tests/test_new.py", status) == "nothing"
    assert effect("docs/new.md", status) == "nothing"


@pytest.mark.parametrize("mode", ["120000", "160000"])
def test_links_and_submodules(mode: str) -> None:
    assert effect("src/pw_demo/a.py", "T", mode) == "compile"
    assert effect("docs/link.md", "A", mode) == "compile"
