import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from patchwheel.kit.errors import CheckError, InputError
from patchwheel.kit.store import Store
from patchwheel.plan.base import Base
from patchwheel.plan.records import Plan
from patchwheel.wheel import compile as compile_module
from patchwheel.wheel import make as wheel_module
from patchwheel.wheel.compile import checked_draft
from patchwheel.wheel.graft import UnlabelledWheel
from patchwheel.wheel.make import finish
from patchwheel.wheelfile.read import check_record, read_wheel
from patchwheel.wheelfile.record import CompileRecord, TreesRecord
from tests.fixtures import support
from tests.fixtures.grafts import BUILT, FILES, INVENTORY, TAG, Bench

A = "src/pw_demo/a.py"


@pytest.fixture
def bench(tmp_path: Path, store: Store) -> Bench:
    return Bench(tmp_path, store)


def content(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def test_a_graft_is_a_true_labelled_wheel(bench: Bench) -> None:
    wheel = bench.make(bench.plan({A: "one = 2\n"}))
    label = f"1.0+arrayapi.h{wheel.node_key[:8]}.graft"
    assert wheel.version == label
    assert wheel.path.name == f"pw_demo-{label}-{TAG}.whl"
    assert wheel.sha256 == support.sha256(wheel.path)
    assert not wheel.cached
    found = read_wheel(wheel.path)
    check_record(found)
    info = f"pw_demo-{label}.dist-info"
    assert found.dist_info == info
    assert list(found.entries)[-2:] == [f"{info}/patchwheel.json", f"{info}/RECORD"]
    assert f"Version: {label}".encode() in found.metadata("METADATA")
    assert found.entries["pw_demo/a.py"].content() == b"one = 2\n"
    sbom = json.loads(found.metadata("sboms/a.cdx.json"))
    assert sbom["metadata"]["component"]["version"] == label
    assert sbom["dependencies"][0]["ref"] == sbom["metadata"]["component"]["bom-ref"]
    # Everything else is taken as it was packed.
    base = read_wheel(bench.base_path)
    taken = [n for n in base.entries if ".dist-info/" not in n and n != "pw_demo/a.py"]
    assert all(found.entries[n] == base.entries[n] for n in taken)


def test_its_record_says_how_it_was_made(bench: Bench) -> None:
    plan = bench.plan({A: "one = 2\n"})
    record = read_wheel(bench.make(plan).path).record
    assert record.trees == TreesRecord(source=bench.tree, patched=plan.tree.tree)
    (patch,) = record.patches
    assert patch.name == "0001.patch"
    assert patch.sha256 == plan.tree.series.patches[0].sha256
    assert patch.upstream_status == "Pending"
    assert record.base
    assert record.base.filename == bench.base_path.name
    assert [output.path for output in record.remade] == ["pw_demo/a.py"]
    assert record.route == "graft"
    assert str(bench.folder) not in record.to_bytes().decode()


def test_made_twice_in_different_folders_it_is_the_same(bench: Bench, tmp_path: Path) -> None:
    first = bench.make(bench.plan({A: "one = 2\n"}))
    other = Bench(tmp_path / "other", Store(tmp_path / "elsewhere"))
    second = other.make(other.plan({A: "one = 2\n"}))
    assert first.path != second.path
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.to_json()["sha256"] == second.to_json()["sha256"]


def test_a_wheel_that_is_there_is_not_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = bench.plan({A: "one = 2\n"})
    first = bench.make(plan)
    bench.base_path.unlink()
    monkeypatch.setattr("patchwheel.kit.entry.file_sha256", lambda _: pytest.fail("read"))
    again = bench.make(plan)
    assert again.cached
    assert (again.path, again.sha256) == (first.path, first.sha256)
    assert again.seconds == first.seconds


def test_a_base_that_was_built_here_is_labelled_anew(bench: Bench) -> None:
    first = {A: "one = 2\n"}
    built = bench.make(bench.plan(first))
    base = Base(kind="built", path=built.path, sha256=built.sha256)
    plan = bench.plan(first, {"src/pw_demo/data.txt": "4\n"}, base=base)
    wheel = bench.make(plan)
    names = zipfile.ZipFile(wheel.path).namelist()
    assert names.count(f"pw_demo-{wheel.version}.dist-info/patchwheel.json") == 1
    assert content(wheel.path, "pw_demo/a.py") == b"one = 2\n"
    assert content(wheel.path, "pw_demo/data.txt") == b"4\n"


def test_the_data_folder_is_renamed(bench: Bench) -> None:
    script = "pw_demo-1.0.data/scripts/demo"
    bench.base_path = bench.wheel(name="data")
    bench.inventory = replace(INVENTORY, built=frozenset({BUILT, script}))
    built = bench.make(bench.plan())
    assert f"pw_demo-{built.version}.data/scripts/demo" in read_wheel(built.path).entries
    base = Base(kind="built", path=built.path, sha256=built.sha256)
    again = bench.make(bench.plan({A: "one = 2\n"}, base=base))
    assert f"pw_demo-{again.version}.data/scripts/demo" in read_wheel(again.path).entries


def test_tags_that_the_base_has_wrong_are_made_true(bench: Bench) -> None:
    one = bench.base_path
    bench.base_path = one.with_name("pw_demo-1.0-cp312-cp312-linux_x86_64.whl")
    shutil.copyfile(one, bench.base_path)
    wheel = bench.make(bench.plan())
    assert b"Tag: cp312-cp312-linux_x86_64\n" in read_wheel(wheel.path).metadata("WHEEL")


# What a compile records of itself.
MADE = CompileRecord(
    sandbox="none",
    source_date_epoch=str(support.EPOCH),
    build_requirements=(),
    compiled_against={},
    toolchain={},
    config_settings={},
    env={},
    built={},
)


def compiled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, changes: Mapping[str, str | None]
) -> None:
    """Let a compile give the outputs of the inventory, with changes."""

    def compile_wheel(_plan: Plan) -> UnlabelledWheel:
        files = {w: FILES[s] for w, s in INVENTORY.verbatim.items()} | {BUILT: "made"}
        files = {n: t for n, t in {**files, **changes}.items() if t is not None}
        path = support.make_wheel(bench.folder / "compiled", "pw-demo", "1.0", files, tag=TAG)
        return replace(checked_draft(read_wheel(path), MADE), log=bench.folder / "compile.log")

    monkeypatch.setattr(compile_module, "compile_wheel", compile_wheel)


