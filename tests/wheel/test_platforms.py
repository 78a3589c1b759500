"""Grafts on upstream's wheels for other machines, from a local index of tiny ones."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from patchwheel.kit.errors import CheckError, GraftNotPossible, ManifestError
from patchwheel.kit.interpreter import uv_bin
from patchwheel.kit.store import Store
from patchwheel.kit.uv import IndexConfig
from patchwheel.manifest.lock import ForkLock, Lock, build_settings
from patchwheel.manifest.model import UpstreamWheel
from patchwheel.plan.base import published_base
from patchwheel.plan.platforms import PlatformPlanner, _fits, platform_bases
from patchwheel.release.check import check_release
from patchwheel.release.publish import make_index
from patchwheel.series.apply import PatchedTree
from patchwheel.source.download import published_wheels
from patchwheel.wheel import make, platforms
from patchwheel.wheel.platforms import PlatformWheel
from patchwheel.wheelfile.read import read_wheel
from tests.fixtures import support
from tests.fixtures.contexts import GivenProject, make_context
from tests.fixtures.grafts import FILES, METADATA, SHIPPED, Bench
from tests.fixtures.projects import check_json

WINDOWS, MAC, MUSL = (
    "cp313-cp313-win_amd64",
    "cp313-cp313-macosx_12_0_arm64",
    "cp314-cp314t-musllinux_1_2_aarch64",
)
LINUX = "cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64"
# What only the wheel of a platform has.
OWN: dict[str, dict[str, str]] = {
    WINDOWS: {
        "pw_demo/_fast.cp313-win_amd64.pyd": "MZ",
        "pw_demo/_fast.cp313-win_amd64.lib": "!<arch>",
        "pw_demo/.libs/vcomp140.dll": "MZ",
    },
    MAC: {"pw_demo/_fast.cpython-313-darwin.so": "\xcf", "pw_demo/.dylibs/libomp.dylib": "\xcf"},
    MUSL: {"pw_demo/_fast.cpython-314t-aarch64-linux-musl.so": "\x7fELF"},
    LINUX: {"pw_demo/_fast.so": "\x7fELF", "pw_demo.libs/libx-1.so": "\x7fELF"},
}
A = "src/pw_demo/a.py"
LISTS = """\
py3.extension_module('_fast', '_fast.pyx')
sources = [
  '__init__.py',
  'a.py',
  'both.py',
]
py3.install_sources(sources, subdir: 'pw_demo')
"""
MESON = "src/pw_demo/meson.build"
ADDED = LISTS.replace("  'both.py',\n", "  'both.py',\n  'new.py',\n")


@dataclass
class Shelf:
    """A project whose index has a wheel of the pin for each of four machines."""

    bench: Bench
    changed: Mapping[str, Mapping[str, str | None]]

    def __post_init__(self) -> None:
        paths = [self.wheel(tag) for tag in OWN]
        variant = paths[0].with_name(f"{paths[0].stem}-cuda13.whl")
        variant.write_bytes(b"of another tool")
        self.url = support.make_index(self.bench.folder / "index", *paths, variant)

    def wheel(self, tag: str) -> Path:
        files: dict[str, str | None] = {f"pw_demo/{n}": FILES[f"src/pw_demo/{n}"] for n in SHIPPED}
        if tag == WINDOWS:
            # As git checks them out there.
            files = {name: (text or "").replace("\n", "\r\n") for name, text in files.items()}
        files |= {**OWN[tag], **self.changed.get(tag, {})}
        kept = {name: text for name, text in files.items() if text is not None}
        folder = self.bench.folder / "shelf"
        return support.make_wheel(folder, "pw-demo", "1.0", kept, tag=tag, metadata=METADATA)

    def project(self, tree: PatchedTree, *, listed: bool = True) -> GivenProject:
        context = make_context(self.bench.store, index=IndexConfig(urls=(self.url,)))
        fork, given = self.bench.fork, self.bench.project()
        entry = ForkLock(
            pin=fork.pin,
            settings=build_settings(fork),
            tree=tree.source.tree,
            commit=None,
            patches={},
            builds={},
            platforms=published_wheels(context, fork) if listed else {},
        )
        lock = Lock(path=given.manifest.lock_path, environments={}, forks={fork.lock_key: entry})
        builds = {fork.name: self.bench.build}
        return GivenProject(context, given.manifest, lock=lock, builds=builds)

    def build(
        self, monkeypatch: pytest.MonkeyPatch, *patches: Mapping[str, str | bytes | None]
    ) -> dict[str, PlatformWheel]:
        """Return what became of each wheel, by its tags."""
        tree = self.bench.patched(*patches)
        monkeypatch.setattr(platforms, "patched_tree", lambda *_: tree)
        found = platforms.build_platforms(self.project(tree), [self.bench.fork], [], [])
        check_json(["build", "--platform"], json.dumps([row.to_json() for row in found]))
        return {row.base.removeprefix("pw_demo-1.0-").removesuffix(".whl"): row for row in found}


@pytest.fixture
def shelf(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setitem(FILES, MESON, LISTS)
    return Shelf(Bench(tmp_path, store), {})


def made(row: PlatformWheel) -> Path:
    assert row.wheel, row.skipped
    return row.wheel.path


def test_a_change_of_copies_is_carried_to_every_wheel(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = shelf.build(monkeypatch, {A: "one = 2\n", "tests/test_a.py": "def test(): 1\n"})
    # A wheel with a variant label is passed over.
    assert rows.keys() == OWN.keys()
    assert len({row.wheel.version for row in rows.values() if row.wheel}) == 1
    for tag, row in rows.items():
        old, new = read_wheel(tmp_path / "shelf" / row.base), read_wheel(made(row))
        content = {n.replace(new.dist_info, old.dist_info): e for n, e in new.entries.items()}
        assert content.keys() ^ old.entries.keys() == {f"{old.dist_info}/patchwheel.json"}
        changed = {n for n, entry in old.entries.items() if content[n].content() != entry.content()}
        assert changed == {
            "pw_demo/a.py",
            *(f"{old.dist_info}/{n}" for n in ("METADATA", "RECORD")),
        }
        assert content["pw_demo/a.py"].content() == b"one = 2\n"
        assert new.name.tags == tag
        record = new.record
        assert (record.base and record.base.kind) == "platform"
        assert record.why[-1] == make.CHECKED
    folder = tmp_path / "dist/platforms"
    assert {path.name for path in folder.iterdir()} == {made(row).name for row in rows.values()}
    again = shelf.build(monkeypatch, {A: "one = 2\n", "tests/test_a.py": "def test(): 1\n"})
    assert all(row.wheel and row.wheel.cached for row in again.values())
    # Those of an older series go; what nobody put there stays.
    foreign = folder / "pw_demo-1.0+arrayapi.h00000000.graft-py3-none-any.whl"
    foreign.write_bytes(b"")
    rows = shelf.build(monkeypatch, {A: "one = 3\n"})
    names = {made(row).name for row in rows.values()}
    assert {path.name for path in folder.iterdir()} == {foreign.name, *names}


def test_a_team_installs_from_an_index_that_no_one_takes_for_a_public_one(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = shelf.build(monkeypatch, {A: "one = 2\n"})
    folder = tmp_path / "dist/platforms"
    found = check_release(folder)
    assert not found.problems
    assert sum("nothing of it was loaded or run" in line for line in found.unchecked) == len(OWN)
    with pytest.raises(CheckError, match="is a graft; only compiled wheels are published"):
        make_index(folder)
    assert not (folder / "simple").exists()
    assert make_index(folder, grafts=True) == ["pw-demo"]
    assert not (folder / "SHA256SUMS").exists()
    for page in ("simple/index.html", "simple/pw-demo/index.html"):
        assert "<title>Not public: grafts" in (folder / page).read_text()
    for system, tag in (("windows", WINDOWS), ("aarch64-apple-darwin", MAC)):
        target = tmp_path / system
        words = ["pip", "install", "--no-deps", "--quiet", "--target", target, "--no-cache"]
        words += ["--python-platform", system, "--python-version", "3.13"]
        index = (folder / "simple").as_uri()
        support.run(uv_bin(), *words, "--default-index", index, "pw-demo==1.0", status=0)
        names = {path.name for path in (target / "pw_demo").iterdir()}
        assert names >= {name.split("/")[1] for name in OWN[tag] if "_fast" in name}
        assert (target / "pw_demo/a.py").read_text() == "one = 2\n"
        assert rows[tag].wheel


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("src/pw_demo/_fast.pyx", "the build reads it"),
        ("src/pw_demo/fast.h", "it is code or a template"),
        # Named by the build of some machine, if not of this one.
        ("tools/gen.py", "the build reads it"),
        ("src/pw_demo/notes.rst.txt", "no rule says what it reaches"),
    ],
)
def test_a_change_of_compiled_code_skips_all_before_they_are_downloaded(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, why: str
) -> None:
    rows = shelf.build(monkeypatch, {path: "changed\n"}, {A: "one = 2\n"})
    assert all(f"{path}: {why}" in row.skipped and not row.wheel for row in rows.values())
    assert "(0001.patch)" in rows[MAC].skipped
    assert rows[MUSL].needs == "musllinux_1_2_aarch64 with cp314t"
    assert not (shelf.bench.store.root / "files").exists()
    assert not [*(tmp_path / "dist/platforms").glob("*.whl")]


@pytest.mark.parametrize(
    ("changed", "patch", "why"),
    [
        ({"pw_demo/a.py": "one = 9\n"}, {A: "one = 2\n"}, "its pw_demo/a.py is not the pin's"),
        ({"pw_demo/data.txt": "9\n"}, {A: "one = 2\n"}, "its pw_demo/data.txt is not the pin's"),
        # Nothing says where such a file would have come from.
        ({"pw_demo/a.py": None}, {A: "one = 2\n"}, f"{A}: it stands beside Python files"),
        # A compiled module that Python takes in its place.
        ({"pw_demo/a.cp313-win_amd64.pyd": "MZ"}, {A: "one = 2\n"}, f"{A}: the build reads it"),
        ({}, {"src/pw_demo/new.py": "", A: "one = 2\n"}, "new.py: it stands beside Python files"),
    ],
)
def test_a_wheel_that_proves_too_little_is_skipped(
    shelf: Shelf,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, str | None],
    patch: dict[str, str],
    why: str,
) -> None:
    other = Shelf(shelf.bench, {WINDOWS: changed})
    rows = other.build(monkeypatch, patch)
    assert why in rows[WINDOWS].skipped
    assert {tag for tag, row in rows.items() if row.wheel} == (
        {*OWN} - {WINDOWS} if changed else set()
    )


def test_the_manifest_may_name_what_upstream_writes_anew(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = UpstreamWheel(distribution="pw-demo", only_in_base=("pw_demo/data.*",))
    shelf.bench.upstream_wheel = theirs
    other = Shelf(shelf.bench, {WINDOWS: {"pw_demo/data.txt": "9\n"}})
    assert other.build(monkeypatch, {A: "one = 2\n"})[WINDOWS].wheel
    # Nobody knows what it is made of.
    rows = other.build(monkeypatch, {"src/pw_demo/data.txt": "2\n"})
    assert "src/pw_demo/data.txt: the build reads it" in rows[WINDOWS].skipped
    assert rows[MAC].wheel


def test_a_list_of_copies_may_grow_and_shrink(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = ADDED.replace("  'a.py',\n", "")
    rows = shelf.build(
        monkeypatch, {MESON: ADDED, "src/pw_demo/new.py": "new = 1\n"}, {MESON: gone, A: None}
    )
    for row in rows.values():
        entries = read_wheel(made(row)).entries
        assert entries["pw_demo/new.py"].content() == b"new = 1\n"
        assert "pw_demo/a.py" not in entries


@pytest.mark.parametrize(
    "patch",
    [
        # Its module is not made of it.
        {MESON: ADDED},
        {MESON: LISTS.replace("'_fast.pyx'", "'_fast.pyx', 'a.py'")},
        {MESON: ADDED.replace("subdir: 'pw_demo'", "subdir: 'other'"), "src/pw_demo/new.py": ""},
        {MESON: f"{ADDED}foreach s : sources\nendforeach\n", "src/pw_demo/new.py": ""},
        {MESON: ADDED.replace("new.py", "sub/new.py"), "src/pw_demo/sub/new.py": ""},
        # Its list may be one of another platform: no wheel has the rest of it.
        {MESON: LISTS.replace("  'a.py',\n  'both.py',\n", ""), A: None},
    ],
)
def test_any_other_change_of_the_build_is_not_followed(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, patch: dict[str, str | None]
) -> None:
    rows = shelf.build(monkeypatch, patch)
    assert all(f"{MESON}: " in row.skipped for row in rows.values())


def test_a_list_that_a_wheel_lacks_is_not_followed(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Shelf(shelf.bench, {MAC: {"pw_demo/both.py": None}})
    rows = other.build(monkeypatch, {MESON: ADDED, "src/pw_demo/new.py": ""})
    assert {tag for tag, row in rows.items() if not row.wheel} == {MAC}


@pytest.mark.parametrize(
    ("name", "platform", "python", "fits"),
    [
        (MAC, "macosx_14_0_arm64", "3.13", True),
        (MAC, "macosx_11_0_arm64", "", False),
        (MAC, "macosx_14_0_x86_64", "", False),
        ("cp313-cp313-macosx_11_0_universal2", "macosx_14_0_x86_64", "3.13", True),
        (LINUX, "manylinux_2_28_x86_64", "3.12", True),
        (LINUX, "manylinux_2_17_x86_64", "", False),
        ("cp310-cp310-manylinux2014_aarch64", "manylinux_2_28_aarch64", "3.10", True),
        ("cp310-cp310-manylinux_2_5_x86_64", "manylinux2014_x86_64", "", True),
        (MUSL, "musllinux_1_2_aarch64", "3.14t", True),
        (MUSL, "manylinux_2_28_aarch64", "", False),
        (MUSL, "", "3.14", False),
        (WINDOWS, "win_amd64", "3.14", False),
        ("cp39-abi3-win_amd64", "win_amd64", "3.14", True),
        ("py3-none-any", "win_arm64", "3.14t", True),
    ],
)
def test_wheels_are_chosen_by_machine_and_python(
    name: str, platform: str, python: str, *, fits: bool
) -> None:
    assert _fits(f"demo-1.0-{name}.whl", platform, python) is fits


def test_a_machine_that_upstream_does_not_serve_is_named(shelf: Shelf) -> None:
    tree = shelf.bench.patched({A: "one = 2\n"})
    project, forks = shelf.project(tree), [shelf.bench.fork]
    [(_, found)] = platform_bases(project, forks, ["win_amd64", "macosx_14_0_arm64"], ["3.13"])
    assert {*found} == {f"pw_demo-1.0-{tag}.whl" for tag in (WINDOWS, MAC)}
    with pytest.raises(ManifestError, match="upstream has no wheel for win_amd46") as caught:
        platform_bases(project, forks, ["win_amd46"])
    assert "macosx_12_0_arm64" in str(caught.value.expected)
    with pytest.raises(ManifestError, match=r"upstream has no wheel for 3\.9") as caught:
        platform_bases(project, forks, ["win_amd64"], ["3.9"])
    assert caught.value.expected == "one of cp312, cp313, cp314t"
    with pytest.raises(
        ManifestError, match="no wheels of upstream's are locked for pw-demo"
    ) as err:
        platform_bases(shelf.project(tree, listed=False), forks)
    assert "patchwheel lock pw-demo" in str(err.value.hint)


def test_what_is_made_is_compared_with_base_and_tree(shelf: Shelf) -> None:
    tree = shelf.bench.patched({A: "one = 2\n"})
    project, fork = shelf.project(tree), shelf.bench.fork
    [(_, found)] = platform_bases(project, [fork], ["win_amd64"])
    [(name, sha256)] = found.items()
    base = published_base(project, fork, name, sha256, kind="platform")
    plan = PlatformPlanner(project, tree, base=base).graft(base)
    wheel = read_wheel(make.make_wheel(plan, project.store).path)
    lost = {n: e for n, e in wheel.entries.items() if n != "pw_demo/.libs/vcomp140.dll"}
    with pytest.raises(CheckError, match=r"it differs from its base in pw_demo/\.libs/vcomp140"):
        make._check_outputs(replace(wheel, entries=lost), plan)
    stale = {**wheel.entries, "pw_demo/a.py": base.wheel.entries["pw_demo/a.py"]}
    with pytest.raises(CheckError, match=r"pw_demo/a\.py is not the patched tree's src/pw_demo/a"):
        make._check_outputs(replace(wheel, entries=stale), plan)
    compiled = shelf.bench.patched({"src/pw_demo/_fast.pyx": "def f(): return 2\n"})
    planner = PlatformPlanner(project, compiled, base=base)
    with pytest.raises(GraftNotPossible, match=r"_fast\.pyx: the build reads it"):
        planner.graft(base)
