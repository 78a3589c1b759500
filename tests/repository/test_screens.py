"""The screens of the documents: what they show is still what the commands print."""

from __future__ import annotations

import html
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.fixtures.projects import Site

ROOT = Path(__file__).parent.parent.parent
SCREENS = sorted((ROOT / "docs" / "screens").glob("*.svg"))
VERSION = r"[\d.]+\+[\w.]+"
# Each line that a command may print, but for the paths and reasons of a project.
LINES = {
    "plan": (
        rf"[\w-]+ {VERSION}: (to be made|up to date, made in [\d.]+ s)",
        (
            r"  (a graft: (about a second|\d+ compiled), \d+ of \d+ files remade|"
            r"a compile: \d+ extension modules?|built by its backend: about a second)"
        ),
        r"  from (upstream's wheel|a wheel built here|source)( \([0-9a-f]{12}\))?",
        rf"  since the last build \({VERSION}, made in [\d.]+ s\):",
        r"    (file|patch|key part) \S+ \((new|changed|removed)\)",
        r"  it compiles nothing",
        r"  because of .+:",
        r"    (remake|add   |build |remove) \S+( from \S+)?",
        r"  and more, which --json has",
        r"  \d+ changed test, documentation or similar files?: nothing is remade for (it|them)",
        (
            r"warning: [\w-]+: it is compiled on glibc [\d.]+: its platform tag may rise "
            r"above \w+, which `build --strict-tag` refuses"
        ),
        r"  sandbox: \w+",
    ),
    "build": (
        r"sandbox: \w+ \(.+\)",
        (
            r"[\w-]+: (a graft: (\d+ compiled, )?\d+ of \d+ files remade|built by its backend), "
            r"in [\d.]+ s"
        ),
        r"report: \S+\.html",
        r"/\S+\.whl",
        r"\d+ made, \d+ up to date",
        r"next: `patchwheel env` \(to use the wheels\)",
    ),
    "status": (
        r"",
        r"fork +pin +commit +patches +tree +last wheel +upstream",
        r"─+",
        r"[\w-]+ +[\d.]+ \((v[\d.]+|no tag)\) +.+",
        r"[\w-]+",
        r"patch +applies +upstream-status( +subject)?",
        r"\d{4}-[\w-]+\.patch +(clean|[+-]\d+ lines) +(Pending|Inappropriate).*",
        r"  \w+: .+",
    ),
    "progress": (
        r"sandbox: \w+ \(.+\)",
        r"\S? ?building [\w-]+ +\d:\d\d:\d\d",
        (
            r"\S? *(compiling|configuring) [\w-]+(: \S+)? +([━╸╺ ]+ \d+/\d+(, \d+:\d\d left)? +)?"
            r"\d:\d\d:\d\d"
        ),
        r"\S? *configuring [\w-]+ to see what its changes reach +\d:\d\d:\d\d",
        r"[\w-]+: a graft: .+, in [\d.]+ s",
    ),
    "error": (
        r"sandbox: .+",
        r"error: \S+/work/scipy/\S+\.pyx:\d+: scipy: .+: undeclared name not builtin: absent",
        r"  last lines of the log:",
        r"    FAILED: .+",
        r"    .*",
        r"",
        r"  log: \S+\.log",
        r"report: \S+\.html",
        r"  next: correct it there, then `patchwheel build scipy --dev`",
    ),
}
# Lines of which each screen has at least one.
TOLD = {"plan": 0, "build": -1, "status": 5, "progress": 2, "error": 1}


def rows(path: Path) -> list[str]:
    """Return the lines of a screen, those that the terminal folded put together again."""
    width, found = int(path.stem.rpartition("-")[2]), defaultdict[float, str](str)
    text = path.read_text(encoding="utf-8").partition('-matrix">')[2]
    for x, y, said in re.findall(r'<text [^>]*x="([\d.]+)"[^>]* y="([\d.]+)"[^>]*>([^<]*)</', text):
        column = round(float(x) / 12.2)
        found[float(y)] = found[float(y)].ljust(column) + html.unescape(said).replace("\xa0", " ")
    lines: list[str] = []
    folded = False
    for _, line in sorted(found.items()):
        if folded:
            lines[-1] += line.rstrip()
        else:
            lines.append(line.rstrip())
        # These may be as wide as the terminal.
        folded = len(line.rstrip()) >= width and not re.search(r"^─|\d:\d\d:\d\d$|\.whl$", line)
    return lines


def unknown(name: str, lines: Iterable[str]) -> list[str]:
    return [line for line in lines if not any(re.fullmatch(p, line) for p in LINES[name])]


def test_there_is_a_screen_of_each_kind_at_both_widths() -> None:
    names = {f"{name}-{width}" for name in LINES for width in (80, 120)}
    assert {path.stem for path in SCREENS} == names
    used = (ROOT / "docs" / "how-to" / "new-project.md").read_text()
    assert {f"{name}-80" for name in LINES} <= set(re.findall(r"screens/([\w-]+)\.svg", used))


@pytest.mark.parametrize("path", SCREENS, ids=lambda path: path.stem)
def test_a_screen_has_the_lines_that_its_command_prints(path: Path) -> None:
    name = path.stem.rpartition("-")[0]
    command, *lines = rows(path)
    assert command.startswith("$ patchwheel ")
    # A table folds its cells, and not its lines.
    if name != "status" or path.stem.endswith("120"):
        assert unknown(name, lines) == []
    assert any(re.fullmatch(LINES[name][TOLD[name]], line) for line in lines)
    assert not re.search(r"/tmp/(?!forks/)|/root\b|Traceback", "\n".join(lines))


def test_the_commands_still_print_such_lines(locked_site: Site, tmp_path: Path) -> None:
    site = locked_site.apart(tmp_path)
    for words in (["plan"], ["status", "--offline"], ["build"]):
        process = site.start(*words)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        said = [line for line in (err + out).splitlines() if line and "building demo" not in line]
        assert said
        assert unknown(words[0], said) == []
