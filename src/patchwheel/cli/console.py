"""Progress bars on a terminal, plain lines elsewhere, and tables of results."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from patchwheel.kit import Progress, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich import progress

PLAIN_INTERVAL = 15.0
STEPS = 50_000
# Wider than any row.
PIPE_WIDTH = 100_000


class Console(Progress):
    """A Progress on standard error; rich is imported for the first bar or table only."""

    def __init__(self) -> None:
        self._bars: progress.Progress | None = None
        self._tasks: dict[str, progress.TaskID] = {}
        self._shown: dict[str, float] = {}
        # Grafts of several forks report from threads of their own.
        self._lock = threading.Lock()
        self.terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def say(self, line: str) -> None:
        line = plain(line)
        if self._bars:
            # Above the bars, which rich draws again below it.
            self._bars.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def result(self, line: str) -> None:
        """Print a line of a command's result to standard output."""
        # On a terminal a bar would be drawn over it.
        self.close()
        print(plain(line), flush=True)

    def lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.result(line)

    def progress(self, what: str, done: int, total: int | None) -> None:
        with self._lock:
            if self.terminal:
                self._bar(what, done, total)
            else:
                self._line(what, done, total)

    def close(self) -> None:
        if self._bars:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()

    def table(
        self,
        headings: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        title: str = "",
        note: bool = False,
    ) -> None:
        """Draw a table on standard output, or a `note` on standard error.

        Where that is no terminal each row is one line, whatever its length.
        """
        from rich import box
        from rich.console import Console as Rich
        from rich.table import Table

        self.close()
        drawn = Table(*headings, title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
        for row in rows:
            drawn.add_row(*map(plain, row))
        if self.terminal if note else sys.stdout.isatty():
            Rich(stderr=note, markup=False).print(drawn)
            return
        # In a pipe rich would fold rows at 80 columns, and pad them.
        rich = Rich(file=io.StringIO(), width=PIPE_WIDTH, markup=False)
        with rich.capture() as capture:
            rich.print(drawn)
        for line in filter(None, map(str.rstrip, capture.get().splitlines())):
            print(line, file=sys.stderr if note else sys.stdout)

    def _bar(self, what: str, done: int, total: int | None) -> None:
        from rich.console import Console as Rich
        from rich.progress import Progress as Bars

        if self._bars is None:
            self._bars = Bars(console=Rich(stderr=True), transient=True)
            self._bars.start()
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)
        if total is not None and done >= total:
            self._bars.remove_task(self._tasks.pop(what))

    def _line(self, what: str, done: int, total: int | None) -> None:
        # A log of CI shows that something goes on, without a line for each percent.
        now = time.monotonic()
        ended = total is not None and done >= total
        first = self._shown.setdefault(what, now)
        if ended or now - first >= PLAIN_INTERVAL:
            self._shown[what] = now
            self.say(f"{what}: {_amount(done, total)}")
        if ended:
            del self._shown[what]


def _amount(done: int, total: int | None) -> str:
    # Steps of a build are thousands at most; what counts further are bytes.
    scale, unit = (1e6, " MB") if (total or done) > STEPS else (1, "")
    digits = 1 if unit else 0
    rows = [f"{number / scale:,.{digits}f}" for number in (done, total) if number is not None]
    return "/".join(rows) + unit


CONSOLE = Console()
