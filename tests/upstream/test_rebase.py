"""A series goes to another pin: merged in memory, rebased in a work tree, put in place at once."""

import itertools
import json
import os
import random
import shutil
import subprocess
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from patchwheel.cli import tables
from patchwheel.kit.errors import MachineError, ManifestError, PatchError, PatchwheelError
from patchwheel.kit.repo import GitError
from patchwheel.manifest import transaction
from patchwheel.manifest.model import EnvironmentSpec, Manifest, Sdist
from patchwheel.series.apply import apply_series
from patchwheel.series.export import ExportResult, export_commits
from patchwheel.series.files import load_series
from patchwheel.series.worktree import EXPORTED, WorkTree, open_work
from patchwheel.source.fetch import Source
from patchwheel.upstream import rebase
from patchwheel.upstream.adding import with_pin
from patchwheel.upstream.merge import KEPT, Conflict, MergeResult, dry_run
from tests.fixtures import support
from tests.fixtures.patches import NOISE, Files, Kit, mail, numbered, with_line

LINES = numbered(1, 60)


class Move:
    """A series of patches to a pin with the files a and b, and another pin to move it to."""

    def __init__(self, kit: Kit, new: Files, *patches: bytes, base: Files | None = None) -> None:
        self.kit = kit
        self.base: Files = base or {"a": LINES, "b": LINES}
        series = kit.series(*(patches or self.patches()))
        self.tree = apply_series(kit.source(self.base), series, store=kit.store)
        onto = kit.source(new)
        fork = replace(onto.fork, version="2.0", sdist=Sdist(filename="d-2.0.tar.gz", sha256="0"))
        self.onto: Source = replace(onto, fork=fork)

    def patches(self) -> list[bytes]:
        first = self.kit.diff({"a": LINES}, {"a": with_line(30)})
        second = self.kit.diff({"b": LINES}, {"b": with_line(10)})
        return [mail(first, subject="ENH: a"), mail(second, subject="ENH: b")]

    def dry_run(self) -> tuple[MergeResult, ...]:
        trees, labels = (self.tree.source.tree, self.onto.tree), ("upstream 1.0", "upstream 2.0")
        return dry_run(self.kit.repo, self.tree.series.patches, trees, labels)

    def start(self) -> None:
        rebase.start(self.tree, self.onto, self.kit.work, store=self.kit.store)

    def stops(self, message: str) -> PatchError:
        with pytest.raises(PatchError, match=message) as caught:
            self.start()
        return caught.value

    def resume(self, message: str | None = None, how: str = "continue", **files: bytes) -> None:
        """Put files in place as resolved and go on, to the end or to a message."""
        for name, data in files.items():
            (self.kit.work / name).write_bytes(data)
            self.git("add", name)
        with pytest.raises(PatchError, match=message) if message else nullcontext():
            rebase.resume(self.kit.work, how)

    def finish(self) -> ExportResult:
        result = self.settle()
        rebase.state_path(self.kit.work).unlink()
        return result

    def settle(self) -> ExportResult:
        rebase.set_base(self.kit.work, self.onto)
        return export_commits(self.kit.work, self.onto, store=self.kit.store)

    def files(self) -> dict[str, bytes]:
        names = self.git("ls-files").splitlines()
        return {name: (self.kit.work / name).read_bytes() for name in names}

    def git(self, *words: str) -> str:
        return support.git(self.kit.work, *words)


def stopped(kit: Kit) -> Move:
    move = Move(kit, {"a": with_line(30, "theirs"), "b": LINES})
    move.stops("conflicts in a")
    return move


def test_what_upstream_changed_elsewhere_is_merged_in_memory(kit: Kit) -> None:
    move = Move(kit, {"a": b"new\n" + LINES, "b": numbered(1, 60, l8="theirs")})
    one, two = move.dry_run()
    assert (one.state, two.state) == ("offset", "merged")


def test_all_conflicts_are_told_at_once_with_labelled_markers(kit: Kit) -> None:
    move = Move(kit, {"a": with_line(30, "theirs"), "b": with_line(10, "theirs")})
    one, two = move.dry_run()
    assert (one.state, two.state) == ("conflict", "conflict")
    [conflict] = one.conflicts
    assert (conflict.path, conflict.why) == ("a", "1 conflict")
    marked = conflict.text.splitlines()[29:36]
    assert marked == [
        "<<<<<<< upstream 2.0",
        "theirs",
        "||||||| upstream 1.0",
        "line 30",
        "=======",
        "ours",
        ">>>>>>> 0010-p.patch",
    ]
    assert json.loads(json.dumps(asdict(one)))["name"] == "0010-p.patch"


