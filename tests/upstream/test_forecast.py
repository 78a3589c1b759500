"""Which commit of upstream's stops a patch, which took it: on real histories, small ones."""

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from patchwheel.cli.page import forecast_page
from patchwheel.kit.errors import InputError, MachineError
from patchwheel.kit.repo import Blob, Repository
from patchwheel.kit.store import Store
from patchwheel.manifest.model import Fork
from patchwheel.series.status import PatchStatus
from patchwheel.source import fetch
from patchwheel.upstream.forecast import Forecast, Walk, forecast, try_series
from patchwheel.upstream.history import History
from patchwheel.upstream.verdict import Verdict, verdict_without_history
from tests.fixtures import support
from tests.fixtures.contexts import make_context
from tests.fixtures.patches import mail, numbered, patch, with_line

LINES = numbered(1, 60)
SUBMITTED = ("Upstream-Status: Submitted [https://example.org/p/pull/7]",)


@dataclass
class Upstream:
    """A repository with commits; `base` is the pin's."""

    folder: Path

    def __post_init__(self) -> None:
        self.base = support.make_upstream(
            self.folder, {"a.txt": LINES, "b.txt": LINES, "c.txt": "c\n"}, tag="v1"
        )
        self.repo = Repository(self.folder / ".git")

    def commit(self, subject: str = "Change", **files: bytes | None) -> str:
        changes = {f"{name}.txt": data for name, data in files.items()}
        support.write(self.folder, changes)
        support.git(self.folder, "add", "-A")
        support.git(self.folder, "commit", "-q", "-m", subject)
        return support.git(self.folder, "rev-parse", "HEAD")

    def diff(self, new: bytes, name: str = "a.txt") -> bytes:
        """Return a diff from the pin to another content of a file."""
        blob = support.git(self.folder, "hash-object", "-w", "--stdin", stdin=new)
        old = support.git(self.folder, "rev-parse", f"{self.base}:{name}")
        text = support.git_bytes(self.folder, "diff", "--full-index", old, blob)
        body = text.partition(b"\n@@ ")[2]
        head = f"diff --git a/{name} b/{name}\n--- a/{name}\n+++ b/{name}\n@@ "
        return head.encode() + body

    def on_top(self, first: bytes, new: bytes) -> bytes:
        """Return the diff of a second patch, on a first one that gives a.txt other lines."""
        self.commit(a=first)
        base, self.base = self.base, self.repo.text("rev-parse", "HEAD")
        diff = self.diff(new)
        self.base = base
        support.git(self.folder, "reset", "-q", "--hard", base)
        return diff

    def verdict(self, data: bytes, tip: str = "HEAD") -> Verdict:
        [found] = self.forecast(data, tip=tip).patches
        return found

    def forecast(self, *data: bytes, tip: str = "HEAD") -> Forecast:
        patches = [patch(d, f"{n:04}.patch") for n, d in enumerate(data, 10)]
        span = (self.base, self.repo.text("rev-parse", tip))
        return forecast(self.repo, patches, tip, span, lambda _oids: None)


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    return Upstream(tmp_path / "upstream")


def told(verdict: Verdict) -> tuple[str, str | None]:
    return verdict.state, verdict.commit.oid if verdict.commit else None


def test_what_upstream_leaves_alone_stays_as_it_is(upstream: Upstream) -> None:
    upstream.commit(c=b"other\n")
    upstream.commit(a=b"one\ntwo\n" + LINES)
    found = upstream.forecast(mail(upstream.diff(with_line(30))))
    assert found.commits == 1
    assert found.commit == upstream.repo.text("rev-parse", "HEAD")
    [verdict] = found.patches
    assert (verdict.state, verdict.offset, verdict.commit) == ("offset", 2, None)
    upstream.commit(a=LINES)
    assert upstream.verdict(mail(upstream.diff(with_line(30)))).state == "clean"


def test_the_commit_that_stops_a_patch_is_named(upstream: Upstream) -> None:
    upstream.commit(a=with_line(2))
    stopped = upstream.commit("Rework line 30 (#12)", a=with_line(30, "theirs"))
    upstream.commit(a=numbered(1, 60, l30="theirs", l50="later"))
    verdict = upstream.verdict(mail(upstream.diff(with_line(30))))
    assert verdict.state == "conflict"
    assert verdict.commit
    assert (verdict.commit.oid, verdict.commit.request) == (stopped, "12")
    assert verdict.commit.author == "A U Thor"
    assert verdict.where
    assert "hunk 1 does not match a.txt" in str(verdict.problem)


