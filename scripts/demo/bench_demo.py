"""Measure the demo, stage by stage, at the six image sizes of 2022, and draw time against size.

Every array library that is installed takes part; `--unpatched PYTHON` adds an environment of
unpatched releases, with NumPy. Each round starts one process a series, so that series are
interleaved; a process warms up on a small image and then segments each size once.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

WARM_UP = 0.05
STAND_IN = Path(__file__).parents[2] / "docs" / "figures" / "stand-in.json"
MODULES = {"array-api-strict": "array_api_strict"}
COUNTED = {"launches": "kernel launches", "syncs": "host synchronisations"}
VERSIONS = ("numpy", "scipy", "scikit-learn", "scikit-image")
# Read off the plots of 2022, to 0.3 s: spectral_clustering alone, at these numbers of pixels.
PUBLISHED_PIXELS = (30 * 38, 61 * 77, 121 * 154, 182 * 230, 242 * 307, 303 * 384)
PUBLISHED = {
    "2022: CuPy, MI50": (0.8, 5.4, 4.7, 6.3, 14.2, 25.9),
    "2022: NumPy, 64-core CPU": (0.6, 3.7, 10.8, 15.6, 27.2, 69.8),
    "2022: CuPy, TITAN RTX": (0.6, 6.8, 5.1, 7.7, 14.4, 27.9),
    "2022: NumPy, 24-core CPU": (0.6, 4.6, 9.4, 20.8, 38, 170),
}


class Series(NamedTuple):
    """One curve: an array library on a device, in the environment of a Python."""

    name: str
    xp: str
    device: str | None
    python: str


def one_round(series: Series, scales: list[float], labels: str) -> dict[str, Any]:
    """Run a series once at each scale, in a process of its own."""
    command = [series.python, __file__, "--one", "--xp", series.xp, "--labels", labels]
    command += ["--scales", ",".join(f"{s:g}" for s in scales)]
    if series.device:
        command += ["--device", series.device]
    env = {k: v for k, v in os.environ.items() if k != "SCIPY_ARRAY_API"}
    if series.xp != "numpy":
        env["SCIPY_ARRAY_API"] = "1"
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{series.name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure_here(xp: str, device: str | None, scales: list[float], labels: str) -> dict[str, Any]:
    """Segment each size once; what a library cannot do is recorded with its reason."""
    import coins

    try:
        backend = coins.make_backend(xp, device)
    except coins.UnusableError as error:
        return {"unusable": str(error)}
    rows = []
    coins.segment(backend, scale=WARM_UP, labels=labels, regions=5)
    for scale in scales:
        try:
            coins.check_size(backend, scale)
        except coins.UnusableError as error:
            rows.append({"scale": scale, "skipped": str(error)})
            continue
        before = time.process_time()
        found = coins.segment(backend, scale=scale, labels=labels)
        rows.append(
            {
                "scale": scale,
                "shape": list(found.image.shape),
                "seconds": found.seconds,
                "cpu_seconds": time.process_time() - before,
            }
        )
    versions = {name: version(name) for name in VERSIONS}
    return {"device": str(backend.device), "versions": versions, "rows": rows}


def median_interval(values: list[float]) -> tuple[float, float, float]:
    """Return the median and its 95 % interval from order statistics (Conover 1999, 3.2)."""
    ordered, n = sorted(values), len(values)
    rank = 0
    # Coverage of [x(k), x(n+1-k)] is 1 - 2 P(Binomial(n, 1/2) < k).
    while (
        2 * sum(math.comb(n, i) for i in range(rank + 2)) / 2**n <= 0.05  # noqa: PLR2004 (1 - 95 %)
    ):
        rank += 1
    return statistics.median(ordered), ordered[rank], ordered[n - 1 - rank]


def combine(rounds: list[dict[str, Any]], scales: list[float]) -> list[dict[str, Any]]:
    """Return, for each scale, best and median of each stage over the rounds."""
    table = []
    for at, scale in enumerate(scales):
        rows = [found["rows"][at] for found in rounds]
        if "skipped" in rows[0]:
            table.append(rows[0])
            continue
        runs = [row["seconds"] | {"all": sum(row["seconds"].values())} for row in rows]
        table.append(
            {
                "scale": scale,
                "shape": rows[0]["shape"],
                "best": {s: min(r[s] for r in runs) for s in runs[0]},
                "median": {s: statistics.median(r[s] for r in runs) for s in runs[0]},
                "cpu_seconds": [row["cpu_seconds"] for row in rows],
            }
        )
    return table


def plot(path: Path, figures: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    counted = all(series["device"] == "cpu" for series in figures["series"])
    size = (13 if counted else 8, 5.5)
    figure, [[axes, *right]] = plt.subplots(
        1, 1 + counted, figsize=size, layout="constrained", squeeze=False
    )
    for at, series in enumerate(figures["series"]):
        rows = [row for row in series["rows"] if "median" in row]
        sizes = [math.prod(row["shape"]) for row in rows]
        times = [row["median"]["clustering"] for row in rows]
        # The first is drawn thick, so that it shows under one that is as fast.
        style: dict[str, Any] = {"lw": 5, "alpha": 0.4} if at == 0 else {"marker": "o"}
        axes.plot(sizes, times, label=series["name"], **style)
    for at, (name, values) in enumerate(PUBLISHED.items()):
        style = {"ls": "--" if "NumPy" in name else ":", "marker": "x+12"[at], "ms": 9}
        axes.plot(PUBLISHED_PIXELS, values, lw=1.2, color=f"C{4 + at}", label=name, **style)
    axes.set(xscale="log", yscale="log", xlabel="pixels", ylabel="seconds")
    axes.set_title(
        f"Spectral clustering of the coins, {figures['labels']}\n"
        "broken lines: published in 2022, on other hardware, with another algorithm",
        fontsize=10,
    )
    axes.grid(which="both", alpha=0.2)
    axes.legend(fontsize=8)
    if counted:
        plot_counts(right[0], figures["labels"])
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_counts(axes: Any, labels: str) -> None:
    """Draw what the clustering asked of the stand-in for CuPy, where no GPU was measured."""
    rows = [row for row in json.loads(STAND_IN.read_text()) if row["labels"] == labels]
    sizes = [math.prod(row["shape"]) for row in rows]
    for name, marker in (("launches", "o"), ("syncs", "s")):
        counts = [row["stages"]["clustering"][name] for row in rows]
        axes.plot(sizes, counts, marker=marker, label=COUNTED[name])
    axes.set(xscale="log", yscale="log", xlabel="pixels", ylabel="count")
    axes.set_title(f"A GPU: not measured. Counts on the stand-in for CuPy, {labels}", fontsize=10)
    axes.grid(which="both", alpha=0.2)
    axes.legend(fontsize=8)


def choose(options: argparse.Namespace) -> list[Series]:
    """Return the series that were asked for, or those whose library is installed."""
    import coins

    names = options.xp or [
        name for name in coins.NAMESPACES if importlib.util.find_spec(MODULES.get(name, name))
    ]
    chosen = [
        Series(
            name + (f", {options.device}" if options.device else ""),
            name,
            options.device,
            sys.executable,
        )
        for name in names
    ]
    if options.unpatched:
        chosen.insert(0, Series("numpy, unpatched", "numpy", None, options.unpatched))
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--xp", action="append", help="only this library; repeatable")
    parser.add_argument("--device", help="as the library names it")
    parser.add_argument("--scales", default="0.1,0.2,0.4,0.6,0.8,1.0")
    parser.add_argument("--labels", default="cluster_qr")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--unpatched", metavar="PYTHON", help="of such an environment")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--redraw", action="store_true", help="--plot of the --json that is there")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    scales = [float(s) for s in options.scales.split(",")]
    if options.one:
        found = measure_here(options.xp[0], options.device, scales, options.labels)
        print(json.dumps(found))
        return
    if options.redraw:
        plot(options.plot, json.loads(options.json.read_text()))
        return
    rounds: dict[Series, list[dict[str, Any]]] = {s: [] for s in choose(options)}
    for number in range(options.runs):
        for series in list(rounds):
            print(f"round {number + 1}: {series.name}", file=sys.stderr, flush=True)
            found = one_round(series, scales, options.labels)
            if "unusable" in found:
                print(f"{series.name}: {found['unusable']}", file=sys.stderr)
                del rounds[series]
            else:
                rounds[series].append(found)
    figures: dict[str, Any] = {
        "labels": options.labels,
        "runs": options.runs,
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform()},
        "series": [
            {
                "name": series.name,
                "device": found[0]["device"],
                "versions": found[0]["versions"],
                "rows": combine(found, scales),
            }
            for series, found in rounds.items()
        ],
    }
    report(figures)
    if options.unpatched:
        figures["cpu_ratio_to_unpatched"] = ratio(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.plot:
        plot(options.plot, figures)


def report(figures: dict[str, Any]) -> None:
    for series in figures["series"]:
        print(f"{series['name']} on {series['device']}: median seconds")
        for row in series["rows"]:
            if "skipped" in row:
                print(f"  {row['scale']:4g}  {row['skipped']}")
                continue
            height, width = row["shape"]
            stages = "  ".join(f"{s} {v:.3f}" for s, v in row["median"].items())
            print(f"  {row['scale']:4g}  {height} x {width}  {stages}")


def ratio(figures: dict[str, Any]) -> dict[str, float]:
    """Return the CPU time of patched to unpatched NumPy: median of the rounds, and interval."""
    totals = {
        series["name"]: [
            sum(values) for values in zip(*(r["cpu_seconds"] for r in series["rows"]), strict=True)
        ]
        for series in figures["series"]
    }
    pairs = zip(totals["numpy"], totals["numpy, unpatched"], strict=True)
    middle, low, high = median_interval([a / b for a, b in pairs])
    print(f"CPU time, patched to unpatched: {middle:.3f}, interval {low:.3f} {high:.3f}")
    return {"median": middle, "low": low, "high": high}


if __name__ == "__main__":
    main()
