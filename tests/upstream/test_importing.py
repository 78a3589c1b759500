"""Patches of other tools become patches of a series: by one command, all or none."""

import difflib
import json
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest

from patchwheel.series.files import load_series
from tests.fixtures import support
from tests.fixtures.projects import PYPROJECT, Site, lines, own_files

DEP3 = """Description: read the other file
 More of it.
Author: Deb Ian <d@example.org>
Forwarded: https://example.org/pull/7
Last-Update: 2023-05-06

---
"""


@pytest.fixture
def site(locked_site: Site, tmp_path: Path) -> Site:
    return locked_site.at(tmp_path / "project")


def unified(old: bytes, new: bytes, name: str, prefix: tuple[str, str] = ("a/", "b/")) -> str:
    """A diff as `diff -u` and quilt write it."""
    before, after = (data.decode().splitlines(keepends=True) for data in (old, new))
    names = [f"{p}{name}\t2020-01-01 00:00:00" for p in prefix]
    return "".join(difflib.unified_diff(before, after, names[0], names[1]))


def imported(site: Site, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(site.run("import", "demo", *words, "--json"))[
        "imported"
    ]
    return found


def patched(site: Site, path: str) -> bytes:
    site.run("dev", "demo")
    return site.git("show", f"HEAD:{path}").encode() + b"\n"


def refused(site: Site, *words: str, status: int = 3) -> str:
    before = site.state()
    said = site.run("import", "demo", *words, status=status)
    assert site.state() == before
    assert [p.name for p in (site.root / "patches").iterdir()] == ["demo"]
    return said


def test_a_folder_of_quilt_is_imported_by_one_command(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "debian" / "patches"
    own = {"a": lines(l30="ours"), "b": lines(l10="ours")}
    moved = b"more\n" * 3 + own["a"]
    wider = lines(l10="ours", l38="before", l39="told")
    support.write(
        folder,
        {
            "dep3.patch": DEP3 + unified(own["a"], lines(l30="ours", l50="debian"), "a"),
            "plain.diff": "Free text, a line\nand more.\n\nIndex: b\n=====\n"
            + unified(own["b"], lines(l10="ours", l20="plain"), "b", ("", "")),
            "new.patch": "--- /dev/null\n+++ b/new/file\n@@ -0,0 +1 @@\n+new\n",
            # With the signature of a mail, which begins like a line that is removed.
            "crlf.patch": unified(moved, moved.replace(b"line 5\n", b"five\n"), "a").replace(
                "\n", "\r\n"
            )
            + "-- \r\n2.39.3 (Apple Git-146)\r\n\r\n",
            "fuzz.patch": "Subject: with fuzz\nFrom: F <f@e>\n\n"
            + unified(wider, wider.replace(b"line 41", b"fuzzy"), "b"),
            "series": "# order\ndep3.patch\nplain.diff -p0 # old\n\n"
            "new.patch\ncrlf.patch\nfuzz.patch",
        },
    )
    rows = imported(site, str(tmp_path))
    assert [row["did"] for row in rows] == [
        [],
        ["names no author", "Upstream-Status: Pending"],
        ["names no author", "Upstream-Status: Pending"],
        [
            "hunks moved by up to 3 lines",
            "CRLF line ends removed",
            "names no author",
            "Upstream-Status: Pending",
        ],
        ["fuzz 2", "Upstream-Status: Pending"],
    ]
    assert [row["pending"] for row in rows] == [False, True, True, True, True]
    assert [row["name"] for row in rows][::4] == [
        "0030-read-the-other-file.patch",
        "0070-with-fuzz.patch",
    ]
    patches = load_series(site.patches).patches
    assert patches[2].mail.author == "Deb Ian <d@example.org>"
    assert patches[2].trailer("Upstream-Status") == ["Submitted [https://example.org/pull/7]"]
    assert patches[3].mail.message.startswith("Free text, a line\n\nand more.\n")
    assert patched(site, "a") == lines(l30="ours", l50="debian", l5="five")
    assert patched(site, "b") == lines(l10="ours", l20="plain", l41="fuzzy")
    assert patched(site, "new/file") == b"new\n"
    site.run("export", "demo", "--check")


def test_a_mailbox_is_split_and_keeps_who_and_when(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "other"
    support.make_upstream(other, {"a": lines(l30="ours"), "b": lines(l10="ours")})
    one = support.make_patch(other, {"a": lines(l30="ours", l1="one")}, subject="BUG: one")
    two = support.make_patch(other, {"new": "two\n"}, subject="ENH: two", body="From here on.\n")
    (tmp_path / "15471.patch").write_bytes(one + b"\n" + two)
    rows = imported(site, f"file://{tmp_path}/15471.patch")
    assert [row["name"] for row in rows] == ["0030-bug-one.patch", "0040-enh-two.patch"]
    assert "ENH: two\n\nFrom here on.\n\nUpstream-Status: Pending" in (
        load_series(site.patches).patches[3].mail.message
    )
    assert patched(site, "new") == b"two\n"


def upstream(site: Site, folder: Path) -> Path:
    """Give the fork a repository: the pin, one commit, and a merge of another."""
    first: dict[str, str | bytes | None] = {"a": lines(), "b": lines()}
    first |= {"pyproject.toml": PYPROJECT.format("1.0"), **own_files(folder.parent, "1.0")}
    support.make_upstream(folder, first, tag="v1.0")
    path = site.root / "forks.toml"
    path.write_text(f'{path.read_text()}git = "file://{folder}"\ntag = "v1.0"\n')
    site.run("lock")
    support.make_patch(folder, {"a": lines(l1="fixed")}, subject="BUG: fixed")
    support.git(folder, "checkout", "-q", "-b", "feature")
    support.make_patch(folder, {"b": lines(l50="merged")}, subject="ENH: merged")
    support.git(folder, "checkout", "-q", "main")
    support.git(folder, "merge", "-q", "--no-ff", "-m", "Merge feature", "feature")
    return folder


def test_commits_of_upstream_are_backports(site: Site, tmp_path: Path) -> None:
    folder = upstream(site, tmp_path / "upstream")
    merge, fix, merged = (support.git(folder, "rev-parse", r) for r in ("main", "main^", "main^2"))
    assert [row["name"] for row in imported(site, fix[:12], merge)] == [
        "0030-bug-fixed.patch",
        "0040-enh-merged.patch",
    ]
    found = load_series(site.patches).patches
    assert [p.trailer("Upstream-Status") for p in found[2:]] == [
        [f"Backport [{fix}]"],
        [f"Backport [{merged}]"],
    ]
    assert "already applied" in refused(site, f"v1.0..{fix}")
    assert "no commit or range" in refused(site, "nonsense", status=4)
    assert "did you mean feature?" in refused(site, "featur", status=4)
    assert "did you mean v1.0?" in refused(site, "v1.O..main", status=4)
    said = refused(site, f"file://{folder}@featrue", status=4)
    assert "has no branch 'featrue' (did you mean 'feature'?)" in said


def test_a_branch_is_imported_from_where_it_left_upstream(site: Site, tmp_path: Path) -> None:
    folder = upstream(site, tmp_path / "upstream")
    mine = tmp_path / "mine"
    support.git(tmp_path, "clone", "-q", str(folder), str(mine))
    support.git(mine, "checkout", "-q", "-b", "demo/x", "v1.0")
    support.make_patch(mine, {"new": "1\n"}, subject="ENH: first")
    support.git(mine, "merge", "-q", "-m", "Merge main", "origin/main")
    support.make_patch(mine, {"new": "2\n"}, subject="ENH: second")
    rows = imported(site, f"file://{mine}@demo/x")
    assert [row["name"] for row in rows] == ["0030-enh-first.patch", "0040-enh-second.patch"]
    # Of upstream itself: all that is behind the pin.
    rows = imported(site, f"file://{folder}@feature")
    assert [row["name"][5:] for row in rows] == ["bug-fixed.patch", "enh-merged.patch"]


def test_what_fits_in_two_places_is_refused_with_both(site: Site, tmp_path: Path) -> None:
    twice = "".join(f"x{n}\nsame\nthe\nold\nlines\nhere\n" for n in (1, 2))
    folder = tmp_path / "p"
    add = "--- /dev/null\n+++ b/twice\n@@ -0,0 +1,12 @@\n"
    diff = (
        "--- a/twice\n+++ b/twice\n@@ -1,6 +1,6 @@\n x9\n same\n the\n-old\n+new\n lines\n here\n"
    )
    rows = "".join(f"+{line}\n" for line in twice.splitlines())
    support.write(
        folder, {"1.patch": add + rows, "2.patch": diff.replace("-1,6 +1,6", "-5,6 +5,6")}
    )
    said = refused(site, str(folder))
    assert "2.patch" in said
    assert "its lines occur 2 times in twice, in lines 2, 8" in said
    assert "nothing of demo was changed" in said
    assert "patchwheel export" not in said


def test_a_patch_without_context_goes_where_its_line_numbers_say(
    site: Site, tmp_path: Path
) -> None:
    folder = tmp_path / "p"
    hunks = {
        "change": ("@@ -20 +20 @@", "-line 20", "+changed"),
        "first": ("@@ -1 +1 @@", "-line 1", "+first"),
        "insert": ("@@ -40,0 +41 @@", "+inserted"),
        "append": ("@@ -61,0 +62 @@", "+appended"),
        "remove": ("@@ -5 +4,0 @@", "-line 5"),
        # Three lines further down than it says: there is only one such line.
        "moved": ("@@ -47 +47 @@", "-line 50", "+moved"),
    }
    names = [f"{name}.patch" for name in hunks]
    text = "Subject: {0}\nUpstream-Status: Pending\n\n--- a/a\n+++ b/a\n{1}\n"
    files = zip(names, hunks.items(), strict=True)
    support.write(folder, {f: text.format(name, "\n".join(h)) for f, (name, h) in files})
    support.write(folder, {"series": "".join(f"{name}\n" for name in names)})
    rows = imported(site, str(folder))
    assert all("no context, placed by line numbers" in row["did"] for row in rows)
    assert "hunks moved by up to 3 lines" in rows[-1]["did"]
    changed = lines(l1="first", l20="changed", l30="ours", l40="line 40\ninserted", l50="moved")
    assert patched(site, "a") == changed.replace(b"line 5\n", b"") + b"appended\n"
    # It is written with context, as git takes it.
    assert "\n line 19\n-line 20\n+changed\n line 21\n" in (
        (site.patches / "0030-change.patch").read_text()
    )
    site.run("export", "demo", "--check")


def test_a_patch_without_context_that_fits_nowhere_is_refused(site: Site, tmp_path: Path) -> None:
    head = "Subject: x\n\n--- a/a\n+++ b/a\n"
    (tmp_path / "far.patch").write_text(f"{head}@@ -70,0 +71 @@\n+beyond\n")
    assert "hunk 1 does not match a" in refused(site, str(tmp_path / "far.patch"))
    (tmp_path / "gone.patch").write_text(f"{head}@@ -7 +7 @@\n-gone\n+x\n")
    assert "hunk 1 does not match a" in refused(site, str(tmp_path / "gone.patch"))
    # In a series git holds it to an end of the file: import is what helps.
    (site.patches / "0030-x.patch").write_text(
        f"From: A <a@e>\n{head[:11]}\nUpstream-Status: Pending\n\n"
        "diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -7 +7 @@\n-line 7\n+x\n"
    )
    (site.patches / "series").write_text("0010-a.patch\n0020-b.patch\n0030-x.patch\n")
    said = site.run("dev", "demo", status=3)
    assert "`patchwheel import` takes a patch without context (-U0)" in said


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"series": "no.patch\n"}, "series:1: there is no patch no.patch"),
        ({"series": "x.patch -R\n", "x.patch": ""}, "cannot read the option -R"),
        ({"x.patch": "rename from a\n"}, "x.patch: the patch holds no diff"),
        ({"x.patch": ""}, "x.patch: the patch holds no diff"),
        (
            {"x.patch": "diff --git a b\nrename from a\nrename to c\n"},
            "cannot read the paths",
        ),
        ({"x.patch": "--- a/c\n+++ b/c\n@@ -1 +1 @@\n-x\n+y\n"}, "there is no file c"),
        # The line is that of the file, not of the mail that is made of it.
        ({"x.patch": "--- a/a\n+++ b/a\n@@ -1,2 +1 @@\n-x\n"}, "x.patch:3: its hunk is truncated"),
        (
            {"x.patch": "why\r\n--- a/a\r\n+++ b/a\r\n@@ -1 +1 @@\r\n-gone\r\n+y\r\n"},
            "x.patch:4: x.patch does not apply: hunk 1 does not match a",
        ),
    ],
)
def test_what_cannot_be_imported_is_refused(
    site: Site, tmp_path: Path, files: dict[str, str | bytes | None], said: str
) -> None:
    support.write(tmp_path / "p", files)
    told = refused(site, str(tmp_path / "p"))
    assert said in told
    # It lies in no series yet.
    assert "out of the series" not in told


