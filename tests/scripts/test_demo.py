"""The demo, its notebook, and what docs/array-api.md says, in the environment of the four forks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fixtures import support

if TYPE_CHECKING:
    from tests.conftest import Stack

ROOT = support.ROOT
SCRIPTS = ROOT / "scripts" / "demo"

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("forks")]


def python(stack: Stack, *words: str, status: int = 0, **env: str) -> support.Done:
    command = (stack.environment / "bin" / "python", *words)
    return support.run(*command, status=status, cwd=stack.project, env=env, timeout=300)


def test_the_demo_segments_the_coins_and_draws_them(stack: Stack, tmp_path: Path) -> None:
    words = ["--scale", "0.1", "--labels", "kmeans"]
    words += ["--json", str(tmp_path / "facts"), "--output", str(tmp_path / "a.png")]
    out = python(stack, str(SCRIPTS / "demo.py"), *words).stdout
    facts = json.loads((tmp_path / "facts").read_text())
    assert facts["shape"] == [30, 38]
    assert facts["device_to_host_bytes"] == 0
    assert list(facts["seconds"])[-1] == "clustering"
    assert "numpy on cpu, 30 x 38 pixels" in out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


COMPARE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from coins import LABELS, make_backend, segment
from sklearn.metrics import adjusted_rand_score
strict, numpy = make_backend("array-api-strict"), make_backend("numpy")
for way in sys.argv[2:]:
    mine, theirs = (segment(b, scale=0.1, labels=way).labels for b in (strict, numpy))
    assert type(mine).__module__.startswith("array_api_strict"), type(mine)
    assert len(np.unique(theirs)) == 26
    mine = strict.to_numpy(mine)
    score = adjusted_rand_score(theirs.ravel(), mine.ravel())
    print(way, int((mine != theirs).sum()), score)
    assert score >= 0.95 if way == "discretize" else (mine == theirs).all(), way
"""


def test_strict_arrays_give_the_labels_of_numpy(stack: Stack) -> None:
    ways = ("cluster_qr", "kmeans", "discretize")
    python(stack, "-c", COMPARE, str(SCRIPTS), *ways, SCIPY_ARRAY_API="1")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("--xp jax", 2, "--xp is one of numpy, cupy, torch, array-api-strict"),
        ("--labels best", 2, "--labels is one of discretize, kmeans, cluster_qr"),
        ("--scale 2", 2, "--scale is above 0, and at most 1"),
        ("--xp numpy --device cuda", 7, "numpy has no device 'cuda'"),
        ("--xp array-api-strict --device x", 7, "has the devices CPU_DEVICE, device1"),
        ("--xp array-api-strict --scale 1", 7, "takes 108 GB"),
        (
            "--xp array-api-strict --device device1",
            7,
            "gaussian_filter` doesn't support arrays of type",
        ),
    ],
)
def test_what_the_demo_cannot_do_is_said(
    stack: Stack, words: str, status: int, message: str
) -> None:
    done = python(stack, str(SCRIPTS / "demo.py"), *words.split(), status=status)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")
def test_a_machine_without_a_gpu_is_told_so(stack: Stack) -> None:
    done = python(stack, str(SCRIPTS / "demo.py"), "--xp", "cupy", status=7)
    assert "CuPy finds no usable GPU" in done.stderr
    assert "patchwheel env --gpu" in done.stderr


def test_the_notebook_runs_to_its_picture(stack: Stack, tmp_path: Path) -> None:
    out = tmp_path / "executed.ipynb"
    words = ["--forks", stack.environment, "--beside", tmp_path / "jupyter", "--output", out]
    env = {"DEMO_SCALE": "0.1", "HOME": str(tmp_path)}
    support.run(sys.executable, SCRIPTS / "notebook.py", *words, status=0, env=env, timeout=300)
    cells = json.loads(out.read_text())["cells"]
    results = [c["outputs"][-1]["data"] for c in cells if c.get("outputs")]
    assert "(numpy.ndarray, 26)" in results[-2]["text/plain"]
    assert results[-1]["image/png"]


