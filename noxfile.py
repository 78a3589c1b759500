"""Sessions of patchwheel: `nox -l` lists them; everything they do is a command of the package."""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests"]

PROJECT = nox.project.load_toml("pyproject.toml")
SHELL = (
    "ci/github-release",
    "ci/publish",
    "ci/run-cell",
    "ci/setup",
    ".ci/run",
    "scripts/nox",
    "scripts/gpu/gpu_run.sh",
)
IMAGES = (
    "docker/entrypoint",
    "docker/hip-base",
    "docker/make-environment",
    "docker/need-python",
    "docker/rocm-libraries",
    "docker/test.sh",
)
QUICK = ("-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder", "-m", "not heavy")
FORKS = tomllib.loads(Path("forks.toml").read_text())["forks"]


def install(session: nox.Session, *groups: str) -> None:
    """Install patchwheel, editable, with dependency groups."""
    # Of uv, which is its largest dependency, the launcher has a wheel already.
    wheels = map(str, Path(".launcher/wheels").glob("uv-*.whl"))
    session.install("-e", ".", *wheels, *nox.project.dependency_groups(PROJECT, *groups))


@nox.session
def build(session: nox.Session) -> None:
    """The main job: four patched wheels in dist/, one environment at .venv-forks."""
    install(session)
    session.run("patchwheel", "build", *session.posargs)
    session.run("patchwheel", "env", "--check")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the test suite but for what is heavy."""
    install(session, "test")
    session.run("pytest", *(session.posargs or QUICK))


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """Run the test suite with coverage, which takes a third more time."""
    install(session, "test")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *(session.posargs or QUICK))
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(default=False)
def attack(session: nox.Session) -> None:
    """Attack every promise of docs/reference/threat-model.md, or one: nox -s attack -- P9."""
    install(session, "test")
    words = [word for name in session.posargs for word in ("--promise", name)]
    # Quick and heavy ones: without -m, nothing is left out.
    session.run("pytest", "-q", "--hypothesis-profile=attack", "tests/security", *words)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, layers, shell scripts, the CI workflows and the images' files."""
    install(session, "lint")
    session.run("ruff", "format", "--check")
    session.run("ruff", "check")
    session.run("lint-imports")
    session.run("shellcheck", *SHELL)
    session.run("shellcheck", "--severity=error", *IMAGES)
    session.run("zizmor", "--offline", "--quiet", ".github/workflows")
    session.run("patchwheel", "ci", "--check")
    session.run("hadolint", *map(str, sorted(Path("docker").glob("*.Dockerfile"))))
    session.run(
        "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker/compose.yaml"
    )


@nox.session
def types(session: nox.Session) -> None:
    """Check types."""
    install(session, "lint", "test")
    session.install("nox")
    session.run("mypy")


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Make the site of the documents in site/: nox -s docs [-- serve]."""
    install(session, "docs")
    session.run("mkdocs", *(session.posargs or ["build", "--strict"]))


@nox.session(default=False)
def package(session: nox.Session) -> None:
    """Make the wheel and the sdist of patchwheel in dist/package, and try the wheel as a tool."""
    session.install("uv")
    folder = Path("dist/package").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    session.run("uv", "build", "--no-create-gitignore", "--out-dir", str(folder))
    [wheel] = folder.glob("*.whl")
    place = Path(session.create_tmp(), "tool").absolute()
    shutil.rmtree(place, ignore_errors=True)
    (place / "empty").mkdir(parents=True)
    tools = {"UV_TOOL_DIR": str(place / "tools"), "UV_TOOL_BIN_DIR": str(place / "bin")}
    session.run("uv", "tool", "install", "--python", sys.executable, str(wheel), env=tools)
    with session.chdir(place / "empty"):
        for words in (["--version"], ["init"], ["status"]):
            codes = [2] if words == ["status"] else [0]
            command = [str(place / "bin" / "patchwheel"), *words]
            session.run(*command, external=True, success_codes=codes)


def in_forks(session: nox.Session, script: str, *arguments: str, gpu: bool = False) -> None:
    """Build the forks, compose their environment, and run a script in it."""
    install(session)
    session.run("patchwheel", "build")
    session.run("patchwheel", "env", *(["--gpu"] if gpu else []))
    python = Path(".venv-forks/bin/python").absolute()
    command = [str(python), f"scripts/demo/{script}", *arguments, *session.posargs]
    session.run(*command, external=True)


@nox.session
def demo(session: nox.Session) -> None:
    """Segment the coins: nox -s demo -- --xp numpy --scale 0.2 --labels cluster_qr."""
    in_forks(session, "demo.py", gpu="cupy" in session.posargs)


@nox.session
def notebook(session: nox.Session) -> None:
    """Execute docs/demo.ipynb, or open it: nox -s notebook -- lab."""
    install(session)
    session.run("patchwheel", "build")
    session.run("patchwheel", "env")
    beside = str(Path(session.create_tmp()).absolute() / "jupyter")
    words = ["--lab" if word == "lab" else word for word in session.posargs]
    session.run("python", "scripts/demo/notebook.py", "--beside", beside, *words)


@nox.session(name="check-forks", default=False)
def check_forks(session: nox.Session) -> None:
    """Check results against unpatched releases: nox -s check-forks -- [--xp torch] [--tests]."""
    install(session)
    session.run("python", "scripts/check_forks.py", *session.posargs)


@nox.session(name="cover-forks", default=False)
def cover_forks(session: nox.Session) -> None:
    """Report which lines of the patches the cases execute: nox -s cover-forks [-- --data F]."""
    install(session)
    session.run("python", "scripts/cover_forks.py", *session.posargs)


@nox.session(name="bench-demo", default=False)
def bench_demo(session: nox.Session) -> None:
    """Measure the demo beside unpatched releases: nox -s bench-demo -- [--json F] [--plot F]."""
    install(session)
    plain = Path(session.create_tmp(), "unpatched").absolute()
    session.run("patchwheel", "build", "--without-patches")
    session.run("patchwheel", "env", "--wheels", "dist/unpatched", str(plain))
    in_forks(session, "bench_demo.py", "--unpatched", str(plain / "bin" / "python"))


@nox.session(default=False)
def projects(session: nox.Session) -> None:
    """Patch real projects of the index, in hours: nox -s projects -- [NAME...] [--newest]."""
    install(session)
    session.run("python", "scripts/check_projects.py", *session.posargs)


@nox.session(default=False)
def commits(session: nox.Session) -> None:
    """Plan upstream's own commits as patches: nox -s commits -- --history FORK=PATH_OR_URL."""
    install(session)
    session.run("python", "scripts/real_commits.py", *session.posargs)


