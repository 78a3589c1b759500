"""Small sources and series for the tests of the patch modules."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from patchwheel.kit.errors import PatchError
from patchwheel.kit.repo import Repository
from patchwheel.kit.store import Store
from patchwheel.manifest.model import Fork
from patchwheel.series.apply import PatchedTree, apply_series
from patchwheel.series.export import ExportResult, export
from patchwheel.series.files import Patch, Series, load_series
from patchwheel.series.worktree import open_work
from patchwheel.source.fetch import Source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# A file is its content, or its mode and its content.
Files = dict[str, "bytes | tuple[str, bytes]"]

STATUS = "Upstream-Status: Pending"
HEAD = b"From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n"
ONE = b"""diff --git a/a.txt b/a.txt
--- a/a.txt
+++ b/a.txt
@@ -1,3 +1,3 @@
 one
-two
+TWO
 three
"""


def mail(
    diff: bytes,
    *,
    subject: str = "ENH: change something",
    body: str = "Why it is carried.",
    trailers: Sequence[str] = ("Upstream-Status: Pending",),
    author: str = "Zoe Example <z@example.org>",
    date: str = "Tue, 1 Mar 2022 12:00:00 +0100",
) -> bytes:
    header = f"From: {author}\nDate: {date}\nSubject: [PATCH] {subject}\n\n"
    message = "\n\n".join([*([body] if body else []), "\n".join(trailers)])
    return HEAD + header.encode() + message.strip("\n").encode() + b"\n\n" + diff


def patch(data: bytes, name: str = "0010-change.patch") -> Patch:
    return Patch(
        name=name,
        path=Path("patches/demo") / name,
        sha256=hashlib.sha256(data).hexdigest(),
        data=data,
    )


def numbered(first: int, last: int, **changed: str) -> bytes:
    """Return lines `line N`; `l7="x"` makes the seventh another."""
    lines = [changed.get(f"l{n}", f"line {n}") for n in range(first, last + 1)]
    return "".join(f"{line}\n" for line in lines).encode()


class Kit:
    """A store, a repository and a project below one temporary folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root / "store")
        self.store.ensure()
        self.repo = Repository.bare(root / "store" / "git" / "demo.git")
        self.folder = root / "project" / "patches" / "demo"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.work = root / "project" / "work" / "demo"

    def tree(self, files: Mapping[str, bytes | tuple[str, bytes]]) -> str:
        rows = [
            (path, *(value if isinstance(value, tuple) else ("100644", value)))
            for path, value in files.items()
        ]
        return self.repo.import_files(rows)

    def source(self, files: Mapping[str, bytes | tuple[str, bytes]]) -> Source:
        fork = Fork(name="demo", version="1.0", patches=self.folder)
        return Source(
            fork=fork,
            git_dir=self.repo.git_dir,
            tree=self.tree(files),
            epoch=1_700_000_000,
            origin="sdist",
        )

    def diff(
        self,
        old: Mapping[str, bytes | tuple[str, bytes]],
        new: Mapping[str, bytes | tuple[str, bytes]],
        *options: str,
    ) -> bytes:
        flags = ("-r", "-p", "--binary", "--full-index", "-M", *options)
        return self.repo.git("diff-tree", *flags, self.tree(old), self.tree(new))

    def series(self, *patches: bytes, extra: str = "") -> Series:
        """Write patches as 0010-p.patch, 0020-p.patch, …"""
        names = [f"{n * 10:04}-p.patch" for n in range(1, len(patches) + 1)]
        for name, data in zip(names, patches, strict=True):
            (self.folder / name).write_bytes(data)
        text = extra + "".join(f"{name}\n" for name in names)
        (self.folder / "series").write_text(text)
        return load_series(self.folder)

    def steps(
        self, *states: Mapping[str, bytes | tuple[str, bytes]]
    ) -> tuple[Source, Series]:
        """Return the first state as source, and a patch for each step to the next."""
        pairs = itertools.pairwise(states)
        patches = [
            mail(self.diff(old, new), subject=f"ENH: step {number}")
            for number, (old, new) in enumerate(pairs, 1)
        ]
        return self.source(states[0]), self.series(*patches)

    def content(self, tree: str) -> dict[str, bytes]:
        files = self.repo.files(tree)
        blobs = self.repo.read([blob.oid for blob in files.values()])
        return {path: blobs[blob.oid] for path, blob in files.items()}


class Session:
    """A person in an open work tree."""

    def __init__(self, kit: Kit, tree: PatchedTree) -> None:
        self.kit, self.tree = kit, tree
        open_work(tree, kit.work, store=kit.store)

    def git(self, *words: str, **env: str) -> str:
        done = subprocess.run(
            ["git", *words],
            cwd=self.kit.work,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def write(self, path: str, data: bytes) -> None:
        file = self.kit.work / path
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)

    def commit(self, subject: str, body: str = STATUS) -> None:
        self.git("add", "--all")
        self.git("commit", "-q", "--cleanup=verbatim", "-m", subject, "-m", body)

    def rebase(self, script: str, editor: str = "true") -> None:
        """Edit the list of commits with a sed script."""
        self.git(
            *("rebase", "-q", "-i", "refs/patchwheel/base"),
            GIT_SEQUENCE_EDITOR=f"sed -i -e '{script}'",
            GIT_EDITOR=editor,
        )

    def export(self, *, check: bool = False, exact: bool = False) -> ExportResult:
        source, store = self.tree.source, self.kit.store
        return export(self.kit.work, source, store=store, check=check, exact=exact)

    def refusal(self) -> PatchError:
        before = snapshot(self.kit)
        with pytest.raises(PatchError) as caught:
            self.export()
        assert snapshot(self.kit) == before
        return caught.value

    @property
    def names(self) -> list[str]:
        return [patch.name for patch in load_series(self.kit.folder).patches]

    def check_round_trip(self) -> None:
        """The series on disk gives the tree of HEAD, and a second export changes nothing."""
        series = load_series(self.kit.folder)
        tree = apply_series(self.tree.source, series, store=self.kit.store)
        assert tree.tree == self.git("rev-parse", "HEAD^{tree}")
        before = snapshot(self.kit)
        result = self.export()
        assert (result.changed, result.written, result.range_diff) == (False, (), "")
        assert snapshot(self.kit) == before


def snapshot(kit: Kit) -> dict[str, bytes]:
    folder = kit.folder.parent
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file()
    }
