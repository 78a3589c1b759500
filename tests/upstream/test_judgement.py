"""The forecast, the dry run of a rebase and the rebase itself say the same of a patch."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fixtures import support
from tests.fixtures.projects import PYPROJECT, Site, lines, make_site, own_files

ONTO = ("rebase", "demo", "--onto", "main")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A project at v1.0 of a repository beside it; 2.0 has what main of the tests begins with."""
    folder = tmp_path_factory.mktemp("judged")
    releases = {"2.0": {"a": lines(l30="ours, later"), "b": lines(l8="theirs", l10="theirs")}}
    site = make_site(folder, releases)
    text = PYPROJECT.format("1.0").encode()
    upstream = folder / "upstream"
    support.make_upstream(
        upstream, {"a": lines(), "b": lines(), "pyproject.toml": text}, tag="v1.0"
    )
    path = site.root / "forks.toml"
    path.write_text(path.read_text() + f'git = "file://{upstream}"\ntag = "v1.0"\n')
    site.run("lock")
    return site


@pytest.fixture
def site(template: Site, tmp_path: Path) -> Site:
    """A copy whose upstream is a copy too."""
    made = template.at(tmp_path / "project")
    old, new = template.root.parent / "upstream", tmp_path / "upstream"
    support.git(tmp_path, "clone", "-q", str(old), str(new))
    support.git(new, "remote", "remove", "origin")
    path = made.root / "forks.toml"
    path.write_text(path.read_text().replace(str(old), str(new)))
    return made


def commit(site: Site, subject: str, files: Mapping[str, str | bytes], tag: str = "") -> str:
    upstream = site.root.parent / "upstream"
    support.make_upstream(upstream, files)
    support.git(upstream, "commit", "-q", "--amend", "-m", subject)
    if tag:
        support.git(upstream, "tag", tag)
    return support.git(upstream, "rev-parse", "HEAD")


def status(site: Site, ref: str = "main") -> list[dict[str, object]]:
    [told] = json.loads(site.run("status", "demo", "--against", ref, "--json"))["demo"]
    patches: list[dict[str, object]] = told["patches"]
    return patches


def previewed(site: Site) -> list[dict[str, object]]:
    done = site.done(*ONTO, "--dry-run", "--json")
    patches: list[dict[str, object]] = json.loads(done.stdout)
    return patches


def test_what_landed_and_changed_later_has_landed_everywhere(site: Site) -> None:
    """A merge finds conflicts in it, since upstream has its lines in another form by now."""
    took = commit(site, "Take it (#5)", {"a": lines(l30="ours")}, "v1.1rc1")
    commit(site, "Reword", {"a": lines(l30="ours, later")}, "v1.1")
    commit(site, "Prepare", own_files(site.root.parent / "own", "2.1.dev0"))
    first, second = status(site)
    assert (first["state"], second["state"]) == ("landed", "clean")
    assert first["release"] == "v1.1"
    merged = previewed(site)
    assert [p["state"] for p in merged] == ["landed", "clean"]
    assert merged[0]["verdict"] == first
    assert merged[0]["conflicts"]
    said = site.run(*ONTO, status=3)
    assert "'A' conflicts in a" in said
    assert f"landed since {took[:12]}" in said
    assert "Take it (#5) (first in v1.1)" in said
    assert "`patchwheel rebase demo --skip` drops it" in said
    site.run("rebase", "demo", "--skip")
    assert not (site.patches / "0010-a.patch").exists()


def test_the_commit_that_stops_it_is_shown_with_its_hunk(site: Site) -> None:
    """Not the lines as they are at the ref: a later commit changed them once more."""
    stopped = commit(site, "Rework", {"a": lines(l30="theirs")})
    commit(site, "Again", {"a": lines(l29="x", l30="more of theirs", l31="y")})
    commit(site, "Prepare", own_files(site.root.parent / "own", "2.1.dev0"))
    first, _ = status(site)
    assert first["state"] == "conflict"
    found = first["commit"]
    assert isinstance(found, dict)
    assert found["oid"] == stopped
    assert first["release"] is None
    assert "hunk 1 does not match a" in str(first["problem"])
    hunks = first["hunks"]
    assert isinstance(hunks, list)
    assert "+ours" in hunks[0]
    assert "+theirs" in hunks[1]
    assert "more of theirs" not in hunks[1]
    assert previewed(site)[0]["verdict"] == first
    said = site.run(*ONTO, status=3)
    assert f"conflict since {stopped[:12]}" in said
    assert "(in no release yet)" in said
    assert "    +theirs\n" in said
    # git's own commands would not move the pin.
    for command in ("export", "dev"):
        said = site.run(command, "demo", status=3)
        assert "a rebase of demo is going on\n  next: `patchwheel rebase demo --continue`" in said
    site.run("rebase", "demo", "--abort")
    site.run("dev", "demo")


