from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from patchwheel.kit.errors import PatchError
from patchwheel.patch.lint import check_requires, link_problem, path_problem
from patchwheel.series.files import check_patch, load_series
from tests.fixtures.patches import HEAD, ONE, mail, patch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "patches" / "demo"
    folder.mkdir(parents=True)
    for name in ("0010-a.patch", "0020-b.patch"):
        (folder / name).write_bytes(mail(ONE))
    return folder


def error_of(folder: Path, text: str) -> PatchError:
    (folder / "series").write_bytes(text.encode())
    with pytest.raises(PatchError) as caught:
        load_series(folder)
    return caught.value


# --- the series file -------------------------------------------------------------------------------------------------


def test_comments_blanks_crlf_and_a_missing_last_newline_are_tolerated(
    folder: Path,
) -> None:
    text = "# head\r\n\r\n  0020-b.patch  \r\n0010-a.patch # why"
    (folder / "series").write_bytes(text.encode())
    series = load_series(folder)
    assert [p.name for p in series.patches] == ["0020-b.patch", "0010-a.patch"]
    assert series.lines == ("# head", "", "  0020-b.patch", "0010-a.patch # why")
    assert series.fork == "demo"


def test_an_empty_series_is_a_fork_without_patches(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "series").touch()
    assert load_series(folder).patches == ()


def test_a_fork_without_series_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(PatchError, match="the fork demo has no series") as caught:
        load_series(tmp_path / "demo")
    assert "touch" in str(caught.value.hint)


@pytest.mark.parametrize(
    "line",
    [
        "0010-a.patch -p0",
        "../demo/0010-a.patch",
        "sub/0010-a.patch",
        "/etc/0010-a.patch",
        "-p1.patch",
        "README.md",
        "0010-a.patch\t-R",
    ],
)
def test_what_is_no_plain_patch_name_is_refused_with_its_line(folder: Path, line: str) -> None:
    error = error_of(folder, f"# comment\n{line}\n")
    assert "is not the name of a patch" in error.message
    assert str(error.where).endswith("series:2")


def test_a_missing_patch_names_the_line_and_a_near_name(folder: Path) -> None:
    error = error_of(folder, "0010-a.patch\n0020-c.patch\n")
    assert error.message == "there is no patch 0020-c.patch (did you mean 0020-b.patch?)"
    assert str(error.where).endswith("series:2")


def test_a_doubled_patch_is_refused(folder: Path) -> None:
    error = error_of(folder, "0010-a.patch\n0020-b.patch\n0010-a.patch\n")
    assert error.message == "0010-a.patch is listed twice"
    assert str(error.where).endswith("series:3")


def test_a_patch_that_is_not_listed_is_refused_with_the_command(folder: Path) -> None:
    error = error_of(folder, "0010-a.patch\n")
    assert "0020-b.patch is not listed" in error.message
    assert "rm " in str(error.hint)


def test_links_are_refused(folder: Path) -> None:
    (folder / "0030-c.patch").symlink_to(folder / "0010-a.patch")
    error = error_of(folder, "0010-a.patch\n0020-b.patch\n0030-c.patch\n")
    assert "symbolic link" in error.message


def test_a_folder_in_place_of_a_patch_or_of_the_series_is_an_error(
    folder: Path,
) -> None:
    (folder / "0030-c.patch").mkdir()
    assert "cannot be read" in error_of(folder, "0030-c.patch\n").message
    (folder / "series").unlink()
    (folder / "series").mkdir()
    with pytest.raises(PatchError, match="cannot be read"):
        load_series(folder)


def test_loading_parses_nothing(folder: Path) -> None:
    (folder / "0010-a.patch").write_bytes(b"\xff\0 anything")
    (folder / "series").write_text("0010-a.patch\n0020-b.patch\n")
    assert len(load_series(folder).patches) == 2


# --- the mail --------------------------------------------------------------------------------------------------------


