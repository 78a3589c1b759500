"""Calls of scikit-learn's patched functions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import array_api_strict
import cupyx.scipy.sparse
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from scipy.sparse import csgraph
from sklearn import config_context
from sklearn.cluster import (
    KMeans,
    SpectralClustering,
    k_means,
    kmeans_plusplus,
    spectral_clustering,
)
from sklearn.cluster._spectral import cluster_qr, discretize
from sklearn.feature_extraction.image import grid_to_graph, img_to_graph
from sklearn.manifold import spectral_embedding
from sklearn.utils import as_float_array, check_array, check_symmetric
from sklearn.utils.validation import check_non_negative

from tests.forks.columns import (
    DATA,
    DTYPES,
    FLOATS,
    IMAGE,
    KINDS,
    OWN,
    TWO_COMPONENTS,
    Column,
    graph,
    half_imported,
    image,
    pick,
    sparse,
)
from tests.forks.verdicts import (
    CUDA_ERROR,
    OTHERS,
    SAME,
    Gives,
    Raises,
    Same,
    bad_input,
    calls,
    each,
    given,
    mixed,
    mixtures,
    only,
    own,
    strict,
    table,
)

if TYPE_CHECKING:
    Shape = tuple[int, ...]

parametrize = pytest.mark.parametrize
SPARSE = frozenset({"numpy", "cupy"})
NOT_CUPY = OTHERS - {"cupy"}
DENSE = {"return_as": np.ndarray}


def blobs(dtype: str = "float64", n: int = 40, columns: int = 4) -> np.ndarray:
    """Return rows in four groups."""
    rng = np.random.default_rng(n)
    centres = 6 * np.eye(4, columns)[rng.integers(0, 4, n)]
    return (centres + rng.normal(scale=0.4, size=(n, columns))).astype(dtype)


def to_numpy(array: Any) -> np.ndarray:
    """Return an array of NumPy or array-api-strict, and nothing else, as NumPy's."""
    if isinstance(array, np.ndarray):
        return array
    assert type(array) is type(OWN["cpu"](0))
    return OWN["cpu"].to_numpy(array)


# check_array, as_float_array, check_symmetric

ASKED: dict[str, Any] = {
    "numeric": "numeric",
    "float64": np.float64,
    "list": [np.float64, np.float32],
}


@each(dtype=["int32", "int64", *FLOATS], asked=list(ASKED), bad=[None, "nan", "empty", "1-D"])
@calls("sklearn.utils.check_array", "scikit-learn/0010")
def test_check_array(a: Column, dtype: str, asked: str, bad: str | None) -> Any:
    rows = blobs(dtype)
    if bad == "nan" and dtype.startswith("float"):
        rows[3, 1] = np.nan
    elif bad == "empty":
        rows = rows[:0]
    elif bad == "1-D":
        rows = rows[0]
    return check_array(a(rows), dtype=ASKED[asked])


test_as_float_array = calls(
    "sklearn.utils.as_float_array",
    "scikit-learn/0010",
    each(dtype=DTYPES),
    only=frozenset({"numpy"}),
)(lambda a, dtype: as_float_array(a(image(dtype))))


@each(kind=DTYPES)
@calls("sklearn.utils.as_float_array", "scikit-learn/0010")
def test_as_float_array_of_what_is_not_numpys_gives_float64(a: Column, kind: str) -> Any:
    pixels = image(kind)
    return as_float_array(pixels.tolist() if a.name == "numpy" else a(pixels))


@each(dtype=FLOATS, off=[0, 1])
@calls("sklearn.utils.check_symmetric", "scikit-learn/0040")
def test_check_symmetric(a: Column, dtype: str, off: float) -> Any:
    matrix = graph(12, dtype)
    matrix[0, 3] += off
    return check_symmetric(a(matrix), raise_warning=False)


@each(kind=["csr", "coo"])
@calls("sklearn.utils.check_array, check_symmetric, sparse", "scikit-learn/0040", only=SPARSE)
def test_checks_of_sparse(a: Column, kind: str) -> Any:
    matrix = a.sparse(sparse(graph(20), kind))
    checked = check_array(matrix, accept_sparse=["csr", "coo"], dtype=np.float32)
    return checked, check_symmetric(matrix)


