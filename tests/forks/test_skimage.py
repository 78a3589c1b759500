"""Calls of scikit-image's patched functions."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import coins
import cupy
import numpy as np
import pytest
from scipy import ndimage
from skimage import (
    color,
    feature,
    filters,
    measure,
    restoration,
    segmentation,
    transform,
    util,
)

from tests.forks.columns import (
    DATA,
    DTYPES,
    FLOATS,
    IMAGE,
    KINDS,
    OWN,
    Column,
    half_imported,
    image,
)
from tests.forks.verdicts import (
    CUDA_ERROR,
    SAME,
    Expected,
    Gives,
    Outcome,
    Raises,
    Same,
    bad_input,
    calls,
    each,
    given,
    mixed,
    mixtures,
    no_gpu,
    only,
    own,
    strict,
    table,
)

if TYPE_CHECKING:
    from _pytest.mark.structures import ParameterSet

    Shape = tuple[int, ...]

CONVERT = own(Raises(ValueError, "Cannot convert from complex128"))
OBJECT = Raises(ValueError, "Cannot convert from object")
SPARSE = given("sparse", IMAGE, only(OBJECT, "scipy", "cupyx"))
ON_CUPY = given("image", IMAGE, only(CUDA_ERROR, "cupy"))
# What compiled code serves: no memory of another device.
NDIMAGE = Raises(TypeError, r"`scipy.ndimage.\w+` doesn't support arrays of .*device1")
COMPILED = own(SAME) | {"device1": NDIMAGE}
REFUSED = [*SPARSE, *ON_CUPY, *given("complex", DATA["complex"], only(CONVERT["np"], "cupy"))]
PIXELS = ["uint8", *FLOATS]
SHAPES = [(11,), (9, 12), (6, 5, 3)]


def images(
    name: str,
    patches: str,
    *,
    rtol: float | None = None,
    compiled: bool = True,
    dtype: Sequence[str] = PIXELS,
    shape: Sequence[Shape] = ((12, 15),),
    **options: Sequence[Any],
) -> Callable[..., None]:
    """Make a test of a function of an image, with each combination of what it is given."""
    function = pkgutil.resolve_name(name.partition(",")[0])
    choices = each(dtype=dtype, shape=shape, **options)
    return calls(name, patches, choices, rtol=rtol, compiled=compiled)(
        lambda a, dtype, shape, **options: function(a(image(dtype, shape)), **options)
    )


test_img_as_float, test_img_as_float32, test_img_as_float64 = (
    images(f"skimage.util.{name}", "scikit-image/0010", compiled=False, dtype=DTYPES, shape=SHAPES)
    for name in ("img_as_float", "img_as_float32", "img_as_float64")
)
test_what_is_converted = bad_input(
    lambda make, data, function: function(make(data)),
    table(DATA, own(SAME), {"complex": CONVERT | {"cupy": CONVERT["np"]}}),
    SPARSE,
    given("image", DATA["uint8"], only(CUDA_ERROR, "cupy")),
    function=[util.img_as_float, util.img_as_float32, util.img_as_float64],
)


@no_gpu
def test_not_even_a_conversion_without_work_changes_the_array_type() -> None:
    assert isinstance(util.img_as_float(KINDS["cupy"](IMAGE)), cupy.ndarray)


test_resize = images(
    "skimage.transform.resize",
    "scikit-image/0010 scikit-image/0020",
    output_shape=[(5, 8), (17, 15)],
    order=[0, 1, 3],
    mode=["reflect", "constant"],
    anti_aliasing=[None, False],
)
test_resize_of_integers = images(
    "skimage.transform.resize",
    "scikit-image/0020",
    dtype=["int16"],
    shape=[(9, 12), (9, 12, 3)],
    output_shape=[(6, 7)],
    cval=[2.5],
    preserve_range=[False, True],
    clip=[False, True],
)


@each(dtype=["bool", *PIXELS], factor=[0.5, 1.6], channel_axis=[None, 0, -1])
@calls("skimage.transform.rescale", "scikit-image/0010 scikit-image/0020", compiled=True)
def test_rescale(a: Column, dtype: str, factor: float, channel_axis: int | None) -> Any:
    shape = (9, 12) if channel_axis is None else (9, 12, 3)
    pixels = np.moveaxis(image(dtype, shape), -1, channel_axis or -1)
    options = {"order": 0 if dtype == "bool" else 1, "channel_axis": channel_axis}
    return transform.rescale(a(pixels), factor, anti_aliasing=False, **options)


def readable(outcome: Outcome) -> Expected:
    """Expect it where compiled code is reached."""
    return COMPILED | {"np": outcome, "cpu": outcome}


SCALED = {
    "complex": CONVERT,
    "empty": readable(Raises(ValueError, "cannot convert float NaN to integer")),
}

test_what_is_rescaled = bad_input(
    lambda make, data, options: transform.rescale(make(data), **options),
    table(DATA, COMPILED, SCALED | {"0d": readable(Raises(RuntimeError, "rank must be > 0"))}),
    REFUSED,
    options=[{"scale": 0.5}, {"scale": 2}, {"scale": 0.5, "anti_aliasing": False}],
)
test_what_is_resized = bad_input(
    lambda make, data: transform.resize(make(data), (3, 4)),
    table(
        DATA, COMPILED, SCALED | {"4d": own(Raises(ValueError, "output_shape length cannot be"))}
    ),
    REFUSED,
)


@pytest.mark.parametrize("kind", ["cpu", "device1"])
def test_resize_local_mean_to_a_shape_in_an_array(kind: str) -> None:
    result = transform.resize_local_mean(IMAGE, KINDS[kind](np.array([3, 4])))
    np.testing.assert_array_equal(result, transform.resize_local_mean(IMAGE, (3, 4)))


def test_complex_images_of_order_0_are_resized_as_numpys() -> None:
    complex_image = IMAGE + 1j * IMAGE[::-1]
    expected = transform.resize(complex_image, (3, 4), order=0)
    result = transform.resize(KINDS["cpu"](complex_image), (3, 4), order=0)
    np.testing.assert_array_equal(np.asarray(result), expected, strict=True)


def test_resize_local_mean_of_a_matrix_is_as_unpatched() -> None:
    # A matrix has no third axis.
    expected = transform.resize_local_mean(IMAGE, (3, 4))
    result = transform.resize_local_mean(np.matrix(IMAGE), (3, 4, 2))
    np.testing.assert_array_equal(result, expected, strict=True)


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


test_a_parameter_in_an_array = bad_input(
    lambda make, data: data[0](IMAGE, make(data[1])),
    given_parameters(
        lambda f, value: Gives(lambda x: np.testing.assert_array_equal(x, f(IMAGE, value)))
    ),
)
test_a_parameter_in_an_array_of_the_image_library = bad_input(
    lambda make, data: data[0](make(IMAGE), make(data[1])), given_parameters(lambda *_: SAME)
)


test_gaussian, test_gaussian_of_channels = (
    images(
        "skimage.filters.gaussian",
        "scikit-image/0030",
        dtype=["uint8", "int16", *FLOATS],
        shape=[(9, 12, 3)[: 2 if axis is None else 3]],
        sigma=[1, 2.5],
        mode=["nearest", "constant", "wrap"],
        channel_axis=[axis],
    )
    for axis in (None, -1)
)


@each(out=FLOATS)
@calls("skimage.filters.gaussian", "scikit-image/0030", compiled=True)
def test_gaussian_into_an_array(a: Column, out: str) -> Any:
    pixels, room = a(image(out)), a(np.zeros((12, 15), out))
    return filters.gaussian(pixels, (0.5, 2), preserve_range=True, out=room), room


test_what_is_smoothed = bad_input(
    lambda make, data: filters.gaussian(make(data), 1),
    table(DATA, COMPILED, {"complex": CONVERT}),
    REFUSED,
)
test_gaussian_refuses_an_out_of_another_type = mixed(
    lambda one, other: filters.gaussian(one(IMAGE), 1, out=other(np.zeros(IMAGE.shape))),
    [pair for pair in mixtures((*OWN, "cupy"), (*OWN, "cupy")) if pair.values != ("cpu", "np")],
    Raises(TypeError, "`out` must be of the array type"),
)


test_gaussian_into_an_array_that_does_not_fit = bad_input(
    lambda make, data: filters.gaussian(make(IMAGE), 1, out=make(data)),
    given("int", np.zeros((6, 7), int), own(Raises(ValueError, "dtype of `out` must be float"))),
    given("shape", np.zeros((3, 3)), strict(Raises(ValueError, "shape of `out` must be that of"))),
)


def test_gaussian_of_what_numpy_converts_into_a_numpy_array() -> None:
    out = np.zeros(IMAGE.shape)
    assert filters.gaussian(OWN["cpu"](IMAGE), 1, out=out) is out
    np.testing.assert_array_equal(out, filters.gaussian(IMAGE, 1))


test_difference_of_gaussians = images(
    "skimage.filters.difference_of_gaussians",
    "scikit-image/0030",
    low_sigma=[1.5],
    high_sigma=[None, 4],
)

MATRICES = {
    "shift": np.array([[1, 0, 2.5], [0, 1, -1.25], [0, 0, 1]]),
    "affine": np.array([[0.9, 0.2, 0.3], [-0.1, 1.1, 0.6], [0, 0, 1]]),
    "projective": np.array([[1.1, 0.1, -1], [0.05, 0.95, 0.5], [0.001, 0.002, 1]]),
}
MODES = ["constant", "edge", "symmetric", "reflect", "wrap"]
TURN = transform.SimilarityTransform(scale=1.2, rotation=0.3, translation=(1, 2))
test_warp = calls(
    "skimage.transform.warp",
    "scikit-image/0040",
    each(dtype=PIXELS, matrix=[*MATRICES], order=[1, 3], mode=MODES),
    rtol=1e-9,
)(lambda a, dtype, matrix, **options: transform.warp(a(image(dtype)), MATRICES[matrix], **options))
test_warp_by_a_transform = calls(
    "skimage.transform.warp",
    "scikit-image/0040",
    each(shape=[(9, 12), (9, 12, 3)], output_shape=[None, (5, 20)], cval=[0.5, np.nan]),
    rtol=1e-9,
)(lambda a, shape, **options: transform.warp(a(image("float64", shape)), TURN, **options))
# Other orders and maps go through compiled code.
WARP_COMPILED = "skimage.transform.warp, other orders and maps"
test_warp_of_other_orders = calls(
    WARP_COMPILED, "scikit-image/0040", each(order=[0, 2, 5], dtype=PIXELS), compiled=True
)(lambda a, order, dtype: transform.warp(a(image(dtype)), MATRICES["affine"], order=order))


@each(by=["callable", "coordinates"], dtype=PIXELS)
@calls(WARP_COMPILED, "scikit-image/0040", compiled=True)
def test_warp_by_other_maps(a: Column, by: str, dtype: str) -> Any:
    where = np.random.default_rng(1).uniform(0, 11, (2, 7, 8))
    by_map = a(where) if by == "coordinates" else lambda xy: xy * 0.9 + 1
    return transform.warp(a(image(dtype)), by_map)


test_rotate = images(
    "skimage.transform.rotate",
    "scikit-image/0040",
    rtol=1e-9,
    compiled=False,
    angle=[30, -90],
    resize=[False, True],
)
test_swirl = images("skimage.transform.swirl", "scikit-image/0040", strength=[2], radius=[8])
test_warp_polar = images(
    "skimage.transform.warp_polar",
    "scikit-image/0040",
    scaling=["linear", "log"],
    output_shape=[(20, 9)],
)

# NumPy alone has it of these libraries.
test_float16 = calls(
    "skimage.transform.swirl",
    "scikit-image/0040 scikit-image/0020",
    each(function=["swirl", "rescale", "warp_polar"]),
    only=frozenset({"numpy"}),
)(
    lambda a, function: {
        "swirl": lambda x: transform.swirl(x, strength=2),
        "rescale": lambda x: transform.rescale(x, 0.5),
        "warp_polar": transform.warp_polar,
    }[function](a(image("float32").astype("float16")))
)

TWO_D = own(Raises(ValueError, "Only 2-D images"))
EMPTY = own(Raises(ValueError, "Cannot warp empty image"), "cupy")
WARPED = {"complex": CONVERT, "0d": TWO_D, "1d": TWO_D, "4d": TWO_D, "empty": EMPTY}
CLOSE = own(Same(1e-12))
ELSEWHERE = CLOSE | {"device1": NDIMAGE}
AFFINE = transform.AffineTransform(rotation=0.1, translation=(1, 1))
test_what_is_warped_by_a_matrix = bad_input(
    lambda make, data: transform.warp(make(data), AFFINE),
    table(DATA, CLOSE, WARPED | {"bool": ELSEWHERE}),
    [*SPARSE, *ON_CUPY],
)
test_what_is_warped_by_a_function = bad_input(
    lambda make, data: transform.warp(make(data), lambda xy: xy + 0.5),
    table(DATA, ELSEWHERE, WARPED),
    [*SPARSE, *ON_CUPY],
)


test_what_is_clipped = bad_input(
    lambda make, data: transform.warp(make(data), AFFINE, cval=1.0),
    given("all_nan", np.full((6, 7), np.nan), CLOSE),
    given("all_true", np.ones((6, 7), dtype=bool), own(SAME) | {"device1": NDIMAGE}),
)
test_a_matrix_of_the_image_library = bad_input(
    lambda make, data: transform.warp(make(data), make(AFFINE.params)),
    given("image", IMAGE, CLOSE),
)


@pytest.mark.parametrize("name", ["cupy", "torch"])
def test_lists_while_another_library_is_imported(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for module in half_imported(name):
        monkeypatch.setitem(sys.modules, name, module)
        np.testing.assert_array_equal(util.img_as_float(IMAGE.tolist()), IMAGE)
        assert filters.gaussian(IMAGE, sigma=[1, 2]).shape == IMAGE.shape
        assert transform.resize(IMAGE, [3, 4]).shape == (3, 4)


def test_without_array_api_compat_all_is_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "array_api_compat", None)
    result = util.img_as_float(OWN["cpu"](IMAGE))
    assert type(result) is np.ndarray
    np.testing.assert_array_equal(result, IMAGE)


@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 3)])
@pytest.mark.parametrize(("of", "kind"), mixtures(OWN, ("cpu", "device1", "cupy")))
def test_warp_refuses_a_map_of_another_type(of: str, kind: str, shape: Shape) -> None:
    wanted = "a NumPy array or of the array type"
    if {of, kind} == {"cpu", "device1"}:
        wanted = "on the device of `image`"
    with pytest.raises(TypeError, match=f"`inverse_map` must be {wanted}"):
        transform.warp(KINDS[of](IMAGE), KINDS[kind](np.ones(shape)))


SERVED = {
    "rescale": lambda x: transform.rescale(x, 0.5, anti_aliasing=True),
    "resize": lambda x: transform.resize(x, (9, 5), order=3),
    "gaussian": lambda x: filters.gaussian(x, (1, 2)),
    "difference": lambda x: filters.difference_of_gaussians(x, 1),
    "warp": lambda x: transform.warp(x, lambda xy: xy + 0.5),
    "swirl": lambda x: transform.swirl(x, strength=2, radius=8),
}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Column:
    """Return device1 as the CUDA device of a library that SciPy serves there, as PyTorch's."""
    device = OWN["device1"]
    own = type(device(0))
    monkeypatch.setattr(own, "__dlpack_device__", lambda _: (2, 0))

    def serve(name: str) -> None:
        original = getattr(ndimage, name)

        def served(*args: Any, **kwargs: Any) -> Any:
            if not isinstance(args[0], own):
                return original(*args, **kwargs)
            arrays = [device.to_numpy(arg) if isinstance(arg, own) else arg for arg in args]
            return device(original(*arrays, **kwargs))

        served.__name__ = name
        monkeypatch.setattr(ndimage, name, served)

    for name in ("gaussian_filter", "zoom", "map_coordinates"):
        serve(name)
    return device


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("dtype", ["uint8", *FLOATS])
def test_a_gpu_that_scipy_serves(gpu: Column, name: str, dtype: str) -> None:
    pixels = image(dtype)
    result, expected = SERVED[name](gpu(pixels)), SERVED[name](pixels)
    assert gpu.mismatch(result) is None
    np.testing.assert_array_equal(gpu.to_numpy(result), expected, strict=True)


