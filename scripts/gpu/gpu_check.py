"""Check the patched forks on a GPU, in one command: labels, bytes, eigenvectors, a profile, upstream's tests, times.

Every part runs in processes of its own, so that one that fails or hangs does not stop the others; after each, OUT
holds gpu-check.json. Exits with 6 if a check failed, with 7 without a usable GPU. `--xp` takes any array library of the
demo: without a GPU, `--xp numpy` or `--xp array-api-strict --scales 0.1` tries the rest.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PARTS = ("demo", "eigen", "profile", "tests", "bench")
FORKS = ("scipy", "scikit-learn", "scikit-image")
LARGEST_TO_HOST = 64 << 10
MIN_ARI = 0.85
# By the solver's tolerance: the largest residual, and sine of an angle, which is 1 when an eigenvector was missed.
# The tolerance of the demo, 1e-5, is not far below the gaps between eigenvalues; the other is for the solver itself.
BOUNDS = {"auto": (1e-4, 5e-2), "1e-07": (1e-6, 1e-3)}
# Records of CUPTI, beside copies: where the heads of all versions have start and end (cupti_activity.h, to 13.5), and
# CUpti_ActivityKernel* its name.
COPY, KERNEL, SYNCHRONIZATION = 1, 10, 38
START = {COPY: 16, KERNEL: 16, SYNCHRONIZATION: 8}
NAME = 104
BUSY = 0.7
FAILED, UNUSABLE, NO_TESTS = 6, 7, 5


# In the processes of the parts.


def work_demo(xp: str, scales: list[float], labels: str, folder: str) -> Iterator[dict[str, Any]]:
    """Segment once at each scale; labels and image are left in `folder`."""
    import coins
    import numpy as np
    from traffic import count_traffic

    backend = coins.make_backend(xp)
    for scale in scales:
        with count_traffic(backend) as traffic:
            found = coins.segment(backend, scale=scale, labels=labels)
        path = Path(folder) / f"{xp}-{labels}-{scale:g}.npz"
        image, regions = (backend.to_numpy(a) for a in (found.image, found.labels))
        np.savez(path, image=image, labels=regions)
        yield {
            "scale": scale,
            "seconds": found.seconds,
            "largest_to_host": traffic and traffic.largest_to_host,
            "to_host": traffic and traffic.to_host,
            "to_device": traffic and traffic.to_device,
            "dropped": traffic.dropped if traffic else 0,
        }


def work_eigen(xp: str, scales: list[float]) -> Iterator[dict[str, Any]]:
    """Compare the eigenvectors of a library with the Laplacian, and the eigenvectors, that SciPy finds on the host.

    Single vectors are not defined where eigenvalues nearly meet: the angle is one between the spaces of the first
    `cut` vectors, where the next eigenvalue is farthest. Each scale is solved with each of the tolerances in BOUNDS.
    """
    import coins
    import numpy as np
    from scipy.sparse.csgraph import laplacian

    host, backend = coins.make_backend("numpy"), coins.make_backend(xp)
    for scale in scales:
        graph = weighted_graph(host, scale)
        matrix, roots = laplacian(graph.tocsr(), normed=True, return_diag=True)

        def unit(vectors: Any, roots: Any = roots) -> Any:
            vectors = vectors * roots[:, None]
            return vectors / np.linalg.norm(vectors, axis=0)

        expected = unit(embed(host, graph))
        spectrum = np.sum(expected * (matrix @ expected), axis=0)
        cut = 2 + int(np.argmax(np.diff(spectrum)[1:]))
        for tolerance in BOUNDS:
            begin = time.perf_counter()
            found = embed(backend, weighted_graph(backend, scale), tolerance)
            vectors = unit(backend.to_numpy(found))
            seconds = time.perf_counter() - begin
            values = np.sum(vectors * (matrix @ vectors), axis=0)
            residuals = np.linalg.norm(matrix @ vectors - vectors * values, axis=0)
            ours, theirs = (np.linalg.qr(v[:, :cut])[0] for v in (vectors, expected))
            angle = np.linalg.norm(ours - theirs @ (theirs.T @ ours), 2)
            yield {
                "scale": scale,
                "tolerance": tolerance,
                "largest_residual": float(residuals.max()),
                "sine_of_angle": float(angle),
                "cut": cut,
                "gap": float(spectrum[cut] - spectrum[cut - 1]),
                "seconds": seconds,
            }


def weighted_graph(backend: Any, scale: float) -> Any:
    import coins
    import skimage.data
    import sklearn
    from skimage.filters import gaussian
    from skimage.transform import rescale

    picture = backend.xp.asarray(skimage.data.coins(), device=backend.device)
    with sklearn.config_context(array_api_dispatch=backend.name != "numpy"):
        smooth = gaussian(picture, sigma=coins.SIGMA)
        image = rescale(smooth, scale, mode="reflect", anti_aliasing=False)
        return coins.weigh(backend, coins.make_graph(backend, image), image)


def embed(backend: Any, graph: Any, tolerance: str = "auto") -> Any:
    """Return the first eigenvectors of the graph's Laplacian, as spectral_clustering asks for them."""
    import coins
    import sklearn
    from sklearn.manifold import spectral_embedding

    with sklearn.config_context(array_api_dispatch=backend.name != "numpy"):
        return spectral_embedding(
            graph,
            n_components=coins.REGIONS,
            random_state=42,
            eigen_tol=tolerance if tolerance == "auto" else float(tolerance),
            drop_first=False,
        )


