"""The demo, its notebook, and what docs/array-api.md says, in the environment of the four forks."""

import json
import sys
from pathlib import Path

import pytest

from tests.conftest import Stack
from tests.fixtures import support

ROOT = support.ROOT
SCRIPTS = ROOT / "scripts" / "demo"

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("forks")]


def python(stack: Stack, *words: str, status: int = 0, **env: str) -> support.Done:
    command = (stack.environment / "bin" / "python", *words)
    # Its list of fonts takes seconds to make, and is kept in the home folder of each test.
    env["MPLCONFIGDIR"] = str(stack.project / ".matplotlib")
    return support.run(*command, status=status, cwd=stack.project, env=env, timeout=300)


def test_the_demo_segments_the_coins_and_draws_them(stack: Stack, tmp_path: Path) -> None:
    words = ["--scale", "0.1", "--labels", "kmeans"]
    words += ["--json", str(tmp_path / "facts"), "--output", str(tmp_path / "a.png")]
    out = python(stack, str(SCRIPTS / "demo.py"), *words).stdout
    facts = json.loads((tmp_path / "facts").read_text())
    assert facts["shape"] == [30, 38]
    assert facts["regions"] == 29
    assert facts["device_to_host_bytes"] == 0
    assert list(facts["seconds"])[-1] == "clustering"
    assert "numpy on cpu, 30 x 38 pixels" in out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("regions", "coins"), [pytest.param(26, 22, marks=pytest.mark.heavy), (29, 24)]
)
def test_29_regions_find_all_coins(stack: Stack, tmp_path: Path, regions: int, coins: int) -> None:
    words = ["--regions", str(regions), "--output", str(tmp_path / "a.png")]
    out = python(stack, str(SCRIPTS / "demo.py"), *words).stdout
    assert f"{coins} of 24 coins found" in out


PICTURE = """
import sys
sys.path.insert(0, sys.argv[1])
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import picture
image = np.full((40, 40), 0.1)
image[5:15, 5:15] = image[25:35, 22:32] = 0.9
labels = np.zeros((40, 40), int)
labels[5:15, 5:15], labels[25:35, 22:32], labels[:, 36:] = 1, 2, 3
coins = picture.find_coins(image)
assert coins.max() == 2 and picture.background(coins, labels) == [0, 3]
assert picture.count_coins(image, labels) == 2
assert picture.count_coins(image, np.minimum(labels, 1)) == 1  # one is in the background
assert picture.count_coins(image, np.isin(labels, (1, 2)) * 1) == 1  # both in one region
figure, axes = plt.subplots()
picture.draw(axes, image, labels, "title")
colors = axes.images[1].get_array()
assert (colors[labels == 0] == 0).all() and (colors[labels == 3] == 0).all()
assert not np.allclose(colors[10, 10], colors[30, 25]) and colors[10, 10][3] > 0
[lines] = axes.collections
assert len(lines.get_segments()) == 2 * 40 + 40 and axes.get_title() == "title"
"""


def test_the_picture_fills_regions_and_leaves_the_background(stack: Stack) -> None:
    python(stack, "-c", PICTURE, str(SCRIPTS))


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


# Quick: the check of the forks compares the labels, too.
@pytest.mark.heavy
def test_strict_arrays_give_the_labels_of_numpy(stack: Stack) -> None:
    ways = ("cluster_qr", "kmeans", "discretize")
    python(stack, "-c", COMPARE, str(SCRIPTS), *ways, SCIPY_ARRAY_API="1")


# Runs the demo for each case in one process, which imports the libraries once.
CASES = """
import contextlib, io, json, runpy, sys
scripts = sys.argv[1]
sys.path.insert(0, scripts)
import coins
segment = coins.segment
def fault(*args, **options):
    raise TypeError(message)
for words, message in json.loads(sys.argv[2]):
    coins.segment = fault if message else segment
    sys.argv, said, status = ["demo.py", *words.split()], io.StringIO(), 0
    with contextlib.redirect_stderr(said):
        try:
            runpy.run_path(scripts + "/demo.py", run_name="__main__")
        except SystemExit as end:
            status = end.code
        except TypeError as error:
            status, said = 1, io.StringIO(f"{error}\\n")
    print(json.dumps([status, said.getvalue()]))
"""
FAULT = "unsupported operand type(s) for +: 'int' and 'str'"
NO_GPU = "CuPy finds no usable GPU"
FAR = "gaussian_filter` doesn't support arrays of type"


