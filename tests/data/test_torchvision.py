"""Transforms as programs written for torchvision call them: without a key, of Pillow's pictures and of Tensors."""

import math

import numpy as np
import pytest

import minidl
from minidl import Tensor
from minidl.data import InputStep, SampleKey, transforms
from minidl.data.transforms import (
    CenterCrop,
    ColorJitter,
    Compose,
    ConvertImageDtype,
    InterpolationMode,
    Lambda,
    Normalize,
    PILToTensor,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    TenCrop,
    ToDtype,
    ToImage,
    ToTensor,
)

Image = pytest.importorskip("PIL.Image")
KEY = SampleKey(1, 2, 3, 4)


@pytest.fixture
def color(rng):
    """(6, 8, 3) uint8, no two pixels alike."""
    return rng.integers(0, 256, (6, 8, 3), np.uint8)


# -------------------------------------------------------------------------------------------------------------- tensors


@pytest.mark.parametrize("make", [np.asarray, Image.fromarray])
def test_to_tensor_of_bytes_is_channels_first_on_the_scale_of_1(color, make):
    x = ToTensor()(make(color))
    assert type(x) is Tensor and x.dtype == np.float32 and x.shape == (3, 6, 8) and not x.requires_grad
    assert np.array_equal(x.numpy(), color.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    assert x.numpy().flags.c_contiguous and float(ToTensor()(make(np.full((1, 1, 3), 255, np.uint8))).max()) == 1.0


@pytest.mark.parametrize(
    ("mode", "channels", "dtype", "white"),
    [
        ("1", 1, np.float32, 1.0),
        ("L", 1, np.float32, 1.0),
        ("LA", 2, np.float32, 1.0),
        ("P", 1, np.float32, None),  # the palette's numbers
        ("RGBA", 4, np.float32, 1.0),
        ("CMYK", 4, np.float32, None),
        ("YCbCr", 3, np.float32, None),
        ("HSV", 3, np.float32, None),
        ("I", 1, np.int32, 255),
        ("F", 1, np.float32, 255.0),
    ],
)
def test_to_tensor_of_pillows_modes(mode, channels, dtype, white):
    picture = Image.new("L", (4, 2), 255).convert(mode)
    x = ToTensor()(picture)
    assert x.shape == (channels, 2, 4) and x.dtype == dtype
    if white is not None:
        assert (x.numpy() == white).all()
    if dtype == np.float32 and mode != "F":
        assert np.array_equal(
            x.numpy() * 255, np.atleast_3d(np.array(picture, np.float32)).transpose(2, 0, 1) * (1 + 254 * (mode == "1"))
        )


def test_to_tensor_of_16_bit_grey_keeps_every_number():
    grey = np.array([[0, 1, 32768, 65535]], np.uint16)
    x = ToTensor()(Image.fromarray(grey))
    assert x.dtype == np.int32 and x.numpy().tolist() == [grey.tolist()]


def test_to_tensor_of_other_arrays_keeps_numbers_and_dtype(rng):
    for dtype in (np.float32, np.float64, np.int64, bool):
        array = (rng.random((2, 3, 4)) * 9).astype(dtype)
        x = ToTensor()(array)
        assert x.dtype == dtype and np.array_equal(x.numpy(), array.transpose(2, 0, 1))
    assert ToTensor()(np.zeros((2, 5), np.uint8)).shape == (1, 2, 5)


@pytest.mark.parametrize("to", [ToTensor(), ToImage()])
def test_a_tensor_of_an_image_has_memory_of_its_own(to):
    array = np.zeros((2, 3, 1), np.float32)
    to(array).add_(1)
    assert not array.any()


@pytest.mark.parametrize(
    ("image", "error", "text"),
    [
        (np.zeros(3), ValueError, r"takes arrays \(H, W, C\) or \(H, W\), got \(3,\)"),
        (np.zeros((1, 2, 3, 4)), ValueError, r"got \(1, 2, 3, 4\)"),
        ([1, 2], TypeError, "takes a picture of Pillow's or an array .*, got list"),
    ],
)
@pytest.mark.parametrize("to", [ToTensor(), ToImage()])
def test_what_is_no_image_is_refused(to, image, error, text):
    with pytest.raises(error, match=f"{type(to).__name__}: .*{text}"):
        to(image)


def test_to_tensor_refuses_tensors_and_to_image_keeps_them():
    x = minidl.zeros(3, 2, 2)
    assert ToImage()(x) is x
    with pytest.raises(TypeError, match=r"ToTensor: takes a picture of Pillow's or an array .*, got Tensor"):
        ToTensor()(x)


def test_to_image_and_to_dtype_make_what_to_tensor_makes(color):
    x = ToImage()(Image.fromarray(color))
    assert x.dtype == np.uint8 and np.array_equal(x.numpy(), color.transpose(2, 0, 1))
    y = Compose([ToImage(), ToDtype(minidl.float32, scale=True)])(color)
    np.testing.assert_allclose(y.numpy(), ToTensor()(color).numpy(), rtol=2e-7)  # one rounding more: of 1 / 255
    assert np.array_equal(PILToTensor()(Image.fromarray(color)).numpy(), x.numpy())
    assert ToImage()(Image.new("1", (2, 2), 1)).dtype == bool


def test_to_dtype_scales_the_whole_range():
    x = minidl.tensor([0, 1, 127, 255], dtype=minidl.uint8)
    assert ToDtype(minidl.uint8, scale=True)(x) is x
    assert ToDtype(minidl.float32)(x).tolist() == [0.0, 1.0, 127.0, 255.0]
    assert ToDtype(minidl.int32, scale=True)(x).tolist() == [0, 1 << 23, 127 << 23, 255 << 23]
    assert ToDtype(minidl.uint8, scale=True)(ToDtype(minidl.int32, scale=True)(x)).tolist() == x.tolist()
    assert ToDtype(minidl.int8, scale=True)(x).tolist() == [0, 0, 63, 127]
    for dtype in (minidl.float16, minidl.float32, minidl.float64):
        floats = ConvertImageDtype(dtype)(x)
        assert floats.dtype == dtype and ConvertImageDtype(minidl.uint8)(floats).tolist() == x.tolist()
    # each of 256 levels has an equal share of [0, 1]
    share = np.bincount(ToDtype(minidl.uint8, scale=True)(minidl.linspace(0, 1, 25_600)).numpy())
    assert len(share) == 256 and share.min() >= 99 and share.max() <= 101
    assert ToDtype(minidl.float32, scale=True)(minidl.tensor([False, True])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("old", "new"), [("float32", "int32"), ("float32", "int64"), ("float64", "int64")])
def test_to_dtype_refuses_what_the_float_cannot_hold(old, new):
    with pytest.raises(RuntimeError, match=f"ToDtype: {old} cannot hold all of {new}'s numbers"):
        ToDtype(np.dtype(new), scale=True)(minidl.zeros(1, dtype=np.dtype(old)))
    assert ToDtype(np.dtype(new))(minidl.zeros(1, dtype=np.dtype(old))).dtype == new


def test_to_dtype_takes_tensors_only(color):
    with pytest.raises(TypeError, match="ToDtype: takes a Tensor, got ndarray; ToImage makes one"):
        ToDtype(minidl.float32)(color)


def test_normalize_of_a_tensor_is_one_of_its_dtype(rng):
    normalize = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for dtype in (np.float32, np.float64):
        x = rng.random((2, 3, 4, 5)).astype(dtype)
        mean, std = (np.array(v, dtype).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        y = normalize(minidl.tensor(x))
        assert y.dtype == dtype and np.array_equal(y.numpy(), (x - mean) / std)
    x = minidl.ones(1, 2, 2)
    assert Normalize((1.0,), (2.0,), inplace=True)(x) is x and not x.numpy().any()
    assert repr(Normalize((0.1307,), (0.3081,))) == "Normalize(mean=[0.1307], std=[0.3081])"


@pytest.mark.parametrize(
    ("image", "error", "text"),
    [
        (minidl.zeros(1, 2, 2, dtype=minidl.uint8), TypeError, "takes a Tensor of floats, got uint8; ToDtype"),
        (minidl.zeros(2, 2), ValueError, r"takes a Tensor \(\.\.\., C, H, W\), got \(2, 2\)"),
        (Image.new("RGB", (2, 2)), TypeError, "takes a Tensor, which ToTensor makes, or an array, got Image"),
    ],
)
def test_normalize_refuses(image, error, text):
    with pytest.raises(error, match=f"Normalize: {text}"):
        Normalize((0.5,), (0.5,))(image)


# --------------------------------------------------------------------------------------------------------------- kinds


def kinds(array):
    """The image as each of the three things that an image can be, and how to have an array (H, W, C) of it back."""
    return [
        (array, lambda y: y),
        (Image.fromarray(array), lambda y: np.asarray(y)),
        (ToImage()(array), lambda y: y.numpy().transpose(1, 2, 0)),
    ]


@pytest.mark.parametrize(
    "transform",
    [
        CenterCrop((3, 5)),
        RandomCrop(4),
        RandomCrop(6, padding=2, fill=9),
        RandomCrop(6, padding=(1, 2, 3, 0), padding_mode="reflect"),
        RandomCrop((9, 4), pad_if_needed=True),
        RandomHorizontalFlip(1.0),
        RandomHorizontalFlip(0.0),
        Resize(3),
        Resize((6, 8)),
        Resize((12, 5), InterpolationMode.NEAREST),
        RandomResizedCrop(5),
        ColorJitter(0.4, 0.4, 0.4, 0.2),
    ],
    ids=repr,
)
def test_all_kinds_of_images_give_one_result_and_stay_what_they_are(transform, color):
    results = []
    for image, back in kinds(color):
        result = transform(image, KEY)
        assert type(result) is type(image) or isinstance(result, Image.Image)
        results.append(back(result))
    assert results[0].dtype == np.uint8
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


def test_tensors_of_floats_and_of_batches_are_cropped_and_mirrored(rng):
    x = rng.random((2, 3, 4, 6), np.float32)
    assert np.array_equal(CenterCrop(2)(Tensor(x)).numpy(), x[..., 1:3, 2:4])
    assert np.array_equal(RandomHorizontalFlip(1.0)(Tensor(x)).numpy(), x[..., ::-1])
    padded = RandomCrop((6, 8), padding=1, fill=2.0)(Tensor(x)).numpy()
    assert np.array_equal(padded, np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=2.0))


def test_ten_crop_of_others_is_torchvisions_tuple(color):
    places = [(0, 0), (0, 4), (3, 0), (3, 4), (1, 2)]
    expected = [image[t : t + 3, left : left + 4] for image in (color, color[:, ::-1]) for t, left in places]
    for image, back in kinds(color)[1:]:
        views = TenCrop((3, 4))(image)
        assert isinstance(views, tuple) and all(np.array_equal(back(v), e) for v, e in zip(views, expected, strict=True))


def test_resize_enlarges_a_picture_with_the_bilinear_filter_and_an_array_with_the_bicubic(color):
    picture = Image.fromarray(color)
    filters = {name: np.asarray(picture.resize((16, 12), Image.Resampling[name])) for name in ("BILINEAR", "BICUBIC")}
    assert np.array_equal(np.asarray(Resize(12)(picture)), filters["BILINEAR"])
    assert np.array_equal(Resize(12)(color), filters["BICUBIC"])
    for mode in ("bicubic", InterpolationMode.BICUBIC, Image.Resampling.BICUBIC):
        assert np.array_equal(np.asarray(Resize(12, mode)(picture)), filters["BICUBIC"])


def test_compose_and_lambda_without_a_key(color):
    steps = [CenterCrop(4), Lambda(lambda picture: picture.rotate(90)), lambda picture: picture.convert("L"), ToTensor()]
    x = Compose(steps)(Image.fromarray(color))
    grey = np.asarray(Image.fromarray(np.rot90(color[1:5, 2:6])).convert("L"))
    assert np.array_equal(x.numpy()[0] * 255, grey.astype(np.float32))
    assert Lambda(abs)(-3, KEY) == 3 and repr(Lambda(abs)) == "Lambda()"
    with pytest.raises(TypeError, match="Lambda: lambd must be a function, got int"):
        Lambda(3)


def test_without_a_key_each_call_draws_anew_and_manual_seed_repeats(color):
    x = ToImage()(color)
    transform = Compose([RandomResizedCrop(4), RandomHorizontalFlip(), ColorJitter(0.5), RandomCrop(2)])
    first = [transform(x).numpy().tolist() for _ in range(5)]
    assert len({str(image) for image in first}) > 1
    minidl.manual_seed(0)
    assert [transform(x).numpy().tolist() for _ in range(5)] == first
    minidl.manual_seed(1)
    assert [transform(x).numpy().tolist() for _ in range(5)] != first


# --------------------------------------------------------------------------------------------------------- distributions


def assert_uniform(values, low, high):
    """Kolmogorov and Smirnov's distance: for n values of the right distribution above 1.95 / sqrt(n) once in 1000 seeds."""
    values, n = np.sort(values), len(values)
    u = (values - low) / (high - low)
    assert u[0] >= 0 and u[-1] <= 1
    above, below = np.arange(1, n + 1) / n - u, u - np.arange(n) / n
    assert max(above.max(), below.max()) < 1.95 / math.sqrt(n)


def test_random_resized_crops_have_torchvisions_distribution():
    """On an image so large that all draws fit: area and log of the ratio uniform, places uniform among those that fit."""
    transform, side = RandomResizedCrop(8, scale=(0.1, 0.5), ratio=(0.5, 2.0)), 4000
    parts = np.array([transform.part(side, side) for _ in range(3000)])
    top, left, height, width = parts.T
    assert_uniform(height * width / side**2, 0.1 - 1e-3, 0.5 + 1e-3)  # sides are rounded to whole pixels
    assert_uniform(np.log(width / height), math.log(0.5) - 1e-3, math.log(2.0) + 1e-3)
    for place, size in ((top, height), (left, width)):
        assert_uniform((place + 0.5) / (side - size + 1), 0.0, 1.0)
    assert abs(np.corrcoef(top, left)[0, 1]) < 4 / math.sqrt(3000)


def test_a_part_that_never_fits_is_the_middle():
    assert RandomResizedCrop(8, scale=(2.0, 2.0)).part(6, 9) == (0, 0, 6, 8)  # at most 4 : 3
    assert RandomResizedCrop(8, scale=(2.0, 2.0)).part(9, 6) == (0, 0, 8, 6)
    assert RandomResizedCrop(8, scale=(2.0, 2.0)).part(6, 6) == (0, 0, 6, 6)
    assert RandomResizedCrop(8, scale=(2.0, 2.0), ratio=(1, 1)).part(7, 12) == (0, 2, 7, 7)


def test_a_resized_crop_is_the_crop_resized(color):
    transform = RandomResizedCrop((7, 5), interpolation="bicubic")
    top, left, height, width = transform.part(6, 8, KEY)
    crop = Image.fromarray(color[top : top + height, left : left + width])
    assert np.array_equal(transform(color, KEY), np.asarray(crop.resize((5, 7), Image.Resampling.BICUBIC)))


def test_color_jitter_has_torchvisions_distribution():
    transform = ColorJitter(brightness=0.4, contrast=(0.5, 2.0), saturation=1.5, hue=0.25)
    draws = [transform.factors() for _ in range(2400)]
    for name, low, high in (("brightness", 0.6, 1.4), ("contrast", 0.5, 2.0), ("saturation", 0.0, 2.5), ("hue", -0.25, 0.25)):
        assert_uniform([dict(draw)[name] for draw in draws], low, high)
    orders, counts = np.unique(["".join(name[0] for name, _ in draw) for draw in draws], return_counts=True)
    assert len(orders) == 24 and abs(counts - 100).max() < 5 * math.sqrt(100)  # all orders alike: 100 each, give or take 10


def test_color_jitter_leaves_out_what_it_was_not_asked_for(color):
    assert ColorJitter().factors() == [] and ColorJitter()(color) is color
    assert [name for name, _ in ColorJitter(contrast=0.2).factors()] == ["contrast"]
    assert ColorJitter(brightness=None, hue=(0.0, 0.0)).factors() == []


def test_what_a_factor_does():
    one = Image.new("RGB", (2, 2), (100, 150, 40))
    assert ColorJitter(brightness=(0.5, 0.5))(one).getpixel((0, 0)) == (50, 75, 20)
    assert ColorJitter(saturation=(0.0, 0.0))(one).getpixel((0, 0)) == (one.convert("L").getpixel((0, 0)),) * 3
    assert ColorJitter(contrast=(0.0, 0.0))(one).getpixel((0, 0)) == (one.convert("L").getpixel((0, 0)),) * 3
    red = Image.new("RGB", (1, 1), (255, 0, 0))
    turned = ColorJitter(hue=(1 / 3, 1 / 3))(red).getpixel((0, 0))
    assert turned[1] == 255 and turned[0] <= 6 and turned[2] <= 6  # green, to one of 256 steps
    grey = Image.new("L", (2, 2), 9)
    assert ColorJitter(hue=0.5)(grey).getpixel((0, 0)) == 9


def test_padded_crops_take_every_place_alike(color):
    crop = RandomCrop((6, 8), padding=1)
    counts = {}
    for _ in range(900):
        found = crop(color).tobytes()
        counts[found] = counts.get(found, 0) + 1
    assert len(counts) == 9 and max(abs(n - 100) for n in counts.values()) < 5 * math.sqrt(100)


def test_an_image_that_is_too_small_is_padded_on_both_sides_by_what_it_lacks(color):
    crops = {RandomCrop((7, 8), pad_if_needed=True)(color).tobytes() for _ in range(30)}
    padded = np.pad(color, [(1, 1), (0, 0), (0, 0)])
    assert crops == {padded[:7].tobytes(), padded[1:].tobytes()}


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: RandomResizedCrop(4, scale=(0.0, 1.0)),
            ValueError,
            r"RandomResizedCrop: scale must be \(low, high\) with 0 <",
        ),
        (lambda: RandomResizedCrop(4, ratio=(2, 1)), ValueError, r"ratio must be .* got \(2, 1\)"),
        (
            lambda: RandomResizedCrop(4, interpolation="cubic"),
            ValueError,
            "interpolation must be one of nearest, .* got 'cubic'",
        ),
        (lambda: Resize(4, 6), ValueError, "Resize: interpolation must be one of .*, or 0 to 5, got 6"),
        (lambda: ColorJitter(brightness=-1), ValueError, r"ColorJitter: brightness must be in \[0, inf\], got -1"),
        (lambda: ColorJitter(hue=0.6), ValueError, r"ColorJitter: hue must be in \[0, 0.5\], got 0.6"),
        (lambda: ColorJitter(contrast=(2, 1)), ValueError, r"contrast must be \(low, high\) in \[0.0, inf\], got \(2, 1\)"),
        (lambda: RandomCrop(4, padding=-1), ValueError, "RandomCrop: padding must be at least 0, got -1"),
        (lambda: RandomCrop(4, padding=(1, 2, 3)), ValueError, r"padding must be an int, or 2 or 4 of them, got \(1, 2, 3\)"),
        (
            lambda: RandomCrop(4, padding_mode="wrap"),
            ValueError,
            "padding_mode must be constant, edge, reflect or symmetric, got",
        ),
        (lambda: InputStep(RandomCrop(4, 1)), ValueError, "InputStep: the crop must be one that does not pad, got RandomCrop"),
    ],
)
def test_a_bad_argument_is_named(make, error, text):
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(
    "transform", [Resize(3), RandomResizedCrop(3), ColorJitter(0.5), Resize((4, 4)), ColorJitter()], ids=repr
)
def test_images_that_are_no_bytes_are_refused(transform):
    name = type(transform).__name__
    with pytest.raises(
        TypeError, match=rf"{name}: takes Tensors \(1 or 3, H, W\) uint8, got \(3, 4, 4\) float32; it comes before"
    ):
        transform(minidl.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=rf"{name}: takes \(H, W, 3\) uint8 images, got \(4, 4, 3\) float64"):
        transform(np.zeros((4, 4, 3)))


