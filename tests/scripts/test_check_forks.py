"""The check of the forks runs, and finds what it is there to find."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import check_forks
import pytest

from patchwheel.kit import Store
from patchwheel.project import Project
from tests.conftest import Stack
from tests.fixtures import support

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "forks"

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("forks")]


def check(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "check_forks.py")]
    command += ["--patched", str(stack.project), *arguments]
    env = {**os.environ, "PATCHWHEEL_STORE": str(stack.store)}
    return subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=900
    )


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """A copy of the cases, but of the test modules only the smallest."""
    folder = tmp_path / "tests" / "forks"
    others = shutil.ignore_patterns("test_s*.py", "test_coins.py", "__pycache__")
    shutil.copytree(CASES, folder, ignore=others)
    (folder.parent / "__init__.py").touch()
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    return folder


# How many cases of bad input each module has.
BAD_INPUT = {
    "test_cupy": 11,
    "test_host": 85,
    "test_scipy": 730,
    "test_skimage": 538,
    "test_sklearn": 434,
    "test_torch": 15,
}


def test_the_forks_pass(stack: Stack, tmp_path: Path) -> None:
    table, facts = tmp_path / "array-api.md", tmp_path / "facts.json"
    document = (ROOT / "docs" / "reference" / "array-api.md").read_text()
    table.write_text(document)
    done = check(stack, "--coins=0.1", "--table", str(table), "--json", str(facts))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| `.*", table.read_text(), re.MULTILINE)
    recorded = re.findall(r"^\| `.*", document, re.MULTILINE)
    assert [r.split("|")[1:5] for r in rows] == [r.split("|")[1:5] for r in recorded]
    assert {"numpy", "strict", "strict-device1"} <= json.loads(
        table.with_suffix(".json").read_text()
    ).keys()
    found = json.loads(facts.read_text())
    assert [len(column["cases"]) for column in found["columns"]] == [803, 803, 803]
    modules = Counter(re.findall(r"test_[a-z]+(?=\.)", " ".join(found["bad_input"])))
    assert modules == BAD_INPUT
    # With a GPU, other errors come.
    if not Path("/dev/nvidia0").exists():
        assert Counter(found["bad_input"].values()) == {"passed": sum(BAD_INPUT.values())}


@pytest.mark.parametrize(
    ("module", "old", "new", "message"),
    [
        pytest.param(
            "test_skimage.py",
            "function(a(image(dtype, shape)), **options)",
            "a.to_numpy(function(a(image(dtype, shape)), **options))",
            r"strict, CPU: skimage\.util\.img_as_float \(dtype=float64.*\) \[scikit-image/0010\]: "
            r"result is numpy\.ndarray",
            id="silently converted",
        ),
        pytest.param(
            "test_sklearn.py",
            "check_symmetric(a(matrix), raise_warning=False)",
            "check_symmetric(a(matrix), raise_warning=False) "
            "* (1 + (a.versions()['scikit-learn'] == 'PATCHED') * 2**-52)",
            r"NumPy, plain: sklearn\.utils\.check_symmetric .* \[scikit-learn/0040\]: \w+, "
            r"unpatched: \w+",
            id="one bit off",
        ),
        pytest.param(
            "test_coins.py",
            "    problems = known.wrong(",
            "    embedding = column.to_numpy(embedding).copy()\n"
            "    embedding[:, 5] = known.vectors[:, known.k] / known.diagonal\n"
            "    embedding = column(embedding)\n"
            "    problems = known.wrong(",
            r"labels of the coins \(scale=0.1\) .*an eigenvector is missed: angle 1\.6",
            id="missed eigenvector",
        ),
    ],
)
@pytest.mark.heavy
def test_what_is_wrong_is_found_and_named(
    stack: Stack,
    cases: Path,
    module: str,
    old: str,
    new: str,
    message: str,
) -> None:
    [wheel] = (stack.project / "dist").glob("scikit_learn-*.whl")
    text = (CASES / module).read_text()
    assert old in text
    new = new.replace("PATCHED", wheel.name.split("-")[1])
    (cases / module).write_text(text.replace(old, new))
    coins = "0.1" if "coins" in module else "0"
    done = check(stack, "--cases", str(cases), "--coins", coins)
    assert done.returncode == 6, done.stderr
    assert re.search(message, done.stdout), done.stdout


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")
def test_bad_input_without_its_error_is_found(stack: Stack, cases: Path) -> None:
    path = cases / "test_cupy.py"
    text = path.read_text()
    assert "match=NO_GPU_MATCH" in text
    path.write_text(text.replace("match=NO_GPU_MATCH", 'match="no such message"'))
    project = Project(stack.project / "forks.toml", Store(stack.store), support.Recorder())
    python = check_forks.make_environment(project, gpu=False)
    results, failures = check_forks.check_bad_input(argparse.Namespace(cases=path), python)
    assert len(results) == BAD_INPUT["test_cupy"]
    [zeros] = [str(failure) for failure in failures if "[zeros]" in failure.function]
    assert re.match(r"bad input, .*test_cupy\.test_without_a_gpu\S*\[zeros\].*: failed", zeros)


def test_what_failed_is_listed_and_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = check_forks.Failure("strict, CPU", "f", "dtype=x", "scipy/0010", "it converts")
    monkeypatch.setattr(check_forks, "check", lambda _options: ({}, [failed]))
    monkeypatch.setattr(sys, "argv", ["check-forks"])
    with pytest.raises(SystemExit) as ended:
        check_forks.main()
    assert ended.value.code == 6
    said = capsys.readouterr()
    assert said.out == "strict, CPU: f (dtype=x) [scipy/0010]: it converts\n"
    assert said.err == "check-forks: 1 checks failed\n"


@pytest.mark.heavy
def test_a_library_that_is_not_there_is_named(stack: Stack, cases: Path) -> None:
    done = check(stack, "--cases", str(cases), "--coins", "0", "--xp", "jax")
    assert done.returncode == 7, done.stderr
    assert "cannot make the calls of jax: ERROR: jax cannot be used: No module named 'jax'" in (
        done.stderr
    )
    assert "--python jax=PATH" in done.stderr


def test_a_python_without_pytest_is_named(stack: Stack, cases: Path) -> None:
    python = f"strict={stack.environment / 'bin' / 'python'}"
    done = check(stack, "--cases", str(cases), "--coins", "0", "--python", python)
    assert done.returncode == 7, done.stderr
    assert "No module named pytest" in done.stderr


def test_cases_that_do_not_import_stop_the_check(stack: Stack, cases: Path) -> None:
    (cases / "test_broken.py").write_text("import no_such_module\n")
    done = check(stack, "--cases", str(cases), "--coins", "0")
    assert done.returncode == 6
    assert "the calls of strict stop" in done.stderr
    assert "no_such_module" in done.stderr