def test_sparse_of_numpy_while_cupy_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = sp.csr_array(np.eye(4))
    for module in half_imported("cupyx.scipy.sparse"):
        monkeypatch.setitem(sys.modules, "cupyx.scipy.sparse", module)
        assert check_array(matrix, accept_sparse=True).nnz == 4
        assert img_to_graph(IMAGE).shape == (IMAGE.size, IMAGE.size)
        # SciPy's own test is the other one that every graph passes.
        assert csgraph.laplacian(matrix).nnz == 4


@parametrize("mask", [{True}, {0: True}, "mask"], ids=["set", "dict", "text"])
@parametrize("dispatch", [False, True])
def test_masks_that_are_no_arrays(mask: Any, *, dispatch: bool) -> None:
    with config_context(array_api_dispatch=dispatch), pytest.raises(TypeError):
        grid_to_graph(2, 2, mask=mask)


@parametrize("layout", ["torch.strided", "Layout(major_to_minor=(0, 1))", None])
def test_layouts_of_dense_arrays(monkeypatch: pytest.MonkeyPatch, layout: str | None) -> None:
    # JAX's arrays have one as well.
    rows = OWN["device1"](IMAGE)
    monkeypatch.setattr(type(rows), "layout", layout, raising=False)
    assert check_array(rows).shape == rows.shape


SHAPES = {
    "0d": own(Raises(ValueError, "Expected 2D array, got scalar array")),
    "1d": own(Raises(ValueError, "Expected 2D array, got 1D array")),
    "3d": own(Raises(ValueError, "Found array with dim 3")),
    "4d": own(Raises(ValueError, "Found array with dim 4")),
    "empty": own(Raises(ValueError, "Found array with 0 sample")),
    "nan": own(Raises(ValueError, "Input contains NaN")),
    "complex": own(Raises(ValueError, "Complex data not supported")),
}
SPARSE_PASSED = Raises(TypeError, "Sparse data was passed")
CHECKED = [
    *table(DATA, own(SAME), SHAPES),
    *given("image", IMAGE, only(CUDA_ERROR, "cupy")),
    *given("sparse", TWO_COMPONENTS, only(SPARSE_PASSED, "scipy", "cupyx")),
]

test_what_is_checked = bad_input(
    lambda make, data: check_array(make(data)),
    CHECKED,
)
test_what_is_checked_and_made_float = bad_input(
    lambda make, data: check_array(make(data), dtype=np.float64),
    CHECKED,
)
test_what_is_checked_as_sparse = bad_input(
    lambda make, data: check_array(make(data), accept_sparse="coo"),
    given("coo", TWO_COMPONENTS, only(CUDA_ERROR, "cupyx")),
)


def undispatched(make: Any, data: Any) -> Any:
    with config_context(array_api_dispatch=False):
        return check_array(make(data), accept_sparse=True)


test_sparse_without_dispatch = bad_input(
    undispatched,
    given("sparse", TWO_COMPONENTS, only(Raises(TypeError, "with array API dispatch"), "cupyx")),
)
test_what_is_checked_for_negative_values = bad_input(
    lambda make, data: check_non_negative(make(data), "a test"),
    table(
        {"sparse": TWO_COMPONENTS, "negative": -TWO_COMPONENTS}, only(CUDA_ERROR, "cupy", "cupyx")
    ),
    given("negative", -IMAGE, own(Raises(ValueError, "Negative values in data passed to a test"))),
)

NO_DTYPE = Raises(TypeError, "dtype=.* has no equivalent in the namespace")
NOT_DTYPE = Raises(TypeError, "Cannot interpret .* as a data type")

test_check_array_refuses_dtypes_of_other_libraries = bad_input(
    lambda make, dtype: check_array(make(IMAGE), dtype=dtype),
    table({"object": object, "U3": "U3", "longdouble": np.longdouble}, strict(NO_DTYPE)),
    given("strict", array_api_strict.float32, only(NOT_DTYPE, "np", "cupy")),
)


# Graphs of images


@each(dtype=["uint8", *FLOATS], shape=[(6, 7), (4, 3, 5)], masked=[False, True])
@calls("sklearn.feature_extraction.image.img_to_graph, dense", "scikit-learn/0030")
def test_img_to_graph(a: Column, dtype: str, shape: Shape, *, masked: bool) -> Any:
    mask = image("float64", shape) > -0.5
    options = {"mask": a(mask)} if masked else {}
    return img_to_graph(a(image(dtype, shape)), **DENSE, **options)


