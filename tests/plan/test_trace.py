"""Changes followed to outputs, over a build that is written down by hand."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from patchwheel.build.configure import Configured, ListedOutputs
from patchwheel.build.ninja import Edge
from patchwheel.kit.repo import Repository
from patchwheel.kit.store import Store
from patchwheel.manifest.inventory import ANYTHING, BuildInventory
from patchwheel.plan import trace
from patchwheel.plan.trace import Tracer, TraceResult

SO, OTHER = "pw/fast.so", "pw/other.so"
FILES = {
    "meson.build": "1",
    "pw/__init__.py": "",
    "pw/a.py": "",
    "pw/b.py": "",
    "pw/fast.pyx": "cimport pw.near\n",
    "pw/near.pxd": "",
    "pw/other.c": "",
    "pw/unused.h": "",
    "pw/odr/deep.f": "      include 'sizes.inc'\n",
    "pw/odr/sizes.inc": "",
    "tools/gen.py": "",
    "tools/secret.json": "",
}
OUTPUTS = {
    "pw/__init__.py": "pw/__init__.py",
    "pw/a.py": "pw/a.py",
    "pw/b.py": "pw/b.py",
    SO: "//pw/fast.so",
    OTHER: "//pw/other.so",
    "pw/config.py": "//pw/config.py",
}
EDGES = (
    Edge(outputs=("//pw/fast.so",), inputs=("pw/fast.pyx",), command="cython"),
    Edge(outputs=("//pw/other.so",), inputs=("pw/other.c",), command="c_COMPILER"),
)
INVENTORY = BuildInventory(
    verbatim={"pw/a.py": "pw/a.py", "pw/odr/__init__.py": "pw/odr/__init__.py"},
    built=frozenset({SO, OTHER, "pw/odr/deep.so", "pw/b.py"}),
    reads=frozenset({"meson.build", "pw/fast.pyx", "tools/secret.json"}),
)


@dataclass
class Bench:
    folder: Path
    store: Store
    monkeypatch: pytest.MonkeyPatch
    configured: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.repo = Repository.bare(self.folder / "git")
        self.environment = self.folder / "environment"
        (self.environment / "lib" / "python3.12" / "site-packages").mkdir(parents=True)
        self.pin = self.tree(FILES)
        self.monkeypatch.setattr(trace, "configure_tree", self.configure)

    def tree(self, files: Mapping[str, str]) -> str:
        return self.repo.import_files(
            (name, "100644", text.encode()) for name, text in sorted(files.items())
        )

    def configure(self, tree: str, *_: object) -> Configured:
        self.asked.append(tree)
        given = self.configured.get(tree, {})
        path = self.folder / tree
        info = path / "meson" / "meson-info" / "intro-projectinfo.json"
        info.parent.mkdir(parents=True, exist_ok=True)
        (path / "meson" / "pw").mkdir(exist_ok=True)
        (path / "meson" / "pw" / "config.py").write_text("import a\n")
        info.write_text(json.dumps({"version": given.get("version", "1")}))
        return Configured(
            path=path,
            observed=ListedOutputs(
                outputs=given.get("outputs", OUTPUTS),
                reads=frozenset(given.get("reads", {"meson.build"})),
                opened_by_script={},
                steps=given.get("steps"),
            ),
            edges=given.get("edges", EDGES),
            made=given.get("made", {"//pw/config.py": "same"}),
        )

    def trace(
        self, changes: Mapping[str, str | None], *, also: tuple[str, ...] = (), **given: Any
    ) -> TraceResult:
        files = {k: v for k, v in {**FILES, **changes}.items() if v is not None}
        new = self.tree(files)
        self.configured[new] = given
        source = SimpleNamespace(git_dir=self.repo.git_dir, tree=self.pin, fork=None)
        inputs = SimpleNamespace(
            build=SimpleNamespace(inventory=INVENTORY),
            context=SimpleNamespace(store=self.store),
            environment=self.environment,
        )
        found = Tracer(
            changes=self.repo.changes(self.pin, new),
            present=[*given.get("present", OUTPUTS), *also],
            inventory=INVENTORY,
        ).by_trees(cast("Any", source), cast("Any", inputs), (self.pin, new))
        assert found is not None
        return found


@pytest.fixture
def bench(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, store, monkeypatch)


def effects(found: TraceResult) -> dict[str, str]:
    assert found.unknown == ()
    return {effect.path: effect.action for effect in found.effects}


def test_a_changed_source_needs_no_second_configuration(bench: Bench) -> None:
    found = bench.trace({"pw/near.pxd": "cdef int x\n"})
    assert effects(found) == {SO: "build"}
    assert found.effects[0].by == ("pw/near.pxd",)
    assert found.configured == bench.pin
    assert bench.asked == [bench.pin]


def test_what_nothing_mentions_reaches_nothing(bench: Bench) -> None:
    found = bench.trace({"pw/unused.h": "int x;\n"})
    assert effects(found) == {}
    assert found.idle == ("pw/unused.h: nothing that is built mentions it",)


def test_what_a_script_that_was_not_watched_makes_is_built_for_any_change(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwatched = replace(INVENTORY, opened={"tools/gen.py": frozenset({ANYTHING})})
    monkeypatch.setitem(globals(), "INVENTORY", unwatched)
    made = Edge(outputs=("//pw/config.py",), inputs=("tools/gen.py",), command="python")
    bench.configured[bench.pin] = {"edges": (*EDGES, made)}
    found = bench.trace({"pw/unused.h": "int x;\n"})
    assert effects(found) == {"pw/config.py": "build"}
    assert found.idle == ()


def test_what_is_remembered_is_what_unchanged_files_mention(bench: Bench, store: Store) -> None:
    assert effects(bench.trace({"pw/near.pxd": "# 1"})) == {SO: "build"}
    remembered = list((store.root / "memo" / "references").iterdir())
    assert len(remembered) == 1
    text = "cdef extern from 'unused.h': pass\n"
    found = bench.trace({"pw/fast.pyx": text, "pw/unused.h": "// 1"})
    assert effects(found) == {SO: "build"}
    assert found.idle == ()
    # What the other text of fast.pyx mentions holds for that text alone.
    found = bench.trace({"pw/unused.h": "// 1"})
    assert effects(found) == {}
    assert found.idle == ("pw/unused.h: nothing that is built mentions it",)
    assert effects(bench.trace({"pw/near.pxd": "# 2"})) == {SO: "build"}
    assert list((store.root / "memo" / "references").iterdir()) == remembered


def test_files_come_and_go_with_the_builds_definition(bench: Bench) -> None:
    outputs = {**OUTPUTS, "pw/new.py": "pw/new.py"}
    del outputs["pw/a.py"]
    changes = {"meson.build": "2", "pw/new.py": "x", "pw/a.py": None}
    found = bench.trace(changes, outputs=outputs)
    assert effects(found) == {"pw/a.py": "remove", "pw/new.py": "add"}
    assert all("meson.build" in effect.by for effect in found.effects)
    assert found.configured != bench.pin


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"edges": (EDGES[0], Edge(outputs=EDGES[1].outputs, inputs=(), command="x"))}, OTHER),
        ({"made": {"//pw/config.py": "other"}}, "pw/config.py"),
        ({"outputs": {**OUTPUTS, "pw/more.so": "//pw/other.so"}}, "pw/more.so"),
    ],
)
def test_another_definition_builds_what_it_makes_otherwise(
    bench: Bench, given: dict[str, Any], path: str
) -> None:
    assert effects(bench.trace({"meson.build": "2"}, **given)) == {path: "build"}


@pytest.mark.parametrize(
    ("changes", "given", "why"),
    [
        ({"meson.build": "2"}, {"version": "2"}, "the project's version or licence"),
        ({"tools/secret.json": "2"}, {}, "tools/secret.json: the build reads it"),
        ({"pw/odr/sizes.inc": "2"}, {}, "pw/odr/sizes.inc: it may reach pw/odr/deep.so"),
        ({"pw/b.py": "2"}, {}, "pw/b.py: pw/b.py in the base is not the same"),
    ],
)
def test_what_cannot_be_attributed_is_said(
    bench: Bench, changes: dict[str, str], given: dict[str, Any], why: str
) -> None:
    found = bench.trace(changes, also=("pw/odr/deep.so", "pw.libs/x.so"), **given)
    assert len(found.unknown) == 1
    assert found.unknown[0].startswith(why)


def test_what_the_base_leaves_out_is_not_built(bench: Bench) -> None:
    outputs = {**OUTPUTS, "pw/extra.so": "//pw/fast.so"}
    bench.configured[bench.pin] = {"outputs": outputs}
    assert effects(bench.trace({"pw/fast.pyx": "1\n"})) == {SO: "build"}


FAST = Edge(outputs=("//pw/fast.so",), inputs=("pw/fast.pyx",), command="", macros=frozenset())
SCRIPTED: dict[str, Any] = {
    "present": ("pw/a.py", SO),
    "steps": (),
    "edges": (FAST,),
    "outputs": {"pw/a.py": "pw/a.py", SO: "//pw/fast.so"},
    "reads": {"tools/gen.py", "pw/unused.h"},
}


def scripted(bench: Bench, changes: dict[str, str], **given: Any) -> TraceResult:
    bench.configured[bench.pin] = {**SCRIPTED, **given}
    return bench.trace(changes, **{**SCRIPTED, **given})


@pytest.mark.parametrize(
    ("changes", "given", "why"),
    [
        ({"tools/gen.py": "1"}, {}, "tools/gen.py: the build's own code reads it"),
        (
            {"pw/near.pxd": "1"},
            {"edges": (FAST, replace(FAST, outputs=(), inputs=("low.c",)))},
            "low.c: it is a part of a static library",
        ),
        (
            {"pw/near.pxd": "1"},
            {"edges": (replace(FAST, inputs=("pw/fast.c",)),)},
            "pw/fast.c: nothing says what it is made from",
        ),
        # As where CMake is started by an own build_ext.
        (
            {"pw/near.pxd": "1"},
            {"edges": (replace(FAST, inputs=()),)},
            "pw/fast.so: nothing says what it is made from",
        ),
        (
            {"pw/near.pxd": "1"},
            {"edges": (FAST, replace(FAST, outputs=(), inputs=()))},
            "a static library: nothing says what it is made from",
        ),
        (
            {"pw/near.pxd": "1"},
            {"outputs": {**SCRIPTED["outputs"], "pw/made.json": "//"}},
            "pw/made.json: nothing says what it is made from",
        ),
    ],
)
def test_what_a_projects_own_code_hides_is_said(
    bench: Bench, changes: dict[str, str], given: dict[str, Any], why: str
) -> None:
    assert why in scripted(bench, changes, **given).unknown


def test_a_module_that_the_builds_code_imports_is_its_code(bench: Bench) -> None:
    files = {**FILES, "tools/gen.py": "import helper\n", "tools/helper.py": "1"}
    bench.pin = bench.tree(files)
    found = scripted(bench, {**files, "tools/helper.py": "2"})
    assert found.unknown == ("tools/helper.py: the build's own code reads it",)


@pytest.mark.parametrize(
    ("macro", "text", "expected"),
    [
        ("PW_KEY", {"pw/fast.pyx": "cimport pw.near\nPW_KEY\n"}, {SO: "build"}),
        ("PW_KEY", {"pw/other.c": "PW_KEY\n"}, {}),
        # Nobody in the project uses it: it is for the headers of somebody else.
        ("NPY_API", {}, {SO: "build"}),
    ],
)
def test_a_macro_counts_where_a_text_uses_it(
    bench: Bench, macro: str, text: dict[str, str], expected: dict[str, str]
) -> None:
    files = {**FILES, **text}
    bench.pin = bench.tree(files)
    bench.configured[bench.pin] = {
        **SCRIPTED,
        "edges": (replace(FAST, macros=frozenset({(macro, "1")})),),
    }
    changes = {**files, "pw/unused.h": "int y;\n"}
    edges = (replace(FAST, macros=frozenset({(macro, "2")})),)
    found = bench.trace(changes, **{**SCRIPTED, "edges": edges})
    assert effects(found) == expected
