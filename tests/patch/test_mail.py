import pytest

from patchwheel.kit.errors import PatchError
from patchwheel.patch.lint import check_patch
from tests.fixtures.patches import ONE, mail, patch


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
    assert found.author == "Øre, Å. <o@example.org>"
    assert found.when == "1646132400 +0100"
    assert found.message == (
        "[CI skip] fix [array] of the long line\n\nText.\n\n"
        "From here on\n>From there\nFrom nowhere\n\n"
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
    assert found.mail.author == "Jörg <j@example.org>"
    assert found.mail.when.endswith(" -0330")
    assert found.trailer("Upstream-Status") == ["Inappropriate [only for us]"]
    check_patch(found)


def test_statistics_and_a_signature_are_ignored() -> None:
    stat = (
        b"---\n a.txt | 2 +-\n 1 file changed, 1 insertion(+), 1 deletion(-)\n"
        b" create mode 100644 b\n\n"
    )
    data = mail(stat + ONE + b"-- \n2.39.5\n\nlist mailing list\n")
    check_patch(patch(data))
    assert patch(data).mail.message.endswith("Upstream-Status: Pending\n")


def test_what_git_needs_not_is_not_asked_for() -> None:
    data = b"From: z@e.org\n\nBUG: two\nlines\n\nText.\n\nUpstream-Status: Pending\n\n" + ONE
    found = patch(data).mail
    assert (found.author, found.when) == ("z@e.org <z@e.org>", "0 +0000")
    assert found.message == "BUG: two lines\n\nText.\n\nUpstream-Status: Pending\n"


def test_a_date_that_git_does_not_have_is_its_first() -> None:
    before = patch(mail(ONE, date="Wed, 31 Dec 1969 10:00:00 -0500"))
    assert before.mail.when == "0 -0500"
    exported = patch(mail(ONE, date="Wed, 31 Dec 1969 19:00:00 -0500"))
    assert exported.mail == before.mail


def test_words_in_an_unknown_or_broken_encoding_are_kept() -> None:
    data = mail(ONE, subject="=?x-none?q?caf=E9?= =?utf-8?b?YQ?= =?utf-8?b?A?=")
    assert patch(data).mail.subject == "caféaA"


def test_a_mail_in_parts_is_read_and_its_diff_decoded() -> None:
    text = mail(ONE).decode().partition("\n\n")
    head = f"{text[0]}\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=X\n\n"
    quoted = ONE.decode().replace("=", "=3D").replace("TWO", "T=57O")
    part = "Content-Type: text/x-patch; charset=UTF-8\nContent-Transfer-Encoding: quoted-printable"
    body = f"--X\n\n{text[2].partition('diff --git')[0]}\n--X\n{part}\n\n{quoted}\n--X--\n"
    found = patch((head + body).encode())
    check_patch(found)
    assert found.mail.message == patch(mail(ONE)).mail.message
    assert found.diffs[0].hunks[0].after == [b"one\n", b"TWO\n", b"three\n"]


def test_a_diff_below_the_signature_is_refused() -> None:
    with pytest.raises(PatchError, match="this line belongs to no hunk"):
        _ = patch(mail(ONE + b"-- \n2.39\n\n- a list\n+++ more\n")).mail
