"""The commands in groups by what one does, and their examples."""

from __future__ import annotations

from pathlib import Path

# The module of this package that has the commands of a group, and their names.
GROUPS = {
    "Start": ("starting", "init", "add", "remove"),
    "Build": ("building", "plan", "build", "env", "test", "shell"),
    "Change patches": ("series", "dev", "export", "import"),
    "Follow upstream": ("series", "status", "rebase", "propose", "submit"),
    "Publish": ("release", "verify", "index", "release", "ci"),
    "Maintain": ("maintenance", "lock", "doctor", "cache", "cluster"),
}
COMMANDS = {name: module for module, *names in GROUPS.values() for name in names}


def examples(name: str) -> str:
    """Return the end of a command's help; click keeps the lines after a backspace."""
    lines = Path(__file__).with_name("examples.txt").read_text("utf-8").splitlines()
    return "\n".join(["\b", "Examples:", *(f"  {x}" for x in lines if x.split()[1] == name)])
