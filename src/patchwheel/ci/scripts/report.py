"""What a cell reports of its wheels: a table for people, JSON for the cells after it."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from patchwheel.wheelfile import read_wheel

COLUMNS = ("fork", "pin", "patches", "made", "why", "size", "time", "sha256")


def table(rows: Sequence[Sequence[str]]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    # A bar or a line end in a cell would end it.
    clean = [[c.replace("|", "\\|").replace("\n", " ") for c in row] for row in lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in clean)


def report(cell: str, reports: Path) -> None:
    """Report what was built, and name the artifact with the keys of its wheels."""
    rows, built_wheels = [], []
    for built in json.loads((reports / f"{cell}.built").read_text()):
        path = reports.parent / Path(built["path"]).name
        record = read_wheel(path).record
        pin, remade = record.pin, len(record.remade)
        summary = f"{remade} of {remade + record.taken} files remade"
        rows.append(
            (
                record.fork,
                f"{pin.version} ({(pin.commit or pin.tag or 'sdist')[:12]})",
                ", ".join(patch.name for patch in record.patches) or "none",
                f"{record.route}{', from the cache' if built['cached'] else ''}",
                "; ".join(built["plan"]["why"])
                or (summary if record.route == "graft" else "asked for"),
                f"{path.stat().st_size / 1e6:.1f} MB",
                f"{built['seconds']:.0f} s",
                f"`{built['sha256']}`",
            )
        )
        row = {"file": path.name, "sha256": built["sha256"], "version": record.version}
        built_wheels.append(row)
    keys = "-".join(w["version"].partition("+")[2].split(".h")[-1][:8] for w in built_wheels)
    text = json.dumps({"cell": cell, "wheels": built_wheels}, indent=1)
    (reports / f"{cell}.json").write_text(text)
    (reports / f"{cell}.md").write_text(f"### {cell}\n\n{table(rows)}\n")
    (reports / f"{cell}.artifact").write_text(f"{cell}-{keys}\n")


if __name__ == "__main__":
    report(sys.argv[1], Path(sys.argv[2]))
