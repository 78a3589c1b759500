"""Bad input to every function that the four series change.

Each row is a call and what has to come of it: the exception that NumPy arrays raise in
the same place, a TypeError that names the argument, or, where NumPy arrays are taken,
the same result in the array type and on the device of the input. Nothing is converted
without a word.

`array_api_strict.Device("device1")` stands for a GPU, from which NumPy can't convert.
CuPy can be imported without a GPU, but not allocate: its arrays here are of the memory
of NumPy arrays, which no operation of CuPy can touch, so that each raises
CUDARuntimeError, or ImportError where it needs a CUDA library.
"""

import os

os.environ["SCIPY_ARRAY_API"] = "1"

import array_api_strict as strict  # noqa: E402
import cupy  # noqa: E402
import cupyx.scipy.sparse as cupyx_sparse  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import sklearn  # noqa: E402
from scipy import sparse  # noqa: E402
from scipy.sparse._sputils import getdata  # noqa: E402
from scipy.sparse.csgraph import connected_components, laplacian  # noqa: E402
from scipy.sparse.linalg import aslinearoperator, eigsh, lobpcg  # noqa: E402
from skimage import filters, transform  # noqa: E402
from skimage.util import img_as_float, img_as_float32, img_as_float64  # noqa: E402
from sklearn.cluster._spectral import cluster_qr, discretize  # noqa: E402
from sklearn.feature_extraction.image import grid_to_graph, img_to_graph  # noqa: E402
from sklearn.manifold import spectral_embedding  # noqa: E402
from sklearn.utils import check_array  # noqa: E402

CPU, DEVICE1 = strict.Device("CPU_DEVICE"), strict.Device("device1")

try:
    cupy.cuda.runtime.getDeviceCount()
    HAS_GPU = True
except cupy.cuda.runtime.CUDARuntimeError:
    HAS_GPU = False

no_gpu = pytest.mark.skipif(HAS_GPU, reason="of a process without a GPU")
NO_GPU = (cupy.cuda.runtime.CUDARuntimeError, ImportError)
NO_GPU_MATCH = "cudaErrorInsufficientDriver|cudaErrorNoDevice|Failure finding .lib"

pytestmark = [
    # not what is tested here
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(autouse=True)
def array_api_dispatch():
    with sklearn.config_context(array_api_dispatch=True):
        yield


# --- Arrays ---------------------------------------------------------------------------


def from_np(a):
    return np.array(a)


def from_cpu(a):
    return strict.asarray(np.array(a))


def from_device1(a):
    return strict.asarray(np.array(a), device=DEVICE1)


def from_cupy(a):
    a = np.array(a)
    memory = cupy.cuda.UnownedMemory(a.ctypes.data, max(a.nbytes, 1), a, 0)
    pointer = cupy.cuda.MemoryPointer(memory, 0)
    return cupy.ndarray(a.shape, a.dtype, pointer)


def to_cupyx(a):
    a = sparse.coo_matrix(np.array(a))
    ret = cupyx_sparse.coo_matrix.__new__(cupyx_sparse.coo_matrix)
    ret.data, ret.row, ret.col = from_cupy(a.data), from_cupy(a.row), from_cupy(a.col)
    ret._shape, ret.has_canonical_format = a.shape, True
    return ret


def to_scipy(a):
    return sparse.csr_array(np.array(a))


KINDS = {
    "np": from_np,
    "cpu": from_cpu,
    "device1": from_device1,
    "cupy": from_cupy,
    "cupyx": to_cupyx,
    "scipy": to_scipy,
}

rng = np.random.default_rng(0)
IMAGE = rng.random((6, 7))
GRAPH = np.zeros((4, 4))
GRAPH[0, 1] = GRAPH[1, 0] = 2
GRAPH[2, 3] = GRAPH[3, 2] = 1  # two components
n = 30
OPERATOR = np.diag(np.arange(1.0, n + 1)) + np.eye(n, k=1) + np.eye(n, k=-1)
VECTORS = rng.standard_normal((n, 3))
AFFINITY = rng.random((40, 40))
AFFINITY = AFFINITY + AFFINITY.T
np.fill_diagonal(AFFINITY, 0)
DISCONNECTED = AFFINITY.copy()
DISCONNECTED[:20, 20:] = DISCONNECTED[20:, :20] = 0
EMBEDDING = np.linalg.qr(rng.standard_normal((n, 3)))[0]

DATA = {
    "float": IMAGE,
    "uint8": np.arange(42, dtype=np.uint8).reshape(6, 7)[::-1],
    "int64": np.arange(42).reshape(6, 7),
    "uint64": np.arange(42, dtype=np.uint64).reshape(6, 7),
    "bool": np.eye(6, 7) > 0,
    "0d": np.asarray(0.5),
    "1d": np.linspace(0, 1, 7),
    "3d": np.ones((2, 2, 2)),
    "4d": np.ones((2, 2, 2, 2)),
    "empty": np.zeros((0, 7)),
    "nan": np.where(np.eye(6, 7) > 0, np.nan, 0.5),
    "negative": -IMAGE,
    "complex": IMAGE * 1j,
}


# --- Rows -----------------------------------------------------------------------------


class Same:
    """As for NumPy arrays, in the namespace and on the device of the input.

    With a tolerance, or with a function of the results that is compared.
    """

    def __init__(self, rtol=0, of=None):
        self.rtol, self.of = rtol, of or (lambda x: x)


class Raises:
    def __init__(self, exception, match):
        self.exception, self.match = exception, match


class Gives:
    """As the function says."""

    def __init__(self, check):
        self.check = check


SAME = Same()
CUDA_ERROR = Raises(NO_GPU, NO_GPU_MATCH)


def to_numpy(x):
    if isinstance(x, np.ndarray | np.generic | bool | int | float):
        return np.asarray(x)
    assert type(x) is type(from_cpu(0)), type(x)
    return np.asarray(strict.asarray(x, device=CPU))


def check_same(actual, expected, kind, expect):
    actual, expected = expect.of(actual), expect.of(expected)
    if isinstance(expected, tuple):
        assert type(actual) is tuple and len(actual) == len(expected)
        for x, y in zip(actual, expected):
            check_same(x, y, kind, Same(expect.rtol))
        return
    if isinstance(expected, bool | int | float):
        assert actual == expected
        return
    if kind == "np":
        assert type(actual) is np.ndarray
    else:
        assert type(actual) is type(from_cpu(0))
        assert actual.device == (CPU if kind == "cpu" else DEVICE1)
    actual = to_numpy(actual)
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=expect.rtol, atol=expect.rtol)


