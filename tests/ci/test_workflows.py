"""The CI workflows and scripts: what they contain, and what stops a publication."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from ruamel.yaml import YAML

from patchwheel.ci import workflows
from patchwheel.kit.errors import CheckError, ManifestError
from patchwheel.manifest.load import load_manifest
from patchwheel.manifest.lock import load_lock
from tests.fixtures import support

WORKFLOWS = sorted((support.ROOT / ".github/workflows").glob("*.yml"))
GENERATED = {"check.yml", "release.yml", "scheduled.yml"}
BIN = Path(sys.executable).parent


def parsed(path: Path) -> dict[str, Any]:
    answer: dict[str, Any] = YAML(typ="safe").load(path.read_text())
    return answer


def run(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PATH": path, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Our own manifest, lock, series and scripts, in a folder that a test may change."""
    folder = tmp_path / "project"
    support.copy_project(folder)
    shutil.copytree(support.ROOT / "ci", folder / "ci")
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def schema_check(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"]
    return run(*command, *paths, cwd=support.ROOT)


def test_the_workflows_are_what_the_manifest_gives() -> None:
    assert {path.name for path in WORKFLOWS} == {*GENERATED, "package.yml", "suite.yml"}
    written = workflows.write_workflows(load_manifest(support.ROOT / "forks.toml"), check=True)
    assert {path.name for path in written if path.suffix == ".yml"} == GENERATED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('python = ["3.12", "3.13"]', 'python = ["3.13"]'),
        ("[forks.scikit-learn]", "[forks.scikit-learn-two]"),
    ],
)
def test_a_changed_manifest_makes_the_workflows_stale(project: Path, old: str, new: str) -> None:
    assert run("patchwheel", "ci", cwd=project).returncode == 0
    assert run("patchwheel", "ci", "--check", cwd=project).returncode == 0
    edit(project / "forks.toml", old, new)
    done = run("patchwheel", "ci", "--check", cwd=project)
    assert done.returncode == 6
    assert "not what the manifest gives: check.yml, release.yml" in done.stderr
    assert "next: run `patchwheel ci`" in done.stderr
    assert run("patchwheel", "ci", cwd=project).returncode == 0
    assert run("patchwheel", "ci", "--check", cwd=project).returncode == 0


def test_an_edited_or_missing_workflow_is_found(project: Path) -> None:
    manifest = load_manifest(project / "forks.toml")
    workflows.write_workflows(manifest, check=False)
    edit(project / workflows.WORKFLOWS / "check.yml", "permissions: {}", "permissions: write-all")
    (project / workflows.WORKFLOWS / "release.yml").unlink()
    with pytest.raises(CheckError, match=r"gives: check\.yml, release\.yml\n"):
        workflows.write_workflows(manifest, check=True)


def test_the_bytecode_that_pip_leaves_beside_the_scripts_is_none_of_them(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pip compiles every .py file that it installs.
    installed = tmp_path / "installed"
    shutil.copytree(workflows.SCRIPTS, installed)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(installed)], check=True)
    assert (installed / "__pycache__").is_dir()
    monkeypatch.setattr(workflows, "SCRIPTS", installed)
    written = workflows.write_workflows(load_manifest(project / "forks.toml"), check=False)
    scripts = {path.name for path in written if path.parent == project / "ci"}
    # The requirements are the owner's: they are written once.
    ours = {path.name for path in (support.ROOT / "ci").iterdir() if path.is_file()}
    assert scripts == ours - {"requirements.txt"}


def test_the_service_takes_the_workflows(tmp_path: Path) -> None:
    assert schema_check(*WORKFLOWS).returncode == 0
    broken = tmp_path / "broken.yml"
    shutil.copy(WORKFLOWS[0], broken)
    edit(broken, "runs-on:", "run-on:")
    done = schema_check(broken)
    assert done.returncode == 1
    assert "'run-on'" in done.stdout


