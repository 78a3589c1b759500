from collections.abc import Mapping
from pathlib import Path

import pytest

from patchwheel.kit.errors import ManifestError
from patchwheel.kit.repo import Repository
from patchwheel.manifest.model import Fork
from patchwheel.source.compare import check_version
from patchwheel.source.fetch import Source

MANIFEST = Path("forks.toml")
DYNAMIC = '[project]\nname = "pw-demo"\ndynamic = ["version"]\n'
SCM = f'[build-system]\nrequires = ["setuptools-scm>=8"]\n{DYNAMIC}'


def check(folder: Path, files: Mapping[str, str], version: str = "1.4.0") -> None:
    repo = Repository.bare(folder / "git")
    tree = repo.import_files((n, "100644", t.encode()) for n, t in files.items())
    fork = Fork(name="pw-demo", version=version, patches=folder)
    check_version(Source(fork=fork, git_dir=repo.git_dir, tree=tree, epoch=0), MANIFEST)


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("PKG-INFO", {"PKG-INFO": "Name: x\nVersion: 1.3.4.dev1\n", "pyproject.toml": SCM}),
        ("pyproject.toml", {"pyproject.toml": '[project]\nversion = "1.3.4.dev1"\n'}),
        ("pyproject.toml", {"pyproject.toml": '[tool.poetry]\nversion = "1.3.4.dev1"\n'}),
        (
            "meson.build",
            {
                "pyproject.toml": DYNAMIC,
                "meson.build": "project('x', 'c',\n version: '1.3.4.dev1')",
            },
        ),
        ("setup.cfg", {"setup.cfg": "[metadata]\nversion = 1.3.4.dev1\n"}),
        ("setup.py", {"setup.py": "import a\nsetup(\n  name='x', version='1.3.4.dev1')\n"}),
        ("src/pw_demo/__init__.py", {"src/pw_demo/__init__.py": '__version__ = "1.3.4.dev1"\n'}),
        ("pw_demo/_version.py", {"pw_demo/_version.py": "__version__: str = '1.3.4.dev1'\n"}),
    ],
)
def test_a_tree_of_another_version_is_refused(
    tmp_path: Path, path: str, files: dict[str, str]
) -> None:
    with pytest.raises(
        ManifestError, match=f"version is 1.4.0, and its {path} says 1.3.4.dev1"
    ) as caught:
        check(tmp_path, files)
    assert (caught.value.where, caught.value.exit_code) == (MANIFEST, 2)
    assert 'write version = "1.3.4.dev1"' in str(caught.value.hint)
    check(tmp_path, files, "1.3.4.dev1")


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"pyproject.toml": "not [ TOML", "setup.cfg": "no ini", "PKG-INFO": "Name: x\n"},
        {"pyproject.toml": '[project]\nversion = "1.4"\n'},
        {"PKG-INFO": "Version: 1.4.0+local\n", "pyproject.toml": '[project]\nversion = "1"\n'},
        # What a tool fills in when it builds.
        {"pyproject.toml": SCM, "pw_demo/__init__.py": "__version__ = '1.3'\n"},
        {
            "pyproject.toml": '[project]\nversion = "0.0.0"\n',
            "setup.cfg": "[metadata]\nversion=2\n",
        },
        {"setup.cfg": "[metadata]\nversion = attr: pw_demo.version\n"},
        {"meson.build": "project('x', version: run_command('v.py').stdout())"},
    ],
)
def test_a_tree_of_this_version_or_of_none_that_is_sure_passes(
    tmp_path: Path, files: dict[str, str]
) -> None:
    check(tmp_path, files)
