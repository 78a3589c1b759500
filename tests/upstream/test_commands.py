"""A maintainer's day: a second set of pins, an unreleased branch, a patch that others need."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures import support
from tests.fixtures.projects import PYPROJECT, Site, lines, make_site, own_files

TAKEN, SHIFTED, MERGED = "0.5", "1.5", "2.0"
TRACKED = ("forks.toml", "forks.lock", "forks.inventory", "patches")
NEXT = ("--manifest", "forks-next.toml")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Two patches on 1.0: they apply to 1.5, 2.0 merges with one of them, 0.5 conflicts with it."""
    releases = {
        SHIFTED: {"a": b"new\n" + lines(), "b": lines()},
        MERGED: {"a": lines(l28="theirs"), "b": lines()},
        TAKEN: {"a": lines(l30="theirs"), "b": lines()},
    }
    found = make_site(tmp_path_factory.mktemp("upkeep"), releases)
    found.run("lock")
    return found


@pytest.fixture
def site(template: Site, tmp_path: Path) -> Site:
    return template.at(tmp_path / "project")


def pinned(site: Site, version: str) -> str:
    """Return the manifest's text with the pin at another release."""
    old, new = (support.sha256(site.shelf / f"demo-{v}.tar.gz") for v in ("1.0", version))
    text = (site.root / "forks.toml").read_text()
    return text.replace("1.0", version).replace(old, new)


def test_a_second_manifest_shares_the_patches_and_works_with_every_command(site: Site) -> None:
    (site.root / "forks-next.toml").write_text(pinned(site, SHIFTED))
    before = site.state()
    site.run("lock", *NEXT)
    assert (site.root / "forks-next.lock").exists()
    [told] = json.loads(site.run("status", "--json", "--offline", *NEXT))
    assert (told["version"], told["ok"]) == (SHIFTED, True)
    assert [p["state"] for p in told["patches"]] == ["offset", "clean"]
    words = ("status", "demo", "--against", MERGED, "--json", *NEXT)
    [ref] = json.loads(site.run(*words))["demo"]
    assert [p["state"] for p in ref["patches"]] == ["merged", "clean"]
    [plan] = json.loads(site.run("plan", "--json", *NEXT))
    assert plan["version"].startswith(f"{SHIFTED}+arrayapi")
    [wheel] = json.loads(site.run("build", "--json", *NEXT))
    assert f"/demo-{SHIFTED}+arrayapi" in wheel["path"]
    [read] = json.loads(site.run("verify", wheel["path"], "--json"))["wheels"]
    assert read["sha256"] == wheel["sha256"]
    made = json.loads(site.run("env", "--check", "--json", *NEXT))
    assert made["wheels"]["demo"].startswith(SHIFTED)
    site.run("doctor", "--json", *NEXT)
    site.run("dev", "demo", *NEXT)
    assert site.git("show", "HEAD:a").startswith("new\n")
    site.run("export", "demo", "--check", *NEXT)
    site.run("export", "demo", "--json", *NEXT)
    onto = ("rebase", "demo", "--onto", MERGED, *NEXT)
    merged = json.loads(site.run(*onto, "--dry-run", "--json"))
    assert [p["state"] for p in merged] == ["merged", "clean"]
    # The first manifest, its lock and the patches are as they were.
    assert site.state() == before
    site.run("dev", "demo")
    assert not site.git("show", "HEAD:a").startswith("new\n")
    # Only a rebase changes patches: `status` tells which of them the other pin still takes.
    site.run(*onto)
    assert f'version = "{MERGED}"' in (site.root / "forks-next.toml").read_text()
    assert 'version = "1.0"' in (site.root / "forks.toml").read_text()
    site.run("export", "demo", "--check", *NEXT)
    assert "does not apply: demo" in site.run("status", "--offline", status=3)


def test_commands_that_are_offered_are_of_the_same_manifest(site: Site) -> None:
    (site.root / "forks.toml").rename(site.root / "other one.toml")
    (site.root / "forks.lock").rename(site.root / "other one.lock")
    (site.root / "forks.inventory").rename(site.root / "other one.inventory")
    given = ("--manifest", "other one.toml")
    said = [site.done(*words, *given) for words in (["dev", "demo"], ["build"], ["add", "demo"])]
    site.git("commit", "-q", "--allow-empty", "--amend", "-m", "No trailer")
    said += [site.done(*words, *given) for words in (["export", "demo"], ["lock"])]
    support.write(site.work, {"a": lines(l30="ours", l50="ours")})
    said += [site.done("status", "--against", TAKEN, *given), site.done("plan", *given)]
    offered = [f"patchwheel{c}" for d in said for c in re.findall("patchwheel( [a-z]+)", d.stderr)]
    assert {"patchwheel test", "patchwheel export", "patchwheel env"} < {*offered}
    for done in said:
        assert done.stderr.count(" --manifest 'other one.toml'") == len(
            re.findall("patchwheel [a-z]+", done.stderr)
        ), done.stderr
    once = "demo: 1 edited file is not in the series yet: commit, then `patchwheel export"
    assert [once in done.stderr for done in (said[-1], site.done("build", "--dev", *given))] == [
        1,
        0,
    ]
    # Where it is found without the option, nothing is to be repeated.
    found = site.done("dev", "demo", PATCHWHEEL_MANIFEST="other one.toml")
    assert "`patchwheel test demo --dev`" in found.stderr


