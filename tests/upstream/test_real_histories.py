"""A series is followed right on real histories, with patches cut from upstream's own later commits.

They are drawn by a seed. Landed: commits of upstream's that apply to the base as they are, each of
which must be found as landed by itself. Breaking: a line of the base that a later commit changes,
changed by a patch; which commit stops it is also found by `git apply --check` at every commit that
touches the file. Reworded: landed ones with one line changed, as in a review; what is said of them
is logged, and nothing is asserted. Reviewed: merged pull requests, whole and as they stood before
their last commit. Reversed: what a commit changed, taken back by a patch; upstream rarely does it.
"""

import itertools
import logging
import random
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from patchwheel.kit.errors import PatchError
from patchwheel.kit.repo import GitError, Repository
from patchwheel.patch.file import Patch
from patchwheel.patch.lint import check_patch
from patchwheel.upstream.forecast import forecast
from patchwheel.upstream.verdict import Verdict

pytestmark = [pytest.mark.network, pytest.mark.heavy]

LOG = logging.getLogger(__name__)
HISTORIES = {
    "scipy/scipy": "v1.16.0",
    "scikit-learn/scikit-learn": "1.7.0",
    "scikit-image/scikit-image": "v0.25.0",
    "cupy/cupy": "v13.4.1",
}
# Those that merge their pull requests, at least formerly.
MERGING = ("scipy/scipy", "scikit-image/scikit-image")
COUNT = 20
MANY = 50
MOST_FILES, MOST_LINES = 10, 400
KINDS = ("*.py", "*.pyx", "*.pxd", "*.c", "*.cpp", "*.h", "*.build")


class Synthetic(NamedTuple):
    """A patch and the commit that must be named for it, if there is one."""

    data: bytes
    expected: str | None


def mail(
    diff: bytes,
    author: str = "A U Thor <author@example.org>",
    subject: str = "ENH: synthetic",
) -> bytes:
    head = f"From: {author}\nDate: Tue, 1 Mar 2022 12:00:00 +0100\nSubject: [PATCH] {subject}\n\n"
    return f"{head}Cut from a later commit.\n\nUpstream-Status: Pending\n\n".encode() + diff


