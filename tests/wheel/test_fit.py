"""Libraries that are made to stand where others stood, by real gcc and patchelf."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from patchwheel.kit.errors import GraftNotPossible
from patchwheel.wheel.fit import (
    Policies,
    check_makers,
    fit_to_base,
    load_policies,
    platform_tags,
    read_library,
)
from tests.fixtures.support import make_library as library

if TYPE_CHECKING:
    from collections.abc import Sequence

PATCHELF = Path(sys.executable).parent / "patchelf"
OLD, NEW = "manylinux_2_17_x86_64", "manylinux_2_99_x86_64"
EVERYWHERE = Policies(
    tags={OLD: frozenset({"GLIBC_2.2.5"}), NEW: frozenset({"GLIBC_2.2.5", "GLIBC_9"})},
    libraries=frozenset({"libc.so.6", "libm.so.6"}),
)
BUNDLED = ("libpw-0123abcd.so.1.2",)

pytestmark = pytest.mark.compiled


@pytest.fixture
def needing(tmp_path: Path) -> bytes:
    """A library that needs libpw.so.1, with a run path into the machine."""
    library(tmp_path, "libpw.so", "-Wl,-soname,libpw.so.1")
    words = ["-Wl,--no-as-needed", "libpw.so", "-Wl,-rpath,/some/where"]
    return library(tmp_path, "new.so", *words)


@pytest.fixture
def replaced(tmp_path: Path) -> bytes:
    """What it replaces: bundled library and run path are the wheel's."""
    folder = tmp_path / "old"
    folder.mkdir()
    library(folder, "libpw.so", f"-Wl,-soname,{BUNDLED[0]}")
    words = ["-Wl,--no-as-needed", "libpw.so", "-Wl,-rpath,$ORIGIN/../pw.libs"]
    return library(folder, "old.so", *words, "-Wl,--disable-new-dtags")


def patchelf(words: Sequence[str], library: bytes) -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(library)
        subprocess.run([PATCHELF, *words, file.name], check=True)
        return Path(file.name).read_bytes()


def fit(new: bytes, old: bytes | None, bundled: tuple[str, ...] = BUNDLED) -> bytes:
    return fit_to_base("pw/x.so", new, old, bundled=bundled, policies=EVERYWHERE, patchelf=patchelf)


def test_needs_and_run_path_become_those_of_what_is_replaced(
    needing: bytes, replaced: bytes
) -> None:
    before, found = read_library(needing), read_library(fit(needing, replaced))
    assert "libpw.so.1" in before.needed
    assert before.run_path == "/some/where"
    assert BUNDLED[0] in found.needed
    assert "libpw.so.1" not in found.needed
    assert (found.run_path, found.uses_rpath) == ("$ORIGIN/../pw.libs", True)


def test_a_run_path_that_the_other_had_not_is_removed(tmp_path: Path) -> None:
    new = library(tmp_path, "new.so", "-Wl,-rpath,/some/where")
    old = library(tmp_path, "old.so")
    assert read_library(fit(new, old)).run_path == ""
    assert fit(old, old) == old


def test_a_need_that_nobody_meets_does_not_fit(needing: bytes, tmp_path: Path) -> None:
    old = library(tmp_path, "old.so")
    with pytest.raises(GraftNotPossible, match=r"pw/x.so needs libpw.so.1"):
        fit(needing, old, bundled=())
    with pytest.raises(GraftNotPossible, match="is new"):
        fit(needing, None)


def test_the_platform_tag_is_the_bases_or_the_lowest_true_one(tmp_path: Path) -> None:
    plain = library(tmp_path, "plain.so", source="int x;")
    script = tmp_path / "versions.map"
    script.write_text("GLIBC_9 { global: f; };\n")
    library(
        tmp_path,
        "libnew.so",
        f"-Wl,--version-script={script}",
        "-Wl,-soname,libc.so.6",
        source="int f(void) { return 1; }",
    )
    newer = library(
        tmp_path, "newer.so", "libnew.so", source="int f(void); int g(void) { return f(); }"
    )
    assert "GLIBC_9" in read_library(newer).versions

    def tags(made: bytes, base: bytes, policies: Policies = EVERYWHERE) -> object:
        needed, theirs = read_library(made).versions, read_library(base).versions
        return platform_tags([OLD], needed, theirs, policies)

    assert tags(plain, plain) == [OLD]
    assert tags(newer, newer) == [OLD]
    assert tags(newer, plain) == [NEW]
    only_old = Policies(tags={OLD: EVERYWHERE.tags[OLD]}, libraries=frozenset())
    with pytest.raises(GraftNotPossible, match="no platform tag admits GLIBC_9"):
        tags(newer, plain, only_old)


def test_policies_are_auditwheels(tmp_path: Path) -> None:
    rows = [
        {"name": "linux", "aliases": [], "priority": 0, "symbol_versions": {}},
        {
            "name": "manylinux_2_28",
            "aliases": [],
            "priority": 64,
            "symbol_versions": {"x86_64": {"GLIBC": ["2.5", "2.28"]}},
        },
        {
            "name": "manylinux_2_5",
            "aliases": ["manylinux1"],
            "priority": 100,
            "symbol_versions": {"x86_64": {"GLIBC": ["2.5"]}},
        },
    ]
    folder = tmp_path / "auditwheel" / "policy"
    folder.mkdir(parents=True)
    text = json.dumps([{**row, "lib_whitelist": ["libc.so.6"]} for row in rows])
    (folder / "manylinux-policy.json").write_text(text)
    found = load_policies(tmp_path, "x86_64")
    names = ["manylinux_2_5_x86_64", "manylinux1_x86_64", "manylinux_2_28_x86_64"]
    assert list(found.tags) == names
    assert found.libraries == {"libc.so.6"}
    assert found.admits("manylinux1_x86_64", {"GLIBC_2.5", "NUMPY_1"})
    assert not found.admits("manylinux1_x86_64", {"GLIBC_2.28"})
    assert not found.admits("unknown", {"GLIBC_2.5"})


MADE_WITH = {"cython": "3.2.9", "numpy-target": "1.25"}


def test_a_module_of_the_bases_makers_fits() -> None:
    content = b"_cython_3_2_9 (NumPy 1.25) and (NumPy 1.9)"
    check_makers("x.so", content, MADE_WITH)
    check_makers("x.so", b"_cython_3_1_0 (NumPy 2.0)", {})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"_cython_3_2_4", "made by Cython 3.2.4, and its base by 3.2.9"),
        (b"(NumPy 1.25) (NumPy 2.0)", "asks for NumPy 2.0, and its base for 1.25"),
    ],
)
def test_a_module_of_other_makers_does_not_fit(content: bytes, why: str) -> None:
    with pytest.raises(GraftNotPossible, match=why):
        check_makers("x.so", content, MADE_WITH)
