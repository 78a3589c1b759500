"""Calls of SciPy's patched functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.ndimage
import scipy.sparse as sp
from scipy.sparse._sputils import getdata
from scipy.sparse.csgraph import connected_components, laplacian
from scipy.sparse.linalg import aslinearoperator, eigsh, lobpcg

from tests.forks.columns import (
    DATA,
    FLOATS,
    KINDS,
    NO_GPU,
    NO_GPU_MATCH,
    OWN,
    TWO_COMPONENTS,
    graph,
    image,
)
from tests.forks.verdicts import (
    CUDA_ERROR,
    OTHERS,
    SAME,
    Raises,
    Same,
    calls,
    each,
    given,
    grid,
    inputs,
    mixtures,
    only,
    own,
    strict,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from _pytest.mark.structures import ParameterSet

    from tests.forks.verdicts import Compare, Given

parametrize = pytest.mark.parametrize
SPARSE = frozenset({"numpy", "cupy"})
NAN_EDGE = np.where(TWO_COMPONENTS > 1, np.nan, TWO_COMPONENTS)

# connected_components


@calls("scipy.sparse.csgraph.connected_components", "scipy/0030", compiled=True)
@each(
    dtype=["int64", *FLOATS],
    density=[0.0, 0.04, 0.3],
    options=grid(
        directed=[False, True], connection=["weak", "strong"], return_labels=[False, True]
    ),
)
def test_connected_components(
    compare: Compare, dtype: str, density: float, options: dict[str, Any]
) -> None:
    edges = np.triu(graph(30, dtype, density))
    compare(lambda a: connected_components(a(edges), **options))


@calls("scipy.sparse.csgraph.connected_components", "scipy/0030", compiled=True)
@each()
def test_connected_components_of_edges_that_are_not_finite(compare: Compare) -> None:
    edges = graph(12, density=0.1)
    edges[0, 1], edges[2, 3] = np.inf, np.nan
    compare(lambda a: connected_components(a(edges)))


@calls("scipy.sparse.csgraph.connected_components, sparse", "scipy/0030", "cupy/0040", only=SPARSE)
@each(kind=["csr", "coo", "csc"], density=[0.02, 0.2])
def test_connected_components_of_sparse(compare: Compare, kind: str, density: float) -> None:
    edges = sp.coo_array(graph(40, "float64", density)).asformat(kind)
    compare(lambda a: connected_components(a.sparse(edges)))


HOST = Raises(TypeError, "can't be read as a NumPy array: .*Supported are NumPy arrays")
TWO_D = Raises(ValueError, "graph should have two dimensions")
SQUARE = Raises(ValueError, "graph should be a square array")
N_N = Raises(ValueError, r"graph must be shape \(N, N\)")


@parametrize("options", [{}, {"directed": False}, {"connection": "strong"}])
@inputs(
    table(
        {
            "disconnected": TWO_COMPONENTS,
            "int": TWO_COMPONENTS.astype(int),
            "uint8": TWO_COMPONENTS.astype(np.uint8),
            "bool": TWO_COMPONENTS > 0,
            "empty": np.zeros((0, 0)),
            "nan": NAN_EDGE,
            "negative": -TWO_COMPONENTS,
            "no_edges": np.zeros((3, 3)),
        },
        {
            "cpu": SAME,
            "device1": HOST,
            "cupy": CUDA_ERROR,
            "cupyx": Raises((*NO_GPU, RuntimeError), f"{NO_GPU_MATCH}|pylibcugraph"),
        },
    )
)
def test_what_has_components(given: Given, options: dict[str, Any]) -> None:
    given.check(lambda make, data: connected_components(make(data), **options))


@inputs(
    table({k: DATA[k] for k in ("0d", "1d", "3d", "4d")}, own(TWO_D, "cupy") | {"device1": HOST}),
    given(
        "not_square",
        np.ones((2, 3)),
        own(SQUARE, "cupy") | {"device1": HOST, "cupyx": N_N, "scipy": N_N},
    ),
)
def test_what_has_no_components(given: Given) -> None:
    given.check(lambda make, data: connected_components(make(data)))


# laplacian


@calls("scipy.sparse.csgraph.laplacian", "scipy/0050", rtol=1e-12)
@each(
    dtype=["int64", "float32", "float64", "complex128"],
    options=grid(normed=[False, True], use_out_degree=[False, True], symmetrized=[False, True]),
    form=["array", "function", "lo"],
)
def test_laplacian(compare: Compare, dtype: str, form: str, options: dict[str, Any]) -> None:
    weights = np.triu(graph(14, dtype)) + graph(14, dtype)

    def call(a: Callable[..., Any]) -> Any:
        result, diagonal = laplacian(a(weights), return_diag=True, form=form, **options)
        if form == "array":
            return result, diagonal
        # The standard doesn't mix integers and floating point.
        kind = np.result_type(dtype, "float32") if options["normed"] else dtype
        unit = a(np.eye(14, dtype=kind))
        return (result(unit) if form == "function" else result.matmat(unit)), diagonal

    compare(call)


@calls("scipy.sparse.csgraph.laplacian, sparse", "scipy/0050", only=SPARSE, rtol=1e-12)
@each(kind=["csr", "coo"], options=grid(normed=[False, True], symmetrized=[False, True]))
def test_laplacian_of_sparse(compare: Compare, kind: str, options: dict[str, Any]) -> None:
    weights = sp.coo_array(graph(30)).asformat(kind)
    compare(lambda a: laplacian(a.sparse(weights), **options))


NOT_SQUARE = Raises(ValueError, "csgraph must be a square matrix or array")
HOLD = Raises(TypeError, "csgraph has dtype .*can't hold its Laplacian")
CAST = Raises(TypeError, "Cannot cast ufunc")
OVERFLOW = Raises(OverflowError, "out of bounds for uint8")
ARRAY_FORMS: list[dict[str, Any]] = [
    {},
    {"normed": True},
    {"symmetrized": True},
    {"use_out_degree": True, "return_diag": True},
]


@parametrize("options", [*ARRAY_FORMS, {"form": "lo"}, {"form": "function"}])
@inputs(
    table(
        {
            "disconnected": TWO_COMPONENTS,
            "empty": np.zeros((0, 0)),
            "nan": NAN_EDGE,
            "negative": -TWO_COMPONENTS,
            "no_edges": np.zeros((3, 3)),
        },
        strict(Same(1e-12)) | {"cupy": CUDA_ERROR, "cupyx": CUDA_ERROR},
    ),
    given("not_square", np.ones((2, 3)), own(NOT_SQUARE, "cupy", "scipy", "cupyx")),
    table({k: DATA[k] for k in ("0d", "1d", "3d")}, own(NOT_SQUARE, "cupy")),
    given("bool", TWO_COMPONENTS > 0, strict(HOLD, "cupy", "cupyx")),
)
def test_what_has_a_laplacian(given: Given, options: dict[str, Any]) -> None:
    def call(make: Callable[[Any], Any], data: Any) -> Any:
        result = laplacian(make(data), **options)
        form = options.get("form")
        if form and 0 in data.shape:
            return laplacian(make(data))
        if form:
            vectors = make(np.arange(2.0 * data.shape[0]).reshape(-1, 2))
            return result(vectors) if form == "function" else result @ vectors
        return result

    given.check(call)


@parametrize("options", ARRAY_FORMS)
@inputs(
    given("bool", TWO_COMPONENTS > 0, only(CAST, "np", "scipy")),
    given("int", TWO_COMPONENTS.astype(int), strict(SAME)),
)
def test_laplacian_of_other_dtypes(given: Given, options: dict[str, Any]) -> None:
    given.check(lambda make, data: laplacian(make(data), **options))


@parametrize("options", [o for o in ARRAY_FORMS if "normed" not in o])
@inputs(
    given(
        "uint8",
        TWO_COMPONENTS.astype(np.uint8),
        strict(HOLD, "cupy") | {"np": OVERFLOW, "scipy": OVERFLOW},
    )
)
def test_laplacian_that_does_not_fit_its_dtype(given: Given, options: dict[str, Any]) -> None:
    given.check(lambda make, data: laplacian(make(data), **options))


@inputs(
    given("numpy", (TWO_COMPONENTS, np.float32), strict(SAME)),
    given(
        "no equivalent",
        (TWO_COMPONENTS, "U3"),
        strict(Raises(TypeError, "dtype U3 has no equivalent")),
    ),
)
def test_laplacian_of_a_dtype_that_is_asked_for(given: Given) -> None:
    given.check(lambda make, data: laplacian(make(data[0]), dtype=data[1]))


@parametrize("form", ["function", "lo"])
@parametrize(("of", "kind"), mixtures(OWN, OWN))
def test_a_laplacian_refuses_vectors_of_another_library_or_device(
    of: str, kind: str, form: str
) -> None:
    product = laplacian(KINDS[of](TWO_COMPONENTS), form=form)
    vectors = KINDS[kind](np.ones((4, 1)))
    # What NumPy tries first decides who refuses: array-api-strict does not let itself be copied.
    match = "namespaces|Expected Array|two different dev|Can't convert array on"
    with pytest.raises((TypeError, ValueError, RuntimeError), match=match):
        product(vectors) if form == "function" else product @ vectors


# lobpcg


def symmetric(n: int, dtype: str) -> np.ndarray:
    """Return a symmetric positive definite matrix with separate eigenvalues."""
    basis = np.linalg.qr(np.random.default_rng(n).standard_normal((n, n)))[0]
    return ((basis * np.linspace(1, 3, n) ** 2) @ basis.T).astype(dtype)


@calls("scipy.sparse.linalg.lobpcg", "scipy/0040", rtol=1e-5)
@each(n=[12, 40], largest=[False, True], operator=["array", "callable"], extra=[None, *"BMY"])
def test_lobpcg(
    compare: Compare, n: int, operator: str, extra: str | None, *, largest: bool
) -> None:
    end = slice(-2, None) if largest else slice(2)
    extras = {
        "B": np.diag(np.linspace(1, 2, n)),
        "M": np.diag(1 / np.linspace(1, 9, n)),
        "Y": np.linalg.eigh(symmetric(n, "float64"))[1][:, end],
    }

    def call(a: Any) -> Any:
        matrix = a(symmetric(n, "float64"))
        start = a(np.random.default_rng(n).standard_normal((n, 3)))
        product = (lambda x: matrix @ x) if operator == "callable" else matrix
        options = {"tol": 1e-8, "maxiter": 300} | ({extra: a(extras[extra])} if extra else {})
        values, vectors = lobpcg(product, start, largest=largest, **options)
        # Eigenvectors have no sign.
        return values, a.xp.abs(vectors)

    compare(call)


N = 30
RNG = np.random.default_rng(0)
OPERATOR = np.diag(np.arange(1.0, N + 1)) + np.eye(N, k=1) + np.eye(N, k=-1)
VECTORS = RNG.standard_normal((N, 3))
MISMATCH = Raises(ValueError, "mismatch in its core dimension")
DEPENDENT = Raises(ValueError, "NaN|Linearly dependent")


def solve(a: Any, x: Any, **options: Any) -> Any:
    return lobpcg(a, x, maxiter=60, tol=1e-6, **options)[0]


def other_operators() -> list[ParameterSet]:
    """Return what lobpcg refuses: a kind of its vectors, and another of one of its operators."""
    rows = []
    for parameter in mixtures(OWN, (*KINDS, "operator")):
        of, kind = parameter.values
        if of == "np" and kind in {"scipy", "operator"}:
            continue
        names = "ABM" if kind in {"scipy", "cupyx", "operator"} else "ABMY"
        rows += [pytest.param(of, kind, name, marks=parameter.marks) for name in names]
    return rows


@parametrize(("of", "kind", "name"), other_operators())
def test_lobpcg_refuses_operators_of_other_types(of: str, kind: str, name: str) -> None:
    value = OPERATOR[:, :2] if name == "Y" else OPERATOR
    other = aslinearoperator(value) if kind == "operator" else KINDS[kind](value)
    operators = {"A": KINDS[of](OPERATOR)} | {name: other}
    devices = {of, kind} == {"cpu", "device1"}
    match = rf"^{name} is on device .* but X on" if devices else rf"^{name} is of type"
    with pytest.raises(TypeError, match=f"(?s){match}"):
        solve(operators.pop("A"), KINDS[of](VECTORS), **operators)


@parametrize("name", "ABM")
@parametrize("of", ["cpu", "device1"])
def test_lobpcg_refuses_callables_that_return_other_types(of: str, name: str) -> None:
    operators = {"A": KINDS[of](OPERATOR)} | {name: lambda v: np.ones(v.shape)}
    with pytest.raises(TypeError, match=f"(?s)^{name} applied to .*ndarray"):
        solve(operators.pop("A"), KINDS[of](VECTORS), **operators)


@inputs(
    given("1d", VECTORS[:, 0], own(Raises(ValueError, "expected rank-2 array for argu"))),
    given("empty", np.zeros((N, 0)), own(Raises(ValueError, "zero-size array"))),
    table({"0x0": np.zeros((0, 0)), "short": VECTORS[:-1]}, own(MISMATCH)),
    given("nan", np.full((N, 3), np.nan), own(DEPENDENT)),
    given("dependent", np.ones((N, 3)), own(Raises(ValueError, "Linearly dependent initial"))),
    given("more_than_rows", RNG.standard_normal((N, N + 1)), own(Same(1e-6))),
    given("int", np.arange(3 * N).reshape(N, 3) % 7, own(Same(1e-3))),
    given("bool", np.eye(N, 3) > 0, own(Same(1e-3))),
    given("vectors", VECTORS, only(CUDA_ERROR, "cupy")),
)
def test_lobpcg_of_other_vectors(given: Given) -> None:
    given.check(lambda make, data: solve(make(OPERATOR), make(data)))


PROMOTED = strict(Raises(TypeError, "^A has dtype .*; .* floating point dtype is required"))


@inputs(
    given("1d", np.ones(N), own(Raises(ValueError, "shape .* not preserved"))),
    table(
        {"short": OPERATOR[:-1, :-1], "not_square": OPERATOR[:, :-1], "empty": np.zeros((0, 0))},
        own(MISMATCH),
    ),
    given("nan", np.full((N, N), np.nan), own(Raises(ValueError, "eigh has failed|converge"))),
    table({"int": OPERATOR.astype(int), "bool": OPERATOR > 0}, PROMOTED | {"np": SAME}),
)
def test_lobpcg_of_other_operators(given: Given) -> None:
    given.check(lambda make, data: solve(make(data), make(VECTORS)))


@inputs(
    given("short", np.ones((N - 1, 2)), strict(MISMATCH)),
    given("int", np.eye(N, 2, dtype=int), strict(Raises(TypeError, "^Y has dtype .*int64"))),
    given("nan", np.full((N, 2), np.nan), strict(DEPENDENT)),
)
def test_lobpcg_of_other_constraints(given: Given) -> None:
    given.check(lambda make, data: solve(make(OPERATOR), make(VECTORS), Y=make(data)))


# eigsh


@calls("scipy.sparse.linalg.eigsh", "scipy/0060", refuses=OTHERS)
@each(options=grid(which=["LM", "SA", "BE"], sigma=[None, 0.5]))
def test_eigsh(compare: Compare, options: dict[str, Any]) -> None:
    compare(lambda a: eigsh(a(symmetric(30, "float64")), 4, v0=np.ones(30), **options))


@calls(
    "scipy.sparse.linalg.eigsh, shift-invert, sparse",
    "scipy/0060",
    "cupy/0030",
    rtol=1e-8,
    only=SPARSE,
)
@each(kind=["csr", "csc"], sigma=[-0.1, 0.5])
def test_eigsh_of_sparse(compare: Compare, kind: str, sigma: float) -> None:
    matrix = sp.csr_array(symmetric(30, "float64")).asformat(kind)
    # Without v0 ARPACK starts from a random vector.
    options = {"sigma": sigma, "return_eigenvectors": False}
    compare(lambda a: eigsh(a.sparse(matrix), 4, v0=a(np.ones(30)), **options))


def other(name: str) -> Raises:
    return Raises(
        TypeError,
        "eigsh takes NumPy arrays and operators, or CuPy arrays and operators, but not "
        f"both.*`{name}` of type .*lobpcg",
    )


def mixed_eigsh() -> list[ParameterSet]:
    values = {"v0": OPERATOR[0], "sigma": 0.1}
    kinds = {"A": [], "v0": ["cupy"], "sigma": ["cupy"]}
    return [
        row
        for name in ("A", "M", "v0", "Minv", "OPinv", "sigma")
        for row in given(
            name,
            (name, values.get(name, OPERATOR)),
            strict(other(name), *kinds.get(name, ["cupy", "cupyx"])),
        )
    ]


@inputs(mixed_eigsh())
def test_eigsh_refuses_arguments_of_other_types(given: Given) -> None:
    def call(make: Callable[[Any], Any], data: tuple[str, Any]) -> Any:
        name, value = data
        return eigsh(k=2, **{"A": OPERATOR, "sigma": 0.1} | {name: make(value)})

    given.check(call)


@parametrize("of", OWN)
@inputs(given("v0", OPERATOR, only(other("v0"), "cupy", "cupyx")))
def test_eigsh_of_cupy_refuses_a_start_of_other_types(given: Given, of: str) -> None:
    start = KINDS[of](OPERATOR[0])
    given.check(lambda make, data: eigsh(make(data), k=2, sigma=0.1, v0=start))


SHIFT_INVERT = Raises(TypeError, "in shift-invert mode only")
MODE = Raises(TypeError, "in shift-invert mode only.*lobpcg")


@inputs(
    given("no_sigma", OPERATOR, only(MODE, "cupy", "cupyx")),
    table(
        {
            "not_square": OPERATOR[:, :-1],
            "1d": OPERATOR[0],
            "nan": OPERATOR * np.nan,
            "empty": np.zeros((0, 0)),
        },
        strict(other("A")) | {"cupy": SHIFT_INVERT},
    ),
)
def test_eigsh_without_a_shift(given: Given) -> None:
    given.check(lambda make, data: eigsh(make(data), k=2))


@inputs(given("sigma", OPERATOR, only(CUDA_ERROR, "cupy", "cupyx")))
def test_eigsh_with_a_shift(given: Given) -> None:
    given.check(lambda make, data: eigsh(make(data), k=2, sigma=0.1))


# getdata and the constructors of sparse arrays


@calls("scipy.sparse.coo_array, bsr_array with data", "scipy/0020", refuses=OTHERS)
@each(kind=["coo_array", "coo_matrix", "bsr_array", "bsr_matrix"], dtype=["int64", *FLOATS])
def test_sparse_arrays_with_data(compare: Compare, kind: str, dtype: str) -> None:
    data: Any
    places: Any
    if kind.startswith("coo"):
        data = np.arange(1, 7, dtype=dtype)
        places = ((np.arange(6), np.arange(6) // 2),)
    else:
        data = np.arange(1, 13, dtype=dtype).reshape(3, 2, 2)
        places = np.array([0, 2, 1]), np.array([0, 1, 2, 3])
    compare(lambda a: getattr(sp, kind)((a(data), *places), shape=(6, 6)))


@parametrize("copy", [None, True])
@inputs(
    table(
        {
            "float": np.ones(3),
            "int": np.ones(3, dtype=int),
            "bool": np.ones(3, dtype=bool),
            "empty": np.zeros(0),
            "nan": np.full(3, np.nan),
            "0d": np.asarray(1.0),
            "2d": np.ones((2, 2)),
        },
        own(SAME) | {"cupy": CUDA_ERROR},
    )
)
def test_getdata(given: Given, *, copy: bool | None) -> None:
    given.check(lambda make, data: getdata(make(data), copy=copy))


@inputs(
    given("copy", {"copy": None}, strict(SAME)),
    given("no_copy", {"copy": False}, own(Raises(ValueError, "Unable to avoid copy"))),
)
def test_getdata_of_another_dtype(given: Given) -> None:
    given.check(lambda make, options: getdata(make(np.ones(3)), np.float32, **options))


INDEX = np.arange(3)
COO = [sp.coo_array, sp.coo_matrix]


def refused(name: str, data: Any, *more: str) -> list[ParameterSet]:
    """Expect that a constructor refuses an argument of this name that isn't a NumPy array."""
    message = f"The {name} of a SciPy sparse array can't be an array"
    return given(name, data, strict(Raises(TypeError, message), "cupy", *more))


