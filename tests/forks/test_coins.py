"""The coins' labels and eigenvectors, as the demo computes them, beside those of shift-invert."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import coins
import numpy as np
import pytest
import skimage.data
from scipy.linalg import subspace_angles
from scipy.sparse.csgraph import laplacian
from scipy.sparse.linalg import eigsh
from skimage import filters, transform
from sklearn.cluster import k_means
from sklearn.cluster._spectral import cluster_qr, discretize
from sklearn.manifold import spectral_embedding
from sklearn.metrics import adjusted_rand_score

from tests.forks.columns import Column
from tests.forks.verdicts import Tolerance, Verdict

ANGLE, RESIDUAL, ARI = 1e-3, 1e-5, 0.95
LABELS: dict[str, Callable[[Any], Any]] = {
    "cluster_qr": cluster_qr,
    "discretize": functools.partial(discretize, random_state=42),
    "k_means": lambda e: k_means(e, e.shape[1], n_init=1, random_state=42)[1],
}


@dataclass(frozen=True)
class Spectrum:
    """The lower end of the spectrum of the coins' Laplacian, cut to `k` at a clear gap."""

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
        angle = float(np.max(subspace_angles(basis, self.vectors[:, : self.k])))
        wrong = [f"residual {residual:.1g}"] if residual > RESIDUAL else []
        if angle > ANGLE:
            wrong.append(f"an eigenvector is missed: angle {angle:.2g}")
        return wrong


def solve(scale: float) -> Spectrum:
    backend = coins.make_backend("numpy")
    smooth = filters.gaussian(skimage.data.coins(), sigma=coins.SIGMA)
    small = transform.rescale(smooth, scale, mode="reflect", anti_aliasing=False)
    weights = coins.weigh(backend, coins.make_graph(backend, small), small)
    matrix, diagonal = laplacian(weights, normed=True, return_diag=True)
    start = np.ones(matrix.shape[0])
    values, vectors = eigsh(matrix.tocsc(), 32, sigma=-1e-5, which="LM", v0=start)
    order = np.argsort(values)
    return Spectrum(weights, matrix, diagonal, values[order], vectors[:, order])


def embed(a: Column, known: Spectrum) -> Any:
    """Return the embedding of the coins' pixels in the arrays of the column."""
    graph = a.sparse(known.graph.tocsr())
    return spectral_embedding(graph, n_components=known.k, drop_first=False, random_state=42)


@pytest.mark.calls(
    "sklearn.manifold.spectral_embedding, labels of the coins",
    ["scipy/0040", "scikit-learn/0020", "scikit-learn/0050", "scikit-learn/0080"],
    Tolerance(),
)
def test_eigenvectors_and_labels(
    conclude: Callable[[Verdict], None], column: Column, scale: float
) -> None:
    known = solve(scale)
    try:
        embedding = embed(column, known)
    except TypeError as error:
        conclude(Verdict("no", f"TypeError: {error!s:.200}"))
        return
    if wrong := column.mismatch(embedding):
        conclude(Verdict("fails", f"embedding {wrong}"))
        return
    problems = known.wrong(column.to_numpy(embedding) * known.diagonal[:, np.newaxis])
    reference = known.vectors[:, : known.k] / known.diagonal[:, np.newaxis]
    for name, assign in LABELS.items():
        expected, got = assign(reference), column.to_numpy(assign(embedding))
        if name == "discretize":
            agreement = adjusted_rand_score(expected, got)
            if agreement < ARI:
                problems.append(f"discretize: ARI {agreement:.3f} below {ARI}")
        elif not np.array_equal(expected, got):
            problems.append(f"{name}: {np.sum(expected != got)} labels differ")
    conclude(Verdict("fails" if problems else "yes", "; ".join(problems)))
