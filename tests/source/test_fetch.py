from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from patchwheel.kit.errors import InputError, MachineError
from patchwheel.kit.repo import Repository, user_remotes
from patchwheel.kit.store import Store
from patchwheel.kit.uv import IndexConfig
from patchwheel.manifest.model import Fork, Sdist
from patchwheel.source.fetch import Origin, Source, fetch_pin, git_folder
from patchwheel.source.submodules import joined
from tests.fixtures.contexts import make_context
from tests.fixtures.support import (
    EPOCH,
    FULL,
    Recorder,
    full_disk,
    git,
    make_sdist,
    make_upstream,
    sha256,
    write,
)

if TYPE_CHECKING:
    Get = Callable[..., Source]

FILES = {"pyproject.toml": "[project]\n", "thing/__init__.py": "x = 1\n"}


@pytest.fixture
def get(store: Store, report: Recorder, tmp_path: Path) -> Get:
    def call(fork: Fork, *, offline: bool = False, origin: Origin | None = None) -> Source:
        index = IndexConfig(find_links=(str(tmp_path),))
        context = make_context(store, index=index, progress=report, offline=offline)
        return fetch_pin(context, fork, origin=origin)

    return call


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    return tmp_path / "upstream"


def content(source: Source) -> dict[str, str]:
    repo = Repository(source.git_dir)
    files = repo.files(source.tree)
    data = repo.read([blob.oid for blob in files.values()])
    return {path: data[blob.oid].decode() for path, blob in files.items()}


def from_sdist(path: Path) -> Fork:
    sdist = Sdist(filename=path.name, sha256=sha256(path))
    return Fork(name="thing", version="1.0", patches=Path("none"), sdist=sdist)


def from_git(
    upstream: Path, commit: str | None, *, tag: str | None = None, url: str | None = None
) -> Fork:
    return Fork(
        name="thing",
        version="1.0",
        patches=Path("none"),
        git=url or upstream.as_uri(),
        commit=commit,
        tag=tag,
    )


CHILD = """\
import sys; before = set(sys.modules)
from pathlib import Path
from patchwheel.manifest.model import Fork, Sdist
from patchwheel.kit.context import Context, Progress
from patchwheel.kit.uv import IndexConfig
from patchwheel.source.fetch import fetch_pin
from patchwheel.kit.store import Store
class Say(Progress):
    def say(self, line): print(line)
"""


def child(store: Store, fork: Fork, fetch: str) -> subprocess.Popen[str]:
    """Start a process that has the fork and a context, and does `fetch`."""
    pin = f"sdist={fork.sdist!r}, git={fork.git!r}, commit={fork.commit!r}"
    code = f"""{CHILD}
fork = Fork(name="thing", version="1.0", patches=Path("none"), {pin})
context = Context(Store(Path({str(store.root)!r})), Say())
{fetch}
"""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


# From an sdist


def test_an_sdist_becomes_a_tree_with_all_its_files(get: Get, tmp_path: Path) -> None:
    source = get(from_sdist(make_sdist(tmp_path, "thing", "1.0", FILES)))
    assert content(source).keys() == {*FILES, "PKG-INFO"}
    assert content(source)["thing/__init__.py"] == "x = 1\n"
    assert (source.epoch, source.commit) == (EPOCH, None)


