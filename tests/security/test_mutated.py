"""P6: damaged or hostile data is a message of its kind, and never a traceback."""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import hypothesis
import pytest

from patchwheel.build.requirements import parse_build_system
from patchwheel.kit import InputError, ManifestError, PatchwheelError, Store
from patchwheel.manifest import InventoryFile, load_lock, load_manifest
from patchwheel.manifest.convert import save_json
from patchwheel.patch.file import Patch
from patchwheel.patch.lint import check_patch, warnings
from patchwheel.release import check_release
from patchwheel.series.worktree import WorkTree
from patchwheel.source.index import from_html, from_json
from patchwheel.source.sdist import Sdist
from patchwheel.wheel.fit import read_library
from patchwheel.wheelfile import check_record, read_wheel
from patchwheel.wheelfile.metadata import set_dependencies
from patchwheel.wheelfile.record import parse_record
from patchwheel.wheelfile.sbom import set_subject
from tests.fixtures import projects, support
from tests.fixtures.records import compiled_json, record_json
from tests.security.mutations import Mutated, mutated_bytes, mutated_json

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


ROOT = support.ROOT
PATCHES = sorted(ROOT.glob("patches/*/*.patch"))
LOCK = json.loads((ROOT / "forks.lock").read_text())
INVENTORY = json.loads((ROOT / "forks.inventory").read_text())
FORK = min(INVENTORY["forks"])
PYTHON = "3.12"
# One fork of it: the others are alike, and make each example slow.
INVENTORY["forks"] = {FORK: INVENTORY["forks"][FORK]}
LOCK["forks"] = {FORK: LOCK["forks"][FORK]}
PAGE = {
    "meta": {"api-version": "1.1"},
    "files": [{"filename": "a-1.tar.gz", "url": "a", "hashes": {"sha256": "0"}, "size": 1}],
}
RECORD = record_json(route="compile", base=None, compiled=compiled_json())
PROJECT = b"""[build-system]
requires = ["meson-python>=1", "cython"]
build-backend = "mesonpy"
backend-path = ["tools"]
[project]
name = "demo"
version = "1.0"
dependencies = ["a", "b>=1"]
"""


@contextlib.contextmanager
def refused() -> Any:
    """A result is as good as an error of ours, and its text can be shown."""
    try:
        yield
    except PatchwheelError as err:
        said = str(err).encode("utf-8", "backslashreplace")
        if not said or err.exit_code not in range(2, 8):
            raise


