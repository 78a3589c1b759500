"""What cannot be reached is asked for once in a command, whatever steps need it."""

import shutil
from pathlib import Path

import pytest

from tests.fixtures import support
from tests.fixtures.projects import Site, lines, own_files, release

AWAY = "ssh://example.invalid/away"
MODULES = f'[submodule "vendored"]\n\tpath = vendored\n\turl = {AWAY}\n'
RELEASE = "1.5"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make git's ssh note that it was asked, and fail."""
    log, ssh = tmp_path / "asked", tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$*" >> {log}\nexit 255\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file:ssh")
    return log


@pytest.fixture
def site(locked_site: Site, tmp_path: Path) -> Site:
    """A project in a repository, whose index has another release."""
    site = locked_site.apart(tmp_path)
    files = [path for path in site.shelf.iterdir() if path.is_file()]
    new = release(tmp_path, RELEASE, {"a": b"new\n" + lines(), "b": lines()})
    support.make_index(site.shelf / "simple", *files, new)
    support.git(site.root, "init", "-q")
    support.git(site.root, "add", "-A")
    support.git(site.root, "commit", "-qm", "1.0")
    return site


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (f"status demo --against {RELEASE} --against main", 4),
        (f"rebase demo --onto {RELEASE}", 0),
        (f"propose demo --onto {RELEASE}", 0),
        ("submit demo 0010-a", 4),
    ],
)
def test_upstream_is_asked_once(site: Site, asked: Path, line: str, status: int) -> None:
    path = site.root / "forks.toml"
    path.write_text(f'{path.read_text()}git = "{AWAY}"\ntag = "v1.0"\n')
    if line.startswith(("rebase", "propose")):
        site.run("lock")
        asked.unlink()
    done = site.done(*line.split())
    assert done.returncode == status, done.stderr
    assert asked.read_text().count("\n") == 1
    assert done.stderr.count("fetching upstream's history") == 1


def test_of_two_forks_from_one_address_each_is_told(site: Site, asked: Path) -> None:
    path = site.root / "forks.toml"
    text = f'{path.read_text()}git = "{AWAY}"\ntag = "v1.0"\n'
    path.write_text(text + "[forks.other]" + text.partition("[forks.demo]")[2])
    shutil.copytree(site.patches, site.root / "patches/other")
    (site.root / "forks.lock").unlink()
    done = site.done("status", "--against", "main")
    assert done.returncode == 4, done.stderr
    for fork in ("demo", "other"):
        assert f"\n{fork}: git cannot fetch from {AWAY}: " in done.stderr
    assert asked.read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("status demo", 0),
        ("dev demo", 0),
        ("export demo", 0),
        ("rebase demo --onto main --dry-run", 0),
        ("lock", 4),
    ],
)
def test_a_submodule_is_asked_for_once(site: Site, asked: Path, line: str, status: int) -> None:
    upstream = site.root.parent / "upstream"
    files = {**own_files(site.root.parent / "own", "1.0"), "a": lines(), "b": lines()}
    support.make_upstream(upstream, {**files, ".gitmodules": MODULES.encode()})
    support.git(upstream, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},vendored")
    support.git(upstream, "commit", "-qm", "Vendor it")
    pin = support.git(upstream, "rev-parse", "HEAD")
    support.make_upstream(upstream, {"a": b"new\n" + lines()})
    path = site.root / "forks.toml"
    head = path.read_text().partition("sdist = ")[0]
    path.write_text(f'{head}git = "file://{upstream}"\ncommit = "{pin}"\n')
    (site.root / "forks.lock").unlink()
    if line.startswith("export"):
        site.run("dev", "demo")
        asked.unlink()
    done = site.done(*line.split())
    assert done.returncode == status, done.stderr
    assert asked.read_text().count("\n") == 1
    assert done.stderr.count(f"from {AWAY}") == (1 if status == 0 else 2), done.stderr
