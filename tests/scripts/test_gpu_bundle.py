"""The bundle for a machine with a GPU: what goes in, its bytes, and how it is laid over the CuPy that is there."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from patchwheel.kit.errors import CheckError
from tests.fixtures import support

if TYPE_CHECKING:
    from types import ModuleType

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(name="bundle")
def _bundle(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS / "demo"))
    monkeypatch.syspath_prepend(str(SCRIPTS / "gpu"))
    return importlib.import_module("gpu_bundle")


@pytest.fixture(name="check")
def _check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS / "demo"))
    monkeypatch.syspath_prepend(str(SCRIPTS / "gpu"))
    return importlib.import_module("gpu_check")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("scipy/_lib/_util.py", True),
        ("scipy/_cyutility.cpython-312-x86_64-linux-gnu.so", True),
        ("scipy/linalg/cython_blas.pxd", False),
        ("scipy/linalg/tests/test_basic.py", False),
        ("scipy/linalg/tests/__init__.py", True),
        ("scipy/sparse/tests/test_sputils.py", True),
        ("skimage/__init__.pyi", True),
        ("skimage/data/coins.png", True),
        ("skimage/data/retina.jpg", False),
        ("skimage/data/README.txt", True),
        ("scipy-1.18.1.dist-info/METADATA", True),
        ("scipy-1.18.1.dist-info/licenses/LICENSE.txt", True),
        ("scipy-1.18.1.dist-info/direct_url.json", False),
        ("../../../bin/f2py", False),
        ("scipy/__pycache__/version.cpython-312.pyc", False),
    ],
)
def test_what_is_not_needed_at_run_time_is_left_out(
    bundle: ModuleType,
    name: str,
    wanted: bool,  # noqa: FBT001
) -> None:
    assert bundle.needed(name, {"scipy/sparse/tests/test_sputils.py"}) is wanted


def test_helpers_of_tests_are_followed(bundle: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "tests"
    folder.mkdir(parents=True)
    (folder / "test_one.py").write_text("from a.tests.test_two import x\n")
    (folder / "test_two.py").write_text("from a.tests import seed\nimport os\n")
    (folder / "seed.py").touch()
    (folder / "test_other.py").touch()
    found = bundle.helpers(tmp_path, ["a/tests/test_one.py", "b/tests/test_b.py"])
    assert found == {f"a/tests/{n}.py" for n in ("test_one", "test_two", "seed")}


def test_the_same_files_give_the_same_bytes(bundle: ModuleType, tmp_path: Path) -> None:
    files = {"run.sh": b"exit\n", "site/a.py": b"1\n"}
    bundle.pack(tmp_path / "one.tar.gz", files)
    bundle.pack(tmp_path / "b" / "two.tar.gz", dict(reversed(files.items())))
    one, two = tmp_path / "one.tar.gz", tmp_path / "b" / "two.tar.gz"
    assert one.read_bytes() == two.read_bytes()
    with tarfile.open(one) as archive:
        rows = [(m.name, m.mode, m.mtime, m.uid) for m in archive]
    assert rows == [
        ("patchwheel-gpu/run.sh", 0o755, bundle.EPOCH, 0),
        ("patchwheel-gpu/site/a.py", 0o644, bundle.EPOCH, 0),
    ]


def test_a_bundle_that_is_too_large_is_refused(
    bundle: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "LIMIT", 10)
    with pytest.raises(CheckError, match="bytes, 10 at most"):
        bundle.pack(tmp_path / "one.tar.gz", {"a": b"1"})
    assert not list(tmp_path.iterdir())


def make_site(site: Path, version: str) -> None:
    """An installed CuPy of two files, of which a series remakes one and adds another."""
    info = site / f"cupy_cuda13x-{version}.dist-info"
    info.mkdir(parents=True)
    (site / "cupy").mkdir()
    (site / "cupy" / "__init__.py").write_text("patched = False\n")
    (site / "cupy" / "kept.py").write_text("import cupy\n")
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: cupy-cuda13x\nVersion: {version}\n"
    )
    rows = ["cupy/__init__.py,,", "cupy/kept.py,,", f"{info.name}/METADATA,,"]
    (info / "RECORD").write_text("\n".join([*rows, f"{info.name}/RECORD,,"]))


def overlay(tmp_path: Path, version: str) -> subprocess.CompletedProcess[str]:
    """Lay a bundle for CuPy 14.2.0 over an installed CuPy of a version."""
    make_site(tmp_path / "site", version)
    files = tmp_path / "bundle" / "overlay" / "cupy-cuda13x" / "cupy"
    files.mkdir(parents=True)
    (files / "__init__.py").write_text("patched = True\n")
    (files / "added.py").touch()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    needs = {"python": python, "machine": os.uname().machine}
    manifest = {
        "needs": {**needs, "distributions": {"cupy-cuda13x": "14.2.0"}},
        "overlays": {"cupy-cuda13x": []},
    }
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(manifest))
    script = str(SCRIPTS / "gpu" / "gpu_overlay.py")
    return subprocess.run(
        [sys.executable, script, tmp_path / "bundle", tmp_path / "target"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_installed_cupy_is_linked_and_not_changed(tmp_path: Path) -> None:
    done = overlay(tmp_path, "14.2.0")
    assert done.returncode == 0, done.stderr
    site, target = tmp_path / "site" / "cupy", tmp_path / "target" / "cupy"
    assert (site / "__init__.py").read_text() == "patched = False\n"
    assert (target / "__init__.py").read_text() == "patched = True\n"
    assert (target / "kept.py").samefile(site / "kept.py")
    assert (target / "added.py").is_file()


def test_another_cupy_is_refused(tmp_path: Path) -> None:
    done = overlay(tmp_path, "14.3.0")
    assert done.returncode == 7
    assert "the bundle is for cupy-cuda13x 14.2.0, and" in done.stderr
    assert not (tmp_path / "target").exists()


def test_the_scripts_of_the_bundle_need_no_patchwheel(bundle: ModuleType) -> None:
    for name in bundle.SCRIPTS:
        assert "patchwheel." not in (SCRIPTS / name).read_text().replace("`patchwheel", "")


@pytest.mark.parametrize(("busy", "what"), [(0.9, "the work on the GPU"), (0.2, "launches")])
def test_what_limits_a_run_is_said(check: ModuleType, busy: float, what: str) -> None:
    text = check.limit(busy, 1.0, 1000)
    assert f"{busy:.0%}" in text
    assert "each 1000.0 microseconds" in text
    assert f"{what} " in text.partition("microseconds: ")[2]


def test_counts_of_a_report_of_pytest(check: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(
        support.dedent("""
            <testsuites><testsuite tests="3" failures="1" errors="0" skipped="1">
            <testcase classname="a" name="b"><failure/></testcase>
            <testcase classname="a" name="c"/><testcase classname="a" name="d"><skipped/></testcase>
            </testsuite></testsuites>
        """)
    )
    counts, broken = check.read_junit(tmp_path / "junit.xml")
    assert counts == {"tests": 3, "failures": 1, "errors": 0, "skipped": 1}
    assert broken == ["a::b"]


def test_a_failed_check_is_in_the_table_and_the_file(
    check: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = check.Report(tmp_path, {"xp": "cupy"})
    report.add("labels", "kmeans 1", "2 of 9 pixels differ", ok=False)
    report.write()
    facts = json.loads((tmp_path / "gpu-check.json").read_text())
    assert facts["checks"][0]["result"] == "FAILED"
    assert "FAILED   labels   kmeans 1" in capsys.readouterr().out
