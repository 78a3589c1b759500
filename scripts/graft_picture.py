"""Draw docs/figures/graft.svg from docs/figures/graft.json: a wheel's files and two costs.

With --update, the files of the JSON are those that `patchwheel plan` names now. Its seconds are
those of docs/benchmarks.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
COLUMNS, SIDE = 34, 11
TAKEN, REMADE, TEXT, QUIET = "#cdd5df", "#d9480f", "#1f2933", "#52606d"
WIDTH, TOP, BAR_LEFT, BAR_WIDTH = 800, 44, 440, 250


def picture(facts: dict[str, Any]) -> str:
    """Return the SVG: each file of the wheel is a square, each way to build it a bar."""
    fork, files, remade = facts["fork"], facts["files"], len(facts["remade"])
    height = TOP + SIDE * -(-files // COLUMNS) + 34
    rows = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img" font-family="sans-serif">'
        ),
        f"<title>{fork}: {remade} of {files} files remade</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(16, 26, f"{fork} {facts['version']}: the {files} files of its wheel", TEXT, 14),
        *_squares(files, remade),
        _text(16, height - 12, f"{remade} remade", REMADE),
        _text(96, height - 12, f"{files - remade} taken from upstream's wheel", QUIET),
        _text(BAR_LEFT, 26, "CPU seconds after one changed line of Python", TEXT, 14),
        *_bars(facts["cpu_seconds"]),
        "</svg>",
    ]
    return "\n".join(rows) + "\n"


def _squares(files: int, remade: int) -> list[str]:
    # Spread evenly: where a file stands in the archive means nothing.
    coloured = {(2 * number + 1) * files // (2 * remade) for number in range(remade)}
    return [
        f'<rect x="{16 + SIDE * (number % COLUMNS)}" y="{TOP + SIDE * (number // COLUMNS)}" '
        f'width="{SIDE - 2}" height="{SIDE - 2}" rx="1" '
        f'fill="{REMADE if number in coloured else TAKEN}"/>'
        for number in range(files)
    ]


def _bars(seconds: dict[str, float]) -> list[str]:
    longest = max(seconds.values())
    rows = []
    for number, (name, value) in enumerate(seconds.items()):
        top, width = TOP + 14 + 46 * number, max(2.0, BAR_WIDTH * value / longest)
        colour = REMADE if value < longest else TAKEN
        rows += [
            _text(BAR_LEFT, top, name, TEXT),
            f'<rect x="{BAR_LEFT}" y="{top + 6}" width="{width:.1f}" height="16" fill="{colour}"/>',
            _text(BAR_LEFT + width + 8, top + 19, f"{value:,.1f} s", TEXT),
        ]
    return rows


def _text(x: float, y: float, text: str, colour: str, size: int = 12) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}" font-size="{size}">{text}</text>'


def _update(facts: dict[str, Any]) -> None:
    command = ["patchwheel", "plan", facts["fork"], "--json"]
    [plan] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    facts["version"] = plan["version"].partition("+")[0]
    facts["files"] = len(plan["outputs"]) + len(plan["taken"])
    facts["remade"] = sorted(output["path"] for output in plan["outputs"])


if __name__ == "__main__":
    path = FIGURES / "graft.json"
    data = json.loads(path.read_text())
    if sys.argv[1:] == ["--update"]:
        _update(data)
        path.write_text(json.dumps(data, indent=1) + "\n")
    (FIGURES / "graft.svg").write_text(picture(data))
