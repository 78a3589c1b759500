import errno
import os
import pkgutil
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from patchwheel.kit.errors import MachineError, PatchError
from patchwheel.kit.files import finish_replacement, new_folder, replace_folder
from patchwheel.kit.repo import Repository
from patchwheel.series.apply import PatchedTree, apply_series
from patchwheel.series.export import export_commits, message_of
from patchwheel.series.files import load_series
from patchwheel.series.worktree import WorkTree, open_work, work_tree_source
from tests.fixtures.patches import (
    NOISE,
    ONE,
    STATUS,
    Files,
    Kit,
    Session,
    mail,
    numbered,
    patch,
    snapshot,
)
from tests.fixtures.support import write

LINES = numbered(1, 40)
HEADER = "# why these\n\n"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PatchedTree]:
    """Three patches to three places of one file, opened once and copied for each test."""
    kit = Kit(tmp_path_factory.mktemp("template"))
    states: list[Files] = [
        {"a": LINES},
        {"a": numbered(1, 40, l5="one")},
        {"a": numbered(1, 40, l5="one", l20="two")},
        {"a": numbered(1, 40, l5="one", l20="two", l35="three")},
    ]
    source, _ = kit.steps(*states)
    (kit.folder / "README").write_text("kept")
    text = "# why these\n\n0010-p.patch\n# about two\n0020-p.patch\n\n"
    text += "# about three\n0030-p.patch # soon\n# end\n"
    (kit.folder / "series").write_text(text)
    tree = apply_series(source, load_series(kit.folder), store=kit.store)
    open_work(tree, kit.work, store=kit.store)
    return kit.root, tree


@pytest.fixture
def session(template: tuple[Path, PatchedTree], tmp_path: Path) -> Session:
    root, tree = template
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    kit = Kit(tmp_path)
    fork = replace(tree.source.fork, patches=kit.folder)
    source = replace(tree.source, fork=fork, git_dir=kit.repo.git_dir)
    series = load_series(kit.folder)
    return Session(kit, PatchedTree(source=source, tree=tree.tree, series=series))


# --- what is kept and what is written -------------------------------------------------------------


def test_an_untouched_work_tree_exports_nothing(session: Session) -> None:
    before = snapshot(session.kit)
    result = session.export()
    assert result.kept == ("0010-p.patch", "0020-p.patch", "0030-p.patch")
    assert (result.changed, result.written, result.removed) == (False, (), ())
    assert snapshot(session.kit) == before


def test_a_patch_that_came_in_another_form_keeps_its_bytes(kit: Kit) -> None:
    diff = kit.diff({"a": LINES}, {"a": numbered(1, 40, l5="one")})
    stat = b"---\n a | 2 +-\n 1 file changed, 1 insertion(+), 1 deletion(-)\n\n"
    data = mail(stat + diff + b"-- \n2.39.5\n", subject="v2] x").replace(
        b"[PATCH] v2]", b"[PATCH v2 3/7]"
    )
    tree = apply_series(kit.source({"a": LINES}), kit.series(data), store=kit.store)
    session = Session(kit, tree)
    session.check_round_trip()
    session.git("commit", "-q", "--amend", "--reset-author", "-m", "Other\n\n" + STATUS)
    assert session.export().written == ("0010-p.patch",)


def test_a_series_gets_its_first_patch_and_loses_its_last(kit: Kit) -> None:
    tree = apply_series(kit.source({"a": LINES}), kit.series(), store=kit.store)
    session = Session(kit, tree)
    session.write("a", numbered(1, 40, l5="one"))
    session.commit("Change a")
    result = session.export()
    assert result.written == ("0010-change-a.patch",)
    assert "Change a" in result.range_diff
    session.check_round_trip()
    session.git("reset", "-q", "--hard", "HEAD^")
    result = session.export()
    assert result.removed == ("0010-change-a.patch",)
    assert "Change a" in result.range_diff
    assert session.names == []