def test_a_conflict_that_went_away_again_is_none(upstream: Upstream) -> None:
    upstream.commit(a=with_line(30, "theirs"))
    upstream.commit(a=LINES)
    assert upstream.verdict(mail(upstream.diff(with_line(30)))).state == "clean"


def test_a_patch_that_landed_is_found_also_when_its_lines_changed_later(upstream: Upstream) -> None:
    took = upstream.commit("Take it", a=with_line(30))
    upstream.commit(a=numbered(1, 60, l30="ours, reworded"))
    upstream.commit("Word it as it was", a=with_line(30))
    upstream.commit(a=numbered(1, 60, l30="ours, and more"))
    verdict = upstream.verdict(mail(upstream.diff(with_line(30))))
    assert told(verdict) == ("landed", took)
    assert verdict.evidence == (f"its changes are there since {took[:12]}",)


def test_a_patch_that_landed_beside_other_changes_leaves_nothing_to_merge(
    upstream: Upstream,
) -> None:
    ours = numbered(1, 60, l30="ours", l40="ours too")
    data = mail(upstream.diff(ours))
    # A line of context has another form in a commit: nothing matches, nothing is left to do.
    squashed = numbered(1, 60, l30="ours", l32="theirs", l40="ours too")
    took = upstream.commit("Squash", a=squashed)
    verdict = upstream.verdict(data)
    assert told(verdict) == ("landed", took)
    assert verdict.evidence == (f"a merge onto {took[:12]} leaves nothing of it",)


def test_a_patch_that_landed_in_part_is_a_conflict(upstream: Upstream) -> None:
    data = mail(upstream.diff(numbered(1, 60, l30="ours", l40="ours too")))
    took = upstream.commit("Half", a=numbered(1, 60, l30="ours", l32="theirs"))
    verdict = upstream.verdict(data)
    assert told(verdict) == ("conflict", took)


def test_a_patch_that_landed_and_was_reverted_is_kept(upstream: Upstream) -> None:
    upstream.commit("Take it", a=with_line(30))
    undone = upstream.commit('Revert "Take it"', a=LINES)
    verdict = upstream.verdict(mail(upstream.diff(with_line(30))))
    assert told(verdict) == ("reverted", undone)
    assert verdict.evidence[-1] == f"it applies again since {undone[:12]}"


def test_a_patch_that_was_reverted_and_then_met_a_conflict_has_not_landed(
    upstream: Upstream,
) -> None:
    data = mail(upstream.diff(with_line(30)))
    took = upstream.commit("Take it (#8)", a=with_line(30))
    undone = upstream.commit("Back out", a=LINES)
    upstream.commit("Rework", a=with_line(31, "theirs"))
    verdict = upstream.verdict(data)
    assert told(verdict) == ("reverted", undone)
    assert "hunk 1 does not match" in str(verdict.problem)
    # In one step, where only the message tells.
    support.git(upstream.folder, "reset", "-q", "--hard", took)
    upstream.commit("Unrelated", a=numbered(1, 60, l30="ours", l33="theirs"))
    assert upstream.verdict(data).state == "landed"
    said = f"Put it back\n\nThis reverts commit {took}."
    for message in (said, 'Revert "Take it (#8)" (#9)'):
        undone = upstream.commit(message, a=numbered(1, 60, l33="theirs"))
        verdict = upstream.verdict(data)
        assert told(verdict) == ("reverted", undone)
        assert verdict.evidence[-1] == f"and reverted by {undone[:12]}"
        support.git(upstream.folder, "reset", "-q", "--hard", "HEAD^")
    # No message tells, or that of another commit: the line that it removes is back in its place.
    for message in ("Rework", 'Revert "Take it all"'):
        undone = upstream.commit(message, a=numbered(1, 60, l33="theirs"))
        verdict = upstream.verdict(data)
        assert verdict.state == "reverted"
        assert verdict.commit
        assert verdict.commit.oid == undone
        again = f"what it removes is there again since {undone[:12]}"
        assert verdict.evidence[-1] == again
        support.git(upstream.folder, "reset", "-q", "--hard", "HEAD^")


