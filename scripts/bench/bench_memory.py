"""Measure the most memory that commands need: all their processes together, sampled, in MB.

Needs the right to make a control group, as `bench_cache.py` does, which measures a compile.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import bench
import measure

FILE = "src/skimage/measure/_pnpoly.pyx"


def main() -> None:
    options = measure.make_parser(__doc__, runs=1).parse_args()
    found: dict[str, int] = {}

    def note(what: str, argv: list[str], cwd: Path) -> None:
        found[what] = round(measure.contained(argv, cwd=cwd, env=measure.PLAIN).peak)
        print(f"{what:60} {found[what]:6} MB", flush=True)

    with tempfile.TemporaryDirectory() as name:
        project, build = measure.project_copy(Path(name)), ["patchwheel", "build"]
        note("patchwheel plan, all forks", ["patchwheel", "plan"], project)
        measure.cpu(["patchwheel", "dev", bench.FORK], cwd=project)
        work = project / "work" / bench.FORK
        folder = str(project / "patches" / bench.FORK)
        apply = [sys.executable, "-c", bench.APPLY, str(work / ".git"), "refs/patchwheel/base"]
        note(f"the series of {bench.FORK} to a tree", [*apply, folder], work)
        with (work / FILE).open("a") as stream:
            stream.write(f"\n\ndef _bench_{os.getpid()}():\n    return 1\n")
        note("a graft with one module compiled", [*build, bench.FORK, "--dev"], project)
        for fork in (bench.FORK, "scipy"):
            bench.edit_one_line(project, fork, os.getpid())
            note(f"a graft of {fork}, one Python line changed", [*build, fork], project)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
