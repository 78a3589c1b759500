"""Installs staged wheels as a user would: with pip and with uv, over HTTP, and imports them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from patchwheel.kit import process
from patchwheel.kit.errors import CheckError
from patchwheel.kit.interpreter import find_interpreter, uv_bin
from patchwheel.release.check import check_release
from patchwheel.release.publish import HINT, INSTALLED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from patchwheel.kit.progress import Progress

# Runs in an environment that holds nothing but the wheels and what they require.
IMPORTS = """
import importlib, sys
from importlib.metadata import distribution
for name in sys.argv[1:]:
    tops = {f.parts[0] for f in distribution(name).files if f.parts[1:] == ("__init__.py",)}
    for top in sorted(tops):
        importlib.import_module(top)
"""


def validate_release(staged: Path, progress: Progress) -> None:
    """Check a staged release and install it; raises CheckError when that shows a problem."""
    check_release(staged / "release").check(staged / "release")
    install_release(staged, progress)


def install_release(staged: Path, progress: Progress) -> None:
    """Install what was staged from its index, once with each tool and for each Python."""
    installed = json.loads((staged / INSTALLED).read_text())
    with _serving(staged / "site") as index, tempfile.TemporaryDirectory() as name:
        for version, forks in installed.items():
            # uv is given a path, since it stops at the shims of pyenv.
            base = find_interpreter(version, progress=progress).path
            requirements = sorted(forks.values())
            names = [requirement.partition("==")[0] for requirement in requirements]
            for tool in ("pip", "uv"):
                folder = Path(name, f"{tool}-{version}")
                python = folder / "bin" / "python"
                _run([uv_bin(), "venv", "--quiet", "--seed", "--python", base, folder], staged)
                argv: list[str | Path] = [python, "-m", "pip", "install", "--extra-index-url"]
                if tool == "uv":
                    argv = [uv_bin(), "pip", "install", "--python", python, "--index"]
                _run([*argv, index, "--quiet", *requirements], staged)
                _run([python, "-I", "-c", IMPORTS, *names], staged)
                progress.say(f"{tool} installs {', '.join(requirements)} for Python {version}")


def _run(argv: Sequence[str | Path], cwd: Path) -> None:
    # The user's own settings count: what the wheels require comes from the user's index.
    env = {**os.environ, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    try:
        process.capture(argv, cwd=cwd, env=env)
    except process.CommandError as err:
        raise CheckError(
            f"what was staged does not install: {err.message}", where=cwd, tail=err.tail, hint=HINT
        ) from err


@contextlib.contextmanager
def _serving(folder: Path) -> Iterator[str]:
    """Serve a folder with a simple index on loopback, and give the index's URL."""
    handler = functools.partial(_Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple/"
        finally:
            server.shutdown()


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing of each request."""
