"""What PyTorch refuses, minidl refuses, with the same type of error (where it differs on purpose, the table says so)."""

from types import SimpleNamespace

import numpy as np
import pytest

import minidl.nn.functional as F
from minidl import Tensor, nn
from minidl.optim import SGD, Adam

torch = pytest.importorskip("torch")


def _minidl_tensor(*shape, dtype="float64", requires_grad=False):
    return Tensor(np.ones(shape, dtype), requires_grad=requires_grad)


def _torch_tensor(*shape, dtype="float64", requires_grad=False):
    return torch.tensor(np.ones(shape, dtype), requires_grad=requires_grad)


MINE = SimpleNamespace(F=F, cat=F.cat, pad=F.pad, nn=nn, SGD=SGD, Adam=Adam, t=_minidl_tensor)
THEIR = SimpleNamespace(
    F=torch.nn.functional,
    cat=torch.cat,
    pad=torch.nn.functional.pad,
    nn=torch.nn,
    SGD=torch.optim.SGD,
    Adam=torch.optim.Adam,
    t=_torch_tensor,
)


def _backward_twice(m):
    y = m.t(2, requires_grad=True).exp().sum()
    y.backward()
    y.backward()


def _backward_through_a_freed_part(m):
    shared = m.t(2, requires_grad=True).exp()
    shared.sum().backward()
    (shared * 2).sum().backward()


def _hook_of_another_shape(m):
    y = m.t(2, requires_grad=True)
    y.register_hook(lambda g: m.t(3))
    y.sum().backward()


def _labels(m, *values, dtype="int64"):
    ids = np.array(values, dtype)
    return Tensor(ids) if m is MINE else torch.tensor(ids)


def _conv(x=(1, 4, 8, 8), w=(4, 4, 3, 3), b=None, **settings):
    return lambda m: m.F.conv2d(m.t(*x), m.t(*w), None if b is None else m.t(*b), **settings)


def _max_pool(*args, x=(1, 4, 8, 8), **settings):
    return lambda m: m.F.max_pool2d(m.t(*x), *args, **settings)


def _avg_pool(*args, x=(1, 4, 8, 8), **settings):
    return lambda m: m.F.avg_pool2d(m.t(*x), *args, **settings)


def _loss(name, x, *ids, dtype="int64", weight=None, **settings):
    return lambda m: getattr(m.F, name)(
        m.t(*x), _labels(m, *ids, dtype=dtype), None if weight is None else m.t(*weight), **settings
    )