def test_the_mail_is_read_exactly() -> None:
    data = mail(
        ONE,
        subject="[CI skip] fix [array]\n of the long line",
        body="Text.\n\n>From here on\n>>From there\nFrom nowhere",
        trailers=[
            "Upstream-Status: Submitted [https://example.org/pull/1]",
            "Requires: other/0010-x",
        ],
        author='"Øre, Å." <o@example.org>',
    )
    found = patch(data).mail
    assert found.subject == "[CI skip] fix [array] of the long line"
    assert found.author == "Øre, Å."
    assert found.address == "o@example.org"
    assert found.when == "1646132400 +0100"
    assert found.message == (
        "[CI skip] fix [array] of the long line\n\nText.\n\nFrom here on\n>From there\nFrom nowhere\n\n"
        "Upstream-Status: Submitted [https://example.org/pull/1]\nRequires: other/0010-x\n"
    )
    assert patch(data).trailer("requires") == ["other/0010-x"]
    check_patch(patch(data))


def test_encoded_headers_and_folded_trailers_are_read() -> None:
    data = mail(
        ONE,
        author="=?UTF-8?q?J=C3=B6rg?= <j@example.org>",
        date="Tue, 1 Mar 2022 12:00:00 -0330",
        trailers=[
            "Upstream-Status: Inappropriate [only for",
            " us]",
            "(cherry picked from commit 123)",
        ],
    )
    found = patch(data)
    assert found.mail.author == "Jörg"
    assert found.mail.when.endswith(" -0330")
    assert found.trailer("Upstream-Status") == ["Inappropriate [only for us]"]
    check_patch(found)


def test_statistics_and_a_signature_are_ignored() -> None:
    stat = b"---\n a.txt | 2 +-\n 1 file changed, 1 insertion(+), 1 deletion(-)\n create mode 100644 b\n\n"
    data = mail(stat + ONE + b"-- \n2.39.5\n\nlist mailing list\n")
    check_patch(patch(data))
    assert patch(data).mail.message.endswith("Upstream-Status: Pending\n")


def test_paths_modes_and_hunks_are_read() -> None:
    data = mail(
        b'diff --git "a/t\\tab\\303\\251" "b/t\\tab\\303\\251"\n'
        b'--- "a/t\\tab\\303\\251"\n+++ "b/t\\tab\\303\\251"\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n'
        b"diff --git a/with space b/with space\nold mode 100644\nnew mode 100755\n"
        b"diff --git a/x y b/x y\n--- a/x y\t\n+++ b/x y\t\n@@ -1,2 +1,2 @@\n\n-1\n+2\n"
        b"diff --git a/old b/new\nsimilarity index 100%\nrename from old\nrename to new\n"
        b"diff --git a/empty b/empty\nnew file mode 100644\nindex 0000000..e69de29\n"
        b"diff --git a/gone b/gone\ndeleted file mode 100644\nindex e69de29..0000000\n"
        b"diff --git a/c1 b/c2\ncopy from c1\ncopy to c2\n"
    )
    check_patch(patch(data))
    found = patch(data).diffs
    assert [(d.old, d.new) for d in found] == [
        ("t\tabé", "t\tabé"),
        ("with space", "with space"),
        ("x y", "x y"),
        ("old", "new"),
        (None, "empty"),
        ("gone", None),
        ("c1", "c2"),
    ]
    assert found[0].hunks[0].rows == (b"-a", b"+b\n")
    assert found[1].new_mode == "100755"
    assert found[2].hunks[0].before == [b"\n", b"1\n"]
    assert found[6].copy


def test_content_need_not_be_utf8() -> None:
    data = mail(ONE.replace(b"TWO", b"\xff\xfe\r"))
    check_patch(patch(data))
    assert patch(data).diffs[0].hunks[0].after[1] == b"\xff\xfe\r\n"


NEW_LINK = b"""diff --git a/%s b/%s
new file mode 120000
--- /dev/null
+++ b/%s
@@ -0,0 +1 @@
+%s
\\ No newline at end of file
"""


def link(path: bytes, target: bytes) -> bytes:
    return NEW_LINK % (path, path, path, target)


