"""What CuPy's series computes, on NumPy's arrays: its Python code runs where there is no GPU.

NumPy and SciPy take the place of what lies below the code, and loops that of its kernels.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import cupyx
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
import scipy.sparse.linalg
from cupy._manipulation import split
from cupy._misc import _array_api_info
from cupy.linalg import _product
from cupyx.scipy.sparse import _coo, _csr
from cupyx.scipy.sparse.csgraph import _traversal
from scipy.sparse.csgraph import laplacian

from tests.forks.columns import TWO_COMPONENTS, graph, sparse

parametrize = pytest.mark.parametrize
# Two rings: each eigenvalue of one is there four times.
RING = sp.diags_array([1.0] * 4, offsets=(-11, -1, 1, 11), shape=(12, 12))
RINGS = laplacian(sp.kron(np.eye(2), RING).tocsr())


def lanczos(_a: Any, _n: int, _ncv: int, n_reorthogonalize: int = 1) -> Callable[..., None]:
    """Return the iteration that CuPy writes in calls of cuBLAS."""

    def iterate(a: Any, vs: Any, u: Any, alpha: Any, beta: Any, start: int, end: int) -> None:
        for i in range(start, end):
            u[...] = a @ vs[i]
            alpha[i] = np.vdot(vs[i], u)
            u -= alpha[i] * vs[i] + beta[i - 1] * vs[i - 1]
            for _ in range(n_reorthogonalize):
                along = vs[: i + 1].conj() @ u
                u -= vs[: i + 1].T @ along
                alpha[i] += along[i]
            beta[i] = np.linalg.norm(u)
            if i + 1 < end:
                vs[i + 1] = u / beta[i]

    return iterate


def hook(rows: Any, columns: Any, labels: Any) -> None:
    for pair in zip(rows, columns, strict=True):
        roots = []
        for node in pair:
            while node != labels[node]:
                node = labels[node]  # noqa: PLW2901
            roots.append(node)
        labels[max(roots)] = min(roots)


def count(labels: Any, number: Any, roots: Any, size: int) -> None:
    for node in range(size):
        labels[node] = labels[labels[node]]
        if labels[node] == node:
            roots[number[0]] = node
            number[0] += 1


def adjust(_n: int, roots: Any, labels: Any) -> None:
    labels[...] = np.searchsorted(roots, labels)


HOST = SimpleNamespace(**vars(np), asnumpy=np.asarray, ElementwiseKernel=lambda *_: None)


def load_eigen() -> Any:
    """Return the module of eigsh, which without the libraries of CUDA does not import."""
    cublas = SimpleNamespace(nrm2=np.linalg.norm)
    modules = {
        "cupy": SimpleNamespace(**vars(HOST), cublas=cublas),
        "cupy._core": mock.Mock(),
        "cupy.cuda": mock.Mock(),
        "cupy_backends.cuda.libs": mock.Mock(),
        "cupyx.scipy.sparse": SimpleNamespace(_base=sp, _construct=sp, _csr=sp),
        "cupyx.scipy.sparse.linalg": SimpleNamespace(
            _interface=scipy.sparse.linalg, _solve=scipy.sparse.linalg
        ),
    }
    path = Path(cupyx.__file__).parent / "scipy/sparse/linalg/_eigen.py"
    spec = importlib.util.spec_from_file_location("_eigen", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, modules):
        spec.loader.exec_module(module)
    vars(module)["_lanczos_fast"] = lanczos
    return module


_eigen = load_eigen()


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (split, _coo, _traversal):
        monkeypatch.setattr(module, "cupy", HOST)
    monkeypatch.setitem(sys.modules, "cupyx.scipy.linalg", scipy.linalg)
    monkeypatch.setattr(_traversal, "cupyx", SimpleNamespace(scipy=scipy))
    kernels = {"hook": hook, "count_components": count, "adjust_labels": adjust}
    for name, kernel in kernels.items():
        monkeypatch.setattr(_traversal, f"_cupy_{name}", kernel)
    np.random.seed(0)  # noqa: NPY002 -- the generator that CuPy's module of the name would have


def reference(matrix: Any, k: int, key: Callable[[Any], Any]) -> Any:
    values = np.linalg.eigvalsh(matrix.toarray() if sp.issparse(matrix) else matrix)
    return np.sort(values[np.argsort(key(values), kind="stable")[:k]])


ORDERS: dict[str, Callable[[Any], Any]] = {
    "LM": lambda w: -abs(1 / (w + 0.1)),
    "LA": lambda w: -1 / (w + 0.1),
    "SA": lambda w: 1 / (w + 0.1),
    "SM": abs,
}


@parametrize("which", ORDERS)
@parametrize("make", [sp.csr_array, sp.coo_array, lambda a: a.toarray()])
@parametrize("dtype", ["float32", "float64", "complex128"])
def test_eigsh_misses_no_copy_of_an_eigenvalue(dtype: str, make: Any, which: str) -> None:
    matrix = make(RINGS.astype(dtype))
    options = {} if which == "SM" else {"sigma": -0.1}
    values, vectors = _eigen.eigsh(matrix, 7, which=which, **options)
    tol = 1e-3 if dtype == "float32" else 1e-8
    np.testing.assert_allclose(values, reference(matrix, 7, ORDERS[which]), atol=tol)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=10 * tol)
    np.testing.assert_allclose(vectors.T.conj() @ vectors, np.eye(7), atol=10 * tol)


def test_eigsh_next_to_an_eigenvalue() -> None:
    # Those of the inverse are so far apart that the large ones are locked first.
    matrix = np.diag([1e-13, 2e-13, 1, 2, 3, *np.linspace(50, 90, 45)])
    values, _ = _eigen.eigsh(matrix, 4, sigma=-1e-14, ncv=8)
    np.testing.assert_allclose(values, [1e-13, 2e-13, 1, 2], rtol=1e-2)


@parametrize("given", ["array", "operator"])
def test_eigsh_takes_the_inverse_and_a_start(given: str) -> None:
    matrix = np.diag(np.arange(1.0, 31))
    inverse = np.linalg.inv(matrix - 0.5 * np.eye(30))
    a = matrix if given == "array" else scipy.sparse.linalg.aslinearoperator(matrix)
    start = np.ones(60)[::2]
    options = {"sigma": 0.5, "OPinv": inverse, "v0": start, "return_eigenvectors": False}
    np.testing.assert_allclose(_eigen.eigsh(a, 3, **options), [1, 2, 3])
    np.testing.assert_array_equal(start, 1)


def test_eigsh_without_a_shift_leaves_its_start_alone() -> None:
    start = np.ones(30, dtype=np.float32)
    _eigen.eigsh(np.diag(np.arange(1.0, 31)), 3, v0=start, tol=1e3)
    np.testing.assert_array_equal(start, 1)


def test_eigsh_warns_where_it_stops_early() -> None:
    matrix = np.diag(1 / np.arange(1.0, 201))
    with pytest.warns(RuntimeWarning, match="did not converge in"):
        values, _ = _eigen.eigsh(matrix, 3, sigma=0.0, ncv=5, maxiter=6)
    assert values.shape == (3,)


OPERATOR = scipy.sparse.linalg.aslinearoperator(np.eye(9))
BAD_EIGSH: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (np.eye(9), {"which": "BE"}, ValueError, "which must be 'LM', 'LA', 'SA' or 'SM'"),
    (np.eye(9), {"OPinv": np.eye(9)}, ValueError, "should not be specified with sigma = None"),
    (np.eye(9), {"which": "SM", "sigma": 1}, ValueError, "should not be specified with sigma"),
    (np.eye(9), {"sigma": 1j}, TypeError, "sigma must be real"),
    (np.eye(9), {"sigma": 1, "OPinv": np.eye(8)}, ValueError, "wrong OPinv dimensions"),
    (OPERATOR, {"sigma": 1}, TypeError, "in shift-invert mode without OPinv"),
    (np.eye(9), {"sigma": 1}, RuntimeError, "Factor is exactly singular"),
    (np.eye(9), {"sigma": 0, "OPinv": np.eye(9) * np.nan}, ValueError, "has infs or NaNs"),
]


@parametrize(("a", "options", "error", "message"), BAD_EIGSH)
@pytest.mark.filterwarnings("ignore")
def test_eigsh_refuses(
    a: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _eigen.eigsh(a, 2, **options)


class Coo(sp.coo_array):  # type: ignore[misc]
    todia = _coo._coo_base.todia


class Csr(sp.csr_array):  # type: ignore[misc]
    todia = _csr._csr_base.todia

    def tocoo(self, copy: bool = True) -> Coo:  # noqa: FBT001, FBT002
        return Coo(super().tocoo(copy))


@parametrize("make", [Coo, Csr])
@parametrize("shape", [(7, 7), (5, 9), (9, 5), (1, 6)])
def test_todia(shape: tuple[int, int], make: Any) -> None:
    dense = np.arange(1.0, 1 + np.prod(shape)).reshape(shape) % 5
    result = make(dense).todia()
    assert result.format == "dia"
    np.testing.assert_array_equal(result.toarray(), dense)


def test_todia_of_duplicates_of_nothing_and_of_many_diagonals() -> None:
    places = np.array([0, 0, 1]), np.array([1, 1, 0])
    twice = Coo((np.ones(3), places), shape=(2, 2))
    np.testing.assert_array_equal(twice.todia().toarray(), [[0, 2], [1, 0]])
    assert twice.nnz == len(places[0])
    np.testing.assert_array_equal(Coo((3, 4)).todia().toarray(), np.zeros((3, 4)))
    with pytest.warns(_coo._base.SparseEfficiencyWarning, match="with 101 diagonals"):
        Coo(np.ones((51, 51))).todia()
    with pytest.raises(ValueError, match="Cannot convert a 1-D sparse array"):
        Coo(np.ones(3)).todia()


@parametrize("kind", ["csr", "coo", "array"])
@parametrize("density", [0.0, 0.02, 0.05, 0.3])
@parametrize("directed", [False, True])
def test_connected_components(density: float, kind: str, *, directed: bool) -> None:
    dense = np.triu(graph(40, density=density))
    a = dense if kind == "array" else sparse(dense, kind)
    number, labels = _traversal.connected_components(a, directed=directed)
    expected, reference = sp.csgraph.connected_components(dense, directed=directed)
    assert number == expected
    np.testing.assert_array_equal(labels, reference)
    assert _traversal.connected_components(a, return_labels=False) == expected


def test_connected_components_refuses_other_graphs() -> None:
    components = _traversal.connected_components
    with pytest.raises(ValueError, match="must be 'weak' or 'strong'"):
        components(TWO_COMPONENTS, connection="some")
    with pytest.raises(RuntimeError, match="pylibcugraph is not available"):
        components(TWO_COMPONENTS, connection="strong")
    assert components(TWO_COMPONENTS, directed=False, connection="strong")[0] == 2
    with pytest.raises(ValueError, match="two dimensions"):
        components(np.ones(3))
    with pytest.raises(ValueError, match="square array"):
        components(np.ones((2, 3)))
    with pytest.raises(ValueError, match="too many nodes"):
        _traversal._weak_components(SimpleNamespace(shape=(2**31, 2**31)), return_labels=True)


def test_namespace_info(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        def __init__(self, index: int = 0) -> None:
            self.index = index

    runtime = SimpleNamespace(getDeviceCount=lambda: 2)
    monkeypatch.setattr(_array_api_info, "cuda", SimpleNamespace(Device=Device, runtime=runtime))
    info, reference = _array_api_info.__array_namespace_info__(), np.__array_namespace_info__()
    assert info.capabilities() == reference.capabilities()
    assert info.default_device().index == 0
    assert [device.index for device in info.devices()] == [0, 1]
    assert info.default_dtypes(device=Device()) == reference.default_dtypes()
    for kind in (None, "bool", "numeric", "integral", ("bool", "real floating")):
        assert info.dtypes(kind=kind) == reference.dtypes(kind=kind)
    with pytest.raises(ValueError, match="unsupported kind: 'float'"):
        info.dtypes(kind="float")
    with pytest.raises(ValueError, match="unsupported kind"):
        info.dtypes(kind=["bool"])
    with pytest.raises(ValueError, match="Device not understood"):
        info.dtypes(device="cpu")


def test_unstack_and_vecdot(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    for axis in (0, -1):
        parts = split.unstack(x, axis=axis)
        assert isinstance(parts, tuple)
        np.testing.assert_array_equal(np.stack(parts, axis=axis), x)
    with pytest.raises(ValueError, match="at least 1-d"):
        split.unstack(np.asarray(1.0))
    monkeypatch.setattr(_product, "_core", np)
    for vectors in (x, x + 1j):
        np.testing.assert_array_equal(_product._vecdot(vectors, x), np.vecdot(vectors, x))
