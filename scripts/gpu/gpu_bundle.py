"""Pack what gpu_check.py needs on a machine with a GPU and without a package index into one file of at most 64 MiB.

There has to be the Python, NumPy and CuPy of the forks; what else is there does not matter, since the bundle brings its
own. `--local FOLDER` packs nothing: it writes the tests of upstream's that the series touch, and links an environment
with them there, for a run on this machine.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import io
import json
import re
import sys
import tarfile
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from patchwheel.environment.compose import compose_environment
from patchwheel.kit.context import Progress
from patchwheel.kit.errors import CheckError, PatchwheelError
from patchwheel.kit.repo import Repository
from patchwheel.kit.store import Store, default_root
from patchwheel.project import Project
from patchwheel.series.worktree import patched_tree
from patchwheel.wheel.build import build_wheels
from patchwheel.wheelfile.record import FILENAME, parse_record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from patchwheel.manifest.model import Fork
    from patchwheel.wheel.make import BuiltWheel

ROOT = Path(__file__).parents[2]
LIMIT = 64 << 20
# Any fixed time; also what is made on a machine with a wrong clock is the same.
EPOCH = 1_700_000_000
SCRIPTS = (
    "demo/coins.py",
    "demo/demo.py",
    "demo/traffic.py",
    "demo/bench_demo.py",
    "gpu/gpu_check.py",
    "gpu/gpu_overlay.py",
)
# Compiled against CUDA's wheels, of which the machine has its own: only what the series remade is packed.
OVERLAID = ("cupy",)
# The machine has NumPy; scikit-image asks for networkx, and has it imported in skimage.graph only when called.
LEFT_OUT = ("numpy", "networkx")
EXTRA = ("array-api-compat", "array-api-strict")
# Of what is compiled. Stubs stay: scikit-image finds by them what it imports lazily.
SOURCES = {".pyx", ".pxd", ".h", ".hpp", ".hh", ".c", ".cpp", ".tp", ".build"}
PICTURES = {".png", ".jpg", ".npz", ".npy", ".tif", ".gif", ".xml"}
# The demo's picture, and those of the touched tests of scikit-image.
USED = {"coins.png", "astronaut.png", "camera.png"}
# In a dist-info folder this tells of the installation here, with its paths.
INSTALLATION = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}
FROM_TESTS = re.compile(r"^from ([\w.]+\.tests)(\.\w+)? import (\w+)", re.MULTILINE)


def touched_tests(project: Project, fork: Fork) -> dict[str, bytes]:
    """Return the test files that the fork's series changes or adds, with their content in the patched tree."""
    tree = patched_tree(project, fork)
    repo = Repository(tree.source.git_dir)
    found = {
        change.path: change.new.oid
        for change in repo.changes(tree.source.tree, tree.tree)
        if change.status != "D" and re.fullmatch(r"(.*/)?test_\w+\.py", change.path) is not None
    }
    content = repo.read(list(found.values()))
    return {path: content[oid] for path, oid in found.items()}


def lay_out_tests(tests: Mapping[str, Mapping[str, bytes]]) -> dict[str, bytes]:
    """Return the files of a folder of tests, by fork, with a list of them."""
    listing = {fork: sorted(files) for fork, files in tests.items()}
    laid = {f"{f}/{p}": data for f, files in tests.items() for p, data in files.items()}
    return {"tests.json": json.dumps(listing, indent=1).encode() + b"\n", **laid}


def helpers(site: Path, paths: Iterable[str]) -> set[str]:
    """Return these files of `site`, and modules in folders of tests that they import."""
    found: set[str] = set()
    todo = list(paths)
    while todo:
        path = todo.pop()
        if path in found or not (site / path).is_file():
            continue
        found.add(path)
        for package, module, name in FROM_TESTS.findall((site / path).read_text()):
            todo.append(f"{package}{module or '.' + name}".replace(".", "/") + ".py")
    return found


def needed(name: str, kept: Collection[str]) -> bool:
    """Whether a file of a distribution is needed at run time, or is one of the `kept` files of tests."""
    path = PurePosixPath(name)
    if name in kept or name.endswith("tests/__init__.py"):
        return True
    if path.parts[0].endswith(".dist-info"):
        return path.name not in INSTALLATION
    system_headers = path.parts[0] == ".." or "__pycache__" in path.parts
    if system_headers or "tests" in path.parts or path.suffix in SOURCES:
        return False
    picture = name.startswith("skimage/data/") and path.suffix in PICTURES
    return not picture or path.name in USED


def closure(site: Path, roots: Iterable[str], python: str) -> dict[str, Distribution]:
    """Return the distributions in `site` that `roots` are or require, by name."""
    found: dict[str, Distribution] = {}
    todo = list(roots)
    there = {"python_version": python, "python_full_version": python, "extra": ""}
    while todo:
        name = canonicalize_name(todo.pop())
        if name in found or name in LEFT_OUT:
            continue
        [found[name]] = distributions(name=name, path=[str(site)])
        todo += [
            requirement.name
            for requirement in map(Requirement, found[name].requires or ())
            if requirement.marker is None or requirement.marker.evaluate(there)
        ]
    return dict(sorted(found.items()))