@parametrize("cls", [*COO, sp.csr_array, sp.csc_array, sp.bsr_array])
@inputs(refused("data", np.ones(3)))
def test_sparse_arrays_refuse_data_of_other_types(given: Given, cls: Any) -> None:
    given.check(lambda make, data: cls((make(data), (INDEX, INDEX)), shape=(3, 3)))


@parametrize("cls", [*COO, sp.csr_array, sp.csc_array, sp.bsr_array])
@inputs(refused("coords", INDEX))
def test_sparse_arrays_refuse_coordinates_of_other_types(given: Given, cls: Any) -> None:
    given.check(lambda make, index: cls((np.ones(3), (INDEX, make(index))), shape=(3, 3)))


@parametrize("cls", COO)
@inputs(refused("coords", INDEX))
def test_coo_without_a_shape_refuses_coordinates_of_other_types(given: Given, cls: Any) -> None:
    given.check(lambda make, index: cls((np.ones(3), (INDEX, make(index)))))


@parametrize("cls", COO)
@inputs(refused("coords", [INDEX, INDEX]))
def test_coo_refuses_one_array_of_coordinates_of_other_types(given: Given, cls: Any) -> None:
    given.check(lambda make, indices: cls((np.ones(3), make(indices))))


@parametrize("cls", COO)
@inputs(refused("argument", TWO_COMPONENTS, "cupyx"))
def test_coo_refuses_dense_arrays_of_other_types(given: Given, cls: Any) -> None:
    given.check(lambda make, data: cls(make(data)))