def test_a_patch_that_landed_twice_counts_from_the_second_time(upstream: Upstream) -> None:
    upstream.commit("Take it", a=with_line(30))
    upstream.commit('Revert "Take it"', a=LINES)
    took = upstream.commit("Take it again", a=with_line(30))
    verdict = upstream.verdict(mail(upstream.diff(with_line(30))))
    assert told(verdict) == ("landed", took)


@pytest.mark.parametrize("subject", ["ENH: it (#7)", "Merge pull request #7 from x/y"])
def test_a_pull_request_that_was_merged_in_another_form_has_landed(
    upstream: Upstream, subject: str
) -> None:
    took = upstream.commit(subject, a=with_line(30, "ours, as reviewed"))
    data = mail(upstream.diff(with_line(30)), trailers=SUBMITTED)
    verdict = upstream.verdict(data)
    assert told(verdict) == ("reworked", took)
    assert verdict.evidence == ("pull request 7, its Upstream-Status, was merged",)
    # The same change by somebody else is a conflict.
    assert upstream.verdict(mail(upstream.diff(with_line(30)))).state == "conflict"
    title = subject.partition(" (#")[0]
    back = upstream.commit(f'Revert "{title}"', a=with_line(30, "neither"))
    verdict = upstream.verdict(data)
    assert told(verdict) == ("reverted", back)


def test_a_merged_pull_request_that_left_the_lines_has_not_landed(upstream: Upstream) -> None:
    data = mail(upstream.diff(with_line(30)), trailers=SUBMITTED)
    upstream.commit("ENH: it (#7)", a=numbered(1, 60, l28="as reviewed"))
    assert upstream.verdict(data).state == "conflict"


CUT = LINES.replace(b"line 30\nline 31\n", b"")
GONE = LINES.replace(b"line 30\n", b"")
MOVED = GONE.replace(b"line 50\n", b"line 50\nline 30\n")
TWINS = LINES + with_line(30)
NONE = b"return None\n"
BRACKETS = b"}\n" + numbered(1, 60, l30="}", l40="}")
BRACKET = BRACKETS.replace(b"line 29\n}\n", b"line 29\n")
BLANKS = numbered(1, 60, l30="", l40="")
BLANK = BLANKS.replace(b"line 29\n\n", b"line 29\n")
# The pin, the patch's result, upstream's next state, and what is said.
LANDED: dict[str, tuple[bytes, bytes, bytes, str]] = {
    "removed": (LINES, CUT, CUT, "landed"),
    "removed beside another change": (LINES, CUT, CUT.replace(b"line 33\n", b"x\n"), "landed"),
    "the context is elsewhere, the lines are there": (
        LINES + b"--\n" + CUT,
        CUT + b"--\n" + CUT,
        with_line(28, "x") + b"--\n" + CUT,
        "conflict",
    ),
    "the lines moved": (LINES, CUT, CUT + b"line 30\nline 31\n", "conflict"),
    "one line moved": (LINES, GONE, GONE + b"line 30\n", "conflict"),
    "the lines moved and others came": (
        LINES,
        with_line(30),
        with_line(30) + b"line 30\n",
        "conflict",
    ),
    "what it adds is elsewhere, what it removes is there": (
        TWINS,
        with_line(30) * 2,
        TWINS.replace(b"line 28\n", b"x\n", 1),
        "conflict",
    ),
    "a line of which others stay": (
        NONE + with_line(30, "return None"),
        NONE + with_line(30),
        NONE + with_line(30),
        "landed",
    ),
    "a bracket": (BRACKETS, BRACKET, BRACKET + b"}\n", "landed"),
    "a blank line": (BLANKS, BLANK, BLANK.replace(b"line 50\n", b"\n"), "landed"),
    "a line that the patch moves": (LINES, MOVED, MOVED, "landed"),
    "all of it": (LINES, b"", b"", "landed"),
    "all of it, and upstream has some": (LINES, b"", b"x\n", "conflict"),
}


@pytest.mark.parametrize("case", LANDED)
def test_a_patch_landed_if_what_it_removes_is_gone(upstream: Upstream, case: str) -> None:
    pin, ours, later, state = LANDED[case]
    upstream.base = upstream.commit("Pin", a=pin, c=b"pin\n")
    took = upstream.commit("Take it?", a=later)
    verdict = upstream.verdict(mail(upstream.diff(ours)))
    assert told(verdict) == (state, took)


