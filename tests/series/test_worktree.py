import json
import shlex
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patchwheel.kit.errors import PatchError
from patchwheel.kit.repo import Repository
from patchwheel.manifest import transaction
from patchwheel.series.apply import PatchedTree, apply_series
from patchwheel.series.files import load_series
from patchwheel.series.light import unexported_files
from patchwheel.series.worktree import (
    WorkTree,
    git_in,
    move_away,
    open_work,
    work_tree_source,
)
from patchwheel.source.fetch import Source
from tests.fixtures.patches import Files, Kit, Session, mail, numbered

LINES = numbered(1, 30)
STATES: list[Files] = [
    {
        "a": LINES,
        "dos.bat": b"1\r\n2\r\n",
        ".gitattributes": b"*.bat text eol=lf\n* ident\n",
        "i": b"$Id$\n",
    },
    {
        "a": numbered(1, 30, l9="x"),
        "dos.bat": b"1\r\n3\r\n",
        ".gitattributes": b"*.bat text eol=lf\n* ident\n",
        "i": b"$Id$\n",
    },
]


def patched(kit: Kit, *states: Files) -> PatchedTree:
    source, series = kit.steps(*(states or STATES))
    return apply_series(source, series, store=kit.store)


def opened(kit: Kit, *states: Files) -> PatchedTree:
    tree = patched(kit, *states)
    open_work(tree, kit.work, store=kit.store)
    return tree


def git(kit: Kit, *words: str) -> str:
    """Run git as a user would, with the configuration of the home folder."""
    done = subprocess.run(["git", *words], cwd=kit.work, capture_output=True, text=True, check=True)
    return done.stdout.rstrip("\n")


def refusal(kit: Kit, tree: PatchedTree) -> PatchError:
    with pytest.raises(PatchError) as caught:
        open_work(tree, kit.work, store=kit.store)
    return caught.value


# --- opening --------------------------------------------------------------------------------------


def test_a_work_tree_is_an_ordinary_repository_with_a_commit_for_each_patch(kit: Kit) -> None:
    source = kit.source(STATES[0])
    data = mail(
        kit.diff(STATES[0], STATES[1]),
        subject="[CI skip] fix [array]",
        body="Text.\n\n>From the start\n  indented",
        author='"Øre, Å." <o@example.org>',
    )
    tree = apply_series(source, kit.series(data), store=kit.store)
    assert not open_work(tree, kit.work, store=kit.store)
    assert git(kit, "status", "--porcelain", "--branch") == "## patchwheel"
    assert git(kit, "rev-parse", "HEAD^{tree}") == tree.tree
    assert git(kit, "rev-parse", "HEAD") == git(kit, "rev-parse", "refs/patchwheel/exported")
    assert git(kit, "rev-parse", "HEAD^") == git(kit, "rev-parse", "refs/patchwheel/base")
    assert git(kit, "log", "-1", "--format=%an|%ae|%ad|%B", "--date=iso") == (
        "Øre, Å.|o@example.org|2022-03-01 12:00:00 +0100|[CI skip] fix [array]\n\n"
        "Text.\n\nFrom the start\n  indented\n\n"
        "Upstream-Status: Pending"
    )
    assert git(kit, "log", "-1", "--format=%s", "HEAD^") == "demo 1.0"
    assert (kit.work / "dos.bat").read_bytes() == b"1\r\n3\r\n"
    assert (kit.work / "i").read_bytes() == b"$Id$\n"


def test_it_needs_nothing_of_the_store(kit: Kit) -> None:
    tree = opened(kit)
    shutil.rmtree(kit.store.root)
    assert not (kit.work / ".git" / "objects" / "info" / "alternates").exists()
    git(kit, "fsck", "--strict", "--no-dangling")
    assert git(kit, "rev-parse", "HEAD^{tree}") == tree.tree


