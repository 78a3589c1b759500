"""The hermetic seal: no test sees or changes the user's home, git settings, indexes or store."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import hypothesis
import pytest

from patchwheel.kit import store as store_module
from patchwheel.kit.interpreter import Interpreter, find_interpreter
from patchwheel.kit.store import Store, default_root
from patchwheel.series.apply import PatchedTree
from tests.fixtures import grafts, patches, support, web

if TYPE_CHECKING:
    from tests.fixtures.projects import Site

REAL_HOME = Path.home()
REAL_STORE = default_root()
# Downloads are content-addressed there and safe for many processes: they are fetched once.
UV_CACHE = os.environ.get("UV_CACHE_DIR") or str(
    Path(os.environ.get("XDG_CACHE_HOME") or REAL_HOME / ".cache") / "uv"
)
DROPPED = (
    "GIT_",
    "PIP_",
    "UV_",
    "PATCHWHEEL_",
    "DASK_",
    "XDG_",
    "MESON",
    "NINJA",
    "PYTHON",
    "CFLAGS",
    "CXXFLAGS",
    "LDFLAGS",
    "CUPY_",
    "NPY_",
    "SCIPY_",
)
# A network test needs what the user set for reaching an index.
REACHING = ("PIP_", "UV_", "GIT_SSL_")
SEALED = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_EDITOR": "false",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "file",
    "GIT_AUTHOR_NAME": "A U Thor",
    "GIT_AUTHOR_EMAIL": "author@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_NAME": "C O Mitter",
    "GIT_COMMITTER_EMAIL": "committer@example.org",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
    "UV_CACHE_DIR": UV_CACHE,
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "COLUMNS": "100",
}


# Hypothesis leaves nothing here, finds the same every time, and a busy machine is no failure.
# `nox -s attack` tries more examples.
hypothesis.settings.register_profile(
    "attack", database=None, deadline=None, derandomize=True, max_examples=200
)
hypothesis.settings.register_profile(
    "sealed", hypothesis.settings.get_profile("attack"), max_examples=40
)
hypothesis.settings.load_profile("sealed")
hypothesis.configuration.set_hypothesis_home_dir(
    Path(tempfile.gettempdir()) / f"hypothesis-{os.getuid()}"
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, which makes the file's fixtures once."""
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    # What shares the real forks takes longest, so that it begins first.
    items.sort(key=lambda item: "forks" not in _groups(item))


def _groups(item: pytest.Item) -> list[str]:
    return [marker.args[0] for marker in item.iter_markers("xdist_group")]


@pytest.fixture(autouse=True)
def _seal(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = tmp_path_factory.mktemp("home")
    network = request.node.get_closest_marker("network") is not None
    for name in list(os.environ):
        if name.startswith(DROPPED) and not (network and name.startswith(REACHING)):
            monkeypatch.delenv(name)
    for name in ("VIRTUAL_ENV", "NO_COLOR", "FORCE_COLOR", "CI", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in SEALED.items():
        monkeypatch.setenv(name, value)
    if network:
        _keep_index_files(monkeypatch)
    else:
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    # A file, not /dev/null: as root, `git config --global` would replace that by a plain file.
    (home / "gitconfig").touch()
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / "gitconfig"))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATCHWHEEL_STORE", str(home / "store"))


def _keep_index_files(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "PIP_CONFIG_FILE": REAL_HOME / ".config" / "pip" / "pip.conf",
        "UV_CONFIG_FILE": REAL_HOME / ".config" / "uv" / "uv.toml",
    }
    for name, path in files.items():
        if name not in os.environ and path.is_file():
            monkeypatch.setenv(name, str(path))


@pytest.fixture(autouse=True)
def _store_tripwire(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that opens the user's own store fails; a child process has the sealed HOME."""
    real_init = store_module.Store.__init__

    def init(self: Store, root: Path, *, say: Callable[[str], None] = lambda _line: None) -> None:
        if root.absolute() == REAL_STORE.absolute():
            pytest.fail(f"this test opened the user's own store at {root}")
        real_init(self, root, say=say)

    monkeypatch.setattr(store_module.Store, "__init__", init)


@pytest.fixture
def report() -> support.Recorder:
    return support.Recorder()


@pytest.fixture
def store(tmp_path: Path, report: support.Recorder) -> Store:
    return Store(tmp_path / "store", say=report.say)


@pytest.fixture
def kit(tmp_path: Path) -> patches.Kit:
    return patches.Kit(tmp_path)


@pytest.fixture
def server() -> Iterator[web.Server]:
    with web.serving() as made:
        yield made


@pytest.fixture(scope="session")
def team_bench(tmp_path_factory: pytest.TempPathFactory) -> tuple[grafts.Bench, PatchedTree]:
    """What each `Team` of a shared store builds."""
    from tests.fixtures.shared import make_bench

    return make_bench(tmp_path_factory.mktemp("team"))


@pytest.fixture(scope="session")
def packages_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for what builds tests/packages: what one test configured, the next one finds."""
    root = tmp_path_factory.mktemp("packages") / "store"
    Store(root).ensure()
    return root


@pytest.fixture(scope="session")
def locked_site(tmp_path_factory: pytest.TempPathFactory) -> "Site":
    """A project whose index is a folder, locked; a test takes a copy, `locked_site.apart(tmp)`."""
    from tests.fixtures.projects import make_site

    made = make_site(tmp_path_factory.mktemp("site"), {})
    made.run("lock")
    return made


@pytest.fixture(scope="session")
def interpreter() -> Interpreter:
    """A real Python to make environments with: ours, which is always there."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return find_interpreter(python, explicit=sys.executable, progress=support.Recorder())


class Stack(NamedTuple):
    """The four forks as the main job makes them: a copy of the project, store, environment."""

    project: Path
    store: Path
    environment: Path

    def run(self, *words: str, folder: Path | None = None) -> None:
        """Run patchwheel there, or in another folder with the same store."""
        # Also before the seal of a test that asks for it first.
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PATCHWHEEL_")}
        subprocess.run(
            [sys.executable, "-m", "patchwheel", *words],
            cwd=folder or self.project,
            env={**kept, "PATCHWHEEL_STORE": str(self.store), "UV_CACHE_DIR": UV_CACHE},
            check=True,
            timeout=580,
        )


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    root = tmp_path_factory.mktemp("stack")
    made = Stack(root / "project", root / "store", root / "project" / ".venv-forks")
    support.copy_project(made.project)
    made.run("build")
    made.run("env")
    return made