def remade(site: Path, distribution: str) -> tuple[dict[str, bytes], list[str]]:
    """Return the files that the series remade, with the dist-info folder, and the paths that it removed."""
    [dist] = distributions(name=distribution, path=[str(site)])
    text = dist.read_text(FILENAME) or ""
    record = parse_record(text.encode(), where=dist.name)
    paths = [output.path for output in record.remade]
    present = [path for path in paths if (site / path).is_file()]
    info = [
        str(p) for p in dist.files or () if p.parts[0].endswith(".dist-info") and needed(str(p), ())
    ]
    files = {path: (site / path).read_bytes() for path in [*present, *info]}
    return files, sorted(set(paths) - files.keys())


def cupti() -> dict[str, bytes]:
    """Return libcupti and its licence from the wheel in this environment, if it is there."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(p) for p in (spec and spec.submodule_search_locations) or ()]
    found = [p for r in roots for p in r.glob("*/lib/libcupti.so.*")]
    for root in roots:
        found += root.parent.glob("nvidia_cuda_cupti-*.dist-info/**/License.txt")
    return {f"lib/{path.name}": path.read_bytes() for path in found}


def describe(wheel: BuiltWheel) -> dict[str, Any]:
    patches = wheel.plan.tree.series.patches
    return {
        "version": wheel.version,
        "wheel": wheel.path.name,
        "sha256": wheel.sha256,
        "patches": {patch.name: patch.sha256 for patch in patches},
    }


def collect(project: Project, forks: list[Fork]) -> dict[str, bytes]:
    """Build the forks, compose their environment, and return the bundle's files."""
    wheels, _ = build_wheels(project, forks)
    environment = compose_environment(project, wheels, link=None)
    python = project.python
    site = environment.path / "lib" / f"python{python}" / "site-packages"
    tests = {fork.name: touched_tests(project, fork) for fork in forks}
    conftests = [str(p.relative_to(site)) for p in site.glob("*/conftest.py")]
    kept = helpers(site, [*conftests, *(p for files in tests.values() for p in files)])
    roots = [f.distribution for f in forks if f.name not in OVERLAID]
    packed = closure(site, [*roots, *EXTRA], python)
    files = {
        f"site/{path}": (site / path).read_bytes()
        for dist in packed.values()
        for path in map(str, dist.files or ())
        if needed(path, kept)
    }
    overlays, versions = {}, {"numpy": pin(environment.packages, "numpy")}
    for fork in forks:
        if fork.name in OVERLAID:
            name = fork.distribution
            laid, overlays[name] = remade(site, name)
            files |= {f"overlay/{name}/{p}": data for p, data in laid.items()}
            versions[name] = fork.version
    files |= {f"tests/{p}": data for p, data in lay_out_tests(tests).items()}
    scripts = [ROOT / "scripts" / name for name in SCRIPTS]
    files |= {f"scripts/{path.name}": path.read_bytes() for path in scripts}
    files |= cupti()
    files["run.sh"] = (ROOT / "scripts" / "gpu" / "gpu_run.sh").read_bytes()
    manifest = {
        "needs": {"python": python, "machine": "x86_64", "distributions": versions},
        "forks": {wheel.fork: describe(wheel) for wheel in wheels},
        "packages": {name: dist.version for name, dist in packed.items()},
        "overlays": overlays,
    }
    files["manifest.json"] = json.dumps(manifest, indent=1).encode() + b"\n"
    return files


def prepare(project: Project, forks: list[Fork], folder: Path, *, gpu: bool) -> None:
    """Write the touched tests into `folder`, and link an environment that can run them as `venv` there."""
    tests = {fork.name: touched_tests(project, fork) for fork in forks}
    for name, data in lay_out_tests(tests).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    wheels, _ = build_wheels(project, forks)
    groups = ("test", "gpu") if gpu else ("test",)
    compose_environment(project, wheels, link=folder / "venv", groups=groups)


def pin(packages: Iterable[Any], name: str) -> str:
    """Return major and minor version of a locked distribution, within which NumPy is binary compatible."""
    [version] = [p.version for p in packages if p.name == name]
    return ".".join(version.split(".")[:2])


def pack(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a .tar.gz; the same files give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(f"patchwheel-gpu/{name}")
            entry.size, entry.mtime = len(data), EPOCH
            entry.mode = 0o755 if name.endswith(".sh") else 0o644
            archive.addfile(entry, io.BytesIO(data))
    if (size := path.stat().st_size) > LIMIT:
        path.unlink()
        raise CheckError(
            f"the bundle has {size:,} bytes, {LIMIT:,} at most",
            hint="leave out more in scripts/gpu/gpu_bundle.py",
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="gpu_bundle", description=__doc__)
    parser.add_argument("fork", nargs="*", help="only these (default: all)")
    parser.add_argument("--output", type=Path, default=Path("dist/patchwheel-gpu.tar.gz"))
    parser.add_argument("--local", type=Path, metavar="FOLDER")
    parser.add_argument("--gpu", action="store_true", help="with CUDA's libraries")
    options = parser.parse_args()
    try:
        project = Project(Path("forks.toml"), Store(default_root()), Progress())
        forks = list(project.manifest.select(options.fork))
        if options.local:
            prepare(project, forks, options.local.absolute(), gpu=options.gpu)
            return
        pack(options.output, collect(project, forks))
    except PatchwheelError as error:
        print(f"gpu_bundle: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    print(f"{options.output}: {options.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
