"""Our reading of mails beside git's: `mailinfo`, `stripspace` and `interpret-trailers`."""

import itertools
import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from patchwheel.kit.errors import PatchError
from patchwheel.patch.file import Patch
from patchwheel.patch.lint import check_patch
from patchwheel.series.apply import apply_series
from tests.fixtures.patches import Kit, Session, patch

ENV = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "TZ": "UTC"}
STATUS = "Upstream-Status: Pending"
# Name and address of a commit, as they stand in it.
WHO = (
    "Zoe Example <z@example.org>",
    "Øre, Å. <o@example.org>",
    "helper[bot] <12345+helper[bot]@users.noreply.example.com>",
    "root <root>",
    "Li <li@example.org>",
    'J. "Jo" Doe (Firm) <jo@example.org>',
    "zoe@home <z@example.org>",
    "名前 <n@example.org>",
    f"{'Long ' * 14}Name <long@example.org>",
    "Nobody <>",
)
SAID = (
    "ENH: one line\n\nText.\n\nUpstream-Status: Pending\n",
    "[CI skip] fix [array]\n\nUpstream-Status: Submitted [https://example.org/pull/1]\n",
    "Re: what was said\n\nUpstream-Status: Pending\nReviewed-by: X <x@e>\n",
    (
        "BUG: brackets\n\nReviewed-by: X <x@e>\n[zoe: shortened]\nSigned-off-by: Z <z@e>\n"
        "Upstream-Status: Pending\n"
    ),
    (
        "DOC: naïve café, a subject that is long enough to be folded into more than one line\n\n"
        "Ünïcode.\n\n    indented\n\nUpstream-Status: Inappropriate [only\n for us]\n"
    ),
    (
        "MAINT: from\n\nText.\nFrom here on\n>From there\n\nUpstream-Status: Pending\n"
        "(cherry picked from commit 0123456789012345678901234567890123456789)\n"
    ),
    "TST: no trailer\n\nNot: a trailer\nbut text.\n",
    "STY: colon:\n\nhttps://example.org/x\n\nUpstream-Status : Pending\n",
)
OPTIONS = (
    "",
    "--no-stat --pretty=mboxrd",
    "--rfc -v2 --numbered",
    "--keep-subject",
    "--notes",
    "--signoff",
    "--encode-email-headers",
    "--attach",
    "--inline",
    "--from=Other<other@example.org>",
    "--subject-prefix=RFC][PATCH",
    "-U0 --base=HEAD~80 --signature=3.0",
    "--zero-commit --full-index --cover-letter",
    "--in-reply-to=<1@example.org> --to=list@example.org --add-header=X-A_b:1",
)
FROM = (
    "zoe@example.org",
    "<zoe@example.org>",
    "zoe@example.org (Zoe Example)",
    "Zoe (of Firm) Example <zoe@example.org> (Comment)",
    '"Example, Zoe" <zoe@example.org>',
    r'"Zoe \"Z\" Example" <zoe@example.org>',
    "Zoe Example <zoe>",
    "=?UTF-8?q?J=C3?= =?UTF-8?q?=B6rg?= <j@example.org>",
    "=?iso-8859-1?Q?J=F6rg_M?=\n =?iso-8859-1?Q?=FCller?= <j@example.org>",
    "=?utf-8?B?SsO2cmc=?= <j@example.org>",
    '"=?utf-8?B?SsO2cmc=?=" <j@example.org>',
    "Zoe\tExample   <zoe@example.org>",
)
SUBJECT = (
    "[PATCH v2 1/3] Re: [x]  two",
    "Re: [PATCH] one",
    "RE: re: [RFC] [PATCH 1/2] thing",
    "plain [x]",
    "[PATCH]no blank",
    "=?UTF-8?Q?=5BPATCH=5D_caf=C3=A9?= x\n more",
    "[unclosed",
)
DATES = (
    "Tue, 1 Mar 2022 12:00:00 +0100",
    "Tue, 01 Mar 2022 12:00:00 -0000",
    "Tue Mar 1 12:00:00 2022 -0330",
    "2022-03-01 12:00:00 +0100",
    "2022-03-01T12:00:00Z",
    "1646132400 +0100",
    "Thu, 1 Jan 1970 00:00:00 +0000",
    "Tue, 1 Mar 2022 12:00:00",
)
BODY = (
    f"Text.\n\n{STATUS}\n---\n a.txt | 2 +-\n 1 file changed\n",
    f"\n\nText.\n{STATUS}\n\n{STATUS}\n---\nv2: shorter\n\n- list\n+ more\n---\n\nIndex: x\n",
    f"From: Real Author <r@example.org>\n\nText.\n\n{STATUS}\n",
    f"From: Real <r@example.org>\nSubject: [PATCH] true\n more\nDate: {DATES[2]}\n\n{STATUS}\n",
    f"[PATCH] told below\n\n{STATUS}\n",
    f"Text.  \n\n\n\nmore\t\n\n{STATUS}\nLink: https://e.org/\n \n",
    f"Text.\n\n# not this\n{STATUS}\nAcked-by: A\n  and B\n",
    f"Text.\n\nother\nlines\nSigned-off-by: Z <z@e>\n{STATUS}\n",
    "Text.\n\nfour\nother\nlines\nhere\nSigned-off-by: Z <z@e>\n",
    f"Text:\n  From: A <a@b>\n\n{STATUS}\n\n",
)


