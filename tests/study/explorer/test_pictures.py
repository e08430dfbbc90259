"""Pictures are read back pixel by pixel: colours, places, gaps, and what is left out and said to be. Distributions."""

import base64
import io
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from minidl.study.explorer import pictures
from minidl.study.explorer.pictures import KINDS, LEVELS, MAPS, PIXELS, SIDE, Distribution, distribution, picture_of

GREY, MAGENTA, NOTHING = (46, 46, 50, 255), (255, 0, 255, 255), None
BLACK, WHITE = (0, 0, 0, 255), (255, 255, 255, 255)


def pixels(picture):
    """RGBA of a picture: (H, W, 4)."""
    start = "data:image/png;base64,"
    assert picture.src.startswith(start)
    image = Image.open(io.BytesIO(base64.b64decode(picture.src.removeprefix(start), validate=True)))
    assert image.format == "PNG" and image.size == (picture.width, picture.height)
    return np.array(image.convert("RGBA"))


def colours(picture):
    """Rows of (r, g, b, a), None where it is transparent."""
    return [[None if p[3] == 0 else tuple(int(v) for v in p) for p in row] for row in pixels(picture)]


def luminance(colour):
    """Relative luminance by WCAG 2, of (r, g, b, ...) in 0 to 255."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (part / 255 for part in colour[:3])]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    bright, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def ramp():
    """The colours of -LEVELS ... LEVELS, in order."""
    return colours(picture_of(np.arange(-LEVELS, LEVELS + 1.0)[None].repeat(2, 0)))[0]


# --------------------------------------------------------------------------------------------------------------- colours


def test_zero_is_grey_above_is_orange_below_is_blue():
    (low, zero, high), _ = colours(picture_of(np.array([[-2.0, 0.0, 2.0]] * 2)))
    assert zero == GREY and low == (215, 241, 255, 255) and high == (255, 243, 205, 255)
    scale = ramp()
    for blue, orange in zip(scale[:LEVELS], scale[LEVELS + 1 :], strict=True):
        assert blue[2] > blue[0] and orange[0] > orange[2]


def test_brightness_grows_with_the_size_on_both_sides():
    brightness = [luminance(colour) for colour in ramp()]
    assert all(a > b for a, b in pairwise(brightness[: LEVELS + 1]))
    assert all(a < b for a, b in pairwise(brightness[LEVELS:]))
    assert len(set(ramp())) == 2 * LEVELS + 1


def test_both_signs_are_as_bright():
    scale = ramp()
    for blue, orange in zip(scale[:LEVELS], reversed(scale[LEVELS + 1 :]), strict=True):
        assert contrast(blue, orange) < 1.6


def test_signs_differ_for_the_colour_blind():
    """Under full deuteranopia and protanopia (Viénot, Brettel and Mollon 1999, on linear RGB) blue stays blue."""
    blindness = ([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],)
    blindness += ([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],)
    scale = ramp()
    for matrix in blindness:
        for level in range(LEVELS // 4, LEVELS + 1):
            blue, orange = (np.array(matrix) @ (np.array(scale[LEVELS + sign * level][:3]) / 255) ** 2.2 for sign in (-1, 1))
            assert blue[2] - blue[0] > 0 > orange[2] - orange[0]


def test_nothing_is_lost_on_a_white_or_a_black_page():
    assert contrast(GREY, WHITE) > 7 and contrast(GREY, BLACK) > 1.3 and contrast(MAGENTA, GREY) > 3


def test_the_range_is_symmetric_if_anything_is_negative():
    picture = picture_of(np.array([-1.0, 0.0, 4.0, 0.5]))
    assert (picture.low, picture.high) == (-4.0, 4.0)
    assert picture.caption == "4 elements in rows of 2; colours from -4 (blue) over 0 (grey) to 4 (orange)"
    picture = picture_of(np.array([1.0, 0.0, 4.0, 0.5]))
    assert (picture.low, picture.high) == (0.0, 4.0)
    assert picture.caption == "4 elements in rows of 2; colours from 0 (grey) to 4 (orange)"
    assert picture_of(np.array([-3.0, -1.0])).high == 3.0


def test_the_colour_is_in_proportion():
    scale = ramp()
    values = np.array([[-LEVELS, -20, 0, 3], [7.4, 7.6, 33, 1]], float)
    expected = [[scale[round(v) + LEVELS] for v in row] for row in values.tolist()]
    assert colours(picture_of(values)) == colours(picture_of(values * 1e-30)) == expected


def test_what_is_not_finite_is_magenta_and_counted():
    picture = picture_of(np.array([[np.nan, np.inf, 1.0], [-np.inf, 0.0, 0.5]], np.float32))
    rows = colours(picture)
    assert [rows[0][0], rows[0][1], rows[1][0]] == [MAGENTA] * 3 and rows[1][1] == GREY
    assert (picture.low, picture.high) == (0.0, 1.0) and picture.caption.endswith("(orange); 3 not finite (magenta)")
    picture = picture_of(np.full((2, 3, 4, 4), np.nan))
    assert picture.low == picture.high == 0
    assert picture.caption == "3 of 6 maps of 4 x 4 in rows of 2; 48 not finite (magenta)"


def test_all_zeros():
    picture = picture_of(np.zeros((2, 2)))
    assert colours(picture) == [[GREY] * 2] * 2 and picture.caption == "a matrix of 2 x 2; 0 (grey) everywhere"
    assert (picture.low, picture.high) == (0.0, 0.0)


# ----------------------------------------------------------------------------------------------------------- what is shown


def bright(picture):
    """Where a picture is at the end of the range: a set of (row, column)."""
    end = (255, 243, 205, 255)
    return {(i, j) for i, row in enumerate(colours(picture)) for j, colour in enumerate(row) if colour == end}


def test_maps_become_a_mosaic_with_gaps():
    x = np.zeros((1, 6, 2, 3))
    x[0, 4, 1, 2] = 1.0
    picture = picture_of(x)
    # 3 columns would be 11 x 8, but 2 columns are 7 x 8; row by row: the fifth map begins the third row
    assert (picture.width, picture.height) == (7, 8) and (picture.shown, picture.of) == (6, 6)
    assert bright(picture) == {(7, 2)}
    rows = colours(picture)
    assert all(rows[i][j] is NOTHING for i in range(8) for j in range(7) if i in (2, 5) or j == 3)
    assert sum(colour is not NOTHING for row in rows for colour in row) == 36
    assert picture.caption == "6 maps of 2 x 3 in rows of 2; colours from 0 (grey) to 1 (orange)"


def test_places_that_are_left_over_are_transparent():
    picture = picture_of(np.ones((1, 3, 2, 2)))
    rows = colours(picture)
    assert (picture.width, picture.height) == (5, 5) and {rows[i][j] for i in (3, 4) for j in (3, 4)} == {NOTHING}


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (2, 2), (48, 8), (96, 12), (128, 16), (192, 16), (256, 16), (7, 3)])
def test_mosaics_are_about_square(n, columns):
    picture = picture_of(np.ones((1, n, 5, 5)))
    assert picture.width == columns * 6 - 1 and picture.height == -(-n // columns) * 6 - 1


def test_an_activation_shows_its_first_image():
    x = np.zeros((3, 2, 4, 4))
    x[0, 1, 0, 0] = x[1] = 1.0
    picture = picture_of(x, "activation")
    assert bright(picture) == {(0, 5)} and (picture.shown, picture.of) == (2, 6)
    assert picture.caption.startswith("2 of 6 maps of 4 x 4;")


def test_gradients_and_filters_show_a_row_s_maps_side_by_side():
    w = np.zeros((5, 2, 3, 3))
    w[3, 1, 0, 0] = 1.0
    for kind in ("gradient", "filters"):
        picture = picture_of(w, kind)
        # filters in pairs of maps, two pairs to a row: the fourth filter's second map is the last of the second row
        assert bright(picture) == {(4, 12)} and (picture.shown, picture.of) == (10, 10)
        assert picture.caption.startswith("10 maps of 3 x 3 in rows of 4;")


def test_many_filters_are_cut_to_the_first_of_both_axes():
    w = np.zeros((128, 48, 5, 5), np.float32)
    w[15, 15, 4, 4] = w[16, 0] = w[0, 16] = 1.0
    picture = picture_of(w, "filters")
    assert (picture.shown, picture.of) == (256, 6144) and picture.caption.startswith(
        "256 of 6,144 maps of 5 x 5 in rows of 16;"
    )
    assert bright(picture) == {(16 * 6 - 2, 16 * 6 - 2)}
    few_filters, few_channels = picture_of(np.ones((2, 500, 3, 3)), "filters"), picture_of(np.ones((500, 2, 3, 3)), "filters")
    assert few_filters.shown == few_channels.shown == MAPS


def test_large_maps_are_fewer():
    picture = picture_of(np.ones((1, 100, 100, 100), np.float32))
    assert picture.shown == PIXELS // 10_000 == 30 and picture.of == 100


def test_very_large_maps_lose_pixels_and_say_so():
    x = np.zeros((1, 1, 600, 400))
    x[0, 0, 3, 3] = x[0, 0, 4, 4] = 1.0
    picture = picture_of(x)
    assert (picture.width, picture.height) == (134, 200) and bright(picture) == {(1, 1)}
    assert picture.caption.startswith("1 map of 600 x 400, one of 3 x 3 pixels;")


def test_a_vector_is_a_grid_without_gaps():
    values = np.zeros(10)
    values[7] = 1.0
    for shape in [(10,), (1, 10), (10, 1), (1, 10, 1, 1), (1, 1, 10)]:
        picture = picture_of(values.reshape(shape))
        assert (picture.width, picture.height) == (4, 3) and bright(picture) == {(1, 3)}
        assert colours(picture)[2][2:] == [NOTHING] * 2
        assert (picture.shown, picture.of) == (10, 10) and picture.caption.startswith("10 elements in rows of 4;")
    picture = picture_of(np.ones(SIDE * SIDE + 1))
    assert (picture.width, picture.height) == (SIDE, SIDE) and picture.caption.startswith("65,536 of 65,537 elements in rows")


def test_a_number():
    picture = picture_of(np.float32(2.5))
    assert (picture.width, picture.height, picture.shown, picture.of) == (1, 1, 1, 1)
    assert picture.caption == "1 element; colours from 0 (grey) to 2.5 (orange)"


def test_a_matrix_is_as_it_is_or_cut():
    x = np.zeros((300, 400))
    x[2, 5] = 1.0
    x[299, 399] = 9.0  # not in the picture, so it has no part in the range
    picture = picture_of(x)
    assert (picture.width, picture.height) == (SIDE, SIDE) and bright(picture) == {(2, 5)} and picture.high == 1.0
    assert picture.caption.startswith("rows 1 to 256 and columns 1 to 256 of a matrix of 300 x 400;")
    assert (picture.shown, picture.of) == (SIDE * SIDE, 120_000)
    picture = picture_of(np.eye(3)[:2])
    assert bright(picture) == {(0, 0), (1, 1)} and picture.caption.startswith("a matrix of 2 x 3;")


def test_weights_of_1_x_1_are_a_matrix():
    w = np.zeros((4, 5, 1, 1))
    w[1, 2] = 1.0
    picture = picture_of(w, "filters")
    assert (picture.width, picture.height) == (5, 4) and bright(picture) == {(1, 2)}


def test_maps_of_three_axes_and_of_five():
    assert picture_of(np.ones((3, 4, 4))).shown == 3
    assert (picture_of(np.ones((2, 3, 2, 4, 4))).shown, picture_of(np.ones((2, 3, 2, 4, 4)), "gradient").shown) == (6, 12)


def test_memory_order_does_not_matter():
    x = np.random.default_rng(0).normal(size=(1, 5, 6, 7))
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert picture_of(x) == picture_of(last)
    assert distribution(x).counts == distribution(last).counts


# -------------------------------------------------------------------------------------------------------------------- RGB


def test_an_image_of_bytes_is_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 5), np.uint8)
    for array in (image, image[None]):
        picture = picture_of(array, "image")
        np.testing.assert_array_equal(pixels(picture)[..., :3], image.transpose(1, 2, 0))
        assert (pixels(picture)[..., 3] == 255).all() and (picture.low, picture.high, picture.shown) == (0.0, 255.0, 1)
    assert picture.caption == "1 image of 4 x 5 in RGB; colours from 0 (black) to 255 (white)"


def test_an_image_of_floats_goes_from_black_to_white():
    image = np.array([-100.0, 0.0, 155.0]).reshape(3, 1, 1)
    picture = picture_of(image, "image")
    assert pixels(picture)[0, 0].tolist() == [0, 100, 255, 255] and (picture.low, picture.high) == (-100.0, 155.0)
    assert colours(picture_of(np.full((1, 3, 2, 2), 7.0), "image"))[0][0] == (128, 128, 128, 255)


@pytest.mark.parametrize(
    "values", [[5e-324, 0.0, 5e-324], [-1e308, 0.0, 1e308], [np.nan, 300.0, 310.0], [7, 7, 9], [True, False, True]]
)
def test_an_image_of_extreme_values(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = picture_of(np.array(values).reshape(1, 1, 3), "image")
    drawn = [p[0] for p in pixels(picture)[0].tolist()]
    assert sorted(drawn)[0] == 0 and sorted(drawn)[-1] == 255


def test_an_image_of_one_channel_is_grey():
    picture = picture_of(np.array([[[0, 100], [200, 255]]], np.uint8), "image")
    assert pixels(picture)[..., 0].tolist() == pixels(picture)[..., 2].tolist() == [[0, 100], [200, 255]]


def test_an_image_of_other_channels_is_a_mosaic():
    assert picture_of(np.ones((1, 5, 4, 4)), "image") == picture_of(np.ones((1, 5, 4, 4)))


def test_large_images_lose_pixels_and_say_so():
    image = np.zeros((2, 3, 300, 600), np.uint8)
    image[0, :, 3, 6] = 255
    picture = picture_of(image, "image")
    assert (picture.width, picture.height) == (200, 100) and colours(picture)[1][2] == WHITE
    assert picture.caption.startswith("1 of 2 images of 300 x 600, one of 3 x 3 pixels in RGB;")


def test_filters_of_three_channels_have_zero_at_mid_grey():
    w = np.zeros((4, 3, 2, 2))
    w[3, :, 1, 1] = 0.5, -0.3, 0.25
    picture = picture_of(w, "filters")
    rows = colours(picture)
    assert (picture.width, picture.height, picture.shown, picture.of) == (5, 5, 4, 4)
    assert rows[0][0] == (128, 128, 128, 255) and rows[4][4] == (255, 51, 191, 255) and rows[2][2] is NOTHING
    assert (picture.low, picture.high) == (-0.5, 0.5)
    assert picture.caption == "4 filters of 2 x 2 in rows of 2 in RGB; colours from -0.5 (black) over 0 (grey) to 0.5 (white)"
    assert picture_of(w * 0, "filters").caption.endswith("; 0 (grey) everywhere")


def test_only_filters_of_four_axes_are_in_rgb():
    for shape in [(3, 4, 4), (2, 2, 3, 4, 4)]:
        assert "RGB" not in picture_of(np.ones(shape), "filters").caption


def test_very_large_filters_are_fewer():
    picture = picture_of(np.ones((3, 3, 600, 600), np.float32), "filters")
    assert (picture.width, picture.height, picture.shown, picture.of) == (600, 600, 1, 3)


def test_many_filters_in_rgb():
    picture = picture_of(np.ones((300, 3, 2, 2)), "filters")
    assert (picture.shown, picture.of) == (MAPS, 300) and picture.caption.startswith(
        "256 of 300 filters of 2 x 2 in rows of 16"
    )


def test_a_pixel_with_anything_not_finite_is_magenta():
    for kind in ("image", "filters"):
        w = np.ones((1, 3, 2, 2))
        w[0, 0, 0, 0], w[0, 1, 1, 1] = np.nan, np.inf
        picture = picture_of(w, kind)
        rows = colours(picture)
        assert rows[0][0] == rows[1][1] == MAGENTA != rows[0][1] and picture.caption.endswith("; 2 not finite (magenta)")
        assert picture.high == 1.0
    assert picture_of(np.full((1, 3, 2, 2), np.nan), "image").caption == "1 image of 2 x 2 in RGB; 12 not finite (magenta)"


# ------------------------------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (1, 0, 4, 4), (2, 3, 0, 4), (3, 0, 0)])
def test_no_elements(shape, kind):
    picture = picture_of(np.zeros(shape), kind)
    assert colours(picture) == [[NOTHING]] and (picture.low, picture.high, picture.shown, picture.of) == (0.0, 0.0, 0, 0)
    assert picture.caption == f"no elements: the shape is {shape}"


@settings(max_examples=80)
@given(
    array=arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5).flatmap(
        lambda shape: st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_]).flatmap(
            lambda dtype: arrays.arrays(dtype, shape)
        )
    ),
    kind=st.sampled_from(KINDS),
)
def test_any_array_has_a_picture_and_a_distribution(array, kind):
    """NaN, infinities, the largest and the smallest numbers among them, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture, spread = picture_of(array, kind), distribution(array, 7)
    assert pixels(picture).shape == (picture.height, picture.width, 4)
    assert 0 <= picture.shown <= picture.of <= array.size
    assert picture.low <= 0 or kind == "image"
    assert np.isfinite([picture.low, picture.high, spread.mean, spread.std]).all()
    finite = array[np.isfinite(array)]
    assert sum(spread.counts) == finite.size == spread.size - spread.nonfinite and spread.size == array.size
    if finite.size:
        assert (spread.low, spread.high) == (finite.min(), finite.max()) and spread.counts[-1] + spread.counts[3] > 0


