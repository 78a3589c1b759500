"""Execute docs/demo.ipynb in the environment of the forks, or open it there with --lab.

It is stored as executed: `nox -s notebook -- --output docs/demo.ipynb` does so after a change.

Jupyter goes into an environment of its own, which sees the forks' packages: theirs holds what its
lock says.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path

from uv import find_uv_bin

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "demo.ipynb"


def environment(forks: Path, beside: Path, packages: list[str]) -> Path:
    """Make an environment with `packages` that sees those of `forks`; return its Python."""
    python = beside / "bin" / "python"
    base = str(forks / "bin" / "python")
    uv = find_uv_bin()
    subprocess.run([uv, "venv", "-q", "--clear", "-p", base, beside], check=True)
    install = [uv, "pip", "install", "-q", "-p", str(python)]
    subprocess.run([*install, *packages], check=True)
    [site] = beside.glob("lib/python3*/site-packages")
    [seen] = forks.resolve().glob("lib/python3*/site-packages")
    (site / "forks.pth").write_text(f"{seen}\n")
    return python


def tidy(notebook: Path) -> None:
    """Remove when each cell ran, which would be new in each run."""
    content = json.loads(notebook.read_text())
    for cell in content["cells"]:
        cell["metadata"].pop("execution", None)
    notebook.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forks", type=Path, default=ROOT / ".venv-forks")
    parser.add_argument("--beside", type=Path, required=True, help="made anew")
    parser.add_argument("--output", type=Path, help="where the executed one goes")
    parser.add_argument("--lab", action="store_true", help="open it instead")
    options = parser.parse_args()
    beside = options.beside.absolute()
    wanted = ["jupyterlab"] if options.lab else ["nbclient", "ipykernel"]
    python = environment(options.forks, beside, wanted)
    # An absolute path, since a relative one would be taken from the notebook's folder.
    output = (options.output or beside / "demo.ipynb").absolute()
    env = {**os.environ, "JUPYTER_PATH": str(beside / "share" / "jupyter")}
    if options.lab:
        words = ["lab", str(NOTEBOOK)]
    else:
        words = ["execute", str(NOTEBOOK), "--output", str(output)]
    subprocess.run([python, "-m", "jupyter", *words], env=env, check=True)
    if not options.lab:
        tidy(output)
        print(output)


if __name__ == "__main__":
    main()
