from pathlib import Path

import pytest

from patchwheel.build import rocm
from patchwheel.kit.errors import MachineError, ManifestError
from patchwheel.manifest.model import Fork
from tests.fixtures import support


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete ROCm, laid out as Debian and as AMD do, which the user has named."""
    where = {"lib": "lib/x86_64-linux-gnu/", "rocsolver.h": "include/rocsolver/"}
    files = {}
    for name in (n for names in rocm.PIECES.values() for n in names):
        place = next((p for start, p in where.items() if name.startswith(start)), "include/")
        files[place + name] = ""
    support.write(tmp_path / "rocm", files)
    monkeypatch.setenv(rocm.HOME, str(tmp_path / "rocm"))
    monkeypatch.delenv(rocm.TARGET, raising=False)
    return tmp_path / "rocm"


def fork(tmp_path: Path, **env: str) -> Fork:
    return Fork(name="gpu", version="1", patches=tmp_path, programs=("hipcc",), env=env)


def test_a_complete_rocm_and_a_named_gpu_are_what_the_build_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(rocm.TARGET, "gfx90a")
    found = rocm.variables(fork(root))
    assert found == {"ROCM_HOME": str(root), "HCC_AMDGPU_TARGET": "gfx90a"}
    assert not any(rocm.missing_parts(root).values())
    said = rocm.variables(fork(root, HCC_AMDGPU_TARGET="gfx942:xnack-,gfx1100"))
    assert said["HCC_AMDGPU_TARGET"] == "gfx942:xnack-,gfx1100"


def test_an_unset_gpu_is_demanded_by_name(root: Path) -> None:
    with pytest.raises(ManifestError, match="gpu: HCC_AMDGPU_TARGET is not set") as caught:
        rocm.variables(fork(root))
    assert "gfx90a" in str(caught.value)


@pytest.mark.parametrize("value", ["native", "gfx90a gfx942", "gfx90a,", "sm_90", "gfx"])
def test_a_gpu_that_is_none_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(rocm.TARGET, value)
    with pytest.raises(ManifestError, match=f"HCC_AMDGPU_TARGET is '{value}'"):
        rocm.target(fork(root))


def test_everything_that_is_lacking_is_named_at_once(root: Path) -> None:
    (root / "include" / "hip" / "hiprtc.h").unlink()
    (root / "include" / "rocsolver" / "rocsolver.h").unlink()
    (root / "lib" / "x86_64-linux-gnu" / "librocsolver.so").unlink()
    with pytest.raises(
        MachineError, match=r"hip \(hip/hiprtc.h\), rocsolver \(rocsolver.h, librocsolver.so\)"
    ) as caught:
        rocm.variables(fork(root, HCC_AMDGPU_TARGET="gfx90a"))
    assert caught.value.where == root
    assert "doctor" in str(caught.value)


def test_without_a_word_it_is_looked_for_in_the_usual_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(rocm.HOME, raising=False)
    assert rocm.home(fork(tmp_path)) == rocm.USUAL
    assert rocm.home(fork(tmp_path, ROCM_HOME="/x")).as_posix() == "/x"
