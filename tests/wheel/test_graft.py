from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from patchwheel.kit.errors import BuildError, GraftNotPossible, InputError
from patchwheel.kit.repo import Repository
from patchwheel.kit.store import Store
from patchwheel.plan.base import Base
from patchwheel.plan.records import Plan
from patchwheel.wheel import build
from patchwheel.wheel import graft as graft_module
from patchwheel.wheel.fit import MAGIC
from patchwheel.wheel.graft import graft
from patchwheel.wheelfile.archive import zip_date
from patchwheel.wheelfile.metadata import field
from patchwheel.wheelfile.read import read_wheel
from tests.fixtures import support
from tests.fixtures.grafts import PYPROJECT, Bench

A = "src/pw_demo/a.py"


@pytest.fixture
def bench(tmp_path: Path, store: Store) -> Bench:
    return Bench(tmp_path, store)


def test_only_what_the_plan_names_is_remade(bench: Bench) -> None:
    plan = bench.plan({A: "one = 2\n"})
    draft = graft(plan, bench.base)
    before = read_wheel(bench.base_path).entries
    assert {n for n in before if draft.entries[n] != before[n]} == {"pw_demo/a.py"}
    fresh = draft.entries["pw_demo/a.py"]
    assert fresh.checked() == b"one = 2\n"
    assert fresh.date == zip_date(support.EPOCH)
    assert fresh.mode == before["pw_demo/a.py"].mode


def test_a_change_of_mode_alone(bench: Bench) -> None:
    repo = Repository(bench.git_dir)
    files = repo.files(bench.tree)
    contents = repo.read([blob.oid for blob in files.values()])
    tree = repo.import_files(
        (name, "100755" if name == A else blob.mode, contents[blob.oid])
        for name, blob in files.items()
    )
    plan = bench.plan(tree=replace(bench.patched(), tree=tree))
    entry = graft(plan, bench.base).entries["pw_demo/a.py"]
    assert entry.mode == 0o755
    assert entry.content() == contents[files[A].oid]


def test_metadata_follows_changed_requirements(bench: Bench) -> None:
    changed = PYPROJECT.replace("numpy>=2", "numpy>=2.1")
    draft = graft(bench.plan({"pyproject.toml": changed}), bench.base)
    text = draft.entries["pw_demo-1.0.dist-info/METADATA"].checked()
    assert field(text, "Requires-Dist")[0] == "numpy>=2.1"
    assert text.endswith(b"# pw-demo\n")


def test_a_base_with_other_bytes(bench: Bench) -> None:
    plan, base = bench.plan({A: "one = 2\n"}), bench.base
    base.path.write_bytes(base.path.read_bytes() + b" ")
    with pytest.raises(InputError, match="sha256 mismatch"):
        graft(plan, base)


def test_a_base_whose_file_is_not_the_pins(bench: Bench) -> None:
    plan = bench.plan({A: "one = 2\n"})
    path = bench.wheel({"pw_demo/a.py": "other\n"}, "other")
    base = Base(kind="upstream", path=path, sha256=support.sha256(path))
    with pytest.raises(InputError, match=r"not the src/pw_demo/a\.py of its pin"):
        graft(plan, base)


def test_a_file_that_the_build_did_not_make_is_named(tmp_path: Path) -> None:
    fork = SimpleNamespace(name="pw-demo", lock_key="pw-demo")
    build_dir = SimpleNamespace(work=tmp_path)
    session = cast("Any", SimpleNamespace(fork=fork, build_dir=build_dir, log=tmp_path / "log"))
    with pytest.raises(BuildError, match=r"pw-demo: its build did not make pw/x\.so"):
        graft_module._read(session, "meson", "//pw/x.so", ruled=True)
    with pytest.raises(GraftNotPossible, match=r"pw/x\.so has no build rule"):
        graft_module._read(session, "meson", "//pw/x.so", ruled=False)


def test_a_library_fits_only_a_wheel_for_linux(tmp_path: Path) -> None:
    path = support.make_wheel(tmp_path, "pw-demo", "1.0", {"pw/a.py": ""})
    base, session = Base(kind="upstream", path=path, sha256=support.sha256(path)), cast("Any", None)
    assert graft_module._fit_outputs({"pw/made.py": b"x"}, base, session)[1] == "py3-none-any"
    with pytest.raises(GraftNotPossible, match="is for any, not for a Linux"):
        graft_module._fit_outputs({"pw/x.so": MAGIC}, base, session)


def test_a_refused_graft_stays_a_compile(tmp_path: Path, store: Store) -> None:
    bench = Bench(tmp_path, store)
    tree = bench.patched({A: "one = 2\n"})

    def plan(refused: str | None = None) -> Plan:
        return bench.plan(tree=tree, refused=refused)

    assert plan().route == "graft"
    refused = plan("x.so needs liby.so")
    assert (refused.route, refused.why) == ("compile", ("x.so needs liby.so",))
    assert plan() == refused


def test_what_does_not_fit_is_compiled_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: Store
) -> None:
    asked: list[str | None] = []

    def plan_fork(*_: object, refused: str | None = None, **__: object) -> object:
        asked.append(refused)
        route = "compile" if refused else "graft"
        return SimpleNamespace(route=route, node_key="0", key_parts={}, needs=())

    def make_wheel(plan: Plan, _store: Store, _progress: object) -> object:
        if plan.route == "graft":
            raise GraftNotPossible("x.so needs liby.so")
        return SimpleNamespace(plan=plan, cached=True, path=tmp_path, sha256=None)

    monkeypatch.setattr(build, "plan_fork", plan_fork)
    monkeypatch.setattr(build, "make_wheel", make_wheel)
    bench = Bench(tmp_path, store)
    project = bench.project()
    assert build.build_wheel(project, bench.fork).plan.route == "compile"
    assert asked == [None, "x.so needs liby.so"]
    assert cast("support.Recorder", project.progress).lines == [
        "pw-demo: no graft, a compile: x.so needs liby.so"
    ]
