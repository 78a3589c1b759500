"""A CUDA toolkit for a build: assembled from the CUDA wheels of its environment, or the system's where complete.

The wheels unpack into one tree, `nvidia/cu13`, that lacks only what a linker needs: `libX.so` beside `libX.so.N`,
a `lib64`, and a libcuda.so (the driver's, of which the linker reads nothing but the name).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from patchwheel.kit import process
from patchwheel.kit.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Sequence

# The distribution with nvcc; where it is locked, the toolkit is made of wheels.
COMPILER = "nvidia-cuda-nvcc"
# Raised whenever `variables` or `assemble` would lead to other bytes than before.
LAYOUT = 2
SYSTEM = ("/usr/local/cuda", "/opt/cuda")
HEADERS = (
    *("cuda.h", "cuda_runtime.h", "cuda_profiler_api.h", "nvrtc.h"),
    *("cublas_v2.h", "cufft.h", "curand.h", "cusolverDn.h", "cusparse.h"),
)
LINKED = ("cuda", "cudart", "cublas", "cufft", "curand", "cusolver", "cusparse")
# Loaded from the user's CUDA, or ROCm, at run time, never bundled into a wheel.
LIBRARIES = (
    *("libcu*.so*", "libnv*.so*", "libnccl.so*"),
    *("libamdhip64.so*", "libhip*.so*", "libroc*.so*", "librccl.so*", "libhsa-*.so*"),
)


def in_environment(site_packages: Path) -> Path | None:
    """Return the tree that CUDA wheels made in an environment, or None."""
    found = sorted(site_packages.glob("nvidia/cu[0-9]*/bin/nvcc"))
    return found[-1].parent.parent if found else None


def assemble(toolkit: Path, *, compiler: Sequence[str], log: Path) -> None:
    """Make a tree of CUDA wheels usable for linking; done once, when the environment is made."""
    library = toolkit / "lib"
    for path in sorted(library.glob("lib*.so.*")):
        link = library / (path.name.partition(".so.")[0] + ".so")
        if not link.exists():
            link.symlink_to(path.name)
    if not (toolkit / "lib64").exists():
        (toolkit / "lib64").symlink_to("lib")
    stubs = library / "stubs"
    stubs.mkdir(exist_ok=True)
    # A soname is all that a link against the driver's library takes from it.
    words = [*compiler, "-shared", "-nostdlib", "-Wl,-soname,libcuda.so.1"]
    words += ["-x", "c", os.devnull, "-o", str(stubs / "libcuda.so")]
    process.logged(words, cwd=toolkit, env=process.base_env(), log=log)
    if lacks := lacking(toolkit):
        raise MachineError(
            f"the CUDA wheels of the build environment lack {', '.join(lacks)}",
            where=toolkit,
            hint="add their distribution to build-requires in forks.toml, then run `patchwheel lock`",
        )


def system_toolkit() -> Path | None:
    """Return the machine's own toolkit: CUDA_PATH, CUDA_HOME, nvcc on PATH or the usual place."""
    named = [os.environ.get(name, "") for name in ("CUDA_PATH", "CUDA_HOME")]
    if nvcc := shutil.which("nvcc"):
        named.append(str(Path(nvcc).resolve().parent.parent))
    for place in (*named, *SYSTEM):
        if place and (Path(place) / "bin" / "nvcc").exists():
            return Path(place).resolve()
    return None


def lacking(toolkit: Path) -> list[str]:
    """Name what a toolkit lacks for compiling and linking; the empty list means complete."""
    include = toolkit / "include"
    lacks = [name for name in HEADERS if not (include / name).exists()]
    if not any((include / place / "cub").is_dir() for place in ("cccl", ".")):
        lacks.append("cub")
    folders = [toolkit / "lib64", toolkit / "lib64" / "stubs"]
    libraries = [f"lib{name}.so" for name in LINKED]
    lacks += [n for n in libraries if not any((f / n).exists() for f in folders)]
    return lacks


def complete_toolkit(site_packages: Path | None = None) -> Path:
    """Return the toolkit of an environment, else the machine's; MachineError when there is none or it is incomplete."""
    if site_packages and (inside := in_environment(site_packages)):
        return inside
    hint = "add cuda-toolkit to build-requires in forks.toml and run `patchwheel lock`, or install a CUDA toolkit"
    found = system_toolkit()
    if found is None:
        raise MachineError("there is no CUDA toolkit to compile with", hint=hint)
    if lacks := lacking(found):
        raise MachineError(f"the CUDA toolkit lacks {', '.join(lacks)}", where=found, hint=hint)
    return found


def variables(toolkit: Path) -> dict[str, str]:
    """Return the environment variables that point a build to a toolkit; `toolkit` is the path that the build sees."""
    return {
        "CUDA_PATH": str(toolkit),
        "CUDA_HOME": str(toolkit),
        "NVCC": str(toolkit / "bin" / "nvcc"),
        # CUB, Thrust and libcu++, searched after every -I: a project that brings its own must get its own.
        "CPLUS_INCLUDE_PATH": f"{toolkit}/include/cccl",
        "LDFLAGS": f"-L{toolkit}/lib64 -L{toolkit}/lib64/stubs",
        # nvcc names temporary files by process id, which ends up in objects unless told otherwise.
        "NVCC_APPEND_FLAGS": "--objdir-as-tempdir",
    }
