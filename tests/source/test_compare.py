from collections.abc import Mapping
from pathlib import Path

import pytest

from patchwheel.kit.context import Context
from patchwheel.kit.errors import CheckError, InputError
from patchwheel.kit.store import Store
from patchwheel.kit.uv import IndexConfig
from patchwheel.manifest.inventory import BuildInventory
from patchwheel.manifest.lock import BaseWheel, ForkBuild
from patchwheel.manifest.model import EnvironmentSpec, Fork, Manifest, Sdist, UpstreamWheel
from patchwheel.source.compare import PinReport, check_pin
from tests.fixtures.contexts import GivenProject, make_context
from tests.fixtures.support import (
    Recorder,
    git,
    make_sdist,
    make_upstream,
    make_wheel,
    sha256,
    write,
)

FILES = {"pyproject.toml": '[project]\nname = "thing"\n', "thing/a.pyx": "a\n"}


class Pin:
    """An upstream repository and an sdist that is said to be made from it."""

    def __init__(self, folder: Path, store: Store, report: Recorder) -> None:
        self.folder = folder
        self.store = store
        self.report = report
        self.upstream = folder / "upstream"

    def commit(self, files: Mapping[str, str]) -> str:
        return make_upstream(self.upstream, files)

    def check(self, published: Mapping[str, str | bytes], commit: str | None = None) -> PinReport:
        path = make_sdist(self.folder, "thing", "1.0", published)
        self.fork = Fork(
            name="thing",
            version="1.0",
            patches=Path("none"),
            git=self.upstream.as_uri(),
            commit=commit or git(self.upstream, "rev-parse", "HEAD"),
            sdist=Sdist(filename=path.name, sha256=sha256(path)),
        )
        return self.again()

    def again(self, *, offline: bool = False) -> PinReport:
        index = IndexConfig(find_links=(str(self.folder),))
        context = make_context(self.store, index=index, progress=self.report, offline=offline)
        return check_pin(self.project(context), self.fork)

    def project(self, context: Context, base: BaseWheel | None = None) -> GivenProject:
        """A project with this fork, locked to a wheel of upstream's or to none."""
        empty = BuildInventory(verbatim={}, built=frozenset(), reads=frozenset())
        build = ForkBuild(base=base, build_requires=(), inventory=empty)
        environment = EnvironmentSpec(label="mine", python=("3.12",))
        manifest = Manifest(
            path=self.folder / "forks.toml", environment=environment, forks={"thing": self.fork}
        )
        return GivenProject(context, manifest, builds={"thing": build})

    def check_wheel(
        self, published: Mapping[str, str | bytes], *only_in_base: str, wheel: bool = True
    ) -> PinReport:
        path = make_wheel(self.folder, "thing", "1.0", published)
        self.fork = Fork(
            name="thing",
            version="1.0",
            patches=Path("none"),
            git=self.upstream.as_uri(),
            commit=git(self.upstream, "rev-parse", "HEAD"),
            upstream_wheel=UpstreamWheel(distribution="thing", only_in_base=only_in_base),
        )
        index = IndexConfig(find_links=(str(self.folder),))
        base = BaseWheel(filename=path.name, sha256=sha256(path)) if wheel else None
        context = make_context(self.store, index=index, progress=self.report)
        return check_pin(self.project(context, base), self.fork)


@pytest.fixture
def pin(tmp_path: Path, store: Store, report: Recorder) -> Pin:
    return Pin(tmp_path, store, report)


def test_equal_files_and_metadata_pass(pin: Pin) -> None:
    commit = pin.commit(FILES)
    found = pin.check({**FILES, "src/thing.egg-info/SOURCES.txt": "x"})
    assert found == PinReport(
        fork="thing",
        sdist="thing-1.0.tar.gz",
        commit=commit,
        equal=2,
        explained={
            "PKG-INFO": "metadata of the build backend",
            "src/thing.egg-info/SOURCES.txt": "metadata of the build backend",
        },
    )
    # With both in the store the remote is not needed.
    pin.upstream.rename(pin.folder / "gone")
    assert pin.again(offline=True) == found


def test_without_an_sdist_the_commit_is_compared_with_the_wheel(pin: Pin) -> None:
    commit = pin.commit({"pyproject.toml": "", "src/thing/a.py": "a = 1\n", "thing/b.py": "b\n"})
    published = {"thing/a.py": "a = 1\n", "thing/b.py": "b\n", "thing/x.so": "elf"}
    found = pin.check_wheel(published)
    assert (found.commit, found.equal) == (commit, 2)
    assert found.explained == {"thing/x.so": "made by the build"}
    with pytest.raises(CheckError, match=rf"differs from commit {commit}:\n  thing/a\.py: differs"):
        pin.check_wheel(published | {"thing/a.py": "a = 2\n"})
    stamped = pin.check_wheel(published | {"thing/b.py": "stamped\n"}, "thing/b.*")
    assert stamped.explained["thing/b.py"] == "named in upstream-wheel.only-in-base"
    with pytest.raises(CheckError, match="neither an sdist nor a wheel of upstream's") as caught:
        pin.check_wheel(published, wheel=False)
    assert "add `sdist` to [forks.thing] in forks.toml and `patchwheel lock`" in str(caught.value)


def test_one_changed_byte_fails_and_is_named(pin: Pin) -> None:
    commit = pin.commit(FILES)
    with pytest.raises(CheckError, match=r"thing/a\.pyx: differs") as caught:
        pin.check({**FILES, "thing/a.pyx": "b\n"})
    assert commit in str(caught.value)
    assert caught.value.exit_code == 6
    assert caught.value.hint


