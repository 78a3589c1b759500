"""Calls of SciPy's patched functions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy._lib._array_api
import scipy.linalg
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
    Column,
    graph,
    image,
    pick,
    sparse,
)
from tests.forks.verdicts import (
    CUDA_ERROR,
    OTHERS,
    SAME,
    Expected,
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
    from _pytest.mark.structures import ParameterSet

parametrize = pytest.mark.parametrize
SPARSE = frozenset({"numpy", "cupy"})

# connected_components


BOTH = [False, True]
test_connected_components = calls(
    "scipy.sparse.csgraph.connected_components",
    "scipy/0030",
    each(
        dtype=["int64", *FLOATS],
        density=[0.0, 0.04, 0.3],
        directed=BOTH,
        connection=["weak", "strong"],
        return_labels=BOTH,
    ),
    compiled=True,
)(
    lambda a, dtype, density, **options: connected_components(
        a(np.triu(graph(30, dtype, density))), **options
    )
)


@each()
@calls("scipy.sparse.csgraph.connected_components", "scipy/0030", compiled=True)
def test_connected_components_of_edges_that_are_not_finite(a: Column) -> Any:
    edges = graph(12, density=0.1)
    edges[0, 1], edges[2, 3] = np.inf, np.nan
    return connected_components(a(edges))


test_connected_components_of_sparse = calls(
    "scipy.sparse.csgraph.connected_components, sparse",
    "scipy/0030 cupy/0040",
    each(kind=["csr", "coo", "csc"], density=[0.02, 0.2]),
    only=SPARSE,
)(lambda a, kind, density: connected_components(a.sparse(sparse(graph(40, density=density), kind))))

HOST = Raises(TypeError, "can't be read as a NumPy array: .*Supported are NumPy arrays")
TWO_D = Raises(ValueError, "graph should have two dimensions")
SQUARE = Raises(ValueError, "graph should be a square array")
N_N = Raises(ValueError, r"graph must be shape \(N, N\)")

GRAPHS = {
    "disconnected": TWO_COMPONENTS,
    "int": TWO_COMPONENTS.astype(int),
    "uint8": TWO_COMPONENTS.astype(np.uint8),
    "bool": TWO_COMPONENTS > 0,
    "empty": np.zeros((0, 0)),
    "nan": np.where(TWO_COMPONENTS > 1, np.nan, TWO_COMPONENTS),
    "negative": -TWO_COMPONENTS,
    "no_edges": np.zeros((3, 3)),
}
CUPYX = Raises((*NO_GPU, RuntimeError), f"{NO_GPU_MATCH}|pylibcugraph")
test_what_has_components = bad_input(
    lambda make, data, options: connected_components(make(data), **options),
    table(GRAPHS, {"cpu": SAME, "device1": HOST, "cupy": CUDA_ERROR, "cupyx": CUPYX}),
    options=[{}, {"directed": False}, {"connection": "strong"}],
)
test_what_has_no_components = bad_input(
    lambda make, data: connected_components(make(data)),
    table(pick(DATA, "0d 1d 3d 4d"), own(TWO_D, "cupy") | {"device1": HOST}),
    given(
        "not_square",
        np.ones((2, 3)),
        own(SQUARE, "cupy") | {"device1": HOST, "cupyx": N_N, "scipy": N_N},
    ),
)


@parametrize("layout", ["torch.strided", "Layout(major_to_minor=(0, 1))", None])
def test_layouts_of_dense_arrays(monkeypatch: pytest.MonkeyPatch, layout: str | None) -> None:
    # JAX's arrays have one as well.
    rows = KINDS["cpu"](TWO_COMPONENTS)
    monkeypatch.setattr(type(rows), "layout", layout, raising=False)
    assert connected_components(rows, return_labels=False) == 2
    assert laplacian(rows).shape == (4, 4)


# laplacian


@each(
    dtype=["int64", "float32", "float64", "complex128"],
    normed=[False, True],
    use_out_degree=[False, True],
    symmetrized=[False, True],
    form=["array", "function", "lo"],
)
@calls("scipy.sparse.csgraph.laplacian", "scipy/0050", rtol=1e-12)
def test_laplacian(a: Column, dtype: str, form: str, **options: Any) -> Any:
    weights = np.triu(graph(14, dtype)) + graph(14, dtype)
    result, diagonal = laplacian(a(weights), return_diag=True, form=form, **options)
    if form == "array":
        return result, diagonal
    # The standard doesn't mix integers and floating point.
    kind = np.result_type(dtype, "float32") if options["normed"] else dtype
    unit = a(np.eye(14, dtype=kind))
    return (result(unit) if form == "function" else result.matmat(unit)), diagonal


test_laplacian_of_sparse = calls(
    "scipy.sparse.csgraph.laplacian, sparse",
    "scipy/0050",
    each(kind=["csr", "coo"], normed=[False, True], symmetrized=[False, True]),
    only=SPARSE,
    rtol=1e-12,
)(lambda a, kind, **options: laplacian(a.sparse(sparse(graph(30), kind)), **options))

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


def applied(make: Callable[[Any], Any], data: Any, options: dict[str, Any]) -> Any:
    """Return a Laplacian, or what it makes of two vectors."""
    result = laplacian(make(data), **options)
    form = options.get("form")
    if form and 0 in data.shape:
        return laplacian(make(data))
    if form:
        vectors = make(np.arange(2.0 * data.shape[0]).reshape(-1, 2))
        return result(vectors) if form == "function" else result @ vectors
    return result


test_what_has_a_laplacian = bad_input(
    applied,
    table(
        pick(GRAPHS, "disconnected empty nan negative no_edges"),
        strict(Same(1e-12)) | {"cupy": CUDA_ERROR, "cupyx": CUDA_ERROR},
    ),
    given("not_square", np.ones((2, 3)), own(NOT_SQUARE, "cupy", "scipy", "cupyx")),
    table(pick(DATA, "0d 1d 3d"), own(NOT_SQUARE, "cupy")),
    given("bool", TWO_COMPONENTS > 0, strict(HOLD, "cupy", "cupyx")),
    options=[*ARRAY_FORMS, {"form": "lo"}, {"form": "function"}],
)
test_laplacian_of_other_dtypes = bad_input(
    lambda make, data, options: laplacian(make(data), **options),
    given("bool", TWO_COMPONENTS > 0, only(CAST, "np", "scipy")),
    given("int", TWO_COMPONENTS.astype(int), strict(SAME)),
    options=ARRAY_FORMS,
)
test_laplacian_that_does_not_fit_its_dtype = bad_input(
    lambda make, data, options: laplacian(make(data), **options),
    given(
        "uint8",
        TWO_COMPONENTS.astype(np.uint8),
        strict(HOLD, "cupy") | {"np": OVERFLOW, "scipy": OVERFLOW},
    ),
    options=[o for o in ARRAY_FORMS if "normed" not in o],
)
test_laplacian_of_a_dtype_that_is_asked_for = bad_input(
    lambda make, data: laplacian(make(data[0]), dtype=data[1]),
    given("numpy", (TWO_COMPONENTS, np.float32), strict(SAME)),
    given(
        "no equivalent",
        (TWO_COMPONENTS, "U3"),
        strict(Raises(TypeError, "dtype U3 has no equivalent")),
    ),
)
test_laplacian_of_a_dtype_of_its_namespace = bad_input(
    lambda make, data: laplacian(make(data), dtype=make(np.zeros(1, np.float32)).dtype),
    given("float32", TWO_COMPONENTS, strict(SAME)),
)
test_laplacian_of_another_form = bad_input(
    lambda make, data: laplacian(make(data), form="matrix"),
    given("matrix", TWO_COMPONENTS, own(Raises(ValueError, "Invalid form: 'matrix'"))),
)


def product(form: str, matrix: Any, vectors: Any) -> Any:
    operator = laplacian(matrix, form=form)
    return operator(vectors) if form == "function" else operator @ vectors


test_a_laplacian_refuses_vectors_of_another_library_or_device = mixed(
    lambda one, other, form: product(form, one(TWO_COMPONENTS), other(np.ones((4, 1)))),
    mixtures(OWN, OWN),
    # What NumPy tries first decides who refuses: array-api-strict does not let itself be copied.
    Raises(
        (TypeError, ValueError, RuntimeError),
        "namespaces|Expected Array|two different dev|Can't convert array on",
    ),
    form=["function", "lo"],
)


# lobpcg


def symmetric(n: int, dtype: str) -> np.ndarray:
    """Return a symmetric positive definite matrix with separate eigenvalues."""
    basis = np.linalg.qr(np.random.default_rng(n).standard_normal((n, n)))[0]
    return ((basis * np.linspace(1, 3, n) ** 2) @ basis.T).astype(dtype)


@each(n=[12, 40], largest=[False, True], operator=["array", "callable"], extra=[None, *"BMY"])
@calls("scipy.sparse.linalg.lobpcg", "scipy/0040", rtol=1e-5)
def test_lobpcg(a: Column, n: int, operator: str, extra: str | None, *, largest: bool) -> Any:
    end = slice(-2, None) if largest else slice(2)
    extras = {
        "B": np.diag(np.linspace(1, 2, n)),
        "M": np.diag(1 / np.linspace(1, 9, n)),
        "Y": np.linalg.eigh(symmetric(n, "float64"))[1][:, end],
    }
    matrix = a(symmetric(n, "float64"))
    start = a(np.random.default_rng(n).standard_normal((n, 3)))
    product = (lambda x: matrix @ x) if operator == "callable" else matrix
    options = {"tol": 1e-8, "maxiter": 300} | ({extra: a(extras[extra])} if extra else {})
    values, vectors = lobpcg(product, start, largest=largest, **options)
    # Eigenvectors have no sign.
    return values, a.xp.abs(vectors)


# Vectors of float32 that are nearly right: where the residuals are float32, too, the precision of
# these decides how the small problem is made.
test_lobpcg_of_several_dtypes = calls(
    "scipy.sparse.linalg.lobpcg",
    "scipy/0040",
    each(n=[30, 40], preconditioner=FLOATS, scale=[0, 1e-6]),
    only=frozenset({"numpy"}),
)(
    lambda a, n, preconditioner, scale: lobpcg(
        a(symmetric(n, "float64")),
        a(np.linalg.eigh(symmetric(n, "float64"))[1][:, :3] + scale).astype("float32"),
        M=lambda v: v.astype(preconditioner),
        largest=False,
        tol=1e-12,
        maxiter=5,
    )
)

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


@parametrize("of", OWN)
def test_lobpcg_returns_its_histories_and_has_a_tolerance(of: str) -> None:
    a = OWN[of]
    options = {"retLambdaHistory": True, "retResidualNormsHistory": True, "maxiter": 200}
    values, _, *histories = lobpcg(a(OPERATOR), a(VECTORS), **options)
    for history in histories:
        assert {a.mismatch(row) for row in history} == {None}
    np.testing.assert_array_equal(a.to_numpy(histories[0][-1]), a.to_numpy(values))
    # The default, which grows with the number of rows.
    assert np.max(a.to_numpy(histories[1][-1])) <= np.sqrt(np.finfo(float).eps) * N


def test_lobpcg_refuses_sparse_constraints() -> None:
    with pytest.raises(ValueError, match="Sparse arrays/matrices are not supported"):
        solve(OPERATOR, VECTORS.copy(), Y=sp.csr_array(np.eye(N, 2)))


@parametrize("module", ["cupy", "cupyx.scipy.sparse", "cupyx.scipy.sparse.linalg"])
@parametrize("found", ["empty", "none"])
def test_solvers_of_numpy_arrays_while_a_thread_imports_cupy(
    monkeypatch: pytest.MonkeyPatch, module: str, found: str
) -> None:
    monkeypatch.setitem(sys.modules, module, ModuleType(module) if found == "empty" else None)
    matrix = sp.csr_array(OPERATOR)
    for sigma in (np.float32(0), 0, 0.5):
        assert eigsh(matrix, 2, sigma=sigma, v0=VECTORS[:, 0].copy())[0].shape == (2,)
    assert solve(matrix, VECTORS.copy(), B=sp.eye_array(N), M=sp.eye_array(N)).shape == (3,)


@parametrize("of", ["cpu", "device1"])
def test_lobpcg_refuses_callables_that_change_dtype_or_shape(of: str) -> None:
    a = OWN[of]
    with pytest.raises(TypeError, match=r"^A applied to an array of dtype .*float32 returned"):
        lobpcg(lambda v: a(np.ones(v.shape)), a(VECTORS.astype(np.float32)))
    with pytest.raises(ValueError, match="shape of the primary or secondary matrix is wrong"):
        lobpcg(lambda v: a(np.ones((6, v.shape[1]))), a(VECTORS[:5]))


test_lobpcg_of_other_vectors = bad_input(
    lambda make, data: solve(make(OPERATOR), make(data)),
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

PROMOTED = strict(Raises(TypeError, "^A has dtype .*; .* floating point dtype is required"))

test_lobpcg_of_other_operators = bad_input(
    lambda make, data: solve(make(data), make(VECTORS)),
    given("1d", np.ones(N), own(Raises(ValueError, "shape .* not preserved"))),
    table(
        {"short": OPERATOR[:-1, :-1], "not_square": OPERATOR[:, :-1], "empty": np.zeros((0, 0))},
        own(MISMATCH),
    ),
    given("nan", np.full((N, N), np.nan), own(Raises(ValueError, "eigh has failed|converge"))),
    table({"int": OPERATOR.astype(int), "bool": OPERATOR > 0}, PROMOTED | {"np": SAME}),
)
test_lobpcg_of_other_constraints = bad_input(
    lambda make, data: solve(make(OPERATOR), make(VECTORS), Y=make(data)),
    given("short", np.ones((N - 1, 2)), strict(MISMATCH)),
    given("int", np.eye(N, 2, dtype=int), strict(Raises(TypeError, "^Y has dtype .*int64"))),
    given("nan", np.full((N, 2), np.nan), strict(DEPENDENT)),
)


# eigsh

test_eigsh = calls(
    "scipy.sparse.linalg.eigsh",
    "scipy/0060",
    each(which=["LM", "SA", "BE"], sigma=[None, 0.5]),
    refuses=OTHERS,
)(lambda a, **options: eigsh(a(symmetric(30, "float64")), 4, v0=np.ones(30), **options))


@each(kind=["csr", "csc"], sigma=[-0.1, 0.5])
@calls(
    "scipy.sparse.linalg.eigsh, shift-invert, sparse",
    "scipy/0060 cupy/0030",
    rtol=1e-8,
    only=SPARSE,
)
def test_eigsh_of_sparse(a: Column, kind: str, sigma: float) -> Any:
    matrix = sp.csr_array(symmetric(30, "float64")).asformat(kind)
    # Without v0 ARPACK starts from a random vector.
    options = {"sigma": sigma, "return_eigenvectors": False}
    return eigsh(a.sparse(matrix), 4, v0=a(np.ones(30)), **options)


def other(name: str) -> Raises:
    return Raises(
        TypeError,
        "eigsh takes NumPy arrays and operators, or CuPy arrays and operators, but not "
        f"both.*`{name}` of type .*lobpcg",
    )


CUPY_KINDS = {"A": (), "v0": ("cupy",), "sigma": ("cupy",)}
ARGUMENTS = dict.fromkeys(("A", "M", "Minv", "OPinv"), OPERATOR) | {"v0": OPERATOR[0], "sigma": 0.1}
test_eigsh_refuses_arguments_of_other_types = bad_input(
    lambda make, data: eigsh(k=2, **{"A": OPERATOR, "sigma": 0.1} | {data[0]: make(data[1])}),
    *(
        given(
            name,
            (name, value),
            strict(other(name), *CUPY_KINDS.get(name, ("cupy", "cupyx"))),
        )
        for name, value in ARGUMENTS.items()
    ),
)
test_eigsh_of_cupy_refuses_a_start_of_other_types = bad_input(
    lambda make, data, of: eigsh(make(data), k=2, sigma=0.1, v0=KINDS[of](OPERATOR[0])),
    given("v0", OPERATOR, only(other("v0"), "cupy", "cupyx")),
    of=[*OWN],
)
SHIFT_INVERT = Raises(TypeError, "in shift-invert mode only")
MODE = Raises(TypeError, "in shift-invert mode only.*lobpcg")

test_eigsh_without_a_shift = bad_input(
    lambda make, data: eigsh(make(data), k=2),
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
test_eigsh_with_a_shift = bad_input(
    lambda make, data: eigsh(make(data), k=2, sigma=0.1),
    given("sigma", OPERATOR, only(CUDA_ERROR, "cupy", "cupyx")),
)
test_eigsh_with_the_inverse = bad_input(
    lambda make, data: eigsh(make(data), k=2, sigma=0.1, OPinv=make(data)),
    given("OPinv", OPERATOR, only(CUDA_ERROR, "cupy", "cupyx")),
)
test_eigsh_of_an_operator_refuses_a_start_of_other_types = bad_input(
    lambda make, data: eigsh(aslinearoperator(OPERATOR), k=2, v0=make(data)),
    given("v0", OPERATOR[0], strict(other("v0"), "cupy")),
)


# getdata and the constructors of sparse arrays


def test_numpys_sparse_arrays_are_scipys() -> None:
    # Unpatched releases import these modules, too, and lack it.
    assert scipy._lib._array_api.sparse_namespace(np) is sp


@each(kind=["coo_array", "coo_matrix", "bsr_array", "bsr_matrix"], dtype=["int64", *FLOATS])
@calls("scipy.sparse.coo_array, bsr_array with data", "scipy/0020", only=frozenset({"numpy"}))
def test_sparse_arrays_with_data(a: Column, kind: str, dtype: str) -> Any:
    data: Any
    places: Any
    if kind.startswith("coo"):
        data = np.arange(1, 7, dtype=dtype)
        places = ((np.arange(6), np.arange(6) // 2),)
    else:
        data = np.arange(1, 13, dtype=dtype).reshape(3, 2, 2)
        places = np.array([0, 2, 1]), np.array([0, 1, 2, 3])
    return getattr(sp, kind)((a(data), *places), shape=(6, 6))


test_getdata = bad_input(
    lambda make, data, copy: getdata(make(data), copy=copy),
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
    ),
    copy=[None, True],
)
test_getdata_of_another_dtype = bad_input(
    lambda make, options: getdata(make(np.ones(3)), np.float32, **options),
    given("copy", {"copy": None}, strict(SAME)),
    given("no_copy", {"copy": False}, own(Raises(ValueError, "Unable to avoid copy"))),
)

# The containers hold NumPy arrays: each format converts what NumPy can, as unpatched.
FORMATS = [sp.bsr_array, sp.coo_array, sp.csc_array, sp.csr_array, sp.dia_array, sp.dok_array]
PARTS: list[tuple[Any, Any]] = [
    (sp.bsr_array, (np.ones((2, 1, 1)), np.arange(2), np.arange(3))),
    (sp.coo_array, (np.ones(2), (np.arange(2), np.arange(2)))),
    (sp.coo_matrix, (np.ones(2), (np.arange(2), np.arange(2)))),
    (sp.csc_array, (np.ones(2), np.arange(2), np.arange(3))),
    (sp.csr_array, (np.ones(2), np.arange(2), np.arange(3))),
    (sp.dia_array, (np.ones((1, 2)), np.zeros(1, dtype=int))),
]
NOT_CONVERTED = Raises((RuntimeError, TypeError, ValueError), "device1|onstructor|Invalid input")


def converted(expected: np.ndarray) -> Expected:
    """Expect a sparse array of NumPy arrays, or that NumPy can't convert the argument."""

    def check(matrix: Any) -> None:
        assert type(matrix.tocoo().data) is np.ndarray
        np.testing.assert_array_equal(matrix.toarray(), expected)

    return {"np": Gives(check), "cpu": Gives(check), "device1": NOT_CONVERTED}


