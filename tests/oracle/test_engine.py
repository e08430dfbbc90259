"""The engine: the same graph in minidl and PyTorch gives the same gradients, whatever its shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import Function, Tensor, no_grad

from .compare import VALUE, assert_same, compare_method

torch = pytest.importorskip("torch")

# Values and slopes are of the size of 1 (see OPS), so what cancels leaves an error measured against 1.
FLOOR = 1.0
GRADIENT = 1e-8


# ----------------------------------------------------------------------------------------------- random graphs


class DoubledSum(Function):
    """An op of a user's own whose backward returns one new array for both inputs."""

    name = "doubled_sum"

    def forward(ctx, x, y):
        return 2 * (x + y)

    def backward(ctx, gz):
        g = 2 * gz
        return g, g


def doubled_sum(x, y):
    if x.shape != y.shape or isinstance(x, torch.Tensor):
        return 2 * (x + y)
    return DoubledSum.apply(x, y)


# Every op keeps the shapes among those that broadcast against (4, 4), and no op makes large values from small ones more than
# fourfold. All are smooth: near a kink the last bit would decide. Many return their incoming gradient itself or a view of
# it, which is where an engine that adds in place goes wrong.
OPS = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x.tanh() * y,
    "div": lambda x, y: x / (y * y + 1),
    "pow": lambda x, y: (x.tanh() + 2) ** y.tanh(),
    "twice": lambda x, _: x + x,
    "itself": lambda x, _: x - x,
    "square": lambda x, _: x.tanh() ** 2,
    "neg": lambda x, _: -x,
    "exp": lambda x, _: x.tanh().exp(),
    "log": lambda x, _: (x * x + 1).log(),
    "sqrt": lambda x, _: (x * x + 1).sqrt(),
    "sigmoid": lambda x, _: x.sigmoid(),
    "sum": lambda x, _: x.sum(-1, keepdim=True) if x.shape else x.sum(),
    "mean": lambda x, _: x.mean(0) if x.shape else x.mean(),
    "softmax": lambda x, _: x.softmax(dim=-1),
    "log_softmax": lambda x, _: x.log_softmax(dim=-1),
    "flat and back": lambda x, _: x.reshape(-1).reshape(x.shape),
    "transposed": lambda x, _: x.transpose(0, -1),
    "row twice": lambda x, _: x[[0, 0]].sum(0) if x.shape else -x,
    "first": lambda x, _: x[0] if x.shape else -x,
    "detach": lambda x, _: x.detach(),
    "doubled sum": doubled_sum,
    "doubled sum with its view": lambda x, _: doubled_sum(x, x.reshape(x.shape)),
    "matmul": lambda x, y: x.tanh() @ y / 4 if x.shape == y.shape == (4, 4) else x + y,
}
LEAF_SHAPES = [(4, 4), (4,), (4, 1), (1, 4), (), (4, 4)]

