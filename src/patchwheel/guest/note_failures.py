"""Loaded into pytest: notes each test that fails, and each file that cannot be collected."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

Reports = Generator[None, Any, Any]


def _noted(node: Any) -> Reports:
    report = yield
    if report.failed:
        name = node.nodeid.partition("::")[2]
        with Path(os.environ["PATCHWHEEL_FAILURES"]).open("a", encoding="utf-8") as stream:
            stream.write(f"{getattr(node, 'path', '')}::{name}\n")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Reports:
    return (yield from _noted(item))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Reports:
    return (yield from _noted(collector))