def work_profile(xp: str, scale: float, labels: str) -> Iterator[dict[str, Any]]:
    """Segment once without and once with records of kernels, copies and synchronisations.

    GPU busy time is the sum over kernels and copies; CuPy uses one stream, so that they do not overlap.
    """
    import coins
    from traffic import Traffic, find_cupti, recording

    backend = coins.make_backend(xp)
    cupti = find_cupti()
    if cupti is None:
        raise coins.UnusableError("libcupti was not found")

    def now() -> int:
        stamp = ctypes.c_uint64()
        cupti.cuptiGetTimestamp(ctypes.byref(stamp))
        return stamp.value

    spans: dict[int, list[tuple[int, int]]] = {kind: [] for kind in START}
    kernels: dict[int, list[int]] = {}

    def taker(kind: int) -> Callable[[int], None]:
        def take(address: int) -> None:
            at = address + START[kind]
            start, end = (ctypes.c_uint64.from_address(at + i).value for i in (0, 8))
            spans[kind].append((start, end))
            if kind == KERNEL:
                name = ctypes.c_uint64.from_address(address + NAME).value
                kernels.setdefault(name, []).append(end - start)

        return take

    coins.segment(backend, scale=scale, labels=labels)  # compiles the kernels
    walls, traffic = [], Traffic()
    begin = time.perf_counter()
    coins.segment(backend, scale=scale, labels=labels)
    walls.append(time.perf_counter() - begin)
    first = now()
    begin = time.perf_counter()
    takers = {kind: taker(kind) for kind in START}
    with recording(cupti, traffic, backend.synchronize, takers):
        coins.segment(backend, scale=scale, labels=labels)
        walls.append(time.perf_counter() - begin)
    last = now()
    for kind, found in spans.items():
        if any(not first <= a <= b <= last for a, b in found):
            raise ValueError(f"this libcupti has records of kind {kind} laid out anew")
    seconds = {k: sum(b - a for a, b in found) / 1e9 for k, found in spans.items()}
    busy = seconds[KERNEL] + seconds[COPY]
    longest = sorted(kernels.items(), key=lambda item: -sum(item[1]))[:8]
    yield {
        "scale": scale,
        "labels": labels,
        "wall_seconds": walls[0],
        "wall_seconds_recorded": walls[1],
        "gpu_busy_seconds": busy,
        "kernels": len(spans[KERNEL]),
        "kernel_seconds": seconds[KERNEL],
        "copies": len(spans[COPY]),
        "copies_to_host": traffic.copies_to_host,
        "synchronizations": len(spans[SYNCHRONIZATION]),
        "synchronization_seconds": seconds[SYNCHRONIZATION],
        "dropped": traffic.dropped,
        "longest": {
            # CUPTI keeps the names until the process ends.
            ctypes.string_at(name).decode()[:160]: [len(times), sum(times) / 1e9]
            for name, times in longest
            if name
        },
        "limit": limit(busy, walls[0], len(spans[KERNEL])),
    }


def limit(busy: float, wall: float, kernels: int) -> str:
    """Say what limits a run that kept the GPU busy for `busy` of `wall` seconds."""
    share, each = busy / wall, wall / max(kernels, 1) * 1e6
    facts = f"the GPU is busy for {share:.0%} of the time, one kernel each {each:.1f} microseconds"
    if share > BUSY:
        return f"{facts}: the work on the GPU limits"
    return f"{facts}: launches and synchronisation on the host limit"


# In the process that was started.