def upstream(folder: Path) -> str:
    """Make upstream: the pin as v1.0, and a main with another file in the place of a moved one."""
    text = PYPROJECT.format("1.0").encode()
    first = {"a": lines(), "b": lines(), "pyproject.toml": text}
    support.make_upstream(folder, first, tag="v1.0")
    facade = b"from new.a import *\n"
    made = {"new/a": b"new\n" + lines(), "a": facade, "b": lines(l8="theirs")}
    return support.make_upstream(folder, {**made, **own_files(folder, "2.1.dev0")})


def test_a_series_is_rebased_onto_a_branch_that_was_never_released(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = upstream(tmp_path / "upstream")
    path = site.root / "forks.toml"
    table = f'git = "file://{tmp_path / "upstream"}"\ntag = "v1.0"\n'
    path.write_text(path.read_text() + table)
    site.run("lock")
    words = ("rebase", "demo", "--onto", "main")
    merged = json.loads(site.run(*words, "--dry-run", "--json"))
    assert [p["state"] for p in merged] == ["merged", "merged"]
    assert merged[0]["moved"] == [["a", "new/a"]]
    done = site.done(*words)
    out, said = done.stdout, done.stderr
    assert done.returncode == 0, said
    assert "a is now new/a" in said
    assert said.count("fetching upstream's history") == 1
    assert "1:  " in out
    text = path.read_text()
    assert 'version = "2.1.dev0"' in text
    assert f'commit = "{commit}"' in text
    assert "sdist" not in text
    assert "tag" not in text
    assert "\n+++ b/new/a\n" in (site.patches / "0010-a.patch").read_text()
    assert site.git("show", "HEAD:a") == "from new.a import *"
    assert site.git("show", "HEAD:new/a").splitlines()[30] == "ours"
    # What comes next is said, and its message is there.
    support.git(site.root, "init", "-q")
    monkeypatch.setenv("GIT_EDITOR", "true")
    assert committed(site, said).startswith("demo 2.1.dev0:\n\n1:  ")
    site.run("export", "demo", "--check")


def committed(site: Site, said: str, folder: Path | None = None) -> str:
    """Run the commands that are offered at the end, and return the message of the commit."""
    offered = said.rpartition("then `")[2].rpartition("`")[0]
    assert " add forks.toml forks.lock forks.inventory patches/demo && git " in offered
    for command in offered.split(" && "):
        support.git(folder or site.root, *command.split()[1:])
    return support.git(site.root, "log", "-1", "--format=%B")


def test_the_message_of_a_rebase_is_there_when_all_patches_keep_their_bytes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_EDITOR", "true")
    before = {path.name: path.read_bytes() for path in site.patches.iterdir()}
    site.run("dev", "demo")
    keep(site.root)
    # From the work tree, where the message is not git's to commit.
    inside = replace(site, root=site.work)
    status, said = inside.tried("rebase", "demo", "--onto", SHIFTED)
    assert status == 0, said
    assert {path.name: path.read_bytes() for path in site.patches.iterdir()} == before
    assert committed(site, said, site.work).startswith(f"demo {SHIFTED}:\n\n1:  ")
    assert "demo" not in support.git(site.work, "log", "-1", "--format=%s")


def keep(root: Path) -> None:
    support.git(root, "init", "-q")
    support.git(root, "add", *TRACKED)
    support.git(root, "commit", "-q", "-m", "1.0")


def test_a_rebase_can_be_undone_after_its_end(site: Site) -> None:
    site.run("dev", "demo")
    keep(site.root)
    before, head = site.state(), site.git("rev-parse", "HEAD^{tree}")
    site.run("rebase", "demo", "--onto", TAKEN, status=3)
    # Another patch in place of the one that conflicts: its file is new to the project.
    support.write(site.work, {"a": lines(l30="theirs", l40="ours")})
    site.git("commit", "-qam", "Other", "-m", "Upstream-Status: Pending")
    inside = replace(site, root=site.work)
    status, said = inside.tried("rebase", "demo", "--continue")
    assert status == 0, said
    assert site.git("rev-parse", "HEAD^{tree}") != head
    *gits, dev = said.partition("undo: `")[2].partition("`")[0].split(" && ")
    assert dev == "patchwheel dev demo"
    for command in gits:
        support.git(site.work, *command.split()[1:])
    site.run(*dev.split()[1:])
    assert site.state() == before
    assert site.git("rev-parse", "HEAD^{tree}") == head


@pytest.mark.parametrize("place", ["nowhere", "no commit", "ignored", "edited"])
def test_no_undo_is_offered_where_git_has_nothing_to_put_back(
    site: Site, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "ignored":
        support.git(site.root.parent, "init", "-q")
        support.write(site.root.parent, {".gitignore": "project\n"})
    elif place == "no commit":
        support.git(site.root, "init", "-q")
    elif place == "edited":
        keep(site.root)
        with (site.root / "forks.toml").open("a") as manifest:
            manifest.write("# mine\n")
    status, said = site.tried("rebase", "demo", "--onto", SHIFTED)
    assert status == 0, said
    assert "undo: `" not in said
    assert "git cannot undo it: pin, lock and series were not committed as they were" in said
    # The next command works there, too.
    monkeypatch.setenv("GIT_EDITOR", "true")
    assert (" `git init && git add " in said) == (place in {"nowhere", "ignored"})
    assert committed(site, said).startswith(f"demo {SHIFTED}:\n\n1:  ")
    assert support.git(site.root, "rev-parse", "--show-toplevel") == str(site.root)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"pyproject.toml": "[project]\nname = 'demo'\n"}, "a package"),
        ({"pyproject.toml": "[project]\nversion = 'next'\n"}, "not next"),
        (
            {
                "pyproject.toml": "",
                "x/__init__.py": "__version__ = '1'\n",
                "y/_version.py": '__version__ = "2"\n',
            },
            "not 1, 2",
        ),
    ],
)
def test_a_commit_whose_version_nobody_can_tell_is_refused(
    site: Site, tmp_path: Path, files: dict[str, str], why: str
) -> None:
    upstream(tmp_path / "upstream")
    support.make_upstream(tmp_path / "upstream", files)
    path = site.root / "forks.toml"
    table = f'git = "file://{tmp_path / "upstream"}"\ntag = "v1.0"\n'
    path.write_text(path.read_text() + table)
    site.run("lock")
    said = site.run("rebase", "demo", "--onto", "main", status=4)
    assert "its files do not tell the version of" in said
    assert why in said