def made(make: Any, part: Any) -> Any:
    return tuple(made(make, p) for p in part) if isinstance(part, tuple) else make(part)


test_each_format_converts_a_dense_array = bad_input(
    lambda make, data, cls: cls(make(data)),
    given("dense", TWO_COMPONENTS, converted(TWO_COMPONENTS)),
    cls=FORMATS,
)
test_each_format_converts_its_parts = bad_input(
    lambda make, _, of: of[0](made(make, of[1]), shape=(2, 2)),
    given("parts", None, converted(np.eye(2))),
    of=PARTS,
)
test_each_format_converts_each_part = bad_input(
    lambda make, _, of: of[0]((of[1][0], made(make, of[1][1]), *of[1][2:]), shape=(2, 2)),
    given("indices", None, converted(np.eye(2))),
    of=PARTS,
)
BLOCKS = scipy.linalg.block_diag(TWO_COMPONENTS, TWO_COMPONENTS)
test_blocks_are_converted = bad_input(
    lambda make, data, cls: cls([[make(data), None], [None, make(data)]]),
    given("blocks", TWO_COMPONENTS, converted(BLOCKS)),
    cls=[sp.block_array, sp.bmat],
)
test_stacks_and_products_are_converted = bad_input(
    lambda make, data, of: of(make(data)),
    given("dense", TWO_COMPONENTS, converted(BLOCKS)),
    of=[
        lambda a: sp.kron(np.eye(2), a),
        lambda a: sp.vstack([sp.hstack([a, sp.coo_array((4, 4))]), sp.coo_array(BLOCKS[4:])]),
    ],
)


