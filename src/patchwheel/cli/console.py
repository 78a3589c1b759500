"""Progress bars on a terminal, plain lines elsewhere, and tables of results."""

from __future__ import annotations

import codecs
import contextlib
import importlib
import io
import itertools
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from patchwheel.kit import Progress, plain

if TYPE_CHECKING:
    from rich import progress
    from rich.console import ConsoleOptions, RenderableType
    from rich.text import Text

# Seconds until a step is shown, and between the lines of one where there is no terminal.
DELAY, PLAIN_INTERVAL = 0.5, 15.0
STEPS, FEW = 50_000, 4
# Wider than any row.
PIPE_WIDTH = 100_000
# A table may be so many times as wide as the terminal before its cells get lines of their own.
FOLDED = 2
# In a narrower one folding breaks words.
NARROW = 80
# How `main` starts Python again in a locale whose encoding is another.
UTF8 = ["-X", "utf8"]
# What is drawn, and what stands for it where there is no such character.
LINES = str.maketrans("─━…⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", r"--~|/-\|/-\|/")
# The commands that take the options of a project, where a text offers them.
NAMED = (
    r"\bpatchwheel (?:add|remove|plan|build|env|test|shell|dev|export|import|status|rebase|propose"
    r"|submit|verify|ci|lock|doctor)\b"
)


class Console(Progress):
    """A Progress on standard error; rich is imported for the first bar or table only."""

    def __init__(self) -> None:
        self._bars: progress.Progress | None = None
        self._tasks: dict[str, progress.TaskID] = {}
        # When a count began or was last shown, and what is going on, with how far it is.
        self._since: dict[str, float] = {}
        self._going: dict[str, str] = {}
        # Grafts of several forks report from threads of their own.
        self._lock = threading.Lock()
        self.terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        # What an interrupt is answered with, once.
        self.ending = "interrupted: what was begun is removed"
        # Options that were given, and that commands need which are offered.
        self.given = ""

    def say(self, line: str) -> None:
        line = self.again(plain(line))
        if self._bars:
            # Above the bars, which rich draws again below it.
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def again(self, text: str) -> str:
        """Add options to the commands that a text names: else they are of another project."""
        return re.sub(NAMED, lambda found: found[0] + self.given, text) if self.given else text

    def result(self, line: object) -> None:
        """Print a line of a command's result to standard output."""
        # On a terminal a bar would be drawn over it.
        self.close()
        print(plain(str(line)), flush=True)

    def lines(self, lines: Iterable[object]) -> None:
        for line in lines:
            self.result(line)

    def progress(
        self, what: str, done: int, total: int | None, *, file: str = "", share: float = 0
    ) -> None:
        show = self._bar if self.terminal else self._line
        with self._lock:
            show(what, done, total, plain(file), share)

    @contextlib.contextmanager
    def step(self, what: str, *, brief: bool = False) -> Iterator[None]:
        if not (brief or self.terminal):
            self.say(what)
        ended, self._going[what] = threading.Event(), ""
        self._since[what] = time.monotonic()
        threading.Thread(target=self._beat, args=(what, ended, brief), daemon=True).start()
        try:
            yield
        except KeyboardInterrupt:
            # On a busy disk that takes seconds.
            if self.ending:
                self.say(self.ending)
            self.ending = ""
            raise
        finally:
            ended.set()
            with self._lock:
                self._going.pop(what, None)
                self._drop(what)

    def _beat(self, what: str, ended: threading.Event, brief: bool) -> None:  # noqa: FBT001
        """Show a step after a while; on a terminal it then moves by itself."""
        # A short step may have ended before its thread comes to this.
        start, wait = time.monotonic(), DELAY if self.terminal or brief else PLAIN_INTERVAL
        while not ended.wait(wait):
            with self._lock:
                if what not in self._going:
                    return
                if self.terminal:
                    if what not in self._tasks:
                        self._bar(what, 0, None)
                    return
                # Of a step around others, they tell.
                if self._going[what] or what == [*self._going][-1]:
                    taken = f"{time.monotonic() - start:.0f} s" if wait > DELAY else ""
                    self.say(": ".join(filter(None, [what, taken, self._going[what]])))
            wait = PLAIN_INTERVAL

    def close(self) -> None:
        self._going.clear()
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
        """Draw a table on standard output, or a `note` on standard error; nothing of it is cut.

        Where that is no terminal each row is one line, whatever its length, and on one that is far
        too narrow each cell.
        """
        from rich import box
        from rich.console import Console as Rich
        from rich.table import Table

        self.close()
        heading = f"\n{title}" if title else None
        # The stream has something for each of its lines.
        lined = box.Box(str(box.SIMPLE_HEAD), ascii=True)
        shown = any(headings)
        drawn = Table(title=heading, box=lined, title_justify="left", show_header=shown)
        # Each column that this saves is one of 80.
        drawn.pad_edge, drawn.collapse_padding, drawn.show_edge = False, True, False
        for heading in headings:
            drawn.add_column(heading, overflow="fold")
        cells = [[*map(plain, row)] for row in rows]
        for row in cells:
            drawn.add_row(*row)
        # In a pipe rich would fold rows at 80 columns, and pad them.
        rich = Rich(file=io.StringIO(), width=PIPE_WIDTH, markup=False)
        with rich.capture() as capture:
            rich.print(drawn)
        lines = [*filter(None, map(str.rstrip, capture.get().splitlines()))]
        if self.terminal if note else sys.stdout.isatty():
            screen = Rich(stderr=note, markup=False)
            room = screen.width * (FOLDED if screen.width >= NARROW else 1)
            if max(map(len, lines), default=0) <= room:
                screen.print(drawn)
                return
            lines = [title] if title else []
            for row in cells:
                named = zip(headings[1:], row[1:], strict=True)
                told = (": ".join(filter(None, pair)) for pair in named if pair[1])
                lines += [row[0], *(f"  {line}" for line in told)]
        for line in lines:
            print(line, file=sys.stderr if note else sys.stdout, flush=True)

    def _bar(
        self, what: str, done: int, total: int | None, file: str = "", share: float = 0
    ) -> None:
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        self._since.setdefault(what, time.monotonic())
        taken = time.monotonic() - self._since[what]
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=None, amount="", file="")
            self._bars.tasks[-1].start_time = self._since[what]
        amount = _amount(done, total, taken, share)
        self._bars.update(self._tasks[what], completed=done, total=total, amount=amount, file=file)
        # What is a step ends with it: a build counts to its end more than once.
        if total is not None and done >= total and what not in self._going:
            self._drop(what)

    def _drop(self, what: str) -> None:
        self._since.pop(what, None)
        if self._bars and what in self._tasks:
            self._bars.remove_task(self._tasks.pop(what))

    def _line(self, what: str, done: int, total: int | None, file: str, share: float) -> None:
        # A log of CI shows that something goes on, without a line for each percent.
        now = time.monotonic()
        if what in self._going:
            taken = now - self._since[what] if share else 0
            self._going[what] = f"{_amount(done, total, taken, share)} {file}".rstrip()
            return
        ended = total is not None and done >= total
        if ended or now - self._since.setdefault(what, now) >= PLAIN_INTERVAL:
            self._since[what] = now
            self.say(f"{what}: {_amount(done, total)}")
        if ended:
            del self._since[what]


