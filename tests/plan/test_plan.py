import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from patchwheel.cli import tables
from patchwheel.kit.errors import InputError
from patchwheel.kit.store import Store
from patchwheel.manifest.model import UpstreamWheel
from patchwheel.plan import base as base_module
from patchwheel.plan import plan as plan_module
from patchwheel.plan.base import Base
from patchwheel.plan.outlook import Outlook
from tests.fixtures import support
from tests.fixtures.grafts import BUILT, FILES, INVENTORY, PYPROJECT, Bench, GivenPlanner
from tests.fixtures.records import record_bytes
from tests.plan.test_outlook import SCHEMA

A = "src/pw_demo/a.py"


@pytest.fixture
def bench(tmp_path: Path, store: Store) -> Bench:
    return Bench(tmp_path, store)


def test_a_python_change_is_a_graft_that_names_its_patch(bench: Bench) -> None:
    plan = bench.plan({"docs/index.md": "more\n"}, {A: "one = 2\n"})
    assert plan.route == "graft"
    assert plan.base == bench.base
    (output,) = plan.outputs
    assert (output.path, output.source) == ("pw_demo/a.py", A)
    assert output.why == "0002.patch"
    assert plan.taken == len(INVENTORY.verbatim) + len(INVENTORY.built) + 1 - 1
    (note,) = plan.why
    assert "docs/index.md" in note
    assert "0001.patch" in note
    assert "1 of 7 files" in plan.description
    assert plan.version == f"1.0+arrayapi.h{str(plan.node_key)[:8]}.graft"


def test_an_empty_series_only_labels(bench: Bench) -> None:
    plan = bench.plan()
    assert (plan.route, plan.outputs, plan.why) == ("graft", (), ())


def test_what_the_build_reads_makes_a_compile(bench: Bench) -> None:
    plan = bench.plan({A: "one = 2\n"}, {"src/pw_demo/both.py": "table = []\n"})
    assert plan.route == "compile"
    assert (plan.base, plan.outputs, plan.taken) == (None, (), 0)
    (why,) = plan.why
    assert why == ("src/pw_demo/both.py: the build reads it, and it ships too (0002.patch)")
    assert plan.key_parts["toolchain"] == "gcc"
    assert plan.key_parts["base"] == "none"
    assert plan.version == f"1.0+arrayapi.h{str(plan.node_key)[:8]}"
    assert plan.description == "a compile: 1 extension module"
    unknown = replace(plan.inventory, built=frozenset({"pw_demo/made.py"}))
    assert replace(plan, inventory=unknown).description == "a compile"


def test_from_source_and_without_a_base(bench: Bench) -> None:
    assert bench.plan(from_source=True).why == ("requested with --from-source",)
    plan = GivenPlanner(bench.project(), bench.patched(), made={}).on(None)
    assert plan.why == ("there is no base wheel",)
    assert plan.to_json()["base"] is None


def test_keys_name_content_and_nothing_else(bench: Bench) -> None:
    one, two = {A: "one = 2\ntwo = 2\n"}, {"src/pw_demo/data.txt": "4\n"}
    first = bench.plan(one, two)
    assert first.key_parts.keys() == {*("tree", "base", "wheel", "recipe", "zlib", "remade")}
    # Swapped, renamed or joined patches with the same result are the same wheel.
    assert bench.plan(two, one).node_key == first.node_key
    assert bench.plan(one | two).node_key == first.node_key
    assert bench.plan(tree=bench.patched(one, two, prefix="x")).node_key == first.node_key
    assert bench.plan({A: "one = 3\n"}, two).node_key != first.node_key
    other = Base(kind="upstream", path=bench.wheel({BUILT: "y"}, "b"), sha256="")
    other = replace(other, sha256=support.sha256(other.path))
    assert bench.plan(one, two, base=other).node_key != first.node_key
    bench.label = "other"
    assert bench.plan(one, two).node_key != first.node_key


