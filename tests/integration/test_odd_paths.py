"""A project, a store and an index in folders with spaces, colons and letters beyond ASCII."""

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures import support
from tests.fixtures.projects import VERSION, make_project, make_site, sdist_table

PACKAGES = Path(__file__).parent.parent / "packages"


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "sandbox"),
    [('a b:c"d', "auto"), ("a b:c", "none"), ("\xfc\u03b2 #%41?", "none")],
)
def test_every_path_may_have_any_letters(tmp_path: Path, sandbox: str, name: str) -> None:
    folder = tmp_path / name
    site = make_site(folder, {})
    if ":" in name and sandbox == "none":
        # Lists of folders, such as PATH, end entries at a colon.
        error = site.run("lock", "--sandbox", sandbox, status=7)
        assert f"{site.store}: builds without bubblewrap see the path of the store" in error
        assert "PATCHWHEEL_STORE" in error
        site = replace(site, store=tmp_path / "store")
    site.run("lock", "--sandbox", sandbox)
    site.run("status")
    site.run("dev", "demo")
    (site.work / "a b:c\xfc.txt").write_text("new\n")
    site.git("add", "-A")
    body = "Add a file\n\nCarried for a test.\n\nUpstream-Status: Pending"
    site.git("commit", "-qm", body)
    site.run("export", "demo")
    wheel = site.build("demo", "--sandbox", sandbox)
    assert wheel.parent == site.root / "dist"
    assert wheel.exists()
    site.run("env", "--sandbox", sandbox)
    assert (site.root / ".venv-forks" / "bin" / "python").exists()


@pytest.mark.heavy
@pytest.mark.network
@pytest.mark.compiled
@pytest.mark.parametrize("fork", ["tinyext", "tinyset"])
def test_compilers_are_started_without_bubblewrap_in_a_folder_with_spaces(
    tmp_path: Path, fork: str
) -> None:
    package, shelf = PACKAGES / fork, tmp_path / "a shelf"
    files = {
        str(path.relative_to(package)): path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file()
    }
    table = sdist_table(support.make_sdist(shelf, fork, VERSION, files))
    store = tmp_path / "a store"
    project = make_project(tmp_path / "my own", table, {}, store, shelf, fork=fork)
    project.run("lock", "--sandbox", "none")
    wheel = project.build("--sandbox", "none")
    # Nothing in it names where it was made.
    with zipfile.ZipFile(wheel) as archive:
        assert not any(b"a store" in archive.read(name) for name in archive.namelist())
