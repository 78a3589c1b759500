"""A stand-in for CuPy on a machine without a GPU, which counts what a GPU would have to do.

`install()` makes array-api-strict's device1 `cupy`, and SciPy on the host what lies behind
`cupyx.scipy`: nothing is converted to NumPy unless asked for by `get`. It has to come before
SciPy, scikit-learn and scikit-image are imported. It counts kernel launches, host
synchronisations, and the bytes that operations read, write, and move between host and device:

* An operation is a launch, and reads its arguments and writes its result; a change of shape or an
  index of slices is neither. A conversion to the same dtype without a copy is not an operation.
* A sparse matrix takes 5 launches to be made of a dense one, 3 to become CSR, 4 and a
  synchronisation to be added, 2 to be summed, one for all else. A product reads the values and
  their columns, 4 bytes each, beside the vectors.
* The host waits for the device where it reads a scalar or an array, or where the shape of a
  result depends on values. An array from the host is a launch.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import array_api_strict as strict
import numpy as np
import scipy.sparse

HOST, DEVICE = strict.Device("CPU_DEVICE"), strict.Device("device1")
Array = type(strict.empty(0))
# Neither kernels nor reads: views, and questions about types.
FREE = {
    *("__array_namespace_info__", "get_array_api_strict_flags", "set_array_api_strict_flags"),
    *("reset_array_api_strict_flags", "array_api_strict_flags", "isdtype", "finfo", "iinfo"),
    *("result_type", "can_cast", "reshape", "expand_dims", "squeeze", "permute_dims", "moveaxis"),
    *("matrix_transpose", "broadcast_to", "broadcast_arrays", "unstack", "diagonal"),
}
# Those whose result has a shape that depends on values.
WAITING = {"nonzero", "unique_values", "unique_counts", "unique_inverse", "unique_all"}
CREATING = {"asarray", "arange", "empty", "eye", "full", "linspace", "ones", "zeros"}
READS = ("bool", "float", "int", "index", "complex")
OPERATORS = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"),
    *("lt", "le", "gt", "ge", "eq", "ne", "radd", "rsub", "rmul", "rtruediv", "rpow", "rmatmul"),
    *("iadd", "isub", "imul", "itruediv", "neg", "abs", "invert"),
)

counts: Counter[str] = Counter()
_depth = [0]


@contextmanager
def operation(launches: int = 1, syncs: int = 0) -> Iterator[bool]:
    """Count what is done inside as that; what it consists of does not count."""
    outermost = not _depth[0]
    if outermost:
        counts["launches"] += launches
        counts["syncs"] += syncs
    _depth[0] += 1
    try:
        yield outermost
    finally:
        _depth[0] -= 1


def nbytes(*values: Any) -> int:
    total = 0
    for value in values:
        if isinstance(value, Array):
            total += value._array.nbytes
        elif isinstance(value, list | tuple):
            total += nbytes(*value)
    return total


def counted(function: Callable[..., Any], launches: int = 1, syncs: int = 0) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with operation(launches, syncs) as outermost:
            result = function(*args, **kwargs)
        if outermost and launches:
            counts["read"] += nbytes(*args)
            counts["written"] += nbytes(result)
        return result

    return call


def to_host(array: Any) -> np.ndarray:
    """Read an array of the device, for which the host waits."""
    if not isinstance(array, Array):
        return np.asarray(array)
    with operation(0, 1) as outermost:
        host = np.array(strict.asarray(array, device=HOST))
    if outermost:
        counts["moved"] += host.nbytes
    return host


def to_device(array: Any) -> Any:
    with operation() as outermost:
        result = strict.asarray(np.asarray(array), device=DEVICE)
    if outermost:
        counts["moved"] += nbytes(result)
    return result


def _wrap_namespace(module: ModuleType) -> None:
    for name in module.__all__:
        function = getattr(module, name)
        if not isinstance(function, FunctionType) or name in FREE:
            continue
        setattr(module, name, _wrapped(name, function))


def _wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    call = counted(function, 1, int(name in WAITING))

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if name in CREATING and kwargs.get("device") is None and not _depth[0]:
            kwargs["device"] = DEVICE
        if name == "asarray" and not _depth[0]:
            if not isinstance(args[0], Array):
                counts["moved"] += np.asarray(args[0]).nbytes
            elif not kwargs.get("copy"):
                return function(*args, **kwargs)
        if name == "astype" and args[0].dtype == args[1] and kwargs.get("copy") is False:
            return function(*args, **kwargs)
        return call(*args, **kwargs)

    return wrapped


def _getitem(self: Any, key: Any) -> Any:
    arrays = [k for k in (key if isinstance(key, tuple) else (key,)) if isinstance(k, Array)]
    masked = any(k.dtype == strict.bool for k in arrays)
    with operation(int(bool(arrays)), int(masked)):
        return _plain_getitem(self, key)


_plain_getitem = Array.__getitem__


def _wrap_array() -> None:
    """Make the class CuPy's: counted, with the methods of CuPy's that are in use."""
    for name in OPERATORS:
        setattr(Array, f"__{name}__", counted(getattr(Array, f"__{name}__")))
    for name in READS:
        setattr(Array, f"__{name}__", counted(getattr(Array, f"__{name}__"), 0, 1))
    Array.__setitem__ = counted(Array.__setitem__)
    Array.__getitem__ = _getitem
    Array.get = to_host
    Array.std = strict.std
    Array.astype = lambda self, dtype, copy=True: strict.astype(self, _own(dtype), copy=copy)
    Array.copy = lambda self: strict.asarray(self, copy=True)
    Array.__array_namespace__ = lambda self, api_version=None: sys.modules["cupy"]


def _own(dtype: Any) -> Any:
    """Return a dtype of the namespace for one of NumPy's, which CuPy takes."""
    try:
        return getattr(strict, np.dtype(dtype).name)
    except TypeError:
        return dtype


