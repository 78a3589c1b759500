"""Write the files of a new project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchwheel.kit import ManifestError, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = """\
# Upstream projects with patches of ours. `patchwheel add NAME` writes an entry, and locks it.
schema = 1

[environment]
# It marks our wheels: 1.2.3+{label}.h1a2b3c4d.
label = "{label}"
python = ["{python}"]
# What the environment holds besides the forks and their dependencies.
requires = []
# What `patchwheel test` adds.
test-requires = ["pytest"]
"""
IGNORED = ("/dist/", "/publish/", "/work/", "/.rebase-*", "/.venv-*")
NOXFILE = '''\
"""Sessions: `nox -s build`. Each runs the patchwheel that is on PATH."""

import nox

nox.options.default_venv_backend = "none"


@nox.session
def build(session: nox.Session) -> None:
    """Build the patched wheels into dist/, and the environment .venv-forks."""
    session.run("patchwheel", "build", *session.posargs)
    session.run("patchwheel", "env", "--check")


@nox.session(default=False)
def test(session: nox.Session) -> None:
    """Run upstream's tests of what a series changes: nox -s test -- FORK."""
    session.run("patchwheel", "test", *session.posargs)
'''


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
        texts[noxfile] = NOXFILE
    # The manifest comes last: whoever finds it finds the rest.
    texts[manifest] = MANIFEST.format(label=label, python=python)
    for path, text in texts.items():
        write_atomically(path, text.encode())
    return [*texts]
