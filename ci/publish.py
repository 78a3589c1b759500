"""Stage, validate, promote: what is published are the bytes that were validated, all of them or none.

`staged/release` is what a release holds, `staged/site` the index of it and of the releases before. Only the first step
writes either; the last needs nothing but Python, since it runs where there are rights to publish.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

if TYPE_CHECKING:
    from collections.abc import Callable

# In an environment that holds nothing but the wheels and what they require.
IMPORTS = """
import importlib, sys
from importlib.metadata import distribution
for name in sys.argv[1:]:
    tops = {f.parts[0] for f in distribution(name).files if f.parts[1:] == ("__init__.py",)}
    for top in sorted(tops):
        print(name, distribution(name).version, importlib.import_module(top).__file__)
"""


def fail(status: int, message: str) -> Never:
    print(
        f"error: {message}\n  next: nothing is published; correct it, and run the cell again",
        file=sys.stderr,
    )
    sys.exit(status)


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(staged: Path) -> str:
    """Name the content of the folder, all of it."""
    files = sorted(p for p in staged.rglob("*") if p.is_file())
    rows = [f"{sha256(p)}  {p.relative_to(staged)}\n" for p in files]
    return hashlib.sha256("".join(rows).encode()).hexdigest()


def run(*command: str | Path) -> None:
    status = subprocess.run(command, check=False).returncode
    if status:
        fail(status, f"{' '.join(map(str, command))} failed with {status}")


def matrix() -> dict[str, list[dict[str, Any]]]:
    done = subprocess.run(["patchwheel", "ci", "--matrix"], check=False, stdout=subprocess.PIPE)
    if done.returncode:
        fail(done.returncode, "there is no matrix")
    answer: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return answer


def add(file: Path, folder: Path) -> None:
    """Copy a file; one of its name and other bytes in the folder stops everything."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / file.name
    if target.exists() and (old := sha256(target)) != (new := sha256(file)):
        fail(6, f"two files are called {file.name}: {old}, and {new} at {file}")
    shutil.copyfile(file, target)


def built(source: Path, due: dict[str, dict[str, Any]]) -> dict[str, Path]:
    """Return the wheel of each release cell, by the reports that the cells left; each cell must have one."""
    found: dict[str, Path] = {}
    for report in sorted(source.rglob("reports/release-*.json")):
        told = json.loads(report.read_text())
        if told["cell"] not in due:
            fail(6, f"{report} is of {told['cell']}, a cell that is not in the matrix")
        if len(told["wheels"]) != 1:
            fail(6, f"{report} tells of {len(told['wheels'])} wheels, not of one")
        [wheel] = told["wheels"]
        path = report.parent.parent / wheel["file"]
        if not path.exists():
            fail(6, f"{path} is missing, which {report} tells of")
        if (actual := sha256(path)) != wheel["sha256"]:
            fail(
                6,
                f"{path} has sha256 {actual}, and {report} tells of {wheel['sha256']}",
            )
        found[told["cell"]] = path
    if missing := [name for name in due if name not in found]:
        fail(6, f"no wheel of {', '.join(missing)}; has the cell failed, or its runner?")
    return {name: found[name] for name in due}


def stage(source: Path, staged: Path) -> None:
    due = {row["cell"]: row for row in matrix()["release"]}
    found = built(source, due)
    installed: dict[str, dict[str, str]] = {}
    staged.parent.mkdir(exist_ok=True)
    shutil.rmtree(staged, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=staged.parent, prefix=".staging-") as name:
        whole, release, site = (Path(name, n) for n in ("staged", "staged/release", "staged/site"))
        for cell, wheel in found.items():
            add(wheel, release)
            distribution, version = wheel.name.split("-")[:2]
            # Variants of a fork own the same files: the first is the one that is installed with the others.
            forks = installed.setdefault(due[cell]["python"], {})
            forks.setdefault(due[cell]["forks"][0], f"{distribution}=={version}")
        for folder in (staged.parent / "earlier", release):
            for file in sorted(folder.glob("*.whl")):
                add(file, site)
        # Each is checked first, and completed with statements, SHA256SUMS and pylock.toml.
        run("patchwheel", "index", release)
        run("patchwheel", "index", site)
        (whole / "installed.json").write_text(json.dumps(installed, indent=1))
        whole.rename(staged)
    print(f"{len(found)} wheels are staged in {staged}", file=sys.stderr)


def unchanged(staged: Path) -> None:
    wanted = os.environ.get("DIGEST")
    if wanted and (actual := digest(staged)) != wanted:
        fail(6, f"{staged} has the digest {actual}; {wanted} was staged")


def interpreter(version: str) -> Path:
    """Find the Python that the wheels were made for; uv itself stops at pyenv's shims."""
    from patchwheel.kit.errors import PatchwheelError
    from patchwheel.kit.interpreter import find_interpreter
    from patchwheel.kit.progress import Quiet

    try:
        return find_interpreter(version, progress=Quiet()).path
    except PatchwheelError as err:
        fail(err.exit_code, str(err))


def validate(staged: Path) -> None:
    """Check the files, and install them as a user would: with pip and with uv, over HTTP, into empty environments."""
    unchanged(staged)
    run("patchwheel", "verify", staged / "release")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(staged / "site"))
    os.environ["no_proxy"] = "127.0.0.1"
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        tempfile.TemporaryDirectory() as name,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        index = f"http://127.0.0.1:{server.server_port}/simple/"
        for version, found in json.loads((staged / "installed.json").read_text()).items():
            wanted = sorted(found.values())
            names = [requirement.partition("==")[0] for requirement in wanted]
            base = interpreter(version)
            for tool in ("pip", "uv"):
                folder = Path(name, f"{tool}-{version}")
                python = folder / "bin" / "python"
                run("uv", "venv", "--quiet", "--seed", "--python", base, folder)
                if tool == "pip":
                    run(
                        python,
                        "-m",
                        "pip",
                        "install",
                        "--quiet",
                        "--extra-index-url",
                        index,
                        *wanted,
                    )
                else:
                    run(
                        "uv",
                        "pip",
                        "install",
                        "--quiet",
                        "--python",
                        python,
                        "--index",
                        index,
                        *wanted,
                    )
                run(python, "-I", "-c", IMPORTS, *names)
        server.shutdown()


def promote(staged: Path, site: Path) -> None:
    unchanged(staged)
    with tempfile.TemporaryDirectory(dir=site.parent, prefix=".promoting-") as name:
        shutil.copytree(staged / "site", Path(name, "site"))
        shutil.rmtree(site, ignore_errors=True)
        Path(name, "site").rename(site)


COMMANDS: dict[str, Callable[..., str | None]] = {
    "stage": stage,
    "digest": digest,
    "validate": validate,
    "promote": promote,
}

if __name__ == "__main__":
    name, *folders = sys.argv[1:]
    if said := COMMANDS[name](*(Path(folder).absolute() for folder in folders)):
        print(said)