def test_the_second_time_nothing_is_opened_or_run(
    get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_sdist(tmp_path, "thing", "1.0", FILES)
    first = get(from_sdist(path))
    fork = from_sdist(path)
    path.unlink()
    monkeypatch.setattr(Repository, "git", None)
    monkeypatch.setattr("patchwheel.source.download.download_file", None)
    assert get(fork, offline=True) == replace(first, fork=fork)


def test_the_second_time_gitpython_is_not_imported(get: Get, store: Store, tmp_path: Path) -> None:
    path = make_sdist(tmp_path, "thing", "1.0", FILES)
    get(from_sdist(path))
    # As that of a series which the command before applied.
    [ref] = git_folder(store, from_sdist(path)).glob("refs/patchwheel/source/*")
    ref.with_name("new").write_bytes(ref.read_bytes())
    modules = "{'git', 'requests', 'tarfile', 'uuid', 'packaging'}"
    fetch = f"fetch_pin(context, fork); print({modules} & set(sys.modules) - before)"
    with child(store, from_sdist(path), fetch) as process:
        assert process.communicate()[0] == "set()\n"


def test_a_lost_repository_is_made_again_from_the_stored_sdist(
    get: Get, store: Store, tmp_path: Path
) -> None:
    fork = from_sdist(make_sdist(tmp_path, "thing", "1.0", FILES))
    first = get(fork)
    git_folder(store, fork).rename(tmp_path / "lost")
    assert get(fork, offline=True) == first
    assert content(first).keys() == {*FILES, "PKG-INFO"}


def test_another_sdist_is_another_source(get: Get, tmp_path: Path) -> None:
    first = get(from_sdist(make_sdist(tmp_path, "thing", "1.0", FILES)))
    second = get(from_sdist(make_sdist(tmp_path, "thing", "1.0", {"other": ""})))
    assert first.git_dir == second.git_dir
    assert first.tree != second.tree
    assert content(first).keys() == {*FILES, "PKG-INFO"}


def test_times_before_zip_are_raised_to_what_a_wheel_can_hold(
    get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.fixtures.support.EPOCH", 0)
    assert get(from_sdist(make_sdist(tmp_path, "thing", "1.0", FILES))).epoch == (315_532_800)


def test_a_hostile_sdist_leaves_no_source(get: Get, store: Store, tmp_path: Path) -> None:
    fork = from_sdist(make_sdist(tmp_path, "thing", "1.0", {"../../evil": ""}))
    for _ in range(2):
        with pytest.raises(InputError, match="no plain relative path"):
            get(fork)
    assert not (store.root / "memo" / "source").exists()


def test_an_sdist_that_no_index_has_is_an_error(get: Get, tmp_path: Path) -> None:
    path = make_sdist(tmp_path / "elsewhere", "thing", "1.0", FILES)
    with pytest.raises(InputError, match="no index has"):
        get(from_sdist(path))


def test_an_origin_that_the_pin_lacks_is_an_error(get: Get, tmp_path: Path) -> None:
    fork = from_sdist(make_sdist(tmp_path, "thing", "1.0", FILES))
    with pytest.raises(InputError, match="names no repository"):
        get(fork, origin="git")


# From git


def test_a_commit_becomes_a_tree(get: Get, upstream: Path) -> None:
    commit = make_upstream(upstream, FILES, tag="v1.0")
    make_upstream(upstream, {"later": ""})
    source = get(from_git(upstream, commit, tag="v1.0"))
    assert content(source) == FILES
    assert source.tree == git(upstream, "rev-parse", f"{commit}^{{tree}}")
    assert (source.commit, source.epoch) == (commit, EPOCH)


def test_a_fetched_commit_needs_the_remote_no_more(
    get: Get, upstream: Path, store: Store, tmp_path: Path
) -> None:
    fork = from_git(upstream, make_upstream(upstream, FILES, tag="v1.0"), tag="v1.0")
    first = get(fork)
    upstream.rename(tmp_path / "gone")
    assert get(fork) == first
    # Nor when only the objects are left.
    for memo in (store.root / "memo").rglob("*.json"):
        memo.unlink()
    assert get(fork, offline=True) == first


def test_offline_without_the_commit_is_an_error(get: Get, upstream: Path) -> None:
    commit = make_upstream(upstream, FILES, tag="v1.0")
    with pytest.raises(InputError, match=f"{commit} .* is not in the store"):
        get(from_git(upstream, commit), offline=True)
    with pytest.raises(InputError, match=r"tag v1\.0 is not known offline"):
        get(from_git(upstream, None, tag="v1.0"), offline=True)


def test_a_server_that_sends_only_branches_is_fetched_whole(get: Get, upstream: Path) -> None:
    commit = make_upstream(upstream, FILES)
    make_upstream(upstream, {"later": ""})
    for name in ("AnySHA1", "TipSHA1", "ReachableSHA1"):
        git(upstream, "config", f"uploadpack.allow{name}InWant", "false")
    git(upstream, "config", "protocol.version", "0")
    assert content(get(from_git(upstream, commit))) == FILES


def test_a_commit_that_is_not_there_is_named(get: Get, upstream: Path) -> None:
    make_upstream(upstream, FILES)
    with pytest.raises(InputError, match="has no commit " + "ab" * 20) as caught:
        get(from_git(upstream, "ab" * 20))
    assert caught.value.exit_code == 4


def test_a_moved_tag_names_both_commits(get: Get, upstream: Path) -> None:
    pinned = make_upstream(upstream, FILES, tag="v1.0")
    moved = make_upstream(upstream, {"later": ""})
    git(upstream, "tag", "-f", "v1.0")
    with pytest.raises(InputError) as caught:
        get(from_git(upstream, pinned, tag="v1.0"))
    assert pinned in str(caught.value)
    assert moved in str(caught.value)


@pytest.mark.parametrize("how", ["--depth=1", "--filter=blob:none"])
def test_a_shallow_and_a_partial_clone_are_enough_for_a_commit_that_they_have(
    get: Get, upstream: Path, tmp_path: Path, how: str
) -> None:
    clone = tmp_path / "clone"
    first = make_upstream(upstream, {"thing/__init__.py": "x = 0\n"})
    commit = make_upstream(upstream, FILES, tag="v1.0")
    git(upstream, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", how, upstream.as_uri(), str(clone))
    assert content(get(from_git(clone, commit, tag="v1.0"))) == FILES
    if how == "--depth=1":
        with pytest.raises(InputError, match=f"has no commit {first}|cannot fetch"):
            get(from_git(clone, first))


def test_a_partial_clone_without_the_files_is_told(
    get: Get, upstream: Path, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    commit = make_upstream(upstream, FILES)
    git(upstream, "config", "uploadpack.allowFilter", "true")
    words = ("clone", "-q", "--no-checkout", "--filter=blob:none", upstream.as_uri())
    git(tmp_path, *words, str(clone))
    with pytest.raises(InputError, match="git cannot fetch from") as caught:
        get(from_git(clone, commit))
    assert "it is a partial clone that lacks these files" in str(caught.value.hint)


def test_an_annotated_tag_stands_for_its_commit(
    get: Get, upstream: Path, store: Store, report: Recorder
) -> None:
    commit = make_upstream(upstream, FILES)
    git(upstream, "tag", "-a", "v1.0", "-m", "release")
    fork = from_git(upstream, None, tag="v1.0")
    assert get(fork).commit == commit


def test_a_tag_that_is_not_there_is_named(get: Get, upstream: Path) -> None:
    commit = make_upstream(upstream, FILES)
    git(upstream, "tag", "v1.9")
    with pytest.raises(InputError, match=r"has no tag v9 \(did you mean 'v1.9'\?\)"):
        get(from_git(upstream, commit, tag="v9"))
    with pytest.raises(InputError, match="neither tag nor commit") as caught:
        get(from_git(upstream, None))
    assert "next: add the release's `tag` or `commit` to [forks." in str(caught.value)


def test_an_unreachable_remote_says_what_git_said(get: Get, tmp_path: Path) -> None:
    fork = from_git(tmp_path / "nowhere", "ab" * 20)
    with pytest.raises(InputError, match="git cannot fetch from file://") as caught:
        get(fork)
    assert any("does not" in line for line in caught.value.tail)


@pytest.mark.parametrize(
    "url", ["ext::sh -c true", "--upload-pack=touch x", "http://host/x", "git://host/x"]
)
def test_other_transports_are_refused(get: Get, url: str) -> None:
    fork = from_git(Path("/"), "ab" * 20, url=url)
    with pytest.raises(InputError, match="patchwheel does not fetch from such an address"):
        get(fork)


def test_the_users_own_limit_on_transports_holds(
    get: Get, upstream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = make_upstream(upstream, FILES)
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "ssh")
    with pytest.raises(InputError) as caught:
        get(from_git(upstream, commit))
    assert any("not allowed" in line for line in caught.value.tail)


def test_credentials_of_a_remote_are_not_shown(get: Get) -> None:
    fork = from_git(Path("/"), "ab" * 20, url="https://me:secret@127.0.0.1:9/x")
    with pytest.raises(InputError) as caught:
        get(fork)
    assert "secret" not in str(caught.value)


# Submodules and links


def add_submodule(upstream: Path, path: str, commit: str, url: str | None) -> str:
    """Add a submodule without the checks of `git submodule`; return the commit."""
    modules = upstream / ".gitmodules"
    text = modules.read_text() if modules.exists() else ""
    if url is not None:
        text += f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n'
    write(upstream, {".gitmodules": text})
    git(upstream, "add", ".gitmodules")
    git(upstream, "update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
    git(upstream, "commit", "-q", "-m", f"Add {path}")
    return git(upstream, "rev-parse", "HEAD")


def test_submodules_come_as_plain_files_recursively(
    get: Get, upstream: Path, tmp_path: Path
) -> None:
    deep = make_upstream(tmp_path / "deep", {"deep.h": "deep\n"})
    make_upstream(tmp_path / "deep", {"deep.h": "later\n"})
    make_upstream(tmp_path / "sub", {"sub.h": "sub\n"})
    sub = add_submodule(tmp_path / "sub", "third/deep", deep, "../deep")
    make_upstream(tmp_path / "upstream", FILES)
    add_submodule(upstream, "vendor/a b", sub, f"file://{tmp_path}/sub/")
    commit = add_submodule(upstream, "deep", deep, "./../deep")
    fork = from_git(upstream, commit)
    source = get(fork)
    found = content(source)
    assert found.pop(".gitmodules")
    assert found.pop("vendor/a b/.gitmodules")
    assert found == {
        **FILES,
        "vendor/a b/sub.h": "sub\n",
        "vendor/a b/third/deep/deep.h": "deep\n",
        "deep/deep.h": "deep\n",
    }
    modes = {b.mode for b in Repository(source.git_dir).files(source.tree).values()}
    assert modes == {"100644"}


def test_a_submodule_that_cannot_be_had_is_named(get: Get, upstream: Path, tmp_path: Path) -> None:
    make_upstream(tmp_path / "sub", {"x": ""})
    make_upstream(upstream, FILES)
    missing = add_submodule(upstream, "vendor", "ab" * 20, "../sub")
    with pytest.raises(InputError, match="submodule vendor"):
        get(from_git(upstream, missing))
    unnamed = add_submodule(upstream, "other", "cd" * 20, None)
    with pytest.raises(InputError, match="submodule other has no url"):
        get(from_git(upstream, unnamed))


def test_the_manifest_replaces_the_address_of_a_submodule_or_leaves_it_out(
    get: Get, upstream: Path, tmp_path: Path
) -> None:
    deep = make_upstream(tmp_path / "mirror", {"deep.h": "deep\n"})
    make_upstream(tmp_path / "sub", {"sub.h": "sub\n"})
    sub = add_submodule(tmp_path / "sub", "third/deep", deep, "https://gone.example/deep")
    make_upstream(upstream, FILES)
    add_submodule(upstream, "sub", sub, "../sub")
    commit = add_submodule(upstream, "docs", "ab" * 20, None)
    fork, mirror = from_git(upstream, commit), (tmp_path / "mirror").as_uri()
    with pytest.raises(InputError, match="submodule docs has no url") as caught:
        get(fork)
    assert "or `false`, in `submodules` of the fork in forks.toml" in str(caught.value)
    there = replace(fork, submodules={"docs": False, "sub/third/deep": mirror})
    found = content(get(there))
    assert {path for path in found if path.startswith(("docs", "sub"))} == {
        "sub/.gitmodules",
        "sub/sub.h",
        "sub/third/deep/deep.h",
    }
    # One without it, one more: each is another tree, known by its own key.
    less = replace(fork, submodules={"docs": False, "sub": False})
    assert not any(path.startswith("sub") for path in content(get(less)))
    assert get(there, offline=True).tree != get(less, offline=True).tree
    with pytest.raises(InputError, match="no submodule sub/third/dep") as caught:
        get(replace(fork, submodules={**there.submodules, "sub/third/dep": mirror}))
    assert "did you mean 'sub/third/deep'?" in str(caught.value)


def test_a_submodule_without_gitmodules_is_named(get: Get, upstream: Path) -> None:
    make_upstream(upstream, FILES)
    entry = f"160000,{'ab' * 20},vendor"
    git(upstream, "update-index", "--add", "--cacheinfo", entry)
    git(upstream, "commit", "-q", "-m", "broken")
    commit = git(upstream, "rev-parse", "HEAD")
    with pytest.raises(InputError, match="submodule vendor has no url"):
        get(from_git(upstream, commit))


def test_a_remote_cannot_pull_in_folders_of_this_machine(
    get: Get, upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = make_upstream(tmp_path / "secret", {"key": "secret"})
    make_upstream(upstream, FILES)
    url = (tmp_path / "secret").as_uri()
    commit = add_submodule(upstream, "stolen", secret, url)
    # A real remote cannot be had in a test: git's own aliases stand in for it.
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{upstream.as_uri()}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://example.org/upstream")
    fork = from_git(upstream, commit, url="https://example.org/upstream")
    with pytest.raises(InputError, match="submodule stolen is at a path of this"):
        get(fork)


def test_links_inside_the_tree_stay_links(get: Get, upstream: Path) -> None:
    write(upstream, {"include/a.h": "a\n", "src/x": ""})
    (upstream / "src" / "a.h").symlink_to("../include/a.h")
    commit = make_upstream(upstream, FILES)
    source = get(from_git(upstream, commit))
    blob = Repository(source.git_dir).files(source.tree)["src/a.h"]
    assert blob.mode == "120000"


# `top` is a link to the folder itself: each of its names leads nowhere, and each `..` out.
WINDING = "top/top/top/top/../../../../x"


@pytest.mark.parametrize(
    "target",
    ["/etc/passwd", "../../x", "..", "../.git", "../.git/config", f"../{WINDING}", "top/./../x"],
)
def test_links_that_lead_out_are_refused(get: Get, upstream: Path, target: str) -> None:
    write(upstream, {"src/x": ""})
    (upstream / "src" / "l").symlink_to(target if target != ".." else "../..")
    (upstream / "top").symlink_to(".")
    commit = make_upstream(upstream, FILES)
    with pytest.raises(InputError, match="link src/l leads out of the tree"):
        get(from_git(upstream, commit))


@pytest.mark.parametrize(
    ("url", "relative", "expected"),
    [
        ("https://h/a/b.git", "../c.git", "https://h/a/c.git"),
        ("https://h/a/b/", "./c", "https://h/a/b/c"),
        ("https://h/a/b", "../../c", "https://h/c"),
        ("git@h:a/b", "../c", "git@h:a/c"),
        ("git@h:b", "../c", "git@h:c"),
        ("file:///srv/b", "https://h/x", "https://h/x"),
    ],
)
def test_relative_addresses_are_joined_as_git_does(url: str, relative: str, expected: str) -> None:
    assert joined(url, relative) == expected


# The store


def test_two_at_once_fetch_once(get: Get, upstream: Path, store: Store, report: Recorder) -> None:
    fork = from_git(upstream, make_upstream(upstream, FILES))
    running = [child(store, fork, "print(fetch_pin(context, fork).tree)") for _ in range(3)]
    out = "".join(process.communicate()[0] for process in running)
    assert out.count("fetching") == 1
    assert out.count(get(fork).tree) == 3


@pytest.mark.parametrize(
    "said",
    [
        FULL,
        "fatal: Unable to create temporary file 'x': Read-only file system",
        "fatal: Unable to create 'x/index.lock': Permission denied",
        "error: insufficient permission for adding an object to x",
    ],
)
def test_a_disk_that_takes_nothing_is_the_machines_fault(
    get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    fork = from_sdist(make_sdist(tmp_path, "thing", "1.0", FILES))
    full_disk(tmp_path / "bin", monkeypatch, "fast-import", said)
    with pytest.raises(MachineError, match="disk is full or cannot be written") as caught:
        get(fork)
    assert said in str(caught.value)


def test_a_damaged_repository_says_how_to_get_a_new_one(
    get: Get, store: Store, tmp_path: Path
) -> None:
    fork = from_sdist(make_sdist(tmp_path, "thing", "1.0", FILES))
    get(fork)
    write(git_folder(store, fork), {"HEAD": "nonsense"})
    other = from_sdist(make_sdist(tmp_path, "thing", "1.0", {"other": ""}))
    with pytest.raises(InputError, match="cannot use its repository") as caught:
        get(other)
    assert caught.value.where == git_folder(store, fork)
    assert caught.value.hint


def test_a_killed_fetch_is_simply_done_again(get: Get, store: Store, tmp_path: Path) -> None:
    files = {f"thing/{n}.py": f"{n}\n" * 2000 for n in range(150)}
    fork = from_sdist(make_sdist(tmp_path, "thing", "1.0", files))
    fetch = f"context.index = IndexConfig(find_links=({str(tmp_path)!r},))\n"
    fetch += "print('started', flush=True); fetch_pin(context, fork)"
    for delay in (0.0, 0.05, 0.1, 0.15):
        with child(store, fork, fetch) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(delay)
            process.kill()
    assert content(get(fork)) == {
        **files,
        "PKG-INFO": "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
    }


def test_the_users_other_names_of_remotes_count(
    get: Get, upstream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror in the user's own settings serves upstream and its submodules."""
    commit = make_upstream(upstream, FILES)
    config = Path(os.environ["GIT_CONFIG_GLOBAL"])
    config.write_text(f'[url "{upstream.as_uri()}"]\n\tinsteadOf = https://example.org/demo\n')
    source = get(from_git(upstream, commit, url="https://example.org/demo"))
    assert source.commit == commit


def test_a_folder_of_somebody_else_is_read_where_the_user_trusts_it(
    get: Get, upstream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = make_upstream(upstream, FILES)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(InputError, match="cannot fetch"):
        get(from_git(upstream, commit))
    Path(os.environ["GIT_CONFIG_GLOBAL"]).write_text("[safe]\n\tdirectory = *\n")
    assert get(from_git(upstream, commit)).commit == commit


def test_credentials_and_proxies_are_the_users_and_nothing_else_is() -> None:
    text = """
[credential "https://example.org/a"b"]
    helper = "!f() { echo \\"x\\"; }; f"
[http "https://example.org"]
    proxy = socks5://localhost:1
[core]
    sshCommand = ssh -i "key"
    autocrlf = true
[diff]
    noprefix = true
"""
    Path(os.environ["GIT_CONFIG_GLOBAL"]).write_text(text.replace('a"b"', 'ab"'))
    with user_remotes() as env:
        argv = ("config", "--file", env["GIT_CONFIG_GLOBAL"], "--list")
        found = git(Path("/"), *argv).splitlines()
    assert found == [
        'credential.https://example.org/ab.helper=!f() { echo "x"; }; f',
        "http.https://example.org.proxy=socks5://localhost:1",
        "core.sshcommand=ssh -i key",
    ]