ROWS = []


def row(name, call, data, /, marks=(), **expected):
    """A call with an array of each of some kinds, and what is expected of each.

    `call` takes the function that makes an array of a kind.
    """
    for kind, expect in expected.items():
        kind_marks = list(marks.get(kind, ()) if isinstance(marks, dict) else marks)
        if kind in ("cupy", "cupyx"):
            kind_marks.append(no_gpu)
        ROWS.append(pytest.param(call, data, kind, expect, id=f"{name}-{kind}", marks=kind_marks))


def known(reason, raises=None):
    """A row that fails today, of a series that isn't changed here."""
    return pytest.mark.xfail(reason=reason, strict=True, raises=raises)


def run(call, data, kind, expect):
    def make(a):
        return KINDS[kind](a)

    if isinstance(expect, Raises):
        with pytest.raises(expect.exception, match=f"(?s){expect.match}"):
            call(make, data)
    elif isinstance(expect, Gives):
        expect.check(call(make, data))
    else:
        check_same(call(make, data), call(from_np, data), kind, expect)


# --- scikit-image ---------------------------------------------------------------------

NDIMAGE = Raises(TypeError, r"`scipy.ndimage.\w+` doesn't support arrays of .*device1")
CONVERT = Raises(ValueError, "Cannot convert from complex128")
OBJECT = Raises(ValueError, "Cannot convert from object")

for function in (img_as_float, img_as_float32, img_as_float64):

    def call(make, data, function=function):
        return function(make(data))

    for name, data in DATA.items():
        expect = CONVERT if name == "complex" else SAME
        row(
            f"{function.__name__}-{name}",
            call,
            data,
            np=expect,
            cpu=expect,
            device1=expect,
        )
    row(f"{function.__name__}-sparse", call, IMAGE, scipy=OBJECT, cupyx=OBJECT)
    row(f"{function.__name__}-cupy", call, DATA["uint8"], cupy=CUDA_ERROR)
    row(f"{function.__name__}-complex", call, DATA["complex"], cupy=CONVERT)

# not even a conversion without work changes the array type
row(
    "img_as_float-unchanged",
    lambda make, data: img_as_float(make(data)),
    IMAGE,
    cupy=Gives(lambda x: isinstance(x, cupy.ndarray) or pytest.fail()),
)

for label, function in {
    "rescale": lambda x: transform.rescale(x, 0.5),
    "rescale_up": lambda x: transform.rescale(x, 2),
    "rescale_no_aa": lambda x: transform.rescale(x, 0.5, anti_aliasing=False),
    "resize": lambda x: transform.resize(x, (3, 4)),
}.items():

    def call(make, data, function=function):
        return function(make(data))

    for name, data in DATA.items():
        expect, expect1 = SAME, NDIMAGE
        if name == "complex":
            expect = expect1 = CONVERT
        elif name == "empty":
            expect = Raises(ValueError, "cannot convert float NaN to integer")
        elif name == "0d" and "rescale" in label:
            expect = Raises(RuntimeError, "rank must be > 0")
        elif name in ("3d", "4d") and label == "resize":
            if name == "4d":
                expect = expect1 = Raises(ValueError, "output_shape length cannot be")
        row(f"{label}-{name}", call, data, np=expect, cpu=expect, device1=expect1)
    row(f"{label}-sparse", call, IMAGE, scipy=OBJECT, cupyx=OBJECT)
    row(f"{label}-cupy", call, IMAGE, cupy=CUDA_ERROR)
    row(f"{label}-cupy_complex", call, DATA["complex"], cupy=CONVERT)

for name, function, value in (
    ("scale", transform.rescale, [0.5, 0.5]),
    ("output_shape", transform.resize, [3, 4]),
    ("sigma", filters.gaussian, [1.0, 2.0]),
):
    refused = Raises(TypeError, f"`{name}` is an array of type .* NumPy can't convert")

    def call(make, data, function=function, value=value):
        return function(data, make(value))

    row(
        f"{function.__name__}-{name}_array",
        call,
        IMAGE,
        cupy=refused,
        device1=refused,
        cpu=Gives(lambda x, f=function, v=value: np.testing.assert_array_equal(x, f(IMAGE, v))),
    )
    row(
        f"{function.__name__}-{name}_array_image",
        lambda make, data, f=function, v=value: f(make(data), make(v)),
        IMAGE,
        cpu=SAME,
        device1=refused,
        cupy=refused,
    )


def call(make, data):
    return filters.gaussian(make(data), 1)


for name, data in DATA.items():
    expect, expect1 = (CONVERT, CONVERT) if name == "complex" else (SAME, NDIMAGE)
    row(f"gaussian-{name}", call, data, np=expect, cpu=expect, device1=expect1)
row("gaussian-sparse", call, IMAGE, scipy=OBJECT, cupyx=OBJECT)
row("gaussian-cupy", call, IMAGE, cupy=CUDA_ERROR)
row("gaussian-cupy_complex", call, DATA["complex"], cupy=CONVERT)

OUT = Raises(TypeError, "`out` must be of the array type")
for name, make_image, kinds in (
    ("np", from_np, ("cpu", "device1", "cupy")),
    ("cpu", from_cpu, ("np", "device1", "cupy")),
    ("device1", from_device1, ("np", "cpu", "cupy")),
):

    def call(make, data, make_image=make_image):
        return filters.gaussian(make_image(data), 1, out=make(np.zeros(data.shape)))

    row(f"gaussian-out-of_{name}", call, IMAGE, **dict.fromkeys(kinds, OUT))
