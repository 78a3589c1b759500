"""The tests of a promise: the docstring of a module begins with it, as `P9: ...`."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

FOLDER = Path(__file__).parent
PROMISE = re.compile(r"P([1-9]|1[0-9]|2[0-2])(?=: )")
OUTCOMES = ("passed", "failed", "error", "skipped")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--promise", metavar="P9", help="only the tests of this promise")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted, others = config.getoption("promise", None), []
    for item in [item for item in items if FOLDER in item.path.parents]:
        module = item.getparent(pytest.Module)
        found = PROMISE.match(module.obj.__doc__ or "") if module else None
        if found is None:
            raise pytest.UsageError(f"{item.path}: its docstring begins with no promise, as `P9: `")
        item.add_marker(pytest.mark.promise(found[0]))
        # A report of another process has only what is here.
        item.user_properties.append(("promise", found[0]))
        others += [item] if wanted not in {None, found[0]} else []
    items[:] = [item for item in items if item not in {*others}]
    config.hook.pytest_deselected(items=others)


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Print a row for each promise."""
    rows: dict[str, Counter[str]] = {}
    for outcome in OUTCOMES:
        for report in terminalreporter.stats.get(outcome, ()):
            promise = dict(report.user_properties).get("promise")
            if promise:
                rows.setdefault(str(promise), Counter())[outcome] += 1
    if not rows:
        return
    terminalreporter.write_sep("-", "by promise of docs/reference/threat-model.md")
    terminalreporter.write_line("promise  tests" + "".join(f"{name:>9}" for name in OUTCOMES))
    for promise in sorted(rows, key=lambda name: int(name[1:])):
        counts = "".join(f"{rows[promise][name]:>9}" for name in OUTCOMES)
        terminalreporter.write_line(f"{promise:<7}{rows[promise].total():>7}{counts}")