def test_a_new_commit_becomes_a_file_with_a_number_and_a_name(session: Session) -> None:
    session.write("new/b", b"\xff")
    session.commit("ENH: [x] Été / " + "long " * 20)
    result = session.export()
    assert result.written == ("0040-enh-x-t-long-long-long-long-long-long-long-long-long.patch",)
    assert "4:" in result.range_diff
    session.check_round_trip()
    assert not (session.kit.folder.parent / ".demo.new").exists()
    assert not (session.kit.folder.parent / ".demo.old").exists()
    assert (session.kit.folder / "README").read_text() == "kept"


def test_exported_patches_have_the_exact_form(session: Session) -> None:
    session.add("DOC: add b", "Because.\n\nFrom 2022 on.\n\n" + STATUS)
    session.export()
    assert (session.kit.folder / "0040-doc-add-b.patch").read_bytes() == (
        b"From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n"
        b"From: A U Thor <author@example.org>\nDate: Tue, 14 Nov 2023 22:13:20 +0000\n"
        b"Subject: [PATCH] DOC: add b\n\n"
        b"Because.\n\n>From 2022 on.\n\nUpstream-Status: Pending\n\n"
        b"diff --git a/b b/b\nnew file mode 100644\n"
        b"index 0000000000000000000000000000000000000000"
        b"..d00491fd7e5bb6fa28c517a0bb32b8b506539d4d\n"
        b"--- /dev/null\n+++ b/b\n@@ -0,0 +1 @@\n+1\n"
    )


def test_a_users_settings_change_no_byte(session: Session) -> None:
    session.write("a", numbered(1, 40, l5="one", l20="two", l35="three", l38="x"))
    session.commit("X")
    first = session.export(check=True)
    for name, value in NOISE.items():
        session.git("config", name, value)
    session.write(".git/info/attributes", b"a diff=foo\na -diff\n")
    assert session.export(check=True) == first


def test_only_the_changed_patch_is_rewritten(session: Session) -> None:
    """The others move by two lines, and their blobs change: they are not touched."""
    session.write("a", b"top\nmore\n" + numbered(1, 40, l5="one", l20="two", l35="three"))
    session.git("commit", "-qa", "--fixup=HEAD~2")
    session.rebase("")
    session.git(
        "rebase", "-q", "-i", "--autosquash", "refs/patchwheel/base", GIT_SEQUENCE_EDITOR="true"
    )
    result = session.export()
    assert result.written == ("0010-p.patch",)
    assert result.kept == ("0020-p.patch", "0030-p.patch")
    assert "1:" in result.range_diff
    session.check_round_trip()


def test_exact_renumbers_what_only_moved(session: Session) -> None:
    top = b"top\n" + numbered(1, 40, l5="one", l20="two", l35="three")
    session.write("a", top)
    session.git("commit", "-qa", "--fixup=HEAD~2")
    words = ("rebase", "-q", "-i", "--autosquash", "refs/patchwheel/base")
    session.git(*words, GIT_SEQUENCE_EDITOR="true")
    assert len(session.export(check=True).kept) == 2
    assert session.export(check=True, exact=True).kept == ()
    session.export()
    result = session.export(exact=True)
    assert result.written == ("0020-p.patch", "0030-p.patch")
    assert "@@ -18," in (session.kit.folder / "0020-p.patch").read_text()
    assert not session.export(exact=True).changed
    session.check_round_trip()


def test_the_range_diff_is_kept_as_a_message(session: Session) -> None:
    session.export()
    assert not message_of(session.kit.work).exists()
    session.add("DOC: b")
    session.export(check=True)
    assert not message_of(session.kit.work).exists()
    result = session.export()
    said = message_of(session.kit.work).read_text()
    assert said == f"demo 1.0: \n\n{result.range_diff}"
    assert "DOC: b" in said


