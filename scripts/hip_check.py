"""Check that CuPy's patched sources compile for AMD's GPUs, where there is no ROCm and no GPU.

Debian's HIP is older than what CuPy supports (5.7, not 7), and nothing is linked or run: what
passes here has the right syntax and knows the names of HIP. Each check is tried with a broken file
first, and must fail on it. Needs root.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from patchwheel.build.inputs import BuildInputs
from patchwheel.build.requirements import site_packages
from patchwheel.build.rocm import TARGETS
from patchwheel.kit.context import Progress
from patchwheel.kit.errors import CheckError, MachineError, PatchwheelError
from patchwheel.kit.repo import Repository
from patchwheel.kit.store import Store, default_root
from patchwheel.project import Project
from patchwheel.series.worktree import patched_tree

ROOT = Path(__file__).parents[1]
# Where everything is seen in the chroot.
SEEN = PurePosixPath("/check")
DEVICE = ("cupy/random/cupy_distributions.cu", "cupy/cuda/cupy_cub.cu", "cupy/cuda/cupy_thrust.cu")
# Beside those that the series changes: the ones that name HIP's functions, through CuPy's stubs.
MODULES = (
    *(f"cupy_backends/cuda/api/{name}.pyx" for name in ("runtime", "driver")),
    *(
        f"cupy_backends/cuda/libs/{name}.pyx"
        for name in ("cublas", "cusparse", "cusolver", "curand", "nvrtc")
    ),
    "cupy/cuda/cufft.pyx",
)
# As install/cupy_builder of CuPy has them for HIP.
MACROS = (
    "_FORCE_INLINES=1",
    'CYTHON_EXTERN_C=extern "C"',
    "CUPY_USE_HIP=1",
    "NPY_TARGET_VERSION=NPY_2_0_API_VERSION",
    "CUPY_CACHE_KEY=check",
    "__HIP_PLATFORM_AMD__=1",
    "__HIP_PLATFORM_HCC__=1",
    "THRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_HIP",
)
FOLDERS = (
    ".",
    "hip",
    "rocrand",
    "hiprand",
    "roctracer",
    "hipblas",
    "hipsparse",
    "hipfft",
    "rocsolver",
    "rccl",
)
DIRECTIVES = (
    "embedsignature=True",
    "c_api_binop_methods=True",
    "binding=False",
    "warn.deprecated.IF=False",
    "freethreading_compatible=True",
)
# A type that HIP does not have: a check that takes it checks nothing.
BROKEN = {
    ".cu": "\nstatic hipNoSuchType_t patchwheel_broken;\n",
    ".pyx": '\ncdef extern from *:\n  """\n  static hipNoSuchType_t patchwheel_broken;\n  """\n',
}


class Chroot:
    """A Debian with HIP; what is to be compiled lies in `files`, which it sees as SEEN."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = root / SEEN.relative_to("/")

    def compile(self, *words: str) -> str:
        """Run a compiler; return nothing, or what it says where it fails."""
        return failure(
            ["chroot", str(self.root), *words], env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        )


def failure(words: list[str], **given: Any) -> str:
    done = subprocess.run(["nice", *words], check=False, capture_output=True, text=True, **given)
    said = done.stderr.strip() or f"exit code {done.returncode}"
    return said if done.returncode else ""


def options() -> list[str]:
    """Return the macros and folders that CuPy's build gives to both compilers."""
    folders = ["/usr/include/hipcub", str(SEEN / "src/cupy/_core/include")]
    folders += [str(PurePosixPath("/usr/include") / name) for name in FOLDERS]
    return [*(f"-D{m}" for m in MACROS), *(f"-I{folder}" for folder in folders)]


def check_device(chroot: Chroot, path: str, target: str) -> str:
    """Compile a source of the GPU's side, as far as its meaning goes."""
    targets = [f"--offload-arch={one}" for one in re.split("[,;]", target)]
    return chroot.compile(
        "hipcc",
        *targets,
        "-fsyntax-only",
        "--std=c++17",
        "--include",
        "hip_runtime.h",
        *options(),
        str(SEEN / "src" / path),
    )


def check_module(chroot: Chroot, path: str, python: Path, version: int) -> str:
    """Translate a Cython module and compile it for the CPU's side."""
    source = chroot.files / "src"
    constants = "CUPY_USE_CUDA_PYTHON=False,CUPY_CUFFT_STATIC=False,CUPY_CUDA_VERSION=0"
    constants += f",CUPY_HIP_VERSION={version}"
    words = [word for text in DIRECTIVES for word in ("-X", text)]
    # CuPy's own includes of generated code are looked for beside it.
    made = Path(path).with_suffix(".cpp")
    return failure(
        [
            str(python),
            "-m",
            "cython",
            "-3",
            "--cplus",
            *words,
            "-E",
            constants,
            path,
            "-o",
            str(made),
        ],
        cwd=source,
    ) or chroot.compile(
        "g++",
        "-fsyntax-only",
        "-std=c++14",
        *options(),
        *(f"-I{SEEN / name}" for name in ("python", "numpy")),
        str(SEEN / "src" / made),
    )


