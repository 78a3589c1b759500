"""The page about a build: what it says, also of odd builds, and how it looks in a browser."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from patchwheel.kit.context import Event, Progress, Recording
from patchwheel.report import page
from patchwheel.report.page import Made, Report, keep_page, make_report, write_page

if TYPE_CHECKING:
    from pathlib import Path

    from patchwheel.kit.store import Store

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>&amp;"
WHEEL = Made(
    fork="demo",
    version="1.0",
    how="a compile: 2 extension modules",
    why=["it changes <a>", "there is no base wheel"],
    file="demo.whl",
    size=1_234_567,
    seconds=61,
    replayed={"hits": 3, "misses": 1},
)


def step(what: str, start: float, end: float, *needs: str, fork: str = "demo") -> Event:
    kind = {"c": "transpile", "o": "compile", "so": "link"}.get(what.rpartition(".")[2], "other")
    return Event(kind=kind, what=what, fork=fork, start=start, end=end, needs=needs)


STEPS = [
    step("a.c", 0, 2),
    step("a.o", 2, 5, "a.c"),
    step("b.o", 0, 4),
    step("m.so", 5, 5.5, "a.o", "b.o"),
]


def made_report(events: list[Event], *made: Made) -> Report:
    recording = Recording(Progress())
    recording.events += events
    return make_report(recording, made, python="3.12", jobs=2)


@pytest.mark.parametrize(
    ("events", "chain"),
    [
        ([], []),
        ([Event(kind="phase", what="packing", start=0, end=9)], []),
        (STEPS, ["a.c", "a.o", "m.so"]),
        # The same name in another fork is another step.
        ([*STEPS, step("a.c", 0, 4, fork="other")], ["a.c", "a.o", "m.so"]),
        # A step needs what has not ended, itself, what nobody knows, and goes in a circle.
        ([step("a.o", 1, 2, "a.o", "?", "b.o"), step("b.o", 1.5, 3, "a.o")], ["a.o", "b.o"]),
    ],
)
def test_the_critical_path_is_the_longest_chain(events: list[Event], chain: list[str]) -> None:
    report = made_report(events)
    assert [report.events[n].what for n in report.critical] == chain


def test_the_figures_lie_beside_the_page_and_in_it(tmp_path: Path) -> None:
    write_page(made_report([step(HOSTILE, 0, 1)], WHEEL), tmp_path / "report.html")
    figures = json.loads((tmp_path / "report.json").read_text())
    assert (figures["schema"], figures["made"][0]["size"]) == (page.SCHEMA, 1_234_567)
    text = (tmp_path / "report.html").read_text()
    inside = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', text)
    assert list(map(json.loads, inside)) == [figures]
    assert "<img" not in text
    # Nothing from elsewhere; dark, narrow and on paper.
    assert not re.search(r"<link|@import|url\(|https?://(?!www\.w3\.org/2000/svg)", text)
    for media in ("(prefers-color-scheme: dark)", "(max-width: 760px)", "print"):
        assert f"@media {media}" in text
    write_page(made_report([], WHEEL), tmp_path / "alone.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "alone.json",
        "report.html",
        "report.json",
    ]


@pytest.mark.parametrize("name", ["report.html", "report.json"])
def test_a_link_or_pipe_that_a_user_names_is_written_to(tmp_path: Path, name: str) -> None:
    report = made_report([], WHEEL)
    link, pipe = tmp_path / "link" / name, tmp_path / "pipe" / name
    for path in (link, pipe):
        path.parent.mkdir()
    target = tmp_path / "target"
    link.symlink_to(target)
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        for path in (link, pipe):
            write_page(report, path)
            assert [found.name for found in path.parent.iterdir()] == [name]
        assert reader.communicate()[0].strip() == target.read_bytes().strip() != b""
    assert (link.readlink(), pipe.is_fifo()) == (target, True)


def test_a_store_keeps_the_last_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "KEPT", 2)
    for number in range(1000, 1004):
        monkeypatch.setattr("os.getpid", lambda n=number: n)
        keep_page(made_report([], WHEEL), store)
    left = sorted(path.name for path in (store.root / page.FOLDER).iterdir())
    assert [name.rpartition("-")[2] for name in left] == [
        "1002.html",
        "1002.json",
        "1003.html",
        "1003.json",
    ]


def test_a_page_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_page(made_report([], WHEEL), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def browser() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    # Nothing that the project promises needs one, so CI goes without.
    return found or pytest.skip("there is no Chromium")


def opened(path: Path, *, width: int = 1200) -> str:
    """Return the document that a browser makes of a page."""
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    words += [f"--user-data-dir={path.parent / 'profile'}", "--dump-dom", path.as_uri()]
    done = subprocess.run(
        [browser(), *words], check=True, capture_output=True, text=True, timeout=120
    )
    return done.stdout.partition("<main>")[2]


MANY = [
    step(f"{n}.o", n / 10 + fork, n / 10 + fork + 1, fork=f"fork{fork}")
    for fork in range(80)
    for n in range(60)
]


@pytest.mark.parametrize(
    ("events", "made", "said"),
    [
        (STEPS, [WHEEL], ["1 fork: 1 made", "3 of 4", "1.2 MB", "it changes &lt;a&gt;", "5.50 s"]),
        (
            [
                Event(kind="phase", what="building demo", start=0, end=9),
                Event(kind="phase", what="packing", start=8, end=9, inside=["building demo"]),
            ],
            [WHEEL],
            ["packing\npatchwheel itself, and configuring, 1.00 s"],
        ),
        ([], [], ["0 forks", "Nothing ran"]),
        ([], [Made(fork="demo", state="up to date")], ["1 up to date", "Nothing ran"]),
        (
            [step(HOSTILE, 0, 1)],
            [Made(fork=HOSTILE, state="failed", problem=HOSTILE)],
            ["1 failed"],
        ),
        (MANY, [Made(fork=f"fork{n}") for n in range(80)], ["80 forks: 80 made", "fork79"]),
    ],
    ids=["compile", "no steps", "nothing", "no-op", "hostile", "80 forks"],
)
def test_a_browser_draws_it(
    tmp_path: Path, events: list[Event], made: list[Made], said: list[str]
) -> None:
    path = tmp_path / "report.html"
    write_page(made_report(events, *made), path)
    document = opened(path)
    assert [text for text in said if text not in document] == []
    assert ("<rect" in document) == bool(events)
    assert document.count("<rect") < 10_000
    # A hostile name is text, in whatever place.
    assert "<img" not in document.partition('id="figures"')[0]
    assert document.count("<script") == 2