test_img_to_graph_of_a_line = calls(
    "sklearn.feature_extraction.image.img_to_graph, dense",
    "scikit-learn/0030",
    each(dtype=FLOATS, shape=[(1, 5), (5, 1)]),
)(lambda a, dtype, shape: img_to_graph(a(image(dtype, shape)), **DENSE))

test_img_to_sparse_graph = calls(
    "sklearn.feature_extraction.image.img_to_graph, sparse",
    "scikit-learn/0030 scipy/0010",
    each(dtype=["uint8", *FLOATS], shape=[(6, 7), (4, 3, 5)]),
    refuses=NOT_CUPY,
)(
    # CuPy's sparse arrays hold no integers.
    lambda a, dtype, shape: img_to_graph(a(image(dtype, shape))).astype(
        "float64" if dtype == "uint8" else dtype
    )
)


@each(shape=[(6, 7), (4, 3, 5)], dtype=["int64", *FLOATS])
@calls("sklearn.feature_extraction.image.grid_to_graph, dense", "scikit-learn/0030")
def test_grid_to_graph(a: Column, shape: Shape, dtype: str) -> Any:
    mask = image("float64", shape) > -0.5
    return grid_to_graph(*shape, mask=a(mask), dtype=getattr(a.xp, dtype), **DENSE)


NO_SPARSE = Raises(TypeError, "There are no sparse arrays for the arrays of")
NOT_ARRAY = Raises(ValueError, "The 'img' parameter of img_to_graph must be an array-li")
MASK = Raises(ValueError, "The 'mask' parameter of .* must be None or an array-like")
SIZE = strict(Raises(ValueError, "mask has 9 elements, expected 42"))
NOT_3D = own(Raises(ValueError, "too many values to unpack"))

test_what_has_a_graph = bad_input(
    lambda make, data: img_to_graph(make(data), **DENSE),
    table(
        DATA,
        strict(SAME),
        {"bool": own(Raises(TypeError, "boolean|numeric")), "4d": NOT_3D},
    ),
    given("4d_of_one_channel", np.ones((2, 3, 2, 1)), NOT_3D),
    given("5d", np.ones((1, 1, 1, 1, 1)), NOT_3D),
    given("image", IMAGE, only(CUDA_ERROR, "cupy")),
    given("sparse", TWO_COMPONENTS, only(NOT_ARRAY, "scipy", "cupyx")),
)
test_img_to_graph_without_sparse_arrays = bad_input(
    lambda make, data, return_as: img_to_graph(make(data), return_as=return_as),
    given("image", IMAGE, strict(NO_SPARSE)),
    return_as=[sp.coo_array, sp.csr_matrix, cupyx.scipy.sparse.coo_matrix, list],
)
test_img_to_graph_of_no_dtype = bad_input(
    lambda make, data: img_to_graph(make(data), dtype="U3", **DENSE),
    given("U3", IMAGE, strict(Raises(TypeError, "dtype='U3' has no equivalent"))),
)