class Report:
    """Rows of the table, and what is behind them; written out after each part."""

    def __init__(self, out: Path, facts: dict[str, Any]) -> None:
        self.out = out
        self.rows: list[tuple[str, str, str, str]] = []
        self.facts = facts

    def add(self, part: str, what: str, value: str, *, ok: bool | None) -> None:
        """Add a check; `ok` is None for what was left out."""
        word = {True: "ok", False: "FAILED", None: "skipped"}[ok]
        self.rows.append((part, what, value, word))
        print(f"{word:8} {part:8} {what:28} {value}", flush=True)

    def write(self) -> None:
        names = ("part", "what", "value", "result")
        rows = [dict(zip(names, row, strict=True)) for row in self.rows]
        text = json.dumps({"checks": rows, **self.facts}, indent=1)
        (self.out / "gpu-check.json").write_text(text + "\n")


class Checks:
    """The parts, on one array library; `folder` is for what is not kept."""

    def __init__(self, options: argparse.Namespace, report: Report, folder: Path) -> None:
        self.options = options
        self.report = report
        self.folder = folder

    def start(self, command: list[str], **env: str) -> str | None:
        """Run a command; return why it failed, if so. All it says goes to the log."""
        with (self.report.out / "gpu-check.log").open("a+") as log:
            print("$", *command, file=log, flush=True)
            begin = log.seek(0, os.SEEK_END)
            try:
                status = subprocess.run(
                    [sys.executable, *command],
                    stdout=log,
                    stderr=log,
                    # Not where the user is: `-m` would import from there.
                    cwd=self.folder,
                    env={**os.environ, **env},
                    timeout=self.options.limit,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                return f"stopped after {self.options.limit} s"
            log.seek(begin)
            last = log.read().strip().rpartition("\n")[2]
        return f"exit status {status}: {last[:200]}" if status else None

    def work(self, part: str, **arguments: Any) -> tuple[list[dict[str, Any]], str]:
        """Run a part's function in a process; return what it found, and why it did not find all."""
        path = self.folder / "found.jsonl"
        path.write_text("")
        asked = json.dumps({"part": part, "path": str(path), **arguments})
        env = {} if arguments["xp"] == "numpy" else {"SCIPY_ARRAY_API": "1"}
        error = self.start([__file__, "--work", asked], **env)
        return [json.loads(row) for row in path.read_text().splitlines()], error or ""

    def demo(self) -> None:
        """Compare labels with NumPy's on the CPU, and count the bytes between host and device."""
        xp, scales = self.options.xp, self.options.scales
        for labels in self.options.labels:
            ours, error = self.work(
                "demo", xp=xp, scales=scales, labels=labels, folder=str(self.folder)
            )
            if xp != "numpy":
                # In the other order, a machine without time left would have nothing of the GPU.
                _, missing = self.work(
                    "demo", xp="numpy", scales=scales, labels=labels, folder=str(self.folder)
                )
                error = error or missing
            self.report.facts.setdefault("demo", {})[labels] = ours
            for scale in scales[: len(ours)]:
                self.compare(labels, scale)
            for row in ours:
                self.count(labels, row)
            if error:
                self.report.add("demo", labels, error, ok=False)

    def compare(self, labels: str, scale: float) -> None:
        """Compare with NumPy's labels: equal, or similar where the solver decides on where a search starts."""
        import numpy as np
        from sklearn.metrics import adjusted_rand_score

        ours, theirs = (
            self.folder / f"{xp}-{labels}-{scale:g}.npz" for xp in (self.options.xp, "numpy")
        )
        if not theirs.exists():
            return
        a, b = np.load(ours)["labels"], np.load(theirs)["labels"]
        what = f"{labels} {scale:g}"
        if a.shape != b.shape:
            value, ok = f"shape {a.shape}, and {b.shape} by NumPy", False
        else:
            differing = int((a != b).sum())
            similar = float(adjusted_rand_score(a.ravel(), b.ravel()))
            ok = similar >= MIN_ARI if labels == "discretize" else differing == 0
            value = f"{differing} of {a.size} pixels differ, ARI {similar:.4f}"
        self.report.add("labels", what, value, ok=ok)

    def count(self, labels: str, row: dict[str, Any]) -> None:
        what = f"{labels} {row['scale']:g}"
        if row["largest_to_host"] is None:
            self.report.add("bytes", what, "not counted: libcupti was not found", ok=False)
            return
        ok = row["largest_to_host"] <= LARGEST_TO_HOST and not row["dropped"]
        value = f"{row['largest_to_host']:,} to the host at once, {row['to_host']:,} in all"
        if row["dropped"]:
            value += f", {row['dropped']:,} records lost"
        self.report.add("bytes", what, value, ok=ok)

    def eigen(self) -> None:
        """Compare eigenvectors with the host's Laplacian."""
        found, error = self.work("eigen", xp=self.options.xp, scales=self.options.scales)
        self.report.facts["eigen"] = found
        for row in found:
            residual, angle = row["largest_residual"], row["sine_of_angle"]
            value = f"residual {residual:.1e}, angle {angle:.1e} of {row['cut']} at gap {row['gap']:.0e}"
            most, widest = BOUNDS[row["tolerance"]]
            what = f"{row['scale']:g}, tolerance {row['tolerance']}"
            self.report.add("eigen", what, value, ok=residual <= most and angle <= widest)
        if error:
            self.report.add("eigen", "", error, ok=False)

    def profile(self) -> None:
        """Measure what limits a run at the largest size."""
        if self.options.xp != "cupy":
            self.report.add("profile", "", "only of CuPy", ok=None)
            return
        scale = max(self.options.scales)
        found, error = self.work("profile", xp="cupy", scale=scale, labels="cluster_qr")
        self.report.facts["profile"] = found
        for row in found:
            for name in ("kernels", "synchronizations", "copies_to_host", "limit"):
                value = str(row[name])
                self.report.add("profile", name, value, ok=not row["dropped"])
        if error:
            self.report.add("profile", "", error, ok=False)

    def tests(self) -> None:
        """Run upstream's tests of what the series touch, on arrays of the library."""
        listing = self.options.tests and self.options.tests / "tests.json"
        if not listing or not listing.is_file():
            self.report.add("tests", "", "--tests names no folder of tests", ok=None)
            return
        for name in ("pytest", "hypothesis"):
            if importlib.util.find_spec(name) is None:
                self.report.add("tests", "", f"{name} is not installed", ok=None)
                return
        gpu = self.options.xp == "cupy"
        scipy = {
            "SCIPY_ARRAY_API": json.dumps([self.options.xp.replace("-", "_")]),
            "SCIPY_DEVICE": "cuda" if gpu else "cpu",
        }
        for fork, paths in json.loads(listing.read_text()).items():
            if fork in FORKS or gpu:
                env = scipy if fork == "scipy" else {"SCIPY_ARRAY_API": "1"}
                self.pytest(fork, paths, {} if fork == "cupy" else env)

    def pytest(self, fork: str, paths: list[str], env: dict[str, str]) -> None:
        """Run a fork's files of tests: those that are installed in place, where they find their conftest.py."""
        files = []
        for path in paths:
            spec = importlib.util.find_spec(path.split("/")[0])
            places = list((spec and spec.submodule_search_locations) or ())
            found = [f for p in places if (f := Path(p).parent / path).is_file()]
            files.append(str([*found, self.options.tests / fork / path][0]))
        junit, ini = self.folder / "junit.xml", self.folder / "pytest.ini"
        ini.write_text("[pytest]\n")
        junit.unlink(missing_ok=True)
        error = self.start(
            [
                *("-m", "pytest", "-q", "-c", str(ini), "--rootdir", str(self.folder)),
                *("-p", "no:cacheprovider", "--import-mode=importlib"),
                *(f"--junitxml={junit}", *files),
                # scikit-learn takes CuPy for usable where it is installed.
                *([] if self.options.xp == "cupy" else ["-k", "not cupy"]),
            ],
            **env,
        )
        if not junit.exists():
            self.report.add("tests", fork, error or "no report", ok=False)
            return
        counts, broken = read_junit(junit)
        self.report.facts.setdefault("tests", {})[fork] = counts | {"broken": broken}
        value = ", ".join(f"{count} {name}" for name, count in counts.items())
        ok = not error and counts["tests"] > counts["skipped"]
        self.report.add("tests", fork, value, ok=ok)

    def bench(self) -> None:
        """Measure the time of each stage, beside NumPy's."""
        import coins

        names = dict.fromkeys(("numpy", self.options.xp))
        command = [str(Path(coins.__file__).with_name("bench_demo.py"))]
        command += [word for name in names for word in ("--xp", name)]
        command += ["--scales", ",".join(f"{s:g}" for s in self.options.scales)]
        command += ["--runs", str(self.options.runs)]
        command += ["--json", str(self.report.out / "bench.json")]
        if importlib.util.find_spec("matplotlib"):
            command += ["--plot", str(self.report.out / "bench.png")]
        error = self.start(command)
        self.report.add("bench", "", error or "bench.json", ok=not error)

    def pictures(self) -> None:
        """Draw the regions that were found, in one picture."""
        if importlib.util.find_spec("matplotlib") is None:
            self.report.add("pictures", "", "matplotlib is not installed", ok=None)
            return
        import matplotlib as mpl
        import numpy as np
        from demo import draw

        mpl.use("agg")
        import matplotlib.pyplot as plt

        rows, columns = self.options.labels, self.options.scales
        size = (4 * len(columns), 3.3 * len(rows))
        figure, grid = plt.subplots(
            len(rows), len(columns), figsize=size, squeeze=False, layout="constrained"
        )
        for labels, line in zip(rows, grid, strict=True):
            for scale, axes in zip(columns, line, strict=True):
                path = self.folder / f"{self.options.xp}-{labels}-{scale:g}.npz"
                axes.set_axis_off()
                if path.exists():
                    found = np.load(path)
                    draw(axes, found["image"], found["labels"], f"{labels} {scale:g}")
        figure.savefig(self.report.out / "coins.png", dpi=80)
        plt.close(figure)


def read_junit(path: Path) -> tuple[dict[str, int], list[str]]:
    """Return pytest's counts, and the names of tests that failed."""
    root = ET.parse(path).getroot()
    suites = list(root.iter("testsuite"))
    names = ("tests", "failures", "errors", "skipped")
    counts = {name: sum(int(s.get(name, 0)) for s in suites) for name in names}
    broken = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in root.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return counts, broken


def machine(xp: str) -> dict[str, Any]:
    """Return what the figures depend on; raises coins.UnusableError without a usable GPU."""
    os.environ.setdefault("SCIPY_ARRAY_API", "1")
    import coins

    backend = coins.make_backend(xp)
    facts = {"xp": xp, "device": str(backend.device), "cpus": os.cpu_count()}
    if xp == "cupy":
        runtime = backend.xp.cuda.runtime
        name = runtime.getDeviceProperties(backend.device.id)["name"].decode()
        facts |= {"device": name, "driver": runtime.driverGetVersion()}
        facts |= {"runtime": runtime.runtimeGetVersion()}
    names = ("numpy", *FORKS)
    return (
        facts
        | {name: version(name) for name in names}
        | {"cupy": backend.xp.__version__ if xp == "cupy" else None}
    )


def work(asked: dict[str, Any]) -> None:
    """Be the process of a part: write each finding where the one who started it reads."""
    parts: dict[str, Callable[..., Iterable[dict[str, Any]]]] = {
        "demo": work_demo,
        "eigen": work_eigen,
        "profile": work_profile,
    }
    part, path = asked.pop("part"), Path(asked.pop("path"))
    with path.open("w") as stream:
        for row in parts[part](**asked):
            print(json.dumps(row), file=stream, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__)
    split: Callable[[str], list[str]] = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--xp", default="cupy", help="default: %(default)s")
    parser.add_argument("--parts", type=split, default=[*PARTS], help=",".join(PARTS))
    parser.add_argument("--scales", type=split, default="0.1,0.2,0.4,0.6,0.8,1.0")
    parser.add_argument("--labels", type=split, default="cluster_qr,kmeans,discretize")
    parser.add_argument("--runs", type=int, default=3, help="of the benchmark")
    parser.add_argument("--limit", type=float, default=900, help="seconds, a process")
    parser.add_argument("--tests", type=Path, help="a folder by gpu_bundle.py")
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(json.loads(options.work))
        return
    options.scales = [float(scale) for scale in options.scales]
    options.tests = options.tests and options.tests.absolute()
    if unknown := set(options.parts) - {*PARTS}:
        parser.error(f"--parts are of {','.join(PARTS)}, not {', '.join(unknown)}")
    error, facts = None, {}
    try:
        facts = machine(options.xp)
    except Exception as err:  # noqa: BLE001 -- an import can fail in many ways on an unknown machine
        error = err
    if error:
        print(f"gpu_check: {error}", file=sys.stderr)
        raise SystemExit(UNUSABLE)
    options.out.mkdir(parents=True, exist_ok=True)
    report = Report(options.out.absolute(), facts)
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(options, report, Path(folder))
        steps = [*options.parts, *(["pictures"] if "demo" in options.parts else [])]
        for part in steps:
            begin = time.perf_counter()
            try:
                getattr(checks, part)()
            except Exception as err:  # noqa: BLE001 -- the other parts are still worth their time
                report.add(part, "", f"{type(err).__name__}: {err}", ok=False)
            report.facts[f"{part}_seconds"] = time.perf_counter() - begin
            report.write()
    failed = sum(row[3] == "FAILED" for row in report.rows)
    print(f"{len(report.rows)} checks, {failed} failed: {report.out}/gpu-check.json")
    if failed:
        raise SystemExit(FAILED)


if __name__ == "__main__":
    main()
