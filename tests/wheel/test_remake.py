"""What makes a graft of built outputs impossible, and what then happens."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from patchwheel.build import sandbox
from patchwheel.kit.errors import BuildError, GraftNotPossible
from patchwheel.plan.base import Base
from patchwheel.wheel import build, remake
from patchwheel.wheelfile.elf import MAGIC
from tests.fixtures import support
from tests.fixtures.grafts import Bench

if TYPE_CHECKING:
    from pathlib import Path

    from patchwheel.kit.store import Store
    from patchwheel.plan.records import Plan

A = "src/pw_demo/a.py"
NONE = sandbox.Sandbox(level="none")


def test_a_file_that_the_build_did_not_make_is_named(tmp_path: Path) -> None:
    fork = SimpleNamespace(name="pw-demo", lock_key="pw-demo")
    session = cast("Any", SimpleNamespace(fork=fork, log=tmp_path / "log"))
    with pytest.raises(BuildError, match=r"pw-demo: its build did not make pw/x\.so"):
        remake._read(session, tmp_path, "//pw/x.so", ruled=True)
    with pytest.raises(GraftNotPossible, match=r"pw/x\.so has no build rule"):
        remake._read(session, tmp_path, "//pw/x.so", ruled=False)


def test_the_sources_of_the_last_time_are_used_again(tmp_path: Path, store: Store) -> None:
    bench = Bench(tmp_path, store)
    one, two = bench.patched({A: "one = 2\n"}), bench.patched({A: "one = 3\n"})
    inodes = []
    for tree, text in ((one, "one = 2\n"), (two, "one = 3\n")):
        with sandbox.open_build_dir("x", sandbox=NONE, store=store) as build_dir:
            session = cast(
                "Any", SimpleNamespace(build_dir=build_dir, source=build_dir.work / "src")
            )
            with remake._sources(tree, session, store):
                assert (session.source / A).read_text() == text
                inodes.append((session.source / "pyproject.toml").stat().st_ino)
                (session.source / "left").write_text("")
    assert len(set(inodes)) == 1


def test_the_sources_of_a_build_that_failed_are_not_used_again(
    tmp_path: Path, store: Store
) -> None:
    tree = Bench(tmp_path, store).patched({A: "one = 2\n"})
    for _ in range(2):
        with sandbox.open_build_dir("x", sandbox=NONE, store=store) as build_dir:
            session = cast(
                "Any", SimpleNamespace(build_dir=build_dir, source=build_dir.work / "src")
            )
            with contextlib.suppress(BuildError), remake._sources(tree, session, store):
                assert (session.source / A).read_text() == "one = 2\n"
                (session.source / "left").write_text("")
                raise BuildError("a step failed")
        assert not list(store.root.glob("tmp/source-*"))


def test_a_library_fits_only_a_wheel_for_linux(tmp_path: Path, store: Store) -> None:
    path = support.make_wheel(tmp_path, "pw-demo", "1.0", {"pw/a.py": ""})
    base = Base(kind="upstream", path=path, sha256=support.sha256(path))
    assert remake._fitted({"pw/made.py": b"x"}, base, tmp_path, store)[1] == ("any",)
    with pytest.raises(GraftNotPossible, match="is for any, not for a Linux"):
        remake._fitted({"pw/x.so": MAGIC}, base, tmp_path, store)


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
        return SimpleNamespace(route=route, node_key="0", key_parts={})

    def make_wheel(plan: Plan, _store: Store) -> object:
        if plan.route == "graft":
            raise GraftNotPossible("x.so needs liby.so")
        return SimpleNamespace(plan=plan, cached=True)

    monkeypatch.setattr(build, "plan_fork", plan_fork)
    monkeypatch.setattr(build, "make_wheel", make_wheel)
    bench = Bench(tmp_path, store)
    project = bench.project()
    assert build.build_wheel(project, bench.fork).plan.route == "compile"
    assert asked == [None, "x.so needs liby.so"]
    assert cast("support.Recorder", project.progress).lines == [
        "pw-demo: no graft, a compile: x.so needs liby.so"
    ]
