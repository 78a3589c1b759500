"""The folder of a failed build, kept for a day, and a shell in it."""

from __future__ import annotations

import json
import shlex
import time
from typing import TYPE_CHECKING

from patchwheel.build.sandbox import STEP, BuildDir, detect_sandbox, kept_folder
from patchwheel.kit import BuildError, Limits, process, rmtree

if TYPE_CHECKING:
    from patchwheel.kit import Context

DAY = 86400
AGAIN = "again"


def open_shell(context: Context, name: str) -> int:
    """Open a shell where the last build of a fork failed, contained as it was; return its status.

    Raises BuildError when no such build was kept within a day.
    """
    sandbox = detect_sandbox(context.sandbox)
    root = kept_folder(name, sandbox, context.store.root / "tmp")
    note = root / STEP
    if note.exists() and time.time() - note.stat().st_mtime > DAY:
        rmtree(root)
    if not note.exists():
        hint = f"`patchwheel build {name} --keep-failed`, with the same --sandbox"
        raise BuildError(f"no failed build of {name} was kept within a day", hint=hint)
    step = json.loads(note.read_text())
    build_dir = BuildDir.at(
        root, name, sandbox, limits=Limits(), env=step["environment"], read=step["read"]
    )
    again = build_dir.scripts / AGAIN
    again.write_text(f"cd {shlex.quote(step['cwd'])} && exec {shlex.join(step['argv'])}\n")
    command = f"sh {shlex.quote(str(build_dir.path_inside(again)))}"
    context.progress.say(f"sandbox: {sandbox.level}; the step that failed: {command}")
    folder = build_dir.work / "src"
    write = [root / "exchange"] if (root / "exchange").is_dir() else []
    argv = build_dir.wrapped(["/bin/sh"], cwd=folder, write=write)
    # bubblewrap goes to the sources inside; outside, a build may have put anything in their place.
    cwd = build_dir.scripts if sandbox.level == "bwrap" else folder
    return process.interactive(argv, cwd=cwd, env=step["env"])
