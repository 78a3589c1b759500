"""Measure the maintainer's loop: save a .pyx, see the result of upstream's test. In CPU seconds.

Ours is `patchwheel test FORK --dev -- -k NAME` in an open work tree. Beside it stands an editable
install of the same sources by meson-python, which compiles everything once (cold) and then what
ninja finds changed when the package is imported (warm), with the same packages: once with `-k NAME`
in the test files that ours takes, all those of the series, and once in the one file that has the
test. Every edit is a new line of code.
"""

from __future__ import annotations

import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import measure
from measure import PLAIN, ROOT, cpu

from patchwheel.environment.upstream_tests import select_tests
from patchwheel.kit.context import Progress
from patchwheel.kit.interpreter import find_interpreter
from patchwheel.kit.store import Store, default_root
from patchwheel.manifest.load import load_manifest
from patchwheel.manifest.lock import load_lock
from patchwheel.manifest.model import Fork
from patchwheel.project import Project
from patchwheel.series.worktree import patched_tree


class Loop(NamedTuple):
    """A module that is edited, and the test that is run after it."""

    source: str
    tests: str
    name: str


LOOPS = {
    "scipy": Loop(
        "scipy/sparse/csgraph/_traversal.pyx",
        "scipy/sparse/csgraph/tests/test_connected_components.py",
        "weak_connections",
    ),
    "scikit-image": Loop(
        "src/skimage/transform/_warps_cy.pyx", "tests/skimage/transform/test_warps.py", "swirl"
    ),
}


def edit(path: Path, mark: int) -> None:
    name = f"_bench_{mark}".replace("-", "m")
    path.write_text(f"{path.read_text()}\n\ndef {name}():\n    return {mark}\n")


def ours(project: Path, fork: str, loop: Loop) -> Callable[[int], float]:
    """Open a work tree, run the test so that all is there, and return what measures an edit."""
    source = project / "work" / fork / loop.source
    command = ["patchwheel", "test", fork, "--dev", "--", "-q", "-k", loop.name]
    cpu(["patchwheel", "dev", fork], cwd=project)
    edit(source, 0)
    cpu(command, cwd=project)

    def once(mark: int) -> float:
        edit(source, mark)
        return cpu(command, cwd=project)

    return once


def editable(
    project: Path, fork: Fork, loop: Loop
) -> tuple[float, Callable[[int], float], Callable[[int], float]]:
    """Make an editable install; return its cost, and what measures an edit in all files or one."""
    manifest, lock = load_manifest(ROOT / "forks.toml"), load_lock(ROOT / "forks.lock")
    version = manifest.environment.python[0]
    build = lock.fork(fork, version)
    entry = lock.environment(manifest, version)
    folder, sources = project / "venv", project / "work" / fork.name
    cpu(["patchwheel", "dev", fork.name, "--detach"], cwd=project)
    python = str(find_interpreter(version, progress=Progress()).path)
    cpu(["uv", "venv", "-q", "-p", python, str(folder)], cwd=project)
    rows = {d.name: d for d in (*entry.packages, *entry.groups["test"])}
    rows |= {d.name: d for d in build.build_requires}
    wanted = project / "requirements.txt"
    wanted.write_text("".join(f"{d.requirement}\n" for d in rows.values()))
    install = ["uv", "pip", "install", "-q", "-p", str(folder), "--no-deps"]
    cpu([*install, "--require-hashes", "-r", str(wanted)], cwd=project)
    if fork.name != "scipy":
        upstream = f"scipy=={manifest.forks['scipy'].version}"
        cpu([*install, "--only-binary", ":all:", upstream], cwd=project)
    settings = [
        f"--config-settings={key}={value}"
        for key, values in fork.config_settings.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    packages = [str(p) for p in folder.glob("lib/python3*/site-packages/**/pkgconfig")]
    env = {
        **PLAIN,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PKG_CONFIG_PATH": ":".join(packages),
    }
    words = ["--no-build-isolation", *settings, "-e", str(sources)]
    cold = cpu([*install, *words], cwd=project, env=env)
    test = [*measure.pytest(str(folder / "bin" / "python"), project), "-k", loop.name]
    opened = Project(project / "forks.toml", Store(default_root()), Progress())
    tree = patched_tree(opened, fork)
    every = [str(sources / path) for path in select_tests(tree)]
    cpu([*test, *every], cwd=project, env=env)

    def once(files: list[str], mark: int) -> float:
        edit(sources / loop.source, mark)
        return cpu([*test, *files], cwd=project, env=env)

    one = [str(sources / loop.tests)]
    return cold, functools.partial(once, every), functools.partial(once, one)


def main() -> None:
    parser = measure.make_parser(__doc__, runs=3)
    parser.add_argument("forks", nargs="*", default=[*LOOPS])
    options = parser.parse_args()
    measure.leave_the_sandbox()
    figures = measure.Figures()
    manifest = load_manifest(ROOT / "forks.toml")
    for name in options.forks:
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            loop = LOOPS[name]
            cold, same_files, in_one = editable(
                measure.project_copy(Path(two)), manifest.forks[name], loop
            )
            mine = ours(measure.project_copy(Path(one)), name, loop)
            # Marks of this run alone: what an earlier one built is in the store.
            first = int(time.time())
            marks = range(first, first + options.runs)
            rows = [(mine(m), same_files(m), in_one(-m)) for m in marks]
        loops, same, one_file = ([*column] for column in zip(*rows, strict=True))
        figures.note(f"{name}: patchwheel test --dev", loops)
        figures.note(f"{name}: editable install, warm", same)
        figures.note(f"{name}: editable install, warm, one file", one_file)
        figures.note(f"{name}: editable install, cold", [cold])
        for what, others in (("", same), (", one file", one_file)):
            pairs = [*zip(loops, others, strict=True)]
            ratio = statistics.median(a / b for a, b in pairs)
            whole = statistics.median((cold + b) / a for a, b in pairs)
            print(f"{name}{what}: {ratio:.2f} x warm, 1/{whole:.0f} of cold", flush=True)
    figures.write(options.json)


if __name__ == "__main__":
    main()