def test_pictures_are_small():
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=(1, 48, 55, 55)), rng.normal(size=(1, 128, 27, 27)), rng.normal(size=(2048, 4608))]
    assert [len(picture_of(x).src) < limit for x, limit in zip(noise, (190_000, 130_000, 80_000), strict=True)] == [True] * 3
    sparse = np.maximum(noise[0] - 2, 0)
    assert len(picture_of(sparse).src) < 40_000


def test_errors():
    with pytest.raises(ValueError, match=r"^picture_of: kind must be one of activation, gradient, filters, image, got 'map'$"):
        picture_of(np.ones(3), "map")
    for wrong, dtype in ((np.ones(3, complex), "complex128"), (np.array(["a"]), "<U1"), (np.array([None]), "object")):
        with pytest.raises(TypeError, match=f"^picture_of: the array must be of real numbers, got {dtype}$"):
            picture_of(wrong)
    with pytest.raises(TypeError, match=r"^distribution: the array must be of real numbers, got complex128$"):
        distribution(np.ones(3, complex))
    with pytest.raises(ValueError, match=r"^distribution: bins must be at least 1, got 0$"):
        distribution(np.ones(3), 0)


# ----------------------------------------------------------------------------------------------------------- distributions


def test_distribution_equals_numpy_s():
    x = np.random.default_rng(0).normal(2.0, 3.0, (7, 11, 13)).astype(np.float32)
    x[x < 0] = 0
    found = distribution(x)
    counts, _ = np.histogram(x.astype(np.float64), 32)
    assert found.counts == counts.tolist() and all(type(n) is int for n in found.counts)
    assert (found.low, found.high) == (float(x.min()), float(x.max()))
    np.testing.assert_allclose([found.mean, found.std], [x.mean(dtype=np.float64), x.std(dtype=np.float64)], rtol=1e-12)
    assert (found.zeros, found.nonfinite, found.size) == (int((x == 0).sum()), 0, x.size)


