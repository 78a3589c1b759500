"""Measure whole compiles of a fork with the compile cache, and that they make the same bytes.

The first fills the cache of a store of its own. Before each, the wheels are removed from the store,
so that every step is asked for again. Needs the right to make a control group: it counts the CPU
seconds, those in the sandbox too.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure

from patchwheel.kit import file_sha256

# For each fork a file that one extension is made of.
FILES = {
    "scipy": "scipy/sparse/csgraph/_traversal.pyx",
    "scikit-learn": "sklearn/svm/_liblinear.pyx",
    "scikit-image": "src/skimage/measure/_pnpoly.pyx",
    "cupy": "cupy/fft/_cache.pyx",
}
COLD, OTHER = "cold, everything compiled", "Python 3.13, after 3.12"


class Compiles:
    def __init__(self, fork: str, folder: Path, store: Path) -> None:
        self.fork, self.folder = fork, folder
        self.env = {**measure.PLAIN, "PATCHWHEEL_STORE": str(store)}
        self.store = store
        self.rows: dict[str, dict[str, Any]] = {}

    def project(self, name: str) -> Path:
        (self.folder / name).mkdir(parents=True)
        return measure.project_copy(self.folder / name)

    def kept(self) -> list[Path]:
        """Return the store's entries of the fork's wheels; those of others stay."""
        return [p.parent for p in self.store.glob(f"wheels/*/{self.fork.replace('-', '_')}*.whl")]

    def run(self, what: str, project: Path, *words: str) -> None:
        """Compile, and print what it cost; with the same words before, the wheel must be equal."""
        for entry in self.kept():
            shutil.rmtree(entry)
        shutil.rmtree(project / "dist", ignore_errors=True)
        start = time.monotonic()
        command = ["patchwheel", "build", self.fork, "--from-source", *words]
        spent = measure.contained(command, cwd=project, env=self.env)
        [wheel] = (project / "dist").glob("*.whl")
        [entry] = self.kept()
        row: dict[str, Any] = {"cpu": round(spent.cpu, 1), "peak_mb": round(spent.peak)}
        row["wall"] = round(time.monotonic() - start, 1)
        row |= json.loads((entry / "made.json").read_text())["compile_cache"]
        row["sha256"] = file_sha256(wheel)
        self.rows[what] = row
        print(f"{what:44} {json.dumps(row)}", flush=True)


def scenarios(compiles: Compiles, *, compare: bool) -> Iterator[tuple[str, str]]:
    """Run all; yield pairs of rows that must be the same wheel."""
    plain, edited = compiles.project("one"), compiles.project("edited")
    compiles.run(COLD, plain)
    compiles.run("again, in another folder", compiles.project("another"))
    yield COLD, "again, in another folder"
    measure.cpu(["patchwheel", "dev", compiles.fork], cwd=edited, env=compiles.env)
    with (edited / "work" / compiles.fork / FILES[compiles.fork]).open("a") as stream:
        stream.write("\n\ndef _bench():\n    return 1\n")
    others: dict[str, tuple[Path, *tuple[str, ...]]] = {
        "after one changed .pyx": (edited, "--dev"),
        OTHER: (compiles.project("other"), "--python", "3.13"),
    }
    for what, (project, *words) in others.items():
        compiles.run(what, project, *words)
        if compare:
            without = f"{what}, without the cache"
            compiles.run(without, project, *words, "--no-compile-cache")
            yield what, without


def together(folder: Path, store: Path) -> dict[str, float]:
    """Compile all forks in one command, cold; `ratio` is the wall to the CPU seconds of a core."""
    project = measure.project_copy(folder)
    env, start = {**measure.PLAIN, "PATCHWHEEL_STORE": str(store)}, time.monotonic()
    words = ["patchwheel", "build", "--from-source", "--report", str(folder / "report.html")]
    spent = measure.contained(words, cwd=project, env=env)
    wall = time.monotonic() - start
    cores = len(os.sched_getaffinity(0))
    row = {"cpu": spent.cpu, "wall": wall, "peak_mb": spent.peak, "ratio": wall / spent.cpu * cores}
    row = {name: round(value, 2) for name, value in row.items()}
    for event in json.loads((folder / "report.json").read_text())["events"]:
        if event["kind"] == "run":
            row[event["fork"]] = round(row.get(event["fork"], 0) + event["cpu"], 1)
    print(f"{'all forks in one command':44} {json.dumps(row)}", flush=True)
    return row


def main() -> None:
    parser = measure.make_parser(__doc__, runs=1)
    parser.add_argument("--fork", choices=FILES, action="append", dest="forks")
    parser.add_argument(
        "--store", type=Path, help="a store with sources, and with no compile cache"
    )
    parser.add_argument(
        "--compare", action="store_true", help="compile twice without the cache too"
    )
    parser.add_argument(
        "--together", action="store_true", help="compile all forks in one command before"
    )
    options = parser.parse_args()
    figures: dict[str, Any] = {"load": os.getloadavg(), "forks": {}}
    different: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = (options.store or folder / "store").absolute()
        if options.together:
            (folder / "together").mkdir()
            figures["together"] = together(folder / "together", store)
        for fork in options.forks or ["scikit-image"]:
            print(fork)
            compiles = Compiles(fork, folder / fork, store)
            different += [
                (one, other)
                for one, other in scenarios(compiles, compare=options.compare)
                if compiles.rows[one]["sha256"] != compiles.rows[other]["sha256"]
            ]
            figures["forks"][fork] = compiles.rows
            if options.json:
                options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if different:
        raise SystemExit(f"not the same wheel: {different}")


if __name__ == "__main__":
    main()