for name, make_image in KINDS.items():
    if name in ("np", "cpu", "device1"):
        row(
            f"gaussian-cupy-out_{name}",
            lambda make, data, make_image=make_image: filters.gaussian(
                make(data), 1, out=make_image(np.zeros(data.shape))
            ),
            IMAGE,
            cupy=OUT,
        )

AFFINE = transform.AffineTransform(rotation=0.1, translation=(1, 1))
for label, inverse_map in (("affine", AFFINE), ("callable", lambda cr: cr + 0.5)):

    def call(make, data, inverse_map=inverse_map):
        return transform.warp(make(data), inverse_map)

    fast = label == "affine"
    for name, data in DATA.items():
        expect = Same(1e-12)
        expect1 = expect if fast and name != "bool" else NDIMAGE
        if name == "complex":
            expect = expect1 = CONVERT
        elif name in ("0d", "1d") or (name == "4d"):
            expect = expect1 = Raises(ValueError, "Only 2-D images")
        elif name == "empty":
            expect = expect1 = Raises(ValueError, "Cannot warp empty image")
        row(f"warp_{label}-{name}", call, data, np=expect, cpu=expect, device1=expect1)
    row(f"warp_{label}-sparse", call, IMAGE, scipy=OBJECT, cupyx=OBJECT)
    row(f"warp_{label}-cupy", call, IMAGE, cupy=CUDA_ERROR)
    row(
        f"warp_{label}-cupy_empty",
        call,
        DATA["empty"],
        cupy=Raises(ValueError, "Cannot warp empty image"),
    )

MAP = Raises(TypeError, "`inverse_map` must be a NumPy array or of the array type")
MAP_DEVICE = Raises(TypeError, "`inverse_map` must be on the device of `image`")
for shape in ((3, 3), (2, 3, 3)):
    for name, make_image, expected in (
        ("np", from_np, {"cpu": MAP, "device1": MAP, "cupy": MAP}),
        ("cpu", from_cpu, {"device1": MAP_DEVICE, "cupy": MAP}),
        ("device1", from_device1, {"cpu": MAP_DEVICE, "cupy": MAP}),
    ):

        def call(make, data, make_image=make_image, shape=shape):
            return transform.warp(make_image(data), make(np.ones(shape)))

        row(f"warp-map_{shape}-of_{name}", call, IMAGE, **expected)


# --- SciPy: connected_components ------------------------------------------------------

HOST = Raises(TypeError, "can't be read as a NumPy array: .*Supported are NumPy arrays")
TWO_D = Raises(ValueError, "graph should have two dimensions")
SQUARE = Raises(ValueError, "graph should be a square array")
NN = Raises(ValueError, r"graph must be shape \(N, N\)")


def components(make, data, **kwargs):
    return connected_components(make(data), **kwargs)


for name, data in {
    "disconnected": GRAPH,
    "int": GRAPH.astype(int),
    "uint8": GRAPH.astype(np.uint8),
    "bool": GRAPH > 0,
    "empty": np.zeros((0, 0)),
    "nan": np.where(GRAPH > 1, np.nan, GRAPH),
    "negative": -GRAPH,
    "no_edges": np.zeros((3, 3)),
}.items():
    for kwargs in ({}, {"directed": False}, {"connection": "strong"}):
        row(
            f"connected_components-{name}-{kwargs}",
            lambda make, data, kwargs=kwargs: components(make, data, **kwargs),
            data,
            cpu=SAME,
            device1=HOST,
            cupy=CUDA_ERROR,
            cupyx=Raises((*NO_GPU, RuntimeError), f"{NO_GPU_MATCH}|pylibcugraph"),
        )
for name in ("0d", "1d", "3d", "4d"):
    row(
        f"connected_components-{name}",
        components,
        DATA[name],
        np=TWO_D,
        cpu=TWO_D,
        device1=HOST,
        cupy=TWO_D,
    )
row(
    "connected_components-not_square",
    components,
    np.ones((2, 3)),
    np=SQUARE,
    cpu=SQUARE,
    device1=HOST,
    cupy=SQUARE,
    cupyx=NN,
    scipy=NN,
)


# --- SciPy: laplacian -----------------------------------------------------------------

SQUARE = Raises(ValueError, "csgraph must be a square matrix or array")
HOLD = Raises(TypeError, "csgraph has dtype .*can't hold its Laplacian")

for kwargs in (
    {},
    {"normed": True},
    {"symmetrized": True},
    {"use_out_degree": True, "return_diag": True},
    {"form": "lo"},
    {"form": "function"},
):

    def call(make, data, kwargs=kwargs):
        lap = laplacian(make(data), **kwargs)
        if "form" in kwargs and 0 not in data.shape:
            v = make(np.arange(2.0 * data.shape[0]).reshape(-1, 2))
            return lap(v) if kwargs["form"] == "function" else lap @ v
        return lap if "form" not in kwargs else laplacian(make(data))

    for name, data in {
        "disconnected": GRAPH,
        "empty": np.zeros((0, 0)),
        "nan": np.where(GRAPH > 1, np.nan, GRAPH),
        "negative": -GRAPH,
        "no_edges": np.zeros((3, 3)),
    }.items():
        row(
            f"laplacian-{name}-{kwargs}",
            call,
            data,
            cpu=Same(1e-12),
            device1=Same(1e-12),
            cupy=CUDA_ERROR,
            cupyx=CUDA_ERROR,
        )
    for name, data in (
        ("not_square", np.ones((2, 3))),
        *((name, DATA[name]) for name in ("0d", "1d", "3d")),
    ):
        expected = dict.fromkeys(("np", "cpu", "device1", "cupy"), SQUARE)
        if data.ndim == 2:
            expected |= {"scipy": SQUARE, "cupyx": SQUARE}
        row(f"laplacian-{name}-{kwargs}", call, data, **expected)
    row(
        f"laplacian-bool-{kwargs}",
        call,
        GRAPH > 0,
        cpu=HOLD,
        device1=HOLD,
        cupy=HOLD,
        cupyx=HOLD,
    )
    if "form" not in kwargs:
        cast = Raises(TypeError, "Cannot cast ufunc")
        row(f"laplacian-bool-{kwargs}", call, GRAPH > 0, np=cast, scipy=cast)
        row(f"laplacian-int-{kwargs}", call, GRAPH.astype(int), cpu=SAME, device1=SAME)
        if "normed" not in kwargs:
            overflow = Raises(OverflowError, "out of bounds for uint8")
            row(
                f"laplacian-uint8-{kwargs}",
                call,
                GRAPH.astype(np.uint8),
                np=overflow,
                scipy=overflow,
                cpu=HOLD,
                device1=HOLD,
                cupy=HOLD,
            )

