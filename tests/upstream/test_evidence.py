"""What is said to have landed, exactly or in another form, and what only looks like it."""

from pathlib import Path

import pytest

from tests.fixtures import support
from tests.fixtures.patches import mail, numbered, with_line
from tests.upstream.test_forecast import LINES, SUBMITTED, Upstream, told

NEW = [f"def made_{n}(value):\n" for n in range(1, 9)]


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    return Upstream(tmp_path / "upstream")


def added(lines: list[str], at: int = 30, **changed: str) -> bytes:
    """Return the pin's file with lines after one of its own, in place of the next."""
    before = numbered(1, 60, **changed).decode().splitlines(keepends=True)
    return "".join([*before[:at], *lines, *before[at + 1 :]]).encode()


@pytest.mark.parametrize("touched", ["a", "b"])
def test_what_undoes_a_patch_that_is_stopped_has_not_landed(
    upstream: Upstream, touched: str
) -> None:
    """Without the first patch, upstream's lines are those that the second one makes."""
    both, one = numbered(1, 60, l10="ours", l50="ours"), numbered(1, 60, l50="ours")
    first = mail(upstream.diff(both) + upstream.diff(with_line(30), "b.txt"))
    second = mail(upstream.on_top(both, one), subject="MAINT: line 10 as it was")
    theirs = numbered(1, 60, l30="theirs", l50="theirs")
    stopped = upstream.commit("Rework", **{touched: theirs})
    verdicts = upstream.forecast(first, second).patches
    assert told(verdicts[0]) == ("conflict", stopped)
    assert verdicts[1].state == "conflict"
    # A commit is named only where it touches a file of the patch.
    named, by = (stopped, "that commit") if touched == "a" else (None, stopped[:12])
    assert told(verdicts[1])[1] == named
    assert verdicts[1].problem == f"it builds on 0010.patch, which {by} stops"


def test_what_undoes_a_patch_that_landed_has_landed_with_it(upstream: Upstream) -> None:
    both, one = numbered(1, 60, l10="ours", l50="ours"), numbered(1, 60, l50="ours")
    second = mail(upstream.on_top(both, one), subject="MAINT: line 10 as it was")
    first = mail(upstream.diff(both))
    upstream.commit("Take the first", a=both)
    took = upstream.commit("Take both", a=one)
    assert told(upstream.forecast(first, second).patches[1]) == ("landed", took)


@pytest.mark.parametrize("trailer", ["Submitted [https://example.org/p/pull/7]", "Backport [{}]"])
@pytest.mark.parametrize("touched", ["a", "moved", "c"])
def test_a_commit_that_its_status_names_counts_if_it_touched_the_patch(
    upstream: Upstream, touched: str, trailer: str
) -> None:
    data = upstream.diff(with_line(30))
    if touched == "moved":
        upstream.commit("Move it", a=None, moved=LINES)
    files = {touched: with_line(30, "ours, as reviewed")}
    took = upstream.commit("ENH: it (#7)", **files)
    upstream.commit("Rework", **{"c" if touched == "c" else "b": b"x\n"})
    if touched == "c":
        upstream.commit("Rework", a=with_line(30, "theirs"))
    status = f"Upstream-Status: {trailer.format(took)}"
    verdict = upstream.verdict(mail(data, trailers=[status]))
    if touched == "c":
        assert verdict.state == "conflict"
        assert told(verdict)[1] == upstream.repo.text("rev-parse", "HEAD")
    else:
        assert told(verdict) == ("reworked", took)
        assert "its Upstream-Status, was merged" in verdict.evidence[0]


def test_a_rival_that_was_merged_is_not_the_patch(upstream: Upstream) -> None:
    pending = ("Upstream-Status: Pending [https://example.org/p/pull/7]",)
    rival = upstream.commit("ENH: it (#7)", a=with_line(30, "theirs"))
    verdict = upstream.verdict(mail(upstream.diff(with_line(30)), trailers=pending))
    assert told(verdict) == ("conflict", rival)


def test_a_revert_of_another_commit_with_the_same_title_is_not_named(upstream: Upstream) -> None:
    took = upstream.commit("Take it (#7)", a=with_line(30))
    upstream.commit('Revert "Take it" (#8)', c=b"x\n")
    upstream.commit("Reword", a=with_line(30, "ours, and more"))
    verdict = upstream.verdict(mail(upstream.diff(with_line(30)), trailers=SUBMITTED))
    assert told(verdict) == ("landed", took)


# Upstream's state after the commit that stops the patch, and what is said of it. The patch puts
# the eight functions in the place of a line.
REWORKED: dict[str, tuple[bytes, str]] = {
    "one of eight changed": (added([*NEW[:4], "def other():\n", *NEW[5:]]), "reworked"),
    "beside other changes": (added([*NEW[:7], "more\n"], l28="theirs", l35="x"), "reworked"),
    "indented": (added([f"    {line}" for line in NEW]), "reworked"),
    "half of them": (added([*NEW[:4], "a\n", "b\n", "c\n", "d\n"]), "conflict"),
    "what it removes stays": (added([*NEW[:7], "line 31\n"]), "conflict"),
    "the place is rewritten": (added(["theirs\n"]), "conflict"),
    "other line ends": (LINES.replace(b"\n", b"\r\n"), "conflict"),
    "all is indented": (b"  " + LINES.replace(b"\n", b"\n  "), "conflict"),
}