def test_a_patch_that_another_requires_cannot_be_dropped(site: Site) -> None:
    site.run("dev", "demo")
    body = "Upstream-Status: Pending\nRequires: demo/0010-a"
    site.git("commit", "-q", "--amend", "-m", "B", "-m", body)
    site.run("export", "demo")
    before = site.state()
    site.git("reset", "-q", "--hard", "HEAD~2")
    site.git("cherry-pick", "refs/patchwheel/exported")
    for words in (("export", "demo", "--check"), ("export", "demo")):
        said = site.run(*words, status=3)
        assert "Requires: demo/0010-a, and there is no such patch" in said
        assert site.state() == before


def test_a_ref_that_one_fork_lacks_is_no_reason_to_hide_the_others(site: Site) -> None:
    path = site.root / "forks.toml"
    other = path.read_text().partition("[forks.demo]")[2]
    path.write_text(path.read_text() + "\n[forks.other]" + other)
    shutil.copytree(site.patches, site.root / "patches" / "other")
    done = site.done("status", "--against", SHIFTED)
    out, said = done.stdout, done.stderr
    assert done.returncode == 4
    assert "demo/0010-a.patch" in out
    assert "not followed: other" in said
    site.run("status", "demo", "--against", SHIFTED)
    done = site.done("status", "demo", "--against", SHIFTED, "--changes")
    assert "no changes since the last run" in done.stderr


def test_what_cannot_be_reached_is_said_with_gits_reason_and_what_can_be_compared(
    site: Site,
) -> None:
    upstream = site.root.parent / "upstream"
    first: dict[str, str | bytes | None] = {**own_files(upstream.parent, "1.0")}
    support.make_upstream(upstream, {**first, "a": lines(), "b": lines()}, tag="v1.0")
    support.make_upstream(upstream, {"a": lines(l30="theirs")})
    path = site.root / "forks.toml"
    path.write_text(f'{path.read_text()}git = "file://{upstream}"\ntag = "v1.0"\n')
    words = ("status", "demo", "--against", "main", "--json")
    # As without a network: git refuses the only address.
    cut = "https"
    reason = f"git cannot fetch from file://{upstream}: fatal: transport 'file' not allowed"
    err = site.run(*words, status=4, GIT_ALLOW_PROTOCOL=cut)
    assert f"demo: {reason}; only releases can be compared" in err
    head = "demo: there is no release main, and upstream's branches and commits are out of reach"
    assert f"error: {head}: {reason}\n  expected: a release such as 1.0, {SHIFTED}, {MERGED}" in err
    assert "  next: check the address, the network" in err
    [released] = json.loads(
        site.run("status", "demo", "--against", MERGED, "--json", GIT_ALLOW_PROTOCOL=cut)
    )["demo"]
    assert [p["state"] for p in released["patches"]] == ["merged", "clean"]
    fresh = json.loads(site.run(*words))
    assert [p["state"] for p in fresh["demo"][0]["patches"]] == ["conflict", "clean"]
    done = site.done(*words, GIT_ALLOW_PROTOCOL=cut)
    out, err = done.stdout, done.stderr
    assert (done.returncode, json.loads(out)) == (0, fresh)
    assert f"{reason}; commits up to 20" in err
    assert ", which were fetched before, and releases can be compared" in err
    shutil.rmtree(upstream)
    assert "; only releases can be compared" in site.run(*words, status=4)
