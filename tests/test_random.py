"""The counter-based generator: pinned numbers, independence of draws, distributions, state, errors."""

import math
import sys

import numpy as np
import pytest

import minidl
from minidl import random
from minidl.random import Draw, Generator, default_generator, manual_seed, words_below

BIG = 2**64 - 1

# the first three words of the first two draws; they must never change, as checkpoints and saved runs rely on them
WORDS = {
    (0,): ([149215387, 49592932, 2628306354], [4162560622, 909929812, 1038135326]),
    (1,): ([1969390303, 1303814779, 3133017647], [495721484, 1538089997, 1900127146]),
    (7, 1, 2, 3): ([3034174488, 3937724837, 1421489534], [1764461860, 1198984906, 2954393513]),
    (2**63, 7): ([1940965442, 2020595698, 691873905], [1784675242, 2516105184, 2657977482]),
    (2**63 + 1, 7): ([1032931740, 2895733180, 526982526], [1839531118, 3190583916, 3960623713]),
    (BIG, BIG, BIG, BIG): ([2466013890, 1711053997, 2831219319], [1458058355, 1054954150, 14083880]),
}


@pytest.mark.parametrize("key", WORDS)
def test_pinned_words(key):
    g = Generator(*key)
    assert [g.words(3).tolist(), g.words(3).tolist()] == list(WORDS[key])


def philox4x64(counter, key):
    """Ten rounds in plain Python: an independent writing of the 2011 paper's function. Four 64-bit words."""
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = c[0] * 0xD2E7470EE14C6C93, c[2] * 0xCA5A826395121157
        c = [second >> 64 ^ c[1] ^ k[0], second & BIG, first >> 64 ^ c[3] ^ k[1], first & BIG]
        k = [(k[0] + 0x9E3779B97F4A7C15) & BIG, (k[1] + 0xBB67AE8584CAA73B) & BIG]
    return c


@pytest.mark.parametrize("key", WORDS)
def test_words_are_philox_of_the_documented_key_and_counter(key):
    seed, a, b, c = (*key, 0, 0, 0)[:4]
    g = Generator(*key)
    for draw in range(3):
        expected = []
        for block in (1, 2):
            for word in philox4x64((block, draw, b, c), (seed, a)):
                expected += [word & 0xFFFFFFFF, word >> 32]
        assert g.words(13).tolist() == expected[:13]


def test_words_of_fewer_are_a_prefix_of_words_of_more():
    many = Generator(3, 4).words(1001)
    assert many.dtype == np.uint32
    for n in (0, 1, 2, 7, 8, 9, 1000):
        assert np.array_equal(Generator(3, 4).words(n), many[:n])


def test_a_draw_does_not_depend_on_how_much_others_drew():
    a, b = Generator(5), Generator(5)
    a.words(1)
    b.normal((100, 3))
    assert np.array_equal(a.words(20), b.words(20))


def test_every_call_is_one_draw():
    g = Generator(0)
    for i, call in enumerate(
        (lambda: g.words(0), lambda: g.uniform(3), lambda: g.normal(3), lambda: g.integers(0, 5, 3), lambda: g.permutation(9))
    ):
        assert g.draws == i
        call()
    g.bernoulli(0.5, 3)
    assert g.draws == 6


@pytest.mark.parametrize("key", WORDS)
def test_a_draw_can_be_made_later_and_more_than_once(key):
    g, other = Generator(*key), Generator(*key)
    first, second = g.next_draw(), g.next_draw()
    assert g.draws == 2 and first != second
    assert first == Draw(key[0], (*key[1:], 0, 0, 0)[:3], 0)
    expected = [other.words(13).tolist() for _ in range(2)]
    for _ in range(2):
        assert [draw.words(13).tolist() for draw in (first, second)] == expected
    assert g.words(13).tolist() == other.words(13).tolist()


def test_a_draws_mask_is_the_generators():
    g, other = Generator(3, 1), Generator(3, 1)
    for p in (0.0, 0.3, 1.0):
        mask = g.next_draw().bernoulli(p, (4, 5))
        assert mask.dtype == bool and np.array_equal(mask, other.bernoulli(p, (4, 5)))


@pytest.mark.parametrize(
    "p, words", [(0.0, 0), (1.0, 2**32), (0.5, 2**31), (2.0**-33, 0), (2.0**-32, 1), (1 - 2.0**-32, 2**32 - 1)]
)
def test_a_share_of_all_words(p, words):
    assert words_below(p) == words


def test_streams_of_different_seeds_and_ids_differ():
    keys = [(0,), (1,), (0, 1), (0, 0, 1), (0, 0, 0, 1), (2**63,), (2**63 + 1,), (BIG,), (BIG - 1,)]
    firsts = {tuple(Generator(*key).words(4).tolist()) for key in keys}
    assert len(firsts) == len(keys)
    assert Generator(4).words(2).tolist() == Generator(4, 0, 0, 0).words(2).tolist()