def _bars() -> progress.Progress:
    """Return bars of one line each, in which the name and the file alone are shortened."""
    from rich import progress
    from rich.console import Console as Rich
    from rich.table import Column
    from rich.text import Text

    class Name(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Middle:
            return Middle(": ".join(filter(None, [task.description, task.fields["file"]])))

    bar = progress.BarColumn(bar_width=12)

    class Share(progress.ProgressColumn):
        def render(self, task: progress.Task) -> RenderableType:
            return bar.render(task) if task.total else Text()

    class Middle:
        def __init__(self, text: str) -> None:
            self.text = text

        def __rich_console__(self, _: Rich, options: ConsoleOptions) -> Iterator[Text]:
            room, text = options.max_width - 1, self.text
            if len(text) > room + 1:
                # The start says what goes on, and the end which file.
                text = f"{text[: room // 2]}…{text[len(text) - room + room // 2 :]}"
            yield Text(text)

    return progress.Progress(
        progress.SpinnerColumn(),
        Name(table_column=Column(ratio=1, no_wrap=True)),
        Share(),
        progress.TextColumn("{task.fields[amount]}", table_column=Column(no_wrap=True)),
        progress.TimeElapsedColumn(),
        console=Rich(stderr=True),
        transient=True,
        expand=True,
    )


def _amount(done: int, total: int | None, taken: float = 0, share: float = 0) -> str:
    """Say how far something is, and in `taken` seconds: the rate of bytes, the rest of steps.

    The rest goes by the `share` of the work that is done, and only else by the number of steps.
    """
    # Steps of a build are thousands at most; what counts further are bytes.
    scale, unit = (1e6, " MB") if (total or done) > STEPS else (1, "")
    digits = 1 if unit else 0
    rows = [f"{number / scale:,.{digits}f}" for number in (done, total) if number is not None]
    text = "/".join(rows) + unit if done else ""
    if taken < 1 or not done:
        return text
    if unit:
        return f"{text}, {done / taken / scale:.1f} MB/s"
    # The first few steps say little of the others.
    share = share or (done / total if total else 1)
    rest = taken / share * (1 - share) if done > FEW else 0
    return f"{text}, {rest // 60:.0f}:{rest % 60:02.0f} left" if rest else text


def _open_streams() -> None:
    """Let a standard stream that was closed at the start, as by `>&-`, lead nowhere."""
    # Else the next file that is opened would have its number, and get what programs print.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004  (standard error)
        os.set_inheritable(number, True)  # noqa: FBT003  (it takes no names)
    os.close(number)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")
    codecs.register_error("patchwheel", _written)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A pipe gets the names of files as they are.
            other = sys.orig_argv[1:3] == UTF8 and stream.isatty()
            encoding = importlib.import_module("locale").getencoding() if other else None
            stream.reconfigure(encoding=encoding, errors="patchwheel")


def _written(err: Any) -> tuple[bytes, int]:
    """Return what stands for characters that a stream's encoding lacks."""
    text = err.object[err.start : err.end].translate(LINES)
    # A byte of a file's name is written as it is.
    how = ("surrogateescape" if "\udc80" <= c <= "\udcff" else "backslashreplace" for c in text)
    return b"".join(map(str.encode, text, itertools.repeat("ascii"), how)), err.end


_open_streams()
CONSOLE = Console()