def test_made_again_nothing_is_opened(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = bench.patched({A: "one = 2\n"})
    base = bench.base
    first = bench.plan(tree=tree, base=base)
    base.path.unlink()
    monkeypatch.setattr(plan_module, "Repository", None)
    assert bench.plan(tree=tree, base=base) == first


def test_another_lock_is_another_question(bench: Bench) -> None:
    tree = bench.patched({A: "one = 2\n"})
    assert bench.plan(tree=tree).route == "graft"
    bench.inventory = replace(INVENTORY, reads=INVENTORY.reads | {A})
    assert bench.plan(tree=tree).route == "compile"


def test_a_base_of_another_build(bench: Bench) -> None:
    bench.base_path = bench.wheel({"pw_demo/extra.so": "", "pw_demo/more.so": ""}, "b")
    plan = bench.plan({A: "one = 2\n"})
    assert plan.route == "compile"
    assert "not the pin's own build: it has pw_demo/extra.so and 1 more" in plan.why[0]
    bench.upstream_wheel = UpstreamWheel(distribution="pw-demo", only_in_base=("pw_demo/*.so",))
    assert bench.plan({A: "one = 2\n"}).route == "graft"


def test_a_base_that_lacks_an_output(bench: Bench) -> None:
    bench.inventory = replace(INVENTORY, built=frozenset({BUILT, "pw_demo/_slow.so"}))
    plan = bench.plan()
    assert "it lacks pw_demo/_slow.so" in plan.why[0]
    assert "more" not in plan.why[0]
    bench.upstream_wheel = UpstreamWheel(distribution="pw-demo", only_in_build=("pw_demo/_slow.*",))
    assert bench.plan().route == "graft"


def test_without_an_upstream_wheel_no_difference_is_allowed(bench: Bench) -> None:
    bench.upstream_wheel = None
    assert bench.plan().route == "graft"


def test_a_missing_base(bench: Bench) -> None:
    base = bench.base
    base.path.unlink()
    with pytest.raises(InputError, match="no such wheel"):
        bench.plan(base=base)


@pytest.mark.parametrize(
    ("text", "route", "why"),
    [
        (PYPROJECT.replace("numpy>=2", "numpy>=2.1"), "graft", ""),
        (PYPROJECT.replace(">=3.9", ">=3.10"), "graft", ""),
        (PYPROJECT + "# a comment\n", "graft", "its content as TOML is the same"),
        (PYPROJECT.replace('"1.0"', '"1.1"'), "compile", "[project] version"),
        (PYPROJECT.replace("mesonpy", "other"), "compile", "[build-system]"),
        (PYPROJECT + "[tool.x]\n", "compile", "[tool]"),
        (PYPROJECT + "[oops\n", "compile", "cannot be read"),
    ],
)
def test_changes_of_pyproject(bench: Bench, text: str, route: str, why: str) -> None:
    plan = bench.plan({"pyproject.toml": text})
    assert plan.route == route
    assert why in "".join(plan.why)
    if not why:
        (output,) = plan.outputs
        assert (output.path, output.source) == ("METADATA", "pyproject.toml")
        assert plan.taken == len(INVENTORY.verbatim) + 2


def test_a_removed_pyproject(bench: Bench) -> None:
    assert "added or removed" in bench.plan({"pyproject.toml": None}).why[0]


def test_a_pyproject_that_a_script_reads(bench: Bench) -> None:
    bench.inventory = replace(INVENTORY, reads=INVENTORY.reads | {"pyproject.toml"})
    assert "the build reads it" in bench.plan({"pyproject.toml": PYPROJECT + "#"}).why[0]


def test_requirements_that_something_else_made(bench: Bench) -> None:
    files = {w: FILES[s] for w, s in INVENTORY.verbatim.items()} | {BUILT: ""}
    bench.base_path = support.make_wheel(
        bench.folder / "odd", "pw-demo", "1.0", files, requires=["odd"]
    )
    changed = PYPROJECT.replace("numpy>=2", "numpy>=2.1")
    plan = bench.plan({"pyproject.toml": changed})
    assert "other requirements" in plan.why[0]


def test_a_change_that_no_patch_names(bench: Bench) -> None:
    tree = bench.patched({A: "one = 2\n"})
    series = replace(tree.series, patches=())
    (output,) = bench.plan(tree=replace(tree, series=series)).outputs
    assert output.why == "no patch of the series"
    (output,) = bench.plan(tree=replace(tree, series=series, dev=True)).outputs
    assert output.why == "the open work tree"


def test_a_built_base_is_compared_with_what_it_was_built_from(bench: Bench) -> None:
    first = {A: "one = 2\n"}
    trees = {"source": "0" * 40, "patched": bench.patched(first).tree}
    name = "pw_demo-1.0.dist-info/patchwheel.json"
    path = bench.wheel({name: record_bytes(trees=trees).decode()}, "built")
    base = Base(kind="built", path=path, sha256=support.sha256(path))
    plan = bench.plan(first, {"src/pw_demo/data.txt": "4\n"}, base=base)
    assert [output.path for output in plan.outputs] == ["pw_demo/data.txt"]
    silent = bench.wheel({name: "{}"}, "silent")
    base = Base(kind="built", path=silent, sha256=support.sha256(silent))
    with pytest.raises(InputError, match=r"record patchwheel\.json has schema None"):
        bench.plan(first, base=base)


@pytest.mark.parametrize(
    ("path", "says"), [("src/pw_demo/fast.h", True), ("include/x.hpp.in", True), (A, False)]
)
def test_binaries_that_do_not_know_another_forks_headers_are_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, path: str, *, says: bool
) -> None:
    tree, other = bench.patched({A: "one = 2\n"}), bench.patched({path: "#define X 2\n"})
    for module in (base_module, plan_module):
        monkeypatch.setattr(module, "patched_tree", lambda *_, **__: other)
    planner = GivenPlanner(bench.project(), tree, made={})
    # Any fork of the manifest may stand for one that it compiles against.
    vars(planner)["build"] = replace(bench.build, needs=("pw-demo",))
    line = f"what is not remade stays upstream's binary, and pw-demo changes {path}; "
    expected = [f"{line}--from-source compiles against it"] if says else []
    assert planner.on(bench.base).warnings == expected
    assert planner.on(None).warnings == []


def test_json_says_everything(bench: Bench) -> None:
    plan = bench.plan({A: "one = 2\n"})
    text = json.loads(json.dumps(plan.to_json()))
    assert text["fork"] == "pw-demo"
    assert text["route"] == "graft"
    assert text["outputs"][0]["path"] == "pw_demo/a.py"
    assert text["base"]["sha256"] == bench.base.sha256
    assert text["patches"] == ["0001.patch"]
    assert text["node-key"] == plan.node_key
    now = Outlook(plan=plan, state="to-make")
    jsonschema.validate([json.loads(json.dumps(now.to_json()))], SCHEMA)


def test_tests_and_documentation_are_counted_and_a_remade_file_is_named(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = bench.plan({A: "one = 2\n", "docs/a.rst": "a\n", "tests/test_a.py": "a\n"})
    tables.plan(Outlook(plan=plan, state="to-make"))
    out = capsys.readouterr().out
    made = "  a graft: about a second, 1 of 7 files remade\n  from upstream's wheel ("
    assert out.startswith(f"pw-demo {plan.version}: to be made\n{made}")
    assert "  because of 0001.patch:\n    remake pw_demo/a.py" in out
    assert "  2 changed test, documentation or similar files: nothing is remade for them\n" in out
    assert "test_a.py" not in out
    assert max(map(len, out.splitlines())) <= 80
