"""What a cell reports: a table for people, JSON for the cells after it."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = ("fork", "pin", "patches", "made", "why", "size", "time", "sha256")


def record(wheel: Path) -> dict[str, Any]:
    """Return what the wheel says of its making."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith(".dist-info/patchwheel.json")]
        answer: dict[str, Any] = json.loads(archive.read(name))
    return answer


def table(rows: Sequence[Sequence[str]]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    # A bar or a line end in a cell would end it.
    clean = [[c.replace("|", "\\|").replace("\n", " ") for c in row] for row in lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in clean)


def wheels(cell: str, reports: Path) -> None:
    """Tell what was built, and name the artifact with the keys of its wheels."""
    rows, found = [], []
    for built in json.loads((reports / f"{cell}.built").read_text()):
        path = reports.parent / Path(built["path"]).name
        told = record(path)
        pin, remade = told["pin"], told["remade"]
        done = f"{len(remade)} of {len(remade) + told['taken']} files remade"
        rows.append(
            (
                told["fork"],
                f"{pin['version']} ({(pin['commit'] or pin['tag'] or 'sdist')[:12]})",
                ", ".join(p["name"] for p in told["patches"]) or "none",
                f"{told['route']}{', from the cache' if built['cached'] else ''}",
                "; ".join(built["plan"]["why"])
                or (done if told["route"] == "graft" else "asked for"),
                f"{path.stat().st_size / 1e6:.1f} MB",
                f"{built['seconds']:.0f} s",
                f"`{built['sha256']}`",
            )
        )
        found.append({"file": path.name, "sha256": built["sha256"], "version": told["version"]})
    keys = "-".join(w["version"].partition("+")[2].split(".h")[-1][:8] for w in found)
    (reports / f"{cell}.json").write_text(json.dumps({"cell": cell, "wheels": found}, indent=1))
    (reports / f"{cell}.md").write_text(f"### {cell}\n\n{table(rows)}\n")
    (reports / f"{cell}.artifact").write_text(f"{cell}-{keys}\n")


def changes(cell: str, reports: Path) -> None:
    """Tell what upstream did to the series since the last time; exits with 6 where it did something."""
    found = json.loads((reports / f"{cell}.json").read_text())
    lines = [
        f"* {fork}/{patch['name']} at {ref['ref']}: {patch['state']}"
        + (
            f", {patch['commit']['oid'][:12]} {patch['commit']['subject']}"
            if patch["commit"]
            else ""
        )
        for fork, refs in found.items()
        for ref in refs
        for patch in ref["patches"]
    ]
    text = "\n".join(lines) or "Nothing new."
    (reports / f"{cell}.md").write_text(f"### {cell}\n\n{text}\n\n")
    print(text)
    sys.exit(6 if lines else 0)


if __name__ == "__main__":
    {"wheels": wheels, "changes": changes}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