# name: (call, None where the type is PyTorch's, else minidl's own)
TABLE = {
    # conv2d
    "conv2d: kernel over the image": (_conv(w=(4, 4, 9, 9)), None),
    "conv2d: kernel over the padded image": (_conv(w=(4, 4, 3, 11), padding=1), None),
    "conv2d: dilated kernel over the image": (_conv(dilation=4), None),
    "conv2d: image of 0 pixels": (_conv(x=(1, 4, 0, 8)), None),
    "conv2d: channels": (_conv(w=(4, 3, 3, 3)), None),
    "conv2d: channels of groups": (_conv(w=(4, 4, 3, 3), groups=2), None),
    "conv2d: filters not divisible by groups": (_conv(w=(5, 2, 3, 3), groups=2), None),
    "conv2d: bias length": (_conv(b=(5,)), None),
    "conv2d: bias axes": (_conv(b=(4, 1)), None),
    "conv2d: 2 axes": (_conv(x=(8, 8)), None),
    "conv2d: 5 axes": (_conv(x=(1, 1, 4, 8, 8)), None),
    "conv2d: weight of 3 axes": (_conv(w=(4, 3, 3)), None),
    "conv2d: weight of another dtype": (lambda m: m.F.conv2d(m.t(1, 4, 8, 8), m.t(4, 4, 3, 3, dtype="float32")), None),
    "conv2d: bias of another dtype": (
        lambda m: m.F.conv2d(m.t(1, 4, 8, 8), m.t(4, 4, 3, 3), m.t(4, dtype="float32")),
        None,
    ),
    "conv2d: same padding with a stride": (_conv(padding="same", stride=2), None),
    "conv2d: padding by a wrong name": (_conv(padding="full"), None),
    "conv2d: stride 0": (_conv(stride=0), None),
    "conv2d: negative stride": (_conv(stride=(1, -1)), None),
    "conv2d: negative padding": (_conv(padding=-1), None),
    "conv2d: dilation 0": (_conv(dilation=0), None),
    "conv2d: groups 0": (_conv(groups=0), None),
    "conv2d: negative groups": (_conv(groups=-1), None),
    "conv2d: stride of three": (_conv(stride=(1, 1, 1)), None),
    "conv2d: padding of three": (_conv(padding=(1, 1, 1)), None),
    "conv2d: stride of a float": (_conv(stride=1.5), None),
    # pools
    "max_pool2d: kernel over the image": (_max_pool(9), None),
    "max_pool2d: dilated kernel over the image": (_max_pool(3, dilation=4), None),
    "max_pool2d: padding over half the kernel": (_max_pool(3, padding=2), None),
    "max_pool2d: negative padding": (_max_pool(3, padding=-1), None),
    "max_pool2d: stride 0": (_max_pool(3, 0), None),
    "max_pool2d: negative stride": (_max_pool(3, -1), None),
    "max_pool2d: kernel 0": (_max_pool(0), None),
    "max_pool2d: dilation 0": (_max_pool(3, dilation=0), None),
    "max_pool2d: kernel of three": (_max_pool((2, 2, 2)), None),
    "max_pool2d: 2 axes": (_max_pool(3, x=(8, 8)), None),
    "max_pool2d: 5 axes": (_max_pool(3, x=(1, 1, 4, 8, 8)), None),
    "max_pool2d: image of 0 pixels": (_max_pool(1, x=(1, 4, 0, 8)), None),
    "avg_pool2d: kernel over the image": (_avg_pool(9), None),
    "avg_pool2d: padding over half the kernel": (_avg_pool(3, padding=2), None),
    "avg_pool2d: negative padding": (_avg_pool(3, padding=-1), None),
    "avg_pool2d: stride 0": (_avg_pool(3, 0), None),
    "avg_pool2d: negative stride": (_avg_pool(3, -2), None),
    "avg_pool2d: kernel 0": (_avg_pool(0), None),
    "avg_pool2d: divisor 0": (_avg_pool(3, divisor_override=0), None),
    "avg_pool2d: 2 axes": (_avg_pool(3, x=(8, 8)), RuntimeError),
    "avg_pool2d: 5 axes": (_avg_pool(3, x=(1, 1, 4, 8, 8)), None),
    # local_response_norm, dropout, linear, softmax
    "local_response_norm: 2 axes": (lambda m: m.F.local_response_norm(m.t(2, 3), 5), None),
    "local_response_norm: size 0": (lambda m: m.F.local_response_norm(m.t(2, 3, 4, 4), 0), ValueError),
    "dropout: p over 1": (lambda m: m.F.dropout(m.t(3), 1.5), None),
    "dropout: negative p": (lambda m: m.F.dropout(m.t(3), -0.1), None),
    "linear: features": (lambda m: m.F.linear(m.t(2, 3), m.t(4, 5)), None),
    "linear: bias": (lambda m: m.F.linear(m.t(2, 3), m.t(4, 3), m.t(5)), None),
    "linear: number": (lambda m: m.F.linear(m.t(), m.t(4, 3)), None),
    "linear: weight of another dtype": (lambda m: m.F.linear(m.t(2, 3), m.t(4, 3, dtype="float32")), None),
    "softmax: dim": (lambda m: m.F.softmax(m.t(2, 3), 2), None),
    "log_softmax: dim": (lambda m: m.F.log_softmax(m.t(2, 3), -3), None),
    "softmax: ints": (lambda m: m.F.softmax(m.t(2, 3, dtype="int64"), 1), RuntimeError),
    # losses
    "cross_entropy: class over the last": (_loss("cross_entropy", (2, 3), 0, 3), None),
    "cross_entropy: negative class": (_loss("cross_entropy", (2, 3), 0, -1), None),
    "nll_loss: class over the last": (_loss("nll_loss", (2, 3), 0, 3), None),
    "cross_entropy: number of rows": (_loss("cross_entropy", (2, 3), 0, 1, 2), None),
    "nll_loss: number of rows": (_loss("nll_loss", (2, 3), 0, 1, 2), None),
    "cross_entropy: float ids": (_loss("cross_entropy", (2, 3), 0, 1, dtype="float64"), TypeError),
    "nll_loss: float ids": (_loss("nll_loss", (2, 3), 0, 1, dtype="float64"), TypeError),
    "cross_entropy: bool ids": (_loss("cross_entropy", (2, 3), 0, 1, dtype="bool"), TypeError),
    "cross_entropy: ids of two axes": (_loss("cross_entropy", (2, 3), [0], [1]), ValueError),
    "cross_entropy: an id to ignore with probabilities": (
        lambda m: m.F.cross_entropy(m.t(2, 3), m.t(2, 3), ignore_index=1),
        ValueError,
    ),
    "cross_entropy: probabilities of another shape": (
        lambda m: m.F.cross_entropy(m.t(2, 3), m.t(2, 4)),
        TypeError,
    ),
    "nll_loss: probabilities": (lambda m: m.F.nll_loss(m.t(2, 3), m.t(2, 3)), TypeError),
    "cross_entropy: reduction": (_loss("cross_entropy", (2, 3), 0, 1, reduction="average"), None),
    "nll_loss: reduction": (_loss("nll_loss", (2, 3), 0, 1, reduction="average"), None),
    "cross_entropy: weight length": (_loss("cross_entropy", (2, 3), 0, 1, weight=(4,)), ValueError),
    "cross_entropy: weight axes": (_loss("cross_entropy", (2, 3), 0, 1, weight=(1, 3)), ValueError),
    "cross_entropy: smoothing over 1": (_loss("cross_entropy", (2, 3), 0, 1, label_smoothing=1.5), ValueError),
    "cross_entropy: a number": (lambda m: m.F.cross_entropy(m.t(), _labels(m, 0)), ValueError),
    "cross_entropy: int scores": (
        lambda m: m.F.cross_entropy(m.t(2, 3, dtype="int64"), _labels(m, 0, 1)),
        ValueError,
    ),
    # arithmetic and the product
    "add: sizes": (lambda m: m.t(2, 3) + m.t(4), None),
    "mul: sizes": (lambda m: m.t(2, 3) * m.t(3, 3), None),
    "div: sizes": (lambda m: m.t(2, 3) / m.t(2), None),
    "pow: sizes": (lambda m: m.t(2, 3) ** m.t(2), None),
    "matmul: inner sizes": (lambda m: m.t(2, 3) @ m.t(4, 2), None),
    "matmul: row times matrix": (lambda m: m.t(2) @ m.t(3, 2), None),
    "matmul: matrix times column": (lambda m: m.t(2, 3) @ m.t(2), None),
    "matmul: vectors": (lambda m: m.t(2) @ m.t(3), None),
    "matmul: batches": (lambda m: m.t(2, 2, 3) @ m.t(5, 3, 4), None),
    "matmul: numbers": (lambda m: m.t() @ m.t(), None),
    "matmul: matrix times number": (lambda m: m.t(2, 3) @ m.t(), None),
    # reductions
    "sum: dim": (lambda m: m.t(2, 3).sum(2), None),
    "sum: repeated dim": (lambda m: m.t(2, 3).sum((1, -1)), None),
    "mean: dim": (lambda m: m.t(2, 3).mean(-3), None),
    "mean: ints": (lambda m: m.t(2, 3, dtype="int64").mean(), None),
    "amax: dim": (lambda m: m.t(2, 3).amax(2), None),
    "max: dim": (lambda m: m.t(2, 3).max(2), None),
    "min: dim": (lambda m: m.t(2, 3).min(-3), None),
    "argmax: dim": (lambda m: m.t(2, 3).argmax(2), None),
    "max: nothing": (lambda m: m.t(0).max(), IndexError),
    "amax: nothing": (lambda m: m.t(0, 3).amax(0), None),
    "max: nothing along dim": (lambda m: m.t(0, 3).max(0), None),
    "argmax: nothing": (lambda m: m.t(0).argmax(), None),
    # moving
    "reshape: size": (lambda m: m.t(2, 3).reshape(4), None),
    "reshape: -1 does not fit": (lambda m: m.t(2, 3).reshape(4, -1), None),
    "reshape: two -1": (lambda m: m.t(2, 3).reshape(-1, -1), None),
    "reshape: -2": (lambda m: m.t(2, 3).reshape(-2, -3), None),
    "reshape: -1 of nothing": (lambda m: m.t(0, 3).reshape(0, -1), None),
    "permute: too few": (lambda m: m.t(2, 3, 4).permute(0, 1), None),
    "permute: repeated": (lambda m: m.t(2, 3).permute(0, 0), None),
    "permute: out of range": (lambda m: m.t(2, 3).permute(0, 2), None),
    "transpose: dim": (lambda m: m.t(2, 3).transpose(0, 2), None),
    "flatten: order": (lambda m: m.t(2, 3, 4).flatten(2, 1), None),
    "flatten: dim": (lambda m: m.t(2, 3, 4).flatten(3), None),
    "squeeze: dim": (lambda m: m.t(2, 1).squeeze(2), None),
    "unsqueeze: dim": (lambda m: m.t(2, 1).unsqueeze(4), None),
    "getitem: int": (lambda m: m.t(2, 3)[2], None),
    "getitem: negative int": (lambda m: m.t(2, 3)[0, -4], None),
    "getitem: array": (lambda m: m.t(2, 3)[[0, 2]], None),
    "getitem: tensor": (lambda m: m.t(2, 3)[_labels(m, 0, 2)], None),
    "getitem: too many": (lambda m: m.t(2, 3)[0, 0, 0], None),
    "getitem: mask of another size": (lambda m: m.t(2, 3)[_labels(m, 1, 0, 1, dtype="bool")], None),
    "getitem: arrays of two sizes": (lambda m: m.t(2, 3)[[0, 1], [0, 1, 2]], None),
    "getitem: number": (lambda m: m.t()[0], None),
    "cat: sizes": (lambda m: m.cat([m.t(2, 3), m.t(2, 4)], 0), None),
    "cat: axes": (lambda m: m.cat([m.t(2, 3), m.t(3)], 0), None),
    "cat: dim": (lambda m: m.cat([m.t(2, 3)], 2), None),
    "cat: nothing": (lambda m: m.cat([]), None),
    "pad: odd": (lambda m: m.pad(m.t(2, 3), (1, 1, 1)), ValueError),
    "pad: too many": (lambda m: m.pad(m.t(2, 3), (1,) * 6), ValueError),
    "pad: below nothing": (lambda m: m.pad(m.t(2, 3), (-2, -2)), None),
    "pad: mode": (lambda m: m.pad(m.t(2, 3), (1, 1), mode="mirror"), ValueError),
    # the engine
    "Tensor: ints with requires_grad": (lambda m: m.t(2, dtype="int64", requires_grad=True), None),
    "backward: no graph": (lambda m: m.t().backward(), None),
    "backward: detached": (lambda m: m.t(requires_grad=True).detach().backward(), None),
    "backward: not one element": (lambda m: m.t(2, requires_grad=True).exp().backward(), None),
    "backward: gradient of another shape": (lambda m: m.t(2, requires_grad=True).exp().backward(m.t(3)), None),
    "backward: gradient of a broadcast shape": (lambda m: m.t(2, requires_grad=True).exp().backward(m.t(1)), None),
    "backward: twice": (_backward_twice, None),
    "backward: through a freed part": (_backward_through_a_freed_part, None),
    "hook: another shape": (_hook_of_another_shape, None),
    "hook: no gradient": (lambda m: m.t(2).register_hook(lambda g: g), None),
    "retain_grad: no gradient": (lambda m: m.t(2).retain_grad(), None),
    "requires_grad_: ints": (lambda m: m.t(2, dtype="int64").requires_grad_(), None),
    "requires_grad_: off inside a graph": (lambda m: m.t(2, requires_grad=True).exp().requires_grad_(False), None),
    "item: two elements": (lambda m: m.t(2).item(), None),
    "bool: two elements": (lambda m: bool(m.t(2)), None),
    "float: two elements": (lambda m: float(m.t(2)), RuntimeError),
    "len: a number": (lambda m: len(m.t()), None),
    "numpy: requires a gradient": (lambda m: m.t(2, requires_grad=True).numpy(), None),
    # layers and optimizers
    "Conv2d: groups": (lambda m: m.nn.Conv2d(4, 6, 3, groups=3), None),
    "Conv2d: filters and groups": (lambda m: m.nn.Conv2d(4, 5, 3, groups=2), None),
    "Dropout: p": (lambda m: m.nn.Dropout(1.5), None),
    "SGD: nothing": (lambda m: m.SGD([], 0.1), None),
    "SGD: negative lr": (lambda m: m.SGD([m.t(2, requires_grad=True)], -0.1), None),
    "SGD: negative momentum": (lambda m: m.SGD([m.t(2, requires_grad=True)], 0.1, momentum=-1), None),
    "SGD: negative weight decay": (lambda m: m.SGD([m.t(2, requires_grad=True)], 0.1, weight_decay=-1), None),
    "SGD: nesterov without momentum": (lambda m: m.SGD([m.t(2, requires_grad=True)], 0.1, nesterov=True), None),
    "Adam: beta": (lambda m: m.Adam([m.t(2, requires_grad=True)], betas=(1.0, 0.9)), None),
    "Adam: negative lr": (lambda m: m.Adam([m.t(2, requires_grad=True)], lr=-1), None),
}


def refusal(call, m):
    """The error that a call raises."""
    with pytest.raises(Exception) as caught:
        call(m)
    return caught.value


@pytest.mark.parametrize("name", TABLE)
def test_refused_by_both(name):
    call, own = TABLE[name]
    their, mine = refusal(call, THEIR), refusal(call, MINE)
    assert type(mine) is (own or type(their)), f"{type(mine).__name__}: {mine}\nPyTorch: {type(their).__name__}: {their}"
    if own is not None:
        assert type(their) is not own, f"the table need not name {own.__name__}: it is PyTorch's"
