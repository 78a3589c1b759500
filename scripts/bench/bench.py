"""Measure patchwheel against what a user would otherwise do, in one run, in CPU seconds.

Everything that patchwheel needs is fetched before it is measured. Compiler caches are kept out of
the baselines (CC=gcc, CXX=g++), which compile scikit-image: about ten CPU minutes each. `--quick`
leaves these two out.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure
from measure import PLAIN, ROOT, cpu

from patchwheel.kit.repo import Repository
from patchwheel.kit.store import Store
from patchwheel.kit.uv import load_index_config
from patchwheel.manifest.load import load_manifest
from patchwheel.manifest.model import Fork
from patchwheel.series.apply import apply_series
from patchwheel.series.files import load_series
from patchwheel.source.fetch import Source

FORK = "scikit-image"
APPLY = """
import sys, tempfile
from pathlib import Path
from patchwheel.kit.repo import Repository
from patchwheel.kit.store import Store
from patchwheel.manifest.model import Fork
from patchwheel.series.apply import apply_series
from patchwheel.series.files import load_series
from patchwheel.source.fetch import Source
git_dir, series = Path(sys.argv[1]), load_series(Path(sys.argv[3]))
fork = Fork(name="bench", version="1.0", patches=series.folder)
tree = Repository(git_dir).tree_of(sys.argv[2])
with tempfile.TemporaryDirectory() as store:
    source = Source(fork=fork, git_dir=git_dir, tree=tree, epoch=0)
    apply_series(source, series, store=Store(Path(store)))
"""
FILES, PATCHES = 3000, 50
MAIL = b"""From: A U Thor <author@example.org>
Date: Tue, 1 Mar 2022 12:00:00 +0100
Subject: [PATCH] ENH: change some lines

Why it is carried.

Upstream-Status: Pending

"""


def series(fork: str) -> list[Path]:
    return [patch.path for patch in load_series(ROOT / "patches" / fork).patches]


def edit_one_line(project: Path, fork: str, mark: int) -> None:
    """Append a comment to one added line of Python code in the fork's first patch."""
    patch = project / "patches" / fork / series(fork)[0].name
    text = re.sub(r"  # bench \d+$", "", patch.read_text(), flags=re.MULTILINE)
    line = re.compile(r"^(\+ +return \w[\w.()]*)$", re.MULTILINE)
    edited, count = line.subn(rf"\1  # bench {mark}", text, count=1)
    if not count:
        raise SystemExit(f"{patch.name} has no line that the benchmark can edit")
    patch.write_text(edited)


def no_op(runs: int) -> list[float]:
    command = ["patchwheel", "build"]
    cpu(command, cwd=ROOT)
    return measure.repeated(runs, lambda: cpu(command, cwd=ROOT))


