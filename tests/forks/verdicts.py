"""What a call comes to: compared with NumPy's, or with what is expected of bad input."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
import scipy.sparse
from _pytest.mark.structures import ParameterSet

from tests.forks import columns
from tests.forks.columns import KINDS, NO_GPU, NO_GPU_MATCH, NUMPY, OWN, Column

Test: TypeAlias = Callable[..., None]
Call: TypeAlias = Callable[[Column], Any]
Compare: TypeAlias = Callable[[Call], None]
OTHERS = frozenset(columns.COLUMNS) - {"numpy"}
parametrize = pytest.mark.parametrize


def grid(**choices: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the keyword arguments of each combination."""
    return [dict(zip(choices, row, strict=True)) for row in itertools.product(*choices.values())]


def spell(choices: Mapping[str, Any]) -> str:
    """Return the name of a case."""
    return ", ".join(f"{name}={value}" for name, value in choices.items())


def each(**choices: Sequence[Any]) -> pytest.MarkDecorator:
    """Make a case of each combination of the choices."""
    return parametrize("choices", grid(**choices), ids=spell)


def calls(
    function: str, patches: str = "", choices: pytest.MarkDecorator | None = None, **tolerance: Any
) -> Callable[[Callable[..., Any]], Test]:
    """Make a test of a call with a column and the choices, compared with NumPy's."""

    def decorate(call: Callable[..., Any]) -> Test:
        @pytest.mark.calls(function, patches.split(), Tolerance(**tolerance))
        def test(compare: Compare, choices: dict[str, Any]) -> None:
            compare(lambda a: call(a, **choices))

        made: Test = choices(test) if choices else test
        return made

    return decorate


# A call on the arrays of one column, compared with the same call on NumPy arrays.


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What a mark says of its calls.

    `rtol` None is exact; `compiled` code serves only the memory of the CPU, or CuPy's; `refuses`
    are columns that refuse the call, `only` those that it is made for.
    """

    rtol: float | None = None
    compiled: bool = False
    refuses: frozenset[str] = frozenset()
    only: frozenset[str] = frozenset(columns.COLUMNS)


class Verdict(NamedTuple):
    """`yes`, `no` (refused), `same` (raises as NumPy does), `fails`, `-` (not for it); and why."""

    verdict: str
    why: str = ""


def judge(call: Call, a: Column, tolerance: Tolerance, *, patched: bool) -> Verdict:
    """Compare with NumPy; on NumPy itself `why` is a digest or the error, for another run."""
    result, error = _attempt(call, a)
    if a.name == "numpy":
        if error:
            return Verdict("same", f"{type(error).__name__}: {error}")
        return Verdict("yes", digest(result))
    expected, reference = _attempt(call, NUMPY)
    if error:
        return _judge_error(error, reference, a, tolerance, patched=patched)
    if reference:
        return Verdict("fails", f"returns where NumPy raises {reference!r:.200}")
    wrong = _difference(tolerance.rtol, a, result, expected)
    return Verdict("fails", wrong) if wrong else Verdict("yes")


def _judge_error(
    error: Exception, reference: Exception | None, a: Column, tolerance: Tolerance, *, patched: bool
) -> Verdict:
    message = " ".join(f"{type(error).__name__}: {error!s:.200}".split())
    if reference and isinstance(error, type(reference)):
        return Verdict("same", message)
    # Where no patch is involved, what upstream raises is only recorded.
    if patched and not isinstance(error, TypeError):
        return Verdict("fails", f"neither served nor a TypeError: {message}")
    device1 = tolerance.compiled and a.name == "strict-device1"
    if device1 or a.name in tolerance.refuses or a.name not in columns.SERVED:
        return Verdict("no", message)
    return Verdict("fails", f"refused without need: {message}")


def _attempt(call: Call, a: Column) -> tuple[Any, Exception | None]:
    try:
        return call(a), None
    # Whatever a library raises is an outcome.
    except Exception as error:  # noqa: BLE001
        return None, error


def parts(result: Any) -> Iterator[Any]:
    if isinstance(result, (tuple, list)):
        for part in result:
            yield from parts(part)
    else:
        yield result


def digest(result: Any) -> str:
    """Return a sha256 of types, dtypes, shapes and bytes."""
    state = hashlib.sha256()
    names = ("data", "row", "col", "indices", "indptr", "offsets")
    for part in parts(result):
        state.update(f"{type(part).__name__} {getattr(part, 'shape', '')}".encode())
        sparse = scipy.sparse.issparse(part)
        arrays = [getattr(part, n) for n in names if hasattr(part, n)] if sparse else [part]
        for array in map(np.asarray, arrays):
            state.update(f"{array.dtype.str} {array.shape}".encode())
            state.update(array.tobytes())
    return state.hexdigest()


def _difference(rtol: float | None, a: Column, result: Any, expected: Any) -> str | None:
    """Return what is wrong with a result, in the light of NumPy's."""
    for one, other in itertools.zip_longest(parts(result), parts(expected)):
        if scipy.sparse.issparse(other) or isinstance(other, np.ndarray):
            wrong = _array_difference(rtol, a, one, other)
        else:
            wrong = f"{one!r} is not {other!r}" if bool(one != other) else None
        if wrong:
            return wrong
    return None


