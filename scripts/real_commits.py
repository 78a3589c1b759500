"""Plan upstream's own later commits as patches, and compare some with a compile.

For each fork with a history (`--history FORK=PATH or URL`), the last commits on its main branch
that touch what is installed or compiled and apply to the pin are planned one by one, each as a
series of its own on upstream's wheel; of one that the pin has, its reverse is. Some of them, drawn
by a seed, are grafted and compared with a compile of the same tree. Writes
docs/figures/commits.json, and commits.svg beside it.

It adds a tree for each commit to the store: give it one of its own with PATCHWHEEL_STORE.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import statistics
import subprocess
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchwheel.kit import PatchError, PatchwheelError, Store, default_root
from patchwheel.kit.context import Progress
from patchwheel.plan import Planner
from patchwheel.project import Project
from patchwheel.release.recompile import check_equivalence
from patchwheel.series import apply_series, load_series
from patchwheel.source import fetch_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patchwheel.manifest import Fork
    from patchwheel.plan import Plan
    from patchwheel.source import Source

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "figures"
CLASSES = ("nothing", "Python only", "1 module", "2 to 10", "more", "a compile")
FEW = 10
COLOURS = ("#e4e7eb", "#cdd5df", "#f7c9a9", "#f0915a", "#d9480f", "#7a2305")
# CPU seconds, measured as docs/benchmarks.md says: a whole compile and the configuration of a tree.
# What was not measured there is two cores times the seconds of a release.
WHOLE = {"scipy": (1168, 10), "scikit-image": (357, 5), "scikit-learn": (304, 8), "cupy": (522, 4)}
IDLE, PYTHON_ONLY = 0.3, 1.1
# How far back commits are looked at.
LOOKED_AT = 1500
# How many of the commits that are compared compile something, if there are so many.
COMPILED = 4
TEXT, QUIET, WIDTH, LEFT, BAR, ROW = "#1f2933", "#52606d", 820, 130, 470, 34


@dataclass(frozen=True, kw_only=True)
class Row:
    """One commit: what its plan says, and what an allow-list of paths would have said."""

    commit: str
    kind: str
    built: int
    cpu: float
    # Whether the number of modules is only known when the tree is configured.
    at_most: bool
    allowed: bool
    # Whether it is in the pin, so that its reverse was planned.
    back: bool


class Commits:
    def __init__(self, fork: str, history: Path, folder: Path) -> None:
        self.history = history
        progress, root = Progress(), folder / fork
        root.mkdir()
        store = Store(default_root())
        project = Project(ROOT / "forks.toml", store, progress)
        project.copy_to(root)
        # The pin, without our series.
        shutil.rmtree(root / "patches" / fork)
        (root / "patches" / fork).mkdir()
        self.project = Project(root / "forks.toml", store, progress)
        self.series("")
        self.source: Source = fetch_source(self.project, self.fork)
        inventory = self.project.build(self.fork).inventory
        self.copies = set(inventory.verbatim.values())
        self.touching = self.copies | inventory.reads
        self.pinned = set(self.git(self.source.git_dir, "ls-tree", "-rz", "--name-only", self.tree))
        self.modules = sum(name.endswith(".so") for name in inventory.built)

    @property
    def fork(self) -> Fork:
        return self.project.manifest.forks[self.name]

    @property
    def name(self) -> str:
        return self.project.manifest_path.parent.name

    @property
    def tree(self) -> str:
        return self.source.tree

    def git(self, git_dir: Path, *words: str) -> list[str]:
        argv = ["git", "-C", str(git_dir), *words]
        done = subprocess.run(argv, check=True, capture_output=True)
        return [w for w in done.stdout.decode(errors="surrogateescape").split("\0") if w]

    def series(self, text: str) -> None:
        folder = self.project.manifest_path.parent / "patches" / self.name
        (folder / "0001-commit.patch").unlink(missing_ok=True)
        (folder / "series").write_text("0001-commit.patch\n" if text else "")
        if text:
            data = text.encode(errors="surrogateescape")
            (folder / "0001-commit.patch").write_bytes(data)

    def patch(self, commit: str, *, back: bool = False) -> tuple[set[str], str]:
        """Return the paths of a commit that the pin can have, and their changes as a patch."""
        ends = [commit, f"{commit}^1"] if back else [f"{commit}^1", commit]
        found = self.git(self.history, "diff", "--no-renames", "-z", "--name-status", *ends)
        status = dict(zip(found[1::2], found[::2], strict=True))
        # A source distribution leaves out files that the repository has.
        paths = {path for path, how in status.items() if how == "A" or path in self.pinned}
        if not paths & self.touching:
            return set(), ""
        words = ["diff", "--no-renames", "--full-index", "--binary", *ends, "--"]
        head = f"From {commit} Mon Sep 17 00:00:00 2001\nFrom: Upstream <upstream@localhost>\n"
        head += "Date: Mon, 17 Sep 2001 00:00:00 +0000\nSubject: [PATCH] commit\n\n"
        head += f"Upstream-Status: Backport [{commit}]\n---\n\n"
        return paths, head + "".join(self.git(self.history, *words, *sorted(paths))) + "-- \n2\n"

    def plans(self, commit: str) -> Row | None:
        """Plan a commit; None for one that does not touch what counts, or does not apply."""
        for back in (False, True):
            paths, text = self.patch(commit, back=back)
            if not paths:
                continue
            self.series(text)
            # One that was read before is not read again.
            project = replace(self.project)
            fork = project.manifest.forks[self.name]
            with contextlib.suppress(PatchError):
                tree = apply_series(self.source, load_series(fork.patches), store=project.store)
                return self.row(commit, paths, Planner(project, tree).plan(), back=back)
        return None

    def row(self, commit: str, paths: set[str], plan: Plan, *, back: bool) -> Row:
        built = len(plan.candidates if plan.undecided else plan.built)
        whole, configuring = WHOLE[self.name]
        if plan.route == "compile":
            kind, built, cpu = CLASSES[5], self.modules, float(whole)
        elif built:
            kind = CLASSES[2 if built == 1 else 3 if built <= FEW else 4]
            cpu = configuring + built * (whole - configuring) / self.modules
        else:
            kind, cpu = (CLASSES[1], PYTHON_ONLY) if plan.outputs else (CLASSES[0], IDLE)
        allowed = all(path.endswith(".py") and path in self.copies for path in paths)
        return Row(
            commit=commit,
            kind=kind,
            built=built,
            cpu=round(cpu, 1),
            at_most=bool(plan.undecided),
            allowed=allowed,
            back=back,
        )

    def rows(self, count: int) -> Iterator[Row]:
        limit = f"--max-count={LOOKED_AT}"
        listed = self.git(self.history, "rev-list", "--first-parent", limit, "HEAD")
        for commit in listed[0].split() if listed else ():
            if row := self.plans(commit):
                yield row
                count -= 1
            if not count:
                return

    def compared(self, row: Row) -> dict[str, Any]:
        """Graft a commit, compile its tree, and compare."""
        commit = row.commit
        self.series(self.patch(commit, back=row.back)[1])
        project = replace(self.project)
        try:
            found = check_equivalence(project, project.manifest.forks[self.name])
        except PatchwheelError as err:
            return {"commit": commit, "failed": str(err)}
        different = list(found.differences)
        return {"commit": commit, "equal": found.equal, "different": different}


def drawn(rows: list[Row], count: int, seed: int) -> list[Row]:
    rng = random.Random(seed)
    compiling = [row for row in rows if row.built and row.kind != CLASSES[5]]
    first = rng.sample(compiling, min(len(compiling), -(-count // COMPILED)))
    rest = [row for row in rows if row not in first and row.kind != CLASSES[5]]
    return first + rng.sample(rest, min(len(rest), count - len(first)))


def summary(rows: list[Row]) -> dict[str, Any]:
    grafts = sorted(row.cpu for row in rows if row.kind != CLASSES[5]) or [0.0]
    counts = Counter(row.kind for row in rows)
    said = Counter((row.allowed, row.kind in CLASSES[:2]) for row in rows)
    return {
        "commits": len(rows),
        "histogram": {kind: counts[kind] for kind in CLASSES},
        "reversed": sum(row.back for row in rows),
        "at_most": sum(row.at_most for row in rows),
        "median_cpu": statistics.median(grafts),
        "p90_cpu": grafts[min(len(grafts) - 1, int(len(grafts) * 0.9))],
        "allow_list": {
            "Python only, rightly": said[True, True],
            "Python only, and compiled code changes": said[True, False],
            "a compile, and no compiled code changes": said[False, True],
            "a compile, rightly": said[False, False],
        },
    }


def picture(forks: dict[str, Any]) -> str:
    """Return the SVG: a bar for each fork, with a part for each kind of plan."""
    height = 62 + ROW * len(forks) + 34
    rows = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img" font-family="sans-serif">'
        ),
        "<title>What upstream's own commits would remake</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        text(16, 26, "Upstream's own commits, planned as a patch: what is remade", TEXT, 14),
        text(LEFT + BAR + 12, 48, "median, 90 %: CPU s of a graft", QUIET, 11),
    ]
    for number, (fork, found) in enumerate(forks.items()):
        top, left = 56 + ROW * number, float(LEFT)
        rows.append(text(16, top + 17, f"{fork} ({found['commits']})", TEXT, 12))
        for kind, colour in zip(CLASSES, COLOURS, strict=True):
            part = found["histogram"][kind]
            width = BAR * part / found["commits"]
            rows.append(
                f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="24" fill="{colour}">'
                f"<title>{kind}: {part}</title></rect>"
            )
            if width > ROW * 2 / 3:
                ink = "#ffffff" if kind in CLASSES[4:] else TEXT
                rows.append(text(left + width / 2 - 8, top + 17, str(part), ink, 12))
            left += width
        costs = f"{found['median_cpu']:.1f} and {found['p90_cpu']:.1f}"
        rows.append(text(LEFT + BAR + 12, top + 17, costs, TEXT, 12))
    for number, (kind, colour) in enumerate(zip(CLASSES, COLOURS, strict=True)):
        left, top = 16 + 122 * number, height - 24
        rows.append(f'<rect x="{left}" y="{top}" width="12" height="12" fill="{colour}"/>')
        rows.append(text(left + 18, top + 11, kind, QUIET, 12))
    return "\n".join([*rows, "</svg>"]) + "\n"


def text(left: float, top: float, words: str, colour: str, size: int) -> str:
    return f'<text x="{left:.0f}" y="{top}" fill="{colour}" font-size="{size}">{words}</text>'


def fetched(where: str, folder: Path) -> Path:
    """Return a local history, or a copy of a remote one without its files."""
    if Path(where).is_dir():
        return Path(where)
    argv = ["git", "clone", "-q", "--bare", where, str(folder)]
    subprocess.run(argv, check=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--history", action="append", default=[], metavar="FORK=PATH")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--compare", type=int, default=40, help="how many of each fork")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=FIGURES / "commits.json")
    options = parser.parse_args()
    found = json.loads(options.json.read_text()) if options.json.exists() else {}
    for argument in options.history:
        fork, _, where = argument.partition("=")
        with tempfile.TemporaryDirectory() as name:
            commits = Commits(fork, fetched(where, Path(name) / "history"), Path(name))
            rows = list(commits.rows(options.count))
            for row in rows:
                print(fork, json.dumps(asdict(row)), flush=True)
            facts = summary(rows) | {"seed": options.seed, "compared": []}
            print(fork, json.dumps(facts), flush=True)
            for row in drawn(rows, options.compare, options.seed):
                facts["compared"].append(commits.compared(row) | {"kind": row.kind})
                print(fork, json.dumps(facts["compared"][-1]), flush=True)
        found[fork] = facts
        options.json.write_text(json.dumps(found, indent=1) + "\n")
        options.json.with_suffix(".svg").write_text(picture(found))


if __name__ == "__main__":
    main()
