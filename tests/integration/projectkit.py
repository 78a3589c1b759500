"""A project of the tests, driven through the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import support

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
