"""The gradient checker: what it accepts, the faults it must find, and what it says.

Every fault is planted as a Function whose forward is right, and is looked for with many seeds: a checker that finds it most of
the time finds it too rarely.
"""

import re

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import Function, GradcheckError, Tensor, gradcheck
from minidl.gradcheck import NotFiniteError, gradcheck_leaves
from minidl.ops.arithmetic import MulFunction
from minidl.ops.conv2d import Conv2dFunction
from minidl.ops.cross_entropy import CrossEntropyFunction
from minidl.ops.dropout import DropoutFunction
from minidl.ops.linear import LinearFunction
from minidl.ops.local_response_norm import LocalResponseNormFunction, negative_power, window_sum
from minidl.ops.max_pool2d import MaxPool2dFunction
from minidl.ops.relu import ReLUFunction
from minidl.ops.softmax import SoftmaxFunction
from minidl.ops.tanh import TanhFunction

SEEDS = range(20)


def x_of(seed, *shape, scale=1.0, device=None):
    return Tensor(scale * np.random.default_rng(seed).normal(size=shape), requires_grad=True, device=device)


def pool_settings(x, kernel, stride):
    out = tuple((n - kernel) // stride + 1 for n in x.shape[2:])
    return {
        "kernel": (kernel, kernel),
        "stride": (stride, stride),
        "padding": (0, 0),
        "dilation": (1, 1),
        "out": out,
        "return_indices": False,
    }


CONV = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}


# ----------------------------------------------------------------------------------------------------------- right ones