def diff(number: int) -> bytes:
    name = b"f%d" % number
    head = b"diff --git a/%s b/%s\nnew file mode 100644\n" % (name, name)
    return head + b"--- /dev/null\n+++ b/%s\n@@ -0,0 +1 @@\n+x\n" % name


def handmade() -> Iterator[bytes]:
    """Mails of every kind of author, subject, date and body, each beside some of the others."""
    number = itertools.count(1000)
    rows = [(f, SUBJECT[0], DATES[0], BODY[0]) for f in FROM]
    rows += [(FROM[4], s, d, BODY[1]) for s in SUBJECT for d in DATES]
    rows += [(f, s, DATES[1], b) for f in FROM[:3] for s in SUBJECT[:3] for b in BODY]
    for who, subject, when, body in rows:
        head = f"From: {who}\nDate: {when}\nSubject: {subject}\n\n"
        yield head.encode() + body.encode() + b"\n" + diff(next(number))
    sender = b"From: Zo\xeb <z@e>\nDate: 1646132400 +0100\nSubject: "
    status = STATUS.encode()
    yield b"\n\n" + sender + b"blank lines first\n\n" + status + b"\n\n" + diff(1)
    yield sender + b"caf\xe9\n\nna\xefve\n\n" + status + b"\n\n" + diff(2)
    yield (
        sender
        + b"x\nContent-Type: text/plain; charset=koi8-r\n\n\xd4\xc5\xd3\xd4\n\n"
        + (status + b"\n\n" + diff(3))
    )
    yield sender + b"x\nX_odd/name: 1\nno header, so text\n\n" + status + b"\n\n" + diff(4)
    yield b">From me\n" + sender + b"x\n\n" + status + b"\n\n" + diff(5) + b"-- \n2.39\n\n- list\n"
    encoded = (b"Y\xc3\xa9.\n\n" + status + b"\n\n" + diff(6)).replace(b"\n", b"=0A=\n")
    yield sender + b"x\nContent-Transfer-Encoding: quoted-printable\n\n" + encoded


def written_by_git(kit: Kit) -> Iterator[tuple[str, bytes, str, str]]:
    """Mails that `git format-patch` writes: its options, the mail, author and message."""
    repo, files = kit.repo, {"f": b""}
    tip = repo.commit(kit.tree(files), "base\n")
    said = list(itertools.product(WHO, SAID))
    for number, (who, text) in enumerate(said):
        files[f"f{number}"] = b"x\n"
        tip = repo.commit(kit.tree(files), text, tip, author=who, when="1646132400 +0100")
        if number % 3 == 0:
            repo.git("notes", "add", "-m", "v2: shorter\n\n- item", tip)
    repo.git("update-ref", "HEAD", tip)
    for nth, options in enumerate(OPTIONS):
        out = kit.root / f"out{nth}"
        words = ("format-patch", "-q", "--numbered-files", "-o", str(out), *options.split())
        repo.git(*words, f"-{len(said)}")
        # Every option with a fifth of the commits.
        for number, (who, text) in enumerate(said, 1):
            if (number + nth) % 5 == 0:
                yield options, (out / str(number)).read_bytes(), who, text


def run(
    *words: str, data: bytes = b"", cwd: Path | None = None, env: dict[str, str] | None = None
) -> bytes:
    command = ["git", *words]
    return subprocess.run(
        command, input=data, stdout=subprocess.PIPE, check=True, cwd=cwd, env={**ENV, **(env or {})}
    ).stdout