@pytest.mark.parametrize("back", [False, True])
def test_other_line_ends_are_one_line_and_no_file_of_conflicts(kit: Kit, *, back: bool) -> None:
    unix, dos = LINES, LINES.replace(b"\n", b"\r\n")
    old, new = (dos, unix) if back else (unix, dos)
    one = kit.diff({"a": old}, {"a": old.replace(b"line 30", b"ours")})
    further = old.replace(b"line 30", b"ours").replace(b"line 50", b"more")
    two = kit.diff({"a": old.replace(b"line 30", b"ours")}, {"a": further})
    patches = [mail(one), mail(two, subject="ENH: more")]
    first, second = Move(kit, {"a": new, "b": b"x\n"}, *patches, base={"a": old}).dry_run()
    [conflict] = first.conflicts
    ends = "from CRLF to LF" if back else "from LF to CRLF"
    assert conflict.why == f"upstream changed its line ends {ends}"
    assert (conflict.text, conflict.spans) == ("", ())
    # It is told once, for the first patch.
    assert second.conflicts == ()


def test_a_file_that_moved_is_followed(kit: Kit) -> None:
    move = Move(kit, {"c/a": b"new\n" + LINES, "b": LINES})
    one, two = move.dry_run()
    assert (one.state, dict(one.moved)) == ("merged", {"a": "c/a"})
    assert two.state == "clean"


FACADE = b"from elsewhere import *\n"


def test_a_file_that_moved_and_left_one_of_its_name_is_followed(kit: Kit) -> None:
    moved: Files = {"c/a": b"new\n" + LINES, "a": FACADE, "b": LINES}
    one, two = Move(kit, moved).dry_run()
    assert (one.state, dict(one.moved)) == ("merged", {"a": "c/a"})
    assert two.state == "clean"


def test_a_copy_of_a_file_that_is_still_there_is_not_taken_for_it(kit: Kit) -> None:
    copied: Files = {"a": with_line(2, "x"), "copy": LINES, "b": LINES}
    one, _ = Move(kit, copied).dry_run()
    assert (one.state, one.moved) == ("clean", ())


def test_a_conflict_is_told_once_and_not_of_the_patches_that_build_on_it(kit: Kit) -> None:
    states: list[Files] = [
        {"a": LINES, "b": LINES},
        {"a": with_line(30), "b": LINES},
        {"a": numbered(1, 60, l30="ours", l31="ours"), "b": LINES},
    ]
    patches = [
        mail(kit.diff(old, new), subject="ENH: a") for old, new in itertools.pairwise(states)
    ]
    move = Move(kit, {"a": with_line(30, "theirs"), "b": LINES}, *patches)
    assert [patch.state for patch in move.dry_run()] == ["conflict", "clean"]


@pytest.mark.parametrize(
    ("new", "state", "why"),
    [
        ({"b": LINES}, "conflict", "upstream removed it"),
        ({"a": with_line(30), "b": LINES}, "landed", None),
        ({"a": numbered(1, 60, l30="ours", l33="x"), "b": LINES}, "landed", None),
        ({"a": numbered(1, 60, l30="ours", l33="x") + b"line 30\n", "b": LINES}, "conflict", KEPT),
    ],
)
def test_what_is_gone_and_what_landed(kit: Kit, new: Files, state: str, why: str | None) -> None:
    one, _ = Move(kit, new).dry_run()
    assert one.state == state
    assert [c.why for c in one.conflicts] == ([why] if why else [])


@pytest.mark.parametrize(
    ("old", "ours", "new", "why"),
    [
        ({}, {"n": b"1\n"}, {"n": b"2\n"}, "upstream added it too"),
        ({"n": b"1\n"}, {}, {"n": b"2\n"}, "the patch removes it, and upstream"),
        ({"n": b"\0\1"}, {"n": b"\0\2"}, {"n": b"\0\3"}, "it is binary"),
    ],
)
def test_what_cannot_be_merged_is_said(
    kit: Kit, old: Files, ours: Files, new: Files, why: str
) -> None:
    keep: Files = {"k": b"k\n"}
    patch = mail(kit.diff({**keep, **old}, {**keep, **ours}))
    series = kit.series(patch)
    trees = (kit.tree({**keep, **old}), kit.tree({**keep, **new}))
    [merged] = dry_run(kit.repo, series.patches, trees, ("old", "new"))
    assert merged.state == "conflict"
    assert merged.conflicts[0].why.startswith(why)


SIDES = (LINES, with_line(30), with_line(30, "theirs"))


def one_conflict(kit: Kit, old: Files, ours: Files, new: Files) -> Conflict:
    move = Move(kit, new, mail(kit.diff(old, ours, "-M")), base=old)
    [result] = move.dry_run()
    assert result.state == "conflict"
    [conflict] = result.conflicts
    return conflict