test_img_to_graph_refuses_a_mask_of_another_device = mixed(
    lambda one, other: img_to_graph(one(IMAGE), mask=other(IMAGE > 0.3), **DENSE),
    mixtures((*OWN, "cupy"), (*OWN, "cupy")),
    # scikit-learn's own error, with the devices of all arguments.
    Raises(ValueError, "Input arrays use different devices"),
)
test_img_to_graph_refuses_a_sparse_mask = mixed(
    lambda one, other: img_to_graph(one(TWO_COMPONENTS), mask=other(TWO_COMPONENTS > 1), **DENSE),
    mixtures((*OWN, "cupy"), ("scipy", "cupyx")),
    MASK,
)
NOT_A_MASK = {
    "size": np.ones((3, 3), dtype=bool),
    "transposed": IMAGE.T > 0.3,
    "flat": (IMAGE > 0.3).ravel(),
    "with_channel": IMAGE[..., None] > 0.3,
    "int": (IMAGE > 0.3).astype(int),
    "float": IMAGE,
    "nan": np.where(IMAGE > 0.3, np.nan, 0),
}
# NumPy indexes with the mask, and integers are indices.
WRONG_MASK = strict(Raises(IndexError, "mask must be an array of booleans of shape"))
WRONG_MASK["np"] = Raises((IndexError, ValueError), "ind|dimension")
test_masks_of_img_to_graph = bad_input(
    lambda make, data: img_to_graph(make(IMAGE), mask=make(data), **DENSE),
    given("none_left", np.zeros((6, 7), dtype=bool), strict(SAME)),
    table(NOT_A_MASK, WRONG_MASK),
)
test_masks_of_grid_to_graph = bad_input(
    lambda make, data: grid_to_graph(6, 7, mask=make(data), **DENSE),
    given("bool", IMAGE > 0.3, strict(SAME) | only(CUDA_ERROR, "cupy")),
    given("int", (IMAGE > 0.3).astype(int), strict(SAME)),
    given("none_left", np.zeros((6, 7), dtype=bool), strict(SAME)),
    given("size", np.ones((3, 3), dtype=bool), SIZE),
    given("sparse", TWO_COMPONENTS, only(MASK, "scipy", "cupyx")),
)
test_grid_to_graph_without_sparse_arrays = bad_input(
    lambda make, data: grid_to_graph(6, 7, mask=make(data)),
    given("mask", IMAGE > 0.3, strict(NO_SPARSE)),
)
test_grid_to_graph_refuses_an_array_for_an_integer = bad_input(
    lambda make, data: grid_to_graph(make(data), 7),
    given("n_x", 6, own(Raises(ValueError, "The 'n_x' parameter of grid_to_graph must be an int"))),
)


# spectral_embedding


test_spectral_embedding_by_arpack = calls(
    "sklearn.manifold.spectral_embedding, eigen_solver='arpack'",
    "scikit-learn/0050",
    each(n=[30, 60], eigen_tol=["auto", 1e-9]),
    rtol=1e-4,
    refuses=NOT_CUPY,
)(
    lambda a, n, **options: a.xp.abs(
        spectral_embedding(
            a(graph(n)), n_components=3, eigen_solver="arpack", random_state=0, **options
        )
    )
)


@each(n=[12, 60], norm_laplacian=[False, True], drop_first=[False, True])
@calls("sklearn.manifold.spectral_embedding", "scikit-learn/0050", rtol=1e-4)
def test_spectral_embedding(a: Column, n: int, **options: Any) -> Any:
    more = {"n_components": 3, "eigen_tol": 1e-9, "random_state": 0}
    # The sign is that of the largest entry, of which there can be two.
    return a.xp.abs(spectral_embedding(a(graph(n)), **more, **options))


RNG = np.random.default_rng(0)
AFFINITY = RNG.random((40, 40))
AFFINITY += AFFINITY.T
np.fill_diagonal(AFFINITY, 0)
DISCONNECTED = AFFINITY.copy()
DISCONNECTED[:20, 20:] = DISCONNECTED[20:, :20] = 0
DIAGONAL = np.eye(40) > 0
CLOSE = Same(1e-3)
TWO_D_SQUARE = Raises(ValueError, "array must be 2-dimensional and square")


def embed(adjacency: Any, n_components: Any = 3, **options: Any) -> Any:
    return spectral_embedding(adjacency, n_components=n_components, random_state=0, **options)


def floats_embedded(data: np.ndarray) -> dict[str, Any]:
    """NumPy has no Laplacian of these dtypes, others are converted to floating point numbers."""

    def check(embedding: Any) -> None:
        reference = embed(data.astype(float))
        np.testing.assert_allclose(to_numpy(embedding), reference, atol=1e-3)

    return strict(Gives(check)) | {"np": Raises(TypeError, "Cannot cast ufunc")}


# Not (AFFINITY > 0): the embedding of a complete graph can have any basis.
BOOLS, BYTES = AFFINITY > 1, (AFFINITY * 3).astype(np.uint8)


def bad(message: str) -> dict[str, Any]:
    other = Raises(ValueError, "NaN|infinity|Complex|0 sample")
    return strict(Raises(ValueError, message)) | {"scipy": other}


