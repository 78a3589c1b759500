"""What one run may use of the machine; handed down to every stage, never global."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from patchwheel.kit.indexes import IndexConfig
    from patchwheel.kit.interpreter import Interpreter
    from patchwheel.kit.progress import Progress
    from patchwheel.kit.store import Store

SandboxMode = Literal["auto", "required", "none"]


class Context:
    """The store, where progress goes, and the options of a run.

    `python` is the version that wheels are for, such as 3.12; `explicit` the interpreter that the
    user named for it. Index settings are read for the project at `root`. Neither the settings nor
    the interpreter are looked for before they are needed, since a run that changes nothing needs
    neither; `index` and `interpreter` may be given instead.
    """

    def __init__(
        self,
        store: Store,
        progress: Progress,
        *,
        root: Path | None = None,
        python: str = "",
        explicit: str | None = None,
        offline: bool = False,
        jobs: int | None = None,
        sandbox: SandboxMode = "auto",
        index: IndexConfig | None = None,
        interpreter: Interpreter | None = None,
    ) -> None:
        self.store = store
        self.progress = progress
        self.root = root
        self.python = python
        self.explicit = explicit
        self.offline = offline
        self.jobs = jobs
        self.sandbox = sandbox
        self._index = index
        self._interpreter = interpreter
        # Forks are built in threads: each answer is computed once.
        self._lock = threading.RLock()

    @property
    def index(self) -> IndexConfig:
        """The user's settings of package indexes, those of pip and uv included."""
        with self._lock:
            if self._index is None:
                from patchwheel.kit.indexes import load_index_config

                assert self.root is not None  # noqa: S101  (a project always has one)
                self._index = load_index_config(self.root)
            return self._index

    @property
    def interpreter(self) -> Interpreter:
        """The CPython that wheels are for; raises MachineError when there is none."""
        with self._lock:
            if self._interpreter is None:
                self._interpreter = self._find_interpreter()
            return self._interpreter

    def for_python(self, version: str) -> Context:
        """Return the same context for another Python."""
        if version == self.python:
            return self
        return Context(
            self.store,
            self.progress,
            root=self.root,
            python=version,
            offline=self.offline,
            jobs=self.jobs,
            sandbox=self.sandbox,
            index=self._index,
        )

    def _find_interpreter(self) -> Interpreter:
        from patchwheel.kit.interpreter import remembered_interpreter

        return remembered_interpreter(
            self.python, explicit=self.explicit, store=self.store, progress=self.progress
        )