def test_a_kept_patch_must_be_unmistakable(kit: Kit) -> None:
    """Moved by a line, its old numbers would point at one of two equal places: it is renumbered."""
    base = numbered(1, 30) * 2
    first, second = numbered(1, 30, l2="x"), numbered(1, 30, l20="y")
    states: list[Files] = [{"a": base}, {"a": first + numbered(1, 30)}, {"a": first + second}]
    source, series = kit.steps(*states)
    session = Session(kit, apply_series(source, series, store=kit.store))
    session.git("checkout", "-q", "HEAD~1")
    session.write("a", b"new\n" + first + numbered(1, 30))
    session.git("commit", "-qa", "--amend", "--no-edit")
    session.write("a", b"new\n" + first + second)
    session.git("commit", "-qa", "-C", "patchwheel")
    assert session.export().written == ("0010-p.patch", "0020-p.patch")
    session.check_round_trip()


def test_reworded_reordered_dropped_and_inserted_commits(session: Session) -> None:
    session.add("DOC: b")
    # two is dropped, three comes first, then the new one, then one
    session.rebase("1{h;d};2d;4G")
    assert session.git("log", "--format=%s", "--reverse", "refs/patchwheel/base..") == (
        "ENH: step 3\nDOC: b\nENH: step 1"
    )
    result = session.export()
    assert result.removed == ("0020-p.patch",)
    assert result.kept == ("0030-p.patch", "0010-p.patch")
    assert session.names == ["0030-p.patch", "0040-doc-b.patch", "0010-p.patch"]
    assert (session.kit.folder / "series").read_text() == (
        "# why these\n\n# about two\n\n# about three\n0030-p.patch # soon\n"
        "0040-doc-b.patch\n0010-p.patch\n# end\n"
    )
    session.check_round_trip()


def test_a_commit_with_another_message_is_known_by_its_diff(session: Session) -> None:
    session.rebase("2s/pick/reword/", editor="sed -i -e 1s/.*/Reworded/")
    result = session.export()
    assert result.written == ("0020-p.patch",)
    assert b"Subject: [PATCH] Reworded\n" in (session.kit.folder / "0020-p.patch").read_bytes()


def test_every_kind_of_change_survives_the_round_trip(session: Session) -> None:
    work = session.kit.work
    session.write("bin", bytes(range(256)) * 9)
    session.write("dos.txt", b"1\r\n2\r\n")
    session.write("é ü\t", b"\xff\n")
    (work / "link").symlink_to("a")
    session.write(".gitattributes", b"* text=auto\n")
    session.commit("One\n\n- list\n\n    code\n\n" + "x" * 200)
    session.write("bin", bytes(range(255)) * 9)
    session.git("mv", "a", "moved")
    (work / "dos.txt").chmod(0o755)
    (work / "link").unlink()
    session.commit("Two")
    session.git("commit", "-q", "--amend", "--no-edit", "--author=Ö. Ü., Jr <ö@example.org>")
    assert len(session.export().written) == 2
    session.check_round_trip()
    author = load_series(session.kit.folder).patches[-1].mail.author
    assert author == "Ö. Ü., Jr <ö@example.org>"


# --- what is refused ------------------------------------------------------------------------------


