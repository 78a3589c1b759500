"""Gathers the wheels that CI's release cells built into one folder, of which nothing changes later.

`STAGED/release` holds what a release publishes, `STAGED/site` the index of it and of the releases
before, and `installed.json` the requirements that `release.validate` installs.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchwheel.kit.digest import file_sha256
from patchwheel.kit.errors import CheckError
from patchwheel.release.publish import make_index

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INSTALLED = "installed.json"
HINT = "nothing is published; correct it, and run the cell again"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedWheel:
    """The one wheel that a release cell of CI's matrix has to build."""

    cell: str
    fork: str
    python: str


def stage_release(
    source: Path, staged: Path, expected: Sequence[ExpectedWheel], *, earlier: Path | None = None
) -> int:
    """Write `staged` from the wheels and reports below `source`, and return the number of wheels.

    `earlier` is a folder with the wheels of earlier releases, for the index. Raises CheckError
    when a wheel is missing, unexpected or not the one that its cell reported; then there is no
    staged folder, nor the one from before.
    """
    staged.parent.mkdir(exist_ok=True)
    shutil.rmtree(staged, ignore_errors=True)
    wheels = _reported_wheels(source, {wheel.cell: wheel for wheel in expected})
    installed: dict[str, dict[str, str]] = {}
    # Renamed at the end: a folder that is there is complete.
    with tempfile.TemporaryDirectory(dir=staged.parent, prefix=".staging-") as name:
        folder = Path(name, "staged")
        release, site = folder / "release", folder / "site"
        for want, path in wheels:
            _add(path, release)
            distribution, version = path.name.split("-")[:2]
            # The variants of a fork own the same files, so only the first is installed.
            installed.setdefault(want.python, {}).setdefault(
                want.fork, f"{distribution}=={version}"
            )
        for origin in (earlier, release):
            for file in sorted(origin.glob("*.whl")) if origin else ():
                _add(file, site)
        make_index(release)
        make_index(site)
        (folder / INSTALLED).write_text(json.dumps(installed, indent=1))
        folder.rename(staged)
    return len(wheels)


def _reported_wheels(
    source: Path, expected: Mapping[str, ExpectedWheel]
) -> list[tuple[ExpectedWheel, Path]]:
    """Return the wheel of each cell in the matrix's order; the cells' reports name them."""
    paths: dict[str, Path] = {}
    for file in sorted(source.rglob("reports/release-*.json")):
        report = json.loads(file.read_text())
        if report["cell"] not in expected:
            raise _refused(file, f"reports {report['cell']}, a cell that is not in the matrix")
        paths[report["cell"]] = _reported_wheel(file, report)
    if missing := [cell for cell in expected if cell not in paths]:
        raise CheckError(
            f"no wheel of {', '.join(missing)}; has the cell failed, or its runner?",
            where=source,
            hint=HINT,
        )
    return [(wheel, paths[cell]) for cell, wheel in expected.items()]


def _reported_wheel(file: Path, report: Mapping[str, Any]) -> Path:
    if len(report["wheels"]) != 1:
        raise _refused(file, f"reports {len(report['wheels'])} wheels, not one")
    [wheel] = report["wheels"]
    path = file.parent.parent / str(wheel["file"])
    if not path.exists():
        raise _refused(file, f"reports {path}, which is missing")
    if (actual := file_sha256(path)) != wheel["sha256"]:
        raise _refused(file, f"reports sha256 {wheel['sha256']}, and {path} has sha256 {actual}")
    return path


def _add(file: Path, folder: Path) -> None:
    """Copy a file; raises CheckError when the folder has other bytes under its name."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / file.name
    if target.exists() and (old := file_sha256(target)) != (new := file_sha256(file)):
        raise _refused(file, f"two files are called {file.name}: {old}, and this one, {new}")
    shutil.copyfile(file, target)


def _refused(where: Path, problem: str) -> CheckError:
    return CheckError(problem, where=where, hint=HINT)
