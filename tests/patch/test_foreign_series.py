"""Patches from elsewhere: mailboxes through `git am`, Debian's patches through the series."""

import pytest

from patchwheel.kit.errors import PatchError
from patchwheel.patch.lint import check_patch
from patchwheel.patch.mail import upstream_status
from patchwheel.series.apply import apply_series
from patchwheel.series.files import load_series
from tests.fixtures import support
from tests.fixtures.patches import ONE, STATUS, Kit, Session, mail, patch

TEXT = b"one\ntwo\nthree\n"
DESCRIPTION = b"""Description: Fix the second line
 It was wrong, since it
   is not three.
 .
 It is now.
Author: Zo\xc3\xab Example <z@example.org>
"""
FIELDS = b"""Origin: vendor
Bug: https://example.org/issues/7
Bug-Debian: https://bugs.debian.org/123456
Forwarded: https://example.org/pull/8
Reviewed-by: Somebody Else <s@example.org>
Last-Update: 2022-03-01
"""
NOTE = b"This patch header follows DEP-3\n"
MAIL = b"""From: =?UTF-8?q?Zo=C3=AB?= Example <z@example.org>
Date: Tue, 1 Mar 2022 12:00:00 +0100
Subject: [PATCH] Fix the second line
"""
BODY = b"It was wrong, since it\n  is not three.\n\nIt is now.\n"


def opened(kit: Kit, *patches: bytes) -> Session:
    source, series = kit.source({"a.txt": TEXT}), kit.series(*patches)
    return Session(kit, apply_series(source, series, store=kit.store))


def test_a_mailbox_of_several_mails_becomes_as_many_patches(kit: Kit) -> None:
    upstream = kit.root / "upstream"
    base = support.make_upstream(upstream, {"a.txt": TEXT, "bin": b"\0"})
    body = f"Why.\n\n  indented\n\n{STATUS}"
    support.make_patch(upstream, {"a.txt": b"1\n"}, subject="[x] One", body=body)
    support.make_patch(upstream, {"bin": b"\0\1", "b": "b\n"}, subject="Two", body=body)
    mbox = kit.root / "all.mbox"
    words = ("format-patch", "--stdout", "--binary", "--keep-subject", base)
    mbox.write_bytes(support.git_bytes(upstream, *words))
    assert mbox.read_bytes().count(b"\nFrom ") == 1
    source, series = kit.source({"a.txt": TEXT, "bin": b"\0"}), kit.series()
    session = Session(kit, apply_series(source, series, store=kit.store))
    session.git("am", "-q", "--keep-non-patch", str(mbox))
    assert session.export().written == ("0010-x-one.patch", "0020-two.patch")
    session.check_round_trip()
    one, two = (patch.mail for patch in load_series(kit.folder).patches)
    assert one.message == f"[x] One\n\n{body}\n"
    assert (two.author, two.when) == ("A U Thor <author@example.org>", "1700000000 +0000")


def test_a_mail_with_debians_fields_below_its_text_is_taken_by_git(kit: Kit) -> None:
    session = opened(kit)
    file = kit.root / "debian.patch"
    file.write_bytes(MAIL + b"\n" + BODY + b"\n" + FIELDS + b"---\n" + ONE)
    session.git("am", "-q", str(file))
    session.export()
    session.check_round_trip()
    [found] = load_series(kit.folder).patches
    assert found.mail.message == (f"Fix the second line\n\n{BODY.decode()}\n{FIELDS.decode()}")
    assert found.trailer("Upstream-Status") == ["Submitted [https://example.org/pull/8]"]