def test_an_empty_place_and_an_address_without_answer_are_refused(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "p").mkdir()
    assert "there are no patches" in refused(site, str(tmp_path / "p"), status=4)
    # It is looked for in no repository of upstream's.
    told = refused(site, str(tmp_path / "p/no.patch"), status=4)
    assert told.endswith("no.patch: there is no such file\n")
    words = ("https://example.invalid/1.patch", "--offline")
    assert "not downloaded offline" in refused(site, *words, status=4)


def test_work_that_was_not_exported_is_neither_lost_nor_in_the_way(
    site: Site, tmp_path: Path
) -> None:
    site.run("dev", "demo")
    support.write(site.work, {"mine": "1\n"})
    patch = tmp_path / "x.patch"
    patch.write_text("Subject: x\n\n--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+x\n")
    said = refused(site, str(patch))
    assert "there are changes without a commit: mine" in said
    site.git("add", "mine")
    site.git("commit", "-q", "-m", "ENH: mine", "-m", "Upstream-Status: Pending")
    assert "next: `patchwheel export demo`" in refused(site, str(patch))
    site.run("export", "demo")
    imported(site, str(patch))
    # The open work tree has the new patch too.
    assert (site.work / "new").exists()
    assert site.git("log", "-1", "--format=%s") == "x"