class Sparse:
    """A matrix of `cupyx.scipy.sparse`, one of SciPy's inside."""

    ndim = 2
    format = ""
    matrix: Any

    def __init__(self, arg: Any, shape: Any = None) -> None:
        if isinstance(arg, Sparse):
            matrix = arg.matrix
        elif scipy.sparse.issparse(arg):
            matrix = arg
        elif isinstance(arg, Array):
            with operation(5):
                matrix = scipy.sparse.csr_array(to_host(arg))
        else:
            data, (row, col) = arg
            with operation(0):
                coordinates = to_host(row), to_host(col)
                matrix = scipy.sparse.coo_array((to_host(data), coordinates), shape=shape)
        if matrix.dtype.kind in "iu":
            raise ValueError("Only bool, float32, float64, complex64 and complex128 are supported")
        self.matrix = matrix.asformat(self.format)
        self.shape = matrix.shape

    def _like(self, matrix: Any) -> Any:
        return CLASSES[matrix.format](matrix)

    @property
    def nnz(self) -> int:
        return int(self.matrix.nnz)

    @property
    def dtype(self) -> Any:
        return getattr(strict, self.matrix.dtype.name)

    def _array(self, name: str) -> Any:
        with operation(0):
            return to_device(getattr(self.matrix, name))

    row = property(lambda self: self._array("row"))
    col = property(lambda self: self._array("col"))

    @property
    def data(self) -> Any:
        return self._array("data")

    @data.setter
    def data(self, values: Any) -> None:
        with operation(0):
            self.matrix = self.matrix.copy()
            self.matrix.data = to_host(values).copy()

    def get(self) -> Any:
        with operation(0, 1):
            return self.matrix

    def asformat(self, format: str) -> Any:  # noqa: A002
        return self if format == self.format else self._like(self.matrix.asformat(format))

    def tocsr(self) -> Any:
        with operation(3):
            return self.asformat("csr")

    def tocsc(self) -> Any:
        return self.asformat("csc")

    def tocoo(self, copy: bool = False) -> Any:  # noqa: FBT001, FBT002
        return self.asformat("coo")

    def copy(self) -> Any:
        return self._like(self.matrix.copy())

    def astype(self, dtype: Any) -> Any:
        return self._like(self.matrix.astype(str(dtype).rpartition(".")[-1]))

    def todia(self) -> Any:
        return self.asformat("dia")

    T = property(lambda self: self._like(self.matrix.T))

    def conj(self) -> Any:
        return self._like(self.matrix.conj())

    def __add__(self, other: Any) -> Any:
        with operation(4, 1):
            return self._like((self.matrix + other.matrix).tocsr())

    def __sub__(self, other: Any) -> Any:
        with operation(4, 1):
            return self._like((self.matrix - other.matrix).tocsr())

    def __rmul__(self, factor: float) -> Any:
        with operation():
            return self._like(self.matrix * float(factor))

    def __abs__(self) -> Any:
        with operation():
            return self._like(abs(self.matrix))

    def __matmul__(self, other: Any) -> Any:
        with operation() as outermost:
            result = to_device(self.matrix @ to_host(other))
        if outermost:
            counts["read"] += nbytes(other) + self.matrix.data.nbytes + 4 * self.nnz
            counts["written"] += nbytes(result)
        return result

    def diagonal(self) -> Any:
        with operation():
            return to_device(self.matrix.diagonal())

    def toarray(self) -> Any:
        with operation():
            return to_device(self.matrix.toarray())

    def sum(self, axis: int) -> Any:
        with operation(2):
            return to_device(self.matrix.sum(axis=axis))


FORMATS = ("coo", "csr", "csc", "dia")
CLASSES = {f: type(f"{f}_array", (Sparse,), {"format": f}) for f in FORMATS}
MATRICES = {f: type(f"{f}_matrix", (CLASSES[f],), {}) for f in FORMATS}


