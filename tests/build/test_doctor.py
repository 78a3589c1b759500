import shutil
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest

from patchwheel import kit
from patchwheel.build import cuda, doctor, rocm, sandbox, toolchain
from patchwheel.build.doctor import Finding, diagnose
from patchwheel.build.sandbox import Sandbox
from patchwheel.kit import limits, process
from patchwheel.kit.errors import MachineError
from patchwheel.kit.interpreter import Interpreter
from patchwheel.kit.store import Store
from patchwheel.kit.uv import Distribution
from patchwheel.manifest.inventory import BuildInventory
from patchwheel.manifest.load import load_manifest
from patchwheel.manifest.lock import ForkBuild, ForkLock, Lock, build_settings
from patchwheel.manifest.model import Fork, Manifest
from patchwheel.project import Project
from tests.fixtures import support


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    lines = f'version = "1.0"\nsdist = {{ filename = "x-1.0.tar.gz", sha256 = "{"0" * 64}" }}\n'
    path = support.make_manifest(
        tmp_path, {"plain": lines, "heavy": lines + 'programs = ["gfortran", "cuda"]\n'}
    )
    return load_manifest(path)


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, interpreter: Interpreter) -> None:
    """A machine that has everything; each test takes something away."""
    tools = tmp_path / "bin"
    support.write(tools, dict.fromkeys(("gcc", "g++", "gfortran", "bwrap"), "#!/bin/sh\n"))
    support.write(tools, {"git": "#!/bin/sh\necho git version 2.43.0\n"})
    for path in tools.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    python = replace(interpreter, version="3.12.1")
    monkeypatch.setattr(kit, "find_interpreter", lambda *_a, **_k: python)
    monkeypatch.setattr(doctor, "detect_sandbox", lambda _wanted: Sandbox(level="bwrap"))
    monkeypatch.setattr(kit, "free_memory", lambda: 16 * 10**9)
    monkeypatch.setattr(limits, "free_memory", lambda: 16 * 10**9)
    usage = SimpleNamespace(free=50 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: usage)
    monkeypatch.setattr(toolchain, "_manager", lambda: "apt")
    monkeypatch.setattr(cuda, "SYSTEM", (str(tmp_path / "cuda"),))
    support.write(tmp_path / "cuda", {"bin/nvcc": ""})
    monkeypatch.setattr(cuda, "missing_parts", lambda _toolkit: [])


def diagnosed(
    manifest: Manifest, lock: Lock | None = None, python: str | None = None, **uses: Fork | None
) -> list[Finding]:
    """Return the findings for the forks in `uses`, or for all."""
    store = Store(manifest.root / "not" / "yet")
    project = Project(manifest.path, store, kit.Progress(), python_option=python)
    vars(project).update(manifest=manifest, lock=lock)
    if lock:
        manifest.lock_path.touch()
    return diagnose(project, [*uses], uses)


def failed(manifest: Manifest, lock: Lock | None = None) -> list[Finding]:
    return [finding for finding in diagnosed(manifest, lock) if not finding.ok]


def test_a_machine_with_everything_needs_nothing(manifest: Manifest) -> None:
    found = diagnosed(manifest)
    assert all(finding.ok and not finding.fix for finding in found)
    assert {finding.fork for finding in found} == {None, "plain", "heavy"}


def test_a_missing_compiler_comes_with_its_command(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "bin" / "gfortran").unlink()
    (finding,) = failed(manifest)
    assert (finding.fork, finding.what) == ("heavy", "gfortran")
    assert finding.fix == "sudo apt-get install gfortran"
    assert not finding.needed


def test_what_the_next_build_compiles_with_is_needed(manifest: Manifest, tmp_path: Path) -> None:
    for name in ("gcc", "gfortran"):
        (tmp_path / "bin" / name).unlink()
    heavy = manifest.forks["heavy"]
    for used, needed in (
        (None, []),
        (heavy, ["gcc", "gfortran"]),
        (replace(heavy, programs=()), ["gcc"]),
    ):
        lacking = [f for f in diagnosed(manifest, heavy=used) if not f.ok]
        assert {(f.fork, f.what) for f in lacking} == {("heavy", "gcc"), ("heavy", "gfortran")}
        assert [f.what for f in lacking if f.needed] == needed
        [gcc] = [f for f in lacking if f.what == "gcc"]
        assert ("the next build needs it" in gcc.detail) == bool(needed)


@pytest.mark.parametrize("script", [None, "#!/bin/sh\necho git version 2.37.9\n"])
def test_git_must_be_there_and_new_enough(
    manifest: Manifest, tmp_path: Path, script: str | None
) -> None:
    git = tmp_path / "bin" / "git"
    if script is None:
        git.unlink()
    else:
        git.write_text(script)
    (finding,) = failed(manifest)
    assert finding.what == "git"
    assert finding.needed
    assert finding.fix == "sudo apt-get install git"
    assert finding.detail == (
        "not found" if script is None else "git version 2.37.9, and 2.38 is needed"
    )