def test_every_command_of_the_page_runs(site: Site, tmp_path: Path) -> None:
    folder = upstream(site, tmp_path / "upstream")
    support.git(folder, "branch", "maintenance/1.18.x", "feature~")
    support.git(folder, "tag", "v1.18.1", "v1.0")
    support.make_patch(folder, {"c": "1\n"}, subject="ENH: c")
    support.git(folder, "checkout", "-q", "-b", "array-api-gpu-demo", "v1.0")
    support.make_patch(folder, {"d": "1\n"}, subject="ENH: d")
    text = "--- /dev/null\n+++ b/{0}\n@@ -0,0 +1 @@\n+x\n"
    names = ("patches/x.patch", "fixes.mbox", "one.patch", "15471.patch")
    support.write(tmp_path, {n: f"Subject: x\n\n{text.format(f'{n}.new')}" for n in names})
    known = {
        "scipy": "demo",
        "../numpy/debian/patches": str(tmp_path / "patches"),
        "fixes.mbox": str(tmp_path / "fixes.mbox"),
        "one.patch": str(tmp_path / "one.patch"),
        "https://github.com/scipy/scipy/pull/15471.patch": f"file://{tmp_path}/15471.patch",
        "https://github.com/aktech/scipy@array-api-gpu-demo": f"file://{folder}@array-api-gpu-demo",
        "3f342072018b": support.git(folder, "rev-parse", "main")[:12],
    }
    page = (support.ROOT / "docs/how-to/import.md").read_text()
    # Those to offer a patch are run where that is tested.
    commands = re.findall(r"(?m)^    patchwheel (?!submit|test)(.+)$", page)
    assert len(commands) == 8
    for command in commands:
        site.run(*(known.get(word, word) for word in command.split()))
    assert [p.name[5:] for p in load_series(site.patches).patches[2:]] == [
        *4 * ["x.patch"],
        "enh-d.patch",
        "enh-c.patch",
        "bug-fixed.patch",
    ]


def test_a_kill_leaves_the_old_series_or_the_new_one(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    text = "Subject: add {0}\n\n--- /dev/null\n+++ b/new{0}\n@@ -0,0 +1 @@\n+x\n"
    support.write(folder, {f"{n}.patch": text.format(n) for n in range(5)})
    before = site.state()
    started = time.monotonic()
    undisturbed = site.at(tmp_path / "undisturbed" / "project")
    undisturbed.start("import", "demo", str(folder)).communicate()
    took = time.monotonic() - started
    chance = random.Random(17)
    for _ in range(6):
        process = site.start("import", "demo", str(folder))
        time.sleep(chance.uniform(0.2, took))
        process.kill()
        process.communicate()
        site.run("status", "--offline")
        if site.state() != before:
            break
    if site.state() == before:
        imported(site, str(folder))
    assert site.state() == undisturbed.state()