BSR = {"data": np.ones((2, 1, 1)), "indices": np.arange(2), "indptr": np.arange(3)}


@inputs(*(refused(name, name) for name in BSR))
def test_bsr_refuses_parts_of_other_types(given: Given) -> None:
    given.check(lambda make, name: sp.bsr_array(tuple((BSR | {name: make(BSR[name])}).values())))


# No patch: what the patched functions of scikit-image stand on


@calls("scipy.ndimage.gaussian_filter", compiled=True)
@each(dtype=FLOATS, sigma=[1, 3])
def test_gaussian_filter(compare: Compare, dtype: str, sigma: float) -> None:
    compare(lambda a: scipy.ndimage.gaussian_filter(a(image(dtype)), sigma))


@calls("scipy.ndimage.zoom", compiled=True)
@each(dtype=FLOATS, order=[0, 1, 3])
def test_zoom(compare: Compare, dtype: str, order: int) -> None:
    compare(lambda a: scipy.ndimage.zoom(a(image(dtype)), 0.7, order=order))


@calls(
    "scipy.ndimage.gaussian_filter, zoom of PyTorch's CUDA tensors",
    "scipy/0070",
    rtol=1e-5,
    only=frozenset({"numpy", "torch-cuda"}),
)
@each(name=["gaussian_filter", "zoom"], dtype=FLOATS)
def test_filters_of_cuda_tensors(compare: Compare, name: str, dtype: str) -> None:
    compare(lambda a: getattr(scipy.ndimage, name)(a(image(dtype)), 2))