@cache
def git_date(date: str) -> str:
    env = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b", "GIT_AUTHOR_DATE": date}
    return run("var", "GIT_AUTHOR_IDENT", env=env).decode().rpartition("> ")[2].strip()


def as_committed(data: bytes) -> str:
    """As `git commit` takes a text: what is not UTF-8 is Latin-1."""
    rows = data.split(b"\n")
    return "\n".join(row.decode() if is_utf8(row) else row.decode("latin-1") for row in rows)


def is_utf8(row: bytes) -> bool:
    return row == row.decode(errors="replace").encode()


def read_by_git(data: bytes, folder: Path) -> tuple[str, str, str, str, list[str]]:
    """Return author, date, subject, message and trailers."""
    # As `git mailsplit --mboxrd` hands it on.
    data = re.sub(rb"(?m)^>(>*From )(?!me)", rb"\1", data)
    head = run("mailinfo", "-b", "msg", "patch", data=data, cwd=folder)
    fields = dict(row.split(": ", 1) for row in as_committed(head).split("\n") if row)
    message = fields["Subject"].encode() + b"\n\n" + (folder / "msg").read_bytes()
    message = run("stripspace", data=message)
    trailers = run("interpret-trailers", "--parse", data=message).decode().splitlines()
    author = f"{fields.get('Author', '')} <{fields.get('Email', '')}>"
    subject = fields["Subject"]
    return author, git_date(fields["Date"]), subject, as_committed(message), trailers


def read_by_us(data: bytes) -> tuple[str, str, str, str, list[str]]:
    mail = patch(data).mail
    trailers = [f"{key}: {value}" for key, value in mail.trailers]
    # git joins runs of blanks in a subject.
    message = mail.message.replace(mail.subject, " ".join(mail.subject.split()), 1)
    return mail.author, mail.when, " ".join(mail.subject.split()), message, trailers


FIELDS = ("author", "date", "subject", "message", "trailers")


def test_every_mail_is_read_as_git_reads_it(tmp_path: Path) -> None:
    """All differences are git's losses, of what its own format-patch wrote."""
    kit = Kit(tmp_path)
    mails = [("by hand", data, "", "") for data in handmade()]
    mails += list(written_by_git(kit))
    assert len(mails) >= 300
    explained: dict[str, int] = {}
    wrong: list[tuple[str, object, bytes]] = []
    for options, data, who, text in mails:
        theirs = dict(zip(FIELDS, read_by_git(data, tmp_path), strict=True))
        try:
            ours = dict(zip(FIELDS, read_by_us(data), strict=True))
        except PatchError as err:
            wrong.append((options, str(err), data))
            continue
        differ = {name for name in FIELDS if ours[name] != theirs[name]}
        name = who.partition(" <")[0]
        if "author" in differ and ours["author"] == " ".join(who.split()):
            kind = "@ in a name" if "@" in name else "length of a name"
            if "@" in name or not 3 <= len(name) <= 60:
                explained[kind] = explained.get(kind, 0) + 1
                differ.remove("author")
        subject = " ".join(text.partition("\n\n")[0].split())
        if "subject" in differ and ours["subject"] == subject:
            explained["start of a subject"] = explained.get("start of a subject", 0) + 1
            rest = [str(x["message"]).partition("\n")[2] for x in (ours, theirs)]
            differ -= {"subject"} | ({"message"} if rest[0] == rest[1] else set())
        if differ:
            wrong.append((options, [(n, ours[n], theirs[n]) for n in differ], data))
    assert not wrong, f"{len(wrong)} of {len(mails)}: {wrong[:5]}"
    assert explained.keys() == {"@ in a name", "length of a name"}


def test_a_series_of_them_is_written_back_byte_for_byte(tmp_path: Path) -> None:
    """They are opened as commits and exported: each file keeps its bytes."""
    kit = Kit(tmp_path / "kit")
    found = [*handmade(), *(data for _, data, _, _ in written_by_git(Kit(tmp_path / "git")))]
    mails: dict[str, bytes] = {}
    for data in found[::2]:
        one = Patch(path=kit.folder / "x.patch", data=data)
        path = one.diffs[0].path
        if path not in mails and any(k == "Upstream-Status" for k, _ in one.mail.trailers):
            check_patch(one)
            mails[path] = data
    source = kit.source({"f": b""})
    session = Session(kit, apply_series(source, kit.series(*mails.values()), store=kit.store))
    result = session.export()
    assert (result.written, len(result.kept)) == ((), len(mails))
    assert len(mails) > 100