RIGHTS = {
    ("release.yml", "promote"): {"attestations", "contents", "id-token", "pages"},
    # It opens pull requests with what another job made.
    ("scheduled.yml", "offer"): {"contents", "pull-requests"},
    # The index trusts it, without a token.
    ("package.yml", "publish"): {"id-token"},
}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_thin_pinned_and_without_rights(path: Path) -> None:
    workflow = parsed(path)
    assert workflow["permissions"] == {}
    for used in re.findall(r"uses: *(.*)", path.read_text()):
        assert re.fullmatch(r"[\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used)
    for name, job in workflow["jobs"].items():
        rights = {r for r, level in job["permissions"].items() if level == "write"}
        assert rights == RIGHTS.get((path.name, name), set())
        assert "timeout-minutes" in job
        for step in job["steps"]:
            if "run" in step:
                # What comes from a matrix reaches a shell as a variable.
                assert re.match(
                    r"(ci/|\.ci/run$|\./scripts/nox -s (coverage|package)$|python3 ci/)",
                    step["run"],
                )
                assert "${{" not in step["run"]
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
        if rights:
            # What has rights installs nothing.
            assert not any("ci/setup" in step.get("run", "") for step in job["steps"])


def test_pull_requests_are_grafted_and_only_releases_compile() -> None:
    check, release = (
        parsed(support.ROOT / workflows.WORKFLOWS / f"{n}.yml") for n in ("check", "release")
    )
    # YAML 1.2: `on` is a word.
    assert "pull_request" in check["on"]
    assert set(check["jobs"]) == {"plan", "graft", "test", "compose"}
    assert set(release["on"]) == {"push", "workflow_dispatch"}
    assert release["jobs"]["promote"]["if"] == "github.ref_type == 'tag'"
    needs = {name: job.get("needs", []) for name, job in release["jobs"].items()}
    assert needs["stage"] == ["test", "compose"]
    assert needs["promote"] == ["stage", "validate"]
    # A release restores no cache: whoever may write one would else have a hand in it.
    assert "cache" not in (support.ROOT / workflows.WORKFLOWS / "release.yml").read_text()


def test_the_matrix_is_forks_by_pythons(tmp_path: Path) -> None:
    tables = {
        "one": 'version = "1.0"\nsdist = { filename = "one-1.0.tar.gz", sha256 = "%s" }\n',
        "two": 'version = "1.0"\nprograms = ["cuda"]\n'
        'sdist = { filename = "two-1.0.tar.gz", sha256 = "%s" }\n',
    }
    tables = {name: text % ("0" * 64) for name, text in tables.items()}
    path = support.make_manifest(tmp_path, tables, python="3.12 3.13")
    manifest = load_manifest(path)
    found = {cell.name: cell for cell in workflows.cells(manifest)}
    for kind in ("graft", "release", "rebuild"):
        names = [
            f"{kind}-{fork}-{python}" for python in ("3.12", "3.13") for fork in ("one", "two")
        ]
        assert [name for name in found if name.startswith(kind)] == names
    # Tests of a fork for CUDA need a GPU; no fork names a repository that could be watched.
    assert found["test-3.13"].forks == ("one",)
    assert found["compose-3.13"].line == "compose 20 3.13 - one two"
    assert found["watch"].line == "watch 60 - -"


def test_variants_are_released_each_where_its_toolchain_is(project: Path) -> None:
    manifest = load_manifest(project / "forks.toml")
    rows = workflows.matrix(manifest, load_lock(manifest.lock_path))["release"]
    found = {row["cell"]: row["container"] for row in rows if row["forks"] == ("cupy",)}
    pythons, variants = ("3.12", "3.13"), ("cuda13", "rocm7")
    assert set(found) == {f"release-cupy-{p}-{v}" for p in pythons for v in variants}
    assert found["release-cupy-3.12-cuda13"] == ""
    image = str(found["release-cupy-3.12-rocm7"])
    assert re.search(r"/rocm/.*:7\.[\w.-]+@sha256:[0-9a-f]{64}$", image)
    # What a variant demands comes from the repository's settings; a program of a fork is installed.
    text = workflows.render_workflows(manifest)[project / workflows.WORKFLOWS / "release.yml"]
    assert "HCC_AMDGPU_TARGET: ${{ vars.HCC_AMDGPU_TARGET }}" in text
    assert "run: ci/setup --system gfortran\n" in text


IMAGE = f"quay.io/pypa/manylinux_2_28_x86_64@sha256:{'5' * 64}"
PLATFORM = '[environment]\nplatform = "manylinux_2_28"\n'


def test_releases_are_compiled_in_the_image_of_their_platform(project: Path) -> None:
    path = project / "forks.toml"
    edit(path, "[environment]\n", f'{PLATFORM}platform-image = "{IMAGE}"\n')
    manifest = load_manifest(path)
    rows = workflows.matrix(manifest, load_lock(manifest.lock_path))
    found = {
        row["cell"]: row["container"] for kind in rows.values() for row in kind if row["single"]
    }
    assert {found[f"{kind}-scipy-3.12"] for kind in ("release", "rebuild")} == {IMAGE}
    assert found["graft-scipy-3.12"] == ""
    # ROCm is only in its own.
    assert "/rocm/" in str(found["release-cupy-3.12-rocm7"])
    assert run("patchwheel", "ci", cwd=project).returncode == 0
    release = project / workflows.WORKFLOWS / "release.yml"
    assert schema_check(release).returncode == 0
    done = run("zizmor", "--offline", "--no-progress", release, cwd=project)
    assert done.returncode == 0, done.stdout
    steps = parsed(release)["jobs"]["release"]["steps"]
    [python] = [step for step in steps if step["name"] == "Set up Python"]
    assert python["if"] == "${{ !contains(matrix.container, 'manylinux') }}"
    [setup] = [step for step in steps if step["name"] == "Set up patchwheel"]
    assert setup["run"] == "ci/setup --system gfortran --rpm gcc-gfortran"


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("", "release wheels are for manylinux_2_28, and CI has no image of it"),
        (IMAGE.partition("@")[0], "environment.platform-image is"),
        (IMAGE[:-1], "environment.platform-image is"),
    ],
)
def test_a_platform_needs_an_image_pinned_by_digest(project: Path, image: str, said: str) -> None:
    key = f'platform-image = "{image}"\n' if image else ""
    edit(project / "forks.toml", "[environment]\n", PLATFORM + key)
    done = run("patchwheel", "ci", cwd=project)
    assert done.returncode == 2
    assert said in done.stderr
    assert "@sha256:DIGEST" in done.stderr
    assert not (project / workflows.WORKFLOWS).exists()