@pytest.mark.parametrize("left", [None, b"from moved import *\n"])
def test_where_a_file_went_is_told(upstream: Upstream, left: bytes | None) -> None:
    upstream.commit("Move a", a=left, moved=LINES)
    verdict = upstream.verdict(mail(upstream.diff(with_line(30))))
    assert (verdict.state, verdict.moved) == ("conflict", "moved.txt")


def test_patches_build_on_those_before_and_do_without_those_that_fail(upstream: Upstream) -> None:
    first = mail(upstream.diff(with_line(30)))
    second = mail(upstream.diff(with_line(10), "b.txt"), subject="ENH: b")
    upstream.commit(a=with_line(30, "theirs"))
    states = [o.state for o in upstream.forecast(first, second).patches]
    assert states == ["conflict", "clean"]


def test_a_patch_that_builds_on_one_that_is_stopped_says_so(upstream: Upstream) -> None:
    ours = with_line(30)
    further = numbered(1, 60, l30="ours", l31="more")
    other = numbered(1, 60, l30="ours", l50="far")

    patches = [
        mail(upstream.diff(ours)),
        mail(upstream.on_top(ours, further), subject="ENH: on top"),
        mail(upstream.on_top(ours, other), subject="ENH: beside"),
    ]
    stopped = upstream.commit(a=with_line(30, "theirs"))
    first, second, third = upstream.forecast(*patches).patches
    assert "hunk 1 does not match" in str(first.problem)
    assert second.problem == "it builds on 0010.patch, which that commit stops"
    assert second.where is None
    assert second.commit
    assert second.commit.oid == stopped
    assert third.state == "clean"


def test_only_what_a_commit_touches_is_tried_again_and_nothing_is_missed(
    upstream: Upstream,
) -> None:
    rng = random.Random(5)
    names = ("a.txt", "b.txt", "c.txt")
    patches = [
        patch(mail(upstream.diff(with_line(n), name)), f"{n:04}.patch")
        for n, name in ((10, "a.txt"), (30, "a.txt"), (50, "b.txt"))
    ]
    states, contents = [], {}
    files: dict[str, Blob] = {}
    for number in range(30):
        path = names[number] if number < 3 else rng.choice(names)
        text = with_line(rng.choice((10, 12, 30, 50)), rng.choice(("ours", "x")))
        oid = f"{number:040}"
        contents[oid] = text
        files = {**files, path: Blob(mode="100644", oid=oid)}
        if number >= 2:
            states.append(files)

    def read(oids: Sequence[str]) -> dict[str, bytes]:
        return {oid: contents[oid] for oid in oids}

    found = Walk(patches, states, read).statuses
    assert found == [try_series(files, read, patches) for files in states]
    assert len({status.state for step in found for status in step}) >= 3


def test_history_is_that_of_the_first_parents_since_the_branches_parted(upstream: Upstream) -> None:
    # The pin is on a release branch that has a commit of its own.
    support.git(upstream.folder, "checkout", "-q", "-b", "release")
    upstream.base = upstream.commit(b=with_line(3))
    support.git(upstream.folder, "checkout", "-q", "-b", "topic", "main")
    upstream.commit("Rework", a=with_line(30, "theirs"))
    support.git(upstream.folder, "checkout", "-q", "main")
    support.git(
        upstream.folder, "merge", "-q", "--no-ff", "-m", "Merge pull request #9 from t", "topic"
    )
    verdict = upstream.verdict(mail(upstream.diff(with_line(30))), tip="main")
    assert verdict.commit
    assert verdict.commit.request == "9"
    # What the release branch has and the tip never had is nobody's doing.
    data = mail(upstream.diff(numbered(1, 60, l3="ours", l4="x"), "b.txt"))
    verdict = upstream.verdict(data, tip="main")
    assert (verdict.state, verdict.commit) == ("conflict", None)


def test_files_of_a_submodule_are_not_followed(upstream: Upstream) -> None:
    link = f"160000,{upstream.base},sub"
    support.git(upstream.folder, "update-index", "--add", "--cacheinfo", link)
    support.git(upstream.folder, "commit", "-q", "-m", "Add a submodule")
    data = mail(upstream.diff(with_line(30)).replace(b"a.txt", b"sub/a.txt"))
    verdict = upstream.verdict(data)
    assert verdict.state == "unknown"
    assert "submodule sub" in str(verdict.problem)
    # Nor those of a submodule that upstream has removed since.
    upstream.base = support.git(upstream.folder, "rev-parse", "HEAD")
    support.git(upstream.folder, "rm", "-q", "--cached", "sub")
    support.git(upstream.folder, "commit", "-q", "-m", "Remove the submodule")
    assert upstream.verdict(data) == verdict