def test_the_user_works_in_it_with_any_configuration(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Written by hand: `git config --global` would replace what the seal names, also /dev/null.
    config = tmp_path / "gitconfig"
    config.write_text("[core]\n\tautocrlf = true\n[diff]\n\tnoprefix = true\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    opened(kit)
    assert git(kit, "status", "--porcelain") == ""
    (kit.work / "a").write_bytes(LINES)
    git(kit, "commit", "-qam", "x")
    git(kit, "rebase", "-q", "HEAD~1")
    assert git(kit, "config", "core.autocrlf") == "false"
    assert git(kit, "config", "diff.noprefix") == "true"


def test_opening_twice_gives_the_same_commits(kit: Kit) -> None:
    tree = opened(kit)
    first = git(kit, "rev-parse", "HEAD")
    shutil.rmtree(kit.work)
    open_work(tree, kit.work, store=kit.store)
    assert git(kit, "rev-parse", "HEAD") == first


def test_what_a_killed_run_left_is_no_obstacle(kit: Kit) -> None:
    tree = patched(kit)
    left = kit.work.with_name(".demo.new")
    (left / ".git").mkdir(parents=True)
    kit.work.mkdir()
    open_work(tree, kit.work, store=kit.store)
    assert git(kit, "status", "--porcelain") == ""
    assert not left.exists()


def test_a_series_without_patches_can_be_opened(kit: Kit) -> None:
    opened(kit, STATES[0])
    assert git(kit, "rev-parse", "HEAD") == git(kit, "rev-parse", "refs/patchwheel/base")


def test_commits_that_end_elsewhere_are_refused(kit: Kit) -> None:
    tree = replace(patched(kit), tree="0" * 40)
    assert "the commits end with the tree" in refusal(kit, tree).message
    assert not kit.work.exists()


def test_detached_sources_are_a_plain_folder(kit: Kit) -> None:
    tree = patched(kit)
    open_work(tree, kit.work, store=kit.store, detach=True)
    assert {p.name for p in kit.work.iterdir()} == {"a", "dos.bat", ".gitattributes", "i"}
    assert (kit.work / "a").read_bytes() == numbered(1, 30, l9="x")
    with pytest.raises(PatchError, match="not empty"):
        open_work(tree, kit.work, store=kit.store, detach=True)
    assert "not a work tree" in refusal(kit, tree).message


# --- a work tree that is there --------------------------------------------------------------------


def other_series(kit: Kit, source: Source) -> PatchedTree:
    data = mail(kit.diff(STATES[0], {**STATES[0], "a": numbered(1, 30, l20="new")}))
    return apply_series(source, kit.series(data), store=kit.store)


def test_the_same_pin_and_series_resume_it_edits_included(kit: Kit) -> None:
    tree = opened(kit)
    (kit.work / "a").write_bytes(b"edited\n")
    assert open_work(tree, kit.work, store=kit.store)
    assert (kit.work / "a").read_bytes() == b"edited\n"


def test_another_series_is_checked_out_when_nothing_is_lost(kit: Kit) -> None:
    tree = opened(kit)
    git(kit, "branch", "mine")
    (kit.work / ".git" / "info" / "exclude").write_text("built\n")
    (kit.work / "built").write_text("kept")
    new = other_series(kit, tree.source)
    assert not open_work(new, kit.work, store=kit.store)
    assert git(kit, "rev-parse", "HEAD^{tree}") == new.tree
    assert git(kit, "rev-parse", "mine^{tree}") == tree.tree
    assert (kit.work / "built").read_text() == "kept"
    assert open_work(new, kit.work, store=kit.store)


@pytest.mark.parametrize("step", ["fetch", "checkout", "update-ref"])
def test_where_it_was_cut_off_another_series_is_opened(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    tree = opened(kit)
    new = other_series(kit, tree.source)
    git_of = Repository.git

    def cut_off(self: Repository, *argv: str, **options: Any) -> bytes:
        done = git_of(self, *argv, **options)
        if self.work_tree and argv[0] == step:
            raise KeyboardInterrupt
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Repository, "git", cut_off)
        with pytest.raises(KeyboardInterrupt):
            open_work(new, kit.work, store=kit.store)
    begun = None if step == "fetch" else "`patchwheel dev demo` was not finished; run it again"
    assert WorkTree(kit.work).unexported() == begun
    # Where git had ended, the rest is written down first.
    assert open_work(new, kit.work, store=kit.store) == (step != "fetch")
    assert git(kit, "rev-parse", "HEAD^{tree}") == new.tree
    assert git(kit, "for-each-ref", "refs/patchwheel/next") == ""


BEFORE: Files = {**STATES[0], "gone": b"1\n", "kind": b"file\n", "d/one": b"1\n", "d/two": b"2\n"}
AFTER: Files = {
    **{n: data for n, data in STATES[0].items() if n != "i"},
    "a": numbered(1, 30, l20="new"),
    ".gitignore": b"*.log\n",
    "new/in.log": numbered(1, 2000),
    "new/[a]*": LINES,
    "kind/inner": b"1\n",
    "d": LINES,
}
REMOVED = ("d/one", "d/two", "gone", "i", "kind")
CHANGED = (*REMOVED, "d", "kind/inner", ".gitignore", "a", "new/in.log", "new/[a]*")


def cut_checkout(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, number: int
) -> tuple[PatchedTree, PatchedTree]:
    """Open another series with a git that ends amid the file `number`; return both."""
    tree = opened(kit, BEFORE)
    new = apply_series(tree.source, kit.series(mail(kit.diff(BEFORE, AFTER))), store=kit.store)
    git_of = Repository.git

    def cut_off(self: Repository, *argv: str, **options: Any) -> bytes:
        if not self.work_tree or argv[0] != "checkout":
            return git_of(self, *argv, **options)
        for at, name in enumerate(CHANGED):
            file = self.work_tree / name
            if name not in AFTER:
                file.unlink()
                if not any(file.parent.iterdir()):
                    file.parent.rmdir()
            elif at <= number:
                file.unlink(missing_ok=True)
                file.parent.mkdir(exist_ok=True)
                data = AFTER[name]
                assert isinstance(data, bytes)
                # A write that is killed ends with a page.
                file.write_bytes(data if at < number else data[: len(data) // 4096 * 4096])
            if at == number:
                break
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Repository, "git", cut_off)
        with pytest.raises(KeyboardInterrupt):
            open_work(new, kit.work, store=kit.store)
    return tree, new


@pytest.mark.parametrize("number", range(len(CHANGED)))
@pytest.mark.parametrize("back", [False, True])
def test_a_checkout_that_was_killed_is_begun_again(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, number: int, *, back: bool
) -> None:
    old, new = cut_checkout(kit, monkeypatch, number)
    with pytest.raises(PatchError, match="`patchwheel dev demo` was not finished; run it again"):
        work_tree_source(kit.work, new.source, store=kit.store)
    # The user may as well put the old series back.
    wanted = old if back else new
    assert open_work(wanted, kit.work, store=kit.store) == back
    assert git(kit, "rev-parse", "HEAD^{tree}") == wanted.tree
    assert git(kit, "status", "--porcelain", "--ignored") == ""
    assert work_tree_source(kit.work, new.source, store=kit.store).tree == wanted.tree


def test_edits_after_a_checkout_that_was_killed_are_kept(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, new = cut_checkout(kit, monkeypatch, len(CHANGED) - 1)
    other = tmp_path / "other"
    (kit.work / "new").rename(other)
    (kit.work / "new").symlink_to(other)
    (kit.work / "a").write_bytes(b"edited\n")
    error = refusal(kit, new)
    assert error.message.endswith("there are changes without a commit: a, new")
    assert sorted(path.name for path in other.iterdir()) == ["[a]*", "in.log"]
    assert (kit.work / "a").read_bytes() == b"edited\n"
    assert (kit.work / "gone").read_bytes() == b"1\n"


NOTE = ".git/patchwheel-checkout.json"


def another(kit: Kit, tree: PatchedTree, before: Files, after: Files) -> PatchedTree:
    return apply_series(tree.source, kit.series(mail(kit.diff(before, after))), store=kit.store)


def cut_before(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, before: Files, after: Files, command: str
) -> tuple[PatchedTree, PatchedTree]:
    """Open another series, and end just before a command of git's; return both."""
    old = opened(kit, before)
    new, git_of = another(kit, old, before, after), Repository.git

    def cut_off(self: Repository, *argv: str, **options: Any) -> bytes:
        if self.work_tree and argv[0] == command:
            raise KeyboardInterrupt
        return git_of(self, *argv, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Repository, "git", cut_off)
        with pytest.raises(KeyboardInterrupt):
            open_work(new, kit.work, store=kit.store)
    return old, new


@pytest.mark.parametrize(
    ("old", "new", "name", "content"),
    [
        # In place of a folder that git removed, of one that is ignored, and of a new file.
        ({"d/one": b"1\n"}, {}, "d", b"mine\n"),
        ({"p/d/one": b"1\n", ".gitignore": b"d\n"}, {".gitignore": b"d\n"}, "p/d", b"mine\n"),
        ({}, {"n": b"new\n"}, "n", b"mine\n"),
        # It ends where git could have, but for the page.
        ({"b": LINES}, {"b": numbered(1, 30, l20="new")}, "b", numbered(1, 10)),
    ],
)
@pytest.mark.parametrize("staged", [False, True])
def test_what_was_edited_after_the_kill_is_kept(
    kit: Kit,
    monkeypatch: pytest.MonkeyPatch,
    old: Files,
    new: Files,
    name: str,
    content: bytes,
    *,
    staged: bool,
) -> None:
    before: Files = {"a": LINES, **old}
    after: Files = {"a": b"other\n", **new}
    _, wanted = cut_before(kit, monkeypatch, before, after, "checkout")
    file = kit.work / name
    if file.is_dir():
        shutil.rmtree(file)
    file.write_bytes(content)
    if staged:
        git(kit, "add", "--force", name)
    assert "changes without a commit" in refusal(kit, wanted).message
    assert file.read_bytes() == content
    assert not staged or git(kit, "show", f":{name}") == content.decode().rstrip("\n")


def test_a_staged_file_that_is_gone_is_kept(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    after: Files = {"a": b"other\n", "n": b"new\n"}
    _, new = cut_before(kit, monkeypatch, {"a": LINES}, after, "checkout")
    (kit.work / "n").write_bytes(b"mine\n")
    git(kit, "add", "n")
    (kit.work / "n").unlink()
    assert "changes without a commit: n" in refusal(kit, new).message
    assert git(kit, "show", ":n") == "mine"


def test_an_ignored_file_in_the_way_is_kept_whatever_is_in_it(kit: Kit) -> None:
    before: Files = {"a": LINES, ".gitignore": b"*.log\n"}
    tree = opened(kit, before)
    new = another(kit, tree, before, {**before, "x.log": LINES, "out/put": LINES})
    (kit.work / "out").mkdir()
    for content in (b"", LINES, numbered(1, 2), b"mine\n"):
        (kit.work / "x.log").write_bytes(content)
        assert "x.log is in the way of a new file" in refusal(kit, new).message
        assert (kit.work / "x.log").read_bytes() == content
    (kit.work / "x.log").unlink()
    (kit.work / "x.log").symlink_to(kit.work / "a")
    assert "x.log is in the way of a new file" in refusal(kit, new).message
    assert (kit.work / "x.log").is_symlink()
    assert (kit.work / "out").is_dir()
    assert not (kit.work / NOTE).exists()


@pytest.mark.parametrize("wanted", ["old", "new", "third"])
def test_a_checkout_that_had_ended_is_written_down(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    before: Files = {"a": LINES}
    old, new = cut_before(kit, monkeypatch, before, {"a": b"other\n"}, "update-ref")
    third = another(kit, old, before, {"a": b"third\n"}) if wanted == "third" else old
    tree = new if wanted == "new" else third
    open_work(tree, kit.work, store=kit.store)
    assert git(kit, "rev-parse", "HEAD^{tree}") == tree.tree
    assert WorkTree(kit.work).unexported() is None
    assert WorkTree(kit.work).series == tree.series.digests
    assert not (kit.work / NOTE).exists()


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\0\xff",
        b"[]",
        b'{"from": "HEAD", "to": "--upload-pack=x", "then": {}}',
        b'{"from": "' + b"1" * 40 + b'", "to": "' + b"2" * 40 + b'", "then": {}}',
    ],
)
def test_a_damaged_note_is_dropped(kit: Kit, note: bytes) -> None:
    before: Files = {"a": LINES}
    tree = opened(kit, before)
    (kit.work / NOTE).write_bytes(note)
    (kit.work / "a").write_bytes(b"mine\n")
    assert open_work(tree, kit.work, store=kit.store)
    assert (kit.work / "a").read_bytes() == b"mine\n"
    assert not (kit.work / NOTE).exists()


def test_a_checkout_that_fails_and_cannot_be_undone_is_one_message(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: Files = {"a": LINES}
    tree = opened(kit, before)
    new, git_of = another(kit, tree, before, {"a": b"other\n", "n": b"new\n"}), Repository.git

    def locked(self: Repository, *argv: str, **options: Any) -> bytes:
        if self.work_tree and argv[0] == "checkout":
            (kit.work / ".git" / "index.lock").touch()
        return git_of(self, *argv, **options)

    argv = ["git", "cat-file", "--batch"]
    # While a git runs there, its locks are not taken for those of a killed one.
    with subprocess.Popen(argv, stdin=subprocess.PIPE, cwd=kit.work) as process:
        with monkeypatch.context() as patch:
            patch.setattr(Repository, "git", locked)
            assert "git cannot check out the series" in refusal(kit, new).message
        process.communicate()
    assert not open_work(new, kit.work, store=kit.store)
    assert git(kit, "status", "--porcelain") == ""


def test_edits_new_files_and_commits_keep_it(kit: Kit) -> None:
    tree = opened(kit)
    new = other_series(kit, tree.source)
    (kit.work / "a").write_bytes(b"edited\n")
    (kit.work / "b").write_bytes(b"new\n")
    error = refusal(kit, new)
    assert error.message.endswith("there are changes without a commit: a, b")
    assert "patchwheel export demo" in str(error.hint)
    git(kit, "add", "--all")
    git(kit, "commit", "-qm", "x")
    assert refusal(kit, new).message.endswith("it has commits that were not exported")
    (kit.work / ".git" / "rebase-merge").mkdir()
    assert refusal(kit, new).message.endswith("a rebase is not finished")


def test_files_that_the_series_lacks_are_counted(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        # No git is asked where none is open.
        patch.setattr(Repository, "git", None)
        assert unexported_files(kit.work) is None
        (kit.work / ".git").mkdir(parents=True)
        assert unexported_files(kit.work) is None
    shutil.rmtree(kit.work)
    opened(kit)
    assert unexported_files(kit.work) is None
    (kit.work / "a").write_bytes(b"edited\n")
    (kit.work / "new").mkdir()
    for name in ("b", "c"):
        (kit.work / "new" / name).write_bytes(b"new\n")
    lacks, export = "3 edited files are not in the series yet", "`patchwheel export demo`"
    assert unexported_files(kit.work) == f"{lacks}: commit, then {export}"
    git(kit, "add", "new")
    git(kit, "commit", "-qm", "x")
    assert unexported_files(kit.work) == f"{lacks}: commit, then {export}"
    git(kit, "commit", "-qam", "y")
    assert unexported_files(kit.work) == f"{lacks}: {export}"
    # Another pin's, and what git may not read: a build has no need of it.
    (kit.work / transaction.STATE).touch()
    assert unexported_files(kit.work) is None
    (kit.work / transaction.STATE).unlink()
    git(kit, "config", "filter.x.clean", "true")
    assert unexported_files(kit.work) is None


def test_a_file_in_the_way_of_a_new_series_is_kept(kit: Kit) -> None:
    tree = opened(kit)
    (kit.work / ".git" / "info" / "exclude").write_text("a.d\n")
    (kit.work / "a.d").mkdir()
    (kit.work / "a.d" / "x").write_text("mine")
    data = mail(kit.diff(STATES[0], {**STATES[0], "a.d": b"file\n"}))
    new = apply_series(tree.source, kit.series(data), store=kit.store)
    assert "git cannot check out the series" in refusal(kit, new).message
    assert (kit.work / "a.d" / "x").read_text() == "mine"


def test_a_folder_of_somebody_elses_is_left_alone(kit: Kit) -> None:
    tree = patched(kit)
    kit.work.mkdir(parents=True)
    (kit.work / "thesis.tex").write_text("x")
    error = refusal(kit, tree)
    assert error.message == "this is not a work tree that `patchwheel dev` opened"
    assert "mv " in str(error.hint)


# --- its files as a source ------------------------------------------------------------------------


def dev(kit: Kit, tree: PatchedTree) -> PatchedTree:
    return work_tree_source(kit.work, tree.source, store=kit.store)


def test_without_a_work_tree_the_series_counts(kit: Kit) -> None:
    tree = patched(kit)
    assert dev(kit, tree) == tree


def test_an_untouched_work_tree_is_the_patched_tree(kit: Kit) -> None:
    tree = opened(kit)
    found = dev(kit, tree)
    assert found.tree == tree.tree
    assert found.dev
    assert [p.name for p in found.series.patches] == ["0010-p.patch"]


def test_builds_at_once_send_their_edits_one_after_the_other(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, fetch, now, most = opened(kit), Repository.fetch, [0], [0]

    def slow(repo: Repository, *words: Any) -> None:
        now[0] += 1
        time.sleep(0.2)
        most[0] = max(most[0], now[0])
        now[0] -= 1
        fetch(repo, *words)

    monkeypatch.setattr(Repository, "fetch", slow)
    (kit.work / "a").write_bytes(b"edited\n")
    with ThreadPoolExecutor(3) as pool:
        found = {made.tree for made in pool.map(lambda _: dev(kit, tree), range(3))}
    assert (found, most) == ({dev(kit, tree).tree}, [1])


def test_edits_new_and_removed_files_count_and_ignored_ones_do_not(kit: Kit) -> None:
    tree = opened(kit)
    (kit.work / ".gitignore").write_text("*.so\n")
    (kit.work / "a").write_bytes(b"edited\n")
    (kit.work / "new.py").write_bytes(b"1\n")
    (kit.work / "m.so").write_bytes(b"1\n")
    (kit.work / "i").unlink()
    git(kit, "add", "new.py")
    before = git(kit, "status", "--porcelain")
    found = dev(kit, tree)
    assert git(kit, "status", "--porcelain") == before
    content = kit.content(found.tree)
    assert content.keys() == {"a", "new.py", ".gitignore", ".gitattributes", "dos.bat"}
    assert content["a"] == b"edited\n"
    assert content["dos.bat"] == b"1\r\n3\r\n"
    shutil.rmtree(kit.work)
    kit.repo.git("fsck", "--connectivity-only", found.tree)
    assert kit.content(found.tree) == content


def test_conflicts_are_refused(kit: Kit) -> None:
    tree = opened(kit)
    git(kit, "checkout", "-q", "-b", "other", "HEAD^")
    (kit.work / "a").write_bytes(b"other\n")
    git(kit, "commit", "-qam", "x")
    with pytest.raises(subprocess.CalledProcessError):
        git(kit, "merge", "patchwheel")
    with pytest.raises(PatchError, match="conflicts to resolve"):
        dev(kit, tree)


def test_another_pin_is_refused(kit: Kit) -> None:
    tree = opened(kit)
    other = replace(tree, source=kit.source({"a": b"2.0\n"}))
    with pytest.raises(PatchError, match="another pin"):
        dev(kit, other)


def test_a_repository_in_the_work_tree_is_refused(kit: Kit) -> None:
    tree = opened(kit)
    subprocess.run(["git", "init", "-q", "sub"], cwd=kit.work, check=True)
    subprocess.run(
        ["git", "commit", "-q", "--allow-empty", "-m", "x"], cwd=kit.work / "sub", check=True
    )
    with pytest.raises(PatchError, match="a git repository lies in the work tree"):
        dev(kit, tree)


def test_a_broken_state_is_not_a_work_tree(kit: Kit) -> None:
    tree = opened(kit)
    state = kit.work / ".git" / "patchwheel-worktree.json"
    assert json.loads(state.read_text())["tree"] == tree.source.tree
    state.write_text("{")
    with pytest.raises(PatchError, match="not a work tree"):
        dev(kit, tree)


def test_the_series_is_needed(kit: Kit) -> None:
    tree = opened(kit)
    (kit.folder / "series").unlink()
    with pytest.raises(PatchError, match="has no series"):
        dev(kit, tree)
    with pytest.raises(PatchError, match="has no series"):
        load_series(kit.folder)


def test_a_commit_is_told_at_once_what_its_message_lacks(tmp_path: Path) -> None:
    kit = Kit(tmp_path)
    source, series = kit.steps({"a": b"1\n"}, {"a": b"2\n"})
    session = Session(kit, apply_series(source, series, store=kit.store))
    session.write("b", b"1\n")
    session.git("add", "b")
    argv = ["git", "commit", "-m", "ENH: b"]
    done = subprocess.run(argv, cwd=kit.work, check=True, capture_output=True, text=True)
    assert "no Upstream-Status in its last paragraph" in done.stderr
    # The advice can be followed, and then nothing is said.
    words = shlex.split(done.stderr.partition("add it: git ")[2])
    done = subprocess.run(
        ["git", *words, "--no-edit"], cwd=kit.work, check=True, capture_output=True, text=True
    )
    assert "Upstream-Status" not in done.stderr
    assert len(session.export().written) == 1
    # In an editor, the trailers are there to be filled in.
    session.write("c", b"1\n")
    session.git("add", "c")
    session.git("commit", "-q", GIT_EDITOR="sed -i '1s/^/ENH: c/'")
    assert session.git("log", "-1", "--format=%B") == "ENH: c\n\nUpstream-Status: Pending"


def test_commands_that_are_offered_quote_the_folder() -> None:
    folder = Path("/our work/d'emo")
    assert shlex.split(git_in(folder, "status")) == ["git", "-C", str(folder), "status"]
    assert shlex.split(move_away(folder)) == ["mv", str(folder), f"{folder}.old"]
