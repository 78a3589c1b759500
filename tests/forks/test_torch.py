"""PyTorch's tensors on a GPU in scipy.ndimage, with doubles of PyTorch and CuPy around NumPy."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from scipy._lib._array_api import array_namespace
from scipy.ndimage import _delegators

from tests.forks.columns import IMAGE

parametrize = pytest.mark.parametrize
FLOATS = IMAGE[:, :6]


class Device(str):
    """`cuda:1`, with its parts."""

    __slots__ = ()
    type = property(lambda self: self.partition(":")[0])
    index = property(lambda self: int(self.partition(":")[2] or 0))


class Tensor:
    """A tensor on a GPU, which NumPy cannot read."""

    layout, requires_grad, conj, neg = "torch.strided", False, False, False

    def __init__(self, a: Any, device: str = "cuda:1", **marks: Any) -> None:
        self.a, self.device = np.asarray(a), Device(device)
        vars(self).update(marks)

    shape = property(lambda self: self.a.shape)
    dtype = property(lambda self: self.a.dtype)
    is_conj = lambda self: self.conj  # noqa: E731
    is_neg = lambda self: self.neg  # noqa: E731

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")


class Lent:
    """An array of CuPy: the memory of a tensor."""

    def __init__(self, a: Any) -> None:
        self.a = a


def nested(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(nested(function, v) for v in value)
    return function(value)


def on_lent(name: str) -> Callable[..., Any]:
    """Return CuPy's function of the name, which takes its arrays and no others."""

    def take(value: Any) -> Any:
        assert not isinstance(value, Tensor)
        return value.a if isinstance(value, Lent) else value

    def call(*args: Any, output: Any = None, **kwargs: Any) -> Any:
        if output is not None:
            kwargs["output"] = take(output)
        result = getattr(ndimage, name)(*nested(take, args), **kwargs)
        if output is not None:
            return output
        # Positions are NumPy's integers there.
        positions = name == "maximum_position"
        return nested(
            lambda r: Lent(r) if isinstance(r, np.ndarray) and not positions else r, result
        )

    return call


@pytest.fixture(autouse=True)
def entered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put the doubles in place; list the devices and streams that were entered."""
    names: list[str] = []

    @contextlib.contextmanager
    def enter(name: str) -> Any:
        names.append(name)
        yield

    torch, cupy, module = ModuleType("torch"), ModuleType("cupy"), ModuleType("ndimage")
    stream = SimpleNamespace(cuda_stream=7, __cuda_stream__=lambda: (0, 7))
    cuda = {"device": lambda d: enter(f"torch {d}"), "current_stream": lambda _: stream}
    vars(torch).update(
        Tensor=Tensor,
        from_dlpack=lambda lent: Tensor(lent.a),
        asarray=lambda a, *, device: Tensor(a, device),
        cuda=SimpleNamespace(**cuda),
    )
    from_external = SimpleNamespace(from_external=lambda _: enter("the stream"))
    vars(cupy).update(
        ndarray=Lent,
        from_dlpack=lambda tensor: Lent(tensor.a),
        cuda=SimpleNamespace(
            Device=lambda index: enter(f"cupy {index}"),
            Stream=from_external,
            ExternalStream=lambda pointer: enter(f"the stream at {pointer}"),
        ),
    )
    vars(module).update({name: on_lent(name) for name in ndimage.__all__})
    for name, double in {"torch": torch, "cupy": cupy, "cupyx.scipy.ndimage": module}.items():
        monkeypatch.setitem(sys.modules, name, double)

    def namespace(*arrays: Any) -> Any:
        return torch if any(isinstance(a, Tensor) for a in arrays) else array_namespace(*arrays)

    monkeypatch.setattr(_delegators, "array_namespace", namespace)
    return names


CALLS: dict[str, Callable[[Any], Any]] = {
    "gaussian_filter": lambda a: ndimage.gaussian_filter(a(FLOATS), [1, 2]),
    "the same tensor twice": lambda a: ndimage.convolve(*[a(FLOATS)] * 2),
    "coordinates in a list": lambda a: ndimage.map_coordinates(
        a(FLOATS), [a(np.ones(3)), a(np.arange(3.0))]
    ),
    "labels and their number": lambda a: ndimage.label(a(FLOATS > 0.6)),
    "a position": lambda a: ndimage.maximum_position(a(FLOATS)),
}


@parametrize("name", CALLS)
def test_results_are_tensors(name: str, entered: list[str]) -> None:
    result, expected = CALLS[name](Tensor), CALLS[name](np.asarray)
    assert entered == ["torch cuda:1", "cupy 1", "the stream"]
    if not isinstance(expected, tuple):
        result, expected = (result,), (expected,)
    for one, other in zip(result, expected, strict=True):
        if isinstance(other, np.ndarray | np.generic):
            assert type(one) is Tensor
            assert one.device == "cuda:1"
            np.testing.assert_array_equal(one.a, other, strict=True)
        else:
            assert one == other


def test_an_output_is_returned_as_it_is(entered: list[str]) -> None:
    output = Tensor(np.zeros(FLOATS.shape))
    assert ndimage.gaussian_filter(Tensor(FLOATS), 1, output=output) is output
    np.testing.assert_array_equal(output.a, ndimage.gaussian_filter(FLOATS, 1))
    assert entered


def test_the_stream_of_an_older_cupy(monkeypatch: pytest.MonkeyPatch, entered: list[str]) -> None:
    monkeypatch.setattr(sys.modules["cupy"].cuda, "Stream", object)
    ndimage.gaussian_filter(Tensor(FLOATS), 1)
    assert entered[-1] == "the stream at 7"


def test_a_function_of_the_user_is_not_handed_on(entered: list[str]) -> None:
    with pytest.raises(TypeError, match="can't convert cuda:1"):
        ndimage.generic_filter(Tensor(FLOATS), np.max, size=3)
    assert not entered


@parametrize(
    ("marks", "error", "message"),
    [
        ({"layout": "torch.sparse_coo"}, TypeError, "dense tensors only; .*to_dense"),
        ({"requires_grad": True}, RuntimeError, "requires grad"),
        ({"conj": True}, RuntimeError, "conjugate bit or negative bit"),
        ({"neg": True}, RuntimeError, "conjugate bit or negative bit"),
    ],
)
def test_what_dlpack_would_lose_is_refused(
    marks: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ndimage.gaussian_filter(Tensor(FLOATS, **marks), 1)


def test_tensors_on_two_devices_are_refused() -> None:
    with pytest.raises(TypeError, match="on one device only; got tensors on cuda:0, cuda:1"):
        ndimage.convolve(Tensor(FLOATS), Tensor(FLOATS, "cuda:0"))


def test_without_cupy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(TypeError, match=r"or install CuPy, whose .*gaussian_filter"):
        ndimage.gaussian_filter(Tensor(FLOATS), 1)


def test_what_cupy_cannot_borrow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise BufferError("no such dtype")

    monkeypatch.setattr(sys.modules["cupy"], "from_dlpack", refuse)
    with pytest.raises(TypeError, match=r"can't hand a tensor of dtype .*: no such dtype"):
        ndimage.gaussian_filter(Tensor(FLOATS), 1)
