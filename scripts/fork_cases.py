"""The cases of check_forks.py: calls of the patched functions, on the arrays of one library and device.

Runs in an environment of the forks, patched or not: fork_cases.py --column strict-device1 --output FILE. A case is a
function of `a`, which turns NumPy arrays into those of the column; its options make one case for each combination.
On NumPy the outcome of a case is a digest, elsewhere a verdict on the comparison with NumPy.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib
import itertools
import json
import os
import warnings
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import coins
import numpy as np
import scipy.ndimage
import scipy.sparse as sp
import skimage.data
import sklearn
from scipy.linalg import subspace_angles
from scipy.sparse.csgraph import connected_components, laplacian
from scipy.sparse.linalg import eigsh, lobpcg
from skimage import filters, transform, util
from sklearn.cluster import KMeans, SpectralClustering, k_means, spectral_clustering
from sklearn.cluster._spectral import cluster_qr, discretize
from sklearn.feature_extraction.image import grid_to_graph, img_to_graph
from sklearn.manifold import spectral_embedding
from sklearn.metrics import adjusted_rand_score
from sklearn.utils import as_float_array, check_array, check_symmetric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Columns: their array library, and the distributions whose versions count.
COLUMNS = {
    "numpy": ("numpy", "numpy"),
    "strict": ("array_api_strict", "array-api-strict"),
    "strict-device1": ("array_api_strict", "array-api-strict"),
    "torch": ("torch", "torch"),
    "torch-cuda": ("torch", "torch"),
    "jax": ("jax.numpy", "jax"),
    "dask": ("dask.array", "dask"),
    "cupy": ("cupy", "cupy-cuda13x"),
}
FORKS = ("scipy", "scikit-learn", "scikit-image", "cupy-cuda13x")
# Here a refusal that a case doesn't announce is a failure; elsewhere it is an honest no.
SERVED = {"strict", "strict-device1", "torch", "torch-cuda", "cupy"}
# These compute with the operations of the case, but not always with their rounding: compilers that fuse.
FUSING = {"jax", "cupy", "torch-cuda"}
NOT_CUPY = frozenset(COLUMNS) - {"numpy", "cupy"}
ALL_OTHERS = frozenset(COLUMNS) - {"numpy"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """`rtol` None is exact; `compiled`: only memory of the CPU (or CuPy's) can be served; `refuses`: columns."""

    function: str
    case: str
    patches: tuple[str, ...]
    call: Callable[[Column], Any]
    compiled: bool = False
    rtol: float | None = None
    refuses: frozenset[str] = frozenset()
    only: frozenset[str] = frozenset(COLUMNS)


@dataclass(frozen=True)
class Column:
    """An array library on one device."""

    name: str
    xp: Any
    device: Any = None

    def __call__(self, array: np.ndarray) -> Any:
        if self.name == "dask":
            return self.xp.from_array(array)
        options = {} if self.device is None else {"device": self.device}
        return self.xp.asarray(array, **options)

    def sparse(self, matrix: Any) -> Any:
        """Return the sparse matrix in the sparse arrays of the library, or dense if it has none."""
        if self.name == "numpy":
            return matrix
        if self.name == "cupy":
            namespace = importlib.import_module("cupyx.scipy.sparse")
            return getattr(namespace, f"{matrix.format}_array")(matrix)
        return self(matrix.toarray())

    def to_numpy(self, array: Any) -> np.ndarray:
        if self.name.startswith("strict"):
            array = self.xp.asarray(array, device=self.xp.Device("CPU_DEVICE"))
        if self.name == "torch-cuda":
            array = array.cpu()
        return array.get() if hasattr(array, "get") else np.asarray(array)

    def owns(self, array: Any) -> str | None:
        """Return what is wrong with the type or the device of a result."""
        own = self(np.zeros(1))
        if hasattr(array, "tocoo") and self.name == "cupy":
            array = array.data
        if not isinstance(array, type(own)):
            return f"is {type(array).__module__}.{type(array).__name__}"
        if getattr(array, "device", None) != getattr(own, "device", None):
            return f"is on {array.device}, not on {own.device}"
        return None


def make_column(name: str) -> Column:
    xp = importlib.import_module(COLUMNS[name][0])
    if name.startswith("strict"):
        device = "device1" if name.endswith("device1") else "CPU_DEVICE"
        return Column(name, xp, xp.Device(device))
    if name.startswith("torch"):
        return Column(name, xp, xp.device("cuda:0" if name == "torch-cuda" else "cpu"))
    if name == "jax":
        # Without it, arrays of 64 bits silently become arrays of 32.
        importlib.import_module("jax").config.update("jax_enable_x64", val=True)
    return Column(name, xp)


CASES: list[Case] = []


def case(
    function: str, *patches: str, fixed: dict[str, Any] | None = None, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a call for each combination of the options; `fixed` are fields of the cases."""

    def register(call: Callable[..., Any]) -> Callable[..., Any]:
        for values in itertools.product(*options.values()):
            chosen = dict(zip(options, values, strict=True))
            CASES.append(
                Case(
                    function=function,
                    case=", ".join(f"{k}={v}" for k, v in chosen.items()),
                    patches=patches,
                    call=functools.partial(call, **chosen),
                    **(fixed or {}),
                )
            )
        return call

    return register


COMPILED = {"compiled": True}
CUPY_ONLY = {"only": frozenset({"cupy"})}
SHAPES = [(11,), (9, 12), (6, 5, 3)]
FLOATS = ["float32", "float64"]
DTYPES = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", *FLOATS]


def image(dtype: str, shape: tuple[int, ...] = (12, 15)) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    if dtype == "bool":
        return rng.random(shape) > 0.5  # noqa: PLR2004
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.uniform(-1, 1, shape).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, shape, kind, endpoint=True)


def graph(n: int = 24, dtype: str = "float64", density: float = 0.3) -> np.ndarray:
    """Return the adjacency of an undirected graph with weights."""
    rng = np.random.default_rng(n)
    weights = rng.integers(1, 9, (n, n)) * (rng.random((n, n)) < density)
    weights = np.triu(weights, 1)
    return (weights + weights.T).astype(dtype)


# scikit-image


def _convert(a: Column, name: str, dtype: str, shape: tuple[int, ...]) -> Any:
    return getattr(util, name)(a(image(dtype, shape)))


for _name in ("img_as_float", "img_as_float32", "img_as_float64"):
    case(f"skimage.util.{_name}", "scikit-image/0010", dtype=DTYPES, shape=SHAPES)(
        functools.partial(_convert, name=_name)
    )


@case(
    "skimage.transform.resize",
    "scikit-image/0010",
    "scikit-image/0020",
    fixed=COMPILED,
    dtype=["uint8", *FLOATS],
    to=[(5, 8), (17, 15)],
    order=[0, 1, 3],
    mode=["reflect", "constant"],
    anti_aliasing=[None, False],
)
def _(a: Column, dtype: str, to: tuple[int, ...], **options: Any) -> Any:
    return transform.resize(a(image(dtype)), to, **options)


@case(
    "skimage.transform.resize",
    "scikit-image/0020",
    fixed=COMPILED,
    preserve_range=[False, True],
    clip=[False, True],
    shape=[(9, 12), (9, 12, 3)],
)
def _(a: Column, shape: tuple[int, ...], **options: Any) -> Any:
    return transform.resize(a(image("int16", shape)), (6, 7), cval=2.5, **options)


@case(
    "skimage.transform.rescale",
    "scikit-image/0010",
    "scikit-image/0020",
    fixed=COMPILED,
    dtype=["bool", "uint8", *FLOATS],
    scale=[0.5, 1.6],
    channel_axis=[None, 0, -1],
)
def _(a: Column, dtype: str, scale: float, channel_axis: int | None) -> Any:
    shape = (9, 12) if channel_axis is None else (9, 12, 3)
    pixels = np.moveaxis(image(dtype, shape), -1, channel_axis or -1)
    order = 0 if dtype == "bool" else 1
    return transform.rescale(
        a(pixels), scale, order=order, channel_axis=channel_axis, anti_aliasing=False
    )


@case(
    "skimage.filters.gaussian",
    "scikit-image/0030",
    fixed=COMPILED,
    dtype=["uint8", "int16", *FLOATS],
    sigma=[1, 2.5],
    mode=["nearest", "constant", "wrap"],
    channel_axis=[None, -1],
)
def _(a: Column, dtype: str, sigma: float, **options: Any) -> Any:
    shape = (9, 12) if options["channel_axis"] is None else (9, 12, 3)
    return filters.gaussian(a(image(dtype, shape)), sigma, **options)


@case("skimage.filters.gaussian", "scikit-image/0030", fixed=COMPILED, out=FLOATS)
def _(a: Column, out: str) -> Any:
    pixels, room = a(image(out)), a(np.zeros((12, 15), out))
    return filters.gaussian(pixels, (0.5, 2), preserve_range=True, out=room), room


@case(
    "skimage.filters.difference_of_gaussians",
    "scikit-image/0030",
    fixed=COMPILED,
    dtype=["uint8", *FLOATS],
    high=[None, 4],
)
def _(a: Column, dtype: str, high: float | None) -> Any:
    return filters.difference_of_gaussians(a(image(dtype)), 1.5, high)


MATRICES = {
    "shift": [[1, 0, 2.5], [0, 1, -1.25], [0, 0, 1]],
    "affine": [[0.9, 0.2, 0.3], [-0.1, 1.1, 0.6], [0, 0, 1]],
    "projective": [[1.1, 0.1, -1], [0.05, 0.95, 0.5], [0.001, 0.002, 1]],
}
WARPED = {"rtol": 1e-9}


@case(
    "skimage.transform.warp",
    "scikit-image/0040",
    fixed=WARPED,
    dtype=["uint8", *FLOATS],
    matrix=list(MATRICES),
    order=[1, 3],
    mode=["constant", "edge", "symmetric", "reflect", "wrap"],
)
def _(a: Column, dtype: str, matrix: str, **options: Any) -> Any:
    return transform.warp(a(image(dtype)), np.asarray(MATRICES[matrix]), **options)


@case(
    "skimage.transform.warp",
    "scikit-image/0040",
    fixed=WARPED,
    shape=[(9, 12), (9, 12, 3)],
    output_shape=[None, (5, 20)],
    cval=[0.5, np.nan],
)
def _(a: Column, shape: tuple[int, ...], **options: Any) -> Any:
    turn = transform.SimilarityTransform(scale=1.2, rotation=0.3, translation=(1, 2))
    return transform.warp(a(image("float64", shape)), turn, **options)


@case(
    "skimage.transform.warp, other orders and maps",
    "scikit-image/0040",
    fixed=COMPILED,
    by=["order 0", "order 2", "order 5", "callable", "coordinates"],
    dtype=["uint8", *FLOATS],
)
def _(a: Column, by: str, dtype: str) -> Any:
    pixels = a(image(dtype))
    if by.startswith("order"):
        matrix = np.asarray(MATRICES["affine"])
        return transform.warp(pixels, matrix, order=int(by[-1]))
    if by == "callable":
        return transform.warp(pixels, lambda xy: xy * 0.9 + 1)
    where = np.random.default_rng(1).uniform(0, 11, (2, 7, 8))
    return transform.warp(pixels, a(where))


@case(
    "skimage.transform.rotate",
    "scikit-image/0040",
    fixed=WARPED,
    dtype=["uint8", *FLOATS],
    angle=[30, -90],
    resize=[False, True],
)
def _(a: Column, dtype: str, angle: float, **options: Any) -> Any:
    return transform.rotate(a(image(dtype)), angle, **options)


@case(
    "skimage.transform.swirl",
    "scikit-image/0040",
    fixed=COMPILED,
    dtype=["uint8", *FLOATS],
)
def _(a: Column, dtype: str) -> Any:
    return transform.swirl(a(image(dtype)), strength=2, radius=8)


@case(
    "skimage.transform.warp_polar",
    "scikit-image/0040",
    fixed=COMPILED,
    dtype=["uint8", *FLOATS],
    scaling=["linear", "log"],
)
def _(a: Column, dtype: str, scaling: str) -> Any:
    return transform.warp_polar(a(image(dtype)), scaling=scaling, output_shape=(20, 9))


# SciPy


@case(
    "scipy.sparse.csgraph.connected_components",
    "scipy/0030",
    fixed=COMPILED,
    dtype=["int64", *FLOATS],
    density=[0.0, 0.04, 0.3],
    directed=[False, True],
    connection=["weak", "strong"],
    return_labels=[False, True],
)
def _(a: Column, dtype: str, density: float, **options: Any) -> Any:
    return connected_components(a(np.triu(graph(30, dtype, density))), **options)


@case("scipy.sparse.csgraph.connected_components", "scipy/0030", fixed=COMPILED)
def _(a: Column) -> Any:
    edges = graph(12, density=0.1)
    edges[0, 1], edges[2, 3] = np.inf, np.nan
    return connected_components(a(edges))


@case(
    "scipy.sparse.csgraph.connected_components, sparse",
    "scipy/0030",
    "cupy/0040",
    fixed={"only": frozenset({"numpy", "cupy"})},
    kind=["csr", "coo", "csc"],
    density=[0.02, 0.2],
)
def _(a: Column, kind: str, density: float) -> Any:
    return connected_components(
        a.sparse(sp.coo_array(graph(40, "float64", density)).asformat(kind))
    )


@case(
    "scipy.sparse.csgraph.laplacian",
    "scipy/0050",
    fixed={"rtol": 1e-12},
    dtype=["int64", "float32", "float64", "complex128"],
    normed=[False, True],
    use_out_degree=[False, True],
    symmetrized=[False, True],
    form=["array", "function", "lo"],
)
def _(a: Column, dtype: str, form: str, **options: Any) -> Any:
    weights = np.triu(graph(14, dtype)) + graph(14, dtype)
    found, diagonal = laplacian(a(weights), return_diag=True, form=form, **options)
    if form == "array":
        return found, diagonal
    # The standard doesn't mix integers and floating point.
    kind = np.result_type(dtype, "float32") if options["normed"] else dtype
    unit = a(np.eye(14, dtype=kind))
    return (found(unit) if form == "function" else found.matmat(unit)), diagonal


@case(
    "scipy.sparse.csgraph.laplacian, sparse",
    "scipy/0050",
    fixed={"only": frozenset({"numpy", "cupy"}), "rtol": 1e-12},
    kind=["csr", "coo"],
    normed=[False, True],
    symmetrized=[False, True],
)
def _(a: Column, kind: str, **options: Any) -> Any:
    return laplacian(a.sparse(sp.coo_array(graph(30)).asformat(kind)), **options)


def symmetric(n: int, dtype: str) -> np.ndarray:
    """Return a symmetric positive definite matrix with separate eigenvalues."""
    basis = np.linalg.qr(np.random.default_rng(n).standard_normal((n, n)))[0]
    return ((basis * np.linspace(1, 3, n) ** 2) @ basis.T).astype(dtype)


@case(
    "scipy.sparse.linalg.lobpcg",
    "scipy/0040",
    fixed={"rtol": 1e-5},
    n=[12, 40],
    largest=[False, True],
    operator=["array", "callable"],
    extra=[None, "B", "M", "Y"],
)
def _(a: Column, n: int, operator: str, extra: str | None, *, largest: bool) -> Any:
    matrix = a(symmetric(n, "float64"))
    start = np.random.default_rng(n).standard_normal((n, 3))
    end = slice(-2, None) if largest else slice(2)
    options: dict[str, Any] = {
        None: {},
        "B": {"B": a(np.diag(np.linspace(1, 2, n)))},
        "M": {"M": a(np.diag(1 / np.linspace(1, 9, n)))},
        "Y": {"Y": a(np.linalg.eigh(symmetric(n, "float64"))[1][:, end])},
    }[extra]
    product = (lambda x: matrix @ x) if operator == "callable" else matrix
    values, vectors = lobpcg(product, a(start), largest=largest, tol=1e-8, maxiter=300, **options)
    # Eigenvectors have no sign.
    return values, a.xp.abs(vectors)


@case(
    "scipy.sparse.linalg.eigsh",
    "scipy/0060",
    fixed={"refuses": ALL_OTHERS},
    which=["LM", "SA", "BE"],
    sigma=[None, 0.5],
)
def _(a: Column, **options: Any) -> Any:
    # A copy, because ARPACK overwrites it.
    return eigsh(a(symmetric(30, "float64")), 4, v0=np.ones(30), **options)


@case(
    "scipy.sparse.linalg.eigsh, shift-invert, sparse",
    "scipy/0060",
    "cupy/0030",
    fixed={"rtol": 1e-8, "only": frozenset({"numpy", "cupy"})},
    kind=["csr", "csc"],
    sigma=[-0.1, 0.5],
)
def _(a: Column, kind: str, sigma: float) -> Any:
    matrix = a.sparse(sp.csr_array(symmetric(30, "float64")).asformat(kind))
    # Without v0 ARPACK starts from a random vector.
    start = a(np.ones(30))
    return eigsh(matrix, 4, sigma=sigma, v0=start, return_eigenvectors=False)


@case(
    "scipy.sparse.coo_array, bsr_array with data",
    "scipy/0020",
    fixed={"refuses": ALL_OTHERS},
    kind=["coo_array", "coo_matrix", "bsr_array", "bsr_matrix"],
    dtype=["int64", *FLOATS],
)
def _(a: Column, kind: str, dtype: str) -> Any:
    if kind.startswith("coo"):
        data = a(np.arange(1, 7, dtype=dtype))
        rows, columns = np.arange(6), np.arange(6) // 2
        return getattr(sp, kind)((data, (rows, columns)), shape=(6, 6))
    data = a(np.arange(1, 13, dtype=dtype).reshape(3, 2, 2))
    places = np.array([0, 2, 1]), np.array([0, 1, 2, 3])
    return getattr(sp, kind)((data, *places), shape=(6, 6))


# No patch: what the patched functions above stand on.
@case(
    "scipy.ndimage.gaussian_filter",
    fixed=COMPILED,
    dtype=FLOATS,
    sigma=[1, 3],
)
def _(a: Column, dtype: str, sigma: float) -> Any:
    return scipy.ndimage.gaussian_filter(a(image(dtype)), sigma)


@case("scipy.ndimage.zoom", fixed=COMPILED, dtype=FLOATS, order=[0, 1, 3])
def _(a: Column, dtype: str, order: int) -> Any:
    return scipy.ndimage.zoom(a(image(dtype)), 0.7, order=order)


@case(
    "scipy.ndimage.gaussian_filter, zoom of PyTorch's CUDA tensors",
    "scipy/0070",
    fixed={"rtol": 1e-5, "only": frozenset({"numpy", "torch-cuda"})},
    name=["gaussian_filter", "zoom"],
    dtype=FLOATS,
)
def _(a: Column, name: str, dtype: str) -> Any:
    return getattr(scipy.ndimage, name)(a(image(dtype)), 2)


# scikit-learn


def blobs(dtype: str = "float64", n: int = 40, columns: int = 4) -> np.ndarray:
    """Return rows in four groups."""
    rng = np.random.default_rng(n)
    centres = 6 * np.eye(4, columns)[rng.integers(0, 4, n)]
    return (centres + rng.normal(scale=0.4, size=(n, columns))).astype(dtype)


ASKED = {"numeric": "numeric", "float64": np.float64, "list": [np.float64, np.float32]}


@case(
    "sklearn.utils.check_array",
    "scikit-learn/0010",
    dtype=["int32", "int64", *FLOATS],
    asked=list(ASKED),
    bad=[None, "nan", "empty", "1-D"],
)
def _(a: Column, dtype: str, asked: str, bad: str | None) -> Any:
    rows = blobs(dtype)
    if bad == "nan" and dtype.startswith("float"):
        rows[3, 1] = np.nan
    elif bad == "empty":
        rows = rows[:0]
    elif bad == "1-D":
        rows = rows[0]
    return check_array(a(rows), dtype=ASKED[asked])


NUMPY_ONLY = {"only": frozenset({"numpy"})}


@case("sklearn.utils.as_float_array", "scikit-learn/0010", fixed=NUMPY_ONLY, dtype=DTYPES)
def _(a: Column, dtype: str) -> Any:
    return as_float_array(a(image(dtype)))


# Upstream's rule for what isn't a NumPy array: always float64.
@case("sklearn.utils.as_float_array", "scikit-learn/0010", kind=DTYPES)
def _(a: Column, kind: str) -> Any:
    pixels = image(kind)
    return as_float_array(pixels.tolist() if a.name == "numpy" else a(pixels))


@case("sklearn.utils.check_symmetric", "scikit-learn/0040", dtype=FLOATS, off=[0, 1])
def _(a: Column, dtype: str, off: float) -> Any:
    matrix = graph(12, dtype)
    matrix[0, 3] += off
    return check_symmetric(a(matrix), raise_warning=False)


@case(
    "sklearn.utils.check_array, check_symmetric, sparse",
    "scikit-learn/0040",
    fixed={"only": frozenset({"numpy", "cupy"})},
    kind=["csr", "coo"],
)
def _(a: Column, kind: str) -> Any:
    matrix = a.sparse(sp.coo_array(graph(20)).asformat(kind))
    checked = check_array(matrix, accept_sparse=["csr", "coo"], dtype=np.float32)
    return checked, check_symmetric(matrix)


@case(
    "sklearn.feature_extraction.image.img_to_graph, dense",
    "scikit-learn/0030",
    dtype=["uint8", *FLOATS],
    shape=[(6, 7), (4, 3, 5)],
    masked=[False, True],
)
@case(
    "sklearn.feature_extraction.image.img_to_graph, dense",
    "scikit-learn/0030",
    dtype=FLOATS,
    shape=[(1, 5), (5, 1)],
    masked=[False],
)
def _(a: Column, dtype: str, shape: tuple[int, ...], *, masked: bool) -> Any:
    mask = a(image("float64", shape) > -0.5) if masked else None  # noqa: PLR2004
    return img_to_graph(a(image(dtype, shape)), mask=mask, return_as=np.ndarray)


@case(
    "sklearn.feature_extraction.image.img_to_graph, sparse",
    "scikit-learn/0030",
    "scipy/0010",
    fixed={"refuses": NOT_CUPY},
    dtype=["uint8", *FLOATS],
    shape=[(6, 7), (4, 3, 5)],
)
def _(a: Column, dtype: str, shape: tuple[int, ...]) -> Any:
    return img_to_graph(a(image(dtype, shape)))


@case(
    "sklearn.feature_extraction.image.grid_to_graph, dense",
    "scikit-learn/0030",
    shape=[(6, 7), (4, 3, 5)],
    dtype=["int64", *FLOATS],
)
def _(a: Column, shape: tuple[int, ...], dtype: str) -> Any:
    mask = a(image("float64", shape) > -0.5)  # noqa: PLR2004
    kind = getattr(np, dtype) if a.name == "numpy" else getattr(a.xp, dtype)
    return grid_to_graph(*shape, mask=mask, return_as=np.ndarray, dtype=kind)


@case(
    "sklearn.manifold.spectral_embedding",
    "scikit-learn/0050",
    fixed={"rtol": 1e-4},
    n=[12, 60],
    norm_laplacian=[False, True],
    drop_first=[False, True],
)
def _(a: Column, n: int, **options: Any) -> Any:
    found = spectral_embedding(
        a(graph(n)), n_components=3, eigen_tol=1e-9, random_state=0, **options
    )
    # The sign is that of the largest entry, of which there can be two.
    return a.xp.abs(found)


@case("sklearn.cluster.cluster_qr", "scikit-learn/0020", dtype=FLOATS, n=[9, 40, 300])
def _(a: Column, dtype: str, n: int) -> Any:
    return cluster_qr(a(blobs(dtype, n)))


@case(
    "sklearn.cluster.discretize",
    "scikit-learn/0020",
    dtype=FLOATS,
    n=[40, 300],
    seed=[0, 1],
)
def _(a: Column, dtype: str, n: int, seed: int) -> Any:
    return discretize(a(blobs(dtype, n)), random_state=seed)


@case(
    "sklearn.cluster.k_means",
    "scikit-learn/0060",
    fixed={"rtol": 1e-4},
    dtype=FLOATS,
    n=[40, 300],
    init=["k-means++", "random"],
    weighted=[False, True],
)
def _(a: Column, dtype: str, n: int, init: str, *, weighted: bool) -> Any:
    weights = a(np.linspace(0.5, 2, n).astype(dtype)) if weighted else None
    options = {"init": init, "n_init": 2, "random_state": 0}
    return k_means(a(blobs(dtype, n)), 4, sample_weight=weights, **options)[:2]


@case(
    "sklearn.cluster.KMeans",
    "scikit-learn/0060",
    fixed={"rtol": 1e-4},
    method=["predict", "transform", "fit_predict"],
)
def _(a: Column, method: str) -> Any:
    data = a(blobs())
    return getattr(KMeans(4, n_init=1, random_state=0).fit(data), method)(data)


@case(
    "sklearn.cluster.spectral_clustering",
    "scikit-learn/0070",
    assign_labels=["kmeans", "discretize", "cluster_qr"],
    n=[30, 60],
)
def _(a: Column, n: int, **options: Any) -> Any:
    return spectral_clustering(a(graph(n)), n_clusters=3, random_state=0, **options)


@case(
    "sklearn.cluster.SpectralClustering",
    "scikit-learn/0070",
    affinity=["rbf", "precomputed"],
)
def _(a: Column, affinity: str) -> Any:
    data = graph(40) if affinity == "precomputed" else blobs()
    model = SpectralClustering(3, affinity=affinity, random_state=0, gamma=0.1)
    return model.fit(a(data)).labels_


# CuPy: its own functions, compared with NumPy's and SciPy's.


@case("cupy.ndarray.__array_namespace__", "cupy/0020", fixed=CUPY_ONLY)
def _(a: Column) -> Any:
    return a(np.ones(3)).__array_namespace__() is a.xp


@case(
    "cupyx.scipy.sparse.*.todia",
    "cupy/0010",
    fixed=CUPY_ONLY,
    kind=["coo", "csr", "csc"],
    n=[1, 9, 40],
)
def _(a: Column, kind: str, n: int) -> Any:
    band = sp.diags_array([1.0, 2, 3], offsets=[-1, 0, 2], shape=(n, n))
    return a.sparse(band.asformat(kind)).todia()


# The check itself.


def parts(result: Any) -> Iterator[Any]:
    if isinstance(result, (tuple, list)):
        for part in result:
            yield from parts(part)
    else:
        yield result


def arrays(matrix: Any) -> list[np.ndarray]:
    """Return what a SciPy sparse matrix consists of."""
    names = ("data", "row", "col", "indices", "indptr", "offsets")
    return [getattr(matrix, name) for name in names if hasattr(matrix, name)]


def digest(result: Any) -> str:
    """Return a sha256 of types, dtypes, shapes and bytes."""
    state = hashlib.sha256()
    for part in parts(result):
        state.update(f"{type(part).__name__} {getattr(part, 'shape', '')}".encode())
        for array in arrays(part) if sp.issparse(part) else [np.asarray(part)]:
            state.update(f"{array.dtype.str} {array.shape}".encode())
            state.update(array.tobytes())
    return state.hexdigest()


def difference(case: Case, a: Column, found: Any, expected: Any) -> str | None:
    """Return what is wrong with a result, in the light of NumPy's."""
    pairs = list(itertools.zip_longest(parts(found), parts(expected)))
    for one, other in pairs:
        if not (sp.issparse(other) or isinstance(other, np.ndarray)):
            if bool(one != other):
                return f"{one!r} is not {other!r}"
            continue
        if wrong := a.owns(one):
            return f"result {wrong}"
        got = a.to_numpy(one)
        if sp.issparse(other):
            got, other = got.toarray(), other.toarray()  # noqa: PLW2901
        if got.shape != other.shape or got.dtype != other.dtype:
            return f"{got.dtype}{got.shape} is not {other.dtype}{other.shape}"
        rtol = case.rtol
        if rtol is None and a.name in FUSING:
            rtol = 1e-12
        if rtol is None or other.dtype.kind not in "fc":
            same = np.array_equal(got, other, equal_nan=other.dtype.kind in "fc")
        else:
            rtol = max(rtol, 64 * float(np.finfo(other.dtype).eps))
            scale = float(np.nanmax(np.abs(other), initial=0))
            same = np.allclose(got, other, rtol=rtol, atol=rtol * scale, equal_nan=True)
        if not same:
            off = np.nanmax(np.abs(got.astype(complex) - other), initial=0)
            return f"values differ by up to {off:.2g}, allowed: {rtol or 'nothing'}"
    return None


def attempt(case: Case, a: Column) -> tuple[Any, Exception | None]:
    try:
        return case.call(a), None
    # Whatever a library raises is an outcome.
    except Exception as error:  # noqa: BLE001
        return None, error


def verdict(case: Case, a: Column) -> tuple[str, str]:
    """Return yes, no (refused), same (raises as NumPy does), fails, or - if it isn't for the column; and why."""
    if a.name not in case.only:
        return "-", ""
    expected, reference = attempt(case, Column("numpy", np))
    found, error = attempt(case, a)
    if error is not None:
        return refusal(case, a, error, reference)
    if reference is not None:
        return "fails", f"returns where NumPy raises {reference!r:.200}"
    wrong = difference(case, a, found, expected)
    return ("fails", wrong) if wrong else ("yes", "")


def refusal(
    case: Case, a: Column, error: Exception, reference: Exception | None
) -> tuple[str, str]:
    said = " ".join(f"{type(error).__name__}: {error!s:.200}".split())
    if reference is not None and isinstance(error, type(reference)):
        return "same", said
    # Where no patch is involved, what upstream raises is only recorded.
    if case.patches and not isinstance(error, TypeError):
        return "fails", f"neither served nor a TypeError: {said}"
    device1 = case.compiled and a.name == "strict-device1"
    if device1 or a.name in case.refuses or a.name not in SERVED:
        return "no", said
    return "fails", f"refused without need: {said}"


# Labels and eigenvectors of the coins.

COINS = "sklearn.manifold.spectral_embedding, labels of the coins"
ANGLE, RESIDUAL, ARI = 1e-3, 1e-5, 0.95


@dataclass(frozen=True)
class Spectrum:
    """The lower end of the spectrum of the coins' Laplacian, by shift-invert, cut to `k` at a clear gap."""

    graph: Any
    laplacian: Any
    diagonal: np.ndarray
    values: np.ndarray
    vectors: np.ndarray
    k: int = field(init=False)

    def __post_init__(self) -> None:
        gaps = {k: self.values[k] / self.values[k - 1] for k in range(22, 31)}
        object.__setattr__(self, "k", max(gaps, key=lambda k: gaps[k]))

    def wrong(self, vectors: np.ndarray) -> list[str]:
        """Return what is wrong with k vectors that should span the same space.

        Single vectors aren't compared: there are gaps of 2e-8, where they aren't defined.
        """
        basis, _ = np.linalg.qr(vectors)
        inner = basis.T @ (self.laplacian @ basis)
        residual = float(np.linalg.norm(self.laplacian @ basis - basis @ inner, 2))
        wanted = self.vectors[:, : self.k]
        angle = float(np.max(subspace_angles(basis, wanted)))
        found = [f"residual {residual:.1g}"] if residual > RESIDUAL else []
        if angle > ANGLE:
            found.append(f"an eigenvector is missed: angle {angle:.2g}")
        return found


def spectrum(scale: float) -> Spectrum:
    backend = coins.Backend(
        name="numpy", xp=np, device="cpu", synchronize=lambda: None, sparse=True
    )
    pixels = skimage.data.coins()
    smooth = filters.gaussian(pixels, sigma=coins.SIGMA)
    small = transform.rescale(smooth, scale, mode="reflect", anti_aliasing=False)
    weights = coins.weigh(backend, coins.make_graph(backend, small), small)
    matrix, diagonal = laplacian(weights, normed=True, return_diag=True)
    values, vectors = eigsh(
        matrix.tocsc(), 32, sigma=-1e-5, which="LM", v0=np.ones(matrix.shape[0])
    )
    order = np.argsort(values)
    return Spectrum(weights, matrix, diagonal, values[order], vectors[:, order])


def embed(a: Column, known: Spectrum) -> Any:
    """Return the embedding of the coins' pixels in the arrays of the column."""
    return spectral_embedding(
        a.sparse(known.graph.tocsr()),
        n_components=known.k,
        drop_first=False,
        random_state=42,
    )


LABELS: dict[str, Callable[[Any], Any]] = {
    "cluster_qr": cluster_qr,
    "discretize": functools.partial(discretize, random_state=42),
    "k_means": lambda e: k_means(e, e.shape[1], n_init=1, random_state=42)[1],
}


def oracle(a: Column, scale: float) -> tuple[str, str]:
    """Return yes or fails, and why, for the eigenvectors and labels of the coins."""
    known = spectrum(scale)
    try:
        embedding = embed(a, known)
    except TypeError as error:
        return "no", f"TypeError: {error!s:.200}"
    if wrong := a.owns(embedding):
        return "fails", f"embedding {wrong}"
    vectors = a.to_numpy(embedding) * known.diagonal[:, np.newaxis]
    found = known.wrong(vectors)
    reference = known.vectors[:, : known.k] / known.diagonal[:, np.newaxis]
    for name, assign in LABELS.items():
        expected, got = assign(reference), a.to_numpy(assign(embedding))
        if name == "discretize":
            agreement = adjusted_rand_score(expected, got)
            if agreement < ARI:
                found.append(f"discretize: ARI {agreement:.3f} below {ARI}")
        elif not np.array_equal(expected, got):
            found.append(f"{name}: {np.sum(expected != got)} labels differ")
    return ("fails" if found else "yes"), "; ".join(found)


def outcome(case: Case, a: Column) -> dict[str, Any]:
    facts = {k: v for k, v in asdict(case).items() if k in {"function", "case", "compiled"}}
    facts["patches"] = case.patches
    if a.name != "numpy":
        answer, why = verdict(case, a)
        return facts | {"verdict": answer, "why": why}
    if a.name not in case.only:
        return facts | {"verdict": "-", "why": ""}
    found, error = attempt(case, a)
    said = f"{type(error).__name__}: {error}" if error else digest(found)
    return facts | {"verdict": "same" if error else "yes", "why": said}


def versions(name: str) -> dict[str, str]:
    found = {}
    for distribution in ("numpy", COLUMNS[name][1], *FORKS):
        try:
            found[distribution] = version(distribution)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--column", choices=COLUMNS, required=True)
    parser.add_argument("--coins", type=float, help="also the oracles, at this scale")
    parser.add_argument("--fork", action="append", help="only cases of its patches")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    try:
        a = make_column(options.column)
        a(np.zeros(1))
    except Exception as error:  # noqa: BLE001 -- CuPy has many kinds for a missing GPU
        options.output.write_text(json.dumps({"unusable": f"{error}"}))
        return
    chosen = [
        c
        for c in CASES
        if not options.fork or any(p.partition("/")[0] in options.fork for p in c.patches)
    ]
    # Without a dispatch, scikit-learn turns what is not NumPy's into NumPy arrays, or fails.
    dispatch = bool(os.environ.get("SCIPY_ARRAY_API"))
    with (
        warnings.catch_warnings(action="ignore"),
        np.errstate(all="ignore"),
        sklearn.config_context(array_api_dispatch=dispatch),
    ):
        rows = [outcome(c, a) for c in chosen]
        if options.coins:
            answer, why = oracle(a, options.coins)
            about = {"function": COINS, "case": f"scale={options.coins:g}"}
            patches = ["scipy/0040", "scikit-learn/0020", "scikit-learn/0050"]
            rows.append(about | {"patches": patches, "verdict": answer, "why": why})
    found = {"column": a.name, "versions": versions(a.name), "cases": rows}
    options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