# No patch: what the patched functions of scikit-image stand on

test_gaussian_filter = calls(
    "scipy.ndimage.gaussian_filter", "", each(dtype=FLOATS, sigma=[1, 3]), compiled=True
)(lambda a, dtype, sigma: scipy.ndimage.gaussian_filter(a(image(dtype)), sigma))

test_zoom = calls("scipy.ndimage.zoom", "", each(dtype=FLOATS, order=[0, 1, 3]), compiled=True)(
    lambda a, dtype, order: scipy.ndimage.zoom(a(image(dtype)), 0.7, order=order)
)
test_filters_of_cuda_tensors = calls(
    "scipy.ndimage.gaussian_filter, zoom of PyTorch's CUDA tensors",
    "scipy/0070",
    each(name=["gaussian_filter", "zoom"], dtype=FLOATS),
    rtol=1e-5,
    only=frozenset({"numpy", "torch-cuda"}),
)(lambda a, name, dtype: getattr(scipy.ndimage, name)(a(image(dtype)), 2))
test_gaussian_filter_of_the_deprecated_namespace = calls(
    "scipy.ndimage.filters.gaussian_filter",
    "scipy/0080",
    each(dtype=FLOATS),
    # There the error is the library's own, as for scipy.ndimage itself.
    only=frozenset({"numpy"}) | OTHERS - {"strict-device1"},
)(lambda a, dtype: scipy.ndimage.filters.gaussian_filter(a(image(dtype)), 2))