row(
    "laplacian-numpy_dtype",
    lambda make, data: laplacian(make(data), dtype=np.float32),
    GRAPH,
    cpu=SAME,
    device1=SAME,
)
row(
    "laplacian-no_dtype",
    lambda make, data: laplacian(make(data), dtype="U3"),
    GRAPH,
    cpu=Raises(TypeError, "dtype U3 has no equivalent"),
    device1=Raises(TypeError, "dtype U3 has no equivalent"),
)

# the function and the operator are given vectors of another library or device
# Which of them says so depends on what NumPy tries first: then it is array-api-strict that refuses to be copied.
COMBINE = Raises(
    (TypeError, ValueError, RuntimeError),
    "namespaces|Expected Array|two different dev|Can't convert array on",
)
for form in ("function", "lo"):
    for name, make_graph, kinds in (
        ("np", from_np, ("cpu", "device1")),
        ("cpu", from_cpu, ("np", "device1")),
        ("device1", from_device1, ("np", "cpu")),
    ):

        def call(make, data, make_graph=make_graph, form=form):
            lap = laplacian(make_graph(data), form=form)
            v = make(np.ones((4, 1)))
            return lap(v) if form == "function" else lap @ v

        row(f"laplacian-{form}_of_{name}", call, GRAPH, **dict.fromkeys(kinds, COMBINE))


# --- SciPy: lobpcg --------------------------------------------------------------------

BLOCK = {"maxiter": 60, "tol": 1e-6}


def solve(A, X, **kwargs):
    return lobpcg(A, X, **BLOCK, **kwargs)[0]


OWN = {"np": from_np, "cpu": from_cpu, "device1": from_device1}
for x_kind, make_x in OWN.items():
    for kind in (*KINDS, "operator"):
        if kind == x_kind or (x_kind == "np" and kind in ("scipy", "operator")):
            continue

        def of(kind, make=None):
            if kind == "operator":
                return lambda a: aslinearoperator(np.array(a))
            return KINDS[kind]

        other_device = {x_kind, kind} == {"cpu", "device1"}
        for name in "ABMY":
            if name == "Y" and kind in ("scipy", "cupyx", "operator"):
                continue

            def call(make, data, name=name, kind=kind, make_x=make_x, of=of):
                operators = {"A": make_x(OPERATOR)}
                operators[name] = of(kind)(OPERATOR[:, :2] if name == "Y" else OPERATOR)
                return solve(X=make_x(data), **operators)

            match = rf"^{name} is on device .* but X on" if other_device else rf"^{name} is of type"
            row(
                f"lobpcg-X_{x_kind}-{name}_{kind}",
                call,
                VECTORS,
                marks=[no_gpu] if kind in ("cupy", "cupyx") else [],
                **{x_kind: Raises(TypeError, match)},
            )

    # callables that return arrays of another library
    if x_kind != "np":
        for name in "ABM":

            def call(make, data, name=name, make_x=make_x):
                operators = {"A": make_x(OPERATOR)} | {name: lambda v: np.ones(v.shape)}
                return solve(X=make_x(data), **operators)

            row(
                f"lobpcg-X_{x_kind}-{name}_returns_np",
                call,
                VECTORS,
                **{x_kind: Raises(TypeError, f"^{name} applied to .*ndarray")},
            )


def call(make, data):
    return solve(make(OPERATOR), make(data))


for name, data, expect in (
    ("1d", VECTORS[:, 0], Raises(ValueError, "expected rank-2 array for argument X")),
    ("empty", np.zeros((n, 0)), Raises(ValueError, "zero-size array")),
    ("0x0", np.zeros((0, 0)), Raises(ValueError, "mismatch in its core dimension")),
    ("nan", np.full((n, 3), np.nan), Raises(ValueError, "NaN|Linearly dependent")),
    ("dependent", np.ones((n, 3)), Raises(ValueError, "Linearly dependent initial")),
    ("short", VECTORS[:-1], Raises(ValueError, "mismatch in its core dimension")),
    ("more_than_rows", rng.standard_normal((n, n + 1)), Same(1e-6)),
    ("int", np.arange(3 * n).reshape(n, 3) % 7, Same(1e-3)),
    ("bool", np.eye(n, 3) > 0, Same(1e-3)),
):
    row(f"lobpcg-X_{name}", call, data, np=expect, cpu=expect, device1=expect)
row("lobpcg-cupy", call, VECTORS, cupy=CUDA_ERROR)


def call(make, data):
    return solve(make(data), make(VECTORS))


PROMOTED = Raises(TypeError, "^A has dtype .*; .* floating point dtype is required")
for name, data, expect, expect_np in (
    ("1d", np.ones(n), Raises(ValueError, "shape .* not preserved"), None),
    ("short", OPERATOR[:-1, :-1], Raises(ValueError, "mismatch in its core"), None),
    ("not_square", OPERATOR[:, :-1], Raises(ValueError, "mismatch in its core"), None),
    ("empty", np.zeros((0, 0)), Raises(ValueError, "mismatch in its core"), None),
    (
        "nan",
        np.full((n, n), np.nan),
        Raises(ValueError, "eigh has failed|converge"),
        None,
    ),
    ("int", OPERATOR.astype(int), PROMOTED, SAME),
    ("bool", OPERATOR > 0, PROMOTED, SAME),
):
    row(
        f"lobpcg-A_{name}",
        call,
        data,
        np=expect_np or expect,
        cpu=expect,
        device1=expect,
    )