@pytest.mark.parametrize("case", REWORKED)
def test_a_patch_that_landed_in_another_form_is_told_with_its_share(
    upstream: Upstream, case: str
) -> None:
    data = mail(upstream.diff(added(NEW)))
    later, state = REWORKED[case]
    stopped = upstream.commit("ENH: functions (#12)", a=later)
    verdict = upstream.verdict(data)
    assert told(verdict) == (state, stopped), verdict.evidence
    if state == "reworked":
        assert verdict.problem is None
        [said] = verdict.evidence
        assert "% of its lines, #12)" in said
        assert stopped[:12] in said


def test_lines_that_are_everywhere_say_nothing(upstream: Upstream) -> None:
    """A rewrite of the whole file has all of them somewhere."""
    common = ["if value:\n", "return None\n", "else:\n"]
    upstream.base = upstream.commit("Pin", a=added(common * 4, at=50))
    ours = added(common * 4, at=50).replace(b"line 30\nline 31\n", "".join(common).encode())
    data = mail(upstream.diff(ours))
    rewritten = "".join(f"def other_{n}(value):\nif value:\nreturn None\nelse:\n" for n in range(9))
    moved = upstream.commit("Rewrite", a=None, new=rewritten.encode())
    assert told(upstream.verdict(data)) == ("moot", moved)
    upstream.commit("Back", a=added(common * 4, at=50))
    stopped = upstream.commit("Rewrite", a=rewritten.encode())
    assert told(upstream.verdict(data)) == ("conflict", stopped)


def test_a_later_commit_that_has_its_lines_is_found(upstream: Upstream) -> None:
    data = mail(upstream.diff(added(NEW)))
    upstream.commit("Rework", a=numbered(1, 60, l29="theirs"))
    took = upstream.commit("ENH: functions", a=added([*NEW[:7], "x\n"], l29="theirs"))
    assert told(upstream.verdict(data)) == ("reworked", took)
    undone = upstream.commit('Revert "ENH: functions"', a=numbered(1, 60, l29="theirs"))
    assert told(upstream.verdict(data)) == ("reverted", undone)


def test_a_commit_of_a_merged_branch_by_its_author_is_found(upstream: Upstream) -> None:
    """The branch went on, so that little of the patch is in the whole of it."""
    data = mail(upstream.diff(added(NEW)), subject="ENH: functions", author="A U Thor <a@b.org>")
    support.git(upstream.folder, "config", "user.email", "a@b.org")
    support.git(upstream.folder, "config", "user.name", "A U Thor")
    support.git(upstream.folder, "checkout", "-q", "-b", "topic")
    words = ("commit", "-q", "-a", "--author=A U Thor <a@b.org>", "-m", "ENH: functions")
    # The patch is what two of its commits made together.
    support.write(upstream.folder, {"a.txt": added(NEW[:4], l28="theirs")})
    support.git(upstream.folder, *words)
    one = support.git(upstream.folder, "rev-parse", "HEAD")
    upstream.commit("More", a=added([*NEW[:7], "x\n"], l28="theirs"))
    upstream.commit("As reviewed", a=added(["def made(n, value):\n"], l28="theirs"))
    support.git(upstream.folder, "checkout", "-q", "main")
    support.git(upstream.folder, "merge", "-q", "--no-ff", "-m", "Merge topic", "topic")
    verdict = upstream.verdict(data)
    assert told(verdict) == ("reworked", upstream.repo.text("rev-parse", "HEAD"))
    assert f"{one[:12]} of that branch, by the same author" in verdict.evidence[0]


GONE = LINES.replace(b"".join(b"line %d\n" % n for n in range(20, 41)), b"")


@pytest.mark.parametrize(
    ("files", "state", "said"),
    [
        ({"a": None}, "moot", "a.txt is gone since"),
        ({"a": GONE}, "moot", "the lines that it changes are gone since"),
        ({"a": None, "moved": LINES}, "conflict", ""),
        ({"a": GONE, "moved": b"x\n" + LINES[100:400]}, "conflict", ""),
        ({"a": GONE.replace(b"line 19\n", b"line 19\nnew\n")}, "conflict", ""),
        ({"a": b"x\n"}, "conflict", ""),
    ],
)
def test_a_patch_is_moot_where_upstream_removed_what_it_changes(
    upstream: Upstream, files: dict[str, bytes | None], state: str, said: str
) -> None:
    data = mail(upstream.diff(with_line(30)))
    stopped = upstream.commit("Remove it", **files)
    verdict = upstream.verdict(data)
    assert told(verdict) == (state, stopped)
    assert said in "".join(verdict.evidence)
    # It is back: then the patch has something to do again.
    upstream.commit("Again", a=with_line(30, "theirs"))
    assert upstream.verdict(data).state == "conflict"
