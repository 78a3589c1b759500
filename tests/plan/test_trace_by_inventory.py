from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from patchwheel.kit.errors import ManifestError
from patchwheel.kit.repo import Blob, Change
from patchwheel.manifest.inventory import (
    BuildInventory,
    BuiltOutput,
    PinGraph,
    load_pin_graph,
    save_pin_graph,
)
from patchwheel.plan.scan_references import same_references
from patchwheel.plan.trace import TraceResult, candidates, trace_by_inventory

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

INVENTORY = BuildInventory(
    verbatim={"pw/a.py": "src/a.py", "pw/fast.h": "src/fast.h", "pw/odd.py": "src/odd.py"},
    built=frozenset({"pw/fast.so", "pw/slow.so", "pw/odd.py"}),
    reads=frozenset({"meson.build", "src/fast.pyx", "src/table.txt"}),
)
REACH = PinGraph(
    tree="1" * 40,
    settings="s",
    definition=frozenset({"meson.build"}),
    outputs={
        "pw/fast.so": BuiltOutput(
            source="//fast.so",
            reads=frozenset({"src/fast.pyx", "src/fast.h"}),
            exists=frozenset({"src/__init__.pxd"}),
            commands=("cython src/fast.pyx", "gcc -c fast.c"),
        ),
        "pw/slow.so": BuiltOutput(source="//slow.so", reads=frozenset({"src/slow.c"})),
        "pw/gone.so": BuiltOutput(source="", reads=frozenset({"src/gone.f"})),
    },
)
PRESENT = ("pw/a.py", "pw/fast.h", "pw/odd.py", "pw/fast.so", "pw/slow.so", "pw/gone.so")


def changed(path: str, status: str = "M") -> Change:
    old, new = Blob(mode="100644", oid="0"), Blob(mode="100644", oid="1")
    return Change(path=path, status=cast("Any", status), old=old, new=new)


def trace(
    *changes: Change, reach: PinGraph = REACH, present: Collection[str] = PRESENT
) -> TraceResult:
    found = trace_by_inventory(reach, INVENTORY, changes, present)
    assert found
    return found


def test_content_reaches_what_reads_it() -> None:
    found = trace(changed("src/fast.h"), changed("src/a.py"), changed("src/unused.c"))
    assert [(e.path, e.action, e.source, e.by) for e in found.effects] == [
        ("pw/a.py", "remake", "src/a.py", ("src/a.py",)),
        ("pw/fast.h", "remake", "src/fast.h", ("src/fast.h",)),
        ("pw/fast.so", "build", "//fast.so", ("src/fast.h",)),
    ]
    assert found.unknown == ()
    assert found.idle == ("src/unused.c: nothing that is built mentions it",)
    assert found.configured == REACH.tree


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("src/gone.f", "it may reach pw/gone.so, which cannot be built here"),
        ("src/table.txt", "the build reads it, for an unknown purpose"),
        ("src/odd.py", "pw/odd.py in the base is not the same"),
    ],
)
def test_what_cannot_be_attributed_is_named(path: str, why: str) -> None:
    assert trace(changed(path)).unknown == (f"{path}: {why}",)
    always = replace(REACH, unfollowed=("x.c: it is a part of a static library",))
    assert trace(changed("src/a.py"), reach=always).unknown == always.unfollowed


@pytest.mark.parametrize(
    "change", [changed("meson.build"), changed("src/new.pyx", "A"), changed("src/slow.c", "D")]
)
def test_a_change_of_the_definition_needs_a_configured_tree(change: Change) -> None:
    assert trace_by_inventory(REACH, INVENTORY, [change], PRESENT) is None
    everything = ("pw/fast.so", "pw/slow.so")
    expected = {"meson.build": everything, "src/slow.c": ("pw/slow.so",)}
    assert candidates(REACH, [change]) == expected.get(change.path, ())


def test_what_the_base_leaves_out_is_not_built() -> None:
    assert trace(changed("src/slow.c"), present=["pw/fast.so"]).effects == ()


def test_a_base_with_other_references_is_not_judged_by_the_pin() -> None:
    class Repo:
        def read(self, _oids: object) -> dict[str, bytes]:
            return {"0": b'#include "a.h"\n', "1": self.new}

        def __init__(self, new: bytes) -> None:
            self.new = new

    change = changed("src/slow.c")
    assert same_references(cast("Any", Repo(b'int x;\n#include "a.h"\n')), [change])
    assert not same_references(cast("Any", Repo(b'#include "b.h"\n')), [change])
    assert not same_references(cast("Any", Repo(b"")), [changed("src/new.c", "A")])


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "forks.inventory"
    assert load_pin_graph(path, "demo", "3.12") is None
    save_pin_graph(path, {}, keep=[])
    assert not path.exists()
    save_pin_graph(path, {("demo", "3.12"): REACH}, keep=[])
    assert load_pin_graph(path, "demo", "3.12") == REACH
    written = path.read_bytes()
    save_pin_graph(path, {("demo", "3.12"): REACH}, keep=["demo"])
    assert path.read_bytes() == written
    save_pin_graph(path, {("other", "3.12"): REACH}, keep=["demo"])
    assert load_pin_graph(path, "demo", "3.12") == load_pin_graph(path, "other", "3.12") == REACH
    save_pin_graph(path, {}, keep=["other"])
    assert load_pin_graph(path, "demo", "3.12") is None


@pytest.mark.parametrize("text", ["", "[]", '{"forks": {"demo": {"3.12": {"tree": 1}}}}'])
def test_a_damaged_file_says_how_to_write_it_again(tmp_path: Path, text: str) -> None:
    path = tmp_path / "forks.inventory"
    path.write_text(text)
    with pytest.raises(ManifestError, match="is damaged") as caught:
        load_pin_graph(path, "demo", "3.12")
    assert "patchwheel lock --force" in str(caught.value)
    save_pin_graph(path, {("demo", "3.12"): REACH}, keep=[])
    assert load_pin_graph(path, "demo", "3.12") == REACH
