"""Check the patched forks: on NumPy against unpatched releases, elsewhere against NumPy.

`nox -s check-forks -- [--fork F] [--xp torch] [--tests] [--json FILE] [--table FILE]` makes the two
environments and runs tests/forks in them. array-api-strict is always a column, bad input has none.
Exit status 6 when a check failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from patchwheel.cli.console import CONSOLE
from patchwheel.environment.compose import compose_for_tests
from patchwheel.environment.upstream_tests import run_files, select_tests
from patchwheel.kit.errors import CheckError, MachineError, ManifestError, PatchwheelError
from patchwheel.kit.store import Store, default_root
from patchwheel.project import Project
from patchwheel.series.files import load_series
from patchwheel.series.worktree import patched_tree
from patchwheel.wheel.build import build_wheels

ROOT = Path(__file__).parents[1]
HEADINGS = {
    "numpy": "NumPy",
    "strict": "strict, CPU",
    "strict-device1": "strict, device1",
    "torch": "torch, CPU",
    "torch-cuda": "torch, CUDA",
    "jax": "JAX",
    "dask": "Dask",
    "cupy": "CuPy",
}
ALWAYS = ("strict", "strict-device1")
# Sums in the same order in every run, and no threads that spin where others want the processor.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
USAGE_ERROR, NO_TESTS = 4, 5  # of pytest's exit statuses
MODES = {"plain": {}, "SCIPY_ARRAY_API=1": {"SCIPY_ARRAY_API": "1"}}
BEGIN, END = "<!-- written by check-forks: begin -->", "<!-- end -->"
# The better outcome of a test first; one that is gone is the worst.
RANKS = ("passed", "skipped", "failed", "gone")


class Failure(NamedTuple):
    where: str
    function: str
    case: str
    patches: str
    why: str

    def __str__(self) -> str:
        case = f" ({self.case})" if self.case else ""
        patches = f" [{self.patches}]" if self.patches else ""
        return f"{self.where}: {self.function}{case}{patches}: {self.why}"


def projects(options: argparse.Namespace) -> tuple[Project, Project]:
    """Return the patched project, and that of the same releases without a patch."""
    manifest = options.patched.absolute() / "forks.toml"
    project = Project(manifest, Store(default_root()), CONSOLE)
    return project, replace(project, without_patches=True)


def make_environment(project: Project, *, gpu: bool) -> Path:
    """Return the Python of an environment of the wheels of a project, pytest included."""
    wheels, _ = build_wheels(project, list(project.manifest.forks.values()))
    groups = ("test", "gpu") if gpu else ("test",)
    return compose_for_tests(project, wheels, groups=groups).python


def run_pytest(
    options: argparse.Namespace,
    python: Path,
    *arguments: str,
    api: bool = True,
    stand_in: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run the modules of tests/forks in the environment of a Python."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    env |= {"SCIPY_ARRAY_API": "1" if api else ""} | ONE_THREAD
    env["CUPY_STAND_IN"] = "1" if stand_in else ""
    command = [str(python), "-m", "pytest", "-q", "--tb=short", str(options.cases), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def run_cases(
    options: argparse.Namespace,
    python: Path,
    column: str,
    *,
    api: bool,
    coins: bool,
    stand_in: bool = False,
) -> dict[str, Any]:
    """Make the calls of one column, and return what came of them."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "record.json"
        arguments = ["--column", column, "--record", str(output)]
        arguments += [f"--coins={options.coins if coins else 0:g}"]
        arguments += [word for fork in options.fork for word in ("--fork", fork)]
        done = run_pytest(options, python, *arguments, api=api, stand_in=stand_in)
        unusable = done.returncode == USAGE_ERROR or "No module named pytest" in done.stderr
        if unusable and not output.exists():
            reason = done.stderr.strip().rpartition("\n")[2]
            raise MachineError(
                f"{python} cannot make the calls of {column}: {reason}",
                hint="name an environment with the library, the wheels of dist/, pytest and "
                f"array-api-strict: --python {column}=PATH",
            )
        # No call may be for the column: the record says so.
        if done.returncode not in {0, 1, NO_TESTS}:
            raise CheckError(f"the calls of {column} stop:\n{done.stdout[-3000:]}{done.stderr}")
        record: dict[str, Any] = json.loads(output.read_text())
        return record


