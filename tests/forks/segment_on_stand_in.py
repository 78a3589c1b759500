"""Segment the coins on the stand-in for CuPy, and print what it counted, stage by stage, as JSON.

CUPY_STAND_IN=1 PYTHON -m tests.forks.segment_on_stand_in cluster_qr 0.2 1.0
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cupy
import numpy as np
from sklearn.metrics import adjusted_rand_score

from tests.forks import stand_in

sys.path.append(str(Path(__file__).parents[2] / "scripts" / "demo"))
import coins


def segment(labels: str, scale: float) -> dict[str, Any]:
    """Return the counts of each stage, and how the labels compare with NumPy's."""
    stages: list[dict[str, int]] = []

    def stop() -> None:
        stages.append(dict(stand_in.counts))
        stand_in.counts.clear()

    backend = coins.Backend(
        name="cupy", xp=cupy, device=stand_in.DEVICE, synchronize=stop, sparse=True
    )
    stand_in.counts.clear()
    found = coins.segment(backend, scale=scale, labels=labels)
    expected = coins.segment(coins.make_backend("numpy"), scale=scale, labels=labels)
    ours, theirs = backend.to_numpy(found.labels), expected.labels
    return {
        "labels": labels,
        "scale": scale,
        "shape": list(theirs.shape),
        "differing": int(np.sum(ours != theirs)),
        "ari": float(adjusted_rand_score(ours.ravel(), theirs.ravel())),
        "image_differs": float(np.max(np.abs(backend.to_numpy(found.image) - expected.image))),
        "stages": dict(zip(coins.STAGES, stages, strict=True)),
    }


if __name__ == "__main__":
    method, *scales = sys.argv[1:]
    for scale in map(float, scales):
        print(json.dumps(segment(method, scale)), flush=True)  # noqa: T201
