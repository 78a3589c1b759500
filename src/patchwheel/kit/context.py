"""What a run may use of the machine, and how it reports; handed down, never global."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from patchwheel.kit.interpreter import Interpreter
    from patchwheel.kit.limits import Jobs, Limits
    from patchwheel.kit.store import Store
    from patchwheel.kit.uv import IndexConfig

SandboxMode = Literal["auto", "required", "none"]
# Whether builds read the compile cache, and whether it takes what they add.
CacheUse = Literal["write", "read", "off"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What took time in a run: `start` and `end` are seconds since it began, `cpu` those it used.

    `needs` are the steps, by name, whose outputs it reads; `inside` the steps of us around it.
    """

    kind: str
    what: str
    fork: str = ""
    start: float
    end: float
    cpu: float = 0
    size: int = 0
    needs: Sequence[str] = ()
    inside: Sequence[str] = ()


class Progress:
    """What a stage reports while it works. This one shows nothing; the command line has another."""

    def say(self, line: str) -> None:
        """Show one finished fact."""

    def progress(
        self, what: str, done: int, total: int | None, *, file: str = "", share: float = 0
    ) -> None:
        """Show how far `what` is, and at which `file`; called often, `done == total` ends it.

        `share` is how much of the work that is, from 0 to 1, where it is known.
        """

    @contextlib.contextmanager
    def step(self, what: str, *, brief: bool = False) -> Iterator[None]:
        """Show that `what` goes on, and for how long; a `brief` one only where it takes a while."""
        if not brief:
            self.say(what)
        yield

    def took(self, kind: str, what: str, start: float, end: float = 0, **facts: Any) -> None:
        """Tell what took how long, in seconds of time.monotonic(); without an `end` it is now."""


class Recording(Progress):
    """Shows everything by another Progress, and keeps what took how long."""

    def __init__(self, shown: Progress) -> None:
        self.shown, self.start, self.events = shown, time.monotonic(), list[Event]()
        self._around = threading.local()

    def say(self, line: str) -> None:
        self.shown.say(line)

    def progress(self, *words: Any, **facts: Any) -> None:
        self.shown.progress(*words, **facts)

    @contextlib.contextmanager
    def step(self, what: str, *, brief: bool = False) -> Iterator[None]:
        start, used = time.monotonic(), time.thread_time()
        around = self._around.names = [*getattr(self._around, "names", ()), what]
        try:
            with self.shown.step(what, brief=brief):
                yield
        finally:
            self._around.names = around[:-1]
            self.took("phase", what, start, cpu=time.thread_time() - used)

    def took(self, kind: str, what: str, start: float, end: float = 0, **facts: Any) -> None:
        end, inside = end or time.monotonic(), tuple(getattr(self._around, "names", ()))
        start, end = round(start - self.start, 3), round(end - self.start, 3)
        event = Event(kind=kind, what=what, start=start, end=end, inside=inside, **facts)
        self.events.append(event)


@dataclasses.dataclass
class Context:
    """The store, where progress goes, and the options of a run.

    `python` is the version that wheels are for, such as 3.12; `explicit` the interpreter that the
    user named for it. Index settings are read for the project at `root`, when they are needed. What
    is `done` once in a run, such as to fetch an address, other contexts of the run see as well, and
    the error with which it failed.
    """

    store: Store
    progress: Progress
    _: dataclasses.KW_ONLY
    root: Path | None = None
    python: str = ""
    explicit: str | None = None
    offline: bool = False
    jobs: int | None = None
    sandbox: SandboxMode = "auto"
    keep_failed: bool = False
    compile_cache: CacheUse = "write"
    done: dict[str, object] = dataclasses.field(default_factory=dict, repr=False)

    def note(self, line: str) -> None:
        """Say a fact that many stages meet, once in a run."""
        if line not in self.done:
            self.done[line] = True
            self.progress.say(line)

    @functools.cached_property
    def limits(self) -> Limits:
        """The limits of build steps; raises ManifestError for a variable that is no amount."""
        from patchwheel.kit.limits import load_limits

        return load_limits(os.environ)

    @functools.cached_property
    def pool(self) -> Jobs:
        """The job slots that all builds of the run share."""
        from patchwheel.kit.limits import Jobs, job_count

        count = job_count(self.jobs)
        if count < (self.jobs or 0):
            self.note(f"jobs: {count} at once, of {self.jobs}: there is no memory for more")
        return Jobs(count)

    @functools.cached_property
    def index(self) -> IndexConfig:
        """The user's settings of package indexes, those of pip and uv included."""
        from patchwheel.kit.uv import load_index_config

        assert self.root is not None  # noqa: S101  (a project always has one)
        return load_index_config(self.root)

    @functools.cached_property
    def interpreter(self) -> Interpreter:
        """The CPython that wheels are for; raises MachineError when there is none."""
        from patchwheel.kit.interpreter import remembered_interpreter

        return remembered_interpreter(
            self.python, explicit=self.explicit, store=self.store, progress=self.progress
        )

    def for_python(self, version: str) -> Context:
        """Return the same context for another Python."""
        if version == self.python:
            return self
        _ = self.pool
        other = copy.copy(self)
        other.python, other.explicit = version, None
        # What was read of the indexes stays.
        vars(other).pop("interpreter", None)
        return other
