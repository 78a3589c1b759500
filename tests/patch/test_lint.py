import re

import pytest

from patchwheel.kit.errors import PatchError
from patchwheel.patch.file import Patch
from patchwheel.patch.lint import check_patch, check_requires, link_problem, path_problem
from tests.fixtures.patches import ONE, mail, patch

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
    head = b"diff --git a/%s b/%s\nnew file mode 100644\n--- /dev/null\n+++ b/%s\n" % ((path,) * 3)
    return head + b"@@ -0,0 +1 @@\n+x\n"


def binary(old: bytes, new: bytes, rest: bytes) -> bytes:
    return mail(b"diff --git a/a b/a\nindex %s..%s 100644\n" % (old, new) + rest)


def status(*values: str) -> bytes:
    return mail(ONE, trailers=[f"Upstream-Status: {value}" for value in values])


DATA = b"GIT binary patch\nliteral 1\nx\n\n"
MODULE = (
    b"diff --git a/s b/s\nindex 1234567..2345678 160000\n--- a/s\n+++ b/s\n@@ -1 +1 @@\n"
    b"-Subproject commit 1\n+Subproject commit 2\n"
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
    "a word for an author": (b"From: A\nSubject: y\n\nz\n", "cannot read an author", 1),
    "bad author": (mail(ONE, author="nobody"), "cannot read an author", 1),
    "bad date": (mail(ONE, date="yesterday"), "cannot read the date", 1),
    "day out of range": (mail(ONE, date="99 Mar 2022 12:00:00 +0100"), "cannot read the date", 1),
    "year out of range": (mail(ONE, date="1 Mar 99999999999 1:1:1"), "cannot read the date", 1),
    "Debian's date out of range": (mail(ONE, date="2022-13-01"), "cannot read the date", 1),
    "crlf file": (mail(ONE).replace(b"\n", b"\r\n"), "CRLF", 1),
    "crlf header": (mail(ONE).replace(b"+0100\n", b"+0100\r\n"), "CRLF", 3),
    "crlf message": (mail(ONE).replace(b"carried.\n", b"carried.\r\n"), "CRLF", 6),
    "crlf diff header": (mail(ONE).replace(b"+++ b/a.txt\n", b"+++ b/a.txt\r\n"), "CRLF", 12),
    "crlf hunk header": (mail(ONE).replace(b" @@\n", b" @@\r\n"), "CRLF", 13),
    "two mails": (mail(ONE) + mail(ONE), "second mail", 18),
    "two mails, signature": (mail(ONE + b"-- \n2.39\n\n") + mail(ONE), "second mail", 21),
    "From in the body": (mail(ONE, body="From 0123456789abcdef Mon Sep 17"), "second mail", 6),
    "--- path in the body": (mail(ONE, body="a\n--- path"), "takes this line", 7),
    "diff - in the body": (mail(ONE, body="diff -u a b"), "takes this line", 6),
    "Index: in the body": (mail(ONE, body="Index: a"), "takes this line", 6),
    "@@ in the body": (mail(ONE, body="@@ -1 +1 @@"), "takes this line", 6),
    "diff --git in the body": (mail(ONE, body="diff --git is it"), "cannot read the paths", 6),
    "prefix": (mail(ONE.replace(b"a/a.txt b/a.txt", b"a.txt a.txt")), "cannot read the paths", 10),
    "other path": (mail(ONE.replace(b"+++ b/a.txt", b"+++ b/b.txt")), "names another path", 12),
    "absolute path": (mail(ONE.replace(b"+++ b/a.txt", b"+++ /tmp/x")), "names another path", 12),
    "no hunk": (mail(b"diff --git a/a b/a\n--- a/a\n+++ b/a\n"), "no hunk follows", 12),
    "nothing": (mail(b"diff --git a/a b/a\nindex 1234567..1234567\n"), "changes nothing", 10),
    "empty hunk": (mail(ONE.replace(b"-two\n+TWO\n", b" two\n")), "changes nothing", 13),
    "bad hunk": (mail(ONE.replace(b" +1,3 @@", b" 1,3 @@")), "not a hunk", 13),
    "truncated": (mail(ONE[: -len(b" three\n")]), "truncated", 13),
    "cut in a line": (mail(ONE[:-2]), "truncated", 13),
    "count too high": (mail(ONE.replace(b"-1,3", b"-1,4") + ONE), "truncated", 13),
    "count too low": (mail(ONE.replace(b"-1,3 +1,3", b"-1,2 +1,2")), "belongs to no hunk", 17),
    "counts differ": (mail(ONE.replace(b"-1,3 +1,3", b"-1,1 +1,4")), "counts", 13),
    "garbage": (mail(ONE + b"-- \n2.39\n\n@@ -1 +1 @@\n"), "belongs to no hunk", 21),
    "binary without data": (
        binary(b"1234567", b"2345678", b"Binary files a/a and b/a differ\n"),
        "carries no data",
        12,
    ),
    "binary without ids": (binary(b"1234567", b"2345678", DATA), "full ids", 12),
    "binary cut off": (binary(b"1" * 40, b"2" * 40, DATA), "truncated binary", 15),
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
    "absolute link": (mail(link(b"l", b"/etc/passwd")), "absolute path '/etc/passwd'", 14),
    "escaping link": (mail(link(b"d/l", b"../../x")), "escapes", 14),
    "file below a link": (
        mail(link(b"l", b"d") + new_file(b"l/x")),
        "through the symbolic link 'l'",
        17,
    ),
    "submodule": (mail(MODULE), "is a submodule", 10),
    "new submodule": (mail(new_file(b"s").replace(b"100644", b"160000")), "is a submodule", 10),
    "mode": (mail(new_file(b"s").replace(b"100644", b"104755")), "has the mode 104755", 10),
    "twice": (mail(ONE + ONE), "changed twice, first in line 10", 18),
    "no status": (mail(ONE, trailers=()), "has no Upstream-Status trailer", 8),
    "status in the body": (
        mail(ONE, body="Upstream-Status: Pending", trailers=["Not a trailer"]),
        "no Upstream-Status trailer in its last paragraph",
        6,
    ),
    "two statuses": (status("Pending", "Pending"), "two Upstream-Status", 8),
    "unknown status": (status("Merged"), "cannot read `Upstream-Status: Merged`", 8),
    "submitted where": (status("Submitted"), "Submitted`", 8),
    "submitted, no url": (status("Submitted [x]"), "cannot read", 8),
    "backport of what": (status("Backport [v2]"), "cannot read", 8),
    "denied why": (status("Denied"), "cannot read", 8),
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
    "value",
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
def test_each_status_is_accepted(value: str) -> None:
    check_patch(patch(status(value)))


def test_a_file_that_becomes_a_link_is_fine() -> None:
    gone = (
        b"diff --git a/d/x b/d/x\ndeleted file mode 100644\n--- a/d/x\n+++ /dev/null\n"
        b"@@ -1 +0,0 @@\n-x\n"
    )
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
    def carrying(name: str, *required: str) -> Patch:
        trailers = ["Upstream-Status: Pending", *(f"Requires: {r}" for r in required)]
        return patch(mail(ONE, trailers=trailers), name)

    first, second = carrying("0010-a.patch"), carrying("0020-b.patch", "one/0010-a")
    other = carrying("0010-c.patch", "one/0020-b.patch")
    check_requires({"one": [first, second], "two": [other]})
    with pytest.raises(PatchError, match="before it in its series"):
        check_requires({"one": [second, first]})
    with pytest.raises(PatchError, match="no such patch") as caught:
        check_requires({"two": [other]})
    assert str(caught.value.where).endswith("0010-c.patch:9")
