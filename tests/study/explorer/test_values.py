"""Arrays go into a page and come out to the bit; what is left out, and what stands for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from minidl.study.explorer.values import Values, as_text, blocks, deflate, from_text, inflate, largest_terms

FLOATS = arrays.arrays(np.float32, st.integers(0, 70), elements=st.floats(width=32))


@given(FLOATS)
def test_an_array_comes_back_to_the_bit(flat):
    text = as_text(deflate(flat))
    assert "<" not in text and text.isascii()
    np.testing.assert_array_equal(inflate(from_text(text), flat.size).view("u4"), flat.view("u4"))


def test_zeros_take_a_bit():
    some = np.zeros(80_000, np.float32)
    some[::1000] = np.random.default_rng(0).normal(size=80)
    assert len(deflate(some)) < 80 * 4 + 500


def test_the_same_numbers_are_one_array_in_any_shape_and_layout():
    x, values = np.arange(12.0).reshape(3, 4), Values()
    assert values.add(x) == values.add(x.reshape(2, 6)) == values.add(np.asfortranarray(x)) == values.add(x.astype("f4")) == 0
    assert values.add(x + 1) == 1 and values.add(x[:, :3]) == 2
    assert values.add(np.zeros(3)) != values.add(np.zeros(4))


def test_what_has_a_recipe_is_not_stored():
    values = Values()
    values.add(np.arange(5.0), {"how": "forward", "op": 3})
    assert values.packed() == ([{"how": "forward", "op": 3}], [])
    full = Values(full=True)
    full.add(np.arange(5.0), {"how": "forward", "op": 3})
    full.add(np.arange(6.0), {"how": "sums", "op": 3, "input": 1, "worst": 0.1})
    recipes, texts = full.packed()
    assert [recipe["how"] for recipe in recipes] == ["forward", "stored"] and len(texts) == 1


def test_sums_are_of_the_parts_in_order():
    a, b, c = (np.random.default_rng(i).normal(size=50).astype("f4") for i in range(3))
    values = Values()
    parts = [values.add(x) for x in (a, b, c)]
    assert values.is_sum((a + b) + c, parts)
    assert not values.is_sum(a + (b + c), parts) and not values.is_sum(a + b, parts)


def test_the_expendable_goes_first_and_then_the_largest():
    random = np.random.default_rng(0)
    small, large, term = (random.normal(size=n).astype("f4") for n in (500, 5000, 200))
    values = Values()
    for array, expendable in ((small, 0), (large, 0), (term, 2)):
        values.add(array, expendable=expendable)
    everything = sum(len(text) for text in values.packed()[1])

    def left_out(most):
        values = Values()
        for array, expendable in ((small, 0), (large, 0), (term, 2)):
            values.add(array, expendable=expendable)
        recipes, texts = values.packed(most)
        assert sum(map(len, texts)) <= most
        return [recipe["how"] == "left out" for recipe in recipes]

    assert left_out(everything) == [False, False, False]
    assert left_out(everything - 1) == [False, False, True]
    assert left_out(everything - 2000) == [False, True, True]
    assert left_out(0) == [True, True, True]


def test_full_leaves_nothing_out():
    values = Values(full=True)
    values.add(np.random.default_rng(0).normal(size=5000))
    assert values.packed(0)[0][0]["how"] == "stored"


def test_too_large_an_array_does_not_come_along():
    values = Values()
    assert values.add(np.zeros(1 << 20, "f4")) == 0 and values.add(np.zeros((1 << 20) + 1, "f4")) == 1
    assert [recipe["how"] for recipe in values.packed()[0]] == ["stored", "left out"]


@pytest.mark.parametrize(("rows", "n", "kept"), [(7, 40, 5), (3, 4, 9), (1, 1, 1)])
def test_the_largest_terms_and_the_rest_are_the_product(rows, n, kept):
    random = np.random.default_rng(1)
    matrix, vector = random.normal(size=(rows, n)).astype("f4"), random.normal(size=n).astype("f4")
    found = largest_terms(matrix, vector, kept)
    terms = matrix.astype("f8") * vector
    wanted = -np.sort(-np.abs(terms), axis=1)[:, :kept]
    shown = found.factors.astype("f8") * vector[found.places]
    np.testing.assert_allclose(np.abs(shown), wanted, rtol=1e-6)
    np.testing.assert_array_equal(found.factors, np.take_along_axis(matrix, found.places, 1))
    np.testing.assert_allclose(shown.sum(axis=1) + found.rest, terms.sum(axis=1), rtol=0, atol=1e-12)


def test_blocks_are_root_mean_squares():
    matrix = np.random.default_rng(2).normal(size=(130, 65))
    found = blocks(matrix)
    assert found.shape == (64, 64)
    top, left = [int(i) for i in np.linspace(0, 130, 65)[[3, 4]]], [int(i) for i in np.linspace(0, 65, 65)[[7, 8]]]
    assert found[3, 7] == pytest.approx(np.sqrt((matrix[slice(*top), slice(*left)] ** 2).mean()), rel=1e-3)
    np.testing.assert_allclose(blocks(np.array([[3.0, -4.0]])), [[3, 4]])