MERGE = "git checkout -qb side HEAD~1; git commit -qm Side --allow-empty; git switch -q -; "
MERGE += "git merge -q --no-edit side"
MESSAGE = f"-m One -m '{STATUS}'"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo edited > a", "changes without a commit: a"),
        ("touch forgotten.py", "changes without a commit: forgotten.py"),
        ("git rebase -q --exec false refs/patchwheel/base || true", "a rebase is not finished"),
        ("git bisect start", "a bisect is not finished"),
        (MERGE, "is a merge"),
        ("git commit -q --allow-empty -m Nothing", "changes nothing"),
        (
            f"git checkout -q --orphan other; git commit -q {MESSAGE}",
            "HEAD is not based on the pin",
        ),
        (f"touch b; git add b; git commit -qm 'fixup! One' {MESSAGE}", "One' is not squashed"),
        ("touch b; git add b; git commit -qm One -m 'No trailer.'", "no Upstream-Status trailer"),
        (
            f"touch b; git add b; git commit -qm One -m 'diff --git a/x b/x' {MESSAGE}",
            "the diff of x changes nothing",
        ),
        (
            f"ln -s /etc/passwd link; git add link; git commit -q {MESSAGE}",
            "points to the absolute path",
        ),
        ("git update-ref -d refs/patchwheel/base", "git cannot read its commits"),
    ],
)
def test_what_makes_no_series_is_refused(session: Session, script: str, message: str) -> None:
    subprocess.run(["sh", "-ec", script], cwd=session.kit.work, check=True, capture_output=True)
    error = session.refusal()
    assert message in error.message
    assert f"git -C {session.kit.work}" in str(error.hint)
    # The last commit needs no rebase.
    amend = any(words in script for words in ("No trailer", "-m 'diff", "ln -s"))
    assert ("commit --amend" in str(error.hint)) is amend


MARKED = b"<<<<<<< ours\n1\n=======\n2\n>>>>>>> theirs\n"


def test_markers_of_a_conflict_are_refused_until_they_are_said_to_be_meant(
    session: Session,
) -> None:
    session.write("t", MARKED)
    session.commit("Test merges")
    error = session.refusal()
    assert error.message == "markers of a conflict are left in t"
    assert f"git -C {session.kit.work} rebase -i" in str(error.hint)
    # What it says to do, to the letter.
    command = str(error.hint).rpartition("markers: ")[2]
    subprocess.run(["sh", "-c", command], check=True)
    assert session.export().written == ("0040-test-merges.patch",)
    # And in another work tree of that series nothing has to be said again.
    (session.kit.work / ".git" / "info" / "attributes").write_text("")
    session.check_round_trip()
    # A conflict of git's in that file is found still.
    session.write("t", MARKED + MARKED)
    session.commit("Again")
    assert session.refusal().message == "markers of a conflict are left in t"


def test_markers_that_a_later_patch_removes_are_refused(session: Session) -> None:
    session.write("a", (session.kit.work / "a").read_bytes() + MARKED)
    session.commit("Four")
    session.write("a", LINES)
    session.commit("Five")
    assert session.refusal().message == "markers of a conflict are left in a"


def test_a_file_with_markers_may_be_moved(kit: Kit) -> None:
    states: list[Files] = [{"t": MARKED}, {"t": MARKED + b"end\n"}]
    source, series = kit.steps(*states)
    session = Session(kit, apply_series(source, series, store=kit.store))
    session.git("mv", "t", "u")
    session.commit("Move it")
    assert session.export().written == ("0020-move-it.patch",)


@pytest.mark.parametrize(
    "text",
    [
        b"Title\n=======\n",
        b">>>>>>> quoted\n\n=======\n",
        b"<<<<<<< ours\n1\n>>>>>>> theirs\n",
        b">>>>>>> theirs\n=======\n<<<<<<< ours\n",
        b"<<<<<<< ours\n======\n>>>>>>> theirs\n",
        b"<<<<<< ours\n======\n>>>>>> theirs\n",
        b"print <<<<<<< ours\n=======\n>>>>>>> theirs\n",
        b">>> x < 1\n===\n> y\n",
    ],
)
def test_what_is_no_conflict_is_exported(session: Session, text: bytes) -> None:
    session.write("doc.rst", text)
    session.commit("DOC: it")
    assert session.export().written == ("0040-doc-it.patch",)


