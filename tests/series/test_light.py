"""What the work on a series does not need, and what CI makes of it."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures import support
from tests.fixtures.projects import Site, lines, make_site

OTHER = "2.0"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A project that was never locked; 2.0 has the first patch, and stops the second."""
    folder = tmp_path_factory.mktemp("light")
    return make_site(folder, {OTHER: {"a": lines(l30="ours"), "b": lines(l10="theirs")}})


@pytest.fixture
def site(template: Site, tmp_path: Path) -> Site:
    return template.at(tmp_path / "project")


def test_no_lock_and_no_interpreter_of_the_fork_is_needed(site: Site) -> None:
    path = site.root / "forks.toml"
    path.write_text(path.read_text().replace('python = ["3.', 'python = ["3.9', 1))
    assert 'python = ["3.9' in path.read_text()
    [told] = json.loads(site.run("status", "--json"))
    assert (told["ok"], told["commit_verified"]) == (True, False)
    [at] = json.loads(site.run("status", "--against", OTHER, "--json"))["demo"]
    assert [p["state"] for p in at["patches"]] == ["landed", "conflict"]
    done = site.done("rebase", "demo", "--onto", OTHER, "--dry-run", "--json")
    merged = json.loads(done.stdout)
    assert [p["state"] for p in merged] == ["landed", "conflict"]
    assert done.returncode == 3
    site.run("dev", "demo")
    (site.work / "b").write_bytes(lines(l10="ours", l50="more"))
    site.git("commit", "-q", "-a", "--amend", "--no-edit")
    site.run("export", "demo")
    assert "+more" in (site.patches / "0020-b.patch").read_text()
    # What is built is locked.
    told = (
        f"error: {site.root}/forks.lock: there is no lock\n  next: run `patchwheel lock`, review "
    )
    one = "test demo|rebase demo --onto 2.0|verify demo --from-source|verify demo --rebuild"
    for line in f"plan|build|build --release|build -n|env|env --check|ci --matrix|{one}".split("|"):
        assert told in site.run(*line.split(), status=2), line


def test_a_lock_that_is_there_still_holds_the_pin(site: Site) -> None:
    site.run("lock")
    said = site.run("lock", "--diff", status=2)
    assert "cannot be compared with that of the last commit: " in said
    assert said.endswith("  next: commit it together with forks.inventory first\n")
    path = site.root / "forks.lock"
    data = json.loads(path.read_text())
    [entry] = data["forks"].values()
    entry["tree"] = "0" * 40
    path.write_text(json.dumps(data))
    for words in (("status",), ("dev", "demo"), ("export", "demo", "--check")):
        assert "not the locked 0000000" in site.run(*words, status=2)


def test_an_empty_series_works_with_every_command(site: Site) -> None:
    for old in site.patches.glob("*.patch"):
        old.unlink()
    (site.patches / "series").write_text("")
    assert json.loads(site.run("status", "--json"))[0]["ok"]
    [at] = json.loads(site.run("status", "--against", OTHER, "--json"))["demo"]
    assert (at["commits"], at["patches"]) == (0, [])
    page = site.root / "page.html"
    site.run("status", "--against", OTHER, "--html", str(page))
    assert "no patches" in page.read_text()
    assert json.loads(site.run("rebase", "demo", "--onto", OTHER, "--dry-run", "--json")) == []
    assert "no patches yet; edit and commit, then " in site.done("dev", "demo").stderr
    said = site.run("export", "demo", "--check")
    assert said == "demo: there is no commit to export, and no patch\n"
    assert "`patchwheel dev demo`, commit, `export`" in site.run("submit", "demo", "x", status=3)
    (site.work / "b").write_bytes(lines(l10="ours"))
    site.git("commit", "-q", "-a", "-m", "B", "-m", "Upstream-Status: Pending")
    site.run("export", "demo")
    assert (site.patches / "series").read_text() == "0010-b.patch\n"


def test_an_empty_series_meets_no_commit_of_upstreams(site: Site, tmp_path: Path) -> None:
    upstream = tmp_path / "upstream"
    support.make_upstream(upstream, {"a": lines()}, tag="v1.0")
    support.make_upstream(upstream, {"a": lines(l1="x")})
    path = site.root / "forks.toml"
    path.write_text(path.read_text() + f'git = "file://{upstream}"\ntag = "v1.0"\n')
    for old in site.patches.glob("*.patch"):
        old.unlink()
    (site.patches / "series").write_text("# none yet\n")
    [at] = json.loads(site.run("status", "--against", "main", "--json"))["demo"]
    assert (at["commits"], at["patches"]) == (0, [])
    # A name that is none is told with those that are like it.
    for words in (
        ("status", "--against", "mian"),
        ("rebase", "demo", "--onto", "mian", "--dry-run"),
        ("rebase", "demo", "--onto", "mian"),
    ):
        said = site.run(*words, status=4)
        assert "upstream has no branch, tag or commit mian" in said
        assert "did you mean main?" in said
    assert "did you mean v1.0?" in site.run("status", "--against", "v1.0x", status=4)