def test_upstreams_size_of_conflict_markers_counts(kit: Kit) -> None:
    sized: Files = {"d/.gitattributes": b"a conflict-marker-size=12\n"}
    old, ours, new = ({"d/a": text, **sized} for text in SIDES)
    conflict = one_conflict(kit, old, ours, new)
    assert conflict.why == "1 conflict"
    assert conflict.spans == ((30, 36),)
    lines = conflict.text.splitlines()
    assert lines[29] == "<" * 12 + " upstream 2.0"
    assert lines[35] == ">" * 12 + " 0010-p.patch"
    [shown] = tables._marked(conflict)
    assert shown.splitlines() == ["@@ line 30", *lines[29:36]]


def test_attributes_of_an_earlier_patch_count(kit: Kit) -> None:
    old, ours, new = SIDES
    sized: Files = {".gitattributes": b"a conflict-marker-size=9\n"}
    states: list[Files] = [{"a": old}, {"a": old, **sized}, {"a": ours, **sized}]
    patches = [mail(kit.diff(*pair)) for pair in itertools.pairwise(states)]
    first, second = Move(kit, {"a": new}, *patches, base=states[0]).dry_run()
    assert first.state == "clean"
    assert "\n" + "<" * 9 + " upstream 2.0\n" in second.conflicts[0].text


def test_upstreams_merge_driver_merges(kit: Kit) -> None:
    union: Files = {".gitattributes": b"a merge=union\n"}
    states: list[Files] = [{"a": text, **union} for text in SIDES]
    old, ours, new = states
    [result] = Move(kit, new, mail(kit.diff(old, ours)), base=old).dry_run()
    assert (result.state, result.conflicts) == ("merged", ())
    declared: Files = {".gitattributes": b"a -merge\n"}
    states = [{"a": text, **declared} for text in SIDES]
    old, ours, new = states
    conflict = one_conflict(kit, old, ours, new)
    assert (conflict.why, conflict.text) == (
        "it is binary, a link or declared so, and both changed it",
        "",
    )


@pytest.mark.parametrize("says", ["merge=ours", "text", "text eol=crlf", "export-ignore", "ident"])
def test_other_attributes_of_upstream_change_no_merge(kit: Kit, says: str) -> None:
    """The driver of `ours` is in nobody's settings that count: it merges as text, as in git."""
    declared: Files = {".gitattributes": f"a {says}\n".encode()}
    old, ours, new = ({"a": text, **declared} for text in SIDES)
    conflict = one_conflict(kit, old, ours, new)
    plain: list[Files] = [{"a": text} for text in SIDES]
    assert conflict.why == one_conflict(Kit(kit.root / "plain"), *plain).why


def test_content_that_looks_like_markers_is_no_conflict(kit: Kit) -> None:
    quoted = "<<<<<<< a\n=======\n>>>>>>> b"
    old, ours, new = (
        numbered(1, 60, l10=quoted, l30=text, l31=f"{text}\n=======")
        for text in ("line", "ours", "theirs")
    )
    conflict = one_conflict(kit, {"a": old}, {"a": ours}, {"a": new})
    assert conflict.why == "1 conflict"
    assert len(conflict.spans) == 1
    [shown] = tables._marked(conflict)
    assert shown.startswith("@@ line 32\n<<<<<<< upstream 2.0\ntheirs\n")
    assert shown.endswith("\n>>>>>>> 0010-p.patch")


ONLY_OURS = "upstream alone has it there: the patch moved it, or has a folder there"
ONLY_THEIRS = "the patch alone has it there: upstream moved it or its folder, or has a folder there"
FOLDER: Files = {f"d/{name}": name.encode() * 99 for name in ("p", "q")}
# The pin, the patch's result, upstream's, the path in conflict and what is said of it.
STAGES: dict[str, tuple[Files, Files, Files, dict[str, str]]] = {
    "removed by upstream": ({"a": LINES}, {"a": with_line(3)}, {}, {"a": "upstream removed it"}),
    "removed by the patch": (
        {"a": LINES},
        {},
        {"a": with_line(3)},
        {"a": "the patch removes it, and upstream changed it"},
    ),
    "added by both": (
        {},
        {"a": b"1\n"},
        {"a": b"2\n"},
        {"a": "upstream added it too, with other content"},
    ),
    "moved by both": (
        {"a": LINES},
        {"b": LINES},
        {"c": LINES},
        {
            "a": "upstream and the patch moved it, to different places",
            "b": ONLY_THEIRS,
            "c": ONLY_OURS,
        },
    ),
    "a folder in its place": ({}, {"a": b"1\n"}, {"a/b": b"2\n"}, {"a~0010-p.patch": ONLY_THEIRS}),
    "its folder moved": (
        FOLDER,
        {**FOLDER, "d/new": b"1\n"},
        {path.replace("d", "e"): data for path, data in FOLDER.items()},
        {"e/new": ONLY_THEIRS},
    ),
    "a link": (
        {"a": ("120000", b"x")},
        {"a": ("120000", b"y")},
        {"a": ("120000", b"z")},
        {"a": "it is binary, a link or declared so, and both changed it"},
    ),
}


