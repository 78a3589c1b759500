"""What makes a graft of built outputs impossible, and what then happens."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from patchwheel.build import sandbox
from patchwheel.kit.errors import BuildError, UnfitError
from patchwheel.pipeline import Pipeline
from patchwheel.plan import plan as plan_module
from patchwheel.plan.plan import Base
from patchwheel.wheel import make as wheel_module
from patchwheel.wheel import remake
from patchwheel.wheelfile.elf import MAGIC
from tests.fixtures import support
from tests.fixtures.grafts import Bench, Untraced

if TYPE_CHECKING:
    from pathlib import Path

    from patchwheel.kit.store import Store
    from patchwheel.manifest.model import Fork
    from patchwheel.plan.plan import Plan

A = "src/pw_demo/a.py"
NONE = sandbox.Sandbox(level="none")


def test_a_file_that_the_build_did_not_make_is_named(tmp_path: Path) -> None:
    fork = SimpleNamespace(name="pw-demo", locked_as="pw-demo")
    workplace = cast("Any", SimpleNamespace(fork=fork, log=tmp_path / "log"))
    with pytest.raises(BuildError, match=r"pw-demo: its build did not make pw/x\.so"):
        remake._read(workplace, tmp_path, "//pw/x.so")


def test_the_sources_of_the_last_time_are_used_again(tmp_path: Path, store: Store) -> None:
    bench = Bench(tmp_path, store)
    one, two = bench.patched({A: "one = 2\n"}), bench.patched({A: "one = 3\n"})
    inodes = []
    for tree, text in ((one, "one = 2\n"), (two, "one = 3\n")):
        with sandbox.open_room("x", sandbox=NONE, store=store) as room:
            workplace = cast("Any", SimpleNamespace(room=room, source=room.work / "src"))
            with remake._sources(tree, workplace, store):
                assert (workplace.source / A).read_text() == text
                inodes.append((workplace.source / "pyproject.toml").stat().st_ino)
                (workplace.source / "left").write_text("")
    assert len(set(inodes)) == 1


def test_the_sources_of_a_build_that_failed_are_not_used_again(
    tmp_path: Path, store: Store
) -> None:
    tree = Bench(tmp_path, store).patched({A: "one = 2\n"})
    for _ in range(2):
        with sandbox.open_room("x", sandbox=NONE, store=store) as room:
            workplace = cast("Any", SimpleNamespace(room=room, source=room.work / "src"))
            with (
                contextlib.suppress(BuildError),
                remake._sources(tree, workplace, store),
            ):
                assert (workplace.source / A).read_text() == "one = 2\n"
                (workplace.source / "left").write_text("")
                raise BuildError("a step failed")
        assert not list(store.root.glob("tmp/source-*"))


def test_a_library_fits_only_a_wheel_for_linux(tmp_path: Path, store: Store) -> None:
    path = support.make_wheel(tmp_path, "pw-demo", "1.0", {"pw/a.py": ""})
    base = Base(kind="upstream", path=path, sha256=support.sha256(path))
    assert remake._fitted({"pw/made.py": b"x"}, base, tmp_path, store)[1] == ("any",)
    with pytest.raises(UnfitError, match="is for any, not for a Linux"):
        remake._fitted({"pw/x.so": MAGIC}, base, tmp_path, store)


def test_a_refused_graft_stays_a_compile(tmp_path: Path, store: Store) -> None:
    bench = Bench(tmp_path, store)
    tree = bench.patched({A: "one = 2\n"})

    def plan(refused: str | None = None) -> Plan:
        return plan_module.make_plan(
            tree,
            bench.build,
            base=bench.base,
            from_source=False,
            means=Untraced(),
            store=store,
            label="x",
            refused=refused,
        )

    assert plan().route == "graft"
    refused = plan("x.so needs liby.so")
    assert (refused.route, refused.why) == ("compile", ("x.so needs liby.so",))
    assert plan() == refused


def test_what_does_not_fit_is_compiled_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str | None] = []
    report = support.Recorder()

    class Stub(Pipeline):
        shop = cast("Any", None)

        def __init__(self) -> None:
            self.report = report

        def locked(self, _fork: Fork) -> Any:  # noqa: ANN401
            return None

        def plan(self, *_: object, refused: str | None = None, **__: object) -> Any:  # noqa: ANN401
            asked.append(refused)
            return SimpleNamespace(route="compile" if refused else "graft"), []

    def make_wheel(plan: Plan, *_: object, **__: object) -> object:
        if plan.route == "graft":
            raise UnfitError("x.so needs liby.so")
        return SimpleNamespace(plan=plan, cached=True)

    monkeypatch.setattr(wheel_module, "make_wheel", make_wheel)
    stub, fork = (
        Stub(),
        cast("Any", SimpleNamespace(name="pw-demo", locked_as="pw-demo")),
    )
    assert stub.wheel(fork, {}).plan.route == "compile"
    assert asked == [None, "x.so needs liby.so"]
    assert report.lines == ["pw-demo: no graft, a compile: x.so needs liby.so"]