test_what_is_embedded = bad_input(
    lambda make, data: embed(make(data)),
    table(
        {
            "connected": AFFINITY,
            "int": (AFFINITY * 10).astype(int),
            "negative_some": AFFINITY - 0.5,
            "not_symmetric": np.triu(AFFINITY),
            "few_nodes": AFFINITY[:5, :5],
        },
        strict(CLOSE),
    ),
    given("bool", BOOLS, floats_embedded(BOOLS)),
    given("uint8", BYTES, floats_embedded(BYTES)),
    given("negative", -AFFINITY, bad("NaN|Linearly dependent initial")),
    given("nan", np.where(DIAGONAL, np.nan, AFFINITY), bad("Input contains NaN")),
    given("inf", np.where(DIAGONAL, np.inf, AFFINITY), bad("Input contains infinity")),
    given(
        "nan_off_diagonal",
        np.where(np.eye(40, k=1) > 0, np.nan, AFFINITY),
        bad("Input contains NaN"),
    ),
    given("complex", AFFINITY * 1j, bad("Complex data not supported")),
    given("empty", np.zeros((0, 0)), bad("Found array with 0 sample")),
    table(pick(DATA, "1d 3d 4d"), own(TWO_D_SQUARE, "cupy")),
    given("not_square", IMAGE, own(TWO_D_SQUARE, "cupy", "scipy", "cupyx")),
    given("affinity", AFFINITY, only(CUDA_ERROR, "cupy", "cupyx")),
    given("one_node", np.ones((1, 1)), own(SAME)),
)
test_more_components_than_nodes = bad_input(
    lambda make, data: embed(make(data), n_components=12),
    given("few", AFFINITY[:8, :8], own(CLOSE)),
)
test_spectral_embedding_refuses_an_array_for_an_integer = bad_input(
    lambda make, data: embed(AFFINITY, n_components=make(data)),
    given("3", 3, own(Raises(ValueError, "The 'n_components' parameter of"))),
)


test_spectral_embedding_by_lobpcg = bad_input(
    lambda make, data: embed(make(data), eigen_solver="lobpcg", eigen_tol=1e-6),
    given("connected", AFFINITY, strict(CLOSE)),
    given("float32", AFFINITY.astype(np.float32), strict(CLOSE)),
)


@parametrize("solver", ["arpack", "amg"])
@parametrize("kind", ["cpu", "device1"])
def test_other_solvers_refuse_other_arrays(kind: str, solver: str) -> None:
    with pytest.raises(TypeError, match=f"eigen_solver='{solver}' works on NumPy"):
        embed(KINDS[kind](AFFINITY), eigen_solver=solver)


@parametrize("kind", ["cpu", "device1"])
def test_the_first_vectors_tell_two_components_apart_and_a_warning_does(kind: str) -> None:
    def projector(embedding: Any) -> np.ndarray:
        # The subspace: in it, a degenerate eigenvector can be any.
        q, _ = np.linalg.qr(to_numpy(embedding))
        return q @ q.T

    with pytest.warns(UserWarning, match="Graph is not fully connected"):
        expected = embed(DISCONNECTED, n_components=2, drop_first=False)
    with pytest.warns(UserWarning, match="Graph is not fully connected"):
        actual = embed(OWN[kind](DISCONNECTED), n_components=2, drop_first=False)
    assert type(actual) is type(OWN[kind](0))
    assert OWN[kind].mismatch(actual) is None
    np.testing.assert_allclose(projector(actual), projector(expected), atol=1e-4)


# Labels

test_cluster_qr = calls(
    "sklearn.cluster.cluster_qr", "scikit-learn/0020", each(dtype=FLOATS, n=[9, 40, 300])
)(lambda a, dtype, n: cluster_qr(a(blobs(dtype, n))))

test_discretize = calls(
    "sklearn.cluster.discretize", "scikit-learn/0020", each(dtype=FLOATS, n=[40, 300], seed=[0, 1])
)(lambda a, dtype, n, seed: discretize(a(blobs(dtype, n)), random_state=seed))


@each(dtype=FLOATS, n=[40, 300], init=["k-means++", "random"], weighted=[False, True])
@calls("sklearn.cluster.k_means", "scikit-learn/0060", rtol=1e-4)
def test_k_means(a: Column, dtype: str, n: int, init: str, *, weighted: bool) -> Any:
    weights = np.linspace(0.5, 2, n).astype(dtype)
    options = {"init": init, "sample_weight": a(weights) if weighted else None}
    return k_means(a(blobs(dtype, n)), 4, n_init=2, random_state=0, **options)[:2]


