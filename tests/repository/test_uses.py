"""What other tools read of this project: its version, the pre-commit hooks, wheels in uv."""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import click
import pytest

from patchwheel import __version__
from patchwheel.cli.main import cli
from tests.fixtures import support

ROOT = Path(__file__).parent.parent.parent
PUBLISH = (ROOT / "docs" / "how-to" / "publish.md").read_text()
VERSION = "1.18.1+arrayapi.h1a2b3c4d"


def uv(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [str(Path(sys.executable).parent / "uv"), *words, "--python", sys.executable]
    env = {**os.environ, "NO_PROXY": "127.0.0.1", "UV_CACHE_DIR": str(folder / ".cache")}
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)


def project(folder: Path, number: int) -> str:
    """Return a pyproject.toml with one of the two snippets for uv."""
    section = PUBLISH.partition("## Use the wheels in a uv project\n")[2]
    found = re.findall(r"(?m)(?:^    .*\n|^\n(?=    ))+", section)
    text = re.sub(r"(?m)^    ", "", found[number])
    head = 'name = "mine"\nversion = "1"\nrequires-python = ">=3.11"\n'
    return text.replace("[project]\n", f"[project]\n{head}")


def test_a_uv_project_takes_a_wheel_by_its_path(tmp_path: Path) -> None:
    wheel = support.make_wheel(tmp_path / "dist", "scipy", VERSION, {"scipy/__init__.py": ""})
    folder = tmp_path / "mine"
    text = re.sub(r"\.\./forks/dist/scipy-.*\.whl", f"../dist/{wheel.name}", project(folder, 0))
    assert wheel.name in text
    support.write(folder, {"pyproject.toml": text})
    done = uv(folder, "sync", "--offline")
    assert done.returncode == 0, done.stderr
    lock = (folder / "uv.lock").read_text()
    assert f'version = "{VERSION}"' in lock
    assert support.sha256(wheel) in lock
    wheel.unlink()
    done = uv(folder, "lock", "--offline")
    assert done.returncode != 0
    assert wheel.name in done.stderr


def test_a_uv_project_takes_a_release_wheel_from_its_index(tmp_path: Path) -> None:
    wheel = support.make_wheel(tmp_path / "dist", "scipy", VERSION, {"scipy/__init__.py": ""})
    folder = tmp_path / "mine"
    page = f'<a href="../../dist/{wheel.name.replace("+", "%2B")}">{wheel.name}</a>'
    support.write(tmp_path, {"simple/scipy/index.html": page})
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        text = project(folder, 1).replace("1.18.1+arrayapi.h…", VERSION)
        text = text.replace("https://wheels.example", url)
        support.write(folder, {"pyproject.toml": text})
        done = uv(folder, "sync")
        server.shutdown()
        thread.join()
    assert done.returncode == 0, done.stderr
    lock = tomllib.loads((folder / "uv.lock").read_text())
    [scipy] = [package for package in lock["package"] if package["name"] == "scipy"]
    assert scipy["version"] == VERSION
    assert scipy["source"] == {"registry": f"{url}/simple/"}


def test_the_version_is_the_same_everywhere() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
    changes = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"(?m)^## (\S+)", changes)
    assert headings[:2] == ["Unreleased", __version__]
    section = changes.partition(f"\n## {__version__}\n")[2]
    assert re.findall(r"(?m)^### (.+)$", section) == ["Added", "Changed", "Fixed", "Security"]


HOOKS = re.findall(
    r"(?m)^- id: (\S+)\n(?:  .+\n)*?  entry: patchwheel (\w+) (\S+)\n(?:  .+\n)*?  files: (\S+)$",
    (ROOT / ".pre-commit-hooks.yaml").read_text(),
)


def test_the_hooks_are_those_that_the_how_to_names() -> None:
    text = (ROOT / "docs" / "how-to" / "ci.md").read_text()
    assert [row[0] for row in HOOKS] == re.findall(r"(?m)^ +- id: (\S+)$", text)
    assert f"rev: v{__version__}\n" in text


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("patchwheel-export", ["patches/scipy/series", "forks.toml"]),
        ("patchwheel-ci", ["forks.toml", "forks.lock", ".github/workflows/check.yml", "ci/setup"]),
    ],
)
def test_a_hook_runs_a_command_that_there_is_when_its_files_change(
    name: str, seen: list[str]
) -> None:
    [(_, word, option, files)] = [row for row in HOOKS if row[0] == name]
    command = cli.get_command(click.Context(cli), word)
    assert command is not None
    assert option in {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
    assert all(re.search(files, path) for path in seen)
    assert not re.search(files, "src/package/ci.py")


@pytest.mark.heavy
@pytest.mark.network
def test_the_wheel_runs_as_a_tool_in_an_empty_folder() -> None:
    done = subprocess.run(
        ["./scripts/nox", "-s", "package"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert f"patchwheel, version {__version__}\n" in said
    assert "forks.toml: has no fork yet" in said
    made = {path.name for path in (ROOT / "dist" / "package").iterdir()}
    assert made == {
        f"patchwheel-{__version__}-py3-none-any.whl",
        f"patchwheel-{__version__}.tar.gz",
    }
