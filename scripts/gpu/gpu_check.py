"""Check the patched forks on a GPU, in one command: our tests, upstream's, a profile and times.

Every step is a process of its own, so that one that fails or hangs does not stop the others; after
each, OUT holds gpu-check.json, and what the step found in a file of its own. Exits with 6 if a step
failed, with 7 without a usable GPU. `--xp` takes any array library of the demo: without a GPU,
`--xp numpy` or `--xp array-api-strict --scales 0.1` tries the rest.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).absolute().parents[2]
DEMO = ROOT / "scripts" / "demo"
PARTS = ("coins", "demo", "profile", "tests", "bench")
FORKS = ("scipy", "scikit-learn", "scikit-image")
LABELS = ("cluster_qr", "kmeans", "discretize")
FAILED, UNUSABLE = 6, 7


class Step(NamedTuple):
    """A command of Python; the last line of what it says has to have the word `expected` in it."""

    part: str
    what: str
    command: list[str | Path]
    env: dict[str, str]
    expected: str = ""


def steps(options: argparse.Namespace, folder: Path) -> Iterator[Step]:
    """Yield the steps of each part; `folder` is for what is not kept."""
    xp, out, largest = options.xp, options.out, max(options.scales, key=float)
    api = {} if xp == "numpy" else {"SCIPY_ARRAY_API": "1"}
    # Without pytest-pretty the last line counts all outcomes.
    pytest: list[str | Path] = ["-m", "pytest", "-q", "-p", "no:pretty"]
    for scale in options.scales:
        words = ["--gpu", xp, "--coins", scale, f"--junitxml={out}/coins-{scale}.xml"]
        command = [*pytest, ROOT / "tests/forks/test_gpu.py", *words]
        yield Step("coins", scale, command, api, " passed")
    for labels in LABELS:
        words = ["--xp", xp, "--scale", largest, "--labels", labels]
        command = [DEMO / "demo.py", *words, "--output", out / f"coins-{labels}.png"]
        yield Step("demo", labels, command, api)
    if xp == "cupy":
        script = Path(__file__).with_name("gpu_profile.py")
        yield Step("profile", largest, [script, largest, LABELS[0], out / "profile.json"], api)
    listing = json.loads((options.tests / "tests.json").read_text()) if options.tests else {}
    (folder / "pytest.ini").write_text("[pytest]\n")
    pytest += ["-c", folder / "pytest.ini", "--rootdir", folder, "-p", "no:cacheprovider"]
    # scikit-learn takes CuPy for usable where it is installed.
    pytest += ["--import-mode=importlib", *([] if xp == "cupy" else ["-k", "not cupy"])]
    for fork in [f for f in listing if f in FORKS or xp == "cupy"]:
        files = [place(options.tests / fork, path) for path in listing[fork]]
        command = [*pytest, *files, f"--junitxml={out}/tests-{fork}.xml"]
        yield Step("tests", fork, command, settings(fork, xp), " passed")
    words = [w for name in dict.fromkeys(("numpy", xp)) for w in ("--xp", name)]
    words += ["--scales", ",".join(options.scales), "--runs", options.runs]
    words += ["--json", f"{out}/bench.json", "--plot", f"{out}/bench.png"]
    yield Step("bench", "", [DEMO / "bench_demo.py", *words], {})


def place(folder: Path, path: str) -> Path:
    """Return where a test is installed, beside its conftest.py, or else its copy in the folder."""
    spec = importlib.util.find_spec(path.split("/", 1)[0])
    places = [Path(p).parent for p in (spec and spec.submodule_search_locations) or ()]
    return next(p / path for p in (*places, folder) if (p / path).is_file())


def settings(fork: str, xp: str) -> dict[str, str]:
    """Return what tells upstream's tests of a fork which arrays to take."""
    if fork == "scipy":
        device = "cuda" if xp == "cupy" else "cpu"
        return {"SCIPY_ARRAY_API": json.dumps([xp.replace("-", "_")]), "SCIPY_DEVICE": device}
    return {} if fork == "cupy" else {"SCIPY_ARRAY_API": "1"}


def run(step: Step, folder: Path, log: Path, limit: float) -> dict[str, str]:
    """Run a step, and return its row of the report; all it says goes to the log."""
    with log.open("a+") as stream:
        print("$", *step.command, file=stream, flush=True)
        begin = stream.seek(0, os.SEEK_END)
        try:
            status = subprocess.run(
                [sys.executable, *step.command],
                stdout=stream,
                stderr=stream,
                # Not where the user is: `-m` would import from there.
                cwd=folder,
                env={**os.environ, **step.env},
                timeout=limit,
                check=False,
            ).returncode
            stream.seek(begin)
            said = stream.read().strip().rpartition("\n")[2][:200]
        except subprocess.TimeoutExpired:
            status, said = -1, f"stopped after {limit} s"
    result = "FAILED" if status or step.expected not in said else "ok"
    return {"part": step.part, "what": step.what, "result": result, "said": said}


def machine(xp: str) -> dict[str, Any]:
    """Return what the figures depend on; raises coins.UnusableError without a usable GPU."""
    sys.path.insert(0, str(DEMO))
    os.environ.setdefault("SCIPY_ARRAY_API", "1")
    import coins

    backend = coins.make_backend(xp)
    facts = {"xp": xp, "device": str(backend.device), "cpus": os.cpu_count()}
    facts |= {name: version(name) for name in ("numpy", *FORKS)}
    if xp == "cupy":
        runtime = backend.xp.cuda.runtime
        facts["device"] = runtime.getDeviceProperties(backend.device.id)["name"].decode()
        facts |= {"driver": runtime.driverGetVersion(), "runtime": runtime.runtimeGetVersion()}
        facts |= {"cupy": backend.xp.__version__}
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__)
    parser.add_argument("--xp", default="cupy", help="default: %(default)s")
    parser.add_argument("--parts", default=",".join(PARTS), help="default: %(default)s")
    parser.add_argument("--scales", default="0.1,0.2,0.4,0.6,0.8,1.0")
    parser.add_argument("--runs", default="3", help="of the benchmark")
    parser.add_argument("--limit", type=float, default=900, help="seconds, a step")
    parser.add_argument("--tests", type=Path, help="a folder by gpu_bundle.py")
    parser.add_argument("--out", type=Path, default=Path("out"))
    options = parser.parse_args()
    options.scales, parts = options.scales.split(","), options.parts.split(",")
    options.tests = options.tests and options.tests.absolute()
    options.out = options.out.absolute()
    if unknown := {*parts} - {*PARTS}:
        parser.error(f"--parts are of {','.join(PARTS)}, not {', '.join(unknown)}")
    try:
        facts = machine(options.xp)
    except Exception as error:  # an import can fail in many ways on an unknown machine
        print(f"gpu_check: {error}", file=sys.stderr)
        raise SystemExit(UNUSABLE) from error
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for step in [s for s in steps(options, Path(name)) if s.part in parts]:
            row = run(step, Path(name), options.out / "gpu-check.log", options.limit)
            rows.append(row)
            print("{result:8}{part:9}{what:14}{said}".format_map(row), flush=True)
            text = json.dumps({"checks": rows, **facts}, indent=1)
            (options.out / "gpu-check.json").write_text(text + "\n")
    failed = sum(row["result"] == "FAILED" for row in rows)
    print(f"{len(rows)} steps, {failed} failed: {options.out}/gpu-check.json")
    if failed:
        raise SystemExit(FAILED)


if __name__ == "__main__":
    main()