def test_neighbouring_seeds_and_draws_are_uncorrelated():
    n = 20_000
    rows = [Generator(s).uniform(n, np.float64) for s in range(4)]
    g = Generator(0)
    rows += [g.uniform(n, np.float64) for _ in range(4)][1:]
    correlations = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
    assert np.abs(correlations).max() < 5 / math.sqrt(n)  # each is normal with deviation 1 / sqrt(n): five of them


# --------------------------------------------------------------------------------------------------------- distributions


def test_uniform_is_a_multiple_of_two_to_the_minus_24_below_one():
    u = Generator(1).uniform(100_000, np.float64)
    assert u.min() >= 0 and u.max() <= 1 - 2.0**-24
    assert np.array_equal(u * 2**24, np.floor(u * 2**24))


def test_the_largest_and_smallest_words_give_the_ends(monkeypatch):
    words = np.array([0, 2**32 - 1, 0, 2**32 - 1, 2**32 - 1, 2**31], np.uint32)
    monkeypatch.setattr(Generator, "words", lambda self, n: words[:n])
    g = Generator(0)
    assert g.uniform(2).tolist() == [0.0, 1 - 2.0**-24]
    assert g.integers(-3, 2**31 - 4, 2).tolist() == [-3, 2**31 - 5]
    assert g.integers(5, 6, 2).tolist() == [5, 5]
    assert g.bernoulli(0.0, 2).tolist() == [False, False] and g.bernoulli(1.0, 2).tolist() == [True, True]
    normals = g.normal(6, np.float64)
    assert np.isfinite(normals).all()  # u is never 0
    assert normals[0] == pytest.approx(math.sqrt(64 * math.log(2)))  # u = 2^-32, angle 2 pi (1 - 2^-32)
    assert abs(normals[4]) < 1e-7  # u = 1


def test_normals_are_the_same_with_any_number_of_threads():
    """Numbers that are made in blocks, on threads, and the first of them as a small draw makes them."""
    n, before = 2 * 65536 * 3 + 5, minidl.get_num_threads()
    seen = set()
    try:
        for threads in (1, 2, 3):
            minidl.set_num_threads(threads)
            seen.add(Generator(7).normal(n).tobytes())
    finally:
        minidl.set_num_threads(before)
    assert len(seen) == 1 and Generator(7).normal(1000).tobytes() == seen.pop()[:4000]


@pytest.mark.parametrize("method", ["uniform", "normal"])
def test_float32_numbers_are_the_float64_ones_rounded(method):
    single = getattr(Generator(8), method)((50, 3))
    double = getattr(Generator(8), method)((50, 3), np.float64)
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    assert np.array_equal(single, double.astype(np.float32))
    if method == "uniform":
        assert np.array_equal(single, double)  # 24 bits fit in a float32


@pytest.mark.parametrize("dtype", ["float64", np.dtype("float64"), np.float64])
def test_any_name_of_a_dtype_will_do(dtype):
    assert Generator(0).uniform(3, dtype).dtype == Generator(0).normal(3, dtype).dtype == np.float64


def chi_squared(counts, expected):
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("seed", range(3))
def test_uniform_fills_its_range_evenly(seed):
    n, bins = 200_000, 100
    counts = np.bincount((Generator(seed).uniform(n, np.float64) * bins).astype(int), minlength=bins)
    # chi squared with 99 degrees of freedom: mean 99, deviation sqrt(2 * 99) = 14; five of them each way
    assert 99 - 5 * 14 < chi_squared(counts, n / bins) < 99 + 5 * 14


@pytest.mark.parametrize("seed", range(3))
def test_normal_has_the_normal_distributions_moments_and_quantiles(seed):
    n = 200_000
    z = Generator(seed).normal(n, np.float64)
    # standard errors of the first four moments: sqrt(1, 2, 15, 96) / sqrt(n); five of them
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 5 * math.sqrt(variance / n)
    edges = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0]
    inside = [math.erf(e / math.sqrt(2)) for e in edges] + [1.0]
    counts = np.histogram(np.abs(z), [*edges, np.inf])[0]
    assert chi_squared(counts, n * np.diff(inside)) < 5 + 5 * math.sqrt(2 * 5)  # 5 degrees of freedom
    assert abs(np.corrcoef(z[::2], z[1::2])[0, 1]) < 5 / math.sqrt(n / 2)  # the two of a pair


def test_normal_of_many_does_not_depend_on_the_block_size(monkeypatch):
    whole = Generator(2).normal(1001)
    monkeypatch.setattr("minidl.random._NORMALS_AT_ONCE", 7)
    assert np.array_equal(Generator(2).normal(1001), whole)


def test_integers_cover_their_range_evenly():
    n, low, high = 100_000, -3, 10
    values = Generator(6).integers(low, high, n)
    assert values.dtype == np.int64 and values.min() == low and values.max() == high - 1
    counts = np.bincount(values - low)
    assert chi_squared(counts, n / 13) < 12 + 5 * math.sqrt(2 * 12)  # 12 degrees of freedom


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_bernoulli_is_true_with_its_probability(p):
    n = 100_000
    draws = Generator(9).bernoulli(p, (n,))
    assert draws.dtype == bool
    assert abs(draws.mean() - p) < 5 * math.sqrt(p * (1 - p) / n)


