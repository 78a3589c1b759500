from __future__ import annotations

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
