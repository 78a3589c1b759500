"""An upgrade that a scheduled job prepares, and a person decides on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from patchwheel.kit import BuildError, Progress, Store
from patchwheel.project import Project
from patchwheel.upstream import offering
from tests.fixtures import support
from tests.fixtures.projects import Site, lines, make_site

OTHER = "2.0"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """2.0 has the patch of a, conflicts with that of b, moves one of c, and leaves one of d."""
    folder = tmp_path_factory.mktemp("propose")
    other = {"a": lines(l30="ours"), "b": lines(l10="theirs"), "c": b"new\n" + lines(l28="theirs")}
    site = make_site(folder, {OTHER: {**other, "d": lines()}})
    site.run("lock")
    return site


@pytest.fixture
def site(template: Site, tmp_path: Path) -> Site:
    """A project in a folder of a repository, with two more patches."""
    support.git(tmp_path, "init", "-q", "-b", "main")
    return template.at(tmp_path / "project")


def commit(site: Site, name: str, content: bytes, subject: str, *trailers: str) -> None:
    support.write(site.work, {name: content})
    site.git("add", name)
    body = "\n".join(["Upstream-Status: Pending", *trailers])
    site.git("commit", "-q", "-m", subject, "-m", body)


def committed(site: Site) -> None:
    support.write(site.root, {".gitignore": "work/\n"})
    support.git(site.root, "add", "-A")
    support.git(site.root, "commit", "-q", "-m", "Begin")


def test_what_became_of_each_patch_is_on_a_branch_with_its_description(site: Site) -> None:
    site.run("dev", "demo")
    commit(site, "new", b"1\n", "ENH: new")
    commit(site, "b2", b"1\n", "ENH: b2", "Requires: demo/0020-b")
    site.run("export", "demo")
    committed(site)
    before, head = site.state(), support.git(site.root, "rev-parse", "HEAD")
    made = json.loads(site.run("propose", "demo", "--json"))
    # Nothing but the branch is new, and it is what the rebase would have made.
    assert site.state() == before
    assert support.git(site.root, "status", "--porcelain") == ""
    assert support.git(site.root, "rev-parse", "HEAD") == head
    branch = made["branch"]
    assert branch == "patchwheel/demo"
    assert made["title"] == "demo 1.0 to 2.0, 2 of 4 patches stopped"
    shown = support.git(site.root, "log", "-1", "--format=%P|%B", branch)
    assert shown == f"{head}|{made['title']}\n\n{made['text']}".rstrip()
    files = support.git(site.root, "ls-tree", "-r", "--name-only", branch, "patches").split()
    assert files == [
        "patches/demo/0030-enh-new.patch",
        "patches/demo/series",
        "patches/demo/stopped/0020-b.patch",
        "patches/demo/stopped/0040-enh-b2.patch",
    ]
    for old in ("0020-b.patch", "0040-enh-b2.patch"):
        data = support.git_bytes(site.root, "show", f"{branch}:project/patches/demo/stopped/{old}")
        assert data == (site.patches / old).read_bytes()
    groups = {part.split("\n")[0]: part for part in made["text"].split("\n### ")[1:]}
    stopped, landed, kept = groups.values()
    assert "* `0020-b.patch`: conflict" in stopped
    assert "* `0040-enh-b2.patch`: it requires 0020-b.patch" in stopped
    assert "* `0010-a.patch`: landed" in landed
    assert "* `0030-enh-new.patch`: clean" in kept
    assert "patchwheel import demo patches/demo/stopped/0020-b.patch" in made["text"]
    # The second time it is the same commit; the branch is a project that works.
    support.git(site.root, "remote", "add", "mine", "https://example.org/mine")
    done = replace(site, root=site.work).done("propose", "demo", "--onto", OTHER, "--json")
    assert json.loads(done.stdout) == made
    assert f"next: `git -C {site.root} push --force mine {branch}`" in done.stderr
    support.git(site.root, "checkout", "-q", branch)
    [told] = json.loads(site.run("status", "--offline", "--json"))
    assert (told["version"], told["ok"], len(told["patches"])) == (OTHER, True, 1)
    assert "no newer release than 2.0" in site.tried("propose", "demo")[1]
    support.git(site.root, "checkout", "-q", "main")
    # Somebody went on there.
    support.git(site.root, "branch", "-f", branch, "main")
    said = site.run("propose", "demo", status=2)
    assert "has a commit of C O Mitter's" in said
    rename = said.partition("rename it first: git ")[2].split()
    support.git(site.root.parent.parent, *rename)
    assert support.git(site.root, "branch", "--list", "OTHER") != ""


def test_a_project_without_a_commit_has_no_branch(site: Site) -> None:
    said = site.run("propose", "demo", status=2)
    assert "a branch needs a git repository with a commit" in said
    status, said = site.tried("propose", "demo", "--onto", "3.0")
    assert status in {2, 4}


def test_a_pin_that_cannot_be_locked_is_told_by_the_projects_files(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(copy: Project, *_: object) -> None:
        raise BuildError("it cannot be configured", where=copy.root / "forks.lock", hint="no")

    site.run("dev", "demo")
    committed(site)
    monkeypatch.setattr(offering, "start_rebase", fail)
    for name, value in site.index.items():
        monkeypatch.setenv(name, value)
    project = Project(site.root / "forks.toml", Store(site.store), Progress())
    with pytest.raises(BuildError) as caught:
        offering.propose_upgrade(project, project.manifest.forks["demo"], OTHER)
    assert caught.value.where == str(site.root / "forks.lock")
    assert "`patchwheel rebase demo --onto 2.0` ends in the same error" in str(caught.value.hint)


def test_what_git_merges_is_written_anew(site: Site) -> None:
    (site.patches / "0020-b.patch").unlink()
    (site.patches / "series").write_text("0010-a.patch\n")
    site.run("dev", "demo")
    committed(site)
    text = site.run("propose", "demo")
    assert text.startswith("demo 1.0 to 2.0\n\nWhat `patchwheel rebase demo --onto 2.0` makes")
