"""Write the manifest and the lock of the ROCm image into the current folder, from those of the project.

python docker/for_rocm.py           forks.toml and forks.lock get what docker/rocm.toml and rocm.lock have instead
python docker/for_rocm.py --take    rocm.lock gets what `patchwheel lock` has made of it, where there is ROCm
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tomlkit

HERE = Path(__file__).parent
ROOT = HERE.parent
FORK = "cupy"


def dumped(data: object) -> str:
    return json.dumps(data, separators=(",", ":"), sort_keys=True) + "\n"


def give(folder: Path) -> None:
    manifest = tomlkit.parse((ROOT / "forks.toml").read_text())
    instead = tomlkit.parse((HERE / "rocm.toml").read_text())
    fork = manifest["forks"][FORK]
    # The wheel's name and the base are those of this one variant.
    fork.pop("variants", None)
    fork.update(instead["forks"][FORK])
    lock = json.loads((ROOT / "forks.lock").read_text())
    if (HERE / "rocm.lock").exists():
        part = json.loads((HERE / "rocm.lock").read_text())
        lock["environment"] = part["environment"]
        lock["forks"][FORK] = part[FORK]
    (folder / "forks.toml").write_text(tomlkit.dumps(manifest))
    (folder / "forks.lock").write_text(json.dumps(lock))


def take(folder: Path) -> None:
    lock = json.loads((folder / "forks.lock").read_text())
    part = {"environment": lock["environment"], FORK: lock["forks"][FORK]}
    (HERE / "rocm.lock").write_text(dumped(part))


if __name__ == "__main__":
    (take if sys.argv[1:] == ["--take"] else give)(Path.cwd())