def test_what_git_merges_is_no_conflict_for_any(site: Site) -> None:
    """By history, and by the files of a release."""
    stopped = commit(site, "Beside it", {"b": lines(l8="theirs")})
    _, second = status(site)
    found = second["commit"]
    assert isinstance(found, dict)
    assert (second["state"], found["oid"]) == ("merged", stopped)
    assert [p["state"] for p in previewed(site)] == ["clean", "merged"]
    path = site.root / "forks.toml"
    path.write_text(path.read_text().partition("git = ")[0])
    assert [p["state"] for p in status(site, "2.0")] == ["conflict", "conflict"]


@pytest.fixture
def modules(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A patch of a file in a submodule, of which upstream's main has another commit."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.file.allow")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "always")
    folder = site.root.parent
    upstream = folder / "upstream"
    for name in ("lib", "other"):
        # Of this test alone, since the store is shared: it must have neither of the two.
        text = lines(l60=f"{name} of {folder}")
        support.make_upstream(folder / name, {"lib.c": text})
        words = ("submodule", "add", "-q", f"../{name}", f"extern/{name}")
        support.git(upstream, *words)
    pin = commit(site, "With submodules", own_files(folder / "own", "1.0"))
    text = (folder / "lib" / "lib.c").read_bytes()
    support.make_upstream(folder / "lib", {"lib.c": text.replace(b"line 35\n", b"theirs\n")})
    support.git(upstream / "extern" / "lib", "pull", "-q", "origin", "main")
    commit(site, "Update", own_files(folder / "own", "2.1.dev0"))
    flat = folder / "flat"
    support.make_upstream(flat, {"extern/lib/lib.c": lines()})
    body = "Upstream-Status: Pending\n"
    data = support.make_patch(flat, {"extern/lib/lib.c": lines(l5="ours")}, body=body)
    for old in site.patches.glob("*.patch"):
        old.unlink()
    (site.patches / "0010-lib.patch").write_bytes(data)
    (site.patches / "series").write_text("0010-lib.patch\n")
    path = site.root / "forks.toml"
    head = path.read_text().partition("sdist = ")[0]
    path.write_text(f'{head}git = "file://{upstream}"\ncommit = "{pin}"\n')
    return site


def test_files_of_a_submodule_are_merged_as_the_rebase_does(modules: Site) -> None:
    modules.run("lock")
    [told] = status(modules)
    [merged] = previewed(modules)
    assert told["state"] == merged["state"] == "clean"
    modules.run(*ONTO)
    assert "theirs" in (modules.work / "extern/lib/lib.c").read_text()


def test_a_submodule_that_the_series_does_not_touch_is_not_needed(modules: Site) -> None:
    """Nor a lock: the series is worked on, and only a build asks for both."""
    other = modules.root.parent / "other"
    other.rename(other.with_name("away"))
    [told] = json.loads(modules.run("status", "demo", "--json"))
    assert told["ok"]
    assert [p["state"] for p in status(modules)] == ["clean"]
    assert [p["state"] for p in previewed(modules)] == ["clean"]
    modules.run("dev", "demo")
    path = modules.work / "extern/lib/lib.c"
    assert b"ours\n" in path.read_bytes()
    assert not (modules.work / "extern/other/lib.c").exists()
    path.write_bytes(path.read_bytes().replace(b"line 50\n", b"more\n"))
    modules.git("commit", "-q", "-a", "--amend", "--no-edit")
    modules.run("export", "demo")
    assert b"+more\n" in (modules.patches / "0010-lib.patch").read_bytes()
    text = "--- /dev/null\n+++ b/{}/new\n@@ -0,0 +1 @@\n+new\n"
    for name, folder in (("plain", "src"), ("within", "extern/other")):
        support.write(modules.root, {f"{name}.patch": text.format(folder)})
    modules.run("import", "demo", f"{modules.root}/plain.patch")
    said = modules.run("import", "demo", f"{modules.root}/within.patch", status=4)
    assert f"git cannot fetch from file://{other}" in said
    assert (modules.patches / "series").read_text() == "0010-lib.patch\n0020-plain.patch\n"
    # The work tree stays usable when it can be reached again, and the next one has all files.
    other.with_name("away").rename(other)
    modules.run("export", "demo", "--check")
    modules.work.rename(modules.work.with_name("old"))
    modules.run("dev", "demo")
    assert (modules.work / "extern/other/lib.c").exists()


def test_a_submodule_that_the_series_touches_is_needed(modules: Site) -> None:
    lib = modules.root.parent / "lib"
    lib.rename(lib.with_name("away"))
    assert "git cannot fetch from" in modules.run("dev", "demo", status=4)
    [told] = status(modules)
    assert (told["state"], told["reason"]) == ("unknown", "in-a-submodule")
    said = modules.run("status", "--against", "main", "--fail-on", "unknown", status=6)
    assert "demo/0010-lib.patch is unknown at main" in said