def make(bench: Bench, *patches: Mapping[str, str | None]) -> Path:
    plan = bench.plan(*patches, from_source=True)
    return wheel_module.make_wheel(plan, bench.store).path


def test_a_compile_is_finished_the_same_way(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(bench, monkeypatch, {"pw_demo/a.py": "one = 2\n"})
    path = make(bench, {A: "one = 2\n"})
    assert ".graft" not in path.name
    record = read_wheel(path).record
    assert record.compiled == MADE
    assert "sboms/patchwheel.cdx.json" in str(read_wheel(path).entries)
    assert record.base is None
    assert record.key["toolchain"] == "gcc"


def test_a_compile_that_lacks_an_output(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(bench, monkeypatch, {BUILT: None, "pw_demo/a.py": None})
    with pytest.raises(CheckError, match=r"lacks pw_demo/_fast\.so and 1 more") as caught:
        make(bench)
    assert caught.value.log == bench.folder / "compile.log"
    assert "did not find" in str(caught.value.hint)
    assert list(bench.store.root.glob("wheels/*")) == []


def test_a_module_of_one_python_stands_for_that_of_the_limited_api(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(bench, monkeypatch, {BUILT: None, BUILT.replace(".so", ".cpython-312-x86.so"): "made"})
    assert make(bench).exists()


def test_a_compile_that_did_not_copy_a_source(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(bench, monkeypatch, {"pw_demo/a.py": "stale\n"})
    with pytest.raises(CheckError, match=r"a\.py is not the patched tree's src/pw_demo/a\.py"):
        make(bench)


def test_a_series_may_decide_what_is_built(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(bench, monkeypatch, {BUILT: None})
    assert make(bench, {"meson.build": "project('pw-demo')\n"}).exists()


def test_a_removed_file_is_no_longer_due(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(bench, monkeypatch, {"pw_demo/a.py": None})
    assert make(bench, {A: None}).exists()


def test_a_compiled_wheel_whose_record_lies(bench: Bench) -> None:
    files = {"pw_demo/a.py": "one\n"}
    path = support.make_wheel(bench.folder / "l", "pw-demo", "1.0", files, tag=TAG)
    with zipfile.ZipFile(path) as archive:
        contents = {n: archive.read(n) for n in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**contents, "pw_demo/a.py": b"two\n"}.items():
            archive.writestr(name, text)
    with pytest.raises(InputError, match="does not match RECORD"):
        checked_draft(read_wheel(path), MADE)


def test_a_wheel_that_calls_itself_otherwise(bench: Bench, tmp_path: Path) -> None:
    plan = bench.plan()
    stranger = support.make_wheel(tmp_path / "s", "stranger", "1.0", {"x.py": ""})
    draft = checked_draft(read_wheel(stranger), MADE)
    path = finish(draft, plan, tmp_path)
    with pytest.raises(CheckError, match="calls itself") as caught:
        wheel_module.check_wheel(path, plan, trusted=None)
    assert "pw-demo" in str(caught.value)


def test_metadata_of_another_version(bench: Bench, tmp_path: Path) -> None:
    other = support.make_wheel(tmp_path / "s", "pw-demo", "1.1", {"x.py": ""})
    wheel = read_wheel(other)
    renamed = replace(wheel, name=replace(wheel.name, version="1.0"))
    with pytest.raises(CheckError, match="another version than the file name"):
        finish(checked_draft(renamed, MADE), bench.plan(), tmp_path)
