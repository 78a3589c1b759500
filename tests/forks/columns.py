"""Array libraries on one device, the columns of docs/reference/array-api.md, and test data."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import array_api_strict
import cupy
import cupyx.scipy.sparse
import numpy as np
import scipy.sparse

# Columns: their array library, and the distribution whose version counts.
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
# Here a refusal that no mark announces is a failure; elsewhere it is an honest no.
SERVED = {"strict", "strict-device1", "torch", "torch-cuda", "cupy"}
# These compile operations into one, which rounds in another way.
FUSING = {"jax", "cupy", "torch-cuda"}


def half_imported(name: str) -> list[ModuleType | None]:
    """Return what `sys.modules` may have for a library that others import, or import on use."""

    def fail(attribute: str) -> Any:
        raise ImportError(f"{name}.{attribute}")

    on_use = ModuleType(name)
    on_use.__getattr__ = fail  # type: ignore[method-assign]
    return [ModuleType(name), on_use, None]


@dataclass(frozen=True)
class Column:
    """An array library on one device."""

    name: str
    xp: Any
    device: Any = None

    def __call__(self, array: Any) -> Any:
        """Return a copy in an array of the library; ARPACK, for one, overwrites its input."""
        array = np.array(array)
        if self.name == "dask":
            return self.xp.from_array(array)
        options = {} if self.device is None else {"device": self.device}
        return self.xp.asarray(array, **options)

    def sparse(self, matrix: Any) -> Any:
        """Return the sparse matrix in the sparse arrays of the library, or dense if it has none."""
        if self.name == "numpy":
            return matrix
        if self.name == "cupy":
            return getattr(cupyx.scipy.sparse, f"{matrix.format}_array")(matrix)
        return self(matrix.toarray())

    def to_numpy(self, array: Any) -> np.ndarray:
        if self.name.startswith("strict"):
            array = self.xp.asarray(array, device=self.xp.Device("CPU_DEVICE"))
        if self.name == "torch-cuda":
            array = array.cpu()
        return array.get() if hasattr(array, "get") else np.asarray(array)

    def mismatch(self, array: Any) -> str | None:
        """Return what is wrong with the type or the device of a result."""
        own = self(np.zeros(1))
        if hasattr(array, "tocoo") and self.name == "cupy":
            array = array.data
        if not isinstance(array, type(own)):
            return f"is {type(array).__module__}.{type(array).__name__}"
        if getattr(array, "device", None) != getattr(own, "device", None):
            return f"is on {array.device}, not on {own.device}"
        return None

    def versions(self) -> dict[str, str]:
        """Return the versions of NumPy, the library and the forks."""
        versions = {}
        for distribution in ("numpy", COLUMNS[self.name][1], *FORKS):
            try:
                versions[distribution] = version(distribution)
            except PackageNotFoundError:
                continue
        return versions


def make_column(name: str) -> Column:
    """Return the column; what the library raises where it cannot be used is not caught."""
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


NUMPY = make_column("numpy")


# Bad input is made of these kinds. CuPy can be imported without a GPU, but not allocate: its arrays
# are of the memory of NumPy arrays, which none of its operations can touch, so that each raises an
# error of NO_GPU.


def host_cupy(array: Any) -> Any:
    array = np.array(array)
    memory = cupy.cuda.UnownedMemory(array.ctypes.data, max(array.nbytes, 1), array, 0)
    return cupy.ndarray(array.shape, array.dtype, cupy.cuda.MemoryPointer(memory, 0))


def host_cupyx(array: Any) -> Any:
    coo = scipy.sparse.coo_matrix(np.array(array))
    matrix = cupyx.scipy.sparse.coo_matrix.__new__(cupyx.scipy.sparse.coo_matrix)
    matrix.data, matrix.row, matrix.col = map(host_cupy, (coo.data, coo.row, coo.col))
    matrix._shape, matrix.has_canonical_format = coo.shape, True
    return matrix


def to_scipy(array: Any) -> Any:
    return scipy.sparse.csr_array(np.array(array))


# "device1" of array-api-strict stands for a GPU: NumPy can't convert from there.
OWN: dict[str, Column] = {
    "np": NUMPY,
    "cpu": Column("strict", array_api_strict, array_api_strict.Device("CPU_DEVICE")),
    "device1": Column("strict-device1", array_api_strict, array_api_strict.Device("device1")),
}
KINDS: dict[str, Callable[[Any], Any]] = {
    **OWN,
    "cupy": host_cupy,
    "cupyx": host_cupyx,
    "scipy": to_scipy,
}
NO_GPU = (cupy.cuda.runtime.CUDARuntimeError, ImportError)
NO_GPU_MATCH = "cudaErrorInsufficientDriver|cudaErrorNoDevice|Failure finding .lib"


def has_gpu() -> bool:
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        return False
    return True


FLOATS = ["float32", "float64"]
DTYPES = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", *FLOATS]


def image(dtype: str, shape: tuple[int, ...] = (12, 15)) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    if dtype == "bool":
        return rng.random(shape) > 0.5
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


def sparse(dense: np.ndarray, kind: str) -> Any:
    """Return a matrix in one of SciPy's kinds of sparse arrays."""
    return scipy.sparse.coo_array(dense).asformat(kind)


def pick(data: dict[str, Any], names: str) -> dict[str, Any]:
    """Return what has these names, which spaces separate."""
    return {name: data[name] for name in names.split()}


IMAGE = np.random.default_rng(0).random((6, 7))
TWO_COMPONENTS = np.zeros((4, 4))
TWO_COMPONENTS[0, 1] = TWO_COMPONENTS[1, 0] = 2
TWO_COMPONENTS[2, 3] = TWO_COMPONENTS[3, 2] = 1
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