def new_file(path: bytes) -> bytes:
    return (
        b"diff --git a/%s b/%s\nnew file mode 100644\n--- /dev/null\n+++ b/%s\n@@ -0,0 +1 @@\n+x\n"
        % ((path,) * 3)
    )


BAD = {
    "zero bytes": (b"", "the patch is empty", 1),
    "blank": (b"\n \n", "the patch is empty", 1),
    "header only": (mail(b""), "holds no diff", 9),
    "statistics only": (mail(b"---\n a | 1 +\n"), "holds no diff", 11),
    "bare diff": (ONE, "no mail header", 1),
    "non-git bare diff": (b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n", "no mail header", 1),
    "non-git diff": (mail(ONE.partition(b"\n")[2]), "this is no git diff", 10),
    "no author": (b"Date: x\nSubject: y\n\nz\n", "no From: header", 1),
    "no subject": (b"From: A <a@b>\nDate: x\n\nz\n", "no Subject: header", 1),
    "bad author": (mail(ONE, author="nobody"), "cannot read an author", 1),
    "bad date": (mail(ONE, date="yesterday"), "cannot read the date", 1),
    "day out of range": (
        mail(ONE, date="Tue, 99 Mar 2022 12:00:00 +0100"),
        "cannot read the date",
        1,
    ),
    "year out of range": (
        mail(ONE, date="1 Mar 99999999999 1:1:1 +0100"),
        "cannot read the date",
        1,
    ),
    "Debian's date out of range": (mail(ONE, date="2022-13-01"), "cannot read the date", 1),
    "encoded": (
        HEAD + b"Content-Transfer-Encoding: quoted-printable\n" + mail(ONE)[len(HEAD) :],
        "encoded",
        1,
    ),
    "latin-1 author": (mail(ONE).replace(b"Zoe", b"Zo\xeb"), "not UTF-8", 2),
    "latin-1 message": (mail(ONE).replace(b"Why", b"W\xeby"), "not UTF-8", 6),
    "crlf file": (mail(ONE).replace(b"\n", b"\r\n"), "CRLF", 1),
    "crlf header": (mail(ONE).replace(b"+0100\n", b"+0100\r\n"), "CRLF", 3),
    "crlf message": (mail(ONE).replace(b"carried.\n", b"carried.\r\n"), "CRLF", 6),
    "crlf diff header": (
        mail(ONE).replace(b"+++ b/a.txt\n", b"+++ b/a.txt\r\n"),
        "CRLF",
        12,
    ),
    "crlf hunk header": (mail(ONE).replace(b" @@\n", b" @@\r\n"), "CRLF", 13),
    "two mails": (mail(ONE) + mail(ONE), "second mail", 18),
    "two mails, signature": (
        mail(ONE + b"-- \n2.39\n\n") + mail(ONE),
        "second mail",
        21,
    ),
    "From in the body": (
        mail(ONE, body="From 0123456789abcdef Mon Sep 17"),
        "second mail",
        6,
    ),
    "--- path in the body": (mail(ONE, body="a\n--- path"), "takes this line", 7),
    "diff - in the body": (mail(ONE, body="diff -u a b"), "takes this line", 6),
    "Index: in the body": (mail(ONE, body="Index: a"), "takes this line", 6),
    "@@ in the body": (mail(ONE, body="@@ -1 +1 @@"), "takes this line", 6),
    "diff --git in the body": (
        mail(ONE, body="diff --git is a command"),
        "cannot read the paths",
        6,
    ),
    "prefix": (
        mail(ONE.replace(b"a/a.txt b/a.txt", b"a.txt a.txt")),
        "cannot read the paths",
        10,
    ),
    "other path": (
        mail(ONE.replace(b"+++ b/a.txt", b"+++ b/b.txt")),
        "names another path",
        12,
    ),
    "absolute path": (
        mail(ONE.replace(b"+++ b/a.txt", b"+++ /tmp/x")),
        "names another path",
        12,
    ),
    "no hunk": (mail(b"diff --git a/a b/a\n--- a/a\n+++ b/a\n"), "no hunk follows", 12),
    "nothing": (
        mail(b"diff --git a/a b/a\nindex 1234567..1234567\n"),
        "changes nothing",
        10,
    ),
    "empty hunk": (
        mail(ONE.replace(b"-two\n+TWO\n", b" two\n")),
        "changes nothing",
        13,
    ),
    "bad hunk": (mail(ONE.replace(b" +1,3 @@", b" 1,3 @@")), "not a hunk", 13),
    "truncated": (mail(ONE[: -len(b" three\n")]), "truncated", 16),
    "cut in a line": (mail(ONE[:-2]), "truncated", 17),
    "count too high": (mail(ONE.replace(b"-1,3", b"-1,4") + ONE), "truncated", 18),
    "count too low": (
        mail(ONE.replace(b"-1,3 +1,3", b"-1,2 +1,2")),
        "belongs to no hunk",
        17,
    ),
    "counts differ": (mail(ONE.replace(b"-1,3 +1,3", b"-1,1 +1,4")), "counts", 13),
    "garbage": (mail(ONE + b"-- \n2.39\n\n@@ -1 +1 @@\n"), "belongs to no hunk", 21),
    "binary without data": (
        mail(
            b"diff --git a/a b/a\nindex 1234567..2345678 100644\nBinary files a/a and b/a differ\n"
        ),
        "carries no data",
        12,
    ),
    "binary without ids": (
        mail(
            b"diff --git a/a b/a\nindex 1234567..2345678 100644\nGIT binary patch\nliteral 1\nx\n\n"
        ),
        "full ids",
        12,
    ),
    "binary cut off": (
        mail(
            b"diff --git a/a b/a\nindex %s..%s 100644\nGIT binary patch\nliteral 1\nx\n\n"
            % (b"1" * 40, b"2" * 40)
        ),
        "truncated binary",
        15,
    ),
    "non-git binary": (mail(b"Binary files a and b differ\n"), "carries no data", 10),
    "parent": (mail(ONE.replace(b"a.txt", b"../x")), "escapes", 10),
    "parent inside": (mail(ONE.replace(b"a.txt", b"d/../../x")), "escapes", 10),
    "absolute": (mail(ONE.replace(b"a.txt", b"/tmp/x")), "absolute", 10),
    "dot": (mail(ONE.replace(b"a.txt", b"./x")), "plain path", 10),
    ".git": (mail(ONE.replace(b"a.txt", b".git/hooks/x")), ".git folder", 10),
    ".GIT below": (mail(ONE.replace(b"a.txt", b"d/.GiT/x")), ".git folder", 10),
    "git~1": (mail(ONE.replace(b"a.txt", b"GIT~1/x")), ".git folder", 10),
    "rename out": (
        mail(b"diff --git a/x b/../x\nsimilarity index 100%\nrename from x\nrename to ../x\n"),
        "escapes",
        10,
    ),
    "absolute link": (
        mail(link(b"l", b"/etc/passwd")),
        "absolute path '/etc/passwd'",
        14,
    ),
    "escaping link": (mail(link(b"d/l", b"../../x")), "escapes", 14),
    "file below a link": (
        mail(link(b"l", b"d") + new_file(b"l/x")),
        "through the symbolic link 'l'",
        17,
    ),
    "submodule": (
        mail(
            b"diff --git a/s b/s\nindex 1234567..2345678 160000\n--- a/s\n+++ b/s\n@@ -1 +1 @@\n"
            b"-Subproject commit 1\n+Subproject commit 2\n"
        ),
        "is a submodule",
        10,
    ),
    "new submodule": (
        mail(new_file(b"s").replace(b"100644", b"160000")),
        "is a submodule",
        10,
    ),
    "mode": (
        mail(new_file(b"s").replace(b"100644", b"104755")),
        "has the mode 104755",
        10,
    ),
    "twice": (mail(ONE + ONE), "changed twice, first in line 10", 18),
    "no status": (mail(ONE, trailers=()), "has no Upstream-Status trailer", 8),
    "status in the body": (
        mail(ONE, body="Upstream-Status: Pending", trailers=["Not a trailer"]),
        "no Upstream-Status trailer in its last paragraph",
        6,
    ),
    "two statuses": (
        mail(ONE, trailers=["Upstream-Status: Pending"] * 2),
        "two Upstream-Status",
        8,
    ),
    "unknown status": (
        mail(ONE, trailers=["Upstream-Status: Merged"]),
        "cannot read `Upstream-Status: Merged`",
        8,
    ),
    "submitted where": (
        mail(ONE, trailers=["Upstream-Status: Submitted"]),
        "Submitted`",
        8,
    ),
    "submitted, no url": (
        mail(ONE, trailers=["Upstream-Status: Submitted [x]"]),
        "cannot read",
        8,
    ),
    "backport of what": (
        mail(ONE, trailers=["Upstream-Status: Backport [v2]"]),
        "cannot read",
        8,
    ),
    "denied why": (mail(ONE, trailers=["Upstream-Status: Denied"]), "cannot read", 8),
    "requires": (
        mail(ONE, trailers=["Requires: numpy", "Upstream-Status: Pending"]),
        "`Requires: numpy`",
        8,
    ),
}


@pytest.mark.parametrize(("data", "message", "line"), BAD.values(), ids=BAD.keys())
def test_a_bad_patch_is_refused_with_its_line(data: bytes, message: str, line: int) -> None:
    with pytest.raises(PatchError, match=re.escape(message)) as caught:
        check_patch(patch(data))
    assert caught.value.where == f"patches/demo/0010-change.patch:{line}"
    assert caught.value.hint
    assert "{fork}" not in caught.value.hint


@pytest.mark.parametrize(
    "status",
    [
        "Pending",
        "Pending [asked on the list]",
        "Submitted [https://github.com/scipy/scipy/pull/15471]",
        "Backport [0123456789abcdef0123456789abcdef01234567]",
        "Backport [https://github.com/scipy/scipy/commit/0123456]",
        "Denied [https://github.com/scipy/scipy/issues/1]",
        "Inappropriate [packaging]",
    ],
)
def test_each_status_is_accepted(status: str) -> None:
    check_patch(patch(mail(ONE, trailers=[f"Upstream-Status: {status}"])))


def test_a_file_that_becomes_a_link_is_fine() -> None:
    gone = b"diff --git a/d/x b/d/x\ndeleted file mode 100644\n--- a/d/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"
    check_patch(patch(mail(gone + link(b"d/x", b"../y"))))


@pytest.mark.parametrize("path", [".git.", ".git ", ".g\u200cit", ".git::$INDEX", "a//b", "git~12"])
def test_names_that_are_git_folders_elsewhere_are_unsafe(path: str) -> None:
    assert path_problem(path)


@pytest.mark.parametrize("path", ["a", ".github/x", "a.git/b", ".gitignore", "..a/b", "git~x"])
def test_plain_paths_are_safe(path: str) -> None:
    assert path_problem(path) is None


def test_link_targets() -> None:
    assert link_problem("a/b", b"../c") is None
    assert link_problem("a/b", b"..") is None
    assert link_problem("a/b", b".git/x")
    assert link_problem("a", b"")
    assert link_problem("a", b"two\nlines")


def test_required_patches_exist_and_come_first() -> None:
    def carrying(name: str, *required: str) -> object:
        trailers = ["Upstream-Status: Pending", *(f"Requires: {r}" for r in required)]
        return patch(mail(ONE, trailers=trailers), name)

    first, second = carrying("0010-a.patch"), carrying("0020-b.patch", "one/0010-a")
    other = carrying("0010-c.patch", "one/0020-b.patch")
    check_requires({"one": [first, second], "two": [other]})  # type: ignore[list-item]
    with pytest.raises(PatchError, match="before it in its series"):
        check_requires({"one": [second, first]})  # type: ignore[list-item]
    with pytest.raises(PatchError, match="no such patch") as caught:
        check_requires({"two": [other]})  # type: ignore[list-item]
    assert str(caught.value.where).endswith("0010-c.patch:9")
