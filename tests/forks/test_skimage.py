"""Calls of scikit-image's patched functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cupy
import numpy as np
import pytest
from skimage import filters, transform, util

from tests.forks.columns import DATA, DTYPES, FLOATS, IMAGE, KINDS, OWN, image
from tests.forks.verdicts import (
    CUDA_ERROR,
    SAME,
    Gives,
    Raises,
    Same,
    calls,
    each,
    given,
    grid,
    inputs,
    mixtures,
    no_gpu,
    only,
    own,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from _pytest.mark.structures import ParameterSet

    from tests.forks.verdicts import Compare, Expected, Given, Outcome

    Shape = tuple[int, ...]

parametrize = pytest.mark.parametrize
CONVERT = own(Raises(ValueError, "Cannot convert from complex128"))
OBJECT = Raises(ValueError, "Cannot convert from object")
SPARSE = given("sparse", IMAGE, only(OBJECT, "scipy", "cupyx"))
# What compiled code serves: no memory of another device.
NDIMAGE = Raises(TypeError, r"`scipy.ndimage.\w+` doesn't support arrays of .*device1")
COMPILED = own(SAME) | {"device1": NDIMAGE}
REFUSED = [
    *SPARSE,
    *given("image", IMAGE, only(CUDA_ERROR, "cupy")),
    *given("complex", DATA["complex"], only(CONVERT["np"], "cupy")),
]

CONVERTED = each(dtype=DTYPES, shape=[(11,), (9, 12), (6, 5, 3)])


@calls("skimage.util.img_as_float", "scikit-image/0010")
@CONVERTED
def test_img_as_float(compare: Compare, dtype: str, shape: Shape) -> None:
    compare(lambda a: util.img_as_float(a(image(dtype, shape))))


@calls("skimage.util.img_as_float32", "scikit-image/0010")
@CONVERTED
def test_img_as_float32(compare: Compare, dtype: str, shape: Shape) -> None:
    compare(lambda a: util.img_as_float32(a(image(dtype, shape))))


@calls("skimage.util.img_as_float64", "scikit-image/0010")
@CONVERTED
def test_img_as_float64(compare: Compare, dtype: str, shape: Shape) -> None:
    compare(lambda a: util.img_as_float64(a(image(dtype, shape))))


@parametrize("function", [util.img_as_float, util.img_as_float32, util.img_as_float64])
@inputs(
    table(DATA, own(SAME), {"complex": CONVERT | {"cupy": CONVERT["np"]}}),
    SPARSE,
    given("image", DATA["uint8"], only(CUDA_ERROR, "cupy")),
)
def test_what_is_converted(given: Given, function: Callable[..., Any]) -> None:
    given.check(lambda make, data: function(make(data)))


@no_gpu
def test_not_even_a_conversion_without_work_changes_the_array_type() -> None:
    assert isinstance(util.img_as_float(KINDS["cupy"](IMAGE)), cupy.ndarray)


@calls("skimage.transform.resize", "scikit-image/0010", "scikit-image/0020", compiled=True)
@each(
    dtype=["uint8", *FLOATS],
    to=[(5, 8), (17, 15)],
    options=grid(order=[0, 1, 3], mode=["reflect", "constant"], anti_aliasing=[None, False]),
)
def test_resize(compare: Compare, dtype: str, to: Shape, options: dict[str, Any]) -> None:
    compare(lambda a: transform.resize(a(image(dtype)), to, **options))


@calls("skimage.transform.resize", "scikit-image/0020", compiled=True)
@each(options=grid(preserve_range=[False, True], clip=[False, True]), shape=[(9, 12), (9, 12, 3)])
def test_resize_of_integers(compare: Compare, shape: Shape, options: dict[str, Any]) -> None:
    pixels = image("int16", shape)
    compare(lambda a: transform.resize(a(pixels), (6, 7), cval=2.5, **options))


@calls("skimage.transform.rescale", "scikit-image/0010", "scikit-image/0020", compiled=True)
@each(dtype=["bool", "uint8", *FLOATS], factor=[0.5, 1.6], channel_axis=[None, 0, -1])
def test_rescale(compare: Compare, dtype: str, factor: float, channel_axis: int | None) -> None:
    shape = (9, 12) if channel_axis is None else (9, 12, 3)
    pixels = np.moveaxis(image(dtype, shape), -1, channel_axis or -1)
    options = {"order": 0 if dtype == "bool" else 1, "channel_axis": channel_axis}
    compare(lambda a: transform.rescale(a(pixels), factor, anti_aliasing=False, **options))


def readable(outcome: Outcome) -> Expected:
    """Expect it where compiled code is reached."""
    return COMPILED | {"np": outcome, "cpu": outcome}


SCALED = {
    "complex": CONVERT,
    "empty": readable(Raises(ValueError, "cannot convert float NaN to integer")),
}


@parametrize("options", [{"scale": 0.5}, {"scale": 2}, {"scale": 0.5, "anti_aliasing": False}])
@inputs(
    table(DATA, COMPILED, SCALED | {"0d": readable(Raises(RuntimeError, "rank must be > 0"))}),
    REFUSED,
)
def test_what_is_rescaled(given: Given, options: dict[str, Any]) -> None:
    given.check(lambda make, data: transform.rescale(make(data), **options))


@inputs(
    table(
        DATA, COMPILED, SCALED | {"4d": own(Raises(ValueError, "output_shape length cannot be"))}
    ),
    REFUSED,
)
def test_what_is_resized(given: Given) -> None:
    given.check(lambda make, data: transform.resize(make(data), (3, 4)))


PARAMETERS: list[tuple[str, Any]] = [
    ("scale", (transform.rescale, [0.5, 0.5])),
    ("output_shape", (transform.resize, [3, 4])),
    ("sigma", (filters.gaussian, [1.0, 2.0])),
]


def given_parameters(readable: Callable[[Callable[..., Any], Any], Outcome]) -> list[ParameterSet]:
    rows = []
    for name, (function, value) in PARAMETERS:
        refused = Raises(TypeError, f"`{name}` is an array of type .* NumPy can't convert")
        expected = {"cpu": readable(function, value), "device1": refused, "cupy": refused}
        rows += given(name, (function, value), expected)
    return rows


@inputs(
    given_parameters(
        lambda f, value: Gives(lambda x: np.testing.assert_array_equal(x, f(IMAGE, value)))
    )
)
def test_a_parameter_in_an_array(given: Given) -> None:
    given.check(lambda make, data: data[0](IMAGE, make(data[1])))


@inputs(given_parameters(lambda *_: SAME))
def test_a_parameter_in_an_array_of_the_image_library(given: Given) -> None:
    given.check(lambda make, data: data[0](make(IMAGE), make(data[1])))


@calls("skimage.filters.gaussian", "scikit-image/0030", compiled=True)
@each(
    dtype=["uint8", "int16", *FLOATS],
    sigma=[1, 2.5],
    options=grid(mode=["nearest", "constant", "wrap"], channel_axis=[None, -1]),
)
def test_gaussian(compare: Compare, dtype: str, sigma: float, options: dict[str, Any]) -> None:
    shape = (9, 12) if options["channel_axis"] is None else (9, 12, 3)
    compare(lambda a: filters.gaussian(a(image(dtype, shape)), sigma, **options))


@calls("skimage.filters.gaussian", "scikit-image/0030", compiled=True)
@each(out=FLOATS)
def test_gaussian_into_an_array(compare: Compare, out: str) -> None:
    def call(a: Callable[..., Any]) -> Any:
        pixels, room = a(image(out)), a(np.zeros((12, 15), out))
        return filters.gaussian(pixels, (0.5, 2), preserve_range=True, out=room), room

    compare(call)


@inputs(table(DATA, COMPILED, {"complex": CONVERT}), REFUSED)
def test_what_is_smoothed(given: Given) -> None:
    given.check(lambda make, data: filters.gaussian(make(data), 1))


@parametrize(("of", "kind"), mixtures((*OWN, "cupy"), (*OWN, "cupy")))
def test_gaussian_refuses_an_out_of_another_type(of: str, kind: str) -> None:
    out = KINDS[kind](np.zeros(IMAGE.shape))
    with pytest.raises(TypeError, match="`out` must be of the array type"):
        filters.gaussian(KINDS[of](IMAGE), 1, out=out)


@calls("skimage.filters.difference_of_gaussians", "scikit-image/0030", compiled=True)
@each(dtype=["uint8", *FLOATS], high=[None, 4])
def test_difference_of_gaussians(compare: Compare, dtype: str, high: float | None) -> None:
    compare(lambda a: filters.difference_of_gaussians(a(image(dtype)), 1.5, high))


MATRICES = {
    "shift": np.array([[1, 0, 2.5], [0, 1, -1.25], [0, 0, 1]]),
    "affine": np.array([[0.9, 0.2, 0.3], [-0.1, 1.1, 0.6], [0, 0, 1]]),
    "projective": np.array([[1.1, 0.1, -1], [0.05, 0.95, 0.5], [0.001, 0.002, 1]]),
}


@calls("skimage.transform.warp", "scikit-image/0040", rtol=1e-9)
@each(
    dtype=["uint8", *FLOATS],
    matrix=list(MATRICES),
    options=grid(order=[1, 3], mode=["constant", "edge", "symmetric", "reflect", "wrap"]),
)
def test_warp(compare: Compare, dtype: str, matrix: str, options: dict[str, Any]) -> None:
    compare(lambda a: transform.warp(a(image(dtype)), MATRICES[matrix], **options))


@calls("skimage.transform.warp", "scikit-image/0040", rtol=1e-9)
@each(shape=[(9, 12), (9, 12, 3)], options=grid(output_shape=[None, (5, 20)], cval=[0.5, np.nan]))
def test_warp_by_a_transform(compare: Compare, shape: Shape, options: dict[str, Any]) -> None:
    turn = transform.SimilarityTransform(scale=1.2, rotation=0.3, translation=(1, 2))
    compare(lambda a: transform.warp(a(image("float64", shape)), turn, **options))


@calls("skimage.transform.warp, other orders and maps", "scikit-image/0040", compiled=True)
@each(order=[0, 2, 5], dtype=["uint8", *FLOATS])
def test_warp_of_other_orders(compare: Compare, order: int, dtype: str) -> None:
    compare(lambda a: transform.warp(a(image(dtype)), MATRICES["affine"], order=order))


@calls("skimage.transform.warp, other orders and maps", "scikit-image/0040", compiled=True)
@each(by=["callable", "coordinates"], dtype=["uint8", *FLOATS])
def test_warp_by_other_maps(compare: Compare, by: str, dtype: str) -> None:
    where = np.random.default_rng(1).uniform(0, 11, (2, 7, 8))

    def call(a: Callable[..., Any]) -> Any:
        by_map = a(where) if by == "coordinates" else lambda xy: xy * 0.9 + 1
        return transform.warp(a(image(dtype)), by_map)

    compare(call)


@calls("skimage.transform.rotate", "scikit-image/0040", rtol=1e-9)
@each(dtype=["uint8", *FLOATS], angle=[30, -90], resize=[False, True])
def test_rotate(compare: Compare, dtype: str, angle: float, *, resize: bool) -> None:
    compare(lambda a: transform.rotate(a(image(dtype)), angle, resize=resize))


@calls("skimage.transform.swirl", "scikit-image/0040", compiled=True)
@each(dtype=["uint8", *FLOATS])
def test_swirl(compare: Compare, dtype: str) -> None:
    compare(lambda a: transform.swirl(a(image(dtype)), strength=2, radius=8))


@calls("skimage.transform.warp_polar", "scikit-image/0040", compiled=True)
@each(dtype=["uint8", *FLOATS], scaling=["linear", "log"])
def test_warp_polar(compare: Compare, dtype: str, scaling: str) -> None:
    compare(lambda a: transform.warp_polar(a(image(dtype)), scaling=scaling, output_shape=(20, 9)))


TWO_D = own(Raises(ValueError, "Only 2-D images"))
EMPTY = own(Raises(ValueError, "Cannot warp empty image"), "cupy")
WARPED = {"complex": CONVERT, "0d": TWO_D, "1d": TWO_D, "4d": TWO_D, "empty": EMPTY}
CLOSE = own(Same(1e-12))
ELSEWHERE = CLOSE | {"device1": NDIMAGE}


@inputs(
    table(DATA, CLOSE, WARPED | {"bool": ELSEWHERE}),
    SPARSE,
    given("image", IMAGE, only(CUDA_ERROR, "cupy")),
)
def test_what_is_warped_by_a_matrix(given: Given) -> None:
    turn = transform.AffineTransform(rotation=0.1, translation=(1, 1))
    given.check(lambda make, data: transform.warp(make(data), turn))


@inputs(table(DATA, ELSEWHERE, WARPED), SPARSE, given("image", IMAGE, only(CUDA_ERROR, "cupy")))
def test_what_is_warped_by_a_function(given: Given) -> None:
    given.check(lambda make, data: transform.warp(make(data), lambda xy: xy + 0.5))


@parametrize("shape", [(3, 3), (2, 3, 3)])
@parametrize(("of", "kind"), mixtures(OWN, ("cpu", "device1", "cupy")))
def test_warp_refuses_a_map_of_another_type(of: str, kind: str, shape: Shape) -> None:
    wanted = "a NumPy array or of the array type"
    if {of, kind} == {"cpu", "device1"}:
        wanted = "on the device of `image`"
    with pytest.raises(TypeError, match=f"`inverse_map` must be {wanted}"):
        transform.warp(KINDS[of](IMAGE), KINDS[kind](np.ones(shape)))
