"""Killed at any instant, or started twice: nothing is lost or half-written."""

import logging
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from patchwheel.manifest.transaction import JOURNAL
from tests.fixtures import support
from tests.fixtures.projects import Site, lines, make_site, own_files

pytestmark = pytest.mark.xdist_group("faults")

MERGED, CONFLICTING = "2.0", "3.0"
OTHER = "Subject: D\n\n--- /dev/null\n+++ b/d\n@@ -0,0 +1 @@\n+d\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Two patches on 1.0; 2.0 moves one and merges with the other, 3.0 conflicts with it."""
    releases = {
        MERGED: {"a": lines(l28="theirs"), "b": b"new\n" + lines()},
        CONFLICTING: {"a": lines(l30="theirs"), "b": lines()},
    }
    found = make_site(tmp_path_factory.mktemp("faults"), releases)
    upstream = found.shelf.parent / "upstream"
    first: dict[str, str | bytes | None] = {"a": lines(), "b": lines()}
    support.make_upstream(upstream, {**first, **own_files(upstream, "1.0")}, tag="v1.0")
    support.make_upstream(upstream, {"b": b"new\n" + lines()})
    path = found.root / "forks.toml"
    path.write_text(f'{path.read_text()}git = "file://{upstream}"\ntag = "v1.0"\n')
    found.run("lock")
    found.run("dev", "demo")
    support.write(found.work, {".git/other.patch": OTHER})
    return found


# --- killed ---------------------------------------------------------------------------------------


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


def unless_done(site: Site, words: Sequence[str], *, back: bool) -> bool:
    """Import what is not there yet: once more, it would not apply."""
    if len(list(site.patches.glob("*.patch"))) == 2:
        site.run(*words)
    status, said = site.tried("export", "demo", "--check")
    # Cut off before the open work tree followed.
    assert status == 0 or "`patchwheel dev demo` opens the new one" in said
    site.run("dev", "demo")
    return True


def on_or_back(site: Site, words: Sequence[str], *, back: bool) -> bool:
    """Go on with a rebase, or put everything back, as its messages say."""
    status, said = site.tried("rebase", "demo", "--abort" if back else "--continue")
    if "no rebase of demo is going on" in said:
        # Not begun, or finished by this command or the one before it, whose journal was there.
        old = 'version = "1.0"' in (site.root / "forks.toml").read_text()
        if old and not back and "--onto" in words:
            site.run(*words)
        return not old or (not back and "--onto" in words)
    if back:
        assert status == 0, said
        return False
    if status:
        # What git itself had left may be too little to go on with; all can be put back.
        assert status == 3, said
        site.run("rebase", "demo", "--abort")
    return status == 0


def back_again(site: Site, words: Sequence[str], *, back: bool) -> bool:
    return on_or_back(site, words, back=True)


def branches(site: Site, *, forget: bool = False) -> list[str]:
    """Return what `submit` made in the store, which all copies of a site share; or forget it."""
    repos = [*site.store.glob("git/demo-upstream-*.git")]
    made = [support.git(repo, "for-each-ref", "refs/patchwheel/submit") for repo in repos]
    for repo in repos if forget else ():
        shutil.rmtree(repo)
    return made


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
    "import": Operation(("import", "demo", "work/demo/.git/other.patch"), untouched, unless_done),
    "submit": Operation(("submit", "demo", "0010-a"), untouched, again),
    "bump": Operation(("lock",), repinned, again),
}


FEW = [pytest.param(name, 3) for name in ("export", "rebase", "continue", "abort", "bump")]
MANY = [pytest.param(name, 30, marks=pytest.mark.heavy) for name in OPERATIONS]


@pytest.mark.parametrize(("name", "instants"), [*FEW, *MANY])
def test_killed_at_any_instant_nothing_is_lost(
    site: Site, tmp_path: Path, name: str, instants: int
) -> None:
    operation = OPERATIONS[name]
    template = site.at(tmp_path / "template")
    operation.prepare(template)
    old = template.state()
    whole = template.at(tmp_path / "whole")
    begun = time.monotonic()
    # As long as one takes that is killed: `run` does not start a new process.
    process = whole.start(*operation.words)
    process.communicate(timeout=300)
    assert process.returncode == 0
    duration = time.monotonic() - begun
    new, made = whole.state(), branches(whole)
    assert (old == new) == (name in {"abort", "submit"})
    rng = random.Random(f"{name} {instants}")
    seen: Counter[str] = Counter()
    for number in range(instants):
        share, back = rng.random(), rng.random() < 0.5
        # What is put in place is put there at the end.
        delay = duration * (0.75 + share / 4 if rng.random() < 0.5 else share)
        one = template.at(tmp_path / str(number))
        if name == "submit":
            branches(one, forget=True)
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
        if done:
            assert branches(one) == made, where
        if name != "bump":
            assert "would be" not in one.run("export", "demo", "--check"), where
            assert one.git("symbolic-ref", "--short", "HEAD") == "patchwheel"
        seen["done" if done else "put back"] += 1
        shutil.rmtree(one.root)
    logging.getLogger(__name__).info("%s: %.1f s, %s", name, duration, dict(seen))


@pytest.mark.parametrize("command", ["--abort", "--continue"])
def test_once_its_journal_is_written_a_rebase_is_finished_by_whatever_comes_next(
    site: Site, tmp_path: Path, command: str
) -> None:
    one, whole = site.at(tmp_path / "one"), site.at(tmp_path / "whole")
    old = one.state()
    whole.run("rebase", "demo", "--onto", MERGED)
    killed = (
        "import os; from patchwheel.manifest import transaction; from patchwheel.cli import main; "
        "transaction._recover = lambda *_: os._exit(9); main.main()"
    )
    words = [sys.executable, "-c", killed, "rebase", "demo", "--onto", MERGED]
    env = {"PATCHWHEEL_STORE": str(one.store), **one.index}
    support.run(*words, status=9, cwd=one.root, env=env)
    assert (one.root / JOURNAL).exists()
    assert one.state() == old
    assert on_or_back(one, OPERATIONS["rebase"].words, back=command == "--abort")
    assert one.state() == whole.state()
    assert one.left() == []


# --- two at once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["export", "rebase"])
def test_of_two_at_once_one_waits_or_is_told(site: Site, tmp_path: Path, name: str) -> None:
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