@pytest.mark.parametrize("names", ["0010-a.patch\n0020-b.patch\n", "0020-b.patch\n0010-a.patch\n"])
def test_the_command_that_drops_what_landed_is_told(
    site: Site, names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.patches / "series").write_text(names)
    # From a folder below the project.
    done = replace(site, root=site.patches).done("status", "demo", "--against", OTHER)
    said = done.stderr
    dev, git, export = said.partition("drop it: `")[2].partition("`")[0].split(" && ")
    monkeypatch.setenv("GIT_EDITOR", "true")
    site.run(*dev.split()[1:])
    support.git(site.patches, *git.split()[1:])
    site.run(*export.split()[1:])
    assert not (site.patches / "0010-a.patch").exists()
    assert (site.patches / "series").read_text() == "0020-b.patch\n"


def second_fork(site: Site) -> None:
    path = site.root / "forks.toml"
    other = path.read_text().partition("[forks.demo]")[2]
    path.write_text(path.read_text() + "\n[forks.other]" + other)
    shutil.copytree(site.patches, site.root / "patches" / "other")


def test_of_several_landed_patches_each_command_drops_its_own(site: Site) -> None:
    """Of two forks, whose patches have the same names, from one repository."""
    upstream = site.root.parent / "upstream"
    support.make_upstream(upstream, {"a": lines(), "b": lines()}, tag="v1.0")
    support.make_upstream(upstream, {"a": lines(l30="ours")}, tag="half")
    support.make_upstream(upstream, {"b": lines(l10="ours")})
    path = site.root / "forks.toml"
    path.write_text(path.read_text() + f'git = "file://{upstream}"\ntag = "v1.0"\n')
    second_fork(site)
    (site.patches / "series").write_text("0020-b.patch\n0010-a.patch\n")
    said = site.done("status", "--against", "half", "--against", "main").stderr
    told = re.findall("is for, drop it: `(.+)`", said)
    assert [line.split(" && ")[2].split()[2] for line in told] == ["demo", "demo", "other", "other"]
    for line, left in zip(told, ("0010-a.patch\n", ""), strict=False):
        dev, git, export = line.split(" && ")
        site.run(*dev.split()[1:])
        support.git(site.root, *git.split()[1:])
        site.run(*export.split()[1:])
        assert (site.patches / "series").read_text() == left


@pytest.mark.parametrize("words", [(), ("--against", OTHER)])
def test_the_failure_of_each_fork_is_told_and_the_others_go_on(
    site: Site, words: tuple[str, ...]
) -> None:
    second_fork(site)
    broken = site.root / "patches" / "other" / "0010-a.patch"
    broken.write_bytes(b"nonsense\n")
    (site.root / "patches" / "other" / "series").write_text("0010-a.patch\nnone.patch\n")
    done = site.done("status", *words, "--json")
    out, said = done.stdout, done.stderr
    assert done.returncode == 3
    assert "error: other: " in said
    assert "there is no patch none.patch" in said
    found = json.loads(out)
    assert [*found] == ["demo"] if words else [f["fork"] for f in found] == ["demo"]
    assert said.rstrip().endswith("next: the reasons are above")


@pytest.mark.parametrize(
    ("states", "code", "said"),
    [
        ("conflict", 3, "demo/0020-b.patch is conflict at 2.0"),
        ("landed", 6, "demo/0010-a.patch is landed at 2.0"),
        ("conflict,landed", 3, "demo/0010-a.patch is landed at 2.0; demo/0020-b.patch is"),
        ("reverted,unknown", 0, ""),
        ("conflicts", 2, "'conflicts' is not one of conflict, landed, reverted, unknown"),
    ],
)
def test_ci_can_fail_on_what_it_names(site: Site, states: str, code: int, said: str) -> None:
    done = site.done("status", "--against", OTHER, "--json", "--fail-on", states)
    out, err = done.stdout, done.stderr
    assert (done.returncode, said in err) == (code, True)
    if code != 2:
        [at] = json.loads(out)["demo"]
        reasons = [patch["reason"] for patch in at["patches"]]
        assert reasons == ["lines-are-there", "does-not-apply"]
    assert "need --against" in site.run("status", "--fail-on", "conflict", status=2)
    # With --changes, only what is new counts.
    words = ("status", "--against", OTHER, "--changes")
    site.run(*words)
    if code in {3, 6}:
        site.run(*words, "--fail-on", states)