def check_bad_input(
    options: argparse.Namespace, python: Path
) -> tuple[dict[str, str], list[Failure]]:
    """Run the tests of bad input; return the outcome of each, and the failures."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = run_pytest(options, python, "-m", "not calls", f"--junitxml={report}")
        if done.returncode not in {0, 1}:
            raise CheckError(f"the bad input stops:\n{done.stdout[-3000:]}{done.stderr}")
        results = outcomes(report)
    failed = [test for test, outcome in results.items() if outcome == "failed"]
    where = f"bad input, `{python} -m pytest {options.cases}` shows why"
    return results, [Failure(where, test, "", "", "failed") for test in failed]


def fails(where: str, row: dict[str, Any]) -> Failure:
    patches = ", ".join(row["patches"])
    return Failure(where, row["function"], row["case"], patches, row["why"])


def check_numpy(
    options: argparse.Namespace, patched: Path, unpatched: Path
) -> tuple[dict[str, Any], list[Failure]]:
    """Compare the results on NumPy with the unpatched releases'; return those of the patched."""
    failures, found = [], {}
    for mode, api in (("plain", False), ("SCIPY_ARRAY_API=1", True)):
        CONSOLE.say(f"NumPy, {mode}")
        found, before = (
            run_cases(options, python, "numpy", api=api, coins=api and new)
            for python, new in ((patched, True), (unpatched, False))
        )
        old = {(row["function"], row["case"]): row for row in before["cases"]}
        for row in found["cases"]:
            other = old.get((row["function"], row["case"]))
            if other and row["why"] != other["why"]:
                row["why"] = f"{row['why']:.300}, unpatched: {other['why']:.300}"
                row["verdict"] = "fails"
            if row["verdict"] == "fails":
                failures.append(fails(f"NumPy, {mode}", row))
    return found, failures


def check_named(options: argparse.Namespace, cases: Sequence[dict[str, Any]]) -> list[Failure]:
    """Check that each patch has a case."""
    named = {patch for row in cases for patch in row["patches"]}
    present: set[str] = set()
    for path in (options.patched / "patches").glob("*/series"):
        names = (patch.name for patch in load_series(path.parent).patches)
        present |= {f"{path.parent.name}/{name.partition('-')[0]}" for name in names}
    if options.fork:
        present = {p for p in present if p.partition("/")[0] in options.fork}
    return [
        Failure("cases", patch, "", "", "the patch has no case")
        for patch in sorted(present - named)
    ]


def cell(rows: Sequence[dict[str, Any]], column: str) -> str:
    """Say in a few words how the cases of one function went."""
    count = Counter(row["verdict"] for row in rows)
    count["yes"] += count.pop("same", 0)
    refused = sorted({r["why"].partition(":")[0] for r in rows if r["verdict"] == "no"})
    no = f"no ({', '.join(refused)})"
    if count["fails"]:
        silent = any("numpy." in r["why"] or "scipy." in r["why"] for r in rows)
        what = "converts to NumPy" if silent and column != "numpy" else "fails"
        return f"**{what}: {count['fails']} of {len(rows)}**"
    if not count["yes"]:
        return no if count["no"] else "-"
    if count["no"]:
        return f"{count['yes']} of {len(rows)}, else {no}"
    return "as unpatched" if column == "numpy" else "yes"


def record(known: dict[str, Any], found: dict[str, Any]) -> None:
    """Put what one column gave in the place of what an earlier run gave."""
    functions: dict[str, list[dict[str, Any]]] = {}
    for row in found["cases"]:
        functions.setdefault(row["function"], []).append(row)
    known[found["column"]] = {
        "versions": found["versions"],
        "functions": {f: cell(rows, found["column"]) for f, rows in functions.items()},
    }


def lines_of(known: dict[str, Any]) -> Iterator[str]:
    """Yield the table of the documentation, and below it the versions of each column."""
    functions = next(iter(known.values()))["functions"]
    yield f"| function | {' | '.join(HEADINGS.values())} |"
    yield f"| --- |{' --- |' * len(HEADINGS)}"
    for function in functions:
        name, comma, rest = function.partition(", ")
        cells = [
            known[c]["functions"].get(function, "not run") if c in known else "not run"
            for c in HEADINGS
        ]
        yield f"| `{name}`{comma}{rest} | {' | '.join(cells)} |"
    yield ""
    for column, heading in HEADINGS.items():
        said = known.get(column, {}).get("versions", {})
        versions = ", ".join(f"{k} {v}" for k, v in said.items())
        yield f"* {heading}: {versions or 'not run'}"