for name, data, expect in (
    ("short", np.ones((n - 1, 2)), Raises(ValueError, "mismatch in its core")),
    ("int", np.eye(n, 2, dtype=int), Raises(TypeError, "^Y has dtype .*int64")),
    ("nan", np.full((n, 2), np.nan), Raises(ValueError, "NaN|Linearly dependent")),
):
    row(
        f"lobpcg-Y_{name}",
        lambda make, data: solve(make(OPERATOR), make(VECTORS), Y=make(data)),
        data,
        cpu=expect,
        device1=expect,
    )


# --- SciPy: eigsh ---------------------------------------------------------------------

OTHER = (
    "eigsh takes NumPy arrays and operators, or CuPy arrays and operators, but not "
    "both.*`{}` of type .*lobpcg"
)

for name in ("A", "M", "v0", "Minv", "OPinv", "sigma"):

    def call(make, data, name=name):
        kwargs = {"A": OPERATOR, "sigma": 0.1}
        kwargs[name] = make({"v0": data[0], "sigma": 0.1}.get(name, data))
        return eigsh(k=2, **kwargs)

    expect = Raises(TypeError, OTHER.format(name))
    expected = {"cpu": expect, "device1": expect}
    if name != "A":
        expected["cupy"] = expect
        if name not in ("v0", "sigma"):
            expected["cupyx"] = expect
    row(f"eigsh-{name}", call, OPERATOR, **expected)

for name, make_other in OWN.items():
    row(
        f"eigsh-cupy-v0_{name}",
        lambda make, data, make_other=make_other: eigsh(
            make(data), k=2, sigma=0.1, v0=make_other(data[0])
        ),
        OPERATOR,
        cupy=Raises(TypeError, OTHER.format("v0")),
        cupyx=Raises(TypeError, OTHER.format("v0")),
    )
row(
    "eigsh-no_sigma",
    lambda make, data: eigsh(make(data), k=2),
    OPERATOR,
    cupy=Raises(TypeError, "in shift-invert mode only.*lobpcg"),
    cupyx=Raises(TypeError, "in shift-invert mode only.*lobpcg"),
)
row(
    "eigsh-sigma",
    lambda make, data: eigsh(make(data), k=2, sigma=0.1),
    OPERATOR,
    cupy=CUDA_ERROR,
    cupyx=CUDA_ERROR,
)
for name, data in (
    ("not_square", OPERATOR[:, :-1]),
    ("1d", OPERATOR[0]),
    ("nan", OPERATOR * np.nan),
    ("empty", np.zeros((0, 0))),
):
    row(
        f"eigsh-{name}",
        lambda make, data: eigsh(make(data), k=2),
        data,
        cpu=Raises(TypeError, OTHER.format("A")),
        device1=Raises(TypeError, OTHER.format("A")),
        cupy=Raises(TypeError, "in shift-invert mode only"),
    )


# --- SciPy: getdata and constructors --------------------------------------------------

for name, data in {
    "float": np.ones(3),
    "int": np.ones(3, dtype=int),
    "bool": np.ones(3, dtype=bool),
    "empty": np.zeros(0),
    "nan": np.full(3, np.nan),
    "0d": np.asarray(1.0),
    "2d": np.ones((2, 2)),
}.items():
    row(
        f"getdata-{name}",
        lambda make, data: getdata(make(data), copy=None),
        data,
        np=SAME,
        cpu=SAME,
        device1=SAME,
        cupy=CUDA_ERROR,
    )
    row(
        f"getdata-copy-{name}",
        lambda make, data: getdata(make(data), copy=True),
        data,
        np=SAME,
        cpu=SAME,
        device1=SAME,
        cupy=CUDA_ERROR,
    )
row(
    "getdata-dtype",
    lambda make, data: getdata(make(data), np.float32, copy=None),
    np.ones(3),
    cpu=SAME,
    device1=SAME,
)
row(
    "getdata-no_copy",
    lambda make, data: getdata(make(data), np.float32, copy=False),
    np.ones(3),
    np=Raises(ValueError, "Unable to avoid copy"),
    cpu=Raises(ValueError, "Unable to avoid copy"),
    device1=Raises(ValueError, "Unable to avoid copy"),
)

INDEX = np.arange(3)
for cls in (
    sparse.coo_array,
    sparse.coo_matrix,
    sparse.csr_array,
    sparse.csc_array,
    sparse.bsr_array,
):
    for name, call in {
        "data": lambda make, data, cls=cls: cls((make(data), (INDEX, INDEX)), shape=(3, 3)),
        "coords": lambda make, data, cls=cls: cls((data, (INDEX, make(INDEX))), shape=(3, 3)),
    }.items():
        expect = Raises(TypeError, f"The {name} of a SciPy sparse array can't be an")
        row(
            f"{cls.__name__}-{name}",
            call,
            np.ones(3),
            **dict.fromkeys(("cpu", "device1", "cupy"), expect),
        )

DENSE = Raises(TypeError, "The argument of a SciPy sparse array can't be an array")
for cls in (sparse.coo_array, sparse.coo_matrix):
    row(
        f"{cls.__name__}-coords-no_shape",
        lambda make, data, cls=cls: cls((data, (INDEX, make(INDEX)))),
        np.ones(3),
        **dict.fromkeys(
            ("cpu", "device1", "cupy"),
            Raises(TypeError, "The coords of a SciPy sparse array"),
        ),
    )
    row(
        f"{cls.__name__}-coords-2d",
        lambda make, data, cls=cls: cls((data, make([INDEX, INDEX]))),
        np.ones(3),
        **dict.fromkeys(
            ("cpu", "device1", "cupy"),
            Raises(TypeError, "The coords of a SciPy sparse array"),
        ),
    )
    row(
        f"{cls.__name__}-dense",
        lambda make, data, cls=cls: cls(make(data)),
        GRAPH,
        **dict.fromkeys(("cpu", "device1", "cupy", "cupyx"), DENSE),
    )
