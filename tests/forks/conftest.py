"""Which columns the calls are made on, and the record of what came of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn

from tests.forks.columns import COLUMNS, Column, make_column
from tests.forks.verdicts import Compare, Tolerance, Verdict, judge, spell

MADE = pytest.StashKey[dict[str, Column]]()
ROWS = pytest.StashKey[dict[str, dict[str, Any]]]()
# NumPy itself is compared with unpatched releases, by check-forks.
DEFAULT = ("strict", "strict-device1")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("forks")
    group.addoption("--column", action="append", choices=COLUMNS, help=f"default: {DEFAULT}")
    group.addoption("--coins", default="0.1", help="scales of the coins, 0: without")
    group.addoption("--gpu", metavar="LIBRARY", help="also what is marked gpu, on its arrays")
    group.addoption("--fork", action="append", help="only calls that its patches concern")
    group.addoption("--record", type=Path, help="write what comes of the calls there")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out tests of CuPy's own modules, which the stand-in and unpatched releases lack."""
    lacking = config.option.record or os.environ.get("CUPY_STAND_IN")
    return True if lacking and collection_path.name == "test_host.py" else None


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS], config.stash[MADE] = {}, {}
    for name in config.option.column or DEFAULT:
        try:
            column = make_column(name)
            column(np.zeros(1))
        # CuPy has many kinds of error for a missing GPU, without a common base.
        except Exception as error:
            raise pytest.UsageError(f"{name} cannot be used: {error}") from error
        config.stash[MADE][name] = column


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "column" in metafunc.fixturenames:
        made = metafunc.config.stash[MADE]
        metafunc.parametrize("column", [*made.values()], ids=[*made])
    if "scale" in metafunc.fixturenames:
        scales = metafunc.config.option.coins.split(",")
        metafunc.parametrize("scale", [*map(float, scales)], ids=scales)


# Last, so that what -k and -m leave out is not in the record.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out calls that are not for a column, which the record says, or not asked for."""
    chosen: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        (chosen if _wanted(config, item) else left_out).append(item)
    items[:] = chosen
    config.hook.pytest_deselected(items=left_out)


def _wanted(config: pytest.Config, item: pytest.Item) -> bool:
    if item.get_closest_marker("gpu"):
        return bool(config.option.gpu)
    if not (isinstance(item, pytest.Function) and item.get_closest_marker("calls")):
        # Bad input has no column, and no record.
        return not config.option.record
    parameters: dict[str, Any] = item.callspec.params
    _, patches, tolerance = _facts(item)
    forks = {patch.partition("/")[0] for patch in patches}
    if config.option.fork and not forks & set(config.option.fork):
        return False
    if not parameters.get("scale", 1):
        return False
    served = parameters["column"].name in tolerance.only
    _note(item, Verdict("fails", "it ended before the comparison") if served else Verdict("-"))
    return served


def _facts(item: pytest.Item) -> tuple[str, list[str], Tolerance]:
    mark = item.get_closest_marker("calls")
    assert mark is not None
    function, patches, tolerance = mark.args
    return function, patches, tolerance


def _note(item: pytest.Function, verdict: Verdict) -> None:
    """Put what came of a call into the record, in the order of the collection."""
    function, patches, tolerance = _facts(item)
    choices: dict[str, Any] = {k: v for k, v in item.callspec.params.items() if k != "column"}
    choices |= choices.pop("choices", {})
    item.config.stash[ROWS][item.nodeid] = {
        "function": function,
        "case": spell(choices),
        "compiled": tolerance.compiled,
        "patches": patches,
        **verdict._asdict(),
    }


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if config.option.record:
        [column] = config.stash[MADE].values()
        record: dict[str, Any] = {"column": column.name, "versions": column.versions()}
        record["cases"] = list(config.stash[ROWS].values())
        config.option.record.write_text(json.dumps(record, indent=1) + "\n")


@pytest.fixture(autouse=True)
def _modes() -> Iterator[None]:
    # Without a dispatch, scikit-learn turns what is not NumPy's into NumPy arrays, or fails.
    dispatch = bool(os.environ.get("SCIPY_ARRAY_API"))
    with np.errstate(all="ignore"), sklearn.config_context(array_api_dispatch=dispatch):
        yield


@pytest.fixture
def conclude(request: pytest.FixtureRequest) -> Callable[[Verdict], None]:
    """Record a verdict, and fail if it is that."""

    def conclude(verdict: Verdict) -> None:
        _note(request.node, verdict)
        if verdict.verdict == "fails":
            pytest.fail(verdict.why)

    return conclude


@pytest.fixture
def compare(
    request: pytest.FixtureRequest, column: Column, conclude: Callable[[Verdict], None]
) -> Compare:
    """Make a call on arrays of the column and on NumPy's, and compare."""
    _, patches, tolerance = _facts(request.node)
    return lambda call: conclude(judge(call, column, tolerance, patched=bool(patches)))
