"""The machine's ROCm, as there are no wheels of it: what CuPy compiles against and links to."""

from __future__ import annotations

import os
import re
from pathlib import Path

from patchwheel.kit import MachineError, ManifestError
from patchwheel.manifest import Fork

HOME = "ROCM_HOME"
USUAL = Path("/opt/rocm")
# Unset, hipcc compiles for the GPU of the machine that it runs on.
TARGET = "HCC_AMDGPU_TARGET"
TARGETS = r"gfx[0-9a-f]{3,}(:[a-z]+[+-])*([,;]gfx[0-9a-f]{3,}(:[a-z]+[+-])*)*"
TARGET_HINT = f"export {TARGET}=gfx90a,gfx942 (MI200 and MI300), or others, such as gfx1100"
# Headers and libraries; hipcc is a program as others are.
PIECES: dict[str, tuple[str, ...]] = {
    "hip": ("hip/hip_runtime_api.h", "hip/hiprtc.h", "libamdhip64.so"),
    "hipblas": ("hipblas.h", "libhipblas.so"),
    "hipcub": ("hipcub/hipcub_version.hpp",),
    "hipfft": ("hipfft.h", "libhipfft.so"),
    "hiprand": ("hiprand/hiprand.h", "libhiprand.so"),
    "hipsparse": ("hipsparse.h", "libhipsparse.so"),
    "rccl": ("rccl.h", "librccl.so"),
    "rocblas": ("librocblas.so",),
    "rocfft": ("librocfft.so",),
    "rocsolver": ("rocsolver.h", "librocsolver.so"),
    "rocsparse": ("librocsparse.so",),
    "rocthrust": ("thrust/version.h",),
    "roctracer": ("roctracer/roctracer_ext.h", "roctx.h", "libroctracer64.so", "libroctx64.so"),
}
# CuPy looks for headers in these folders too, Debian keeps libraries in the second.
PARTS = ("hipblas", "hipfft", "hipsparse", "rccl", "rocsolver", "roctracer")
INCLUDE = ("include", *(f"include/{part}" for part in PARTS))
LIBRARY = ("lib", f"lib/{os.uname().machine}-linux-gnu", "lib64")


def home(fork: Fork) -> Path:
    """Return ROCm's folder: the manifest's for this fork, the user's, or the usual one."""
    return Path(fork.env.get(HOME) or os.environ.get(HOME) or USUAL)


def missing_parts(root: Path) -> dict[str, list[str]]:
    """Return what of each piece is not there; the empty list for a complete one."""
    return {
        piece: [name for name in names if not _there(root, name)] for piece, names in PIECES.items()
    }


def target(fork: Fork) -> str:
    """Return the GPU architectures to compile for; ManifestError when nobody names them."""
    value = fork.env.get(TARGET) or os.environ.get(TARGET, "")
    if re.fullmatch(TARGETS, value):
        return value
    message = f"{fork.name}: {TARGET} is {repr(value) if value else 'not set'}"
    expected = "the architectures of the GPUs that the wheel is for, such as gfx90a,gfx942"
    raise ManifestError(message, expected=expected, hint=TARGET_HINT)


def variables(fork: Fork) -> dict[str, str]:
    """Return the environment variables of a build; MachineError when ROCm lacks a piece."""
    architectures, root = target(fork), home(fork)
    lacks = [
        f"{piece} ({', '.join(names)})" for piece, names in missing_parts(root).items() if names
    ]
    if lacks:
        hint = f"install them, or set {HOME}; `patchwheel doctor` shows them one by one"
        raise MachineError(f"{fork.name}: ROCm lacks {', '.join(lacks)}", where=root, hint=hint)
    return {HOME: str(root), TARGET: architectures}


def _there(root: Path, name: str) -> bool:
    folders = LIBRARY if name.startswith("lib") else INCLUDE
    return any((root / folder / name).exists() for folder in folders)