def python_only(fork: str, runs: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        project = measure.project_copy(Path(folder))
        command = ["patchwheel", "build", fork]
        cpu(command, cwd=project)
        found = []
        for mark in range(runs):
            # A mark of its own for each run and process: no earlier benchmark made this wheel.
            edit_one_line(project, fork, mark + int(time.time()))
            found.append(cpu(command, cwd=project))
        return found


def pip_wheel() -> float:
    with tempfile.TemporaryDirectory() as name:
        project = measure.project_copy(Path(name))
        cpu(["patchwheel", "dev", FORK, "--detach"], cwd=project)
        python = measure.python_with_pip(project / "venv")
        sources = str(project / "work" / FORK)
        command = [python, "-m", "pip", "wheel", "--no-deps", "-w", "out", sources]
        return cpu(command, cwd=project, env=PLAIN)


def fromager() -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = measure.python_with_pip(folder / "venv")
        cpu([python, "-m", "pip", "install", "-q", "fromager"], cwd=folder)
        version = load_manifest(ROOT / "forks.toml").forks[FORK].version
        overrides = f"overrides/patches/{FORK.replace('-', '_')}-{version}"
        (folder / overrides).mkdir(parents=True)
        for patch in series(FORK):
            shutil.copy(patch, folder / overrides)
        index = load_index_config(ROOT).urls[0]
        command = ["fromager", "-j2", "build", "--wheel-server-url", index]
        path = f"{folder / 'venv' / 'bin'}:{os.environ['PATH']}"
        return cpu([*command, FORK, version, index], cwd=folder, env={**PLAIN, "PATH": path})


def series_application(runs: int) -> tuple[list[float], list[float]]:
    """Return the cost of our application and of `git am`, both from a commit in a repository."""
    with tempfile.TemporaryDirectory() as name:
        project = measure.project_copy(Path(name))
        cpu(["patchwheel", "dev", FORK], cwd=project)
        work = project / "work" / FORK
        patches = [str(path) for path in series(FORK)]
        base = "refs/patchwheel/base"
        folder = str(project / "patches" / FORK)
        apply = [sys.executable, "-c", APPLY, str(work / ".git"), base, folder]
        who = {"GIT_COMMITTER_NAME": "bench", "GIT_COMMITTER_EMAIL": "bench@localhost"}

        def am() -> float:
            copy = project / "am"
            shutil.rmtree(copy, ignore_errors=True)
            return (
                cpu(["git", "clone", "-q", "--mirror", str(work), str(copy / ".git")], cwd=project)
                + cpu(["git", "config", "core.bare", "false"], cwd=copy)
                + cpu(["git", "checkout", "-q", "-f", "--detach", base], cwd=copy)
                + cpu(["git", "am", "-q", *patches], cwd=copy, env=who)
            )

        ours = measure.repeated(runs, lambda: cpu(apply, cwd=work))
        return ours, measure.repeated(runs, am)


class Many:
    """A repository with 3,000 files, and fifty patches for an older state of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git_dir = folder / "git"
        rng = random.Random("many")
        names = [f"package{n % 30}/module{n}.py" for n in range(FILES)]
        old = {name: [f"{rng.random()}\n" for _ in range(120)] for name in names}
        repo = Repository.bare(self.git_dir)
        moved = {name: ["# new\n", *lines] for name, lines in old.items()}
        self.tree = self.written(repo, moved)
        # As when a source is fetched.
        repo.keep_index(self.tree)
        series = folder / "patches" / "many"
        series.mkdir(parents=True)
        before = self.written(repo, old)
        self.patches = []
        for number in range(PATCHES):
            for name in rng.sample(names, rng.choice((1, 1, 2, 3))):
                at = rng.randrange(10, 110)
                old[name] = [*old[name][:at], f"ours {number}\n", *old[name][at + 1 :]]
            after = self.written(repo, old)
            diff = repo.git("diff-tree", "-r", "-p", "--full-index", before, after)
            before = after
            self.patches.append(series / f"{number:04}.patch")
            self.patches[-1].write_bytes(MAIL + diff)
        names = [path.name for path in self.patches]
        (series / "series").write_text("".join(f"{name}\n" for name in names))
        repo.git("update-ref", "refs/heads/base", repo.commit(self.tree, "base"))

    def written(self, repo: Repository, files: dict[str, list[str]]) -> str:
        rows = ((n, "100644", "".join(lines).encode()) for n, lines in files.items())
        return repo.import_files(rows)

    def fresh(self) -> Path:
        """Return a copy of the repository: none of the results are in it."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.git_dir, copy)
        return copy

    def ours(self, run: int) -> float:
        """All between a pin and a patched tree: reading, checking, applying, comparing, keeping."""
        fork = Fork(name="many", version="1.0", patches=self.patches[0].parent)
        git_dir = self.fresh()
        source = Source(fork=fork, git_dir=git_dir, tree=self.tree, epoch=0)
        store = Store(self.folder / f"store{run}")
        # A store that has its folders.
        store.remember("tree", "another", {})
        before = measure.cpu_so_far()
        made = apply_series(source, load_series(fork.patches), store=store)
        spent = measure.cpu_so_far() - before
        if made.tree != self.applied:
            raise SystemExit("patchwheel and git make different trees")
        return spent

    def plain(self) -> float:
        """One `git apply --cached` of all, with the index that it needs and the tree of that."""
        git_dir, names = self.fresh(), [str(path) for path in self.patches]
        env = {"GIT_DIR": str(git_dir), "GIT_INDEX_FILE": str(git_dir / "new-index")}
        steps = (["read-tree", self.tree], ["apply", "--cached", *names])
        spent = sum(cpu(["git", *words], cwd=git_dir, env=env) for words in steps)
        before = measure.cpu_so_far()
        git = subprocess.run(
            ["git", "write-tree"],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=True,
        )
        self.applied = git.stdout.strip()
        return spent + measure.cpu_so_far() - before

    def am(self) -> tuple[float, float]:
        """Return what `git am` needs, a clone with a work tree, and what it costs itself."""
        copy = self.folder / "am"
        shutil.rmtree(copy, ignore_errors=True)
        clone = ["git", "clone", "-q", "-s", "-b", "base", str(self.git_dir), str(copy)]
        who = {"GIT_COMMITTER_NAME": "bench", "GIT_COMMITTER_EMAIL": "bench@localhost"}
        words = ["git", "am", "-q", *map(str, self.patches)]
        return cpu(clone, cwd=self.folder), cpu(words, cwd=copy, env=who)


def many_patches(runs: int) -> dict[str, list[float]]:
    """Apply fifty patches to 3,000 files in three ways, by turns."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        many = Many(Path(folder))
        what = f"{PATCHES} patches to a tree of {FILES:,} files"
        for run in range(runs + 1):
            plain, ours, (clone, am) = many.plain(), many.ours(run), many.am()
            # The first run imports what a process imports once.
            if run:
                for way, spent in (
                    ("patchwheel", ours),
                    ("one git apply --cached", plain),
                    ("git am", am),
                    ("git am with the clone that it needs", clone + am),
                ):
                    found.setdefault(f"{what}, {way}", []).append(spent)
    return found


def main() -> None:
    parser = measure.make_parser(__doc__, runs=5)
    parser.add_argument("--quick", action="store_true", help="leave out what compiles")
    options = parser.parse_args()
    figures = measure.Figures()
    note = figures.note
    note("patchwheel build, nothing changed, all forks", no_op(options.runs))
    changed = f"patchwheel build, one Python line changed, {FORK}"
    note(changed, python_only(FORK, options.runs))
    note(changed.replace(FORK, "scipy"), python_only("scipy", options.runs))
    ours, am = series_application(options.runs)
    note(f"series of {FORK} to a tree, patchwheel", ours)
    note(f"series of {FORK} to commits, clone and git am", am)
    many = many_patches(options.runs)
    for what, values in many.items():
        note(what, values)
    mine, *others = map(statistics.median, many.values())
    shares = ", ".join(f"{mine / other:.2f}" for other in others)
    print(f"  patchwheel's share of each of the others: {shares}")
    if not options.quick:
        for peer, once in (
            (f"pip wheel of the patched sources, {FORK}", pip_wheel),
            (f"fromager build with the same patches, {FORK}", fromager),
        ):
            note(peer, [once()])
            times = figures[peer][0] / statistics.median(figures[changed])
            print(f"  {times:,.0f} times one changed line")
    figures.write(options.json)


if __name__ == "__main__":
    main()
