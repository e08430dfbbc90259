"""The gallery's switch: a mistake is in effect inside the block, wherever the function is called from, and gone after it."""

import inspect
import linecache
import traceback

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import Tensor
from minidl.kernels import fastest
from minidl.ops.conv2d import conv2d_backward, conv2d_forward
from minidl.ops.dropout import dropout_backward
from minidl.ops.tanh import tanh_backward
from minidl.study.gallery import mutations
from minidl.study.gallery.mutations import GALLERY, Mutation, find, listing, mutation
from minidl.tensor import Function

X = np.array([0.5, -1.0])


def tanh_gradient():
    x = Tensor(X, requires_grad=True)
    x.tanh().backward(np.ones(2))
    return x.grad.data


# ---------------------------------------------------------------------------------------------------------- the switch


@pytest.mark.parametrize("each", GALLERY, ids=lambda each: each.name)
def test_every_mutation_replaces_its_line_and_is_undone(each):
    right, source = each.function.__code__, inspect.getsource(each.function)
    with mutation(each.name) as present:
        assert present is each
        shown = inspect.getsource(each.function)
        assert each.wrong in shown
        assert len(shown.splitlines()) == len(source.splitlines())
        assert each.function.__code__ is not right
        assert each.function.__code__.co_qualname == right.co_qualname
    assert each.function.__code__ is right
    assert inspect.getsource(each.function) == source
    assert not [name for name in linecache.cache if name.startswith("<mutation")]


def test_a_mistake_is_in_effect_inside_the_block_only():
    y = np.tanh(X)
    with mutation("tanh-not-squared"):
        np.testing.assert_allclose(tanh_gradient(), 1 - y, rtol=1e-15)
    np.testing.assert_allclose(tanh_gradient(), 1 - y * y, rtol=1e-15)


def test_it_is_undone_after_an_error():
    right = tanh_backward.__code__
    with pytest.raises(KeyError, match="stop"), mutation("tanh-not-squared"):
        raise KeyError("stop")
    assert tanh_backward.__code__ is right
    assert fastest(conv2d_forward, X) is not conv2d_forward
    with mutation("tanh-factor"):  # another one can be switched on
        np.testing.assert_allclose(tanh_gradient(), 1.001 * (1 - np.tanh(X) ** 2))


def test_whoever_calls_the_function_makes_the_mistake():
    """conv2d_relu imports conv2d_backward, and has a fast twin of its own."""
    rng = np.random.default_rng(0)
    x, w = (Tensor(rng.normal(size=s), requires_grad=True) for s in ((2, 3, 5, 5), (4, 3, 3, 3)))
    assert minidl.gradcheck(F.conv2d_relu, [x, w])
    with mutation("conv2d-kernel-flipped"), pytest.raises(minidl.GradcheckError, match="conv2d_relu: backward disagrees"):
        minidl.gradcheck(F.conv2d_relu, [x, w])


def test_plain_functions_run_inside_the_block():
    assert fastest(conv2d_backward, X) is not conv2d_backward
    with mutation("tanh-factor"):
        assert fastest(conv2d_backward, X) is conv2d_backward
    assert fastest(conv2d_backward, X) is not conv2d_backward
    with minidl.plain_kernels():
        with mutation("tanh-factor"):
            pass
        assert fastest(conv2d_backward, X) is conv2d_backward


def test_a_traceback_shows_the_wrong_line():
    with mutation("dropout-scale"), pytest.raises(TypeError) as error:
        dropout_backward(X, None, 2.0)
    with mutation("dropout-scale"):  # the lines are read when the text is made
        text = "".join(traceback.format_exception(error.value))
    assert '"<mutation dropout-scale>"' in text
    assert "return gy * mask\n" in text


def test_one_mistake_at_a_time():
    right = tanh_backward.__code__
    with mutation("tanh-factor"):
        wrong = tanh_backward.__code__
        for second in ("sigmoid-of-output", "tanh-factor"):
            with pytest.raises(RuntimeError) as error, mutation(second):
                pass
            assert str(error.value) == f"mutation: one mistake at a time, got {second} while tanh-factor is on"
        assert tanh_backward.__code__ is wrong
    assert tanh_backward.__code__ is right


def test_a_name_that_is_not_in_the_gallery():
    with pytest.raises(ValueError) as error, mutation("tanh-not-square"):
        pass
    assert str(error.value) == (
        f"mutation: name must be one of the {len(GALLERY)} that listing() shows, got 'tanh-not-square'; "
        "the closest is tanh-not-squared"
    )
    with pytest.raises(ValueError, match=r"got 'xyz'$"):
        find("xyz")


# --------------------------------------------------------------------------------------------------------- the gallery


def doubled(x):
    """y = 2 * x."""
    y = 2 * x
    return y + 0 * x


@pytest.mark.parametrize("right, count", [("3 * x", 0), (" * x", 2)])
def test_a_line_that_does_not_occur_once(right, count, monkeypatch):
    each = Mutation("doubled-wrong", doubled, right, "x", "", ())
    with pytest.raises(RuntimeError) as error:
        each.wrong_source()
    where = f"{__name__}.doubled"
    assert str(error.value) == f"mutation: doubled-wrong needs its line once in {where}, got {count} times: {right}"
    monkeypatch.setattr(mutations, "GALLERY", (each,))
    with pytest.raises(RuntimeError, match="needs its line once"), mutation("doubled-wrong"):
        pass
    monkeypatch.undo()
    with mutation("tanh-factor"):  # nothing is left switched on
        pass


def test_a_docstring_may_show_the_line():
    source = Mutation("doubled-wrong", doubled, "y = 2 * x", "y = 3 * x", "", ()).wrong_source()
    assert '"""y = 2 * x."""' in source and "\n    y = 3 * x\n" in source


def test_names_are_unique_and_begin_with_their_op():
    names = [each.name for each in GALLERY]
    assert len(set(names)) == len(names)
    begins = {"tensor": "engine-", "local_response_norm": "lrn-"}
    for each in GALLERY:
        inside = vars(inspect.getmodule(each.function)).values()
        ops = [op for op in inside if isinstance(op, type) and issubclass(op, Function) and op.__module__.endswith(each.op)]
        if len(ops) == 1:  # others are files of several ops
            assert each.name.startswith(begins.get(each.op, each.op.replace("_", "-") + "-"))


def test_every_line_of_code_is_one_line():
    for each in GALLERY:
        assert each.right != each.wrong
        assert "\n" not in each.right + each.wrong


def test_the_listing():
    text = listing()
    assert text.count("\n\n") == len(GALLERY) - 1
    for each in GALLERY:
        assert f"\n  right: {each.right}\n  wrong: {each.wrong}" in text
    assert find("dropout-mask").text() == (
        "dropout-mask\n"
        "  The mask is forgotten: silent units learn too.\n"
        "  right: return gy * mask * gy.dtype.type(scale)\n"
        "  wrong: return gy * gy.dtype.type(scale)\n"
        "  seen in ddbourgin/numpy-ml#94"
    )
    assert "seen in" not in find("dropout-scale").text()
    assert max(map(len, listing(80).splitlines())) <= 80 < max(map(len, text.splitlines()))