class History:
    """The first parents of `tip` since `base`, oldest first."""

    def __init__(self, git_dir: Path, base: str, tip: str) -> None:
        self.repo = Repository(git_dir)
        self.base = self.repo.text("rev-parse", f"{base}^{{commit}}")
        self.tip = self.repo.text("rev-parse", f"{tip}^{{commit}}")
        self.start = self.repo.text("merge-base", self.base, self.tip)
        self.commits = self.touching()
        self.order = random.Random("2026").sample(self.commits, len(self.commits))

    def diff(self, commit: str) -> bytes:
        flags = ("-p", "--full-index", "--no-renames")
        return self.repo.git("diff-tree", *flags, f"{commit}^", commit, "--", *KINDS)

    def applies(self, commit: str, diff: bytes) -> bool:
        """Ask git, with an index of the commit."""
        with tempfile.TemporaryDirectory() as folder:
            env = {"GIT_INDEX_FILE": f"{folder}/index"}
            self.repo.git("read-tree", commit, env=env)
            try:
                self.repo.git("apply", "--check", "--cached", "-", stdin=diff, env=env)
            except GitError:
                return False
            return True

    def touching(self, *paths: str) -> list[str]:
        words = ("rev-list", "--first-parent", "--reverse", f"{self.start}..{self.tip}")
        return self.repo.text(*words, "--", *paths).split()

    def landed(self) -> Iterator[Synthetic]:
        for commit in self.order:
            diff = self.diff(commit)
            files, lines = diff.count(b"\ndiff --git ") + 1, diff.count(b"\n")
            usable = b"GIT binary" not in diff and b"Binary files" not in diff
            if not diff or files > MOST_FILES or lines > MOST_LINES or not usable:
                continue
            if self.applies(self.start, diff):
                yield Synthetic(mail(diff), commit)

    def reworded(self) -> Iterator[Synthetic]:
        for one in self.landed():
            added = list(re.finditer(rb"(?m)^\+[^+\n].{8,}$", one.data))
            if added:
                at = added[len(added) // 2].end()
                data = one.data[:at] + b"  # as submitted" + one.data[at:]
                yield Synthetic(data, one.expected)

    def breaking(self) -> Iterator[Synthetic]:
        for commit in self.order:
            if diff := self.edit_of_a_line(commit):
                yield Synthetic(mail(diff), self.stopped_by(diff))

    def edit_of_a_line(self, commit: str) -> bytes | None:
        """Return a patch to the base that changes a line which the commit changes or removes."""
        found = re.search(rb"(?ms)^--- a/(\S+)$.*?^-( *[a-zA-Z][^\n]{15,})$", self.diff(commit))
        if not found:
            return None
        path, line = found[1].decode(), found[2]
        try:
            old = self.repo.git("show", f"{self.start}:{path}")
        except GitError:
            return None
        if old.count(line + b"\n") != 1:
            return None
        new = old.replace(line + b"\n", line + b"  # ours\n")
        tree = self.repo.tree_of(self.start)
        with tempfile.TemporaryDirectory() as folder:
            env = {"GIT_INDEX_FILE": f"{folder}/index"}
            self.repo.git("read-tree", tree, env=env)
            oid = self.repo.git("hash-object", "-w", "--stdin", stdin=new).decode()
            row = f"100644,{oid.strip()},{path}"
            self.repo.git("update-index", "--cacheinfo", row, env=env)
            made = self.repo.text("write-tree", env=env)
        return self.repo.git("diff-tree", "-r", "-p", "--full-index", tree, made)

    def stopped_by(self, diff: bytes) -> str | None:
        """Return the commit after the last state that takes the patch; None if the tip does."""
        path = re.findall(rb"^\+\+\+ b/(\S+)$", diff, re.MULTILINE)[0].decode()
        commits = self.touching(path)
        states = [self.start, *commits]
        good = [at for at, c in enumerate(states) if self.applies(c, diff)]
        return None if good[-1] == len(commits) else commits[good[-1]]

    def reviewed(self, left_out: int) -> Iterator[tuple[str, str, bytes]]:
        """Give start, merge and patch of pull requests of several commits, less the last ones."""
        words = ("rev-list", "--first-parent", "--merges", "--max-count=6000", self.tip)
        for merge in random.Random("2026").sample(log := self.repo.text(*words).split(), len(log)):
            start = self.repo.text("merge-base", f"{merge}^1", f"{merge}^2")
            own = self.repo.text("rev-list", f"{start}..{merge}^2").split()
            merges = self.repo.text("rev-list", "--merges", f"{start}..{merge}^2")
            if len(own) < 2 or merges:
                continue
            diff = self.changes(start, own[left_out])
            row = self.repo.git("log", "-1", "--format=%an <%ae>%x1f%s", own[-1])
            if diff:
                author, subject = row.decode(errors="replace").strip().split("\x1f")
                yield start, merge, mail(diff, author, subject)

    def reversed(self) -> Iterator[tuple[str, str, bytes]]:
        for commit in self.order:
            if diff := self.changes(commit, f"{commit}^"):
                yield commit, self.tip, mail(diff)

    def changes(self, old: str, new: str) -> bytes | None:
        """Return the diff of two commits, if it is one that somebody might carry."""
        diff = self.repo.git("diff-tree", "-r", "-p", "--full-index", "--no-renames", old, new)
        usable = b"GIT binary" not in diff and b"Binary files" not in diff
        small = diff.count(b"\ndiff --git ") < MOST_FILES and diff.count(b"\n") < MOST_LINES
        return diff if diff and usable and small else None

    def states(self, cut: Iterator[tuple[str, str, bytes]]) -> Iterator[str]:
        """Follow each patch from its own start; lint may refuse some of upstream's changes."""
        for start, tip, data in cut:
            patch = Patch(path=Path("0010-cut.patch"), data=data)
            try:
                check_patch(patch)
            except PatchError as error:
                LOG.info("left out: %s", error.message)
                continue
            told = forecast(self.repo, [patch], "tip", (start, tip), lambda _oids: None).patches[0]
            LOG.info("%s %s %s", start[:12], told.state, told.evidence)
            yield told.state

    def verdicts(self, patches: Iterator[Synthetic]) -> Iterator[tuple[Synthetic, Verdict]]:
        """Say what comes of each patch alone; lint may refuse some of upstream's own changes."""
        span = (self.base, self.tip)
        for one in patches:
            patch = Patch(path=Path("0010-synthetic.patch"), data=one.data)
            try:
                check_patch(patch)
            except PatchError as error:
                LOG.info("left out: %s", error.message)
                continue
            yield one, forecast(self.repo, [patch], "tip", span, lambda _oids: None).patches[0]


@pytest.fixture(scope="module", params=HISTORIES, name="history")
def clone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> History:
    folder = tmp_path_factory.mktemp("clone")
    url = f"https://github.com/{request.param}"
    subprocess.run(["git", "clone", "--quiet", "--bare", url, folder], check=True)
    return History(folder, HISTORIES[request.param], "HEAD")


def named(verdict: Verdict) -> str | None:
    return verdict.commit.oid if verdict.commit else None


def test_what_landed_is_found_by_its_commit(history: History) -> None:
    verdicts = [*itertools.islice(history.verdicts(history.landed()), COUNT)]
    assert len(verdicts) == COUNT
    for one, verdict in verdicts:
        # One that was reverted later is told by the commit that did.
        if verdict.state != "reverted":
            assert (verdict.state, named(verdict)) == ("landed", one.expected), verdict.evidence


def test_what_stops_a_patch_is_named(history: History) -> None:
    verdicts = [*itertools.islice(history.verdicts(history.breaking()), COUNT)]
    assert len(verdicts) == COUNT
    for one, verdict in verdicts:
        if one.expected is None:
            assert verdict.state in {"clean", "offset"}, verdict.evidence
        else:
            assert (verdict.state, named(verdict)) == ("conflict", one.expected), verdict.evidence


def test_what_landed_in_other_words_is_logged(history: History) -> None:
    verdicts = [*itertools.islice(history.verdicts(history.reworded()), COUNT)]
    assert len(verdicts) == COUNT
    LOG.info("reworded: %s", Counter(verdict.state for _, verdict in verdicts))


@pytest.mark.parametrize("left_out", [0, 1])
@pytest.mark.parametrize("history", MERGING, indirect=True)
def test_a_pull_request_is_told_however_it_was_reviewed(history: History, left_out: int) -> None:
    states = Counter(itertools.islice(history.states(history.reviewed(left_out)), MANY))
    assert states["landed"] + states["reworked"] >= 0.9 * MANY, states


@pytest.mark.parametrize("history", MERGING, indirect=True)
def test_what_is_stopped_has_not_landed_in_another_form(history: History) -> None:
    """`landed` is logged: sometimes upstream did take back what it had done."""
    stopped = (s for s in history.states(history.reversed()) if s not in {"clean", "offset"})
    states = Counter(itertools.islice(stopped, MANY))
    assert states.total() == MANY
    assert not states["reworked"]
    assert states["landed"] <= MANY / 10, states
