"""Notes the files that a process reads, where it is imported as `sitecustomize`."""

# It watches paths as the strings that are opened.
# ruff: noqa: PTH113, PTH118, PTH119, SLF001

from __future__ import annotations

import os
import sys
from typing import Any

LOG = "PATCHWHEEL_INSPECT_LOG"
ROOT = "PATCHWHEEL_INSPECT_ROOT"
# True while setuptools copies what it ships, and once this script compares: that is no reading.
shipping = False
comparing = False


def watch(log: str, root: str) -> None:
    """Note every file below the source root that this process opens, by running script."""
    sink = os.open(log, os.O_WRONLY | os.O_APPEND)
    root = os.path.join(os.path.realpath(root), "")
    words = [os.path.realpath(word) for word in sys.orig_argv[1:]]
    # What a script was given is in its command, where everybody can see it.
    seen = {word for word in words if os.path.isfile(word)}
    script = next((word for word in words if word in seen), "")
    inside = script.removeprefix(root) if script.startswith(root) else ""
    if not inside:
        seen.clear()

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event != "open" or comparing or not isinstance(args[0], (str, bytes)):
            return
        path = os.path.realpath(os.fsdecode(args[0]))
        if not path.startswith(root) or path in seen or (shipping and _copying()):
            return
        # Every backend opens it, to a known effect; a script of the project may use it otherwise.
        if path != f"{root}pyproject.toml" or sys.argv[0].startswith(root):
            seen.add(path)
            row = f"{inside}\n{path.removeprefix(root)}\0"
            os.write(sink, os.fsencode(row))

    sys.addaudithook(hook)


def _copying() -> bool:
    frame = sys._getframe(2)
    names: list[str] = []
    while frame.f_back and len(names) < len("copying"):
        names.append(os.path.basename(frame.f_code.co_filename))
        frame = frame.f_back
    return "file_util.py" in names


if __name__ == "sitecustomize":
    watch(os.environ[LOG], os.environ[ROOT])
