"""Write the files of a new project."""

from __future__ import annotations

from pathlib import Path
from string import Template

from patchwheel.kit import ManifestError, exclusive_lock, write_atomically

TEMPLATES = Path(__file__).with_name("templates")
IGNORED = ("/dist/", "/publish/", "/work/", "/.rebase-*", "/.venv-*")


def new_project(manifest: Path, *, label: str, python: str) -> list[Path]:
    """Write manifest, patches/, .gitignore and noxfile.py; return what was written.

    A noxfile stays as it is, and .gitignore gets the lines that it lacks. Raises ManifestError
    where a manifest is.
    """
    root = manifest.parent
    if manifest.exists():
        hint = "`patchwheel add NAME` adds a fork to it"
        raise ManifestError("there is a manifest already", where=manifest, hint=hint)
    root.mkdir(parents=True, exist_ok=True)
    (root / "patches").mkdir(exist_ok=True)
    ignore, noxfile = root / ".gitignore", root / "noxfile.py"
    old = ignore.read_text(encoding="utf-8") if ignore.exists() else ""
    lines = [line for line in IGNORED if line not in old.splitlines()]
    texts = {ignore: "\n".join([*old.splitlines(), *lines, ""])} if lines else {}
    if not noxfile.exists():
        texts[noxfile] = (TEMPLATES / "noxfile.txt").read_text("utf-8")
    # The manifest comes last: whoever finds it finds the rest.
    template = Template((TEMPLATES / "forks.toml").read_text("utf-8"))
    texts[manifest] = template.substitute(label=label, python=python)
    with exclusive_lock(root):
        for path, text in texts.items():
            write_atomically(path, text.encode(), alone=True)
    return [*texts]