def prepare(chroot: Chroot, project: Project) -> tuple[Path, list[str]]:
    """Lay out the patched tree and headers; return what has Cython, and the modules to check."""
    fork = project.manifest.forks["cupy"]
    tree = patched_tree(project, fork)
    repo = Repository(tree.source.git_dir)
    shutil.rmtree(chroot.files, ignore_errors=True)
    (chroot.files / "src").mkdir(parents=True)
    repo.checkout(tree.tree, chroot.files / "src")
    build, epoch = project.build(fork), tree.source.epoch
    inputs = BuildInputs(context=project.context, fork=fork, build=build, epoch=epoch)
    environment = inputs.environment
    prefix, version = project.context.interpreter.path.parent.parent, project.python
    for name, folder in (
        ("python", prefix / "include" / f"python{version}"),
        ("numpy", site_packages(environment) / "numpy/_core/include"),
    ):
        shutil.copytree(folder, chroot.files / name)
    changed = {c.path for c in repo.changes(tree.source.tree, tree.tree)}
    modules = [path for path in sorted(changed) if path.endswith(".pyx")]
    return environment / "bin" / "python", [*modules, *MODULES]


def hip_version(chroot: Chroot) -> int:
    text = (chroot.root / "usr/include/hip/hip_version.h").read_text()
    found = dict(re.findall(r"#define HIP_VERSION_(MAJOR|MINOR|PATCH) (\d+)", text))
    major, minor, patch = (int(found[n]) for n in ("MAJOR", "MINOR", "PATCH"))
    return major * 10_000_000 + minor * 100_000 + patch


def spoiled(chroot: Chroot, path: str, check: Callable[[str], str]) -> str:
    """Check a source with a name in it that HIP does not have; it is put back."""
    file = chroot.files / "src" / path
    text = file.read_text()
    file.write_text(text + BROKEN[file.suffix])
    said = check(path)
    file.write_text(text)
    return said


def run(chroot: Chroot, project: Project, target: str) -> list[str]:
    """Check everything, and return what failed."""
    python, modules = prepare(chroot, project)
    version = hip_version(chroot)
    print(f"HIP {version}, {target}, {len(DEVICE)} + {len(modules)} sources")
    checks: list[tuple[str, Callable[[str], str]]] = [
        *((path, lambda p: check_device(chroot, p, target)) for path in DEVICE),
        *((p, lambda p: check_module(chroot, p, python, version)) for p in modules),
    ]
    failed = []
    for path, check in (checks[0], checks[len(DEVICE)]):
        if "hipNoSuchType_t" not in spoiled(chroot, path, check):
            failed.append(f"{path}: an error put into it is not found")
    for path, check in checks:
        start = time.monotonic()
        said = check(path)
        word = "failed" if said else "ok"
        print(f"  {word:7}{time.monotonic() - start:6.1f} s  {path}", flush=True)
        failed += [f"{path}:\n{said}"] if said else []
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(prog="hip_check", description=__doc__)
    parser.add_argument(
        "--root", type=Path, required=True, help="the chroot; made when it is not there"
    )
    parser.add_argument("--target", default="gfx90a", help="GPU architectures (gfx90a)")
    arguments = parser.parse_args()
    if not re.fullmatch(TARGETS, arguments.target):
        parser.error(f"--target is {arguments.target!r}; expected gfx90a or the like")
    try:
        if os.getuid() or not (shutil.which("mmdebstrap") and shutil.which("chroot")):
            raise MachineError(
                "the check needs root and mmdebstrap", hint="sudo apt-get install mmdebstrap"
            )
        if not (arguments.root / ".complete").exists():
            print(f"making {arguments.root}: Debian with HIP, about 1.2 GB", flush=True)
            subprocess.run([ROOT / "docker" / "hip-base", arguments.root], check=True)
        project = Project(ROOT / "forks.toml", Store(default_root()), Progress())
        if failed := run(Chroot(arguments.root), project, arguments.target):
            raise CheckError("these do not compile for HIP:\n" + "\n".join(failed))
    except PatchwheelError as error:
        print(f"hip_check: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    print("all compile, and the broken ones do not")


if __name__ == "__main__":
    main()