def test_bins_include_both_ends():
    assert distribution(np.arange(9), 4).counts == [2, 2, 2, 3]
    assert distribution(np.arange(3.0), 1).counts == [3]


def test_distribution_of_what_is_finite():
    found = distribution(np.array([np.nan, 0.0, 4.0, -np.inf, np.inf, 0.0]), 4)
    assert found == Distribution([2, 0, 0, 1], 0.0, 4.0, 4 / 3, found.std, 2, 3, 6)
    assert found.std == pytest.approx(np.std([0, 4, 0]))
    assert distribution(np.array([np.nan, np.inf]), 2) == Distribution([0, 0], 0.0, 0.0, 0.0, 0.0, 0, 2, 2)
    assert distribution(np.zeros((0, 3)), 2) == Distribution([0, 0], 0.0, 0.0, 0.0, 0.0, 0, 0, 0)


def test_distribution_of_a_constant_is_in_the_middle():
    assert distribution(np.full(5, 3.0), 4) == Distribution([0, 0, 5, 0], 3.0, 3.0, 3.0, 0.0, 0, 0, 5)
    assert distribution(np.full(5, 3.0), 1).counts == [5]


def test_extreme_ranges():
    assert distribution(np.array([-1e308, 0.0, 1e308]), 2).counts == [1, 2]
    assert distribution(np.array([1.0, np.nextafter(1.0, 2)]), 2).counts == [1, 1]
    found = distribution(np.array([-1e308, 1e308]))
    assert found.std == pytest.approx(1e308) and found.mean == 0


def test_the_palette_has_room():
    assert len(pictures._palette()) == 3 * (2 * LEVELS + 3) <= 3 * 256
