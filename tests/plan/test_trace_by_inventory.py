from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from patchwheel.kit.errors import ManifestError
from patchwheel.kit.repo import Blob, Change
from patchwheel.manifest.inventory import (
    BuildInventory,
    BuiltOutput,
    PinGraph,
    SeriesTrace,
)
from patchwheel.manifest.surveys import InventoryFile, save_inventories
from patchwheel.plan.scan_references import same_references
from patchwheel.plan.trace import Effect, Tracer, TraceResult, candidates

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
    found = Tracer(changes=changes, present=present, inventory=INVENTORY).by_inventory(reach)
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
    tracer = Tracer(changes=[change], present=PRESENT, inventory=INVENTORY)
    assert tracer.by_inventory(REACH) is None
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


def test_what_a_series_does_is_noted_and_read_as_it_was() -> None:
    effect = Effect(path="a.so", action="build", source="//a.so", by=("a.c", "b.h"))
    result = TraceResult(effects=(effect,), configured="patched", idle=("c: idle",))
    noted = result.noted("patched")
    assert noted is not None
    assert TraceResult.known(noted) == result
    # What cannot be attributed leads to a compile, and may be known another time.
    assert replace(result, unknown=("d.c",)).noted("patched") is None


def saved(path: Path, **graphs: PinGraph) -> InventoryFile:
    """Write graphs of the fork `demo` for Pythons, or of its variant for `rocm_` ones."""
    rows = {
        ("demo:rocm" if "rocm" in name else "demo", f"3.{name[-2:]}"): graph
        for name, graph in graphs.items()
    }
    save_inventories(path, {key: {} for key in [*rows, ("demo", "3.10")]}, rows)
    return InventoryFile.read(path)


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "forks.inventory"
    assert InventoryFile.read(path).graph("demo", "3.12") is None
    assert saved(path).graph("demo", "3.12") is None
    file = saved(path, p12=REACH)
    assert file.graph("demo", "3.12") == REACH
    assert file.graph("demo", "3.10") is None
    assert file.graph("other", "3.12") is None
    series = SeriesTrace(
        tree="t", effects=(("a.so", "build", "//a.so", "a.c", "b.h"),), idle=("c",)
    )
    both = saved(path, p12=replace(REACH, series=series), p13=REACH)
    assert both.graph("demo", "3.12") == replace(REACH, series=series)
    assert both.graph("demo", "3.13") == REACH
    assert saved(path, p12=REACH).graph("demo", "3.12") == REACH
    written = path.read_bytes()
    assert saved(path, p12=REACH).sha256("demo") == file.sha256("demo")
    assert path.read_bytes() == written


def test_another_python_takes_a_few_lines(tmp_path: Path) -> None:
    path = tmp_path / "forks.inventory"

    def native(python: str, command: str = "gcc") -> PinGraph:
        one = BuiltOutput(
            source="//fast.so",
            reads=frozenset({"src/fast.pyx", f"gen/python{python}/x.h"}),
            commands=(f"{command} -I/env/lib/python{python}/site-packages -DA",),
        )
        abi = f"cpython-{python.replace('.', '')}"
        return replace(REACH, outputs={f"pw/{n}.{abi}-linux.so": one for n in range(40)})

    found = {"p12": native("3.12"), "p13": native("3.13"), "rocm_12": native("3.12", "hipcc")}
    lines = len(saved(path, p12=found["p12"]).entries["demo"].splitlines())
    file = saved(path, **{name: found[name] for name in ("p12", "p13")})
    assert len(file.entries["demo"].splitlines()) <= lines + 4
    file = saved(path, **found)
    assert file.graph("demo", "3.13") == found["p13"]
    assert file.graph("demo:rocm", "3.12") == found["rocm_12"]
    assert file.graph("demo", "3.12") == found["p12"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"groups": [', '"groups": [9'),
        ('"groups": [0', '"groups": [0.5'),
        ('"tree": "', '"tre": "'),
        ('"words": [', '"words": [{'),
        ('"3.12": {}', '"3.12": {"outputs": 1}'),
        ('"common": {', '"common": [], "x": {'),
    ],
)
def test_a_damaged_file_says_how_to_write_it_again(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "forks.inventory"
    saved(path, p12=REACH)
    head, mark, text = path.read_text().partition('"sources"')
    assert old in text
    path.write_text(head + mark + text.replace(old, new))
    with pytest.raises(ManifestError, match="is damaged") as caught:
        InventoryFile.read(path).graph("demo", "3.12")
    assert "patchwheel lock --force" in str(caught.value)
