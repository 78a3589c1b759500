"""The commands in groups by what one does, and their examples."""

from __future__ import annotations

# The module of this package that has the commands of a group, and their names.
GROUPS = {
    "Start": ("starting", "init", "add", "remove"),
    "Build": ("building", "plan", "build", "env", "test", "shell"),
    "Change patches": ("series", "dev", "export", "import"),
    "Follow upstream": ("series", "status", "rebase", "propose", "submit"),
    "Publish": ("release", "verify", "index", "release", "ci"),
    "Maintain": ("maintenance", "lock", "doctor", "cache"),
}
COMMANDS = {name: module for module, *names in GROUPS.values() for name in names}
EXAMPLES = {
    "init": ("", "--python 3.12 --label arrayapi"),
    "add": ("contourpy", "https://github.com/contourpy/contourpy@v1.4.0"),
    "remove": ("contourpy", "contourpy --force"),
    "plan": ("", "scipy --dev"),
    "build": ("", "--release cupy --variant cuda13"),
    "env": ("", "--check"),
    "test": ("scipy --dev", "scipy --compare -- -k lobpcg"),
    "shell": ("scipy", "scipy --sandbox none"),
    "dev": ("scipy", "scipy --detach"),
    "export": ("scipy", "scipy --check"),
    "import": ("scipy fix.patch", "scipy https://github.com/scipy/scipy/pull/1234"),
    "status": ("", "scipy --against main --fail-on conflict"),
    "rebase": ("scipy --onto v1.18.2 --dry-run", "scipy --continue"),
    "propose": ("scipy", "scipy --onto v1.18.2"),
    "submit": ("scipy 0040-lobpcg-array-api.patch", "scipy 0040-lobpcg-array-api.patch --test"),
    "verify": ("dist/release", "scipy --from-source"),
    "index": ("dist", "publish/wheels"),
    "release": ("stage publish/cells publish/staged", "validate publish/staged"),
    "ci": ("", "--check"),
    "lock": ("", "scipy --upgrade cython"),
    "doctor": ("", "cupy --variant rocm7"),
    "cache": ("verify", "prune --older-than 7"),
}


def examples(name: str) -> str:
    """Return the end of a command's help; click keeps the lines after a backspace."""
    lines = (f"  patchwheel {name} {words}".rstrip() for words in EXAMPLES[name])
    return "\n".join(["\b", "Examples:", *lines])
