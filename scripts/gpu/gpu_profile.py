"""Profile the demo on CuPy, by CUPTI's records: gpu_profile.py SCALE LABELS OUTPUT."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Records of CUPTI, beside copies: where the heads of all versions have start and end
# (cupti_activity.h, to 13.5), and CUpti_ActivityKernel* its name.
COPY, KERNEL, SYNCHRONIZATION = 1, 10, 38
START = {COPY: 16, KERNEL: 16, SYNCHRONIZATION: 8}
NAME = 104
BUSY = 0.7


class Spans:
    """Start and end of each record, by kind, and the durations of each kernel, by its name."""

    def __init__(self) -> None:
        self.spans: dict[int, list[tuple[int, int]]] = {kind: [] for kind in START}
        self.kernels: dict[int, list[int]] = {}

    def taker(self, kind: int) -> Callable[[int], None]:
        def take(address: int) -> None:
            at = address + START[kind]
            start, end = (ctypes.c_uint64.from_address(at + i).value for i in (0, 8))
            self.spans[kind].append((start, end))
            if kind == KERNEL:
                name = ctypes.c_uint64.from_address(address + NAME).value
                self.kernels.setdefault(name, []).append(end - start)

        return take

    def seconds(self, kind: int) -> float:
        return sum(end - start for start, end in self.spans[kind]) / 1e9

    def longest(self) -> dict[str, list[float]]:
        """Return count and seconds of the kernels that take longest."""
        rows = sorted(self.kernels.items(), key=lambda item: -sum(item[1]))[:8]
        return {
            # CUPTI keeps the names until the process ends.
            ctypes.string_at(name).decode()[:160]: [len(times), sum(times) / 1e9]
            for name, times in rows
            if name
        }


def profile(scale: float, labels: str) -> dict[str, Any]:
    """Segment once without and once with records of kernels, copies and synchronisations.

    GPU busy time is the sum over kernels and copies; CuPy uses one stream, so that they do not
    overlap.
    """
    import coins
    from traffic import Traffic, find_cupti, recording

    backend = coins.make_backend("cupy")
    cupti = find_cupti()
    if cupti is None:
        raise coins.UnusableError("libcupti was not found")

    def now() -> int:
        stamp = ctypes.c_uint64()
        cupti.cuptiGetTimestamp(ctypes.byref(stamp))
        return stamp.value

    def segment() -> float:
        begin = time.perf_counter()
        coins.segment(backend, scale=scale, labels=labels)
        return time.perf_counter() - begin

    segment()  # compiles the kernels
    wall, found, traffic, first = segment(), Spans(), Traffic(), now()
    takers = {kind: found.taker(kind) for kind in START}
    with recording(cupti, traffic, backend.synchronize, takers):
        recorded = segment()
    last = now()
    for kind, spans in found.spans.items():
        if any(not first <= a <= b <= last for a, b in spans):
            raise ValueError(f"this libcupti has records of kind {kind} laid out anew")
    busy = found.seconds(KERNEL) + found.seconds(COPY)
    kernels = len(found.spans[KERNEL])
    return {
        "scale": scale,
        "labels": labels,
        "wall_seconds": wall,
        "wall_seconds_recorded": recorded,
        "gpu_busy_seconds": busy,
        "kernels": kernels,
        "kernel_seconds": found.seconds(KERNEL),
        "copies": len(found.spans[COPY]),
        "copies_to_host": traffic.copies_to_host,
        "synchronizations": len(found.spans[SYNCHRONIZATION]),
        "synchronization_seconds": found.seconds(SYNCHRONIZATION),
        "dropped": traffic.dropped,
        "longest": found.longest(),
        "limit": limit(busy, wall, kernels),
    }


def limit(busy: float, wall: float, kernels: int) -> str:
    """Say what limits a run that kept the GPU busy for `busy` of `wall` seconds."""
    share, each = busy / wall, wall / max(kernels, 1) * 1e6
    facts = f"the GPU is busy for {share:.0%} of the time, one kernel each {each:.1f} microseconds"
    if share > BUSY:
        return f"{facts}: the work on the GPU limits"
    return f"{facts}: launches and synchronisation on the host limit"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).absolute().parents[1] / "demo"))
    os.environ["SCIPY_ARRAY_API"] = "1"
    Path(sys.argv[3]).write_text(json.dumps(profile(float(sys.argv[1]), sys.argv[2])))