@each(method=["predict", "transform", "fit_predict"])
@calls("sklearn.cluster.KMeans", "scikit-learn/0060", rtol=1e-4)
def test_kmeans_estimator(a: Column, method: str) -> Any:
    data = a(blobs())
    return getattr(KMeans(4, n_init=1, random_state=0).fit(data), method)(data)


test_spectral_clustering = calls(
    "sklearn.cluster.spectral_clustering",
    "scikit-learn/0070",
    each(assign_labels=["kmeans", "discretize", "cluster_qr"], n=[30, 60]),
)(lambda a, n, **options: spectral_clustering(a(graph(n)), n_clusters=3, random_state=0, **options))


@each(affinity=["rbf", "precomputed"])
@calls("sklearn.cluster.SpectralClustering", "scikit-learn/0070")
def test_spectral_clustering_estimator(a: Column, affinity: str) -> Any:
    data = graph(40) if affinity == "precomputed" else blobs()
    options = {"affinity": affinity, "random_state": 0, "gamma": 0.1}
    return SpectralClustering(3, **options).fit(a(data)).labels_


K_MEANS: dict[str, Callable[[Any], Any]] = {
    "score": lambda x: round(float(KMeans(4, n_init=1, random_state=0).fit(x).score(x)), 6),
    "given centres": lambda x: k_means(x, 4, init=x[:4, :], n_init=1)[1],
    # A view would be overwritten where it is NumPy's.
    "centres by a function": lambda x: k_means(
        x, 4, init=lambda rows, n, random_state: rows[:n, :] + 0, n_init=1
    )[1],
    "one iteration": lambda x: k_means(x, 4, max_iter=1, n_init=1, random_state=0, verbose=1)[1],
    "verbose": lambda x: k_means(x, 4, n_init=1, tol=0, random_state=0, verbose=1)[1],
    "large tolerance": lambda x: k_means(x, 4, n_init=3, tol=10, random_state=0, verbose=1)[1],
    "plusplus": lambda x: kmeans_plusplus(x, 4, random_state=0),
    "plusplus, norms": lambda x: kmeans_plusplus(
        x, 4, x_squared_norms=(x**2).sum(1) if isinstance(x, np.ndarray) else None, random_state=0
    ),
    "plusplus, trials": lambda x: kmeans_plusplus(x, 4, n_local_trials=2, random_state=0),
}
test_k_means_with_other_parameters = bad_input(
    lambda make, data, how: K_MEANS[how](make(data)),
    given("blobs", blobs(), strict(Same(1e-9))),
    how=[*K_MEANS],
)


def weighted(make: Any, weights: Any) -> Any:
    return k_means(make(blobs()), 4, init="random", n_init=1, sample_weight=make(weights))


test_k_means_of_bad_weights = bad_input(
    weighted,
    given("negative", 1 - 2 * np.eye(40)[0], own(Raises(ValueError, "not non-negative"))),
    given("few", np.eye(40)[0], own(Raises(ValueError, "Fewer non-zero entries in p than size"))),
)
test_k_means_of_what_it_does_not_take = bad_input(
    lambda make, data: KMeans(2, algorithm="elkan", n_init=1).fit(make(data)),
    given("elkan", blobs(), strict(Raises(TypeError, "algorithm='elkan' works on NumPy arrays"))),
    given(
        "sparse",
        TWO_COMPONENTS,
        only(Raises(TypeError, "KMeans does not support the sparse arrays of CuPy"), "cupyx"),
    ),
)
test_k_means_of_equal_rows = bad_input(
    lambda make, data: k_means(make(data), 3, n_init=1, random_state=0)[1],
    given("ones", np.ones((9, 2)), strict(SAME)),
)
test_neighbours_are_numpys = bad_input(
    lambda make, data: SpectralClustering(2, affinity="nearest_neighbors").fit(make(data)),
    given("blobs", blobs(), strict(Raises(TypeError, "affinity='nearest_neighbors' works on"))),
)

VECTORS = np.linalg.qr(RNG.standard_normal((30, 3)))[0]
LABELS: dict[str, Callable[[Any], Any]] = {
    "discretize": lambda vectors: discretize(vectors, random_state=0),
    "cluster_qr": cluster_qr,
}
CONVERGE = Raises(np.linalg.LinAlgError, "SVD did not converge")
EXPECTED_2D = Raises(ValueError, "Expected 2D array")
# The base class of LinAlgError.
NOT_FINITE = {"np": Raises(ValueError, "SVD|NaN")}