def test_a_missing_python_is_told_as_elsewhere(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(*_args: object, **_given: object) -> None:
        raise MachineError("no Python 3.12", hint="uv python install 3.12")

    monkeypatch.setattr(kit, "find_interpreter", find)
    (finding,) = failed(manifest)
    assert (finding.what, finding.detail) == ("Python 3.12", "no Python 3.12")
    assert finding.fix == "uv python install 3.12"
    assert finding.needed


def test_of_several_pythons_that_of_this_run_is_needed_and_may_be_installed(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = []

    def find(wanted: str, *, install: bool, **_given: object) -> None:
        installed.append((wanted, install))
        raise MachineError(f"no Python {wanted}", hint=f"uv python install {wanted}")

    monkeypatch.setattr(kit, "find_interpreter", find)
    spec = replace(manifest.environment, python=("3.12", "3.13"))
    for chosen, python in (("3.12", None), ("3.13", "3.13")):
        installed.clear()
        found = diagnosed(replace(manifest, environment=spec), python=python)
        needed = {f.what: f.needed for f in found if f.what.startswith("Python")}
        assert needed == {f"Python {p}": p == chosen for p in spec.python}
        assert installed == [(p, p == chosen) for p in spec.python]


def test_each_reason_for_a_weaker_sandbox_has_its_fix(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    level: sandbox.SandboxLevel
    fixes = []
    monkeypatch.setattr(doctor, "APPARMOR", tmp_path / "sys/kernel/apparmor_x")
    for level in ("unshare", "none"):
        weaker = Sandbox(level=level)
        monkeypatch.setattr(doctor, "detect_sandbox", lambda _wanted, found=weaker: found)
        (finding,) = failed(manifest)
        fixes.append(finding.fix)
        support.write(tmp_path, {"sys/kernel/apparmor_x": "1\n"})
    assert "container" in fixes[0]
    assert "apparmor_x=0" in fixes[1]
    (tmp_path / "bin" / "bwrap").unlink()
    assert failed(manifest)[0].fix == "sudo apt-get install bubblewrap"


def test_little_disk_and_memory_are_told(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit, "free_memory", lambda: 10**8)
    usage = SimpleNamespace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: usage)
    disk, memory = failed(manifest)
    assert disk.needed
    assert "1.0 GB free" in disk.detail
    assert "cache prune" in disk.fix
    assert "-j 1" in memory.fix


def test_an_incomplete_cuda_is_told_unless_the_lock_brings_one(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "missing_parts", lambda _toolkit: ["cufft.h"])
    (finding,) = failed(manifest, lock_with(manifest))
    assert (finding.fork, finding.what) == ("heavy", "CUDA toolkit")
    assert "cufft.h" in finding.detail
    nvcc = Distribution(name="nvidia-cuda-nvcc", version="13.2", hashes=("0",))
    assert failed(manifest, lock_with(manifest, nvcc)) == []


def test_no_cuda_at_all(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "SYSTEM", ())
    (finding,) = failed(manifest)
    assert "no CUDA toolkit" in finding.detail


def test_rocm_is_told_piece_by_piece_and_the_gpu_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = f'version = "1.0"\nsdist = {{ filename = "x-1.0.tar.gz", sha256 = "{"0" * 64}" }}\n'
    path = support.make_manifest(tmp_path, {"amd": f'{lines}programs = ["hipcc"]\n'})
    manifest = load_manifest(path)
    root = tmp_path / "rocm"
    pieces = {f"include/{n}": "" for n in rocm.PIECES["hipfft"][:1]}
    support.write(root, {**pieces, "lib/libhipfft.so": ""})
    monkeypatch.setenv(rocm.HOME, str(root))
    monkeypatch.delenv(rocm.TARGET, raising=False)
    found = {f.what: f for f in diagnosed(manifest) if f.fork}
    assert found["hipcc"].fix == "sudo apt-get install hipcc"
    assert found["ROCm hipfft"].ok
    assert "librocblas.so" in found["ROCm rocblas"].detail
    assert found["ROCm rocblas"].fix == "sudo apt-get install rocblas-dev"
    assert found["ROCm rocblas"].needed
    gpu = found["HCC_AMDGPU_TARGET"]
    assert (gpu.ok, gpu.needed) == (False, True)
    assert "is not set" in gpu.detail
    assert "gfx942" in gpu.fix
    monkeypatch.setenv(rocm.TARGET, "gfx90a")
    assert rocm.TARGET not in {finding.what for finding in failed(manifest)}


def lock_with(manifest: Manifest, *requirements: Distribution) -> Lock:
    inventory = BuildInventory(verbatim={}, built=frozenset(), reads=frozenset())
    build = ForkBuild(build_requires=requirements, base=None, inventory=inventory)
    heavy = ForkLock(
        pin=manifest.forks["heavy"].pin,
        settings=build_settings(manifest.forks["heavy"]),
        tree="",
        commit=None,
        patches={},
        builds={"3.12": build},
    )
    return Lock(path=manifest.lock_path, environments={}, forks=MappingProxyType({"heavy": heavy}))


def test_findings_never_start_anything_but_git(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    real = process.capture

    def capture(argv: list[str], **given: object) -> bytes:
        started.append(argv[0])
        return real(argv, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(process, "capture", capture)
    diagnosed(manifest)
    assert started == ["git"]