@pytest.mark.parametrize("case", STAGES)
def test_every_kind_of_conflict_is_explained(kit: Kit, case: str) -> None:
    keep: Files = {"k": b"k\n"}
    old, ours, new, expected = STAGES[case]
    old, ours, new = ({**keep, **files} for files in (old, ours, new))
    [result] = Move(kit, new, mail(kit.diff(old, ours)), base=old).dry_run()
    assert result.state == "conflict"
    assert {conflict.path: conflict.why for conflict in result.conflicts} == expected


@pytest.mark.parametrize(
    "texts",
    [
        (LINES, with_line(30), with_line(40, "more"), None),
        (b"\0\1", b"\0\2", b"\0\4", b"\0\3"),
        (None, b"1\n", b"2\n", b"3\n"),
    ],
    ids=["removed by upstream", "binary", "added by both"],
)
def test_a_conflict_of_any_kind_is_told_once(kit: Kit, texts: tuple[bytes | None, ...]) -> None:
    states: list[Files] = [{"k": b"k\n", **({"a": text} if text else {})} for text in texts]
    old, first, second, new = states
    patches = [mail(kit.diff(*pair)) for pair in itertools.pairwise([old, first, second])]
    results = Move(kit, new, *patches, base=old).dry_run()
    assert [result.state for result in results] == ["conflict", "clean"]


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [(129, MachineError, "git cannot merge trees"), (128, GitError, "status 128")],
)
def test_a_git_that_cannot_merge_trees_is_told_from_one_that_failed(
    kit: Kit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    error: type[PatchwheelError],
    message: str,
) -> None:
    fails = f'case " $* " in *" merge-tree "*) exit {status};; esac'
    text = f'#!/bin/sh\n{fails}\nexec {shutil.which("git")} "$@"\n'
    support.write(tmp_path / "bin", {"git": text})
    (tmp_path / "bin" / "git").chmod(0o755)
    move = Move(kit, {"a": b"new\n" + LINES, "b": LINES})
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    with pytest.raises(error, match=message) as caught:
        move.dry_run()
    assert (status == 129) == ("git 2.38 or newer" in str(caught.value.hint))


def test_a_series_moves_and_patches_that_only_shifted_keep_their_bytes(kit: Kit) -> None:
    move = Move(kit, {"a": b"new\n" + LINES, "b": numbered(1, 60, l8="theirs")})
    before = (kit.folder / "0010-p.patch").read_bytes()
    move.start()
    sdist = {"filename": "d-2.0.tar.gz", "sha256": "0"}
    pin = {"version": "2.0", "tag": None, "commit": None, "sdist": sdist}
    assert rebase.state(kit.work).pin == pin
    result = move.finish()
    assert (result.kept, result.written) == (("0010-p.patch",), ("0020-p.patch",))
    first, second = [r for r in result.range_diff.splitlines() if "ENH" in r]
    assert ("=" in first, "!" in second) == (True, True)
    assert (kit.folder / "0010-p.patch").read_bytes() == before
    assert not rebase.state_path(kit.work).exists()
    expected = {"a": b"new\n" + with_line(30), "b": numbered(1, 60, l8="theirs", l10="ours")}
    assert move.files() == expected
    again = apply_series(move.onto, load_series(kit.folder), store=kit.store)
    assert kit.content(again.tree) == expected


