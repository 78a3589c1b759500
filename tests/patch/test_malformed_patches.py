"""Malformed and unusual patches: git, patch and quilt were tried; each row says what is right."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from patchwheel.kit.errors import PatchError
from patchwheel.kit.repo import Repository
from patchwheel.patch.lint import warnings
from patchwheel.series.apply import apply_series
from patchwheel.series.files import load_series
from patchwheel.series.status import fork_status
from patchwheel.upstream.forecast import forecast
from tests.fixtures import support
from tests.fixtures.patches import NOISE, ONE, STATUS, Files, Kit, Session, mail, numbered, patch

if TYPE_CHECKING:
    Row: TypeAlias = Callable[[Kit], None]

LINES = numbered(1, 30)
CRLF = LINES.replace(b"\n", b"\r\n")
LINK = """diff --git a/{0} b/{0}
new file mode 120000
--- /dev/null
+++ b/{0}
@@ -0,0 +1 @@
+{1}
\\ No newline at end of file
"""
FILE = """diff --git a/{0} b/{0}
new file mode 100644
--- /dev/null
+++ b/{0}
@@ -0,0 +1 @@
+x
"""
SUBMODULE = b"""diff --git a/s b/s
index 1234567..2345678 160000
--- a/s
+++ b/s
@@ -1 +1 @@
-Subproject commit 1234567
+Subproject commit 2345678
"""
NO_DATA = b"""diff --git a/a b/a
index 1234567..2345678 100644
Binary files a/a and b/a differ
"""


# --- the kinds of rows ---


def becomes(*states: Files, warning: str | None = None) -> Row:
    """A patch for each step, applied together, gives the last state; at most this warning."""

    def check(kit: Kit) -> None:
        source, series = kit.steps(*states)
        tree = apply_series(source, series, store=kit.store)
        assert tree.tree == kit.tree(states[-1])
        status = fork_status(source, series, store=kit.store)
        found = "\n".join(status.warnings)
        assert warning in found if warning else not found
        assert json.loads(json.dumps(asdict(status)))["warnings"] == list(status.warnings)

    return check


def refused(*bad: tuple[bytes, str, int], hint: str = "") -> Row:
    """Each is refused before git sees it, with the line and with what to do."""

    def check(kit: Kit) -> None:
        source = kit.source({"a.txt": b"one\ntwo\nthree\n"})
        for data, message, line in bad:
            series = kit.series(data)
            with pytest.raises(PatchError) as caught:
                apply_series(source, series, store=kit.store)
            assert message in caught.value.message
            assert caught.value.where == f"{kit.folder}/0010-p.patch:{line}"
            assert hint in str(caught.value.hint)
            assert caught.value.exit_code == 3

    return check


def unfit(base: Files, old: Files, new: Files, *said: str) -> Row:
    """A patch from `old` to `new` does not apply to `base`, which the message explains."""

    def check(kit: Kit) -> None:
        source, series = kit.source(base), kit.series(mail(kit.diff(old, new)))
        with pytest.raises(PatchError) as caught:
            apply_series(source, series, store=kit.store)
        assert all(words in str(caught.value) for words in said), str(caught.value)

    return check


def exact(*messages: str, **joined: str) -> Row:
    """Messages survive export and import exactly; a second export changes no byte."""

    def check(kit: Kit) -> None:
        session = opened(kit)
        for number, text in enumerate(messages):
            session.write(f"new{number}", b"1\n")
            session.git("add", "--all")
            words = ("commit", "-q", "--cleanup=verbatim", "-m", text)
            session.git(*words, "-m", STATUS)
        session.export()
        session.check_round_trip()
        tree = apply_series(session.tree.source, load_series(kit.folder), store=kit.store)
        kit.work = kit.root / "again"
        again = Session(kit, tree)
        again.check_round_trip()
        out = again.git("log", "--reverse", "--format=%B%x00", f"-{len(messages)}")
        assert [m.strip("\n") for m in out.split("\0")[:-1]] == [
            f"{joined.get('to', text)}\n\n{STATUS}" for text in messages
        ]

    return check


def opened(kit: Kit) -> Session:
    source, series = kit.steps({"a": LINES}, {"a": numbered(1, 30, l9="x")})
    return Session(kit, apply_series(source, series, store=kit.store))


def renamed(path: str) -> bytes:
    return mail(ONE.replace(b"a.txt", path.encode()))


# --- the rows that need more than a line ---


def rewritten_subject(kit: Kit) -> None:
    exact("one\ntwo", to="one two")(kit)


def latin1(kit: Kit) -> None:
    """It is read as `git am` reads it, and the file keeps its bytes."""
    diff = kit.diff({"a": LINES}, {"a": numbered(1, 30, l20="x")})
    data = mail(diff).replace(b"Zoe", b"Zo\xeb").replace(b"carried", b"carri\xe9")
    source = kit.source({"a": LINES})
    session = Session(kit, apply_series(source, kit.series(data), store=kit.store))
    assert session.git("log", "-1", "--format=%an") == "Zoë Example"
    assert "Why it is carrié." in session.git("log", "-1", "--format=%B")
    session.check_round_trip()
    assert (kit.folder / "0010-p.patch").read_bytes() == data


def in_a_submodule(kit: Kit) -> None:
    source = kit.source({"x": b""})
    with kit.repo.index(source.tree) as env:
        entry = f"160000,{'1' * 40},sub"
        kit.repo.git("update-index", "--add", "--cacheinfo", entry, env=env)
        tree = kit.repo.text("write-tree", env=env)
    series = kit.series(mail(FILE.format("sub/f").encode()))
    with pytest.raises(PatchError, match="sub is a submodule, not a folder"):
        apply_series(replace(source, tree=tree), series, store=kit.store)


def shifted(kit: Kit) -> None:
    diff = kit.diff({"a": LINES}, {"a": numbered(1, 30, l9="x")})
    source = kit.source({"a": b"1\n2\n" + LINES})
    status = fork_status(source, kit.series(mail(diff)), store=kit.store)
    assert (status.patches[0].state, status.patches[0].offset) == ("offset", 2)
    twice: Files = {"a": b"0\n" + LINES * 2}
    unfit(twice, {"a": LINES}, {"a": numbered(1, 30, l9="x")}, "is ambiguous")(kit)


def already(kit: Kit) -> None:
    diff = kit.diff({"a": LINES}, {"a": numbered(1, 30, l9="x")})
    series = kit.series(mail(diff), mail(diff))
    source = kit.source({"a": LINES})
    with pytest.raises(PatchError, match=r"0020-p.patch is already applied \(landed"):
        apply_series(source, series, store=kit.store)
    states = [p.state for p in fork_status(source, series, store=kit.store).patches]
    assert states == ["clean", "landed"]


def already_removed(kit: Kit) -> None:
    unfit({"b": b""}, {"a": LINES, "b": b""}, {"b": b""}, "(landed?): a is gone")(kit)
    upstream = kit.root / "upstream"
    base = support.make_upstream(upstream, {"a": LINES, "b": ""})
    gone = support.make_upstream(upstream, {"a": None})
    data = mail(kit.diff({"a": LINES, "b": b""}, {"b": b""}))
    repo = Repository(upstream / ".git")
    found = forecast(repo, [patch(data)], "main", (base, gone), lambda _oids: None)
    [verdict] = found.patches
    assert verdict.state == "landed"
    assert verdict.commit
    assert verdict.commit.oid == gone


def numbers_and_names(kit: Kit) -> None:
    source, series = kit.steps({"a": LINES}, {"a": LINES * 2}, {"a": LINES * 3})
    (kit.folder / "0020-p.patch").rename(kit.folder / "0010-q.patch")
    (kit.folder / "series").write_text("0010-p.patch\n0010-q.patch\n")
    status = fork_status(source, load_series(kit.folder), store=kit.store)
    assert status.ok
    assert status.warnings == (
        "demo/0010-q.patch: has the number of 0010-p.patch; only the series orders them",
    )
    assert series.patches
    unlisted(kit, "0010-p.patch\n0010-q.patch\n0010-p.patch\n", "is listed twice")


def unlisted(kit: Kit, text: str, said: str, hint: str = "remove") -> None:
    (kit.folder / "series").write_bytes(text.encode())
    with pytest.raises(PatchError, match=said) as caught:
        load_series(kit.folder)
    assert hint in str(caught.value.hint)


def missing_and_orphan(kit: Kit) -> None:
    kit.series(mail(ONE), mail(ONE))
    unlisted(kit, "0010-p.patch\n0030-p.patch\n", "there is no patch 0030-p.patch")
    unlisted(kit, "0010-p.patch\n", "0020-p.patch is not listed", "rm ")


def series_lines(kit: Kit) -> None:
    kit.series(mail(ONE), mail(ONE))
    text = "# why\r\n\r\n0020-p.patch  \r\n0010-p.patch # soon"
    (kit.folder / "series").write_bytes(text.encode())
    names = [p.name for p in load_series(kit.folder).patches]
    assert names == ["0020-p.patch", "0010-p.patch"]
    for line in ("0010-p.patch -p0", "../demo/0010-p.patch", "/tmp/0010-p.patch"):
        unlisted(kit, f"{line}\n", "is not the name of a patch", "not read")
    (kit.folder / "0030-p.patch").symlink_to("0010-p.patch")
    unlisted(kit, "0030-p.patch\n", "symbolic link", "copy")


def separator(kit: Kit) -> None:
    exact("ENH: x\n\nOne.\n\n---\n\nTwo, which git am drops.")(kit)
    [_, odd] = load_series(kit.folder).patches
    [told] = warnings([odd], [])
    assert told == f"demo/{odd.name}: `git am` drops what its message says after the line `---`"


def diff_in_the_message(kit: Kit) -> None:
    data = mail(ONE, body="diff --git is a command")
    refused((data, "cannot read the paths", 6))(kit)
    refused((mail(ONE, body="diff -u a b"), "takes this line", 6), hint="indent")(kit)
    exact("ENH: x\n\n    diff --git a/x b/x\n    --- a/x\n    +++ b/x")(Kit(kit.root / "indented"))


def mbox_line_in_the_message(kit: Kit) -> None:
    text = "From 0123456789abcdef0123456789abcdef01234567 Mon Sep 17 00:00:00 2001"
    refused((mail(ONE, body=text), "a second mail starts here", 6))(kit)
    (kit.folder / "0010-p.patch").unlink()
    exact(f"ENH: x\n\n{text}\n>From >>From")(Kit(kit.root / "dev"))


def rubbish_at_the_end(kit: Kit) -> None:
    diff = kit.diff({"a": LINES}, {"a": numbered(1, 30, l9="x")})
    data = mail(diff + b"-- \n2.39.5\n\nSent from my desk\n")
    source = kit.source({"a": LINES})
    session = Session(kit, apply_series(source, kit.series(data), store=kit.store))
    assert session.export().kept == ("0010-p.patch",)
    session.git("commit", "-q", "--amend", "-m", "Other", "-m", STATUS)
    session.export()
    assert (kit.folder / "0010-p.patch").read_bytes().endswith(b" line 12\n")


def inside_another_repository(kit: Kit) -> None:
    """That the result lacks a path that a patch names is an error: see test_apply.py."""
    outer = kit.root / "outer"
    support.make_upstream(outer, {"x": ""})
    here = Path.cwd()
    os.chdir(outer)
    try:
        inner = Kit(outer / "sub")
        becomes({"a": LINES}, {"a": numbered(1, 30, l9="x")})(inner)
    finally:
        os.chdir(here)
    assert support.git(outer, "status", "--porcelain", "-uno") == ""


def anybodys_machine(kit: Kit) -> None:
    session = opened(kit)
    session.write("b", b"1 \r\n")
    session.commit("DOC: b")
    plain = session.export(check=True)
    with pytest.MonkeyPatch.context() as patched:
        config = kit.root / "gitconfig"
        for name, value in NOISE.items():
            session.git("config", "--file", str(config), name, value)
        patched.setenv("GIT_CONFIG_GLOBAL", str(config))
        for name in [n for n in os.environ if n.startswith(("GIT_AUTHOR", "GIT_COMM"))]:
            patched.delenv(name)
        patched.setenv("LC_ALL", "tr_TR.UTF-8")
        patched.setenv("TZ", "Pacific/Chatham")
        old = os.umask(0o077)
        try:
            assert session.export(check=True) == plain
            assert session.export() == plain
        finally:
            os.umask(old)
    session.check_round_trip()


def rebasing(kit: Kit) -> None:
    session = opened(kit)
    with pytest.raises(AssertionError, match="execution failed: false"):
        session.git("rebase", "-q", "--exec", "false", "refs/patchwheel/base")
    assert "a rebase is not finished" in session.refusal().message


ROWS: dict[str, Row] = {
    "CRLF target file": becomes({"a": CRLF}, {"a": CRLF.replace(b"line 9", b"x")}),
    "patch file turned CRLF by checkout": refused(
        (mail(ONE).replace(b"\n", b"\r\n"), "the patch file has CRLF line ends (autocrlf?)", 1),
        hint=".gitattributes",
    ),
    "CRLF headers and LF body": refused(
        (mail(ONE).replace(b"+0100\n", b"+0100\r\n"), "CRLF line ends", 3),
        (mail(ONE).replace(b" @@\n", b" @@\r\n"), "CRLF line ends", 13),
    ),
    "binary": becomes({"a": b"\0"}, {"a": b"\0\1"}, {"b": b"\0\1"}),
    "large binary": becomes(
        {"a": b""}, {"a": random.Random(1).randbytes(200_000)}, warning="with a binary file in them"
    ),
    "binary without data": refused((mail(NO_DATA), "carries no data", 12)),
    "renames": becomes(
        {"a": LINES},
        {"b": LINES},
        {"c": numbered(1, 30, l3="x")},
        {"a": numbered(1, 30, l3="x", l9="y")},
    ),
    "mode change only": becomes(
        {"a": LINES},
        {"a": ("100755", LINES)},
        warning="demo/0010-p.patch:10: the mode of a becomes 100755",
    ),
    "symlink that is absolute or escapes": refused(
        (mail(LINK.format("l", "/etc/passwd").encode()), "absolute path", 14),
        (mail(LINK.format("d/l", "../../x").encode()), "escapes", 14),
    ),
    "write through a symlink of the tree": unfit(
        {"l": ("120000", b"d"), "d/x": b""},
        {"y": b""},
        {"y": b"", "l/z": b"1\n"},
        "l is a symbolic link, not a folder",
    ),
    "symlink, then a file beneath": refused(
        (
            mail(LINK.format("l", "d").encode() + FILE.format("l/x").encode()),
            "goes through the symbolic link 'l'",
            17,
        )
    ),
    # The source tree holds submodules as plain files, so there is nothing to point with.
    "submodule pointer": refused((mail(SUBMODULE), "s is a submodule", 10)),
    "file inside a submodule": in_a_submodule,
    ".gitmodules edit": becomes(
        {".gitmodules": b"1\n"},
        {".gitmodules": b"2\n"},
        warning=".gitmodules: submodules are plain files",
    ),
    "paths out of the tree or into .git": refused(
        (renamed("../x"), "escapes", 10),
        (renamed("d/../../x"), "escapes", 10),
        (renamed(".git/hooks/x"), "into a .git folder", 10),
        (renamed(".GIT/x"), "into a .git folder", 10),
        (renamed("d/.git/x"), "into a .git folder", 10),
        (renamed("git~1/x"), "into a .git folder", 10),
    ),
    "absolute path": refused(
        (mail(ONE.replace(b"+++ b/a.txt", b"+++ /tmp/x")), "names another path", 12),
        (renamed("/tmp/x"), "absolute path", 10),
    ),
    "non-UTF-8 content": becomes({"a": b"\xff\n"}, {"a": b"\xfe\n"}),
    "raw Latin-1 author": latin1,
    "quoted path": becomes({'é\t"': b"1\n"}, {'é\t"': b"2\n"}),
    "empty patch": refused(
        (b"", "the patch is empty", 1),
        (b"\n", "the patch is empty", 1),
        (mail(b""), "the patch holds no diff", 9),
    ),
    "truncated hunk, wrong hunk count": refused(
        (mail(ONE[: -len(b" three\n")]), "is truncated, or the counts are wrong", 13),
        (mail(ONE.replace(b"-1,3 +1,3", b"-1,2 +1,2")), "belongs to no hunk", 17),
    ),
    "offset": shifted,
    "fuzz": unfit(
        {"a": numbered(1, 30, l8="other")},
        {"a": LINES},
        {"a": numbered(1, 30, l9="x")},
        "hunk 1 does not match a at line 6",
        "which is 'other'",
        "the nearest match begins in line 6",
    ),
    "moved from the end of the file that it is held to": unfit(
        {"a": b"0\n" + LINES},
        {"a": LINES},
        {"a": numbered(1, 30, l1="x")},
        "does not match a at its beginning: its lines are further in",
        "they begin in line 2 of a",
    ),
    "already applied, the same patch twice": already,
    "new file that exists": unfit(
        {"a": b"other\n", "b": b""}, {"b": b""}, {"a": b"1\n", "b": b""}, "already"
    ),
    "delete of a missing file": already_removed,
    "file in the way of a folder": unfit(
        {"a.txt": b"", "b": b""},
        {"b": b""},
        {"a.txt/x": b"1\n", "b": b""},
        "a.txt is a file, not a folder",
    ),
    "case twin": becomes(
        {"a.txt": LINES},
        {"a.txt": LINES, "A.txt": b"1\n"},
        warning="A.txt and a.txt are one file where case does not count",
    ),
    "case rename": becomes({"a.txt": LINES}, {"A.txt": LINES}, {"A.txt": LINES * 2}),
    "duplicate number, the same file twice": numbers_and_names,
    "missing file, file not in the series": missing_and_orphan,
    "lines of the series": series_lines,
    # That `git am` splits it: test_foreign_series.py.
    "mbox with two mails": refused(
        (mail(ONE) + mail(ONE), "a second mail starts here", 18),
        hint="`patchwheel import",
    ),
    "From line in the body": mbox_line_in_the_message,
    "--- in the body": separator,
    "diff --git in the body": diff_in_the_message,
    "subject with brackets, long, non-ASCII": exact(
        "[CI skip] fix [array]",
        "[PATCH 2/3] kept",
        "A " + "very long subject " * 8 + "with an end",
        "Été: " + "Straße und Brücke " * 8 + "Ende",
    ),
    # Mail has no second line of a subject: git joins them, once.
    "subject of two lines": rewritten_subject,
    "signature tail, trailing garbage": rubbish_at_the_end,
    "trailing whitespace added": becomes({"a": b"1\n"}, {"a": b"1 \t\n \n"}),
    "non-git diff": refused(
        (mail(ONE.partition(b"\n")[2]), "this is no git diff", 10),
        hint="`patchwheel import",
    ),
    "in a subdirectory of another repository": inside_another_repository,
    "user configuration, identity, locale, time zone, umask": anybodys_machine,
    # Two runs at once, kill -9: test_faults.py; read-only and full disks: test_store.py and
    # test_apply.py. A moved tag, a base that is nowhere, shallow and partial clones, offline:
    # test_fetch.py and test_forecast.py.
    # Landed, then reverted: test_forecast.py, test_rebase.py.
    "export in the middle of a rebase": rebasing,
    "export twice": exact("DOC: twice"),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_malformed_input(tmp_path: Path, row: Row) -> None:
    row(Kit(tmp_path))