def test_an_empty_series_has_nothing_to_fear(upstream: Upstream) -> None:
    upstream.commit(a=b"")
    assert upstream.forecast().patches == ()


def _reader(content: bytes) -> Callable[[Sequence[str]], dict[str, bytes]]:
    return lambda _oids: {"1": content}


def test_without_a_history_there_are_states_and_no_commits() -> None:
    blob = Blob(mode="100644", oid="1")
    ours = patch(
        b"From: A <a@example.org>\nDate: Tue, 1 Mar 2022 12:00:00 +0000\nSubject: x\n\n"
        b"Upstream-Status: Pending\n\ndiff --git a/a b/a\n--- a/a\n+++ b/a\n"
        b"@@ -1 +1 @@\n-old\n+new\n"
    )
    for content, state in ((b"old\n", "clean"), (b"new\n", "landed"), (b"x\n", "conflict")):
        [status] = try_series({"a": blob}, _reader(content), [ours])
        assert verdict_without_history(status).state == state
    shifted = PatchStatus(name="p", state="offset", offset=3)
    assert verdict_without_history(shifted).offset == 3


def fork(folder: Path, **more: Any) -> Fork:
    fields = {"name": "demo", "git": f"file://{folder}", "tag": "v1", "version": "1"}
    return Fork(patches=folder / "patches", **{**fields, **more})


def history(fork: Fork, store: Store, *, offline: bool = False) -> History:
    return History(make_context(store, offline=offline), fork)


def test_a_history_is_kept_in_a_store_and_nowhere_else(store: Store, tmp_path: Path) -> None:
    history(fork(tmp_path), store)
    assert list(store.entries()) == []
    foreign = Store(tmp_path / "foreign")
    support.write(foreign.root, {"letters/x.txt": "dear"})
    with pytest.raises(MachineError, match="not a store of patchwheel"):
        history(fork(tmp_path), foreign)
    assert [path.name for path in foreign.root.iterdir()] == ["letters"]


def test_refs_are_tags_versions_branches_and_commits(upstream: Upstream, store: Store) -> None:
    later = upstream.commit(a=b"x\n")
    found = history(fork(upstream.folder), store)
    found.update()
    assert found.base() == upstream.base
    for ref, commit in (("1", upstream.base), ("v1", upstream.base), ("main", later)):
        assert found.resolve(ref) == commit
    assert found.resolve(later[:10]) == later
    assert found.resolve("nothing") is None
    again = history(fork(upstream.folder), store, offline=True)
    again.update()
    assert again.resolve("main") == later


def test_a_history_is_that_of_one_address(upstream: Upstream, store: Store) -> None:
    """What lay in another folder, since removed, is not looked for."""
    history(fork(upstream.folder), store).update()
    other = upstream.folder.with_name("other")
    upstream.folder.rename(upstream.folder.with_name("gone"))
    support.make_upstream(other, {"a.txt": "x\n"}, tag="v1")
    found = history(fork(other), store)
    found.update()
    assert found.base() == support.git(other, "rev-parse", "v1")


def test_a_history_that_is_not_there_is_said(upstream: Upstream, store: Store) -> None:
    with pytest.raises(InputError, match="upstream's history is not in the store"):
        history(fork(upstream.folder), store, offline=True).update()
    with pytest.raises(InputError, match="git cannot fetch from file:///nowhere"):
        history(fork(upstream.folder, git="file:///nowhere"), store).update()
    found = history(fork(upstream.folder, tag="v9"), store)
    found.update()
    with pytest.raises(InputError, match="upstream's history has no v9, the pin"):
        found.base()