def connected_components(csgraph: Any, **options: Any) -> Any:
    """Count what the kernels of cupy/0040 are: the count of components is read."""
    with operation(6, 1):
        found = scipy.sparse.csgraph.connected_components(csgraph.matrix, **options)
        return found[0], to_device(found[1])


def eigsh(
    a: Any,
    k: int = 6,
    *,
    which: str = "LM",
    v0: Any = None,
    ncv: int | None = None,
    maxiter: int | None = None,
    tol: float = 0,
    return_eigenvectors: bool = True,
    sigma: float | None = None,
    OPinv: Any = None,  # noqa: N803
) -> Any:
    """Factorize on the host, as cupy/0030 does; its iteration is not counted."""
    assert OPinv is None, "not in use"
    matrix = a.matrix if isinstance(a, Sparse) else to_host(a)
    counts["moved"] += 3 * getattr(matrix, "nbytes", 0)
    with operation(0, 1):
        options = {"which": which, "ncv": ncv, "maxiter": maxiter, "tol": tol, "sigma": sigma}
        start = None if v0 is None else to_host(v0)
        found = scipy.sparse.linalg.eigsh(matrix, k, v0=start, **options)
        found = tuple(map(to_device, found))
    return found if return_eigenvectors else found[0]


def _of_scipy(name: str) -> Callable[..., Any]:
    """Return a function of `cupyx.scipy.ndimage`: as many launches as the input has axes."""
    function = getattr(importlib.import_module("scipy.ndimage"), name)

    def call(image: Any, *args: Any, **kwargs: Any) -> Any:
        with operation(image.ndim) as outermost:
            args, output = tuple(map(_plain, args)), kwargs.get("output")
            kwargs = {key: _plain(value) for key, value in kwargs.items()}
            result = function(to_host(image), *args, **kwargs)
            result = to_device(kwargs["output"] if result is None else result)
            if isinstance(output, Array):
                output[...] = result
        if outermost:
            counts["read"] += nbytes(image)
            counts["written"] += nbytes(result)
        return result

    return call


def _plain(value: Any) -> Any:
    return to_host(value) if isinstance(value, Array) else value


def _isclose(a: Any, b: Any, **options: Any) -> Any:
    with operation():
        return to_device(np.isclose(_plain(a), _plain(b), **options))


class _NdImage(ModuleType):
    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return _of_scipy(name)


def install() -> None:
    """Put the stand-in in the place of CuPy."""
    assert not {"cupy", "skimage", "sklearn"} & sys.modules.keys()
    _wrap_namespace(strict)
    _wrap_namespace(strict.linalg)
    _wrap_array()
    # There is no driver, and nothing that asks for one.
    runtime = SimpleNamespace(getDeviceCount=lambda: 1, CUDARuntimeError=RuntimeError)
    of_strict = {k: v for k, v in vars(strict).items() if not k.startswith("__")}
    cupy = of_strict | {
        "__array_namespace_info__": strict.__array_namespace_info__,
        "ndarray": Array,
        "linalg": strict.linalg,
        "asnumpy": to_host,
        "isclose": _isclose,
        "from_dlpack": lambda x, device=None, copy=None: strict.asarray(x, device=DEVICE),
        "cuda": SimpleNamespace(runtime=runtime),
    }
    sparse = {
        "sparray": Sparse,
        "issparse": lambda x: isinstance(x, Sparse),
        "isspmatrix": lambda x: isinstance(x, tuple(MATRICES.values())),
        **{f"{name}_array": cls for name, cls in CLASSES.items()},
        **{f"{name}_matrix": cls for name, cls in MATRICES.items()},
    }
    linalg = {"eigsh": eigsh, "LinearOperator": type("LinearOperator", (), {})}
    sys.modules["cupyx.scipy.ndimage"] = _NdImage("cupyx.scipy.ndimage")
    _add_module("cupy", cupy)
    _add_module("cupyx.scipy.sparse.csgraph", {"connected_components": connected_components})
    _add_module("cupyx.scipy.sparse.linalg", linalg)
    _add_module("cupyx.scipy.sparse", sparse)
    vars(sys.modules["cupyx.scipy"])["ndimage"] = sys.modules["cupyx.scipy.ndimage"]
    # What array-api-compat adds to CuPy is in the standard, and so here already.
    for vendor in ("", "scipy._external.", "sklearn.externals."):
        sys.modules[f"{vendor}array_api_compat.cupy"] = sys.modules["cupy"]


def _add_module(name: str, contents: dict[str, Any]) -> None:
    """Add to a module, which is made with its parents where it is not there yet."""
    module = sys.modules.setdefault(name, ModuleType(name))
    vars(module).update(contents)
    parent, _, child = name.rpartition(".")
    if parent:
        _add_module(parent, {child: module})