test_what_is_labelled = bad_input(
    lambda make, data, function: LABELS[function](make(data)),
    table(
        {
            "float": VECTORS,
            "int": np.arange(12).reshape(6, 2) % 5,
            # No two pivots and no two clusters are equally good for a row: rounding would decide.
            "uint8": np.arange(12, dtype=np.uint8).reshape(6, 2) ** 2 % 19,
            "negative": -np.abs(VECTORS),
            "one": np.ones((1, 1)),
        },
        strict(SAME),
    ),
    table({"0d": DATA["0d"], "1d": DATA["1d"]}, strict(EXPECTED_2D)),
    given("3d", DATA["3d"], strict(Raises(ValueError, "Found array with dim 3"))),
    given("empty", DATA["empty"], strict(Raises(ValueError, "Found array with 0 sample"))),
    given("no_columns", np.zeros((5, 0)), strict(Raises(ValueError, "Found array with 0 feature"))),
    given(
        "nan", DATA["nan"], strict(Raises(ValueError, "Input vectors contains NaN")) | NOT_FINITE
    ),
    given(
        "inf",
        np.full((6, 2), np.inf),
        strict(Raises(ValueError, "Input vectors contains infinity")) | NOT_FINITE,
    ),
    given("complex", DATA["complex"], strict(Raises(ValueError, "Complex data not supp"))),
    given("vectors", VECTORS, only(CUDA_ERROR, "cupy")),
    given(
        "sparse",
        TWO_COMPONENTS,
        {
            "cupyx": Raises(TypeError, "Sparse data was passed for vectors"),
            "scipy": Raises(ValueError, "shape mismatch|at least a 2-D"),
        },
    ),
    function=[*LABELS],
)

BOOL, ZERO, WIDE = np.eye(6, 3) > 0, np.zeros((6, 2)), RNG.random((2, 5))

test_discretize_of_degenerate_vectors = bad_input(
    lambda make, data: discretize(make(data), random_state=0),
    given("zero", ZERO, own(CONVERGE)),
    given("wide", WIDE, strict(SAME)),
    # Rows of zeros, which are in none of the clusters, have one label.
    given("bool", BOOL, strict(Gives(lambda labels: grouped(to_numpy(labels), 1, 1, 1, 3)))),
)


def grouped(labels: np.ndarray, *sizes: int) -> bool:
    """Say whether the labels within each group of rows are equal."""
    groups = np.split(labels, np.cumsum(sizes)[:-1])
    return all((group == group[0]).all() for group in groups)


def components(sizes: list[int]) -> np.ndarray:
    return scipy.linalg.block_diag(*(np.ones((n, n)) for n in sizes))


# More components than clusters, and nodes without an edge.
@pytest.mark.filterwarnings("ignore:Graph is not fully connected")
@parametrize("sizes", [[6, 6], [12, 12, 12], [15, 15, 1, 1], [9, 8, 7, 6, 5]])
@parametrize("labels", ["kmeans", "discretize", "cluster_qr"])
@parametrize("kind", OWN)
def test_components_are_not_split(kind: str, labels: str, sizes: list[int]) -> None:
    options = {"n_clusters": 2, "assign_labels": labels, "random_state": 0}
    found = spectral_clustering(OWN[kind](components(sizes)), **options)
    assert grouped(to_numpy(found), *sizes)
    assert np.unique(to_numpy(found)).tolist() == [0, 1]


def in_one_cluster(labels: Any) -> bool:
    # The numbers of clusters are arbitrary where the data are degenerate.
    found = to_numpy(labels)
    return bool(np.equal.outer(found, found).tolist() == np.ones((6, 6)).tolist())


test_cluster_qr_of_degenerate_vectors = bad_input(
    lambda make, data: cluster_qr(make(data)),
    table({"bool": BOOL, "zero": ZERO}, strict(SAME)),
    # More clusters than pixels.
    given("wide", WIDE, strict(Raises(ValueError, "matmul|not aligned"))),
    given("rank_1", np.ones((6, 3)), strict(Same(of=in_one_cluster))),
)
