"""Measure one changed line of compiled code, from the saved file to the installed wheel.

Each file is edited in an open work tree, `patchwheel build FORK --dev` makes the wheel on
upstream's as its base, and uv installs it; the build environment and the configured pin are there
before. Then the edit must show in the installed module, upstream's tests of it must pass, and at
most one OpenBLAS may be loaded. Figures are CPU seconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import measure
from measure import PLAIN, cpu

from patchwheel.wheelfile.read import read_wheel

LINES = {
    ".pyx": "\n\ndef _bench_{0}():\n    return {0}\n",
    ".py": "\n\n# pythran export _bench_{0}(int)\ndef _bench_{0}(x):\n    return x + {0}\n",
    ".pxd": "\n\ncdef inline int _bench_{0}() noexcept nogil:\n    return {0}\n",
    ".c": '\nstatic const char bench_{0}[] __attribute__((used)) = "_bench_{0}";\n',
}
CHECK = """
import importlib, re, sys
from pathlib import Path
module = importlib.import_module(sys.argv[1])
name = sys.argv[2]
if name not in dir(module) and name.encode() not in Path(module.__file__).read_bytes():
    sys.exit(f"{module.__file__} is without {name}")
maps = Path("/proc/self/maps").read_text()
found = sorted(set(re.findall(r"/(\\S*?/)?(\\w+\\.libs/\\S*openblas\\S*)", maps)))
print("loaded:", *(name for _, name in found))
"""


class Edit(NamedTuple):
    """A file, and upstream's tests of it; `built` is how many outputs its change reaches."""

    fork: str
    path: str
    tests: str = ""
    # What must show the change, where it is not the file itself.
    shown: str = ""
    built: int = 1

    @property
    def module(self) -> str:
        return self.shown or self.path.rpartition(".")[0].replace("/", ".")


EDITS = (
    Edit("scipy", "scipy/sparse/csgraph/_traversal.pyx", "test_connected_components"),
    Edit("scipy", "scipy/interpolate/_rbfinterp_pythran.py", "test_rbfinterp"),
    Edit(
        "scikit-image",
        "src/skimage/_shared/interpolation.pxd",
        "tests/skimage/transform/test_warps.py",
        "skimage.transform._warps_cy",
        built=8,
    ),
)


def measured(edit: Edit, project: Path, python: str, runs: int) -> list[float]:
    file = project / "work" / edit.fork / edit.path
    plain = file.read_text()
    build = ["patchwheel", "build", edit.fork, "--dev"]
    found, wheel = [], project
    try:
        # The first makes what stays: the build environment and the configured pin.
        for mark in range(runs + 1):
            text = LINES[file.suffix].format(f"{os.getpid()}{mark}")
            file.write_text(file.read_text() + text)
            cost = cpu(build, cwd=project, env=PLAIN)
            [wheel] = (project / "dist").glob(f"{edit.fork.replace('-', '_')}*.whl")
            install = ["uv", "pip", "install", "-q", "-p", python, "--no-deps"]
            found.append(cost + cpu([*install, str(wheel)], cwd=project))
        check(edit, wheel, python, project, f"_bench_{os.getpid()}{runs}")
    finally:
        file.write_text(plain)
    return found[1:]


def check(edit: Edit, wheel: Path, python: str, project: Path, mark: str) -> None:
    record = read_wheel(wheel).record
    built = [output.path for output in record.remade if output.action == "build"]
    print(f"{edit.path}:", *built)
    on_upstream = record.base and record.base.kind == "upstream"
    if not on_upstream or len(built) != edit.built:
        raise SystemExit(f"{wheel.name} is not what was to be measured")
    if not edit.path.endswith(".pxd"):
        subprocess.run([python, "-c", CHECK, edit.module, mark], cwd="/", check=True)
    if edit.tests:
        chosen = [str(project / "work" / edit.fork / edit.tests)]
        if "/" not in edit.tests:
            chosen = ["--pyargs", f"{edit.module.rpartition('.')[0]}.tests.{edit.tests}"]
        subprocess.run([*measure.pytest(python, project), *chosen], cwd=project, check=True)


def main() -> None:
    parser = measure.make_parser(__doc__, runs=3)
    parser.add_argument("words", nargs="*", help="only files with one of these in it")
    options = parser.parse_args()
    measure.leave_the_sandbox()
    chosen = [
        edit
        for edit in EDITS
        if not options.words or any(word in edit.path for word in options.words)
    ]
    figures = measure.Figures()
    with tempfile.TemporaryDirectory() as folder:
        project = measure.project_copy(Path(folder))
        for series in (project / "patches").glob("*/series"):
            # One line is to be measured, not what else the series changes.
            shutil.rmtree(series.parent)
            series.parent.mkdir()
            series.write_text("")
        cpu(["patchwheel", "build"], cwd=project)
        python = measure.python_with_pip(project / "venv")
        wheels = [str(path) for path in (project / "dist").glob("*.whl")]
        tests = ["pytest", "pytest-pretty", "hypothesis", "pooch", "array-api-strict"]
        install = ["uv", "pip", "install", "-q", "-p", python, *wheels, *tests]
        cpu(install, cwd=project)
        for fork in dict.fromkeys(edit.fork for edit in chosen):
            cpu(["patchwheel", "dev", fork], cwd=project)
        for edit in chosen:
            figures.note(edit.path, measured(edit, project, python, options.runs))
    figures.write(options.json)


if __name__ == "__main__":
    main()
