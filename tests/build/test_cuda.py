import shutil
from pathlib import Path

import pytest

from patchwheel.build import cuda
from patchwheel.kit.errors import MachineError
from tests.fixtures import support

SONAMES = ("cudart", "cublas", "cufft", "curand", "cusolver", "cusparse")


def make_wheels_tree(packages: Path) -> Path:
    """Lay out what the CUDA wheels unpack to."""
    tree = packages / "nvidia" / "cu13"
    files = {f"include/{name}": "" for name in cuda.HEADERS if name != "cub"}
    files |= {f"lib/lib{name}.so.13": "" for name in SONAMES}
    support.write(tree, {**files, "include/cccl/cub/cub.cuh": "", "bin/nvcc": ""})
    return tree


@pytest.fixture
def no_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cuda, "SYSTEM", ())
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for name in ("CUDA_PATH", "CUDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    if shutil.which("nvcc"):
        monkeypatch.setenv("PATH", str(tmp_path))


def test_wheels_become_a_toolkit(tmp_path: Path) -> None:
    tree = make_wheels_tree(tmp_path)
    assert cuda.in_environment(tmp_path) == tree
    assert "libcublas.so" in cuda.missing_parts(tree)
    for _ in range(2):
        cuda.assemble(tree, compiler=["gcc"], log=tmp_path / "log")
    assert cuda.missing_parts(tree) == []
    assert (tree / "lib" / "libcublas.so").readlink() == Path("libcublas.so.13")
    assert b"libcuda.so.1" in (tree / "lib64" / "stubs" / "libcuda.so").read_bytes()
    assert cuda.complete_toolkit(tmp_path) == tree


def test_wheels_that_lack_one_name_it(tmp_path: Path) -> None:
    tree = make_wheels_tree(tmp_path)
    (tree / "include" / "curand.h").unlink()
    (tree / "lib" / "libcurand.so.13").unlink()
    shutil.rmtree(tree / "include" / "cccl")
    with pytest.raises(MachineError, match=r"lack curand\.h, cub, libcurand\.so") as caught:
        cuda.assemble(tree, compiler=["gcc"], log=tmp_path / "log")
    assert "build-requires" in str(caught.value)


@pytest.mark.usefixtures("no_system")
def test_no_toolkit_at_all(tmp_path: Path) -> None:
    assert cuda.in_environment(tmp_path) is None
    assert cuda.system_toolkit() is None
    with pytest.raises(MachineError, match="no CUDA toolkit"):
        cuda.complete_toolkit(tmp_path)


@pytest.mark.usefixtures("no_system")
def test_the_systems_toolkit_counts_only_when_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_wheels_tree(tmp_path)
    monkeypatch.setenv("CUDA_HOME", str(tree))
    assert cuda.system_toolkit() == tree
    with pytest.raises(MachineError, match=r"lacks libcuda\.so"):
        cuda.complete_toolkit()
    cuda.assemble(tree, compiler=["gcc"], log=tmp_path / "log")
    assert cuda.complete_toolkit() == tree


@pytest.mark.usefixtures("no_system")
def test_nvcc_on_path_shows_the_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make_wheels_tree(tmp_path)
    (tree / "bin" / "nvcc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tree / "bin"))
    assert cuda.system_toolkit() == tree


def test_variables_point_to_the_toolkit(tmp_path: Path) -> None:
    tree = tmp_path
    found = cuda.variables(tree)
    assert found["CUDA_PATH"] == str(tree)
    # Never by -I, which would come before the CCCL that a project brings.
    assert found["CPLUS_INCLUDE_PATH"] == f"{tree}/include/cccl"
    assert not found.keys() & {"CFLAGS", "CXXFLAGS", "CPPFLAGS"}
    assert f"-L{tree}/lib64/stubs" in found["LDFLAGS"]