steps = st.lists(st.tuples(st.sampled_from(sorted(OPS)), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=15)
graphs = st.fixed_dictionaries(
    {
        "leaves": st.lists(st.tuples(st.sampled_from(LEAF_SHAPES), st.booleans()), min_size=1, max_size=4),
        "steps": steps,
        "roots": st.lists(st.integers(0, 99), min_size=1, max_size=3),
        "retained": st.lists(st.integers(0, 99), max_size=3),
        "hooked": st.lists(st.tuples(st.integers(0, 99), st.sampled_from([None, -2.0, 0.5])), max_size=3),
        "seed": st.integers(0, 10**6),
    }
)


def run(graph, leaves):
    """Every tensor of the graph, after one backward from each root; all but the last keep the graph."""
    tensors = list(leaves)
    for name, i, j in graph["steps"]:
        recent = tensors[-3:]  # deep rather than wide
        tensors.append(OPS[name](recent[i % len(recent)], tensors[j % len(tensors)]))
    for i in graph["retained"]:
        if tensors[i % len(tensors)].requires_grad:
            tensors[i % len(tensors)].retain_grad()
    for i, factor in graph["hooked"]:
        if tensors[i % len(tensors)].requires_grad:
            tensors[i % len(tensors)].register_hook(lambda g, factor=factor: None if factor is None else g * factor)
    rng = np.random.default_rng(graph["seed"])
    for i in graph["roots"]:
        root = tensors[-1 - i % len(tensors)]
        upstream = rng.standard_normal(tuple(root.shape))
        if root.requires_grad:
            root.backward(upstream if isinstance(root, Tensor) else torch.tensor(upstream), retain_graph=True)
    return tensors


@settings(max_examples=800)
@given(graphs)
def test_random_graphs(graph):
    rng = np.random.default_rng(graph["seed"])
    arrays = [rng.standard_normal(shape) for shape, _ in graph["leaves"]]
    needs = [needed for _, needed in graph["leaves"]]
    mine = run(graph, [Tensor(a.copy(), requires_grad=n) for a, n in zip(arrays, needs, strict=True)])
    their = run(graph, [torch.tensor(a, requires_grad=n) for a, n in zip(arrays, needs, strict=True)])
    retained = {i % len(mine) for i in graph["retained"]} | set(range(len(arrays)))
    for i, (m, t) in enumerate(zip(mine, their, strict=True)):
        assert_same(f"value {i}", m, t, VALUE, FLOOR)
        assert m.requires_grad == t.requires_grad, f"tensor {i}"
        their_grad = t.grad if i in retained else None
        assert (m.grad is None) == (their_grad is None), f"tensor {i}: gradient {m.grad}, PyTorch's {their_grad}"
        if m.grad is not None:
            assert_same(f"gradient {i}", m.grad, their_grad, GRADIENT, FLOOR)
    for leaf, array in zip(mine, arrays, strict=False):
        np.testing.assert_array_equal(leaf.data, array, "backward changed a leaf")


# ------------------------------------------------------------------------------------------------- named graphs

GRAPHS = {
    "x + x": lambda x, y: x + x,
    "x * x": lambda x, y: x * x,
    "x @ x": lambda x, y: x @ x,
    "diamond": lambda x, y: (x * y) + (x - y),
    "diamond of diamonds": lambda x, y: diamond(diamond(diamond(x * y))),
    "unequal paths": lambda x, y: (x.tanh().sigmoid().exp() * x + x) * y,
    "a gradient used three times": lambda x, y: (x + y) + x + (y + x),
    "one new gradient for two inputs": lambda x, y: shared_by_two(x.tanh(), y.tanh()),
    "view and original": lambda x, y: x.reshape(16).reshape(4, 4) * x + x.transpose(0, 1),
    "slices that overlap": lambda x, y: x[1:] * y[:-1] + x[:-1] * x[1:],
    "tensor as both operands of two ops": lambda x, y: (x - x * y) / (x * x + y * y + 1),
    "long chain": lambda x, y: chain(x, 300) + y,
    "wide sum": lambda x, y: sum([x * i for i in range(100)]) + y,
}


def shared_by_two(x, y):
    """Whichever op's gradients come first, what is added to x's must not reach y's."""
    return x * 3 + doubled_sum(x, y) + doubled_sum(y, x) + x * y


def diamond(x):
    return x.tanh() + x * x.sigmoid()


def chain(x, length):
    for _ in range(length):
        x = x * 0.99 + 0.01
    return x


@pytest.mark.parametrize("name", GRAPHS)
def test_graph(name, rng):
    compare_method(GRAPHS[name], rng.standard_normal((4, 4)), rng.standard_normal((4, 4)))


def test_a_chain_deeper_than_the_recursion_limit(rng):
    compare_method(lambda x: chain(x, 3000), rng.standard_normal(3))


def both(*arrays):
    """The same leaves in minidl and in PyTorch."""
    return [Tensor(a.copy(), requires_grad=True) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]


def test_gradients_of_two_losses_add_up(rng):
    x = rng.standard_normal((3, 4))
    mine, their = both(x)
    for (leaf,) in (mine, their):
        (leaf * leaf).sum().backward()
        leaf.exp().sum().backward()
    assert_same("two losses", mine[0].grad, their[0].grad, GRADIENT)


def test_backward_twice_through_a_retained_graph(rng):
    x, y = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
    mine, their = both(x, y)
    inner = []
    for a, b in (mine, their):
        z = a.tanh() * b
        z.retain_grad()
        loss = (z * z).sum()
        loss.backward(retain_graph=True)
        loss.backward()
        inner.append(z)
    for m, t in zip([*mine, inner[0]], [*their, inner[1]], strict=True):
        assert_same("both backwards", m.grad, t.grad, GRADIENT)


def test_two_roots_share_a_graph(rng):
    mine, their = both(rng.standard_normal((3, 4)))
    for (leaf,) in (mine, their):
        shared = leaf.tanh()
        (shared * 2).sum().backward(retain_graph=True)
        (shared * shared).mean().backward()
    assert_same("two roots", mine[0].grad, their[0].grad, GRADIENT)


@pytest.mark.parametrize("add", [lambda a, b: a + b, doubled_sum], ids=["add", "doubled_sum"])
def test_gradients_do_not_share_memory(add, rng):
    """y = a + b: doubling one gradient in place must leave the other alone, and the next backward must add to both."""
    mine, their = both(rng.standard_normal((3, 4)), rng.standard_normal((3, 4)))
    for a, b in (mine, their):
        add(a, b).sum().backward()
        a.grad *= 2
        (add(a, b) * a.detach()).sum().backward()
    for m, t in zip(mine, their, strict=True):
        assert_same("gradient", m.grad, t.grad, GRADIENT)


@pytest.mark.parametrize("where", ["leaf", "inner", "root"])
def test_hooks(where, rng):
    """Two hooks in order, one removed; what they see and what they change."""
    mine, their = both(rng.standard_normal((3, 4)))
    seen = []
    for (leaf,) in (mine, their):
        inner = leaf.tanh() * 3
        root = (inner * inner).sum()
        target = {"leaf": leaf, "inner": inner, "root": root}[where]
        target.retain_grad()
        log = []
        target.register_hook(lambda g, log=log: log.append(g) or g * 2)
        target.register_hook(lambda g: g * 100).remove()
        target.register_hook(lambda g, log=log: log.append(g))
        root.backward()
        seen.append([*log, target.grad, leaf.grad])
    for i, (m, t) in enumerate(zip(*seen, strict=True)):
        assert_same(f"seen {i}", m, t, GRADIENT)


def test_a_hook_on_a_tensor_used_twice_runs_once_with_the_sum(rng):
    mine, their = both(rng.standard_normal(4))
    seen = []
    for (leaf,) in (mine, their):
        inner = leaf.tanh()
        log = []
        inner.register_hook(log.append)
        (inner * 2 + inner.exp()).sum().backward()
        seen.append(log)
    assert len(seen[0]) == len(seen[1]) == 1
    assert_same("whole gradient", seen[0][0], seen[1][0], GRADIENT)


def test_no_grad_and_detach_cut_the_graph(rng):
    mine, their = both(rng.standard_normal(4))
    for leaf, off in ((mine[0], no_grad), (their[0], torch.no_grad)):
        with off():
            constant = leaf.exp()
        assert not constant.requires_grad and constant.is_leaf
        (leaf * constant + leaf.detach() * leaf).sum().backward()
    assert_same("gradient", mine[0].grad, their[0].grad, GRADIENT)


def test_a_tensor_without_requires_grad_gets_none(rng):
    x, constant = rng.standard_normal(4), rng.standard_normal(4)
    for leaf, other in (
        (Tensor(x, requires_grad=True), Tensor(constant)),
        (torch.tensor(x, requires_grad=True), torch.tensor(constant)),
    ):
        (leaf * other).sum().backward()
        assert other.grad is None and leaf.grad is not None


# ---------------------------------------------------------------------------------------------------- mixed dtypes

MIXED = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / (y * y + 1),
    "pow": lambda x, y: (x * x + 1) ** y,
    "number": lambda x, y: (x * 2.5 + 1) / 3 - y,
    "chain": lambda x, y: (x.exp() + y).tanh() * x,
    "reduced": lambda x, y: x.sum(0) * y.mean(1, keepdim=True),
    "used in both": lambda x, y: (x * x).sum(1, keepdim=True) + x * y,
}


