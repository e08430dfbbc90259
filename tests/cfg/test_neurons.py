"""Each neuron against its formula, and its gradient against slopes."""

import numpy as np
import pytest

from minidl import manual_seed
from minidl.cfg.neurons import NEURONS

FORMULAS = {
    "ident": lambda x: x,
    "relu": lambda x: np.where(x > 0, x, 0),
    "tanh[1,1]": lambda x: np.tanh(x),
    "tanh[1.5,0.5]": lambda x: 1.5 * np.tanh(0.5 * x),
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "abs": lambda x: np.where(x > 0, x, -x),
    "square": lambda x: x * x,
    "softrelu": lambda x: np.log(1 + np.exp(x)),
    "brelu[0.5]": lambda x: np.where(x > 0.5, 0.5, np.where(x > 0, x, 0)),
    "abstanh[2, 3]": lambda x: 2 * np.abs(np.tanh(3 * x)),
    "linear[-2,0.25]": lambda x: -2 * x + 0.25,
    "drelu[0.5]": lambda x: x - 0.5 * np.tanh(x / 0.5),
}


@pytest.mark.parametrize("text", FORMULAS)
def test_formula_and_gradient(run, assert_gradients, text):
    case = run(f"type=neuron\ninputs=data\nneuron={text}\n", size=3)
    np.testing.assert_allclose(case.y, FORMULAS[text](case.x), rtol=1e-14, atol=1e-15)
    assert_gradients(case)


def test_square_root(run, assert_gradients):
    case = run("type=neuron\ninputs=a\nneuron=sqrt\n", size=3, above="[a]\ntype=neuron\ninputs=data\nneuron=softrelu\n")
    np.testing.assert_allclose(case.y, np.sqrt(np.log(1 + np.exp(case.x))), rtol=1e-14)
    assert_gradients(case)


def test_noisy_relu(run, assert_gradients):
    """The noise has the deviation of the signal: y / r is max(0, 1 + n) with n standard normal."""
    case = run("type=neuron\ninputs=data\nneuron=nrelu\n", size=40)
    assert (case.y[case.x <= 0] == 0).all()
    n = case.y[case.x > 0] / case.x[case.x > 0] - 1
    # of some 4800: n is -1 with the probability 0.159 (deviation 0.0053), and its positive half has the mean 0.798 (0.012)
    assert abs((n == -1).mean() - 0.1587) < 0.027 and abs(n[n > 0].mean() - 0.7979) < 0.06
    manual_seed(7)
    y = case.net.module(case.leaf)
    y.sum().backward()
    assert np.array_equal(case.leaf.grad.numpy() == 1, y.detach().numpy().reshape(case.x.shape) > 0)


def test_every_neuron_is_tested():
    assert {text.partition("[")[0] for text in FORMULAS} | {"sqrt", "nrelu"} == set(NEURONS)
