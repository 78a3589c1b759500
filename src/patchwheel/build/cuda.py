"""A CUDA toolkit for a build: made of the CUDA wheels of its environment, or the machine's.

The wheels unpack into one tree, `nvidia/cu13`, that lacks only what a linker needs: `libX.so`
beside `libX.so.N`, a `lib64`, and the driver's libcuda.so.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from patchwheel.kit import MachineError, process

# The distribution with nvcc; where it is locked, the toolkit is made of wheels.
COMPILER = "nvidia-cuda-nvcc"
WHEELS = "add cuda-toolkit to build-requires in forks.toml and run `patchwheel lock`"
# Raised whenever `variables` or `assemble` would change the bytes of a build.
LAYOUT = 2
SYSTEM = ("/usr/local/cuda", "/opt/cuda")
INCLUDE, LINK = ("include", "include/cccl"), ("lib64", "lib64/stubs")
HEADERS = shlex.split("""
    cuda.h cuda_runtime.h cuda_profiler_api.h nvrtc.h
    cublas_v2.h cufft.h curand.h cusolverDn.h cusparse.h cub
""")
LINKED = shlex.split("""
    libcuda.so libcudart.so libcublas.so libcufft.so libcurand.so libcusolver.so libcusparse.so
""")
# Loaded from the user's CUDA, or ROCm, at run time, never bundled into a wheel.
LIBRARIES = shlex.split("""
    libcu*.so* libnv*.so* libnccl.so*
    libamdhip64.so* libhip*.so* libroc*.so* librccl.so* libhsa-*.so*
""")


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
    argv = [*compiler, "-shared", "-nostdlib", "-Wl,-soname,libcuda.so.1"]
    argv += ["-x", "c", os.devnull, "-o", str(stubs / "libcuda.so")]
    process.logged(argv, cwd=toolkit, env=process.base_env(), log=log)
    if lacks := missing_parts(toolkit):
        message = f"the CUDA wheels of the build environment lack {', '.join(lacks)}"
        hint = "add their distribution to build-requires in forks.toml, then run `patchwheel lock`"
        raise MachineError(message, where=toolkit, hint=hint)


def system_toolkit() -> Path | None:
    """Return the machine's own toolkit: CUDA_PATH, CUDA_HOME, nvcc on PATH or the usual place."""
    named = [os.environ.get(name, "") for name in ("CUDA_PATH", "CUDA_HOME")]
    if nvcc := shutil.which("nvcc"):
        named.append(str(Path(nvcc).resolve().parent.parent))
    for place in (*named, *SYSTEM):
        if place and (Path(place) / "bin" / "nvcc").exists():
            return Path(place).resolve()
    return None


def missing_parts(toolkit: Path) -> list[str]:
    """Name what a toolkit lacks for compiling and linking; the empty list means complete."""
    parts = [(name, INCLUDE) for name in HEADERS] + [(name, LINK) for name in LINKED]
    return [n for n, places in parts if not any((toolkit / p / n).exists() for p in places)]


def complete_toolkit(site_packages: Path | None = None) -> Path:
    """Return the toolkit of an environment, else the machine's; MachineError if it lacks a part."""
    if site_packages and (inside := in_environment(site_packages)):
        return inside
    toolkit, hint = system_toolkit(), f"{WHEELS}, or install a CUDA toolkit"
    if toolkit is None:
        raise MachineError("there is no CUDA toolkit to compile with", hint=hint)
    if lacks := missing_parts(toolkit):
        raise MachineError(f"the CUDA toolkit lacks {', '.join(lacks)}", where=toolkit, hint=hint)
    return toolkit


def variables(toolkit: Path) -> dict[str, str]:
    """Return the variables that point a build to a toolkit, by the path that it sees."""
    return {
        "CUDA_PATH": str(toolkit),
        "CUDA_HOME": str(toolkit),
        "NVCC": str(toolkit / "bin" / "nvcc"),
        # CUB, Thrust and libcu++; searched after every -I, for projects that bring their own.
        "CPLUS_INCLUDE_PATH": f"{toolkit}/include/cccl",
        "LDFLAGS": f"-L{toolkit}/lib64 -L{toolkit}/lib64/stubs",
        # Else nvcc names temporary files by process id, which ends up in objects.
        "NVCC_APPEND_FLAGS": "--objdir-as-tempdir",
    }
