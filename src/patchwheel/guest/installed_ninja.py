#!/usr/bin/env python
"""Runs ninja; the word `installed` among its arguments stands for all files that are installed.

Meson's own targets also make what only tests and benchmarks use, for SciPy a sixth of all steps.
"""

from __future__ import annotations

import json
import os
import subprocess  # noqa: TID251
import sys
from pathlib import Path

INSTALLED = "installed"


def targets() -> list[str]:
    """Return the targets in the working folder, a build folder, that the install plan names."""
    build = Path.cwd()
    installed = json.loads((build / "meson-info/intro-installed.json").read_text("utf-8"))
    places = (os.path.relpath(path, build) for path in installed)
    # One that configuring made has no rule.
    listed = subprocess.check_output(["ninja", "-t", "targets", "all"], text=True)  # noqa: S607
    ruled = {line.rpartition(": ")[0] for line in listed.splitlines()}
    return sorted(ruled.intersection(places))


def main() -> None:
    words = sys.argv[1:]
    if INSTALLED in words:
        words.remove(INSTALLED)
        # With none of them, ninja would make all.
        if not (wanted := targets()):
            return
        words += wanted
    os.execvp("ninja", ["ninja", *words])  # noqa: S606, S607


if __name__ == "__main__":
    main()
