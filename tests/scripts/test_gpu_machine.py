"""The bundle for a machine with a GPU runs where there is only Python, NumPy and CuPy."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from patchwheel.kit.interpreter import find_interpreter
from tests.fixtures import support

ROOT = Path(__file__).parents[2]
# CuPy's graft is compiled against 2 GB of CUDA, and does nothing without a GPU: how it is laid out
# is a unit test. The machine has upstream's.
FORKS = ("scipy", "scikit-learn", "scikit-image")

# Two minutes: SciPy is grafted, and each process of the checks imports it all.
pytestmark = [pytest.mark.network, pytest.mark.heavy, pytest.mark.xdist_group("forks")]


def test_the_bundle_checks_numpy_and_misses_the_gpu(tmp_path: Path) -> None:
    bundle, venv = tmp_path / "bundle.tar.gz", tmp_path / "venv"
    root = tmp_path / "project"
    support.copy_project(root)
    script = [sys.executable, str(ROOT / "scripts" / "gpu" / "gpu_bundle.py")]
    subprocess.run([*script, *FORKS, "--output", str(bundle)], cwd=root, check=True)
    assert bundle.stat().st_size <= 64 << 20
    python = str(find_interpreter("3.12", progress=support.Recorder()).path)
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--python", python, str(venv)], check=True)
    install = [*uv, "pip", "install", "--python", str(venv), "numpy==2.5.*", "cupy-cuda13x==14.2.*"]
    subprocess.run(install, check=True)
    with tarfile.open(bundle) as archive:
        archive.extractall(tmp_path, filter="data")
    home = tmp_path / "empty"
    home.mkdir()
    alone = ["unshare", "-n"] if os.geteuid() == 0 and shutil.which("unshare") else []

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*alone, "sh", str(tmp_path / "patchwheel-gpu" / "run.sh"), *options],
            cwd=tmp_path,
            env={
                "PATH": os.defpath,
                "HOME": str(home),
                "PYTHON": str(venv / "bin" / "python"),
                "OUT": str(tmp_path / "out"),
            },
            capture_output=True,
            text=True,
            check=False,
        )

    done = run("--xp", "numpy", "--parts", "coins", "--scales", "0.1")
    assert done.returncode == 0, done.stdout + done.stderr
    checks = json.loads((tmp_path / "out" / "gpu-check.json").read_text())["checks"]
    assert checks == [{"part": "coins", "what": "0.1", "result": "ok", "said": checks[0]["said"]}]
    assert "8 passed" in checks[0]["said"]
    found = (tmp_path / "out" / "coins-0.1.xml").read_text()
    assert all(
        f'name="test_{name}[' in found for name in ("labels", "bytes_copied", "eigenvectors")
    )
    done = run()
    assert done.returncode == 7
    assert "CuPy finds no usable GPU" in done.stderr
    assert not list(home.iterdir())