def test_a_series_that_lacks_what_it_requires_is_refused(session: Session) -> None:
    session.add("One", f"{STATUS}\nRequires: other/0010-x")
    before = session.names
    source, store = session.tree.source, session.kit.store
    with pytest.raises(PatchError, match="Requires: other/0010-x, and there is no"):
        export_commits(session.kit.work, source, store=store, others={"other": []})
    assert session.names == before
    needed = replace(patch(mail(ONE)), path=Path("patches/other/0010-x.patch"))
    export_commits(session.kit.work, source, store=store, others={"other": [needed]})
    assert len(session.names) == 4


def test_a_series_that_changed_meanwhile_is_not_overwritten(session: Session) -> None:
    (session.kit.folder / "0030-p.patch").unlink()
    (session.kit.folder / "series").write_text("0010-p.patch\n0020-p.patch\n")
    refused = session.refusal()
    assert "not the one that the work tree was opened with" in refused.message
    assert "opens the new one: nothing here is lost" in str(refused)
    # What was committed meanwhile would be.
    session.add("One")
    assert "then cherry-pick" in str(session.refusal())


def test_another_pin_is_refused(session: Session) -> None:
    session.tree = replace(session.tree, source=session.kit.source({"a": b"2.0"}))
    assert "another pin" in session.refusal().message


