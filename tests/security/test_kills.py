"""P3: `build`, `env` and `release`, killed at any instant, make the same as undisturbed."""

import contextlib
import ctypes
import hashlib
import json
import logging
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fixtures import forked, projects, support
from tests.fixtures.projects import Site
from tests.fixtures.shared import make_key
from tests.security.hostile import RELEASE

SET_CHILD_SUBREAPER = 36
# What is being written, until it is renamed.
UNFINISHED = re.compile(r"\..+\.(\w{8}\.tmp|[0-9a-f]{16}|new)")
KEY = "key.pem"
UV_NOTE = b"uv_cache.json"
# Of the store: it has the times of an environment's files.
ENTRY = ".venv-forks/entry.json"


def locked(_site: Site) -> None:
    pass


def built(site: Site) -> None:
    site.run("build")


def released(site: Site) -> None:
    site.run(*RELEASE)


def gathered(site: Site) -> None:
    released(site)
    [cell] = [name for name in site.run("ci", "--cells").split() if name.startswith("release-")]
    [wheel] = (site.root / "dist/release").rename(site.root / "cells").glob("*.whl")
    report = {"cell": cell, "wheels": [{"file": wheel.name, "sha256": support.sha256(wheel)}]}
    support.write(site.root / "cells", {f"reports/{cell}.json": json.dumps(report)})


@dataclass(frozen=True)
class Operation:
    """A command, what it starts from, and how often the heavy test kills it."""

    words: Sequence[str]
    prepare: Callable[[Site], None]
    kills: int


OPERATIONS = {
    "build": Operation(("build",), locked, 40),
    "release": Operation(RELEASE, locked, 50),
    "env": Operation(("env",), built, 50),
    "stage": Operation(("release", "stage", "cells", "staged"), gathered, 30),
    "sign": Operation(("release", "sign", "dist/release", "--key", KEY), released, 10),
    "index": Operation(("index", "dist/release"), released, 20),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = projects.make_site(tmp_path_factory.mktemp("kills"), {})
    made.run("lock")
    make_key(made.root / KEY)
    support.write(made.root, {"dist/notes.txt": "a user's", "dist/release/notes.txt": "another"})
    return made


def content(site: Site) -> dict[str, str]:
    """Return what is outside the store, with the environment that a user sees."""
    found = {}
    for root in (site.root, site.root / ".venv-forks/"):
        for path in root.resolve().rglob("*"):
            name = f"{root.name}/{path.relative_to(root.resolve())}"
            if path.is_symlink():
                found[name] = str(path.readlink())
            elif path.is_file():
                # uv notes there, and with its sum, when the wheel was last written; the head of a
                # compiled module has when its source was.
                data = path.read_bytes()[16 if path.suffix == ".pyc" else 0 :]
                rows = [row for row in data.splitlines() if UV_NOTE not in row]
                found[name] = hashlib.sha256(b"\n".join(rows)).hexdigest()
    return {n: v for n, v in found.items() if UV_NOTE.decode() not in n and n != ENTRY}


@pytest.fixture
def orphans() -> Iterator[Callable[[], list[str]]]:
    """Give what tells the processes that outlived the one that started them."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    forked._server()  # It is of the tests, and begins with the first command.
    before = {pid for pid, _ in children()}

    def found() -> list[str]:
        for pid, _ in children():
            if pid not in before:
                os.waitpid(pid, os.WNOHANG)
        return [command for pid, command in children() if pid not in before]

    yield found
    prctl(SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def children() -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                command = (folder / "cmdline").read_bytes().decode(errors="replace")
                yield int(folder.name), command.replace("\0", " ")


FEW = [pytest.param("env", 1), pytest.param("stage", 2)]
MANY = [pytest.param(n, one.kills, marks=pytest.mark.heavy) for n, one in OPERATIONS.items()]


@pytest.mark.parametrize(("name", "kills"), [*FEW, *MANY])
def test_killed_at_any_instant_the_next_run_makes_the_same(
    site: Site, tmp_path: Path, orphans: Callable[[], list[str]], name: str, kills: int
) -> None:
    operation = OPERATIONS[name]
    template = site.apart(tmp_path / "template")
    operation.prepare(template)
    old, new, duration = content(template), dict[str, str](), 0.0
    rng, seen = random.Random(f"{name} {kills}"), Counter[str]()
    for number in range(kills + 1):
        # At the same path, so that the same is made there.
        one = template.apart(tmp_path / "one")
        begun = time.monotonic()
        victim = one.start(*operation.words)
        if number:
            delay = duration * rng.random()
            time.sleep(delay)
            where = f"{name} killed after {delay:.3f} s of {duration:.3f} s"
            # All of it, as when a machine goes down, or it alone, as when memory is short.
            end = rng.choice([os.kill, os.killpg])
            end(victim.pid, signal.SIGKILL)
            victim.communicate()
            seen[f"after {end.__name__}"] += 1
            until = time.monotonic() + 10
            while alive := orphans():
                assert time.monotonic() < until, (where, alive)
                time.sleep(0.02)
            now = content(one)
            assert old.keys() <= now.keys(), where
            for path, found in now.items():
                unfinished = any(UNFINISHED.fullmatch(part) for part in path.split("/"))
                assert unfinished or found in {old.get(path), new.get(path)}, (where, path)
            seen["old" if now == old else "new" if now == new else "between"] += 1
            one.run(*operation.words)
            assert content(one) == new, where
            assert one.run("cache", "verify") == "", where
        else:
            said = victim.communicate(timeout=300)
            assert victim.returncode == 0, said
            duration, new = time.monotonic() - begun, content(one)
            assert old.items() < new.items()
        shutil.rmtree(tmp_path / "one")
    logging.getLogger(__name__).info("%s: %.2f s, %s", name, duration, dict(seen))
