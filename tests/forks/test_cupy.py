"""Calls of what CuPy's series changes, and that its arrays compute nothing without a GPU."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import array_api_compat
import cupy
import cupyx.scipy.sparse
import numpy as np
import pytest
import scipy.sparse as sp

from tests.forks.columns import (
    NO_GPU,
    NO_GPU_MATCH,
    OWN,
    TWO_COMPONENTS,
    Column,
    host_cupy,
    host_cupyx,
)
from tests.forks.verdicts import calls, each, no_gpu

ONLY = frozenset({"cupy"})

test_namespace = calls("cupy.ndarray.__array_namespace__", "cupy/0020", each(), only=ONLY)(
    lambda a: a(np.ones(3)).__array_namespace__().__name__.endswith(a.xp.__name__)
)
# What the standard asks for, and CuPy's own functions lack.
KEYWORDS = {
    "device": "arange asarray empty empty_like eye full full_like linspace ones zeros zeros_like",
    "correction": "std var",
    "descending": "argsort sort",
    "stable": "argsort sort",
}


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_the_namespace_meets_the_standard(keyword: str) -> None:
    xp = host_cupy(np.ones(3)).__array_namespace__()
    for name in KEYWORDS[keyword].split():
        assert keyword in inspect.signature(getattr(xp, name)).parameters, name
        assert keyword not in inspect.signature(getattr(cupy, name)).parameters, name


def test_the_namespace_without_array_api_compat(monkeypatch: pytest.MonkeyPatch) -> None:
    x = host_cupy(np.ones(3))
    assert x.__array_namespace__() is array_api_compat.array_namespace(x)
    monkeypatch.setitem(sys.modules, "array_api_compat", None)
    assert x.__array_namespace__() is cupy


@each(kind=["coo", "csr", "csc"], n=[1, 9, 40])
@calls("cupyx.scipy.sparse.*.todia", "cupy/0010", only=ONLY)
def test_todia(a: Column, kind: str, n: int) -> Any:
    band = sp.diags_array([1.0, 2, 3], offsets=[-1, 0, 2], shape=(n, n))
    return a.sparse(band.asformat(kind)).todia()


@no_gpu
@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda: cupy.zeros(3), id="zeros"),
        pytest.param(lambda: cupy.asarray(np.ones(3)), id="asarray"),
        pytest.param(lambda: host_cupy(np.ones(3)) + 1, id="add"),
        pytest.param(lambda: host_cupy(np.ones(3)).get(), id="get"),
        pytest.param(lambda: host_cupyx(TWO_COMPONENTS).todia(), id="todia"),
    ],
)
def test_without_a_gpu_whatever_computes_raises(call: Callable[[], Any]) -> None:
    # What raises nothing in a test of bad input has computed nothing.
    with pytest.raises(NO_GPU, match=NO_GPU_MATCH):
        call()


@no_gpu
def test_nothing_is_converted_implicitly() -> None:
    x, index = host_cupy(np.ones(3)), np.arange(3)
    with pytest.raises(TypeError, match="Implicit conversion to a NumPy array"):
        np.asarray(x)
    with pytest.raises(ValueError, match="must be 1-D"):
        cupyx.scipy.sparse.coo_matrix((np.ones(3), (index, index)))
    strict = OWN["cpu"]
    places = (strict(index), strict(index))
    with pytest.raises(ValueError, match="must be 1-D"):
        cupyx.scipy.sparse.coo_matrix((strict(np.ones(3)), places), shape=(3, 3))