def test_modes_without_colours_to_change_are_refused():
    with pytest.raises(TypeError, match="ColorJitter: takes pictures of mode L and RGB, got RGBA"):
        ColorJitter(0.5)(Image.new("RGBA", (2, 2)))
    with pytest.raises(TypeError, match="RandomCrop: pads pictures of mode 1, L, LA, RGB and RGBA, got P"):
        RandomCrop(2, 1)(Image.new("P", (2, 2)))


def test_tensors_are_resized_with_antialias_only(color):
    with pytest.raises(ValueError, match="Resize: Tensors are resized with antialias=True only, got False"):
        Resize(3, antialias=False)(ToImage()(color))
    assert Resize(3, antialias=False)(Image.fromarray(color)).size == (
        4,
        3,
    )  # of pictures it changes nothing, as in torchvision


def test_in_words():
    assert repr(RandomResizedCrop(224)) == (
        "RandomResizedCrop(size=(224, 224), scale=(0.08, 1.0), ratio=(0.75, 1.3333), interpolation=bilinear)"
    )
    assert repr(ColorJitter(0.4, hue=0.1)) == (
        "ColorJitter(brightness=(0.6, 1.4), contrast=None, saturation=None, hue=(-0.1, 0.1))"
    )
    assert repr(RandomCrop(32, padding=4)) == "RandomCrop(size=(32, 32), padding=(4, 4, 4, 4))"
    assert repr(ToDtype(minidl.float32, scale=True)) == "ToDtype(float32, scale=True)"
    assert [repr(t) for t in (ToTensor(), ToImage(), PILToTensor())] == ["ToTensor()", "ToImage()", "PILToTensor()"]
    assert repr(Resize(4, "bicubic")) == "Resize(size=4, interpolation=bicubic)" and transforms.Resize is Resize
