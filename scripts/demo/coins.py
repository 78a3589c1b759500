"""The demo's pipeline: the Greek coins, segmented on the arrays of one library from load to labels.

Filter, rescale, image to graph, weights, spectral clustering: the steps of scikit-learn's example
"Segmenting the picture of greek coins in regions", with public functions only. Runs in the
environment of the forks, on NumPy also in one of unpatched releases. For all array libraries but
NumPy, SCIPY_ARRAY_API=1 has to be set before any import.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import skimage.data
import sklearn
from skimage.filters import gaussian
from skimage.transform import rescale
from sklearn.cluster import spectral_clustering
from sklearn.feature_extraction.image import grid_to_graph, img_to_graph

NAMESPACES = ("numpy", "cupy", "torch", "array-api-strict")
LABELS = ("discretize", "kmeans", "cluster_qr")
SCALES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
STAGES = ("load", "filter", "rescale", "graph", "weights", "clustering")
# Of the demonstration of 2022 were 25; scikit-learn's example has 26.
REGIONS = 26
SIGMA = 2.0
BETA, EPS = 10.0, 1e-6


class UnusableError(Exception):
    """What was asked for cannot run here; the message says why, and what can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """An array library on one device; `synchronize` returns when the device has done its work."""

    name: str
    xp: ModuleType
    device: Any
    synchronize: Callable[[], None]
    sparse: bool = False

    def to_numpy(self, array: Any) -> np.ndarray:
        if self.name == "cupy":
            return array.get()
        if self.name == "torch":
            return array.cpu().numpy()
        if self.name == "array-api-strict":
            array = self.xp.asarray(array, device=self.xp.Device("CPU_DEVICE"))
        return np.asarray(array)


class Segmentation(NamedTuple):
    """The rescaled image and its labels, arrays of one shape; seconds by stage."""

    image: Any
    labels: Any
    seconds: dict[str, float]


def make_backend(name: str, device: str | None = None) -> Backend:
    """Return an array library; `device` as it is spelled there, by default a GPU if it has one.

    Raises UnusableError if the library or the device is not there.
    """
    if name != "numpy" and not os.environ.get("SCIPY_ARRAY_API"):
        raise UnusableError("set SCIPY_ARRAY_API=1 in the environment of the process")
    try:
        return {"numpy": _numpy, "cupy": _cupy, "torch": _torch}.get(name, _strict)(device)
    except ImportError as error:
        raise UnusableError(f"{name} is not installed: {error}") from error


def _numpy(device: str | None) -> Backend:
    if device not in {None, "cpu"}:
        raise UnusableError(f"numpy has no device {device!r}, only 'cpu'")
    return Backend(name="numpy", xp=np, device="cpu", synchronize=lambda: None, sparse=True)


def _cupy(device: str | None) -> Backend:
    import cupy

    try:
        chosen = cupy.cuda.Device(None if device is None else int(device))
        chosen.use()
        cupy.arange(1).sum()
    except ValueError as error:
        raise UnusableError(f"cupy counts devices: 0, 1; not {device!r}") from error
    # CuPy has many kinds of error for a missing driver, device or library, without a common base.
    except Exception as error:
        raise UnusableError(
            f"CuPy finds no usable GPU ({type(error).__name__}: {error}); `--xp numpy` runs "
            "without one, and `patchwheel env --gpu` adds CUDA's libraries where there is a driver"
        ) from error
    return Backend(name="cupy", xp=cupy, device=chosen, synchronize=chosen.synchronize, sparse=True)


def _torch(device: str | None) -> Backend:
    import torch

    default = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device or default)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UnusableError(f"torch has no device {device!r}: {error}") from error

    def synchronize() -> None:
        if chosen.type == "cuda":
            torch.cuda.synchronize(chosen)

    return Backend(name="torch", xp=torch, device=chosen, synchronize=synchronize)


def _strict(device: str | None) -> Backend:
    import array_api_strict as xp

    names = [str(d).split("'")[1] for d in xp.__array_namespace_info__().devices()]
    if device not in {None, *names}:
        raise UnusableError(f"array-api-strict has the devices {', '.join(names)}")
    chosen = xp.Device(device or "CPU_DEVICE")
    return Backend(name="array-api-strict", xp=xp, device=chosen, synchronize=lambda: None)


def check_size(backend: Backend, scale: float) -> None:
    """Raise UnusableError if the graph is dense and takes more than a quarter of the memory."""
    pixels = int(303 * scale) * int(384 * scale)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if not backend.sparse and pixels**2 * 8 > memory // 4:
        raise UnusableError(
            f"{backend.name} has no sparse arrays: the dense graph of {pixels:,} pixels takes "
            f"{pixels**2 * 8 / 1e9:.0f} GB, and the solver several times that; try --scale 0.2"
        )


def segment(backend: Backend, *, scale: float, labels: str, regions: int = REGIONS) -> Segmentation:
    """Segment the coins, rescaled; `labels` is how scikit-learn assigns the regions."""
    xp, seconds = backend.xp, {}
    begin = time.perf_counter()

    def stop(stage: str) -> None:
        nonlocal begin
        backend.synchronize()
        now = time.perf_counter()
        seconds[stage], begin = now - begin, now

    # Without a dispatch, scikit-learn turns what is not NumPy's into NumPy arrays, or fails.
    dispatch = nullcontext() if xp is np else sklearn.config_context(array_api_dispatch=True)
    with dispatch:
        coins = xp.asarray(skimage.data.coins(), device=backend.device)
        stop("load")
        smooth = gaussian(coins, sigma=SIGMA)
        stop("filter")
        image = rescale(smooth, scale, mode="reflect", anti_aliasing=False)
        stop("rescale")
        graph = make_graph(backend, image)
        stop("graph")
        graph = weigh(backend, graph, image)
        stop("weights")
        found = spectral_clustering(
            graph, n_clusters=regions, assign_labels=labels, random_state=42
        )
        stop("clustering")
    return Segmentation(image, xp.reshape(found, image.shape), seconds)


def make_graph(backend: Backend, image: Any) -> Any:
    """Return the graph of the gradients between pixels: sparse if there are sparse arrays."""
    if backend.sparse:
        return img_to_graph(image)
    return img_to_graph(image, return_as=np.ndarray)


def weigh(backend: Backend, graph: Any, image: Any) -> Any:
    """Turn gradients into affinities, exp(-beta g / std(g)) + eps, on the edges only."""
    xp = backend.xp
    if backend.sparse:
        graph.data = xp.exp(-BETA * graph.data / graph.data.std()) + EPS
        return graph
    # In a dense graph, edges without a gradient and pairs without an edge are both zeros.
    everywhere = xp.ones(image.shape, dtype=xp.bool, device=backend.device)
    edges = grid_to_graph(*image.shape, mask=everywhere, return_as=np.ndarray) != 0
    spread = xp.std(graph[edges], correction=0)  # torch's default is another
    affinities = xp.exp(-BETA * graph / spread) + EPS
    return xp.where(edges, affinities, xp.zeros_like(affinities))