def test_a_result_with_another_tree_is_refused(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.add("One")
    monkeypatch.setattr("patchwheel.series.export.apply_series", lambda *_, **__: session.tree)
    before = session.names
    with pytest.raises(PatchError, match="the exported series gives the tree"):
        session.export()
    assert session.names == before


def test_a_folder_that_cannot_be_written_is_the_machines_fault(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.add("One")
    before = snapshot(session.kit)

    def full(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shutil.copytree", full)
    with pytest.raises(MachineError, match="the series cannot be written"):
        session.export()
    assert snapshot(session.kit) == before


# --- check, and being cut off ---------------------------------------------------------------------


def test_check_writes_nothing_and_says_what_would_change(session: Session) -> None:
    session.add("One")
    refs = session.git("for-each-ref")
    before = snapshot(session.kit)
    result = session.export(check=True)
    assert result.changed
    assert result.written == ("0040-one.patch",)
    assert snapshot(session.kit) == before
    assert session.git("for-each-ref") == refs
    assert session.export().written == ("0040-one.patch",)
    assert not session.export(check=True).changed


def killed(monkeypatch: pytest.MonkeyPatch, place: str, session: Session, *, calls: int) -> None:
    """Export in a child process that dies, like from kill -9, when it comes to `place` again."""
    module, _, name = place.rpartition(".")
    real = getattr(pkgutil.resolve_name(module), name)
    left = calls

    def dies(*args: object, **more: object) -> object:
        nonlocal left
        left -= 1
        return real(*args, **more) if left else os._exit(9)

    pid = os.fork()
    if pid == 0:
        try:
            monkeypatch.setattr(place, dies)
            session.export()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.mark.parametrize(
    ("place", "calls"),
    [
        ("patchwheel.series.export.replace_folder", 1),
        *[("pathlib.Path.rename", n) for n in (1, 2)],
        *[("patchwheel.kit.files.fsync", n) for n in (1, 2, 4)],
        *[("shutil.rmtree", n) for n in (1, 2)],
        ("patchwheel.series.worktree.record", 1),
    ],
)
def test_an_export_that_was_killed_loses_nothing(
    session: Session, monkeypatch: pytest.MonkeyPatch, place: str, calls: int
) -> None:
    session.add("One")
    old = session.names
    killed(monkeypatch, place, session, calls=calls)
    assert session.names in (old, [*old, "0040-one.patch"])
    # Pythons differ in how often they call it: killed at the very end, all is recorded already.
    if len(WorkTree(session.kit.work).series) == len(old):
        assert open_work(session.tree, session.kit.work, store=session.kit.store)
    session.export()
    assert session.names == [*old, "0040-one.patch"]
    assert WorkTree(session.kit.work).series[-1][0] == "0040-one.patch"
    session.check_round_trip()
    assert sorted(p.name for p in session.kit.folder.parent.iterdir()) == ["demo"]


def test_a_swap_that_was_cut_off_between_its_renames_is_finished(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    for name, text in ((".demo.old", "old"), (".demo.new", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "series").write_text(f"# {text}\n")
    assert load_series(folder).lines == ("# new",)
    folder.rename(tmp_path / ".demo.old2")
    assert load_series(folder).lines == ("# old",)


def test_a_folder_is_replaced_whole_and_the_old_one_removed(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    for _ in range(2):
        # What an earlier attempt left is not mixed in.
        write(new_folder(folder), {"left": ""})
    write(folder, {"old": ""})
    write(new_folder(folder), {"sub/new": "x"})
    replace_folder(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]
    assert [p.name for p in folder.rglob("*")] == ["sub", "new"]


def test_a_reader_may_finish_the_swap_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "demo"
    for name in ("demo", ".demo.new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "series").write_text(f"# {name}\n")
    real = type(folder).rename

    def rename(path: Path, target: Path) -> Path:
        moved = real(path, target)
        if target.name == ".demo.old":
            finish_replacement(folder)
        return moved

    monkeypatch.setattr(type(folder), "rename", rename)
    replace_folder(folder)
    assert (folder / "series").read_text() == "# .demo.new\n"


def test_git_is_asked_a_handful_of_times(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = Repository.git

    def counted(repo: Repository, *words: str, **rest: object) -> bytes:
        calls.append(words[0])
        return real(repo, *words, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Repository, "git", counted)
    session.export()
    assert len(calls) < 20, calls


@pytest.mark.parametrize(
    "body",
    [
        f"From: A <a@b>\n\n{STATUS}",
        f"{STATUS}\n\n---\n\nMore",
        f"Date: 2 Jan 2022 1:2 UTC\n\n{STATUS}",
    ],
)
def test_a_message_that_a_mail_cannot_carry_is_refused(kit: Kit, body: str) -> None:
    """What `git am` takes for a header, or drops, would be lost at the next `dev`."""
    source, series = kit.steps({"a": b"1\n"}, {"a": b"2\n"})
    session = Session(kit, apply_series(source, series, store=kit.store))
    session.add("ENH: b", body)
    assert "a mail of it would be read otherwise" in str(session.refusal())


def test_attributes_of_the_users_change_no_byte(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, series = kit.steps({"a": LINES}, {"a": numbered(1, 40, l9="x")})
    session = Session(kit, apply_series(source, series, store=kit.store))
    write(tmp_path, {"git/attributes": "* -diff merge=binary\n* text eol=crlf\n"})
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    config = Path(os.environ["GIT_CONFIG_GLOBAL"])
    config.write_text(f"[core]\n\tattributesFile = {tmp_path}/git/attributes\n")
    assert not session.export(check=True).changed
    session.add("ENH: b")
    session.export()
    assert b"GIT binary patch" not in (kit.folder / session.names[1]).read_bytes()


def test_what_the_users_git_does_not_show_is_not_in_the_way(kit: Kit, tmp_path: Path) -> None:
    source, series = kit.steps({"a": LINES}, {"a": numbered(1, 40, l9="x")})
    session = Session(kit, apply_series(source, series, store=kit.store))
    write(tmp_path, {"ignored": ".editor/\n*.swp\n"})
    config = Path(os.environ["GIT_CONFIG_GLOBAL"])
    config.write_text(f"[core]\n\texcludesFile = {tmp_path}/ignored\n")
    write(kit.work, {".editor/state": "1\n", ".a.swp": "1\n"})
    assert not session.export().changed
    built = work_tree_source(kit.work, source, store=kit.store)
    assert ".editor/state" not in kit.content(built.tree)
    write(kit.work, {"seen": "1\n"})
    assert "changes without a commit: seen" in str(session.refusal())