@pytest.mark.parametrize(
    "dtypes", [("float32", "float64"), ("float64", "float32"), ("float32", "float32"), ("float16", "float32")]
)
@pytest.mark.parametrize("name", MIXED)
def test_promotion(name, dtypes, rng):
    """Results in the wider dtype, gradients in each input's own. Precision: that of the narrower dtype, a few roundings."""
    arrays = [rng.standard_normal((4, 4)).astype(dtype) for dtype in dtypes]
    eps = max(np.finfo(dtype).eps for dtype in dtypes)
    mine, their = both(*arrays)
    m, t = MIXED[name](*mine), MIXED[name](*their)
    assert_same("value", m, t, 20 * eps)
    upstream = rng.standard_normal((4, 4)).astype(m.dtype)
    m.backward(upstream)
    t.backward(torch.tensor(upstream))
    for a, b in zip(mine, their, strict=True):
        assert_same("gradient", a.grad, b.grad, 50 * eps)


def test_a_gradient_has_its_tensors_dtype_inside_the_graph_too(rng):
    mine, their = both(rng.standard_normal(4).astype("float32"), rng.standard_normal(4))
    seen = []
    for single, double in (mine, their):
        inner = single * 2
        log = []
        inner.register_hook(log.append)
        (inner * double).sum().backward()
        seen.append(log[0])
    assert_same("gradient", *seen, 1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cast(dtype, rng):
    mine, their = both(rng.standard_normal((3, 4)))
    for (leaf,), kind in ((mine, dtype), (their, getattr(torch, dtype))):
        y = leaf.to(kind)
        (y * y).sum().backward()
    assert_same("gradient", mine[0].grad, their[0].grad, 1e-6 if dtype == "float32" else GRADIENT)