def test_what_the_demo_cannot_do_is_said_and_a_fault_is_no_missing_feature(stack: Stack) -> None:
    cases = [
        ("--xp jax", "", 2, "--xp is one of numpy, cupy, torch, array-api-strict"),
        ("--labels best", "", 2, "--labels is one of discretize, kmeans, cluster_qr"),
        ("--scale 2", "", 2, "--scale is above 0, and at most 1"),
        ("--xp numpy --device cuda", "", 7, "numpy has no device 'cuda'"),
        ("--xp array-api-strict --device x", "", 7, "has the devices CPU_DEVICE, device1"),
        ("--xp array-api-strict --scale 1", "", 7, "takes 108 GB"),
        ("--xp array-api-strict --device device1", "", 7, FAR),
        ("", FAULT, 1, f"{FAULT}\n"),
        ("", "Supported are NumPy arrays", 7, "demo: Supported are NumPy arrays\n"),
    ]
    if not Path("/dev/nvidia0").exists():
        cases += [("--xp cupy", "", 7, said) for said in (NO_GPU, "patchwheel env --gpu")]
    given = json.dumps([case[:2] for case in cases])
    out = python(stack, "-c", CASES, str(SCRIPTS), given, SCIPY_ARRAY_API="1").stdout
    for (words, fault, expected, message), line in zip(cases, out.splitlines(), strict=True):
        status, said = json.loads(line)
        assert (status, message in said) == (expected, True), (words, fault, said)


def outputs(notebook: Path) -> list[dict[str, str]]:
    cells = json.loads(notebook.read_text())["cells"]
    return [output["data"] for cell in cells for output in cell.get("outputs", [])]


def test_the_notebook_gives_the_outputs_that_are_stored(stack: Stack, tmp_path: Path) -> None:
    out = tmp_path / "executed.ipynb"
    words = ["--forks", stack.environment, "--beside", tmp_path / "jupyter", "--output", out]
    env = {"HOME": str(tmp_path)}
    support.run(sys.executable, SCRIPTS / "notebook.py", *words, status=0, env=env, timeout=300)
    executed, stored = outputs(out), outputs(ROOT / "docs" / "demo.ipynb")
    assert [data["text/plain"] for data in executed] == [data["text/plain"] for data in stored]
    assert "(numpy.ndarray, 29)" in executed[-2]["text/plain"]
    # The title has the seconds, so that no two pictures are the same.
    assert executed[-1]["image/png"]
    assert stored[-1]["image/png"]


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
import inspect
import array_api_compat, array_api_strict
from scipy._lib._array_api import array_namespace
from sklearn import config_context
from sklearn.utils._array_api import get_namespace

standard = on_cupy.__array_namespace__()
assert standard is array_api_compat.array_namespace(on_cupy)
assert on_cupy.__array_namespace__(api_version="2024.12") is standard
for function, keyword in {"zeros": "device", "std": "correction", "sort": "descending"}.items():
    assert keyword in inspect.signature(getattr(standard, function)).parameters

def nep47(*arrays):
    "The get_namespace of NEP 47, 'Use in downstream libraries'."
    namespaces = {a.__array_namespace__() for a in arrays if hasattr(a, "__array_namespace__")}
    if len(namespaces) != 1:
        raise ValueError("Multiple or no array namespaces")
    return namespaces.pop()

arrays = {"numpy": host, "cupy": on_cupy, "array_api_strict": array_api_strict.asarray(host)}
for name, array in arrays.items():
    assert name in nep47(array).__name__, name
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


def test_namespaces_are_known_and_the_challenges_of_2022_answered(stack: Stack) -> None:
    parts = [f"exec({text!r}, {{}})\n" for text in (NAMESPACES, *CHALLENGES.values())]
    python(stack, "-c", "".join(parts), SCIPY_ARRAY_API="1")
    document = (ROOT / "docs/array-api.md").read_text()
    assert [n for n in CHALLENGES if f"## {n[0].upper()}{n[1:]}" not in document] == []