def each(strategy: SearchStrategy[Mutated], count: int) -> Callable[[Callable[[bytes], Any]], None]:
    """Call a function with many texts; whatever it raises, besides errors of ours, is a fault.

    `count` is for each 100 examples of the profile.
    """

    def run(read: Callable[[bytes], Any]) -> None:
        @hypothesis.settings(
            max_examples=count * hypothesis.settings().max_examples // 100,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(strategy)
        def check(mutated: Mutated) -> None:
            with refused():
                read(mutated.data)

        check()

    return run


def from_file(path: Path, read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
    def written(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return written


def read_patch(data: bytes) -> None:
    patch = Patch(path=Path("patches/x/1.patch"), data=data)
    check_patch(patch)
    list(warnings([patch], []))


def test_the_lock(tmp_path: Path) -> None:
    save_json(tmp_path / "forks.inventory", INVENTORY)
    each(mutated_json(LOCK), 150)(from_file(tmp_path / "forks.lock", load_lock))


def test_the_inventory(tmp_path: Path) -> None:
    lock = tmp_path / "forks.lock"

    def read(path: Path) -> None:
        # Its lines are what tells the entries apart, and the digest is no help against a liar.
        with contextlib.suppress(ValueError, RecursionError):
            save_json(path, json.loads(path.read_bytes()))
        file = InventoryFile.read(path)
        entry = {**LOCK["forks"][FORK], "inventory": file.sha256(FORK)}
        save_json(lock, {**LOCK, "forks": {FORK: entry}})
        load_lock(lock, mend=True)
        file.graph(FORK, PYTHON)
        load_lock(lock)

    each(mutated_json(INVENTORY), 60)(from_file(tmp_path / "forks.inventory", read))


def test_the_manifest(tmp_path: Path) -> None:
    text = (ROOT / "forks.toml").read_bytes()
    each(mutated_bytes(text), 150)(from_file(tmp_path / "forks.toml", load_manifest))
    for raw in (b"a = " + b"[" * 5000, b"a." * 50_000, b"a = 1" + b"0" * 5000, b"\xff", b"a = \0"):
        with refused():
            from_file(tmp_path / "forks.toml", load_manifest)(raw)


def test_a_record() -> None:
    each(mutated_json(RECORD), 200)(lambda data: parse_record(data, where="x").to_bytes())


def test_a_page_of_an_index() -> None:
    each(mutated_json(PAGE), 200)(lambda data: from_json(data, "https://index.example/a/"))
    html = b"<a href='a-1.tar.gz#sha256=0'>a</a><base href='http://[x'><a href='b-1.zip'>b</a>"
    each(mutated_bytes(html), 100)(lambda data: from_html(data, "https://index.example/a/"))


def test_a_pyproject() -> None:
    each(mutated_bytes(PROJECT), 200)(lambda data: parse_build_system(data, "x"))
    for raw in (b"[build-system]\nrequires = " + b"[" * 5000, b"a." * 50_000, b"\xff"):
        with refused():
            parse_build_system(raw, "x")


@pytest.mark.parametrize(
    "text",
    [
        *("build-system = 3", "[[build-system]]", "[build-system]\nrequires = 3"),
        *("[build-system]\nrequires = 'a'", "[build-system]\nrequires = [3]"),
        *("[build-system]\nbuild-backend = []", "[build-system]\nbackend-path = {}"),
        "[build-system]\nbackend-path = [[]]",
    ],
)
def test_a_build_system_of_other_types(text: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_build_system(text.encode(), "demo")
    assert caught.value.where == "demo"


@pytest.mark.parametrize(
    "project",
    [
        *({"dependencies": 3}, {"dependencies": [3]}, {"dependencies": ["=="]}),
        *({"requires-python": [1]}, {"requires-python": "x y"}, {"optional-dependencies": []}),
        *({"optional-dependencies": {"a": 3}}, {"optional-dependencies": {"a": [None]}}),
    ],
)
def test_a_project_table_of_other_types(project: dict[str, Any]) -> None:
    for old, new in ((project, {}), ({}, project)):
        with pytest.raises(InputError):
            set_dependencies(b"Name: demo\n", old, new)


def test_a_memo(store: Store) -> None:
    known = {"a": ["1"], "b": []}
    store.cached("kind", dict[str, list[str]], ["x"], lambda: known)
    [memo] = (store.root / "memo" / "kind").iterdir()

    def read(path: Path) -> None:
        assert store.cached("kind", dict[str, list[str]], ["x"], lambda: known) is not None

    each(mutated_json(known), 150)(from_file(memo, read))


def test_the_state_of_a_work_tree(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    support.make_upstream(tmp_path / "work", {"a": b"a\n"})
    state = {"tree": "0" * 40, "series": [["a", "b"]]}
    each(mutated_json(state), 60)(
        from_file(
            tmp_path / "work/.git/patchwheel-worktree.json", lambda path: WorkTree(path.parents[1])
        )
    )


@pytest.mark.parametrize("path", PATCHES[:3], ids=lambda path: path.stem)
def test_a_patch(path: Path) -> None:
    each(mutated_bytes(path.read_bytes()), 150)(read_patch)


def test_a_wheel(tmp_path: Path) -> None:
    wheel = support.make_wheel(tmp_path, "demo", "1.0", {"demo.py": "a = 1\n" * 50})

    def read(path: Path) -> None:
        found = read_wheel(path)
        check_record(found)
        check_release(path)

    each(mutated_bytes(wheel.read_bytes()), 200)(from_file(wheel, read))


INFO = "demo-1.0.dist-info"


@pytest.mark.parametrize("name", ["METADATA", "WHEEL", "RECORD"])
def test_what_a_wheel_says_of_itself(tmp_path: Path, name: str) -> None:
    wheel = support.make_wheel(tmp_path, "demo", "1.0", {"demo.py": ""})
    text = read_wheel(wheel).metadata(name)

    def read(data: bytes) -> None:
        files: dict[str, str | bytes] = {"demo.py": "", f"{INFO}/{name}": data}
        files[f"{INFO}/patchwheel.json"] = b"{}"
        made = support.make_wheel(tmp_path / "made", "demo", "1.0", files, own=(name,))
        check_release(made)
        found = read_wheel(made)
        check_record(found)

    each(mutated_bytes(text), 60)(read)


def test_a_library(tmp_path: Path) -> None:
    library = support.make_library(tmp_path, "x.so", "-lm")
    assert not read_library(library).uses_rpath
    each(mutated_bytes(library), 150)(read_library)
    # Where its numbers are: the header, and the sections at the end.
    each(mutated_bytes(library[:64]), 150)(lambda head: read_library(head[:64] + library[64:]))
    each(mutated_bytes(library[-1500:]), 150)(lambda end: read_library(library[:-1500] + end))


def test_an_sbom_that_a_base_brought() -> None:
    name = cast("Any", SimpleNamespace(name="demo", version="1.0", filename="demo-1.0.whl"))
    sbom = {"metadata": {"component": {"name": "demo", "version": "1.0", "bom-ref": "x"}}}
    each(mutated_json(sbom), 150)(lambda data: set_subject(data, name, name))


def test_an_sdist(tmp_path: Path) -> None:
    sdist = support.make_sdist(tmp_path, "demo", "1.0", {"a.py": "a = 1\n"})
    import gzip

    plain = gzip.decompress(sdist.read_bytes())

    def read(data: bytes) -> None:
        sdist.write_bytes(data)
        list(Sdist(sdist))

    each(mutated_bytes(sdist.read_bytes()), 100)(read)
    each(mutated_bytes(plain), 200)(lambda data: read(gzip.compress(data, 1)))


@pytest.mark.parametrize("moment", ["nan", "inf", "-inf", "-1", "1e30", "1" * 5000])
def test_the_times_of_an_sdist(tmp_path: Path, moment: str) -> None:
    import io
    import tarfile

    path = tmp_path / "demo-1.0.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        row = tarfile.TarInfo("demo-1.0/a.py")
        row.pax_headers = {"mtime": moment}
        archive.addfile(row, io.BytesIO())
    with pytest.raises(PatchwheelError):
        list(Sdist(path))


@pytest.mark.parametrize("moment", ["1", str(2**64 - 1)])
def test_the_time_of_a_commit(tmp_path: Path, moment: str) -> None:
    site, upstream = projects.make_site(tmp_path, {}), tmp_path / "upstream"
    first: dict[str, str | bytes | None] = {"a": projects.lines(), "b": projects.lines()}
    support.make_upstream(upstream, {**first, **projects.own_files(upstream, "1.0")}, tag="v0")
    raw = support.git(upstream, "cat-file", "commit", "HEAD")
    raw = re.sub(r"(?m)^(committer .*>) \d+ ", rf"\1 {moment} ", raw)
    words = ("hash-object", "-t", "commit", "-w", "--stdin", "--literally")
    oid = support.git(upstream, *words, stdin=f"{raw}\n".encode()).strip()
    support.git(upstream, "update-ref", "refs/tags/v1.0", oid)
    path = site.root / "forks.toml"
    pin = f'git = "file://{upstream}"\ntag = "v1.0"\ncommit = "{oid}"'
    path.write_text(re.sub(r"(?m)^sdist = .*$", pin, path.read_text()))
    site.run("lock")
    compiled = read_wheel(site.build()).record.compiled
    assert compiled
    # What a zip holds.
    assert compiled.source_date_epoch == ("315532800" if moment == "1" else "4354819198")
    assert json.loads(site.run("verify", "dist", "--json"))["problems"] == []


def test_toml_is_read_as_by_tomllib() -> None:
    from patchwheel.kit import parsed_toml

    text = (ROOT / "forks.toml").read_text()
    assert parsed_toml(text) == tomllib.loads(text)