def _array_difference(rtol: float | None, a: Column, result: Any, expected: Any) -> str | None:
    if wrong := a.mismatch(result):
        return f"result {wrong}"
    got = a.to_numpy(result)
    if scipy.sparse.issparse(expected):
        got, expected = got.toarray(), expected.toarray()
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return f"{got.dtype}{got.shape} is not {expected.dtype}{expected.shape}"
    if rtol is None and a.name in columns.FUSING:
        rtol = 1e-12
    if rtol is None or expected.dtype.kind not in "fc":
        same = np.array_equal(got, expected, equal_nan=expected.dtype.kind in "fc")
    else:
        rtol = max(rtol, 64 * float(np.finfo(expected.dtype).eps))
        scale = float(np.nanmax(np.abs(expected), initial=0))
        same = np.allclose(got, expected, rtol=rtol, atol=rtol * scale, equal_nan=True)
    if same:
        return None
    off = np.nanmax(np.abs(got.astype(complex) - expected), initial=0)
    return f"values differ by up to {off:.2g}, allowed: {rtol or 'nothing'}"


# Bad input: what has to come of it is said for each kind of array. Nothing is converted silently.


class Same(NamedTuple):
    """As for NumPy arrays, in the type and on the device of the input; `of` is compared."""

    rtol: float = 0
    of: Callable[[Any], Any] = lambda x: x


class Raises(NamedTuple):
    exception: type[Exception] | tuple[type[Exception], ...]
    match: str


class Gives(NamedTuple):
    """`check` asserts what has to be true of the result."""

    check: Callable[[Any], object]


SAME = Same()
CUDA_ERROR = Raises(NO_GPU, NO_GPU_MATCH)
no_gpu = pytest.mark.skipif(columns.has_gpu(), reason="of a process without a GPU")


Outcome: TypeAlias = Same | Raises | Gives
Expected: TypeAlias = dict[str, Outcome]


class Given(NamedTuple):
    """An array of one kind, and what is expected of a call with it."""

    kind: str
    data: Any
    expected: Outcome

    def check(self, call: Callable[[Callable[[Any], Any], Any], Any]) -> None:
        """Call with a function that makes arrays of the kind, and with the data."""
        make = KINDS[self.kind]
        match self.expected:
            case Raises(exception, match):
                with pytest.raises(exception, match=f"(?s){match}"):
                    call(make, self.data)
            case Gives(check):
                check(call(make, self.data))
            case Same():
                result, reference = call(make, self.data), call(NUMPY, self.data)
                _check_same(OWN[self.kind], result, reference, self.expected)


def _check_same(a: Column, actual: Any, expected: Any, same: Same) -> None:
    actual, expected = same.of(actual), same.of(expected)
    if isinstance(expected, tuple):
        assert type(actual) is tuple
        for one, other in zip(actual, expected, strict=True):
            _check_same(a, one, other, Same(same.rtol))
        return
    if isinstance(expected, bool | int | float):
        assert actual == expected
        return
    assert a.mismatch(actual) is None
    assert type(actual) is type(a(0))
    got = a.to_numpy(actual)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=same.rtol, atol=same.rtol)


def bad_input(
    call: Callable[..., Any], *rows: Sequence[ParameterSet], **over: Sequence[Any]
) -> Test:
    """Make a test of a call with each bad input, and each combination of what else it is given."""

    def test(given: Given, more: dict[str, Any]) -> None:
        given.check(functools.partial(call, **more))

    return _with_more(test, "given", [*itertools.chain(*rows)], over)


def mixed(
    call: Callable[..., Any], kinds: Sequence[ParameterSet], expected: Raises, **over: Sequence[Any]
) -> Test:
    """Make a test that a call refuses arrays of two kinds together."""

    def test(of: str, kind: str, more: dict[str, Any]) -> None:
        with pytest.raises(expected.exception, match=f"(?s){expected.match}"):
            call(KINDS[of], KINDS[kind], **more)

    return _with_more(test, ("of", "kind"), kinds, over)


def _with_more(
    test: Test,
    names: str | tuple[str, str],
    rows: Sequence[ParameterSet],
    over: Mapping[str, Sequence[Any]],
) -> Test:
    more = grid(**over)
    made: Test = parametrize("more", more, ids=range(len(more)))(parametrize(names, rows)(test))
    return made


def given(name: str, data: Any, expected: Expected) -> list[ParameterSet]:
    """Return the data in arrays of each expected kind."""
    rows = []
    for kind, outcome in expected.items():
        marks = [no_gpu] if kind in {"cupy", "cupyx"} else []
        rows.append(pytest.param(Given(kind, data, outcome), id=f"{name}-{kind}", marks=marks))
    return rows


def table(
    data: Mapping[str, Any], expected: Expected, other: Mapping[str, Expected] | None = None
) -> list[ParameterSet]:
    """Return the parameters of all the data, of which what is `other` is expected of some."""
    rows = []
    for name, value in data.items():
        rows += given(name, value, (other or {}).get(name, expected))
    return rows


def only(outcome: Outcome, *kinds: str) -> Expected:
    """Expect the same of the kinds."""
    return dict.fromkeys(kinds, outcome)


def own(outcome: Outcome, *more: str) -> Expected:
    """Expect it of NumPy's and array-api-strict's arrays on both devices, and of more kinds."""
    return only(outcome, *OWN, *more)


def strict(outcome: Outcome, *more: str) -> Expected:
    """Expect the same of array-api-strict's arrays on both devices, and of more kinds."""
    return only(outcome, "cpu", "device1", *more)


def mixtures(kinds: Iterable[str], others: Iterable[str]) -> list[ParameterSet]:
    """Return each two kinds that differ."""
    return [
        pytest.param(of, kind, marks=[no_gpu] if {of, kind} & {"cupy", "cupyx"} else [])
        for of, kind in itertools.product(kinds, others)
        if of != kind
    ]