def test_permutation_holds_each_number_once_and_moves_all_of_them():
    order = Generator(4).permutation(1000)
    assert order.dtype == np.int64 and sorted(order.tolist()) == list(range(1000))
    assert (order == np.arange(1000)).sum() < 10  # one fixed point on average, Poisson: ten have probability 1e-7
    assert Generator(4).permutation(0).tolist() == [] and Generator(4).permutation(1).tolist() == [0]


def test_permutations_of_three_are_equally_likely():
    g, n = Generator(4), 6000
    ranks = [int("".join(map(str, g.permutation(3))), 3) for _ in range(n)]
    counts = np.unique(ranks, return_counts=True)[1]
    assert len(counts) == 6 and chi_squared(counts, n / 6) < 5 + 5 * math.sqrt(2 * 5)


@pytest.mark.parametrize("shape, expected", [((), ()), (4, (4,)), ((2, 3), (2, 3)), ([2, 3], (2, 3)), ((0, 3), (0, 3))])
def test_shapes(shape, expected):
    g = Generator(0)
    for made in (g.uniform(shape), g.normal(shape), g.integers(0, 3, shape), g.bernoulli(0.5, shape)):
        assert np.shape(made) == expected


# ----------------------------------------------------------------------------------------------------- state and errors


def test_state_round_trip_through_json():
    import json

    g = Generator(2**63 + 5)
    g.words(3)
    state = json.loads(json.dumps(g.state()))
    assert state == {"seed": 2**63 + 5, "draws": 1}
    expected = [g.words(5).tolist() for _ in range(2)]
    other = Generator(1)
    other.set_state(state)
    assert [other.words(5).tolist() for _ in range(2)] == expected


def test_manual_seed_restarts_the_default_generator():
    assert manual_seed(11) is default_generator is minidl.manual_seed(11)
    first = minidl.randn(3).numpy()
    assert np.array_equal(first, Generator(11).normal(3))
    minidl.manual_seed(11)
    assert np.array_equal(minidl.randn(3).numpy(), first)


@pytest.mark.parametrize("args, name", [((-1,), "seed"), ((2**64,), "seed"), ((0, -1), "ids[0]"), ((0, 1, 2, 2**64), "ids[2]")])
def test_seeds_and_ids_out_of_range(args, name):
    value = next(v for v in args if not 0 <= v < 2**64)
    with pytest.raises(ValueError) as error:
        Generator(*args)
    assert str(error.value) == f"Generator: {name} must be in [0, 2**64), got {value}"


def test_too_many_ids():
    with pytest.raises(ValueError) as error:
        Generator(0, 1, 2, 3, 4)
    assert str(error.value) == "Generator: takes at most 3 ids, got 4 ((1, 2, 3, 4))"


@pytest.mark.parametrize("low, high", [(0, 0), (3, 2), (0, 2**31), (-5, 2**31)])
def test_integers_of_an_empty_or_too_long_range(low, high):
    with pytest.raises(ValueError) as error:
        Generator(0).integers(low, high)
    assert str(error.value) == f"integers: high - low must be in [1, 2**31), got low {low}, high {high}"


def test_manual_seed_out_of_range_leaves_the_generator_alone():
    minidl.manual_seed(3)
    with pytest.raises(ValueError, match="seed must be in"):
        minidl.manual_seed(-3)
    assert default_generator.state() == {"seed": 3, "draws": 0}


@pytest.mark.parametrize("first", [0, 1, 7, 8, 9, 100, 333])
def test_words_from_any_place_on(first):
    draw = Generator(3).next_draw()
    np.testing.assert_array_equal(draw.words(50, first), draw.words(400)[first : first + 50])


@pytest.mark.parametrize("row", [(), (5,), (300,), (7, 60)])
@pytest.mark.parametrize("places", [range(1, sys.maxsize, 3), [0, 4, 5, 9], range(4, sys.maxsize)])
def test_a_part_of_a_batch_has_its_rows_of_the_mask(row, places):
    rows = list(places[:4])
    whole = Generator(3).next_draw().bernoulli(0.4, (12, *row))
    with random.standing_in(Generator(3)), random.placed(places):
        assert random.places() is places
        part = random.next_mask().bernoulli(0.4, (4, *row))
        assert random.next_mask().bernoulli(0.4, (0, *row)).shape == (0, *row)
    assert random.places() is None
    np.testing.assert_array_equal(part, whole[rows])


def test_every_row_needs_its_place():
    with random.placed([0, 1]), pytest.raises(ValueError, match=r"placed: every row of a batch needs its place, got 2 places"):
        random.next_mask().bernoulli(0.5, (3, 4))