for name in ("data", "indices", "indptr"):

    def call(make, data, name=name):
        arg = {"data": data, "indices": np.arange(2), "indptr": np.arange(3)}
        return sparse.bsr_array(tuple((arg | {name: make(arg[name])}).values()))

    row(
        f"bsr_array-{name}",
        call,
        np.ones((2, 1, 1)),
        **dict.fromkeys(
            ("cpu", "device1", "cupy"),
            Raises(TypeError, f"The {name} of a SciPy sparse array can't be an array"),
        ),
    )


# --- scikit-learn: check_array --------------------------------------------------------

FLOAT = {"dtype": np.float64}
for kwargs in ({}, FLOAT):

    def call(make, data, kwargs=kwargs):
        return check_array(make(data), **kwargs)

    label = "float" if kwargs else "numeric"
    for name, expect in {
        "float": SAME,
        "uint8": SAME,
        "int64": SAME,
        "uint64": SAME,
        "bool": SAME,
        "negative": SAME,
        "0d": Raises(ValueError, "Expected 2D array, got scalar array"),
        "1d": Raises(ValueError, "Expected 2D array, got 1D array"),
        "3d": Raises(ValueError, "Found array with dim 3"),
        "4d": Raises(ValueError, "Found array with dim 4"),
        "empty": Raises(ValueError, "Found array with 0 sample"),
        "nan": Raises(ValueError, "Input contains NaN"),
        "complex": Raises(ValueError, "Complex data not supported"),
    }.items():
        marks = {}
        if name == "complex" and not kwargs:
            reason = "scikit-learn: complex arrays pass if no dtype is asked for"
            marks = {"cpu": [known(reason)], "device1": [known(reason)]}
        row(
            f"check_array-{label}-{name}",
            call,
            DATA[name],
            marks,
            np=expect,
            cpu=expect,
            device1=expect,
        )
    row(f"check_array-{label}-cupy", call, IMAGE, cupy=CUDA_ERROR)
    row(
        f"check_array-{label}-sparse",
        call,
        GRAPH,
        scipy=Raises(TypeError, "Sparse data was passed"),
        cupyx=Raises(TypeError, "Sparse data was passed"),
    )
row(
    "check_array-accept_sparse",
    lambda make, data: check_array(make(data), accept_sparse="coo"),
    GRAPH,
    cupyx=CUDA_ERROR,
)
for dtype in (object, "U3", np.longdouble):
    row(
        f"check_array-dtype_{dtype}",
        lambda make, data, dtype=dtype: check_array(make(data), dtype=dtype),
        IMAGE,
        cpu=Raises(TypeError, "dtype=.* has no equivalent in the namespace"),
        device1=Raises(TypeError, "dtype=.* has no equivalent in the namespace"),
    )
row(
    "check_array-strict_dtype",
    lambda make, data: check_array(make(data), dtype=strict.float32),
    IMAGE,
    np=Raises(TypeError, "Cannot interpret .* as a data type"),
    cupy=Raises(TypeError, "Cannot interpret .* as a data type"),
)


# --- scikit-learn: graphs of images ---------------------------------------------------

NO_SPARSE = Raises(TypeError, "There are no sparse arrays for the arrays of")
NOT_ARRAY = Raises(ValueError, "The 'img' parameter of img_to_graph must be an array-li")
MASK = Raises(ValueError, "The 'mask' parameter of .* must be None or an array-like")


def call(make, data):
    return img_to_graph(make(data), return_as=np.ndarray)


for name in (
    "float",
    "uint8",
    "int64",
    "uint64",
    "0d",
    "1d",
    "3d",
    "nan",
    "negative",
    "complex",
):
    row(f"img_to_graph-{name}", call, DATA[name], cpu=SAME, device1=SAME)
row(
    "img_to_graph-bool",
    call,
    DATA["bool"],
    **dict.fromkeys(("np", "cpu", "device1"), Raises(TypeError, "boolean|numeric")),
)
reason = "scikit-learn: a slice that array-api-strict doesn't take of an empty axis"
row(
    "img_to_graph-empty",
    call,
    DATA["empty"],
    {kind: [known(reason, IndexError)] for kind in ("cpu", "device1")},
    np=SAME,
    cpu=SAME,
    device1=SAME,
)
reason = "scikit-learn: no check of ndim; a wrong graph of PyTorch and CuPy images"
row(
    "img_to_graph-4d",
    call,
    DATA["4d"],
    {kind: [known(reason, IndexError)] for kind in ("cpu", "device1")},
    **dict.fromkeys(("np", "cpu", "device1"), Raises(ValueError, "values|dim")),
)
row("img_to_graph-cupy", call, IMAGE, cupy=CUDA_ERROR)
row("img_to_graph-sparse", call, GRAPH, scipy=NOT_ARRAY, cupyx=NOT_ARRAY)
for return_as in (sparse.coo_array, sparse.csr_matrix, cupyx_sparse.coo_matrix, list):
    row(
        f"img_to_graph-return_as_{return_as.__module__}.{return_as.__name__}",
        lambda make, data, return_as=return_as: img_to_graph(make(data), return_as=return_as),
        IMAGE,
        cpu=NO_SPARSE,
        device1=NO_SPARSE,
    )
row(
    "img_to_graph-dtype_U3",
    lambda make, data: img_to_graph(make(data), dtype="U3", return_as=np.ndarray),
    IMAGE,
    cpu=Raises(TypeError, "dtype='U3' has no equivalent"),
    device1=Raises(TypeError, "dtype='U3' has no equivalent"),
)

# scikit-learn's own error for a mixture, with the devices of all arguments
MIXED = Raises(ValueError, "Input arrays use different devices")
for name, make_image in {**OWN, "cupy": from_cupy}.items():
    row(
        f"img_to_graph-of_{name}-mask",
        lambda make, data, make_image=make_image: img_to_graph(
            make_image(data), mask=make(data > 0.3), return_as=np.ndarray
        ),
        IMAGE,
        [no_gpu] if name == "cupy" else [],
        **{kind: MIXED for kind in (*OWN, "cupy") if kind != name},
    )
    row(
        f"img_to_graph-of_{name}-sparse_mask",
        lambda make, data, make_image=make_image: img_to_graph(
            make_image(data), mask=make(data > 1), return_as=np.ndarray
        ),
        GRAPH,
        [no_gpu] if name == "cupy" else [],
        scipy=MASK,
        cupyx=MASK,
    )