HOST_CUPY = """
import numpy as np, cupy
host = np.arange(6.0)
# CuPy's arrays can be made without a GPU, over memory of ours; nothing is computed with them.
memory = cupy.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, device_id=0)
on_cupy = cupy.ndarray((6,), dtype=float, memptr=cupy.cuda.MemoryPointer(memory, 0))
"""

NAMESPACES = (
    HOST_CUPY
    + """
import array_api_compat, array_api_strict
from scipy._lib._array_api import array_namespace
from sklearn import config_context
from sklearn.utils._array_api import get_namespace

assert on_cupy.__array_namespace__() is cupy
assert on_cupy.__array_namespace__(api_version="2024.12") is cupy

def nep47(*arrays):
    "The get_namespace of NEP 47, 'Use in downstream libraries'."
    namespaces = {a.__array_namespace__() for a in arrays if hasattr(a, "__array_namespace__")}
    if len(namespaces) != 1:
        raise ValueError("Multiple or no array namespaces")
    return namespaces.pop()

arrays = {"numpy": host, "cupy": on_cupy, "array_api_strict": array_api_strict.asarray(host)}
for name, array in arrays.items():
    assert nep47(array).__name__ == name, name
    assert name in array_api_compat.array_namespace(array).__name__, name
    assert name in array_namespace(array).__name__, name
    with config_context(array_api_dispatch=True):
        assert name in get_namespace(array)[0].__name__, name
try:
    nep47(host, on_cupy)
except ValueError:
    pass
else:
    raise AssertionError
"""
)


def test_arrays_know_their_namespace(stack: Stack) -> None:
    python(stack, "-c", NAMESPACES, SCIPY_ARRAY_API="1")


CHALLENGES = {
    "compiled code": """
import numpy as np, array_api_strict as xp
from scipy.sparse.csgraph import connected_components
graph = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 0]])
count, labels = connected_components(xp.asarray(graph), directed=False)
assert count == 2 and isinstance(labels, type(xp.asarray(graph)))
try:
    connected_components(xp.asarray(graph, device=xp.Device("device1")), directed=False)
except TypeError as error:
    assert "CuPy" in str(error), error
else:
    raise AssertionError("memory of another device was read by compiled code")
""",
    "functions that the standard lacks": """
import numpy as np, array_api_strict as xp, sklearn
from sklearn.cluster._spectral import cluster_qr
vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(200, 5)))[0]
away = xp.asarray(vectors, device=xp.Device("device1"))
try:
    xp.linalg.qr(away, pivoting=True)
except TypeError:
    pass
else:
    raise AssertionError("the standard has a pivoted QR now")
with sklearn.config_context(array_api_dispatch=True):
    labels = cluster_qr(away)
assert labels.device == away.device
assert not hasattr(away, "strides") and not hasattr(away, "flat")
home = np.asarray(xp.asarray(labels, device=xp.Device("CPU_DEVICE")))
assert (home == cluster_qr(vectors)).all()
""",
    "names and indexing": """
import numpy as np, array_api_strict as xp, array_api_compat
x = xp.reshape(xp.arange(6), (2, 3))
assert int(x[xp.asarray([1, 0]), xp.asarray([2, 0])][0]) == 5
assert np.concat is np.concatenate and hasattr(xp, "concat") and not hasattr(xp, "concatenate")
for name in ("clip", "real", "take_along_axis", "vecdot", "unstack"):
    assert hasattr(xp, name) and hasattr(array_api_compat.array_namespace(np.ones(1)), name), name
try:
    x[0]
except IndexError:
    pass
else:
    raise AssertionError("a partial index is now in the standard")
""",
}


@pytest.mark.parametrize("name", CHALLENGES)
def test_the_challenges_of_2022_are_answered_as_the_document_says(stack: Stack, name: str) -> None:
    python(stack, "-c", CHALLENGES[name], SCIPY_ARRAY_API="1")
    assert f"## {name[0].upper()}{name[1:]}" in (ROOT / "docs/array-api.md").read_text()
