from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from patchwheel.kit.errors import InputError
from patchwheel.kit.repo import Repository
from patchwheel.plan.base import Base
from patchwheel.wheel.graft import graft
from patchwheel.wheelfile.archive import zip_date
from patchwheel.wheelfile.metadata import field
from patchwheel.wheelfile.read import read_wheel
from tests.fixtures import support
from tests.fixtures.grafts import PYPROJECT, Bench

if TYPE_CHECKING:
    from pathlib import Path

    from patchwheel.kit.store import Store

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