def test_the_demo_on_a_gpu_that_scipy_serves(gpu: Column) -> None:
    # As PyTorch's CUDA tensors, which are served so where CuPy is.
    numpy = coins.make_backend("numpy")
    served = replace(coins.make_backend("array-api-strict"), device=gpu.device)
    found, expected = (coins.segment(b, scale=0.1, labels="cluster_qr") for b in (served, numpy))
    assert gpu.mismatch(found.labels) is None
    np.testing.assert_array_equal(gpu.to_numpy(found.labels), expected.labels)


@pytest.mark.parametrize(
    "options", [{"truncate": "x"}, {"mode": 3}, {"cval": "x"}, {"truncate": None}]
)
def test_a_wrong_argument_is_not_a_wrong_array(gpu: Column, options: dict[str, Any]) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011
        filters.gaussian(IMAGE, 1, **options)
    with pytest.raises(expected.type) as error:
        filters.gaussian(gpu(IMAGE), 1, **options)
    assert str(error.value) == str(expected.value)


MASK = np.eye(6, 7, dtype=int) + np.eye(6, 7, k=1, dtype=int)
CONVERTING: dict[str, Any] = {
    "img_as_ubyte": util.img_as_ubyte,
    "img_as_uint": util.img_as_uint,
    "img_as_int": util.img_as_int,
    "img_as_bool": util.img_as_bool,
    "pyramid_reduce": transform.pyramid_reduce,
    "pyramid_expand": transform.pyramid_expand,
    "pyramid_laplacian": lambda x: next(iter(transform.pyramid_laplacian(x))),
    "radon": lambda x: transform.radon(x, circle=False),
    "resize_local_mean": lambda x: transform.resize_local_mean(x, (3, 4)),
    "slic": lambda x: segmentation.slic(x, n_segments=4, channel_axis=None),
    "label2rgb": lambda x: color.label2rgb(MASK, x),
    "blob_dog": feature.blob_dog,
    "daisy": lambda x: feature.daisy(x, step=1, radius=1),
    "blur_effect": measure.blur_effect,
    "inpaint": lambda x: restoration.inpaint_biharmonic(x, MASK),
    "invariant": lambda x: restoration.denoise_invariant(x, filters.gaussian),
    "corner_harris": feature.corner_harris,
    "sift": lambda x: feature.SIFT()._preprocess(x),
    "random_walker": lambda x: segmentation.random_walker(x, MASK, mode="bf"),
}


@pytest.mark.parametrize("name", CONVERTING)
def test_what_numpy_converts_is_taken_as_unpatched(name: str) -> None:
    # Without support for other arrays, and without an opt-in, upstream gives NumPy's.
    result, expected = (CONVERTING[name](x) for x in (OWN["cpu"](IMAGE), IMAGE))
    assert type(result) is type(expected)
    np.testing.assert_array_equal(result, expected)
