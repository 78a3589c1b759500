"""Draw the screens of the documents from real runs: docs/screens/NAME-WIDTH.svg, by rich.

It works in a copy of the checkout: a line of a `.pyx` of SciPy and of scikit-image is changed, as
one does in the loop, then each command runs on a terminal of its own, of 80 and 120 columns. It
takes some minutes, and needs pyte: uv run --with pyte python scripts/screens.py [NAME...].
"""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
SCREENS = ROOT / "docs" / "screens"
WIDTHS, HEIGHT = (80, 120), 60
EDITS = {
    "scipy": "scipy/ndimage/src/_ni_label.pyx",
    "scikit-image": "src/skimage/graph/_mcp.pyx",
}
# What is shown as typed, and its words; `build` gives two screens.
COMMANDS = {
    "status": "status scikit-image --offline",
    "plan": "plan scipy --dev",
    "build": "build scipy scikit-image --dev",
    "error": "build scipy --dev",
}
# Seconds between two looks at a build that goes on.
LOOK = 0.3
THEME = TerminalTheme(
    (255, 255, 255),
    (31, 41, 51),
    [
        (31, 41, 51),
        (192, 38, 38),
        (34, 120, 60),
        (150, 98, 8),
        (28, 86, 168),
        (130, 52, 150),
        (14, 116, 124),
        (82, 96, 109),
    ],
)
# Rich's, without a font that is loaded from elsewhere.
FRAME = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px;
  line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def frames(words: list[str], width: int, folder: Path) -> Iterator[pyte.Screen]:
    """Run a command on a terminal of this width, and look at it until its end."""
    screen = pyte.Screen(width, HEIGHT)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, width, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES", "NO_COLOR"}}
    env |= {"TERM": "xterm-256color"}
    with subprocess.Popen(words, cwd=folder, env=env, stdout=theirs, stderr=theirs):
        os.close(theirs)
        shown = time.monotonic()
        while True:
            try:
                if select.select([ours], [], [], LOOK)[0]:
                    stream.feed(os.read(ours, 1 << 16))
            except OSError:
                break
            if time.monotonic() - shown > LOOK:
                yield screen
                shown = time.monotonic()
    os.close(ours)
    yield screen


def lines(screen: pyte.Screen) -> list[Text]:
    """Return what a screen shows, with its colours."""
    rows = []
    for number in range(HEIGHT):
        row = Text()
        chars = (screen.buffer[number][column] for column in range(screen.columns))
        for (color, bold), same in itertools.groupby(chars, lambda char: (char.fg, char.bold)):
            row.append("".join(char.data for char in same), Style(color=_color(color), bold=bold))
        row.rstrip()
        rows.append(row)
    while rows and not rows[-1].plain:
        rows.pop()
    return rows


def _color(name: str) -> str | None:
    if name == "default":
        return None
    return f"#{name}" if re.fullmatch("[0-9a-f]{6}", name) else name.replace("brown", "yellow")


def draw(name: str, typed: str, width: int, rows: list[Text]) -> None:
    """Write a screen."""
    console = Console(width=width, record=True, file=io.StringIO(), color_system="truecolor")
    console.print(Text(f"$ patchwheel {typed}", style="bold"))
    store = os.environ.get("PATCHWHEEL_STORE", "")
    for row in rows:
        # Whatever store made them, it is shown at the place that it has by default.
        there = store and store in row.plain
        line = Text(row.plain.replace(store, "~/.cache/patchwheel")) if there else row
        console.print(line, soft_wrap=True)
    path = SCREENS / f"{name}-{width}.svg"
    path.parent.mkdir(exist_ok=True)
    text = console.export_svg(
        title=f"{width} columns", theme=THEME, code_format=FRAME, unique_id=f"{name}-{width}"
    )
    path.write_text(text, encoding="utf-8")


def edit(folder: Path, *, break_it: bool = False) -> None:
    """Change a line of a `.pyx` in each work tree, so that no wheel of it was made before."""
    for fork, name in EDITS.items():
        path = folder / "work" / fork / name
        subprocess.run(["git", "checkout", "-q", name], cwd=folder / "work" / fork, check=True)
        text = path.read_text(encoding="utf-8")
        more = f"\n\ndef _made():\n    return {'absent' if break_it else time.time_ns()}\n"
        path.write_text(text + more, encoding="utf-8")


def copied(folder: Path) -> Path:
    """Make the project, with the work trees that are edited."""
    names = ("forks.toml", "forks.lock", "forks.inventory", "patches")
    subprocess.run(["cp", "-r", *(ROOT / name for name in names), folder], check=True)
    for fork in EDITS:
        run = [sys.executable, "-m", "patchwheel", "dev", fork]
        subprocess.run(run, cwd=folder, check=True)
    return folder


def main(names: list[str], folder: Path) -> None:
    """Draw the named screens, all for none."""
    for width in WIDTHS:
        for name, typed in COMMANDS.items():
            if names and name not in names:
                continue
            edit(folder, break_it=name == "error")
            command = [sys.executable, "-m", "patchwheel", *typed.split()]
            best: list[Text] = []
            last: list[Text] = []
            for screen in frames(command, width, folder):
                last = lines(screen)
                text = "\n".join(row.plain for row in last)
                if _goes_on(text) >= _goes_on("\n".join(row.plain for row in best)):
                    best = last
            draw(name, typed, width, last)
            if name == "build":
                draw("progress", typed, width, best)


def _goes_on(text: str) -> int:
    """Count the lines of compiles that name a file."""
    return len(re.findall(r"compiling [\w-]+: \S+ .*\d+/\d+", text))


if __name__ == "__main__":
    # Short, and of no person: it is in the screens.
    place = Path("/tmp/forks")
    place.mkdir()
    try:
        main(sys.argv[1:], copied(place))
    finally:
        shutil.rmtree(place)
