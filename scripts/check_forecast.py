"""Check `status --against` on a real history, with patches cut from upstream's own later commits.

Three sets, drawn by a seed. Landed: commits of upstream's that apply to the base as they are, each of which must be
found as landed by itself. Breaking: a line of the base that a later commit changes, changed by a patch; which commit
stops it is also found by `git apply --check` at every commit that touches the file. Reworded: landed ones with
one line changed, as in a review; what is said of them is shown, and nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from patchwheel.kit.errors import PatchError
from patchwheel.kit.repo import GitError, Repository
from patchwheel.series.files import check_patch, read_patch
from patchwheel.upstream.forecast import Span, forecast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patchwheel.upstream.verdict import Verdict

MOST_FILES, MOST_LINES = 10, 400
KINDS = ("*.py", "*.pyx", "*.pxd", "*.c", "*.cpp", "*.h", "*.build")


class Synthetic(NamedTuple):
    """A patch and the commit that must be named for it, if there is one."""

    kind: str
    data: bytes
    expected: str | None


def mail(diff: bytes) -> bytes:
    head = b"From: A U Thor <author@example.org>\nDate: Tue, 1 Mar 2022 12:00:00 +0100\n"
    head += b"Subject: [PATCH] ENH: synthetic\n\nCut from a later commit.\n\n"
    return head + b"Upstream-Status: Pending\n\n" + diff


class History:
    """The first parents of `tip` since `base`, oldest first."""

    def __init__(self, git_dir: Path, base: str, tip: str) -> None:
        self.repo = Repository(git_dir)
        self.base = self.repo.text("rev-parse", f"{base}^{{commit}}")
        self.tip = self.repo.text("rev-parse", f"{tip}^{{commit}}")
        self.start = self.repo.text("merge-base", self.base, self.tip)
        words = ("rev-list", "--first-parent", "--reverse", f"{self.start}..{self.tip}")
        self.commits = self.repo.text(*words).split()

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

    def touching(self, path: str) -> list[str]:
        words = ("rev-list", "--first-parent", "--reverse", f"{self.start}..{self.tip}")
        return self.repo.text(*words, "--", path).split()

    def landed(self, chosen: list[str]) -> Iterator[Synthetic]:
        for commit in chosen:
            diff = self.diff(commit)
            files, lines = diff.count(b"\ndiff --git ") + 1, diff.count(b"\n")
            usable = b"GIT binary" not in diff and b"Binary files" not in diff
            if not diff or files > MOST_FILES or lines > MOST_LINES or not usable:
                continue
            if self.applies(self.start, diff):
                yield Synthetic("landed", mail(diff), commit)

    def reworded(self, chosen: list[str]) -> Iterator[Synthetic]:
        for one in self.landed(chosen):
            added = list(re.finditer(rb"(?m)^\+[^+\n].{8,}$", one.data))
            if added:
                at = added[len(added) // 2].end()
                data = one.data[:at] + b"  # as submitted" + one.data[at:]
                yield Synthetic("reworded", data, one.expected)

    def breaking(self, chosen: list[str]) -> Iterator[Synthetic]:
        for commit in chosen:
            if diff := self.edit_of_a_line(commit):
                yield Synthetic("breaking", mail(diff), self.stopped_by(diff))

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
        """Return the commit after the last state to which git applies the patch; None if it applies to the tip."""
        path = re.findall(rb"^\+\+\+ b/(\S+)$", diff, re.MULTILINE)[0].decode()
        commits = self.touching(path)
        states = [self.start, *commits]
        good = [at for at, c in enumerate(states) if self.applies(c, diff)]
        return None if good[-1] == len(commits) else commits[good[-1]]


def verdict(history: History, data: bytes) -> Verdict | None:
    """Return what is said of a patch alone; None for one that lint refuses, as it may for upstream's own changes."""
    patch = read_patch(Path("0010-synthetic.patch"), data)
    try:
        check_patch(patch)
    except PatchError as error:
        print(f"left out: {error.message}")
        return None
    span = Span(ref="tip", base=history.base, tip=history.tip)
    return forecast(history.repo, [patch], span, fetch_blobs=lambda _oids: None).patches[0]


def right(one: Synthetic, said: Verdict) -> bool:
    named = said.commit.oid if said.commit else None
    if one.kind == "landed":
        return said.state in {"landed", "reverted"} and (
            said.state == "reverted" or named == one.expected
        )
    if one.expected is None:
        return said.state in {"clean", "offset"}
    return said.state == "conflict" and named == one.expected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("git_dir", type=Path, help="a full clone")
    parser.add_argument("base", help="a tag or commit, such as v1.17.0")
    parser.add_argument("tip", help="such as main")
    parser.add_argument("--count", type=int, default=20, help="patches of each kind")
    parser.add_argument("--seed", default="2026")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    history = History(options.git_dir, options.base, options.tip)
    order = random.Random(options.seed).sample(history.commits, len(history.commits))
    wrong, said_of, seconds, rows = [], Counter[tuple[str, str]](), 0.0, []
    for kind in (history.landed, history.breaking, history.reworded):
        taken = 0
        for one in kind(order):
            before = cpu()
            said = verdict(history, one.data)
            if said is None:
                continue
            seconds += cpu() - before
            taken += 1
            said_of[one.kind, said.state] += 1
            named = said.commit.oid[:12] if said.commit else ""
            expected = (one.expected or "")[:12]
            row = [one.kind, said.state, named, expected, *said.evidence]
            rows.append(row)
            if one.kind != "reworded" and not right(one, said):
                wrong.append(row)
                print("WRONG", *row, flush=True)
            if taken == options.count:
                break
    print(f"{len(history.commits)} commits from {options.base} to {options.tip}")
    for (what, state), count in sorted(said_of.items()):
        print(f"{what:10}{state:10}{count:4}")
    print(f"{len(wrong)} wrong, {seconds / max(len(rows), 1):.2f} CPU s a patch")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    raise SystemExit(6 if wrong else 0)


def cpu() -> float:
    mine = resource.getrusage(resource.RUSAGE_SELF)
    theirs = resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime


if __name__ == "__main__":
    main()
