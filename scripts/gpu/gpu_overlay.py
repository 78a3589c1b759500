"""Lay the files of CuPy that a series remade over links to the CuPy of this Python.

`gpu_overlay.py BUNDLE TARGET` runs in the bundle of gpu_bundle.py; nothing installed is changed.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

UNFIT = 7


def unfit(needs: dict[str, Any]) -> str | None:
    """Return why this Python can't take the bundle's compiled files, if so; without CuPy it can."""
    python = ".".join(platform.python_version_tuple()[:2])
    if python != needs["python"] or platform.machine() != needs["machine"]:
        return (
            f"the bundle is for Python {needs['python']} on {needs['machine']}, and "
            f"{sys.executable} is Python {python} on {platform.machine()}; set PYTHON"
        )
    for name, wanted in needs["distributions"].items():
        try:
            found = version(name)
        except PackageNotFoundError:
            if name.startswith("cupy"):
                continue
            return f"{sys.executable} has no {name} {wanted}; set PYTHON"
        if not f"{found}.".startswith(f"{wanted}."):
            return (
                f"the bundle is for {name} {wanted}, and {sys.executable} has {found}; set PYTHON"
            )
    return None


def link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for way in (os.link, os.symlink, shutil.copyfile):
        try:
            way(source, target)
        except OSError:
            continue
        return
    raise OSError(f"{source} can be neither linked nor copied to {target}")


def overlay(name: str, files: Path, target: Path, removed: Iterable[str]) -> int:
    """Make `target` the distribution with `files` in place of its own; return the count of links.

    A remade file is never written through a link, which would change the installed one.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(files, target)
    ours = {str(p.relative_to(files)) for p in files.rglob("*")} | set(removed)
    count = 0
    for path in distribution(name).files or ():
        inside = path.parts[0] != ".." and "__pycache__" not in path.parts
        if inside and ".dist-info" not in path.parts[0] and str(path) not in ours:
            link(Path(str(path.locate())).absolute(), target / path)
            count += 1
    return count


def main(bundle: Path, target: Path) -> None:
    manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    if reason := unfit(manifest["needs"]):
        print(f"run.sh: {reason}", file=sys.stderr)
        raise SystemExit(UNFIT)
    for name, removed in manifest["overlays"].items():
        try:
            distribution(name)
        except PackageNotFoundError:
            print(f"run.sh: no {name} here, its files are left out", file=sys.stderr)
            continue
        count = overlay(name, bundle / "overlay" / name, target, removed)
        print(f"run.sh: {name}: {count} files linked", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