RIGHT = {
    "tanh": lambda s, d: (F.tanh, [x_of(s, 3, 4, device=d)]),
    "softmax": lambda s, d: (lambda x: F.softmax(x, 1), [x_of(s, 3, 4, device=d)]),
    "cross_entropy": lambda s, d: (lambda x: F.cross_entropy(x, np.array([1, 0, 3])), [x_of(s, 3, 4, device=d)]),
    "linear": lambda s, d: (F.linear, [x_of(s, 5, 4, device=d), x_of(s + 1, 3, 4, device=d), x_of(s + 2, 3, device=d)]),
    "mul, broadcast": lambda s, d: (lambda x, y: x * y, [x_of(s, 5, 4, device=d), x_of(s + 1, 4, device=d)]),
    "dropout": lambda s, d: (F.dropout, [x_of(s, 5, 4, device=d)]),
    "lrn, alpha ~ k": lambda s, d: (lambda x: F.local_response_norm(x, 5, 1.0, 0.75, 1.0), [x_of(s, 2, 7, 2, 2, device=d)]),
    "lrn, 2012": lambda s, d: (
        lambda x: F.local_response_norm(x, 5, 1e-4, 0.75, 2.0),
        [x_of(s, 2, 7, 2, 2, scale=50, device=d)],
    ),
    "conv, relu, pool": lambda s, d: (
        lambda x, w, b: F.max_pool2d(F.relu(F.conv2d(x, w, b, padding=1)), 3, 2),
        [x_of(s, 2, 3, 7, 6, device=d), x_of(s + 1, 4, 3, 3, 3, device=d), x_of(s + 2, 4, device=d)],
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_ops_pass(name, device):
    for seed in range(5):
        function, inputs = RIGHT[name](seed, device)
        assert gradcheck(function, inputs, seed=seed) is True


def test_one_tensor_need_not_be_in_a_list():
    assert gradcheck(F.tanh, x_of(0, 3))


def test_a_number():
    assert gradcheck(lambda x: x * x, Tensor(np.float64(1.5), requires_grad=True))


def test_arguments_that_are_no_tensors_and_tensors_without_gradient_are_passed_on():
    x, constant = x_of(0, 3), Tensor(np.arange(3.0))
    assert gradcheck(lambda x, k, c, n: (x * c * k) ** n, [x, 2.0, constant, 2])


def test_several_outputs():
    x = x_of(1, 4, 3)
    assert gradcheck(lambda x: (x.tanh(), x * 2.0, x.max(1)[1], "note"), x)
    assert gradcheck(lambda x: x.max(1), x)
    with pytest.raises(GradcheckError, match="backward disagrees"):
        gradcheck(lambda x: (x * 2.0, TanhOff.apply(x)), x)


def test_an_output_that_does_not_depend_on_the_input():
    c = Tensor(np.ones(3), requires_grad=False)
    assert gradcheck(lambda x: (x * 2.0, c * 2.0), x_of(0, 3))


def test_a_strided_input():
    data = np.random.default_rng(0).normal(size=(4, 6, 5))[::2, :, ::-1].transpose(2, 0, 1)
    assert gradcheck(F.tanh, Tensor(data, requires_grad=True))


# -------------------------------------------------------------------------------------------------------- planted faults


class SoftmaxZero(SoftmaxFunction):
    def backward(ctx, gy):
        return (np.zeros_like(gy),)


class TanhOff(TanhFunction):
    def backward(ctx, gy):
        return (1.001 * super().backward(gy)[0],)


class LrnNoCross(LocalResponseNormFunction):
    """The term through the neighbours' denominators is missing."""

    def backward(ctx, gy):
        d = ctx.saved[1]
        return ((np.moveaxis(gy, 1, -1) * negative_power(d, ctx.settings[2])).transpose(0, 3, 1, 2),)


class LrnWindow(LocalResponseNormFunction):
    """An even window that is not reversed in backward."""

    def backward(ctx, gy):
        (x, d), (size, alpha, beta, _) = ctx.saved, ctx.settings
        direct = np.moveaxis(gy, 1, -1) * negative_power(d, beta)
        across = window_sum(direct * x / d, size // 2, (size - 1) // 2)
        return (np.moveaxis(direct - (2 * alpha / size * beta) * x * across, -1, 1),)


class LinearFirstBias(LinearFunction):
    """The bias' gradient is the first image's, not the sum over images."""

    def backward(ctx, gy):
        gx, gw, _ = super().backward(gy)
        return gx, gw, gy[0].copy()


class LinearMeanWeight(LinearFunction):
    def backward(ctx, gy):
        gx, gw, gb = super().backward(gy)
        return gx, gw / len(gy), gb


class PoolNext(MaxPool2dFunction):
    """The gradient goes to the element after the winner."""

    def backward(ctx, gy):
        kernel = ctx.settings[0]
        ctx.saved = ((ctx.saved[0] + 1) % (kernel[0] * kernel[1]),)
        return super().backward(gy)


class PoolOneWrong(MaxPool2dFunction):
    """One window of all has the wrong winner."""

    def backward(ctx, gy):
        argmax = ctx.saved[0].copy()
        argmax[0, 0, 0, 0] = (argmax[0, 0, 0, 0] + 1) % 9
        ctx.saved = (argmax,)
        return super().backward(gy)


class PoolOverlap(MaxPool2dFunction):
    """Overlapping windows: the last gradient wins, they are not added up."""

    def backward(ctx, gy):
        gx = super().backward(gy)[0]
        each = super().backward(np.ones_like(gy))[0]
        return (gx / np.maximum(each, 1),)


class ConvFlipped(Conv2dFunction):
    """The kernel is upside down on the way back to x."""

    def backward(ctx, gy):
        x, w = ctx.saved
        _, gw, gb = super().backward(gy)
        ctx.saved = x, np.ascontiguousarray(w[:, ::-1, ::-1])
        return super().backward(gy)[0], gw, gb


class ConvFlippedWeight(Conv2dFunction):
    def backward(ctx, gy):
        gx, gw, gb = super().backward(gy)
        return gx, gw[:, :, ::-1, ::-1].copy(), gb


class ConvOneElement(Conv2dFunction):
    """One element of the weight's gradient is 1 % too large."""

    def backward(ctx, gy):
        gx, gw, gb = super().backward(gy)
        gw[1, 0, 1, 1] *= 1.01
        return gx, gw, gb


class DropoutRedrawn(DropoutFunction):
    def backward(ctx, gy):
        mask = minidl.random.default_generator.bernoulli(0.5, gy.shape)
        return (gy * mask * ctx.scale,)


class DropoutNoMask(DropoutFunction):
    def backward(ctx, gy):
        return (gy * ctx.scale,)


class ReluOfNothing(ReLUFunction):
    def backward(ctx, gy):
        return (gy.copy(),)


class MulFirst(MulFunction):
    """A broadcast operand gets its first copy's gradient instead of the sum of all copies'."""

    def backward(ctx, gz):
        x, y = ctx.saved
        return gz * y, (gz * x)[0].copy()


class MulSwapped(MulFunction):
    def backward(ctx, gz):
        x, y = ctx.saved
        return gz * x, gz * y


class CrossEntropyNoOneHot(CrossEntropyFunction):
    def backward(ctx, gy):
        logp, t = ctx.saved
        return gy[:, None] * np.exp(logp) * t.sum(1, keepdims=True), None


ONE_HOT = np.eye(6)[[0, 3, 5]]


def faulty_lrn(op, size=5, alpha=1.0, k=1.0):
    return lambda x: op.apply(x, size=size, alpha=alpha, beta=0.75, k=k)


def faulty_pool(op):
    return lambda x: op.apply(x, **pool_settings(x, 3, 2))


IMAGE, FILTERS, BIAS = (2, 2, 5, 4), (3, 2, 3, 3), (3,)
FAULTS = {
    "backward is zero": (lambda x: SoftmaxZero.apply(x, axis=1), [(3, 6)]),
    "a factor of 1.001": (TanhOff.apply, [(3, 6)]),
    "a factor of 1.001 in many elements": (TanhOff.apply, [(40, 60)]),
    "LRN without the cross term": (faulty_lrn(LrnNoCross), [(2, 7, 3, 3)]),
    "LRN, an even window not reversed": (faulty_lrn(LrnWindow, size=4), [(2, 7, 3, 3)]),
    "no sum over images": (LinearFirstBias.apply, [(5, 4), (3, 4), (3,)]),
    "mean over images": (LinearMeanWeight.apply, [(5, 4), (3, 4), (3,)]),
    "the wrong winner": (faulty_pool(PoolNext), [(1, 2, 7, 7)]),
    "one wrong winner": (faulty_pool(PoolOneWrong), [(1, 2, 7, 7)]),
    "overlaps not added up": (faulty_pool(PoolOverlap), [(1, 2, 7, 7)]),
    "kernel flipped for x": (lambda x, w, b: ConvFlipped.apply(x, w, b, **CONV), [IMAGE, FILTERS, BIAS]),
    "kernel flipped for w": (lambda x, w, b: ConvFlippedWeight.apply(x, w, b, **CONV), [IMAGE, FILTERS, BIAS]),
    "dropout mask drawn again": (lambda x: DropoutRedrawn.apply(x, p=0.5, scale=2.0), [(5, 6)]),
    "dropout mask forgotten": (lambda x: DropoutNoMask.apply(x, p=0.5, scale=2.0), [(5, 6)]),
    "relu lets everything through": (ReluOfNothing.apply, [(5, 6)]),
    "no sum over broadcast copies": (MulFirst.apply, [(5, 6), (6,)]),
    "operands swapped": (MulSwapped.apply, [(5, 6), (5, 6)]),
    "the target is forgotten": (lambda x: CrossEntropyNoOneHot.apply(x, Tensor(ONE_HOT)), [(3, 6)]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_always_found(fault):
    function, shapes = FAULTS[fault]
    for seed in SEEDS:
        inputs = [x_of(100 * seed + i, *shape) for i, shape in enumerate(shapes)]
        with pytest.raises(GradcheckError, match="backward disagrees with forward"):
            gradcheck(function, inputs, seed=seed)


@pytest.mark.parametrize("scale", [1, 50])
def test_lrns_cross_term_at_the_published_constants(scale):
    """With alpha 1e-4 and k 2 the term is about 1.5e-5 x^2 of the gradient: little at x = 1, yet not too little."""
    for seed in SEEDS:
        with pytest.raises(GradcheckError, match="backward disagrees with forward"):
            gradcheck(faulty_lrn(LrnNoCross, alpha=1e-4, k=2.0), x_of(seed, 2, 7, 3, 3, scale=scale), seed=seed)


def test_one_element_of_a_larger_weight_is_found_if_it_carries_weight():
    """216 weights are more than are looked at one by one: 1 % of one of them must show in eight random directions."""
    found = 0
    for seed in SEEDS:
        inputs = [x_of(100 * seed + i, *shape) for i, shape in enumerate([(2, 3, 6, 6), (8, 3, 3, 3), (8,)])]
        found += not gradcheck(lambda x, w, b: ConvOneElement.apply(x, w, b, **CONV), inputs, seed=seed, raise_exception=False)
    # missed only where this element's gradient is near 0: its share of a slope of about sqrt(216) typical elements is
    # 0.01 / 15 = 7e-4, and 1e-5 is tolerated, so it must be 70 times below the others, which 1 in 90 is
    assert found >= len(SEEDS) - 2


def test_one_by_one_finds_what_directions_may_miss():
    class OneFaint(Function):
        name = "one_faint"

        def forward(ctx, x):
            return x * np.array([1e3, 1.0])

        def backward(ctx, gy):
            return (gy * np.array([1e3, 1.001]),)

    for seed in SEEDS:
        inputs = x_of(seed, 2)
        with pytest.raises(GradcheckError, match=r"worst of 2 elements"):
            gradcheck(OneFaint.apply, inputs, seed=seed)
        assert gradcheck(OneFaint.apply, inputs, seed=seed, exhaustive=0)


def test_writing_to_the_incoming_gradient():
    class WritesGy(TanhFunction):
        def backward(ctx, gy):
            gx = super().backward(gy)[0]
            gy *= 2
            return (gx,)

    with pytest.raises(GradcheckError) as error:
        gradcheck(WritesGy.apply, x_of(0, 3, 4))
    assert str(error.value) == "tanh: backward modified the gradient it was given"


@pytest.mark.parametrize("change", [lambda x: np.multiply(x, 2, out=x), lambda x: np.maximum(x, 0, out=x)])
def test_an_op_that_modifies_its_input_in_forward(change):
    class InPlace(TanhFunction):
        name = "in_place"

        def forward(ctx, x):
            change(x)
            return super().forward(x)

    with pytest.raises(GradcheckError) as error:
        gradcheck(InPlace.apply, x_of(0, 3, 4))
    assert str(error.value) == "in_place: input 0 was modified; an op must leave its inputs alone"


def test_an_op_that_modifies_its_input_in_backward():
    class InPlace(MulFunction):
        def backward(ctx, gz):
            gx, gy = super().backward(gz)
            ctx.saved[0][...] = 0
            return gx, gy

    with pytest.raises(GradcheckError, match=r"^mul: input 0 was modified"):
        gradcheck(InPlace.apply, [x_of(0, 3), x_of(1, 3)])


def test_a_function_that_is_not_deterministic():
    rng = np.random.default_rng(0)
    with pytest.raises(GradcheckError) as error:
        gradcheck(lambda x: x * rng.normal(), x_of(0, 3))
    assert str(error.value) == "mul: two runs on the same inputs differ; the function is not deterministic"


def test_a_gradient_of_the_wrong_shape_is_the_engines_error():
    class NoSum(MulFunction):
        def backward(ctx, gz):
            x, y = ctx.saved
            return gz * y, gz * x

    with pytest.raises(RuntimeError) as error:
        gradcheck(NoSum.apply, [x_of(0, 5, 4), x_of(1, 4)])
    assert str(error.value) == "mul: gradient 1 must have its input's shape (4,), got (5, 4)"


def test_a_function_that_cuts_the_graph():
    with pytest.raises(GradcheckError, match=r"backward disagrees .* analytic 0 "):
        gradcheck(lambda x: x.detach() * 2.0, x_of(0, 3))


def test_what_is_not_finite_cannot_be_checked():
    with np.errstate(invalid="ignore"), pytest.raises(GradcheckError) as error:
        gradcheck(lambda x: x.log(), Tensor(np.array([-1.0, 1.0]), requires_grad=True))
    assert str(error.value) == "log: output 0 (2,) must be finite, got 1 elements that are not"
    with pytest.raises(GradcheckError) as error:
        gradcheck(lambda x: x[1:], Tensor(np.array([np.inf, 1.0]), requires_grad=True))
    assert str(error.value) == "getitem: input 0 (2,) must be finite, got 1 elements that are not"


def test_a_slope_that_is_not_finite_says_nothing_of_backward():
    with np.errstate(all="ignore"), pytest.raises(NotFiniteError) as error:
        gradcheck(lambda x: x.sqrt(), Tensor(np.array([0.0, 1.0]), requires_grad=True))
    assert str(error.value) == "sqrt: the slope along input 0 (2,) must be finite, got nan"


# -------------------------------------------------------------------------------------------------------------- kinks


def test_at_a_kink():
    x = Tensor(np.array([1.0, 0.0, -1.0]), requires_grad=True)
    with pytest.raises(GradcheckError, match=r"^relu: not differentiable here: along input 0 \(3,\) the slope is "):
        gradcheck(F.relu, x)


def test_the_one_sided_slopes_are_in_the_message():
    with pytest.raises(GradcheckError) as error:
        gradcheck(F.relu, Tensor(np.zeros(1), requires_grad=True), directions=0)
    text = str(error.value)
    slopes = [float(s) for s in re.search(r"the slope is (\S+) ahead and (\S+) behind", text).groups()]
    assert 0.5 <= abs(slopes[0]) < 1.5 and slopes[1] == 0 and text.endswith("move the inputs away from the kink or tie")


def test_at_a_tie():
    x = Tensor(np.array([[[[3.0, 3.0], [1.0, 0.0]]]]), requires_grad=True)
    for function in (lambda x: F.max_pool2d(x, 2), lambda x: x.max(), lambda x: x.max(3)[0]):
        with pytest.raises(GradcheckError, match="not differentiable here"):
            gradcheck(function, x)


def test_a_tie_of_the_same_element_is_none():
    assert gradcheck(lambda x: (x * 1.0).amax(0), Tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True))


@pytest.mark.parametrize("side", [1, -1])
def test_near_a_kink(side):
    """A nudge of 1e-6 passes the kink at every distance below, one of a 256th of that passes none."""
    for i, distance in enumerate([1e-6 / 3, 0.5e-6, 1e-6, *np.linspace(1e-8, 1.6e-6, 160)]):
        x = Tensor(np.array([side * distance, 0.7, -0.4]), requires_grad=True)
        assert gradcheck(lambda x: F.relu(x) + 0.1 * x, x, seed=i)
        with pytest.raises(GradcheckError, match="backward disagrees"):
            gradcheck(lambda x: ReluOfNothing.apply(x) + 0.1 * x, x, seed=i)


@pytest.mark.parametrize("first", range(0, 1000, 250))
def test_a_thousand_stacks_of_conv_relu_pool_give_no_false_alarm(first):
    for seed in range(first, first + 250):
        inputs = [x_of(seed + 5000 * i, *shape) for i, shape in enumerate([(1, 2, 5, 5), (3, 2, 3, 3), (3,)])]
        assert gradcheck(
            lambda x, w, b: F.max_pool2d(F.relu(F.conv2d(x, w, b, padding=1)), 2), inputs, seed=seed, directions=2, exhaustive=0
        )


def test_where_kinks_are_dense_the_check_never_blames_backward():
    """Pixels a few nudges apart: kinks wherever one goes. It may give up, but must not call a right backward wrong."""
    gave_up = 0
    for seed in range(60):
        inputs = [x_of(seed, 2, 2, 6, 6, scale=1e-5), x_of(seed + 500, 3, 2, 3, 3)]
        try:
            gradcheck(lambda x, w: F.max_pool2d(F.relu(F.conv2d(x, w, padding=1)), 2), inputs, seed=seed, exhaustive=20)
        except GradcheckError as error:
            assert "not differentiable here" in str(error)
            gave_up += 1
    assert gave_up < 30


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_rounding_gives_no_false_alarm(scale):
    """Sums of many terms that nearly cancel, large scores, confident predictions: rounding is what differs."""
    for seed in range(15):
        assert gradcheck(lambda x, w: F.linear(x, w).sum(), [x_of(seed, 8, 50, scale=scale), x_of(seed + 500, 20, 50)])
        assert gradcheck(lambda x: F.log_softmax(x, 1), x_of(seed, 4, 10, scale=min(scale, 100)))
        assert gradcheck(lambda x: x + 1e4 * scale, x_of(seed, 30))
        assert gradcheck(lambda x: F.cross_entropy(x * 20.0, np.arange(4)), x_of(seed, 4, 10), allow_zero=True)


# -------------------------------------------------------------------------------------------------------- vacuous checks


def test_a_slope_of_zero_proves_nothing():
    def saturated(x):
        return F.relu(x - 100.0)

    with pytest.raises(GradcheckError) as error:
        gradcheck(saturated, x_of(0, 3))
    assert str(error.value) == (
        "relu: the slope along input 0 (3,) is 0 in all 11 directions, which proves nothing; choose inputs where it is not, "
        "or pass allow_zero=True"
    )
    assert gradcheck(saturated, x_of(0, 3), allow_zero=True)


def test_softmax_summed_up_is_vacuous():
    with pytest.raises(GradcheckError, match="which proves nothing"):
        gradcheck(lambda x: F.softmax(x, 1).sum(), x_of(0, 3, 4))


def test_an_input_that_is_not_used():
    with pytest.raises(GradcheckError, match="the slope along input 1"):
        gradcheck(lambda x, y: x * 2.0, [x_of(0, 3), x_of(1, 3)])


def test_zero_is_not_accepted_instead_of_a_slope():
    for seed in SEEDS:
        with pytest.raises(GradcheckError, match="backward disagrees"):
            gradcheck(lambda x: SoftmaxZero.apply(x, axis=1), x_of(seed, 3, 6), allow_zero=True, seed=seed)


def test_no_elements_prove_nothing():
    with pytest.raises(GradcheckError, match="which proves nothing"):
        gradcheck(F.tanh, Tensor(np.zeros((0, 3)), requires_grad=True))


# ----------------------------------------------------------------------------------------------- arguments and messages


def test_float32_is_refused():
    x = Tensor(np.ones(3, np.float32), requires_grad=True)
    with pytest.raises(ValueError) as error:
        gradcheck(F.tanh, [x_of(0, 3), x])
    assert str(error.value) == "gradcheck: input 1 must be float64, as rounding must stay below eps, got float32"
    with pytest.raises(ValueError, match=r"^gradcheck: features.0.weight must be float64"):
        gradcheck_leaves(lambda: x, {"features.0.weight": x})


def test_no_input_requires_a_gradient():
    for inputs in ([Tensor(np.ones(3))], [], [1, 2]):
        with pytest.raises(ValueError) as error:
            gradcheck(lambda *args: Tensor(np.ones(3)), inputs)
        assert str(error.value) == "gradcheck: at least 1 input must require a gradient, got none"


def test_the_diagnosis_names_the_op_the_input_the_element_and_the_values():
    class OneWrong(MulFunction):
        def backward(ctx, gz):
            gx, gy = super().backward(gz)
            gy[1, 2] *= 3
            return gx, gy

    x, y = Tensor(np.full((2, 3), 2.0), requires_grad=True), Tensor(np.full((2, 3), 5.0), requires_grad=True)
    with pytest.raises(GradcheckError) as error:
        gradcheck(OneWrong.apply, [x, y])
    pattern = (
        r"mul: backward disagrees with forward for input 1 \(2, 3\): along a random direction numeric (\S+), analytic (\S+) "
        r"\(ratio (\S+)\); worst of 6 elements \(1, 2\): numeric (\S+), analytic (\S+) \(ratio (\S+)\)"
    )
    numbers = [float(n) for n in re.fullmatch(pattern, str(error.value)).groups()]
    assert numbers[1] / numbers[0] == pytest.approx(numbers[2], rel=1e-5)
    assert 1.0 <= abs(numbers[3]) < 3.0  # 2 times a weight between 0.5 and 1.5
    assert numbers[4] == pytest.approx(3 * numbers[3], rel=1e-6) and numbers[5] == pytest.approx(3, rel=1e-5)


def test_raise_exception_false_returns_false():
    assert gradcheck(TanhOff.apply, x_of(0, 3), raise_exception=False) is False
    assert gradcheck(F.tanh, x_of(0, 3), raise_exception=False) is True
    with pytest.raises(ValueError):  # a call that makes no sense is still an error
        gradcheck(F.tanh, Tensor(np.ones(3)), raise_exception=False)


def test_a_gradcheck_error_is_a_runtime_error():
    assert issubclass(GradcheckError, RuntimeError)


@pytest.mark.parametrize("function", [F.dropout, DropoutNoMask.apply])
def test_the_default_generator_is_left_as_it_was(function):
    minidl.manual_seed(7)
    minidl.rand(3)
    before = minidl.random.default_generator.state()
    settings = {"p": 0.5, "scale": 2.0} if function is not F.dropout else {}
    gradcheck(lambda x: function(x, **settings), x_of(0, 5, 4), raise_exception=False)
    assert minidl.random.default_generator.state() == before


def test_inputs_and_their_gradients_are_left_alone(device):
    x = x_of(0, 3, 4, device=device)
    data, values = x.data, device.to_host(x.data)
    gradcheck(F.tanh, x)
    assert x.data is data and np.array_equal(device.to_host(x.data), values) and x.grad is None


@pytest.mark.parametrize("op", [TanhFunction, TanhOff])
def test_leaves_are_left_as_they_were(op):
    w, b = x_of(0, 3, 4), x_of(1, 4)
    w.grad = kept = Tensor(np.full((3, 4), 9.0))
    arrays, values = (w.data, b.data), (w.data.copy(), b.data.copy())
    try:
        gradcheck_leaves(lambda: op.apply(w * b), {"w": w, "b": b})
    except GradcheckError:
        assert op is TanhOff
    assert w.data is arrays[0] and b.data is arrays[1]
    assert np.array_equal(w.data, values[0]) and np.array_equal(b.data, values[1])
    assert w.grad is kept and (kept == 9.0).all() and b.grad is None


def test_leaves_are_restored_after_an_error_in_the_function():
    w, calls = x_of(0, 3), []

    def fails_later():
        calls.append(1)
        if len(calls) == 5:
            raise KeyError("stop")
        return w * 2.0

    values, w.grad = w.data.copy(), None
    with pytest.raises(KeyError):
        gradcheck_leaves(fails_later, {"w": w})
    assert np.array_equal(w.data, values) and w.grad is None


def test_a_row_for_each_leaf():
    w, b = x_of(0, 3, 4), x_of(1, 4)
    rows = gradcheck_leaves(lambda: (w * b).tanh(), {"w": w, "b": b}, directions=5)
    assert [(r.name, r.comparisons) for r in rows] == [("w", 5 + 12), ("b", 5 + 4)]
    for row in rows:
        assert 0 <= row.relative_error < 1e-6
        assert row.relative_error == pytest.approx(abs(row.numeric - row.analytic) / max(abs(row.numeric), abs(row.analytic)))


def test_large_inputs_are_checked_along_directions_only():
    w = x_of(0, 200)
    assert gradcheck_leaves(lambda: w.tanh(), {"w": w})[0].comparisons == 8
    assert gradcheck_leaves(lambda: w.tanh(), {"w": w}, exhaustive=200)[0].comparisons == 208


def test_no_direction_is_faint():
    from minidl.gradcheck import _Check
    from minidl.random import Generator

    check = object.__new__(_Check)
    check.rng = Generator(0)
    vector = check._no_faint((10_000,))
    sizes = np.abs(vector)
    assert sizes.min() >= 0.5 and sizes.max() < 1.5
    assert abs(np.sign(vector).mean()) < 5 / 100 and abs(sizes.mean() - 1) < 5 / 100  # deviations: 0.01 and 0.003
