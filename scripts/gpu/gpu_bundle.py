"""Pack what gpu_check.py needs on a machine with a GPU and no package index, in 64 MiB at most.

There has to be the Python, NumPy and CuPy of the forks; what else is there does not matter, since
the bundle brings its own. `--local FOLDER` packs nothing: it writes the tests of upstream's that
the series touch, and links an environment with them there, for a run on this machine.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import io
import json
import sys
import tarfile
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from patchwheel.environment.compose import compose_environment
from patchwheel.environment.upstream_tests import select_tests
from patchwheel.kit.context import Progress
from patchwheel.kit.errors import CheckError, PatchwheelError
from patchwheel.kit.repo import Repository
from patchwheel.kit.store import Store, default_root
from patchwheel.manifest.model import Fork
from patchwheel.project import Project
from patchwheel.series.worktree import patched_tree
from patchwheel.wheel.build import build_wheels
from patchwheel.wheelfile.record import FILENAME, parse_record

ROOT = Path(__file__).parents[2]
LIMIT = 64 << 20
# Any fixed time; also what is made on a machine with a wrong clock is the same.
EPOCH = 1_700_000_000
# Of the checkout; in the bundle they lie in the same folders.
CHECKS = (
    "scripts/demo/*.py",
    "scripts/gpu/gpu_[cop]*.py",
    "tests/__init__.py",
    "tests/forks/*.py",
    "tests/forks/pytest.ini",
)
# Compiled against CUDA's wheels, of which the machine has its own: only what the series remade is
# packed.
OVERLAID = ("cupy",)
# The machine has NumPy; scikit-image asks for networkx, and imports it only when it is used.
LEFT_OUT = ("numpy", "networkx")
EXTRA = ("array-api-compat", "array-api-strict", "hypothesis", "pytest")
# Of what is compiled. Stubs stay: scikit-image finds by them what it imports lazily.
SOURCES = {".pyx", ".pxd", ".h", ".hpp", ".hh", ".c", ".cpp", ".tp", ".build"}
PICTURES = {".png", ".jpg", ".npz", ".npy", ".tif", ".gif", ".xml"}
# The demo's picture, and those of the touched tests of scikit-image.
USED = {"coins.png", "astronaut.png", "camera.png"}
# In a dist-info folder this tells of the installation here, with its paths.
INSTALLATION = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}


def touched_tests(project: Project, forks: Iterable[Fork]) -> dict[str, bytes]:
    """Return upstream's tests that the series touch, in folders of the forks, with a list."""
    files: dict[str, bytes] = {}
    listing = {}
    for fork in forks:
        tree = patched_tree(project, fork)
        repo = Repository(tree.source.git_dir)
        blobs, touched = repo.files(tree.tree), repo.changes(tree.source.tree, tree.tree)
        paths = [change.path for change in touched if change.path in select_tests(tree)]
        content = repo.read([blobs[path].oid for path in paths])
        files |= {f"{fork.name}/{path}": content[blobs[path].oid] for path in paths}
        listing[fork.name] = paths
    return {"tests.json": json.dumps(listing, indent=1).encode(), **files}


def needed(name: str) -> bool:
    """Whether a file of a distribution is needed at run time or by upstream's tests."""
    path = PurePosixPath(name)
    if path.parts[0].endswith(".dist-info"):
        return path.name not in INSTALLATION
    system_headers = path.parts[0] == ".." or "__pycache__" in path.parts
    data_of_tests = "tests" in path.parts and path.suffix != ".py"
    if system_headers or data_of_tests or path.suffix in SOURCES:
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
    """Return the files that the series remade, with the dist-info folder; and what it removed."""
    [dist] = distributions(name=distribution, path=[str(site)])
    record = parse_record((dist.read_text(FILENAME) or "").encode(), where=dist.name)
    paths = [output.path for output in record.remade]
    paths += [str(p) for p in dist.files or () if ".dist-info" in p.parts[0] and needed(str(p))]
    files = {path: (site / path).read_bytes() for path in paths if (site / path).is_file()}
    return files, sorted(set(paths) - files.keys())


def cupti() -> dict[str, bytes]:
    """Return libcupti and its licence from the wheel in this environment, if it is there."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(p) for p in (spec and spec.submodule_search_locations) or ()]
    found = [p for r in roots for p in r.glob("*/lib/libcupti.so.*")]
    for root in roots:
        found += root.parent.glob("nvidia_cuda_cupti-*.dist-info/**/License.txt")
    return {f"lib/{path.name}": path.read_bytes() for path in found}


def collect(project: Project, forks: list[Fork]) -> dict[str, bytes]:
    """Build the forks, compose their environment, and return the bundle's files."""
    wheels, _ = build_wheels(project, forks)
    environment = compose_environment(project, wheels, link=None, groups=("test",))
    python = project.python
    site = environment.path / "lib" / f"python{python}" / "site-packages"
    roots = [f.distribution for f in forks if f.name not in OVERLAID]
    packed = closure(site, [*roots, *EXTRA], python)
    files = {
        f"site/{path}": (site / path).read_bytes()
        for dist in packed.values()
        for path in map(str, dist.files or ())
        if needed(path)
    }
    # Within a minor version NumPy is binary compatible.
    [numpy] = [p.version for p in environment.packages if p.name == "numpy"]
    overlays, versions = {}, {"numpy": numpy.rpartition(".")[0]}
    for name, version in ((f.distribution, f.version) for f in forks if f.name in OVERLAID):
        laid, overlays[name] = remade(site, name)
        files |= {f"overlay/{name}/{p}": data for p, data in laid.items()}
        versions[name] = version
    files |= {f"upstream/{p}": data for p, data in touched_tests(project, forks).items()}
    checks = [path for pattern in CHECKS for path in ROOT.glob(pattern)]
    files |= {str(path.relative_to(ROOT)): path.read_bytes() for path in checks}
    files |= cupti()
    files["run.sh"] = (ROOT / "scripts" / "gpu" / "gpu_run.sh").read_bytes()
    manifest = {
        "needs": {"python": python, "machine": "x86_64", "distributions": versions},
        "forks": {w.fork: {"wheel": w.path.name, "sha256": w.sha256} for w in wheels},
        "packages": {name: dist.version for name, dist in packed.items()},
        "overlays": overlays,
    }
    files["manifest.json"] = json.dumps(manifest, indent=1).encode() + b"\n"
    return files


def prepare(project: Project, forks: list[Fork], folder: Path, *, gpu: bool) -> None:
    """Write the touched tests into `folder`, and link an environment that runs them as `venv`."""
    for name, data in touched_tests(project, forks).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    wheels, _ = build_wheels(project, forks)
    groups = ("test", "gpu") if gpu else ("test",)
    compose_environment(project, wheels, link=folder / "venv", groups=groups)


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