def call(make, data):
    return img_to_graph(make(IMAGE), mask=make(data), return_as=np.ndarray)


row(
    "img_to_graph-mask-none_left",
    call,
    np.zeros((6, 7), dtype=bool),
    cpu=SAME,
    device1=SAME,
)
SIZE = Raises(ValueError, "mask has 9 elements, expected 42")
row(
    "img_to_graph-mask-size",
    call,
    np.ones((3, 3), dtype=bool),
    np=Raises(IndexError, "boolean index did not match"),
    cpu=SIZE,
    device1=SIZE,
)
reason = "scikit-learn: a mask of floats passes, NaN is True"
NOT_BOOL = Raises((IndexError, TypeError, ValueError), "mask|integer|boolean")
row(
    "img_to_graph-mask-nan",
    call,
    np.where(IMAGE > 0.3, np.nan, 0),
    {kind: [known(reason)] for kind in ("cpu", "device1")},
    np=NOT_BOOL,
    cpu=NOT_BOOL,
    device1=NOT_BOOL,
)


def call(make, data):
    return grid_to_graph(6, 7, mask=make(data), return_as=np.ndarray)


row("grid_to_graph-mask", call, IMAGE > 0.3, cpu=SAME, device1=SAME, cupy=CUDA_ERROR)
row("grid_to_graph-mask-int", call, (IMAGE > 0.3).astype(int), cpu=SAME, device1=SAME)
row(
    "grid_to_graph-mask-none_left",
    call,
    np.zeros((6, 7), dtype=bool),
    cpu=SAME,
    device1=SAME,
)
row("grid_to_graph-mask-size", call, np.ones((3, 3), dtype=bool), cpu=SIZE, device1=SIZE)
row("grid_to_graph-mask-sparse", call, GRAPH, scipy=MASK, cupyx=MASK)
row(
    "grid_to_graph-return_as",
    lambda make, data: grid_to_graph(6, 7, mask=make(data)),
    IMAGE > 0.3,
    cpu=NO_SPARSE,
    device1=NO_SPARSE,
)
INTEGER = Raises(ValueError, "The 'n_x' parameter of grid_to_graph must be an int")
row(
    "grid_to_graph-n_x",
    lambda make, data: grid_to_graph(make(data), 7),
    6,
    np=INTEGER,
    cpu=INTEGER,
    device1=INTEGER,
)


# --- scikit-learn: spectral_embedding -------------------------------------------------


def embed(adjacency, n_components=3, **kwargs):
    return spectral_embedding(adjacency, n_components=n_components, random_state=0, **kwargs)


def call(make, data):
    return embed(make(data))


def projector(embedding):
    # the subspace: in it, a degenerate eigenvector can be any
    q, _ = np.linalg.qr(to_numpy(embedding))
    return q @ q.T


CLOSE = Same(1e-3)
for name, data in {
    "connected": AFFINITY,
    "int": (AFFINITY * 10).astype(int),
    "negative_some": AFFINITY - 0.5,
    "not_symmetric": np.triu(AFFINITY),
    "few_nodes": AFFINITY[:5, :5],
}.items():
    row(f"spectral_embedding-{name}", call, data, cpu=CLOSE, device1=CLOSE)

# NumPy has no Laplacian of them, others are converted to floating point numbers
for dtype in (bool, np.uint8):
    # not (AFFINITY > 0): that of a complete graph can have any basis
    data = AFFINITY > 1 if dtype is bool else (AFFINITY * 3).astype(dtype)
    row(
        f"spectral_embedding-{np.dtype(dtype)}",
        call,
        data,
        np=Raises(TypeError, "Cannot cast ufunc"),
    )
    expect = Gives(
        lambda x, data=data: np.testing.assert_allclose(
            to_numpy(x), embed(data.astype(float)), atol=1e-3
        )
    )
    row(f"spectral_embedding-{np.dtype(dtype)}", call, data, cpu=expect, device1=expect)

NAN = Raises(ValueError, "Input contains NaN")
INF = Raises(ValueError, "Input contains infinity")
for name, data, expect in (
    ("negative", -AFFINITY, Raises(ValueError, "NaN|Linearly dependent initial")),
    ("nan", np.where(np.eye(40) > 0, np.nan, AFFINITY), NAN),
    ("inf", np.where(np.eye(40) > 0, np.inf, AFFINITY), INF),
    ("nan_off_diagonal", np.where(np.eye(40, k=1) > 0, np.nan, AFFINITY), NAN),
    ("complex", AFFINITY * 1j, Raises(ValueError, "Complex data not supported")),
    ("empty", np.zeros((0, 0)), Raises(ValueError, "Found array with 0 sample")),
):
    row(
        f"spectral_embedding-{name}",
        call,
        data,
        cpu=expect,
        device1=expect,
        scipy=Raises(ValueError, "NaN|infinity|Complex|0 sample"),
    )
for name in ("1d", "float", "3d", "4d"):
    expect = Raises(ValueError, "array must be 2-dimensional and square")
    row(
        f"spectral_embedding-{name}",
        call,
        DATA[name],
        np=expect,
        cpu=expect,
        device1=expect,
        cupy=expect,
    )
row(
    "spectral_embedding-not_square",
    call,
    IMAGE,
    **dict.fromkeys(
        ("scipy", "cupyx"), Raises(ValueError, "array must be 2-dimensional and square")
    ),
)
row("spectral_embedding-cupy", call, AFFINITY, cupy=CUDA_ERROR, cupyx=CUDA_ERROR)
for solver in ("arpack", "amg"):
    row(
        f"spectral_embedding-{solver}",
        lambda make, data, solver=solver: embed(make(data), eigen_solver=solver),
        AFFINITY,
        cpu=Raises(TypeError, f"eigen_solver='{solver}' works on NumPy"),
        device1=Raises(TypeError, f"eigen_solver='{solver}' works on NumPy"),
    )