def test_files_are_fetched_together_where_the_remote_can_leave_them_out(
    upstream: Upstream, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As from another machine.
    monkeypatch.setattr(History, "use_alternates", lambda *_: None)
    support.git(upstream.folder, "config", "uploadpack.allowFilter", "true")
    support.git(upstream.folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    upstream.commit(a=with_line(30, "theirs"))
    found = history(fork(upstream.folder), store)
    found.update()
    lazy = ["rev-list", "--objects", "--all", "--missing=print"]
    missing = {r[1:] for r in found.repo.text(*lazy).splitlines() if r[0] == "?"}
    assert len(missing) > 2
    found.fetch_blobs(missing)
    assert not [r for r in found.repo.text(*lazy).splitlines() if r[0] == "?"]


def test_a_fetch_tells_how_much_has_come(
    upstream: Upstream, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(History, "use_alternates", lambda *_: None)
    monkeypatch.setattr(fetch, "INTERVAL", 0.001)
    upstream.commit(a=random.Random(1).randbytes(20_000_000))
    found = history(fork(upstream.folder), store)
    found.update()
    assert isinstance(found.context.progress, support.Recorder)
    steps = [(done, total) for _, done, total in found.context.progress.steps]
    assert len(steps) > 1
    assert steps == sorted(steps, key=lambda step: step[0])
    assert {total for _, total in steps[:-1]} == {None}
    assert steps[-1][0] == steps[-1][1] != 0


@pytest.mark.parametrize("how", ["alternates", "link", "encoded"])
def test_objects_of_another_repository_are_not_read_through_a_foreign_one(
    upstream: Upstream, store: Store, tmp_path: Path, how: str
) -> None:
    private, foreign = tmp_path / "private", tmp_path / "foreign"
    support.make_upstream(private, {"key": "secret"})
    support.git(tmp_path, "clone", "-q", "--bare", upstream.folder.as_uri(), str(foreign))
    if how == "link":
        shutil.rmtree(foreign / "objects")
        (foreign / "objects").symlink_to(private / ".git" / "objects")
    else:
        support.write(foreign, {"objects/info/alternates": f"{private}/.git/objects\n"})
    secret = support.git(private, "rev-parse", "HEAD").strip()
    # The control: git itself reads it there.
    support.git(foreign, "update-ref", "refs/heads/more", secret)
    git = foreign.as_uri().replace("foreign", "%66oreign") if how == "encoded" else None
    found = history(fork(foreign, **({"git": git} if git else {})), store)
    with pytest.raises(InputError, match="reads objects of another repository") as caught:
        found.update()
    assert "repack -a -d" in str(caught.value.hint)
    with pytest.raises(InputError, match="reads objects"):
        found.remote.run(found.remote.url, "ls-remote", "--", found.remote.url)
    assert not found.repo.has(secret)


def test_a_partial_clone_tells_the_commits_and_a_shallow_one_is_refused(
    upstream: Upstream, store: Store
) -> None:
    stopped = upstream.commit("Rework (#12)", a=with_line(30, "theirs"))
    support.git(upstream.folder, "config", "uploadpack.allowFilter", "true")
    clones = []
    for how in ("--filter=blob:none", "--depth=1"):
        clones.append(upstream.folder.with_name(f"clone{how}"))
        words = ("clone", "-q", how, upstream.folder.as_uri(), str(clones[-1]))
        support.git(upstream.folder, *words)
    with pytest.raises(InputError, match="is a shallow clone") as caught:
        history(fork(clones[1]), store).update()
    assert "fetch --unshallow" in str(caught.value.hint)
    found = history(fork(clones[0]), store)
    found.update()
    span = (upstream.base, stopped)
    data = patch(mail(upstream.diff(with_line(30))))
    [verdict] = forecast(found.repo, [data], "main", span, found.fetch_blobs).patches
    assert told(verdict) == ("conflict", stopped)


def test_a_repository_on_this_machine_is_not_copied(upstream: Upstream, store: Store) -> None:
    found = history(fork(upstream.folder), store)
    found.update()
    assert found.resolve("main") == upstream.base
    packs = found.repo.git_dir / "objects" / "pack"
    assert not list(packs.glob("*.pack"))


def test_results_are_compared_drawn_and_linked(upstream: Upstream) -> None:
    stopped = upstream.commit("Rework <b>", a=with_line(30, "theirs"))
    found = upstream.forecast(mail(upstream.diff(with_line(30))))
    known = json.loads(json.dumps(asdict(found)))["patches"]
    assert found.without(known).patches == ()
    assert found.without([]).patches == found.patches
    one = fork(upstream.folder, git="https://example.org/p")
    page = forecast_page([one], {"demo": [found]})
    assert f'<a href="https://example.org/p/commit/{stopped}">' in page
    assert "Rework &lt;b&gt;" in page
    assert '<td class="state work"><b>✗</b>conflict</td>' in page
