import sys
from types import ModuleType

import numpy as np
import pytest

from minidl.data.color_sums import ColorSums, color_statistics
from minidl.data.images import is_picture
from minidl.data.transforms import (
    CROP,
    FLIP,
    IMAGENET_COMPONENTS,
    IMAGENET_STDEVS,
    NOISE,
    ORDER,
    CenterCrop,
    Compose,
    Normalize,
    PCAColorNoise,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
    SampleKey,
    SubtractMean,
    TenCrop,
)

KEY = SampleKey(seed=1, epoch=2, index=3, position=4)


def keys(n, **fixed):
    return [SampleKey(**{"seed": 0, "epoch": 0, "index": i, "position": i, **fixed}) for i in range(n)]


def numbered(height, width):
    """An (H, W, 3) uint8 image whose pixel (y, x) is (y, x, 7): a crop shows where it was taken."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, np.full_like(y, 7)], axis=-1).astype(np.uint8)


# ---- keys


def test_a_key_gives_the_same_draw_again_and_every_part_of_it_counts():
    def draw(key, purpose=CROP, **options):
        return key.generator(purpose, **options).words(2).tolist()

    assert draw(KEY) == draw(SampleKey(1, 2, 3, 4))
    assert draw(KEY) == draw(SampleKey(1, 2, 3, 99))  # the position does not count ...
    assert draw(KEY, shared_by=4) == draw(SampleKey(1, 2, 77, 7), shared_by=4)  # ... unless it is shared
    others = [SampleKey(9, 2, 3, 4), SampleKey(1, 9, 3, 4), SampleKey(1, 2, 9, 4)]
    assert all(draw(other) != draw(KEY) for other in others)
    assert draw(KEY, shared_by=4) != draw(SampleKey(1, 2, 3, 8), shared_by=4)


def test_purposes_are_distinct():
    assert len({ORDER, CROP, FLIP, NOISE}) == 4


# ---- geometry


def test_resize_sets_the_shorter_side_and_keeps_the_ratio():
    pytest.importorskip("PIL")
    assert Resize(8)(numbered(16, 35), KEY).shape == (8, 17, 3)
    assert Resize(32)(numbered(35, 16), KEY).shape == (70, 32, 3)
    assert Resize((5, 9))(numbered(16, 35), KEY).shape == (5, 9, 3)
    image = numbered(8, 11)
    assert Resize(8)(image, KEY) is Resize((8, 11))(image, KEY) is image
    assert Resize((8, 8))(image, KEY).shape == (8, 8, 3)


def test_resize_down_weighs_every_pixel_and_up_is_bicubic():
    Image = pytest.importorskip("PIL.Image")
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    inner = Resize(16)(stripes, KEY)[:, 1:-1]  # at the border the filter is cut off
    assert abs(inner.astype(int) - 100).max() <= 2  # sampling without a filter would give 0 or 200; 2 for rounding twice
    picture = np.random.default_rng(0).integers(0, 256, (5, 5, 3), np.uint8)
    bicubic = Image.fromarray(picture).resize((10, 10), Image.Resampling.BICUBIC)
    assert np.array_equal(Resize(10)(picture, KEY), np.asarray(bicubic))
    wider = Image.fromarray(picture).resize((9, 4), Image.Resampling.BILINEAR)  # the shorter side shrinks
    assert np.array_equal(Resize((4, 9))(picture, KEY), np.asarray(wider))


def test_center_crop_rounds_towards_the_top_left():
    crop = CenterCrop(4)(numbered(9, 10), KEY)
    assert crop.shape == (4, 4, 3) and crop[0, 0].tolist() == [2, 3, 7]
    assert CenterCrop(224)(numbered(256, 256), KEY)[0, 0, 0] == 16
    crop = CenterCrop((4, 7))(numbered(9, 10), KEY)
    assert crop.shape == (4, 7, 3) and crop[0, 0].tolist() == [2, 1, 7]


def test_random_crop_takes_every_place_equally_often():
    # 5 x 3 places, 3000 draws, 200 each on average. Chi-square with 14 degrees of freedom stays below 40 with p = 0.9997.
    image = numbered(8, 6)
    counts = np.zeros((5, 3))
    for key in keys(3000):
        crop = RandomCrop(4)(image, key)
        assert crop.shape == (4, 4, 3)
        counts[crop[0, 0, 0], crop[0, 0, 1]] += 1
    assert ((counts - 200.0) ** 2 / 200.0).sum() < 40.0


def test_crops_and_flips_of_256_to_224_make_2178_variants():
    # 20,000 draws leave each of 33 * 33 * 2 variants out with probability exp(-9.2), 0.2 of them on average.
    seen = set()
    image = numbered(256, 256)
    for key in keys(20000):
        crop = RandomCrop(224)(image, key)
        mirrored = RandomHorizontalFlip()(crop[:1, :2], key)[0, 0, 1] != crop[0, 0, 1]
        seen.add((crop[0, 0, 0], crop[0, 0, 1], mirrored))
    assert 2170 <= len(seen) <= 2178
    assert {y for y, _, _ in seen} == set(range(33)) == {x for _, x, _ in seen}


def test_shared_crops_and_flips_change_every_n_images():
    image = numbered(60, 60)
    transform = Compose([RandomCrop(20, shared_by=32), RandomHorizontalFlip(shared_by=32)])
    views = [transform(image, key) for key in keys(320)]
    for group in range(10):
        assert all(np.array_equal(views[32 * group], view) for view in views[32 * group : 32 * group + 32])
    assert len({views[32 * group].tobytes() for group in range(10)}) >= 9  # 3362 variants: two of ten alike with p = 0.013


def test_flip_mirrors_left_and_right_with_probability_p():
    image = numbered(3, 5)
    assert np.array_equal(RandomHorizontalFlip(1.0)(image, KEY), image[:, ::-1])
    assert np.array_equal(RandomHorizontalFlip(0.0)(image, KEY), image)
    flips = [RandomHorizontalFlip(0.25)(image, key)[0, 0, 1] == 4 for key in keys(2000)]
    assert abs(np.mean(flips) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 2000)  # four standard errors


def test_crops_may_have_two_sides():
    image = numbered(9, 12)
    tops, lefts = set(), set()
    for key in keys(200):
        crop = RandomCrop((8, 10))(image, key)
        assert crop.shape == (8, 10, 3)
        tops.add(crop[0, 0, 0])
        lefts.add(crop[0, 0, 1])
    assert tops == {0, 1} and lefts == {0, 1, 2}
    views = TenCrop((8, 10))(image, KEY)
    assert views.shape == (10, 8, 10, 3)
    assert views[:5, 0, 0, :2].tolist() == [[0, 0], [0, 2], [1, 0], [1, 2], [0, 1]]


def test_the_draws_can_be_asked_for():
    image = numbered(20, 30)
    crop, flip, noise = RandomCrop((7, 9)), RandomHorizontalFlip(), PCAColorNoise(IMAGENET_STDEVS, IMAGENET_COMPONENTS)
    for key in keys(30):
        ((top, left, mirrored),) = crop.places(image.shape, key)
        assert crop(image, key)[0, 0].tolist() == [top, left, 7] and not mirrored
        assert flip.mirrored(key) == (flip(image, key)[0, 0, 1] == 29)
        color = noise.color(key)
        assert color.shape == (3,) and color.dtype == np.float32
        assert np.array_equal(noise(np.zeros((1, 1, 3), np.float32), key)[0, 0], color)
    assert CenterCrop(4).places((9, 10), KEY) == [(2, 3, False)]
    assert [place.mirrored for place in TenCrop(4).places((9, 10, 3), KEY)] == [False] * 5 + [True] * 5


def test_ten_views_are_corners_centre_and_then_their_mirrors():
    image = numbered(10, 12)
    views = TenCrop(4)(image, KEY)
    assert views.shape == (10, 4, 4, 3)
    assert views[:5, 0, 0, :2].tolist() == [[0, 0], [0, 8], [6, 0], [6, 8], [3, 4]]
    assert np.array_equal(views[5:], views[:5, :, ::-1])


# ---- values


def test_the_centre_of_the_mean_image_is_subtracted_wherever_the_crop_was():
    mean = np.random.default_rng(0).uniform(0, 255, (10, 12, 3))
    image = numbered(10, 12)
    crop = image[1:5, 2:6]
    result = SubtractMean(mean)(crop, KEY)
    assert result.dtype == np.float32
    assert np.array_equal(result, crop - mean[3:7, 4:8].astype(np.float32))
    views = SubtractMean(mean)(TenCrop(4)(image, KEY), KEY)
    assert views.shape == (10, 4, 4, 3)
    assert np.array_equal(views[7], TenCrop(4)(image, KEY)[7] - mean[3:7, 4:8].astype(np.float32))


def test_caffes_mean_is_subtracted_before_the_crop():
    # It is the mean of the pixel that is seen: at (i, j) of a mirrored crop, that of (top + i, left + width - 1 - j).
    mean = np.random.default_rng(0).uniform(0, 255, (10, 12, 3)).astype(np.float32)
    image, crop, flip = numbered(10, 12), RandomCrop((6, 5)), RandomHorizontalFlip()
    mirrored = 0
    for key in keys(20):
        result = Compose([SubtractMean(mean), crop, flip])(image, key)
        ((top, left, _),), mirror = crop.places(image.shape, key), flip.mirrored(key)
        for i, j in np.ndindex(6, 5):
            source = top + i, left + (4 - j if mirror else j)
            assert np.array_equal(result[i, j], image[source] - mean[source])
        mirrored += mirror
    assert 0 < mirrored < 20


def test_noise_adds_one_triple_to_all_pixels_then_divides():
    image = np.random.default_rng(0).uniform(-100, 100, (6, 5, 3)).astype(np.float32)
    plain = PCAColorNoise(IMAGENET_STDEVS, IMAGENET_COMPONENTS)(image, KEY)
    triple = plain[0, 0] - image[0, 0]
    assert plain.dtype == np.float32
    # One rounding of numbers below 256: 2^-17 each, in the sum and in the difference.
    assert abs((plain - image) - triple).max() < 4 * 2.0**-17
    z = KEY.generator(NOISE).normal(3, np.float64)
    expected = sum(0.1 * z[i] * IMAGENET_STDEVS[i] * IMAGENET_COMPONENTS[:, i] for i in range(3))
    assert abs(triple - expected).max() < 1e-4
    divided = PCAColorNoise(IMAGENET_STDEVS, IMAGENET_COMPONENTS, divide=1.1)(image, KEY)
    assert np.array_equal(divided, plain / np.float32(1.1))
    off = PCAColorNoise(IMAGENET_STDEVS, IMAGENET_COMPONENTS, scale=0.0)(image, KEY)
    assert np.array_equal(off, image)


def test_noise_has_the_published_deviations():
    # The deviation of channel c is 0.1 sqrt(sum_i (sigma_i p_ci)^2): 7.40, 7.20, 7.70. Measured on n normals it has a standard
    # error of s / sqrt(2 n) = 0.5 % = 0.04; four of them are less than the 0.2 between the channels.
    n = 20000
    noise = PCAColorNoise(IMAGENET_STDEVS, IMAGENET_COMPONENTS)
    black = np.zeros((1, 1, 3), np.float32)
    triples = np.array([noise(black, key)[0, 0] for key in keys(n)], np.float64)
    published = np.array([7.40, 7.20, 7.70])
    assert (abs(triples.std(axis=0) - published) < 4 * published / np.sqrt(2 * n)).all()
    assert (abs(triples.mean(axis=0)) < 4 * published / np.sqrt(n)).all()
    exact = 0.1 * np.sqrt(((IMAGENET_STDEVS * IMAGENET_COMPONENTS) ** 2).sum(axis=1))
    assert np.array_equal(exact.round(2), published)
    # The columns are unit vectors at right angles, to the eight digits published.
    assert abs(IMAGENET_COMPONENTS.T @ IMAGENET_COMPONENTS - np.eye(3)).max() < 1e-7


def test_noise_of_an_image_is_drawn_anew_each_epoch():
    noise = PCAColorNoise(IMAGENET_STDEVS, IMAGENET_COMPONENTS)
    black = np.zeros((1, 1, 3), np.uint8)
    assert not np.array_equal(noise(black, SampleKey(0, 0, 5, 0)), noise(black, SampleKey(0, 1, 5, 0)))


def test_normalize_works_on_each_channel():
    image = np.full((10, 2, 2, 3), [10, 20, 30], np.uint8)
    result = Normalize([10, 10, 10], [1, 2, 4])(image, KEY)
    assert result.dtype == np.float32 and result.shape == image.shape
    assert np.array_equal(result, np.broadcast_to(np.float32([0, 5, 5]), image.shape))


def test_compose_applies_in_order_and_hands_on_the_key():
    calls = []

    def note(name):
        return lambda image, key: calls.append((name, key)) or image + 1

    assert Compose([note("a"), note("b")])(np.zeros(1), KEY) == 2
    assert calls == [("a", KEY), ("b", KEY)]


def test_transforms_in_words():
    pipeline = Compose([Resize(256), Resize((8, 9)), CenterCrop(256), RandomCrop((224, 227)), RandomHorizontalFlip(0.25)])
    assert repr(pipeline) == (
        "Compose(\n    Resize(size=256)\n    Resize(size=(8, 9))\n    CenterCrop(size=(256, 256))\n"
        "    RandomCrop(size=(224, 227))\n    RandomHorizontalFlip(p=0.25)\n)"
    )
    assert repr(RandomCrop(224, shared_by=32)) == "RandomCrop(size=(224, 224), shared_by=32)"
    assert repr(RandomHorizontalFlip(shared_by=32)) == "RandomHorizontalFlip(p=0.5, shared_by=32)"
    assert repr(TenCrop(224)) == "TenCrop(size=(224, 224))"
    assert repr(SubtractMean(np.zeros((4, 5, 3)))) == "SubtractMean(mean=(4, 5, 3))"
    assert repr(PCAColorNoise(np.ones(3), np.eye(3), 0.2, 1.1)) == "PCAColorNoise(scale=0.2, divide=1.1)"
    assert repr(Normalize([1, 2, 3], [4, 5, 6])) == "Normalize(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0])"


def test_transforms_leave_their_input_alone():
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    floats = image.astype(np.float32)
    for start in (image, floats):
        before = start.copy()
        for transform in (
            RandomCrop(12),
            RandomHorizontalFlip(1.0),
            SubtractMean(floats),
            PCAColorNoise(IMAGENET_STDEVS, IMAGENET_COMPONENTS, divide=1.1),
            Normalize([1, 2, 3], [4, 5, 6]),
        ):
            transform(start, KEY)
            assert np.array_equal(start, before)


# ---- statistics


def test_colour_statistics_agree_with_numpy():
    images = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), np.uint8)
    images[..., 1] = images[..., 0] // 2 + images[..., 1] // 3
    mean, stdevs, components = color_statistics(iter(images))
    assert mean.dtype == np.float32 and np.array_equal(mean, (images.astype(np.float64).sum(axis=0) / 7).astype(np.float32))
    assert (np.diff(stdevs) > 0).all()
    covariance = np.cov(images.reshape(-1, 3).T, bias=True)
    # float64 sums: about 1e-16 times the second moment (2e4) over the smallest gap; 1e-9 leaves room.
    assert abs(components * stdevs**2 @ components.T - covariance).max() < 1e-9
    backwards = color_statistics(images[::-1])
    assert np.array_equal(backwards.components, components) and np.array_equal(backwards.stdevs, stdevs)


def test_the_sign_of_a_component_is_fixed():
    for seed in range(10):
        components = color_statistics(np.random.default_rng(seed).integers(0, 256, (2, 4, 4, 3), np.uint8)).components
        assert all(column[abs(column).argmax()] > 0 for column in components.T)


def test_colour_statistics_of_one_colour_are_flat():
    mean, stdevs, _ = color_statistics([np.full((2, 2, 3), 9, np.uint8)] * 3)
    assert (mean == 9).all() and (stdevs < 1e-5).all()  # sqrt of a rounding error of 81 * 1e-16


# ---- errors


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Resize(0), "Resize: size must be at least 1, got 0"),
        (lambda: CenterCrop(-1), "CenterCrop: size must be at least 1, got -1"),
        (lambda: TenCrop(0), "TenCrop: size must be at least 1, got 0"),
        (lambda: RandomCrop(0), "RandomCrop: size must be at least 1, got 0"),
        (lambda: RandomCrop((3, 0)), "RandomCrop: size must be at least 1, got 0"),
        (lambda: RandomCrop(1, shared_by=0), "RandomCrop: shared_by must be at least 1, got 0"),
        (lambda: RandomHorizontalFlip(1.5), r"RandomHorizontalFlip: p must be in \[0, 1\], got 1.5"),
        (lambda: RandomHorizontalFlip(shared_by=0), "RandomHorizontalFlip: shared_by must be at least 1, got 0"),
        (lambda: SubtractMean(np.zeros(3)), r"SubtractMean: mean must be \(H, W, C\), got \(3,\)"),
        (lambda: PCAColorNoise(np.ones(2), np.eye(3)), r"stdevs must be \(3,\) and components \(3, 3\), got \(2,\) and"),
        (lambda: PCAColorNoise(np.ones(3), np.eye(3), divide=0.0), "PCAColorNoise: divide must not be 0, got 0.0"),
        (lambda: Normalize([0, 0, 0], [1, 0, 1]), r"Normalize: std must be above 0 in every channel, got \[1, 0, 1\]"),
        (lambda: color_statistics([]), "color_statistics: takes at least 1 image, got 0"),
        (
            lambda: color_statistics([numbered(2, 3), numbered(3, 2)]),
            r"color_statistics: images must have one size, got \(2, 3, 3\) and \(3, 2, 3\)",
        ),
        (
            lambda: color_statistics([np.zeros((2, 2, 3))]),
            r"color_statistics: takes \(H, W, 3\) uint8 images, got \(2, 2, 3\) float64",
        ),
    ],
)
def test_a_bad_argument_is_named(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (CenterCrop(5), "CenterCrop: size must be at most the image's sides 4 x 9, got 5 x 5$"),
        (CenterCrop((4, 10)), "CenterCrop: size must be at most the image's sides 4 x 9, got 4 x 10$"),
        (RandomCrop(5), "RandomCrop: size must be at most the image's sides 4 x 9, got 5 x 5$"),
        (RandomCrop((4, 10)), "RandomCrop: size must be at most the image's sides 4 x 9, got 4 x 10$"),
        (TenCrop(5), "TenCrop: size must be at most the image's sides 4 x 9, got 5 x 5$"),
        (TenCrop((4, 10)), "TenCrop: size must be at most the image's sides 4 x 9, got 4 x 10$"),
        (
            SubtractMean(np.zeros((4, 8, 3))),
            r"SubtractMean: image must fit into the mean image \(4, 8, 3\), got \(4, 9, 3\)",
        ),
    ],
)
def test_an_image_that_does_not_fit_is_refused(transform, text):
    with pytest.raises(ValueError, match=text):
        transform(numbered(4, 9), KEY)


def test_resize_takes_bytes_only():
    pytest.importorskip("PIL")
    with pytest.raises(ValueError, match=r"Resize: takes \(H, W, 3\) uint8 images, got \(4, 4, 3\) float32"):
        Resize(2)(np.zeros((4, 4, 3), np.float32), KEY)


@pytest.mark.parametrize("size", [2.5, (1, 2, 3), (4,), ("4", 4), None, True])
@pytest.mark.parametrize("transform", [Resize, CenterCrop, RandomCrop, TenCrop])
def test_a_size_is_an_int_or_two(transform, size):
    with pytest.raises(TypeError) as caught:
        transform(size)
    assert str(caught.value) == f"{transform.__name__}: size must be an int or (height, width), got {size!r}"


def test_sums_merge():
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)
    whole, even, odd = ColorSums(), ColorSums(), ColorSums()
    for i, image in enumerate(images):
        whole.add(image)
        (odd if i % 2 else even).add(image)
    odd.merge(even)
    odd.merge(ColorSums())
    assert odd.count == 5 and (odd.total == whole.total).all() and (odd.products == whole.products).all()


def test_a_thread_may_be_importing_pillow(monkeypatch):
    """The module is there before its classes are, and then nobody has a picture."""
    monkeypatch.setitem(sys.modules, "PIL.Image", ModuleType("PIL.Image"))
    assert not is_picture(np.zeros((2, 2, 3), np.uint8))
