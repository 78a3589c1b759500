"""What a run may use of the machine, and how it reports; handed down, never global."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from patchwheel.kit.interpreter import Interpreter
    from patchwheel.kit.store import Store
    from patchwheel.kit.uv import IndexConfig

SandboxMode = Literal["auto", "required", "none"]


class Progress(Protocol):
    """What a stage reports while it works; the command line decides how it looks."""

    def say(self, line: str) -> None:
        """Show one finished fact."""

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Show how far `what` is; called often, `done == total` ends it."""


class Quiet:
    """Shows nothing."""

    def say(self, line: str) -> None:
        pass

    def progress(self, what: str, done: int, total: int | None) -> None:
        pass


@dataclasses.dataclass
class Context:
    """The store, where progress goes, and the options of a run.

    `python` is the version that wheels are for, such as 3.12; `explicit` the interpreter that the
    user named for it. Index settings are read for the project at `root`, when they are needed.
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
    known_index: IndexConfig | None = None
    known_interpreter: Interpreter | None = None
    # Forks are built in threads: each answer is computed once.
    lock: threading.RLock = dataclasses.field(default_factory=threading.RLock)

    @property
    def index(self) -> IndexConfig:
        """The user's settings of package indexes, those of pip and uv included."""
        with self.lock:
            if self.known_index is None:
                from patchwheel.kit.uv import load_index_config

                assert self.root is not None  # noqa: S101  (a project always has one)
                self.known_index = load_index_config(self.root)
            return self.known_index

    @property
    def interpreter(self) -> Interpreter:
        """The CPython that wheels are for; raises MachineError when there is none."""
        with self.lock:
            if self.known_interpreter is None:
                from patchwheel.kit.interpreter import remembered_interpreter

                self.known_interpreter = remembered_interpreter(
                    self.python, explicit=self.explicit, store=self.store, progress=self.progress
                )
            return self.known_interpreter

    def for_python(self, version: str) -> Context:
        """Return the same context for another Python."""
        if version == self.python:
            return self
        return dataclasses.replace(self, python=version, explicit=None, known_interpreter=None)
