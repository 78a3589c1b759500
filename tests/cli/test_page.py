"""The pages: what a person sees of each patch, and what is told of a build."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from patchwheel.cli import page as pages
from patchwheel.cli.page import SIGNS, forecast_page, report_build
from patchwheel.kit import Jobs
from patchwheel.kit.context import Progress, Recording
from patchwheel.kit.errors import BuildError
from patchwheel.manifest.model import Fork
from patchwheel.upstream.forecast import Commit, Forecast
from patchwheel.upstream.verdict import Verdict

if TYPE_CHECKING:
    from patchwheel.kit.store import Store
    from patchwheel.project import Project

BY = Commit(
    oid="a" * 40, author="A <b>", when="2026-01-02T03:04:05Z", subject="Rework", request=None
)
STOPPED = Verdict(
    name="0010-x.patch",
    state="conflict",
    problem="0010-x.patch does not apply: hunk 1 does not match a",
    commit=BY,
    release="v2.0",
    hunks=("-<old>", "+new"),
)
REFS = [f"v2.{n}" for n in range(6)]


def page(*verdicts: Verdict, git: str = "https://example.org/p") -> str:
    fork = Fork(name="demo", version="1.0", git=git, patches=Path("patches/demo"))
    found = [
        Forecast(ref=r, commit=None, commits=1, patches=(v,))
        for r, v in zip(REFS, verdicts, strict=False)
    ]
    return forecast_page([fork], {"demo": found})


def test_a_patch_has_one_row_and_each_commit_is_told_once() -> None:
    fine = Verdict(name="0010-x.patch", state="clean")
    told = page(fine, STOPPED, STOPPED, STOPPED, fine, STOPPED)
    assert told.count("<tr><th>0010-x.patch</th>") == 1
    assert told.count('<td class="state work"><b>✗</b>conflict</td>') == 4
    assert told.count("https://example.org/p/commit/") == 1
    [why] = re.findall(r'<td class="why">(.*?)</td>', told, re.DOTALL)
    assert "conflict at v2.1" in why
    assert "2026-01-02 A &lt;b&gt;: Rework <strong>first in v2.0</strong>" in why
    assert "<small>hunk 1 does not match a</small>" in why
    assert "<pre>-&lt;old&gt;</pre><pre>+new</pre>" in why


def test_the_summary_comes_first_with_what_asks_for_work() -> None:
    one = page(STOPPED, Verdict(name="0010-x.patch", state="landed", evidence=("it is there",)))
    summary = one.partition("<table")[0]
    assert "<strong>demo 1.0</strong> at v2.0: 1 conflict; at v2.1: 1 landed" in summary
    assert "href" not in page(STOPPED, git="file:///x")


def test_states_differ_in_shape_and_not_only_in_color() -> None:
    signs = [sign for sign, _ in SIGNS.values()]
    assert len(set(signs)) == len(signs)
    # No script and nothing from elsewhere; dark, narrow and on paper.
    drawn = page(STOPPED)
    assert not re.search(r"<script|<link|@import|url\(", drawn)
    for media in ("prefers-color-scheme: dark", "max-width: 760px", "print"):
        assert f"@media {media}" in drawn or f"@media ({media})" in drawn


@pytest.fixture
def building(store: Store) -> Project:
    made = SimpleNamespace(
        progress=Recording(Progress()),
        store=store,
        python="3.12",
        context=SimpleNamespace(pool=Jobs(2)),
    )
    return cast("Project", made)


def test_a_failed_build_is_reported_in_the_store(
    building: Project,
    store: Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failures = {"demo": BuildError("demo: the build failed")}
    # Nothing ran: there is nothing to tell.
    report_build(building, (), failures, None)
    assert capsys.readouterr().err == ""
    building.progress.took("run", "compiling demo", time.monotonic())
    report_build(building, (), failures, None)
    page = Path(capsys.readouterr().err.removeprefix("report: ").strip())
    assert page.parent == store.root / "reports"
    figures = json.loads(page.with_suffix(".json").read_text())
    assert figures["made"][0]["problem"] == "demo: the build failed"
    assert [event["what"] for event in figures["events"]] == ["compiling demo"]


def test_a_report_that_cannot_be_written_fails_no_build(
    building: Project,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report_build(building, (), {}, tmp_path / "no" / "report.html")
    assert "warning: no report: [Errno 2] No such file" in capsys.readouterr().err

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "report.html")

    monkeypatch.setattr(pages, "write_page", full)
    report_build(building, (), {}, tmp_path / "report.html")
    expected = "warning: no report: [Errno 28] No space left on device: 'report.html'\n"
    assert capsys.readouterr().err == expected