@pytest.mark.parametrize(
    "path", ["thing/evil.py", "setup.py", "m4/build-to-host.m4", "thing/_version.py"]
)
def test_an_added_file_fails_even_when_it_is_gitignored(pin: Pin, path: str) -> None:
    pin.commit({**FILES, ".gitignore": f"{path}\n"})
    with pytest.raises(CheckError, match="only in the sdist"):
        pin.check({**FILES, path: "import os\n"})


def test_many_problems_are_counted(pin: Pin) -> None:
    pin.commit(FILES)
    with pytest.raises(CheckError, match="and 10 more"):
        pin.check({**FILES, **{f"evil/{n}": "" for n in range(30)}})


GENERATED = {
    "thing/a.c": ("/* Generated by Cython 3.2.4 */\n", "generated by Cython"),
    "thing/_version.py": (
        "# file generated by setuptools-scm\nversion = '1.0'\n",
        "takes the version from git",
    ),
    "thing/version.py": ("version = '1.0'\n", "meson.build names"),
    "thing/data.txt": ("x", "meson.build names"),
    "setup.cfg": ("[egg_info]\ntag_build = \n", "egg_info section"),
}


@pytest.mark.parametrize("path", GENERATED)
def test_generated_files_are_listed_as_such(pin: Pin, path: str) -> None:
    build = "meson.add_dist_script(\n"
    build += "  [find_program('../tools/v.py'), '--write', 'thing/version.py']\n)\n"
    build += "meson.add_dist_script('gen.py', 'data.txt')\n"
    files = {**FILES, "thing/meson.build": build}
    pin.commit(files)
    data, why = GENERATED[path]
    assert why in pin.check({**files, path: data}).explained[path]


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("thing/other.c", "/* Generated by Cython 3.2.4 */\n"),
        ("thing/a.c", "int main;\n"),
        ("thing.egg-info/evil.py", ""),
        ("thing/evil.py", "# file generated by setuptools-scm\n"),
        ("setup.cfg", "[egg_info]\ntag_build =\n[metadata]\nname = evil\n"),
        ("setup.cfg", "no setup.cfg"),
    ],
)
def test_what_only_looks_generated_fails(pin: Pin, path: str, data: str) -> None:
    pin.commit(FILES)
    with pytest.raises(CheckError, match=path):
        pin.check({**FILES, path: data})


EQUIVALENT = {
    "pyproject.toml": (
        '[project]\nname="thing"\nversion = "1"\n',
        '[project]\nversion = "1"\nname = "thing" # reformatted\n',
        "equal as TOML",
    ),
    "setup.cfg": (
        "[metadata]\nname = thing\n",
        "[metadata]\nname=thing\n\n[egg_info]\ntag_build =\ntag_date = 0\n",
        "egg_info section",
    ),
    ".git_archival.txt": (
        "node: $Format:%H$\nx: $Format:%D$\n",
        "node: abcdef\nx: tag: v1\n",
        "git archive fills in",
    ),
}


@pytest.mark.parametrize("path", EQUIVALENT)
def test_known_rewritings_are_explained(pin: Pin, path: str) -> None:
    ours, theirs, why = EQUIVALENT[path]
    pin.commit({**FILES, path: ours})
    found = pin.check({**FILES, path: theirs})
    assert why in found.explained[path]


@pytest.mark.parametrize(
    ("path", "ours", "theirs"),
    [
        ("pyproject.toml", '[project]\nname = "a"\n', '[project]\nname = "b"\n'),
        ("pyproject.toml", '[project]\nname = "a"\n', "not TOML"),
        ("setup.cfg", "[metadata]\nname = a\n", "[metadata]\nname = b\n"),
        ("setup.cfg", "[egg_info]\na = 1\n", "[egg_info]\na = 2\n"),
        ("x.txt", "node: $Format:%H$\nrest\n", "node: abc\nother\n"),
    ],
)
def test_other_rewritings_fail(pin: Pin, path: str, ours: str, theirs: str) -> None:
    pin.commit({**FILES, path: ours})
    with pytest.raises(CheckError, match="differs"):
        pin.check({**FILES, path: theirs})


def test_submodules_and_links_are_resolved(pin: Pin) -> None:
    sub = make_upstream(pin.folder / "sub", {"inc/deep/x.h": "x\n", "LICENSE": "l\n"})
    modules = '[submodule "s"]\n\tpath = third/sub\n\turl = ../sub\n'
    write(pin.upstream, {"thing/__init__.py": ""})
    for link, target in {
        "thing/include": "../third/sub/inc",
        "thing/again": "include/deep",
        "thing/LICENSE": "../third/sub/LICENSE",
        "thing/loop": "loop",
        "thing/up": "..",
        "thing/dangling": "nothing",
    }.items():
        (pin.upstream / link).symlink_to(target)
    pin.commit({**FILES, ".gitmodules": modules})
    entry = f"160000,{sub},third/sub"
    git(pin.upstream, "update-index", "--add", "--cacheinfo", entry)
    git(pin.upstream, "commit", "-q", "-m", "Add the submodule")
    published = {
        **FILES,
        "thing/__init__.py": "",
        "thing/include/deep/x.h": "x\n",
        "thing/again/x.h": "x\n",
        "thing/LICENSE": "l\n",
    }
    found = pin.check(published)
    assert found.equal == len(published)
    with pytest.raises(CheckError, match=r"thing/again/x\.h: differs"):
        pin.check({**published, "thing/again/x.h": "y\n"})


def test_an_unreachable_remote_is_an_input_error(pin: Pin) -> None:
    with pytest.raises(InputError, match="git cannot fetch from") as caught:
        pin.check(FILES, "ab" * 20)
    assert caught.value.exit_code == 4