@pytest.mark.parametrize(
    ("manager", "installed"),
    [
        ("apt-get", "-qq install -y --no-install-recommends bubblewrap gcc g++ git"),
        ("dnf", "-q -y install bubblewrap git gcc-gfortran"),
    ],
)
def test_a_machine_gets_the_packages_of_its_kind(
    project: Path, tmp_path: Path, manager: str, installed: str
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("dirname", "tr", "grep", "mkdir", "ln"):
        (programs / name).symlink_to(str(shutil.which(name)))
    fakes = {manager: "", "tee": "", "id": "echo 0", "python3": "mkdir -p .venv-ci/bin; "}
    fakes["python3"] += f'[ "$2" != venv ] || ln -s {programs}/python3 .venv-ci/bin/python'
    for name, body in fakes.items():
        text = f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/ran\n{body}\n'
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    command = ("/bin/sh", "ci/setup", "--system", "gfortran", "--rpm", "gcc-gfortran")
    env = {"PATH": str(programs), "PYTHON": "3.12"}
    done = subprocess.run(
        command, cwd=project, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ran = (tmp_path / "ran").read_text()
    assert f"{manager} {installed}" in ran
    assert ("python3-venv gfortran\n" in ran, "rpm" in ran) == (manager == "apt-get", False)


def test_a_variant_without_its_toolchain_is_named(project: Path) -> None:
    edit(project / "forks.toml", '  "cuda-toolkit[', '  "cuda-tools[')
    done = run("patchwheel", "ci", cwd=project)
    assert done.returncode == 2
    assert "cupy needs a CUDA toolkit, and CI has none" in done.stderr
    assert not (project / workflows.WORKFLOWS).exists()


def test_a_variant_without_its_toolchain_publishes_nothing(project: Path) -> None:
    """Its cell fails where it is not locked or has no toolchain; nothing is staged without it."""
    done = run("ci/run-cell", "release-cupy-3.12-rocm7", cwd=project)
    assert done.returncode in {2, 7}
    assert "cupy:rocm7" in done.stderr
    for cell in CELLS[:-1]:
        cell_of(project, cell, cell.encode())
    assert "no wheel of release-cupy-3.13-rocm7" in stage(project).stderr


def test_a_cell_that_is_not_in_the_matrix_is_named(project: Path) -> None:
    with pytest.raises(
        ManifestError, match=r"no cell 'graft-scipi-3.12' \(did you mean 'graft-scipy-3.12'"
    ):
        workflows.find_cell(load_manifest(project / "forks.toml"), "graft-scipi-3.12")
    done = run("ci/run-cell", "release-scipy-3.9", cwd=project)
    assert done.returncode == 2
    assert "the matrix has no cell 'release-scipy-3.9'" in done.stderr
    assert not (project / "dist").exists()
    assert run("ci/run-cell", cwd=project).returncode == 2


def test_every_kind_of_cell_has_commands() -> None:
    script = (support.ROOT / "ci/run-cell").read_text()
    kinds = {cell.kind for cell in workflows.cells(load_manifest(support.ROOT / "forks.toml"))}
    assert kinds == set(re.findall(r"^(\w+)\)$", script, re.MULTILINE))


def test_a_cache_key_changes_with_its_fork_alone(project: Path) -> None:
    def keys() -> dict[str, object]:
        manifest = load_manifest(project / "forks.toml")
        found = workflows.matrix(manifest, load_lock(manifest.lock_path))
        return {str(row["cell"]): row["key"] for row in found["graft"]}

    before = keys()
    patch = next((project / "patches/scipy").glob("*.patch"))
    patch.write_bytes(patch.read_bytes() + b"\n")
    after = keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"graft-scipy-3.12", "graft-scipy-3.13"}
    assert before == after | {name: before[name] for name in changed}


def test_a_lock_that_lacks_a_python_is_found_before_anything_runs(project: Path) -> None:
    edit(project / "forks.toml", '"3.12"', '"3.12", "3.10"')
    done = run("patchwheel", "ci", "--matrix", cwd=project)
    assert done.returncode == 2
    assert "scipy has no entry for Python 3.10" in done.stderr


def test_one_question_at_a_time(project: Path) -> None:
    assert run("patchwheel", "ci", "--check", "--cells", cwd=project).returncode == 2


def test_what_setup_installs_is_what_the_package_requires() -> None:
    text = (support.ROOT / "ci/requirements.txt").read_text()
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", text, re.MULTILINE))
    project = tomllib.loads((support.ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


def fake_tool(project: Path, line: str, then: str) -> dict[str, str]:
    """Put a command in place of patchwheel that knows one cell, to test run-cell alone."""
    tool = project / "fake" / "patchwheel"
    support.write(
        project,
        {
            "fake/patchwheel": f"""#!/bin/sh
case "$2" in
--cell) echo {line} ;;
*) {then} ;;
esac
"""
        },
    )
    tool.chmod(0o755)
    return {"PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}"}


def test_a_cell_that_takes_too_long_is_ended_and_says_so(project: Path) -> None:
    summary = project / "summary.md"
    env = fake_tool(project, "compose 0.01 3.12 - scipy", "exec sleep 60")
    done = run("ci/run-cell", "compose-3.12", cwd=project, GITHUB_STEP_SUMMARY=str(summary), **env)
    assert done.returncode == 124
    assert "### compose-3.12: failed, not done after 0.01 minutes" in summary.read_text()


def test_a_failed_cell_passes_its_exit_status_on(project: Path) -> None:
    env = fake_tool(project, "compose 5 3.12 - scipy", "exit 7")
    done = run("ci/run-cell", "compose-3.12", cwd=project, **env)
    assert done.returncode == 7
    report = project / "dist/reports/compose-3.12.md"
    assert report.read_text() == "### compose-3.12: failed, exit status 7\n\n"


def test_every_failing_fork_of_a_test_cell_is_named(project: Path) -> None:
    env = fake_tool(project, "test 5 3.12 - one two three", '[ "$2" = two ] || exit 6')
    done = run("ci/run-cell", "test-3.12", cwd=project, **env)
    assert done.returncode == 6
    assert "upstream's tests fail: one three" in done.stderr


def test_a_python_without_patchwheel_is_named_before_anything_is_built(project: Path) -> None:
    env = fake_tool(project, "graft 60 3.12 - scipy", "false")
    support.write(project, {"fake/python3": "#!/bin/sh\nexit 1\n"})
    (project / "fake/python3").chmod(0o755)
    done = run("ci/run-cell", "graft-scipy-3.12", cwd=project, **env)
    assert done.returncode == 7
    assert f"{project}/fake/python3 does not have patchwheel; next: ci/setup" in done.stderr


def test_what_upstream_changed_fails_the_watch(project: Path) -> None:
    def watch(script: str) -> subprocess.CompletedProcess[str]:
        env = fake_tool(project, "watch 5 - - scipy", f'echo "0010-a.patch  $*"; {script}')
        return run("ci/run-cell", "watch", cwd=project, **env)

    done = watch("exit 3")
    assert done.returncode == 3
    wanted = "status scipy --against main --changes --fail-on conflict,landed,reverted,unknown"
    assert done.stdout == f"0010-a.patch  {wanted}\n"
    report = (project / "dist/reports/watch.md").read_text()
    assert report == f"    0010-a.patch  {wanted}\n\n### watch: failed, exit status 3\n\n"
    assert watch("exit 0").returncode == 0


def test_proposals_are_bundled_and_offered(project: Path, tmp_path: Path) -> None:
    support.git(project, "init", "-q", "-b", "main")
    support.git(project, "commit", "-q", "--allow-empty", "-m", "Begin")
    then = '[ "$2" = one ] || exit 4; git branch -f patchwheel/one; git commit -q --allow-empty'
    then += " -m One -m Text; git branch -f patchwheel/one; git reset -q --hard HEAD~; echo One"
    env = fake_tool(project, "propose 5 - - one two", then)
    done = run("ci/run-cell", "propose", cwd=project, **env)
    assert done.returncode == 3
    assert "no proposal: two" in done.stderr
    reports = project / "dist/reports"
    assert (reports / "propose.md").read_text().startswith("One\nno proposal: two\n")
    # Offered from another checkout, which has the commit that they are based on.
    other, hub = tmp_path / "other", tmp_path / "hub"
    support.git(tmp_path, "init", "-q", "--bare", str(hub))
    support.git(tmp_path, "clone", "-q", str(project), str(other))
    support.git(other, "remote", "set-url", "origin", str(hub))
    shutil.copytree(project / "ci", other / "ci")
    gh = 'echo "$@" >>calls; [ "$2" = edit ] && cat >>calls; [ "$2" != create ]'
    tool = support.program(tmp_path / "bin" / "gh", gh)
    path = {"PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}"}
    for _ in range(2):
        done = run("ci/github-release", "offer", str(reports), cwd=other, **path)
        assert done.returncode == 0, done.stderr
    assert support.git(hub, "log", "-1", "--format=%s", "patchwheel/one") == "One"
    calls = (other / "calls").read_text().splitlines()
    assert "pr create --head patchwheel/one --fill" in calls
    assert "pr edit patchwheel/one --body-file - --title One" in calls
    assert "Text" in calls
    # Where nothing was proposed there is nothing to offer.
    assert run("ci/github-release", "offer", str(tmp_path), cwd=other, **path).returncode == 0
    assert run("ci/github-release", "nothing", cwd=other, **path).returncode == 2


def test_of_earlier_releases_the_wheels_and_what_is_said_of_them_now_are_taken(
    project: Path, tmp_path: Path
) -> None:
    gh = 'if [ "$2" = list ]; then printf "v2\\nv1\\n"; else echo "$*" >>calls; fi'
    tool = support.program(tmp_path / "bin" / "gh", gh)
    path = {"PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}"}
    done = run("ci/github-release", "earlier", "publish/earlier", cwd=project, **path)
    assert done.returncode == 0, done.stderr
    what = "--dir publish/earlier --pattern *.whl --pattern *.whl.cdx.json --skip-existing"
    assert (project / "calls").read_text() == "".join(
        f"release download {tag} {what}\n" for tag in ("v2", "v1")
    )


def cell_of(project: Path, cell: str, content: bytes, *, name: str = "", told: str = "") -> Path:
    """Leave a wheel and its report, as the job of a release cell does."""
    folder = project / "publish/cells" / f"{cell}-{len(content)}"
    file = name or f"{cell.split('-')[1]}-1.0+arrayapi.h00000000-cp312-cp312-linux_x86_64.whl"
    digest = told or hashlib.sha256(content).hexdigest()
    report = {"cell": cell, "wheels": [{"file": file, "sha256": digest, "version": "1.0"}]}
    support.write(folder, {file: content, f"reports/{cell}.json": json.dumps(report)})
    return folder / file


def stage(project: Path) -> subprocess.CompletedProcess[str]:
    done = run("ci/run-cell", "stage", cwd=project)
    left = {path.name for path in (project / "publish").iterdir()}
    assert left <= {"cells", "earlier"}, "something was staged"
    return done


CELLS = tuple(
    f"release-{fork}-{python}{variant}"
    for python in ("3.12", "3.13")
    for fork, *variants in (
        ("scipy", ""),
        ("scikit-learn", ""),
        ("scikit-image", ""),
        ("cupy", "-cuda13", "-rocm7"),
    )
    for variant in variants
)


def test_a_cell_whose_runner_died_stops_the_publication(project: Path) -> None:
    for cell in CELLS[:-1]:
        cell_of(project, cell, cell.encode())
    done = stage(project)
    assert done.returncode == 6
    assert "no wheel of release-cupy-3.13-rocm7; has the cell failed, or its runner?" in done.stderr
    assert "`ci/run-cell release-cupy-3.13-rocm7` runs it here" in done.stderr
    assert "nothing is published" in done.stderr


def test_a_wheel_of_an_unknown_cell_stops_the_publication(project: Path) -> None:
    for cell in (*CELLS, "release-numpy-3.12"):
        cell_of(project, cell, cell.encode())
    done = stage(project)
    assert done.returncode == 6
    assert "release-numpy-3.12, a cell that is not in the matrix" in done.stderr


def test_two_wheels_of_one_name_and_other_bytes_stop_the_publication(project: Path) -> None:
    for cell in CELLS:
        cell_of(project, cell, cell.encode(), name="same-1.0-cp312-cp312-linux_x86_64.whl")
    done = stage(project)
    assert done.returncode == 6
    assert "two files are called same-1.0-cp312-cp312-linux_x86_64.whl" in done.stderr


@pytest.mark.parametrize("how", ["changed", "missing", "two"])
def test_a_wheel_that_is_not_what_its_cell_reported_stops_the_publication(
    project: Path, how: str
) -> None:
    wheel, *_ = [cell_of(project, cell, cell.encode()) for cell in CELLS]
    if how == "changed":
        wheel.write_bytes(b"other")
    elif how == "missing":
        wheel.unlink()
    else:
        report = wheel.parent / "reports/release-scipy-3.12.json"
        told = json.loads(report.read_text())
        report.write_text(json.dumps({**told, "wheels": told["wheels"] * 2}))
    done = stage(project)
    assert done.returncode == 6
    reason = {"changed": "has sha256", "missing": "is missing", "two": "reports 2 wheels"}
    assert reason[how] in done.stderr
    assert "release-scipy-3.12" in done.stderr


def test_what_changed_after_staging_is_not_promoted(project: Path) -> None:
    staged = project / "publish/staged"
    support.write(staged, {"site/a.whl": b"a", "release/a.whl": b"a"})
    publish = ("ci/publish",)
    known = run(*publish, "digest", staged, cwd=project).stdout.strip()
    support.write(staged, {"site/a.whl": b"b"})
    promote = (*publish, "promote", staged, project / "publish/site")
    done = run(*promote, cwd=project, DIGEST=known)
    assert done.returncode == 6
    assert f"{known} was staged" in done.stderr
    assert not (project / "publish/site").exists()
    check = run(*publish, "check", staged, cwd=project, DIGEST=known)
    assert (check.returncode, "nothing is published" in check.stderr) == (6, True)
    support.write(staged, {"site/a.whl": b"a"})
    assert run(*publish, "check", staged, cwd=project, DIGEST=known).returncode == 0
    assert run(*promote, cwd=project, DIGEST=known).returncode == 0
    assert (project / "publish/site/a.whl").read_bytes() == b"a"


def test_wheels_made_elsewhere_must_be_one_for_each_fork(tmp_path: Path) -> None:
    table = 'version = "1.0"\nsdist = { filename = "demo-1.0.tar.gz", sha256 = "%s" }\n' % (
        "0" * 64
    )
    support.make_manifest(tmp_path, {"demo": table})
    given = tmp_path / "given"
    given.mkdir()
    command = ("patchwheel", "env", "--wheels", given)
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 4
    assert "there is no wheel of demo for Python 3.12\n" in done.stderr
    for digit in "12":
        for tag in ("cp312-cp312", "cp313-cp313"):
            version = f"1.0+arrayapi.h0000000{digit}"
            support.make_wheel(given, "demo", version, {}, tag=f"{tag}-linux_x86_64")
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 4
    assert "there are 2 wheels of demo for Python 3.12: demo-1.0+arrayapi.h00000001" in done.stderr
    assert "cp313" not in done.stderr
    done = run(*command, "--from-source", cwd=tmp_path)
    assert done.returncode == 2
    assert "--wheels cannot be combined with --from-source" in done.stderr
