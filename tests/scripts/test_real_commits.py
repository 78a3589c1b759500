"""What the script makes of the plans of upstream's commits."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import real_commits
from real_commits import CLASSES, Commits, Row

from patchwheel.series import load_series
from tests.fixtures import support

if TYPE_CHECKING:
    from pathlib import Path


def row(kind: str, built: int, cpu: float, **more: Any) -> Row:
    parts = {"commit": f"{kind} {cpu}", "at_most": False, "allowed": False, "back": False, **more}
    return Row(kind=kind, built=built, cpu=cpu, **parts)


ROWS = [
    *(row("Python only", 0, 1.0, allowed=number < 5) for number in range(8)),
    row("Python only", 0, 2.0),
    row("1 module", 1, 10.0, allowed=True),
    row("a compile", 54, 357.0, back=True),
]


def test_grafts_are_counted_apart_from_compiles() -> None:
    found = real_commits.summary(ROWS)
    assert found["histogram"] == {**dict.fromkeys(CLASSES, 0)} | {
        "Python only": 9,
        "1 module": 1,
        "a compile": 1,
    }
    assert (found["commits"], found["reversed"], found["at_most"]) == (11, 1, 0)
    assert (found["median_cpu"], found["p90_cpu"]) == (1.0, 10.0)
    assert [*found["allow_list"].values()] == [5, 1, 4, 1]


def test_what_is_compared_has_compiled_code_and_is_drawn_by_a_seed() -> None:
    chosen = real_commits.drawn(ROWS, 4, seed=7)
    assert chosen[0].kind == "1 module"
    assert [found.kind for found in chosen[1:]] == ["Python only"] * 3
    assert chosen == real_commits.drawn(ROWS, 4, seed=7)
    assert all(found.kind != "a compile" for found in chosen)
    assert len(real_commits.drawn(ROWS, 40, seed=7)) == len(ROWS) - 1


def test_the_picture_shows_each_kind() -> None:
    svg = real_commits.picture({"demo": real_commits.summary(ROWS)})
    root = ET.fromstring(svg)
    titles = [found.text for found in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[1:] == [
        "nothing: 0",
        "Python only: 9",
        "1 module: 1",
        "2 to 10: 0",
        "more: 0",
        "a compile: 1",
    ]
    assert "demo (11)" in svg


def test_the_documents_have_the_figures_that_were_measured() -> None:
    docs = support.ROOT / "docs"
    found = json.loads((docs / "figures" / "commits.json").read_text())
    assert (docs / "figures" / "commits.svg").read_text() == real_commits.picture(found)
    counts = found["scipy"]["histogram"]
    plain = counts["nothing"] + counts["Python only"]
    told = f"Of {found['scipy']['commits']} of its own commits, {plain} remake no extension, "
    told += f"{counts['1 module']} one, and {counts['a compile']} need a compile"
    assert told in " ".join((support.ROOT / "README.md").read_text().split())
    page = (docs / "benchmarks.md").read_text()
    for fork in found.values():
        cells = [fork["commits"], fork["reversed"], *fork["histogram"].values(), fork["at_most"]]
        cells += [fork["median_cpu"], fork["p90_cpu"]]
        assert f"| {' | '.join(map(str, cells))} |" in page
        assert f"| {' | '.join(map(str, fork['allow_list'].values()))} |" in page


def test_a_commit_becomes_a_patch_of_what_the_pin_has(tmp_path: Path) -> None:
    repo = tmp_path / "history"
    support.make_upstream(repo, {"a.py": "1\n", "docs/x.txt": "x\n"})
    later = {"a.py": "2\n", "docs/x.txt": "y\n", "new.py": "n\n"}
    commit = support.make_upstream(repo, later)
    commits: Any = object.__new__(Commits)
    commits.history, commits.pinned, commits.touching = repo, {"a.py"}, {"a.py"}
    root = tmp_path / "demo"
    (root / "patches" / "demo").mkdir(parents=True)
    commits.project = SimpleNamespace(manifest_path=root / "forks.toml")
    paths, text = commits.patch(commit)
    assert paths == {"a.py", "new.py"}
    commits.series(text)
    [patch] = load_series(root / "patches" / "demo").patches
    assert {diff.new for diff in patch.diffs} == paths
    # In reverse: what the commit added is removed, where the pin has it.
    commits.pinned = {"a.py", "new.py"}
    assert "+1" in commits.patch(commit, back=True)[1]
    commits.touching = {"b.py"}
    assert commits.patch(commit) == (set(), "")