def test_after_a_clean_rebase_fifty_patches_are_the_files_that_they_were(kit: Kit) -> None:
    """Plain `git format-patch` writes every one of them anew, for line numbers and ids."""
    rng = random.Random(50)
    state: Files = {f"f{n}": numbered(1, 200) for n in range(25)}
    base, patches = dict(state), []
    for number in range(50):
        path, line = f"f{number % 25}", rng.randrange(20, 90) + 90 * (number // 25)
        old = state[path]
        assert isinstance(old, bytes)
        new = old.replace(b"line %d\n" % line, b"ours %d\n" % number)
        diff = kit.diff({path: old}, {path: new})
        patches.append(mail(diff, subject=f"ENH: change {number}"))
        state = {**state, path: new}
    moved: Files = {
        path: b"new\n" * (n + 1) + data.replace(b"line 5\n", b"theirs\n")
        for n, (path, data) in enumerate(base.items())
        if isinstance(data, bytes)
    }
    move = Move(kit, moved, *patches, base=base)
    open_work(move.tree, kit.work, store=kit.store)
    assert not export_commits(kit.work, move.tree.source, store=kit.store).changed
    plain = [format_patches(kit, EXPORTED, kit.root / "plain-old")]
    move.start()
    result = move.finish()
    plain.append(format_patches(kit, "HEAD", kit.root / "plain-new"))
    assert len(plain[0]) == len(plain[1]) == 50
    assert all(old != new for old, new in zip(*plain, strict=True))
    assert (result.written, len(result.kept)) == ((), 50)
    assert not export_commits(kit.work, move.onto, store=kit.store).changed


def format_patches(kit: Kit, tip: str, folder: Path) -> list[bytes]:
    base = support.git(kit.work, "rev-list", "--max-parents=0", tip)
    words = ("format-patch", "-q", "-o", str(folder), f"{base}..{tip}")
    support.git(kit.work, *words)
    # The first line is the commit's id.
    found = sorted(folder.iterdir())
    return [path.read_bytes().partition(b"\n")[2] for path in found]


def test_it_stops_at_a_conflict_and_goes_on(kit: Kit) -> None:
    move = Move(kit, {"a": with_line(30, "theirs"), "b": LINES})
    error = move.stops("'ENH: a' conflicts in a")
    assert "--continue" in str(error.hint)
    text = (kit.work / "a").read_text()
    assert "<<<<<<< " in text
    assert "||||||| " in text
    move.resume("conflicts in a")
    move.resume(a=with_line(30, "both"))
    move.finish()
    assert move.files() == {"a": with_line(30, "both"), "b": with_line(10)}
    assert move.git("log", "--format=%s", "-2").splitlines() == ["ENH: b", "ENH: a"]
    assert move.git("log", "--format=%an <%ae>", "-1") == "Zoe Example <z@example.org>"


def test_a_conflict_that_was_added_with_its_markers_is_not_taken_for_resolved(kit: Kit) -> None:
    move = stopped(kit)
    move.git("add", "a")
    move.resume("markers of a conflict are left in a")
    assert WorkTree(kit.work).unfinished()
    # With git itself one can go on: what it made is not exported.
    move.git("commit", "-q", "--no-edit")
    move.resume()
    with pytest.raises(PatchError, match="markers of a conflict are left in a"):
        move.finish()


def sized(size: str) -> Files:
    return {".gitattributes": f"a conflict-marker-size={size}\n".encode()}


@pytest.mark.parametrize(
    ("attributes", "info", "path", "size", "end", "style"),
    [
        (sized("32"), "", "a", 32, b"\n", "zdiff3"),
        (sized("32"), "", "a", 32, b"\r\n", "merge"),
        (sized("3"), "", "a", 3, b"\n", "diff3"),
        (sized("1"), "", "a", 1, b"\r\n", "zdiff3"),
        (sized("0"), "", "a", 7, b"\r\n", "diff3"),
        (sized("long"), "", "a", 7, b"\n", "merge"),
        (sized("9"), "a conflict-marker-size=12\n", "a", 12, b"\n", "zdiff3"),
        ({"d/.gitattributes": sized("5")[".gitattributes"]}, "", "d/a", 5, b"\n", "merge"),
        ({".gitattributes": b"a -diff\n"}, "", "a", 7, b"\n", "zdiff3"),
    ],
)
def test_markers_are_found_however_git_was_told_to_write_them(
    kit: Kit,
    monkeypatch: pytest.MonkeyPatch,
    attributes: Files,
    info: str,
    path: str,
    size: int,
    end: bytes,
    style: str,
) -> None:
    settings = tuple(
        f"merge.conflictStyle={style}" if "conflictStyle" in word else word
        for word in rebase.SETTINGS
    )
    monkeypatch.setattr(rebase, "SETTINGS", settings)
    texts = [LINES, with_line(30), with_line(30, "theirs")]
    was, ours, theirs = (text.replace(b"\n", end) for text in texts)
    base: Files = {path: was, **attributes}
    patch = mail(kit.diff({path: was}, {path: ours}), subject="ENH: a")
    move = Move(kit, {**base, path: theirs}, patch, base=base)
    open_work(move.tree, kit.work, store=kit.store)
    with (kit.work / ".git" / "info" / "attributes").open("a") as file:
        file.write(info)
    move.stops(f"conflicts in {path}")
    opening = b"\n" + b"<" * size + b" HEAD" + end
    assert opening in (kit.work / path).read_bytes()
    move.git("add", path)
    with pytest.raises(PatchError, match=f"a conflict are left in {path}") as caught:
        move.resume()
    assert "git add FILE and --continue again" in str(caught.value.hint)
    move.git("commit", "-q", "--no-edit")
    move.resume()
    with pytest.raises(PatchError, match=f"a conflict are left in {path}"):
        move.finish()


def test_a_patch_that_makes_markers_longer_hides_no_shorter_ones(kit: Kit) -> None:
    base: Files = {"a": LINES}
    diff = kit.diff(base, {"a": with_line(30), **sized("32")})
    move = Move(kit, {"a": with_line(30, "theirs")}, mail(diff), base=base)
    move.stops("conflicts in a")
    assert "\n<<<<<<< HEAD\n" in (kit.work / "a").read_text()
    move.git("add", "a")
    move.resume("markers of a conflict are left in a")


@pytest.mark.parametrize("mark", ["<", "|", ">"])
def test_one_marker_that_was_left_is_found(kit: Kit, mark: str) -> None:
    move = stopped(kit)
    lines = (kit.work / "a").read_text().splitlines()
    [left] = [line for line in lines if line.startswith(mark * 7)]
    move.resume("markers of a conflict are left in a", a=with_line(30, left))


def test_a_heading_in_a_conflict_is_resolved(kit: Kit) -> None:
    move = stopped(kit)
    both = with_line(30, "Heading\n=======\n>>>>>>> quoted\n")
    move.resume(a=both)
    move.finish()
    assert move.files()["a"] == both


def test_markers_that_the_series_has_are_no_conflict(kit: Kit) -> None:
    base: Files = {"a": LINES}
    meant = b"<<<<<<< ours\n1\n=======\n2\n>>>>>>> theirs\n"
    ours: Files = {"a": with_line(30), "t": meant}
    patch = mail(kit.diff(base, ours), subject="ENH: a")
    move = Move(kit, {"a": with_line(30, "theirs")}, patch, base=base)
    move.stops("conflicts in a")
    move.git("add", "a")
    move.resume("markers of a conflict are left in a")
    move.resume(a=with_line(30, "both"))
    move.finish()
    assert move.files() == {"a": with_line(30, "both"), "t": meant}


def test_a_patch_can_be_dropped_on_the_way(kit: Kit) -> None:
    move = stopped(kit)
    move.resume(how="skip")
    result = move.finish()
    assert result.removed == ("0010-p.patch",)
    assert move.files() == {"a": with_line(30, "theirs"), "b": with_line(10)}
    move.resume("no rebase of demo is going on", "skip")


def test_a_patch_that_upstream_has_is_asked_about_and_never_dropped_unasked(kit: Kit) -> None:
    move = Move(kit, {"a": with_line(30), "b": LINES})
    error = move.stops("nothing is left of 'ENH: a'")
    assert "--skip" in str(error.hint)
    move.resume(how="skip")
    assert move.finish().removed == ("0010-p.patch",)


def test_a_patch_whose_lines_upstream_moved_is_not_said_to_be_there(kit: Kit) -> None:
    moved = numbered(1, 60, l30="ours", l33="x") + b"line 30\n"
    move = Move(kit, {"a": moved, "b": LINES})
    with pytest.raises(PatchError) as caught:
        move.start()
    assert caught.value.message == f"'ENH: a' cannot be merged: {KEPT}: a"
    assert caught.value.expected == "the lines removed: git add FILE"
    assert "rebase demo --continue`; --skip" in str(caught.value.hint)
    done = moved.removesuffix(b"line 30\n")
    move.resume(a=done)
    move.finish()
    assert move.files() == {"a": done, "b": with_line(10)}


def test_a_file_that_upstream_removed_is_named(kit: Kit) -> None:
    move = Move(kit, {"b": LINES})
    with pytest.raises(PatchError) as caught:
        move.start()
    said = "'ENH: a' conflicts in a (upstream has no such file)"
    assert caught.value.message == said


def test_abort_puts_everything_back(kit: Kit) -> None:
    move = stopped(kit)
    rebase.abort(kit.work)
    assert move.git("rev-parse", "HEAD") == move.git("rev-parse", EXPORTED)
    assert WorkTree(kit.work).unfinished() is None
    assert move.files() == {"a": with_line(30), "b": with_line(10)}
    # Also when git is through, and only pin and series were to follow.
    move = Move(kit, {"a": LINES, "b": b"x\n" + LINES})
    move.start()
    rebase.abort(kit.work)
    assert move.files() == {"a": with_line(30), "b": with_line(10)}


def test_a_rebase_that_was_killed_before_git_began_goes_on(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = Move(kit, {"a": b"new\n" + LINES, "b": LINES})
    with monkeypatch.context() as patched:
        patched.setattr(rebase, "_rebase", lambda *_: None)
        move.start()
    move.resume()
    move.finish()
    assert move.files() == {"a": b"new\n" + with_line(30), "b": with_line(10)}


def test_the_patch_that_a_killed_git_was_at_is_not_forgotten(kit: Kit) -> None:
    move = Move(kit, {"a": with_line(30, "theirs"), "b": LINES})
    move.stops("'ENH: a' conflicts")
    # As when it is killed after it took the next patch from its list.
    state = kit.work / ".git" / "rebase-merge"
    (state / "stopped-sha").unlink()
    move.git("reset", "-q", "--hard")
    move.resume("there is no patch to skip", "skip")
    move.resume("'ENH: a' conflicts")
    move.resume(a=with_line(30, "both"))
    move.finish()
    assert move.files() == {"a": with_line(30, "both"), "b": with_line(10)}


def test_patches_follow_a_file_that_left_another_of_its_name(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: Files = {"c/a": b"new\n" + LINES, "a": FACADE, "b": with_line(10, "x")}
    move = Move(kit, moved)
    said: list[str] = []
    with monkeypatch.context() as patched:
        # Killed before git began: what to start from is remembered.
        patched.setattr(rebase, "_rebase", lambda *_: None)
        tree, onto = move.tree, move.onto
        rebase.start(tree, onto, kit.work, store=kit.store, say=said.append)
    assert said == ["a is now c/a"]
    move.resume("'ENH: b' conflicts in b")
    move.resume(b=with_line(10, "both"))
    assert move.finish().written == ("0010-p.patch", "0020-p.patch")
    ours = b"new\n" + with_line(30)
    assert move.files() == {"c/a": ours, "a": FACADE, "b": with_line(10, "both")}
    assert move.git("log", "--format=%s|%an|%ad", "--date=iso", "-1", "HEAD^") == (
        "ENH: a|Zoe Example|2022-03-01 12:00:00 +0100"
    )


def test_abort_does_without_the_state_of_a_git_that_was_killed(kit: Kit) -> None:
    move = Move(kit, {"a": with_line(30, "theirs"), "b": LINES, "new": b"1\n"})
    move.stops("conflicts")
    git = kit.work / ".git"
    (git / "rebase-merge" / "head-name").unlink()
    move.git("rm", "-q", "--cached", "new")
    (git / "index.lock").touch()
    (kit.work / "mine").write_text("kept")
    rebase.abort(kit.work)
    assert move.files() == {"a": with_line(30), "b": with_line(10)}
    assert move.git("status", "--porcelain") == "?? mine"
    assert not WorkTree(kit.work).unfinished()


def test_a_users_settings_change_no_rebase(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given for all repositories they do not count; for the work tree, they change nothing."""
    files: Files = {"a": with_line(30, "theirs"), "b": b"new\n" + LINES}
    results = []
    for noise in ({}, NOISE):
        other = Kit(tmp_path / f"{len(noise)}")
        move = Move(other, files)
        open_work(move.tree, other.work, store=other.store)
        config = tmp_path / "gitconfig"
        for key, value in noise.items():
            for place in (["--local"], ["--file", str(config)]):
                move.git("config", *place, key, value)
        if noise:
            monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
        with pytest.raises(PatchError, match="'ENH: a' conflicts in a"):
            move.start()
        marked = (other.work / "a").read_bytes()
        assert b"||||||| " in marked
        move.resume(a=with_line(30, "both"))
        result = move.finish()
        written = {p.name: p.read_bytes() for p in other.folder.iterdir()}
        results.append((marked, result, written, move.git("rev-parse", "HEAD^{tree}")))
    assert results[0] == results[1]


def test_what_failed_at_the_end_can_be_done_again_or_undone(kit: Kit) -> None:
    new: Files = {"a": numbered(1, 60, l28="theirs"), "b": LINES}
    move = Move(kit, new)
    old = {path.name: path.read_bytes() for path in kit.folder.iterdir()}
    move.start()
    result = move.settle()
    assert result.written == ("0010-p.patch",)
    # The lock could not be written: the series on disk is the old one.
    support.write(kit.folder, dict(old))
    rebase.restore_base(kit.work)
    assert move.settle().written == ("0010-p.patch",)
    support.write(kit.folder, dict(old))
    rebase.abort(kit.work)
    assert move.files() == {"a": with_line(30), "b": with_line(10)}
    work = WorkTree(kit.work)
    assert work.tree == move.tree.source.tree
    assert not export_commits(kit.work, move.tree.source, store=kit.store).changed


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        ("echo more >> a", "there are changes without a commit: a"),
        ("echo more >> a; git commit -qam more", "commits that were not exported"),
    ],
)
def test_work_that_was_not_exported_is_never_rebased_away(kit: Kit, edit: str, why: str) -> None:
    move = Move(kit, {"a": LINES, "b": LINES})
    move.start()
    rebase.abort(kit.work)
    subprocess.run(["sh", "-c", edit], cwd=kit.work, check=True)
    move.stops(why)
    assert not rebase.state_path(kit.work).exists()


def test_resolutions_are_shared_through_the_folder_of_the_patches(kit: Kit) -> None:
    (kit.folder / "rr-cache").mkdir()
    move = stopped(kit)
    move.resume(a=with_line(30, "both"))
    assert list((kit.folder / "rr-cache").glob("*/postimage"))
    rebase.abort(kit.work)
    move.start()
    move.finish()
    assert move.files() == {"a": with_line(30, "both"), "b": with_line(10)}


MANIFEST = """# ours
schema = 1

[forks.demo]
version = "1.0"  # the pin
tag = "v1.0"
sdist = { filename = "d-1.0.tar.gz", sha256 = "1" }
"""


def test_the_manifest_keeps_what_it_says_beside_the_pin() -> None:
    sdist = {"filename": "d-2.0.tar.gz", "sha256": "2"}
    pin = {"version": "2.0", "tag": None, "commit": "c" * 40, "sdist": sdist}
    text = with_pin(MANIFEST, "demo", pin)
    assert text.startswith("# ours\nschema = 1\n")
    assert 'version = "2.0" # the pin' in text.replace("  #", " #")
    assert "tag =" not in text
    assert 'sdist = {filename = "d-2.0.tar.gz", sha256 = "2"}' in text
    assert f'commit = "{"c" * 40}"' in text


def project(root: Path) -> Path:
    support.write(
        root,
        {
            "forks.toml": "old pin",
            "forks.lock": "old lock",
            "patches/demo/series": "old series",
            "patches/other/series": "other",
            f"work/demo/{transaction.STATE}": "rebase",
        },
    )
    return root


def stage(root: Path) -> None:
    staged = {
        "forks.toml": "new pin",
        "forks.lock": "new lock",
        "patches/demo/series": "new series",
        "patches/demo/0010.patch": "new",
        "patches/other/series": "other",
    }
    support.write(root / ".rebase-demo", staged)


def manifest(root: Path) -> Manifest:
    environment = EnvironmentSpec(label="x", python=("3.12",))
    return Manifest(path=root / "forks.toml", environment=environment, forks={})


def content(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(p.relative_to(root)): p.read_text() for p in files}


NEW = {
    "forks.toml": "new pin",
    "forks.lock": "new lock",
    "patches/demo/series": "new series",
    "patches/demo/0010.patch": "new",
    "patches/other/series": "other",
}


class Cut(BaseException):
    """A kill."""


def test_pin_lock_and_series_change_together_wherever_it_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["forks.lock", "forks.toml"]
    steps = 0
    for limit in range(100):
        root = tmp_path / str(limit)
        stage(project(root))
        done = 0

        def counted(real: object, *words: object) -> object:
            nonlocal done
            if done == limit:  # noqa: B023
                raise Cut
            done += 1
            return real(*words)  # type: ignore[operator]

        with monkeypatch.context() as patched:
            for owner, name in (
                (Path, "rename"),
                (Path, "replace"),
                (Path, "unlink"),
                (os, "replace"),
            ):
                real = getattr(owner, name)
                patched.setattr(owner, name, lambda *w, real=real, **_k: counted(real, *w))
            try:
                transaction.commit(root, names, "demo", manifest="forks.toml")
                steps = done
            except Cut:
                pass
        begun = (root / transaction.JOURNAL).exists()
        transaction.recover(root, "forks.toml")
        now = {k: v for k, v in content(root).items() if not k.startswith(".rebase-")}
        if begun or steps:
            assert now == NEW
        else:
            assert now["forks.toml"] == "old pin"
            assert now["patches/demo/series"] == "old series"
        if steps:
            break
    assert steps > 4


def test_a_journal_that_nobody_can_read_stops_everything(tmp_path: Path) -> None:
    transaction.recover(tmp_path, "forks.toml")
    (tmp_path / transaction.JOURNAL).write_text("{")
    with pytest.raises(ManifestError, match="the journal of a rebase cannot be followed"):
        transaction.recover(tmp_path, "forks.toml")


def test_an_old_stage_is_no_obstacle(tmp_path: Path) -> None:
    stage(project(tmp_path))
    with transaction.changed(manifest(tmp_path), "demo") as staged:
        assert staged.read_text() == "old pin"
        assert not (staged.parent / "patches/demo/0010.patch").exists()
        support.write(staged.parent, {"patches/demo/series": "new series"})
    assert (tmp_path / "patches/demo/series").read_text() == "new series"


def test_an_error_leaves_everything_as_it_was(tmp_path: Path) -> None:
    before = content(project(tmp_path))

    def change() -> None:
        with transaction.changed(manifest(tmp_path), "demo") as staged:
            staged.write_text("new pin")
            raise Cut

    with pytest.raises(Cut):
        change()
    assert content(tmp_path) == before
