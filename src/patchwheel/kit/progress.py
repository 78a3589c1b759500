"""What a stage reports while it works; the command line decides how it looks."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
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