row(
    "spectral_embedding-n_components",
    lambda make, data: embed(AFFINITY, n_components=make(data)),
    3,
    **dict.fromkeys(
        ("np", "cpu", "device1"), Raises(ValueError, "The 'n_components' parameter of")
    ),
)
row(
    "spectral_embedding-more_components_than_nodes",
    lambda make, data: embed(make(data), n_components=12),
    AFFINITY[:8, :8],
    np=CLOSE,
    cpu=CLOSE,
    device1=CLOSE,
)
row(
    "spectral_embedding-one_node",
    call,
    np.ones((1, 1)),
    np=SAME,
    cpu=SAME,
    device1=SAME,
)


@pytest.mark.parametrize("make", [from_cpu, from_device1])
def test_disconnected_graph(make):
    # the first vectors tell the two parts apart, and the warning is NumPy's
    with pytest.warns(UserWarning, match="Graph is not fully connected"):
        expected = embed(DISCONNECTED, n_components=2, drop_first=False)
    with pytest.warns(UserWarning, match="Graph is not fully connected"):
        actual = embed(make(DISCONNECTED), n_components=2, drop_first=False)
    assert type(actual) is type(from_cpu(0)) and actual.device == make(0.0).device
    np.testing.assert_allclose(projector(actual), projector(expected), atol=1e-4)


# --- scikit-learn: discretize, cluster_qr ---------------------------------------------


def discretized(make, data):
    return discretize(make(data), random_state=0)


def clustered(make, data):
    return cluster_qr(make(data))


def parts(labels):
    # the numbers of clusters are arbitrary where the data are degenerate
    labels = to_numpy(labels)
    return np.equal.outer(labels, labels)


EXPECTED_2D = Raises(ValueError, "Expected 2D array")
CONVERGE = Raises(np.linalg.LinAlgError, "SVD did not converge")
for name, data, expect, expect_qr in (
    ("float", EMBEDDING, SAME, SAME),
    ("int", np.arange(12).reshape(6, 2) % 5, SAME, SAME),
    # No two pivots and no two clusters are equally good for a row: rounding would decide.
    ("uint8", np.arange(12, dtype=np.uint8).reshape(6, 2) ** 2 % 19, SAME, SAME),
    ("bool", np.eye(6, 3) > 0, CONVERGE, SAME),
    ("negative", -np.abs(EMBEDDING), SAME, SAME),
    ("one", np.ones((1, 1)), SAME, SAME),
    ("zero", np.zeros((6, 2)), CONVERGE, SAME),
    ("0d", DATA["0d"], EXPECTED_2D, EXPECTED_2D),
    ("1d", DATA["1d"], EXPECTED_2D, EXPECTED_2D),
    ("3d", DATA["3d"], *[Raises(ValueError, "Found array with dim 3")] * 2),
    ("empty", DATA["empty"], *[Raises(ValueError, "Found array with 0 sample")] * 2),
    (
        "no_columns",
        np.zeros((5, 0)),
        *[Raises(ValueError, "Found array with 0 feature")] * 2,
    ),
    ("nan", DATA["nan"], *[Raises(ValueError, "Input vectors contains NaN")] * 2),
    (
        "inf",
        np.full((6, 2), np.inf),
        *[Raises(ValueError, "Input vectors contains infinity")] * 2,
    ),
    ("complex", DATA["complex"], *[Raises(ValueError, "Complex data not supp")] * 2),
    # more clusters than pixels
    ("wide", rng.random((2, 5)), SAME, Raises(ValueError, "matmul|not aligned")),
):
    row(f"discretize-{name}", discretized, data, cpu=expect, device1=expect)
    row(f"cluster_qr-{name}", clustered, data, cpu=expect_qr, device1=expect_qr)
    for function, call, expect_np in (
        ("discretize", discretized, expect),
        ("cluster_qr", clustered, expect_qr),
    ):
        if isinstance(expect_np, Raises) and name in ("nan", "inf"):
            # the base class of LinAlgError
            row(f"{function}-{name}", call, data, np=Raises(ValueError, "SVD|NaN"))

PARTS = Same(of=lambda x: np.asarray(parts(x)).tolist() == np.ones((6, 6)).tolist())
row("cluster_qr-rank_1", clustered, np.ones((6, 3)), cpu=PARTS, device1=PARTS)
for function, call in (("discretize", discretized), ("cluster_qr", clustered)):
    row(f"{function}-cupy", call, EMBEDDING, cupy=CUDA_ERROR)
    row(
        f"{function}-sparse",
        call,
        GRAPH,
        cupyx=Raises(TypeError, "Sparse data was passed for vectors"),
        scipy=Raises(ValueError, "shape mismatch|at least a 2-D"),
    )


# --- CuPy -----------------------------------------------------------------------------


@no_gpu
@pytest.mark.parametrize(
    "call",
    [
        lambda: cupy.zeros(3),
        lambda: cupy.asarray(np.ones(3)),
        lambda: from_cupy(np.ones(3)) + 1,
        lambda: from_cupy(np.ones(3)).get(),
        lambda: to_cupyx(GRAPH).todia(),
    ],
    ids=["zeros", "asarray", "add", "get", "todia"],
)
def test_cupy_without_gpu(call):
    # whatever is computed raises: what doesn't raise in a row above didn't compute
    with pytest.raises(NO_GPU, match=NO_GPU_MATCH):
        call()


@no_gpu
def test_cupy_no_implicit_conversion():
    x = from_cupy(np.ones(3))
    assert x.__array_namespace__() is cupy
    with pytest.raises(TypeError, match="Implicit conversion to a NumPy array"):
        np.asarray(x)
    with pytest.raises(ValueError, match="must be 1-D"):
        cupyx_sparse.coo_matrix((np.ones(3), (INDEX, INDEX)))
    with pytest.raises(ValueError, match="must be 1-D"):
        cupyx_sparse.coo_matrix((from_cpu(np.ones(3)), (from_cpu(INDEX),) * 2), shape=(3, 3))


@pytest.mark.parametrize("call, data, kind, expect", ROWS)
def test_row(call, data, kind, expect):
    run(call, data, kind, expect)