def install_cupti(session: nox.Session) -> None:
    """Install what counts copies: the oldest of CUDA 13, as the machine's driver may be as old."""
    session.install("--no-deps", "nvidia-cuda-cupti==13.0.*")


@nox.session(name="gpu-check", default=False)
def gpu_check(session: nox.Session) -> None:
    """Check the forks on a GPU: nox -s gpu-check -- [--parts coins,tests] [--scales 0.1,0.2]."""
    install(session)
    install_cupti(session)
    folder = Path(session.create_tmp(), "gpu-check").absolute()
    gpu = [] if "--xp" in session.posargs and "cupy" not in session.posargs else ["--gpu"]
    session.run("python", "scripts/gpu/gpu_bundle.py", "--local", str(folder), *gpu)
    [cupti] = Path(session.virtualenv.location).glob("lib/*/site-packages/nvidia/*/lib")
    command = [str(folder / "venv/bin/python"), "scripts/gpu/gpu_check.py", "--tests", str(folder)]
    env = {"CUPTI_FOLDER": str(cupti.absolute())}
    session.run(*command, *session.posargs, env=env, external=True)


@nox.session(name="gpu-bundle", default=False)
def gpu_bundle(session: nox.Session) -> None:
    """Pack what gpu-check needs where there is no index: nox -s gpu-bundle -- [--output FILE]."""
    install(session)
    install_cupti(session)
    session.run("python", "scripts/gpu/gpu_bundle.py", *session.posargs)


@nox.session(name="hip-check", default=False)
def hip_check(session: nox.Session) -> None:
    """Compile CuPy's patched sources for AMD: nox -s hip-check -- [--target gfx90a,gfx942]."""
    install(session)
    root = Path(session.create_tmp(), "debian").absolute()
    session.run("python", "scripts/hip_check.py", "--root", str(root), *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure against what a user would otherwise do; prints ratios of CPU seconds."""
    install(session)
    session.run("python", "scripts/bench/bench.py", *session.posargs)


def _command(name: str, doc: str, *words: str) -> None:
    @nox.session(name=name)
    def command(session: nox.Session) -> None:
        install(session)
        session.run("patchwheel", *words, *session.posargs)

    command.__doc__ = doc


def _each_fork(name: str, doc: str, *words: str) -> None:
    @nox.session(name=name)
    def each_fork(session: nox.Session) -> None:
        install(session)
        for fork in session.posargs or FORKS:
            session.run("patchwheel", words[0], fork, *words[1:])

    each_fork.__doc__ = doc


_command("env", "Compose the environment: nox -s env -- [PATH] [--gpu] [--check].", "env")
_command("status", "Show pins, patches and what is newer upstream.", "status")
_command("rebase", "Move a series: nox -s rebase -- FORK --onto VERSION [--dry-run].", "rebase")
_each_fork(
    "export-check", "Check that an export gives the series in patches/.", "export", "--check"
)
_each_fork("test-forks", "Run upstream's tests of the patched modules: -- [FORK...].", "test")
for name in FORKS:
    _command(f"build-{name}", f"Build the patched wheel of {name}.", "build", name)