@pytest.mark.parametrize(
    "data",
    [
        DESCRIPTION + FIELDS + b"\n" + ONE,
        DESCRIPTION + FIELDS + b"---\n" + ONE,
        MAIL + FIELDS + b"\n" + BODY + b"\n" + ONE,
        MAIL + FIELDS + b"\n" + BODY + b"---\n a.txt | 2 +-\n\n" + ONE,
    ],
    ids=["without git's headers", "with a rule", "with git's headers", "statistics"],
)
def test_debians_headers_are_read_in_a_series_and_nothing_is_lost(kit: Kit, data: bytes) -> None:
    session = opened(kit, data)
    wanted = f"Fix the second line\n\n{BODY.decode()}\n{FIELDS.decode()}"
    assert session.git("log", "-1", "--format=%B%x00").rstrip("\0") == wanted
    assert session.git("log", "-1", "--format=%an") == "Zoë Example"
    assert session.git("log", "-1", "--format=%ad", "--date=short") == "2022-03-01"
    session.check_round_trip()
    assert (kit.folder / "0010-p.patch").read_bytes() == data
    session.git("commit", "-q", "--amend", "-m", wanted + "Acked-by: A <a@b>\n")
    assert session.export().written == ("0010-p.patch",)
    session.check_round_trip()
    lines = (kit.folder / "0010-p.patch").read_text().splitlines()
    assert lines[3] == "Subject: [PATCH] Fix the second line"
    assert {*FIELDS.decode().splitlines(), "Acked-by: A <a@b>"} <= set(lines)


def test_fields_join_the_trailers_and_may_be_followed_by_a_note(kit: Kit) -> None:
    data = mail(ONE, trailers=["Requires: other/x"]).replace(b"Date:", FIELDS + b"Date:")
    found = patch(data)
    check_patch(found)
    assert found.trailer("Requires") == ["other/x"]
    noted = patch(DESCRIPTION + FIELDS + b"\n" + NOTE + b"\nForwarded: no\n\n" + NOTE + ONE)
    check_patch(noted)
    assert NOTE.decode() in noted.mail.message
    own = mail(ONE).replace(b"Date:", FIELDS + b"Date:")
    assert patch(own).trailer("Upstream-Status") == ["Pending"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Forwarded": "https://x.org/1"}, "Submitted [https://x.org/1]"),
        ({"Forwarded": "no"}, "Pending"),
        ({"Forwarded": "not-needed"}, "Inappropriate [not-needed]"),
        ({"Forwarded": "yes", "Bug": "https://x.org/2"}, "Submitted [https://x.org/2]"),
        ({"Forwarded": "yes"}, None),
        ({"Bug": "https://x.org/2"}, None),
        ({"Origin": "vendor", "Bug-Debian": "https://x.org/2"}, None),
        ({"Origin": "upstream, https://x.org/c/1"}, "Backport [https://x.org/c/1]"),
        ({"Origin": "backport, commit:0123456789a"}, "Backport [0123456789a]"),
        ({"Origin": "other, https://x.org/c/1", "Forwarded": "no"}, "Pending"),
        (
            {"Applied-Upstream": "1.2, https://x.org/c/2", "Forwarded": "no"},
            "Backport [https://x.org/c/2]",
        ),
        (
            {"Applied-Upstream": "1.2", "Origin": "upstream, https://x.org/c/1"},
            "Backport [https://x.org/c/1]",
        ),
        ({"applied-upstream": "20220301, commit 0123456"}, "Backport [0123456]"),
    ],
)
def test_what_debians_fields_say_of_upstream(fields: dict[str, str], status: str | None) -> None:
    assert upstream_status(fields.items()) == status
    data = mail(ONE, trailers=[f"{k}: {v}" for k, v in fields.items()])
    if status:
        check_patch(patch(data))
        assert patch(data).trailer("Upstream-Status") == [status]
    else:
        with pytest.raises(PatchError, match="has no Upstream-Status"):
            check_patch(patch(data))


def test_a_plain_diff_comes_in_through_the_work_tree(kit: Kit) -> None:
    plain = ONE.partition(b"\n")[2]
    with pytest.raises(PatchError, match="this is no git diff") as caught:
        check_patch(patch(DESCRIPTION + FIELDS + b"---\n" + plain))
    assert "then `patchwheel import demo FILE`" in str(caught.value.hint)
    session = opened(kit)
    (kit.root / "debian.patch").write_bytes(DESCRIPTION + FIELDS + b"---\n" + plain)
    session.git("apply", str(kit.root / "debian.patch"))
    session.commit("Fix the second line", "Forwarded: no")
    session.export()
    session.check_round_trip()
