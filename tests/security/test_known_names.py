"""P14: nothing but known names below our own roots is removed, renamed or replaced."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from patchwheel.environment.link import check_link
from patchwheel.kit.entry import CACHEDIR_TAG, stamp
from patchwheel.kit.errors import (
    InputError,
    MachineError,
    ManifestError,
    PatchError,
    disk_error,
)
from patchwheel.kit.files import digest, rmtree
from patchwheel.kit.store import Store
from patchwheel.manifest import transaction
from patchwheel.manifest.convert import save_json
from patchwheel.manifest.load import load_manifest
from patchwheel.manifest.lock import load_lock
from patchwheel.manifest.surveys import save_inventories
from patchwheel.release.publish import stage_release
from patchwheel.series.worktree import BASE, EXPORTED
from patchwheel.upstream.rebase import state as state_of
from patchwheel.upstream.rebase import state_path
from patchwheel.wheel.build import PUBLISHED
from tests.fixtures import support
from tests.fixtures.projects import Site


def content(root: Path) -> dict[str, str]:
    """Return the files below a folder, and where links lead."""
    return {
        str(p.relative_to(root)): str(p.readlink()) if p.is_symlink() else p.read_text()
        for p in root.rglob("*")
        if p.is_symlink() or p.is_file()
    }


PROJECT: dict[str, str | bytes | None] = {
    "user/thesis.txt": "years of work",
    "user/sub/more.txt": "more",
    "project/forks.toml": "old",
    "project/notes.txt": "notes",
    "project/patches/demo/series": "",
    "project/patches/other/series": "other",
    "project/.rebase-demo/forks.toml": "new",
    "project/.rebase-demo/notes.txt": "overwritten",
    "project/.rebase-demo/patches/demo/series": "",
}
JOURNALS: dict[str, object] = {
    "a fork above": {"fork": "../../user", "files": []},
    "an absolute fork": {"fork": "/etc", "files": []},
    "the folder itself": {"fork": ".", "files": []},
    "no fork": {"fork": "", "files": []},
    "a fork that is no text": {"fork": ["demo"], "files": []},
    "files above": {"fork": "demo", "files": ["../user/thesis.txt"]},
    "absolute files": {"fork": "demo", "files": ["/etc/passwd"]},
    "files of the user's": {"fork": "demo", "files": ["notes.txt"]},
    "folders": {"fork": "demo", "files": ["patches"]},
    "files that are no list": {"fork": "demo", "files": "forks.toml"},
    "files that are no names": {"fork": "demo", "files": [{}]},
    "no table": ["demo"],
}


@pytest.mark.parametrize("way", JOURNALS)
def test_a_journal_names_only_what_a_rebase_changes(tmp_path: Path, way: str) -> None:
    support.write(tmp_path, PROJECT)
    root = tmp_path / "project"
    (root / transaction.JOURNAL).write_text(json.dumps(JOURNALS[way]))
    before = content(tmp_path)
    with pytest.raises(ManifestError, match="cannot be followed") as caught:
        transaction.recover(root, "forks.toml")
    assert caught.value.where == root / transaction.JOURNAL
    assert content(tmp_path) == before


def test_what_an_older_journal_says_beside_is_not_believed(tmp_path: Path) -> None:
    support.write(tmp_path, PROJECT)
    root = tmp_path / "project"
    journal = {"fork": "demo", "files": [], "staged": "../user", "then": "notes.txt"}
    (root / transaction.JOURNAL).write_text(json.dumps(journal))
    transaction.recover(root, "forks.toml")
    assert (root / "notes.txt").exists()
    assert (tmp_path / "user" / "thesis.txt").exists()


LINKS = (".rebase-demo", "patches", "patches/demo", "work", "work/demo", "work/demo/.git")


@pytest.mark.parametrize("place", LINKS)
def test_a_journal_is_followed_through_no_link(tmp_path: Path, place: str) -> None:
    state = f"work/demo/{transaction.STATE}"
    support.write(tmp_path, {**PROJECT, f"project/{state}": "{}"})
    root = tmp_path / "project"
    (root / place).rename(tmp_path / "moved")
    (root / place).symlink_to(tmp_path / "moved")
    (root / transaction.JOURNAL).write_text(json.dumps({"fork": "demo", "files": ["forks.toml"]}))
    before = content(tmp_path)
    with pytest.raises(ManifestError, match="is a symbolic link"):
        transaction.recover(root, "forks.toml")
    assert content(tmp_path) == before


# What may be in the place of a file or a folder that the journal leads to.
KINDS = {
    "a work tree that is a file": ("work/demo/.git", "file"),
    "a state that is a folder": (f"work/demo/{transaction.STATE}", "folder"),
    "a manifest that is a folder": ("forks.toml", "folder"),
    "a staged file that is a folder": (".rebase-demo/forks.toml", "folder"),
    "a journal that is a folder": (transaction.JOURNAL, "folder"),
    "a journal that is a FIFO": (transaction.JOURNAL, "FIFO"),
    "no folder of patches": ("patches", "nothing"),
    "an older one that is there": (".rebase-demo/old", "folder"),
}


@pytest.mark.parametrize("way", KINDS)
def test_a_journal_that_leads_to_other_kinds_is_one_message(tmp_path: Path, way: str) -> None:
    name, kind = KINDS[way]
    support.write(tmp_path, {**PROJECT, "project/work/demo/.git/HEAD": ""})
    root = tmp_path / "project"
    (root / transaction.JOURNAL).write_text(json.dumps({"fork": "demo", "files": ["forks.toml"]}))
    rmtree(root / name)
    if kind == "folder":
        support.write(root / name, {"mine": "mine"})
    elif kind == "FIFO":
        os.mkfifo(root / name)
    elif kind == "file":
        (root / name).write_text("gitdir: elsewhere")
    with pytest.raises((ManifestError, OSError)) as caught:
        transaction.recover(root, "forks.toml")
    if isinstance(caught.value, OSError):
        # The commands turn it into their message.
        assert disk_error(caught.value)
    else:
        assert "cannot be followed" in str(caught.value)
    if kind == "folder" and name != ".rebase-demo/old":
        assert (root / name / "mine").read_text() == "mine"


def test_leftovers_of_others_stay(tmp_path: Path) -> None:
    kept = {".poetry.lock.12345678.tmp": "", ".forks.lock.tmp": "", "x.lock.12345678.tmp": ""}
    support.write(tmp_path, {**kept, ".forks.lock.12345678.tmp": ""})
    save_json(tmp_path / "forks.lock", {})
    assert content(tmp_path) == {**kept, "forks.lock": "{}\n"}
    support.write(tmp_path, {".forks.lock.12345678.tmp/mine": "mine"})
    with pytest.raises(MachineError, match="cannot be written"):
        save_json(tmp_path / "forks.lock", {"schema": 1})
    assert (tmp_path / ".forks.lock.12345678.tmp/mine").read_text() == "mine"
    assert (tmp_path / "forks.lock").read_text() == "{}\n"


STATES: dict[str, dict[str, object]] = {
    "another ref": {"refs": {"refs/heads/main": "a" * 40, EXPORTED: "a" * 40}},
    "an option for a ref": {"refs": {BASE: "--delete", EXPORTED: "a" * 40}},
    "an option for a commit": {"commits": ["--orphan", EXPORTED]},
    "another key of the manifest": {"pin": {"patches": "../user"}},
    "one commit": {"commits": [BASE]},
    "no table": {"refs": []},
    "an unknown key": {"more": 1},
}


@pytest.mark.parametrize("way", STATES)
def test_the_state_of_a_rebase_names_only_what_a_rebase_has(tmp_path: Path, way: str) -> None:
    refs = {BASE: "a" * 40, EXPORTED: "b" * 40}
    state = {"pin": {"version": "2"}, "commits": [*refs], "refs": refs, "worktree": "{}"}
    path = state_path(tmp_path)
    support.write(path.parent, {path.name: json.dumps(state)})
    assert state_of(tmp_path).commits == [*refs]
    path.write_text(json.dumps({**state, **STATES[way]}))
    with pytest.raises(PatchError, match="cannot go on"):
        state_of(tmp_path)


NAMES = ("../../user", "/etc", "..", "", ".", "a" * 63, "A" * 64, "../" + "a" * 61)


@pytest.mark.parametrize("key", NAMES)
def test_the_store_removes_and_makes_only_what_a_sha256_names(tmp_path: Path, key: str) -> None:
    support.write(tmp_path, PROJECT)
    store = Store(tmp_path / "store")
    store.ensure()
    before = content(tmp_path)
    uses: tuple[Callable[[], object], ...] = (
        lambda: store.get("files", key, lambda _: None),
        lambda: store.remove("files", key),
        lambda: store.find("files", key),
    )
    for use in uses:
        with pytest.raises(InputError, match="is no sha256"):
            use()
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["../../user", "/etc/x", "..", "a/b", ""])
def test_memos_logs_and_locks_have_plain_names(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "store")
    uses: tuple[Callable[[], object], ...] = (
        lambda: store.remember("tree", name, {}),
        lambda: store.memo(name, "x"),
        lambda: store.log(name, "build"),
        lambda: store.lock(name).__enter__(),
    )
    for use in uses:
        with pytest.raises(InputError, match="cannot be a name"):
            use()


def test_nothing_is_removed_through_a_link_in_the_store(tmp_path: Path) -> None:
    key = "a" * 64
    support.write(tmp_path, {f"user/{key}/thesis.txt": "years of work"})
    store = Store(tmp_path / "store")
    store.ensure()
    (store.root / "wheels").symlink_to(tmp_path / "user")
    store.remove("wheels", key)
    assert (tmp_path / "user" / key / "thesis.txt").exists()


TAMPERED = {
    "sha256": ["../../../../user", "", "A" * 64, "a" * 64 + "/.."],
    "filename": ["../../x.whl", "/etc/x.whl", "x.zip", ""],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, vs in TAMPERED.items() for v in vs])
def test_a_lock_names_a_base_only_by_a_plain_name_and_a_sha256(
    tmp_path: Path, key: str, value: str
) -> None:
    base = {"filename": "x-1.0-py3-none-any.whl", "sha256": "a" * 64, "made-with": {}, key: value}
    inventory: dict[tuple[str, str], object] = {
        ("x", "3.12"): {"verbatim": {}, "built": [], "reads": []}
    }
    build = {"base": base, "build-requires": [], "needs": []}
    fork: dict[str, object] = {"pin": {}, "settings": "", "tree": "", "commit": None, "patches": {}}
    path = tmp_path / "forks.lock"
    sha256 = save_inventories(tmp_path / "forks.inventory", inventory, {}).sha256("x")
    forks = {"x": {**fork, "inventory": sha256, "builds": {"3.12": build}}}
    path.write_text(json.dumps({"schema": 4, "environments": {}, "forks": forks}))
    with pytest.raises(ManifestError, match=key):
        load_lock(path)


@pytest.mark.parametrize("name", ["*", "../x", "x/y", "[a-z]*", "-x"])
def test_the_name_of_a_wheel_matches_no_other_file(tmp_path: Path, name: str) -> None:
    """Older wheels of the name are removed from dist/."""
    table = f'version = "1.0"\nupstream-wheel = {{ distribution = "{name}" }}\n'
    sdist = f'sdist = {{ filename = "x-1.0.tar.gz", sha256 = "{"a" * 64}" }}\n'
    path = support.make_manifest(tmp_path, {"x": table + sdist})
    with pytest.raises(ManifestError, match="distribution"):
        load_manifest(path)


def test_a_link_of_the_users_is_no_link_to_an_environment(tmp_path: Path) -> None:
    own = tmp_path / "environments" / ("a" * 64)
    own.mkdir(parents=True)
    for target in (own, own.with_name("mine"), tmp_path / "elsewhere"):
        link = tmp_path / f"link-to-{target.name[:4]}"
        link.symlink_to(target)
        with pytest.raises(MachineError, match="not created by patchwheel"):
            check_link(link)
    # In a store, or once that is removed, it is ours.
    (tmp_path / "CACHEDIR.TAG").write_text(CACHEDIR_TAG)
    check_link(tmp_path / "link-to-aaaa")


@pytest.mark.parametrize("kind", ["folder", "more", "link", "file"])
def test_a_release_is_staged_over_no_folder_of_the_users(tmp_path: Path, kind: str) -> None:
    staged = tmp_path / "staged"
    own = {"user/thesis.txt": "years of work", "user/release/x": "", "user/site/x": ""}
    support.write(tmp_path, {**own, "user/installed.json": "{}"})
    if kind == "link":
        (tmp_path / "user" / "thesis.txt").unlink()
        staged.symlink_to(tmp_path / "user")
    elif kind == "file":
        staged.write_text("mine")
    else:
        (tmp_path / "user").rename(staged)
        if kind == "folder":
            (staged / "installed.json").unlink()
    before = content(tmp_path)
    with pytest.raises(MachineError, match="release stage"):
        stage_release(tmp_path / "none", staged, {})
    assert content(tmp_path) == before


def test_dist_that_leads_out_of_the_project_loses_no_wheel(
    locked_site: Site, tmp_path: Path
) -> None:
    site = locked_site.apart(tmp_path)
    name = "demo-1.0+arrayapi.h00000000-py3-none-any.whl"
    support.write(tmp_path / "elsewhere", {name: "of another project"})
    (site.root / "dist").symlink_to(tmp_path / "elsewhere")
    site.run("build")
    assert (tmp_path / "elsewhere" / name).read_text() == "of another project"
    # In the project's own folder it goes if it was published there, and stays if it was not.
    (site.root / "dist").unlink()
    older = site.root / "dist" / name
    for known in (False, True):
        support.write(older.parent, {name: "an older one"})
        if known:
            row: dict[str, object] = {"sha256": "0" * 64, "stamp": [*stamp("", older.lstat())]}
            Store(site.store).remember(PUBLISHED, digest(str(older)), row)
        site.run("build")
        assert older.exists() != known