def write_table(path: Path, known: dict[str, Any]) -> None:
    text = path.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ManifestError(f"{path} has no lines {BEGIN!r} and {END!r}")
    inner = "\n".join(lines_of(known))
    path.write_text(f"{before}{BEGIN}\n\n{inner}\n\n{END}{after}")
    path.with_suffix(".json").write_text(json.dumps(known, indent=1) + "\n")


def outcomes(report: Path) -> dict[str, str]:
    """Return the outcome of each test in pytest's file, by a name that fits both environments."""
    found: dict[str, str] = {}
    for test in ET.parse(report).iter("testcase"):
        name = f"{test.get('classname')}.{test.get('name')}".strip(".")
        module, bracket, parameters = name.partition("[")
        # Where the environment or the tree is differs.
        short = re.sub(r"^(.*\.site-packages|tree)\.", "", module)
        kinds = {child.tag for child in test}
        bad = "failed" if kinds & {"failure", "error"} else "passed"
        outcome = "skipped" if "skipped" in kinds else bad
        found[short + bracket + parameters] = outcome
    return found


def worse(new: dict[str, str], old: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each test whose outcome is worse, and why; a new one has to pass or be skipped."""
    # Parameters out of a set have other names in each process: of those, only the number counts.
    many, before = (Counter(t.partition("[")[0] for t in r) for r in (new, old))
    for test in sorted(new.keys() | old.keys()):
        now, was = new.get(test, "gone"), old.get(test, "skipped")
        base = test.partition("[")[0]
        renamed = now == "gone" and many[base] >= before[base]
        if RANKS.index(now) > RANKS.index(was) and not renamed:
            yield test, f"{now}, unpatched: {was}"


def upstream_tests(
    options: argparse.Namespace, names: Sequence[str]
) -> tuple[dict[str, Any], list[Failure]]:
    """Run upstream's tests of what each series touches; an outcome that is worse is a failure."""
    ours, theirs = projects(options)
    counts: dict[str, Any] = {}
    failures = []
    for name in names:
        files = select_tests(patched_tree(ours, ours.manifest.forks[name]))
        for mode, chosen in MODES.items():
            found = []
            variables, words = chosen, []
            if chosen and "cupy" not in options.xp:
                # By "1" tests take every library that imports, as CuPy does without a GPU;
                # scikit-learn wants just "1".
                words = ["-k", "not cupy-"]
                if name == "scipy":
                    variables = {"SCIPY_ARRAY_API": '["numpy", "array_api_strict"]'}
            for which, project in (("patched", ours), ("unpatched", theirs)):
                CONSOLE.say(f"upstream's tests of {name}, {mode}, {which}")
                results = run_upstream(project, name, files, variables, words)
                counts[f"{name}, {mode}, {which}"] = Counter(results.values())
                found.append(results)
            where = f"tests of {name}, {mode}"
            failures += [Failure(where, t, "", "", why) for t, why in worse(*found)]
    return counts, failures


def run_upstream(
    project: Project,
    name: str,
    files: Sequence[str],
    variables: dict[str, str],
    words: Sequence[str],
) -> dict[str, str]:
    manifest = project.manifest
    wheels, _ = build_wheels(project, list(manifest.forks.values()))
    fork = manifest.forks[name]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        run_files(
            project,
            patched_tree(project, fork),
            compose_for_tests(project, wheels),
            files,
            ["-q", "--tb=no", "-rN", f"--junitxml={report}", *words],
            variables=ONE_THREAD | variables,
        )
        return outcomes(report)


def show_tests(counts: dict[str, Any]) -> None:
    rows = [[what, *(str(count[rank]) for rank in RANKS[:3])] for what, count in counts.items()]
    CONSOLE.table(["upstream's tests", "passed", "skipped", "failed"], rows)


def check(options: argparse.Namespace) -> tuple[dict[str, Any], list[Failure]]:
    """Run what was asked for; return what goes to --json, and the failures."""
    path = options.table and options.table.with_suffix(".json")
    known = json.loads(path.read_text()) if path and path.exists() else {}
    pythons = dict(pair.partition("=")[::2] for pair in options.python)
    patched, unpatched = (
        make_environment(project, gpu="cupy" in options.xp) for project in projects(options)
    )
    others: list[dict[str, Any]] = []
    # First, as --python may name what cannot be used.
    for name in dict.fromkeys((*ALWAYS, *options.xp)):
        CONSOLE.say(HEADINGS[name])
        python = Path(pythons.get(name, patched)).absolute()
        others.append(run_cases(options, python, name, api=True, coins=True))
    numpy, failures = check_numpy(options, patched, unpatched)
    failures += check_named(options, numpy["cases"])
    columns = [numpy, *others]
    for found in others:
        name = found["column"]
        for fork, made in numpy["versions"].items():
            if found["versions"].get(fork) != made:
                raise ManifestError(
                    f"--python {name}=…: {fork} there is {found['versions'].get(fork)}, "
                    f"in the environment {made}",
                    hint="install the wheels of dist/ there",
                )
        bad = [row for row in found["cases"] if row["verdict"] == "fails"]
        failures += [fails(HEADINGS[name], row) for row in bad]
    for found in columns:
        record(known, found)
    # The order of the cases, also of functions that are new.
    shown = {c: known[c] for c in HEADINGS if c in known}
    head = ["function", *(HEADINGS[f["column"]] for f in columns)]
    CONSOLE.table(
        head,
        [
            [f, *(shown[c["column"]]["functions"].get(f, "-") for c in columns)]
            for f in shown["numpy"]["functions"]
        ],
    )
    CONSOLE.say("the stand-in for CuPy")
    stood_in = run_cases(options, patched, "cupy", api=True, coins=True, stand_in=True)
    bad = [row for row in stood_in["cases"] if row["verdict"] == "fails"]
    failures += [fails("the stand-in for CuPy", row) for row in bad]
    CONSOLE.say("bad input")
    bad_input, broken = check_bad_input(options, patched)
    failures += broken
    facts: dict[str, Any] = {"columns": columns, "stand_in": stood_in, "bad_input": bad_input}
    if options.tests:
        forks = options.fork or [
            path.parent.name
            for path in sorted((options.patched / "patches").glob("*/series"))
            # CuPy's own tests need a GPU.
            if path.parent.name != "cupy" or "cupy" in options.xp
        ]
        facts["tests"], broken = upstream_tests(options, forks)
        failures += broken
        show_tests(facts["tests"])
    if options.table:
        write_table(options.table, shown)
    return facts | {"failures": [f._asdict() for f in failures]}, failures


def main() -> None:
    parser = argparse.ArgumentParser(prog="check-forks", description=__doc__)
    parser.add_argument("--fork", action="append", default=[], help="only this one; repeatable")
    parser.add_argument("--xp", action="append", default=[], choices=HEADINGS, help="repeatable")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="XP=PATH",
        help="Python with that library, the wheels of dist/, pytest and array-api-strict",
    )
    parser.add_argument("--coins", type=float, default=0.2, help="0 to leave them out")
    parser.add_argument("--tests", action="store_true", help="also upstream's tests")
    parser.add_argument("--json", type=Path, help="also write all of it there")
    parser.add_argument("--table", type=Path, help="docs/reference/array-api.md")
    parser.add_argument("--patched", type=Path, default=ROOT, help=argparse.SUPPRESS)
    parser.add_argument("--cases", type=Path, default=ROOT / "tests/forks", metavar="FOLDER")
    options = parser.parse_args()
    if options.table and options.fork:
        parser.error("--table needs the cases of all forks, without --fork")
    # What upstream's tests are run without must not come from the user.
    os.environ.pop("SCIPY_ARRAY_API", None)
    try:
        facts, failures = check(options)
        if options.json:
            options.json.write_text(json.dumps(facts, indent=1) + "\n")
        for failure in failures:
            print(failure)
        if failures:
            raise CheckError(f"{len(failures)} checks failed")
    except PatchwheelError as error:
        print(f"check-forks: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    count = sum(len(c["cases"]) for c in facts["columns"])
    print(f"all is well: {count} calls, {len(facts['bad_input'])} of bad input")


if __name__ == "__main__":
    main()
