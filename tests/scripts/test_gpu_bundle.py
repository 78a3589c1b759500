"""The bundle for a machine with a GPU: what is in it, and how it is laid over the CuPy there."""

import importlib
import json
import os
import re
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from patchwheel.kit.errors import CheckError
from tests.fixtures import support

SCRIPTS = support.ROOT / "scripts"


@pytest.fixture
def bundle() -> ModuleType:
    return importlib.import_module("gpu_bundle")


@pytest.fixture
def check() -> ModuleType:
    return importlib.import_module("gpu_check")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("scipy/_lib/_util.py", True),
        ("scipy/_cyutility.cpython-312-x86_64-linux-gnu.so", True),
        ("scipy/linalg/cython_blas.pxd", False),
        ("scipy/linalg/tests/test_basic.py", True),
        ("scipy/io/tests/data/test.mat", False),
        ("scipy/linalg/tests/__init__.py", True),
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
    assert bundle.needed(name) is wanted


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


def overlay(tmp_path: Path, version: str) -> support.Done:
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
    words = (sys.executable, script, tmp_path / "bundle", tmp_path / "target")
    return support.run(*words, env={"PYTHONPATH": str(tmp_path / "site")})


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


@pytest.mark.parametrize("pattern", importlib.import_module("gpu_bundle").CHECKS)
def test_what_runs_in_the_bundle_needs_no_patchwheel(pattern: str) -> None:
    found = [*support.ROOT.glob(pattern)]
    assert found
    for path in found:
        assert not re.search(r"^ *(from|import) patchwheel", path.read_text(), re.MULTILINE), path


@pytest.mark.parametrize(("busy", "what"), [(0.9, "the work on the GPU"), (0.2, "launches")])
def test_what_limits_a_run_is_said(busy: float, what: str) -> None:
    text = importlib.import_module("gpu_profile").limit(busy, 1.0, 1000)
    assert f"{busy:.0%}" in text
    assert "each 1000.0 microseconds" in text
    assert f"{what} " in text.partition("microseconds: ")[2]


@pytest.mark.parametrize(
    ("script", "expected", "limit", "result", "said"),
    [
        ("print('a'); print('2 passed')", "passed", 60, "ok", "2 passed"),
        ("print('3 skipped')", "passed", 60, "FAILED", "3 skipped"),
        ("import sys; sys.exit('no GPU')", "", 60, "FAILED", "no GPU"),
        ("import time; time.sleep(60)", "", 0.5, "FAILED", "stopped after 0.5 s"),
    ],
)
def test_a_step_is_a_row_of_the_report(
    check: ModuleType,
    tmp_path: Path,
    script: str,
    expected: str,
    limit: float,
    result: str,
    said: str,
) -> None:
    step = check.Step("coins", "0.1", ["-c", script], {}, expected)
    row = check.run(step, tmp_path, tmp_path / "log", limit)
    assert row == {"part": "coins", "what": "0.1", "result": result, "said": said}


def test_upstreams_tests_run_where_they_are_installed(check: ModuleType, tmp_path: Path) -> None:
    copied = tmp_path / "tests" / "demo" / "test_a.py"
    copied.parent.mkdir(parents=True)
    copied.touch()
    assert check.place(tmp_path, "tests/demo/test_a.py") == copied
    installed = check.place(tmp_path, "tests/scripts/test_gpu_bundle.py")
    assert installed.samefile(__file__)
