"""Modules are PyTorch's: the same lines run in both, and give the same names, numbers, texts and kinds of errors."""

from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest

import minidl

from .compare import host

torch = pytest.importorskip("torch")

MINE = SimpleNamespace(
    nn=minidl.nn, t=lambda a: minidl.Tensor(np.array(a)), no_grad=minidl.no_grad, f64=np.float64, i64=np.int64
)
THEIRS = SimpleNamespace(
    nn=torch.nn, t=lambda a: torch.tensor(np.array(a)), no_grad=torch.no_grad, f64=torch.float64, i64=torch.int64
)


def dtypes(module):
    return [str(t.dtype).removeprefix("torch.") for t in (*module.parameters(), *module.buffers())]


def names(module):
    return [n for n, _ in module.named_parameters()], [n for n, _ in module.named_buffers()], list(module.state_dict())


def attempt(call):
    """What it returns, or the kind of its error."""
    try:
        return call()
    except Exception as error:
        return type(error).__name__


def counted(m):
    """Linear layers of different widths: which is where can be seen from the sizes."""
    return [m.nn.Linear(2, n) for n in range(1, 5)]


def widths(modules):
    return [module.out_features for module in modules], [name for name, _ in modules.named_children()]


# --------------------------------------------------------------------------------------------------------------- programs


def moving(m):
    def net():
        built = m.nn.Sequential(m.nn.Linear(2, 2), m.nn.BatchNorm1d(2))
        return built, lambda: dtypes(built)

    seen = []
    for move in (
        lambda n: n.to(m.f64),
        lambda n: n.to("cpu", m.f64),
        lambda n: n.to("cpu", m.f64, True),
        lambda n: n.to(m.f64, non_blocking=True),
        lambda n: n.to(device="cpu", dtype=m.f64, non_blocking=True),
        lambda n: n.to(None, m.f64),
        lambda n: n.to(device=None, dtype=None),
        lambda n: n.to(m.t([1.0])),
        lambda n: n.to("cpu"),
        lambda n: n.double().half(),
        lambda n: n.double().cpu().float(),
        lambda n: n.double(),
    ):
        built, look = net()
        seen.append((move(built) is built, look()))
    return [*seen, attempt(lambda: net()[0].to(m.i64)), attempt(lambda: net()[0].to(m.t([1])))]


def looking_up(m):
    net = m.nn.Sequential(OrderedDict(a=m.nn.Sequential(m.nn.Linear(2, 3)), b=m.nn.BatchNorm1d(3)))
    assert net.get_submodule("") is net and net.get_submodule("a.0") is net.a[0]
    assert net.get_parameter("a.0.weight") is net.a[0].weight and net.get_buffer("b.running_var") is net.b.running_var
    calls = [(net.get_submodule, t) for t in ("x", "a.1", "a.0.weight", "a.0.in_features", "a..0")]
    calls += [(net.get_parameter, t) for t in ("x", "a", "b.running_var", "a.0.in_features", "")]
    calls += [(net.get_buffer, t) for t in ("x", "a.0.weight", "b.eps")]
    return [attempt(lambda f=f, t=t: f(t)) for f, t in calls]


def attributes(m):
    class Net(m.nn.Module):
        own = 1

    net, p = Net(), m.nn.Parameter(m.t([1.0]))
    seen = []

    def look(call):
        seen.append((attempt(call), *names(net), [n for n, _ in net.named_children()]))

    for call in (
        lambda: setattr(net, "x", p),
        lambda: setattr(net, "x", 3.0),
        lambda: setattr(net, "x", m.t([1.0])),
        lambda: setattr(net, "x", None),
        lambda: setattr(net, "x", m.nn.ReLU()),
        lambda: setattr(net, "x", m.t([1.0])),
        lambda: setattr(net, "x", p),
        lambda: net.register_buffer("x", m.t([1.0])),
        lambda: net.add_module("x", m.nn.ReLU()),
        lambda: net.register_buffer("b", m.t([1.0]), persistent=False),
        lambda: setattr(net, "b", m.t([2.0])),
        lambda: setattr(net, "b", None),
        lambda: setattr(net, "b", p),
        lambda: delattr(net, "b"),
        lambda: net.register_buffer("b", m.t([1.0])),
        lambda: net.register_buffer("b", m.t([1.0]), False),
        lambda: setattr(net, "plain", m.t([1.0])),
        lambda: setattr(net, "plain", p),
        lambda: setattr(net, "own", p),
        lambda: net.register_parameter("own", None),
        lambda: net.register_buffer("own", None),
        lambda: net.add_module("own", None),
        lambda: net.register_module("training", m.nn.ReLU()),
        lambda: net.register_parameter("r", m.t([1.0])),
        lambda: net.register_buffer("r", 1.0),
        lambda: net.add_module("r", 1.0),
        lambda: net.register_parameter(3, None),
        lambda: net.register_buffer(3, None),
        lambda: net.add_module(3, None),
        lambda: net.register_parameter("a.b", None),
        lambda: net.register_buffer("", None),
        lambda: net.add_module("a.b", None),
        lambda: net.register_parameter("later", None),
        lambda: setattr(net, "later", p),
        lambda: delattr(net, "missing"),
    ):
        look(call)
    return seen


def walking(m):
    shared = m.nn.Linear(1, 1)
    net = m.nn.Sequential(shared, m.nn.Sequential(shared, m.nn.ReLU()), shared)
    seen = [[n for n, _ in net.named_modules(remove_duplicate=flag)] for flag in (True, False)]
    seen += [[n for n, _ in net.named_modules(set(), "p")], [n for n, _ in net.named_modules({shared}, "p")]]
    seen += [[n for n, _ in net.named_children()], len(list(net.children())), len(list(net.modules()))]
    order = []
    net.apply(lambda module: order.append(type(module).__name__))
    return [*seen, order]


def switching(m):
    class Frozen(m.nn.Module):
        """Its dropout stays as in evaluation."""

        def __init__(self):
            super().__init__()
            self.drop = m.nn.Dropout()

        def train(self, mode=True):
            super().train(mode)
            self.drop.eval()
            return self

    net = m.nn.Sequential(Frozen(), m.nn.Linear(1, 1))
    seen = [net.train() is net, [module.training for module in net.modules()]]
    seen += [net.eval() is net, [module.training for module in net.modules()], attempt(lambda: net.train(1))]
    seen += [net.requires_grad_(False) is net, [p.requires_grad for p in net.parameters()]]
    return seen


def list_methods(m):
    seen = []
    for make in (lambda a: m.nn.Sequential(*a), m.nn.ModuleList):
        for change in (
            lambda n: n.append(m.nn.Linear(2, 9)),
            lambda n: n.extend([m.nn.Linear(2, 9), m.nn.Linear(2, 8)]),
            lambda n: n.extend(m.nn.ModuleList([m.nn.Linear(2, 9)])),
            lambda n: n.insert(1, m.nn.Linear(2, 9)),
            lambda n: n.insert(4, m.nn.Linear(2, 9)),
            lambda n: n.__delitem__(1),
            lambda n: n.__delitem__(-1),
            lambda n: n.__delitem__(slice(1, 3)),
            lambda n: n.__setitem__(-2, m.nn.Linear(2, 9)),
            lambda n: n.pop(0),
            lambda n: n.pop(-1),
            lambda n: n[np.int64(1)],
            lambda n: n[9],
            lambda n: n["0"],
            lambda n: n.pop(9),
            lambda n: n.extend(3),
        ):
            built = make(counted(m))
            result = attempt(lambda built=built, change=change: change(built))
            seen.append((widths(built), result if isinstance(result, str) else isinstance(result, m.nn.Linear)))
    return seen


def sequential_arithmetic(m):
    def net():
        return m.nn.Sequential(*counted(m)[:2])

    grown = net()
    grown += net()
    doubled = net()
    doubled *= 3
    joined, times, again = net() + net(), net() * 2, 2 * net()
    seen = [widths(n) for n in (joined, grown)] + [[b.out_features for b in n] for n in (times, again, doubled)]
    seen += [len(list(n.named_children())) for n in (times, doubled)] + [times[0] is times[2], net()[1:][0].out_features]
    seen += [
        attempt(lambda: net() + 1),
        attempt(lambda: net() * 0),
        attempt(lambda: net() * 1.5),
        attempt(lambda: net().insert(5, net())),
    ]
    more = m.nn.ModuleList(net()) + m.nn.ModuleList([m.nn.Linear(2, 7)])
    more += net()
    return [*seen, widths(more), type(more[1:]).__name__, widths(more[1:])]


def dicts(m):
    modules = m.nn.ModuleDict({"b": m.nn.Linear(2, 1), "a": m.nn.Linear(2, 2)})
    modules["c"] = m.nn.Linear(2, 3)
    modules.update([("d", m.nn.Linear(2, 4)), ("a", m.nn.Linear(2, 5))])
    seen = [list(modules), list(modules.keys()), [v.out_features for v in modules.values()], "a" in modules, len(modules)]
    seen += [modules.pop("b").out_features, [k for k, _ in modules.items()], names(modules)]
    del modules["c"]
    seen += [
        list(modules),
        attempt(lambda: modules["z"]),
        attempt(lambda: modules.update(3)),
        attempt(lambda: modules.update([1])),
    ]
    seen += [attempt(lambda: m.nn.ModuleDict({"keys": m.nn.ReLU()})), attempt(lambda: modules.update([("a",)]))]
    seen += [attempt(lambda: m.nn.ModuleDict({3: m.nn.ReLU()}))]
    modules.clear()
    return [*seen, len(modules), repr(m.nn.ModuleDict({"x": m.nn.ReLU()})), repr(modules)]


def parameter_lists(m):
    shapes = lambda ps: [tuple(p.shape) for p in ps]
    ps = m.nn.ParameterList([m.t([1.0]), m.nn.Parameter(m.t([1.0, 2.0]))])
    ps.append(m.t([[1.0]])).extend([m.t(np.ones(4))])
    ps += [m.t(np.ones(5))]
    ps[0] = m.t(np.ones(6))
    seen = [shapes(ps), len(ps), shapes([ps[-1]]), shapes(ps[1:3]), type(ps[1:3]).__name__, names(ps), repr(ps)]
    seen += [all(isinstance(p, m.nn.Parameter) and p.requires_grad for p in ps), attempt(lambda: ps[9])]
    return [*seen, attempt(lambda: ps.extend(m.t([1.0]))), attempt(lambda: ps(1)) in ("RuntimeError", "NotImplementedError")]


def parameter_dicts(m):
    ps = m.nn.ParameterDict({"b": m.t([1.0]), "a": m.nn.Parameter(m.t([1.0, 2.0]))})
    ps.update(OrderedDict(z=m.t([3.0]), y=m.t([4.0])))
    ps["b"] = m.t([5.0])
    seen = [names(ps), list(ps), list(reversed(ps)), len(ps), "a" in ps, [k for k, _ in ps.items()], len(list(ps.values()))]
    seen += [ps.get("q"), ps.popitem()[0], tuple(ps.pop("a").shape), list(ps.keys())]
    joined = ps | m.nn.ParameterDict({"k": m.t([1.0])})
    joined |= {"l": m.t([1.0])}
    seen += [
        list(joined),
        list(ps),
        float(joined.setdefault("l", m.t([7.0])).sum()),
        float(joined.setdefault("n", m.t([7.0])).sum()),
    ]
    seen += [joined.copy()["n"] is joined["n"]]
    joined.clear()
    return [*seen, len(joined), attempt(lambda: m.nn.ParameterDict({"keys": m.t([1.0])}))]


def texts(m):
    class Two(m.nn.Module):
        def extra_repr(self):
            return "a=1,\nb=2"

    class Nested(Two):
        def __init__(self):
            super().__init__()
            self.inner, self.none = m.nn.ReLU(), None
            self.add_module("reserved", None)

    same = [m.nn.Sequential(m.nn.Linear(2, 2)) for _ in range(3)]
    return [repr(Two()), repr(Nested()), repr(m.nn.ModuleList([*same, m.nn.ReLU(), Two(), Two()])), repr(m.nn.ModuleList())]


def hooks(m):
    class Net(m.nn.Module):
        def forward(self, x, *, factor=1, fail=False):
            if fail:
                raise KeyError("forward")
            return x * factor

    net, seen, x = Net(), [], m.t([1.0, 2.0])

    def note(name):
        return lambda module, *rest: seen.append(
            (name, len(rest), [sorted(r) if isinstance(r, dict) else r is None for r in rest])
        )

    handles = [net.register_forward_hook(note("first")), net.register_forward_hook(note("early"), prepend=True)]
    handles += [net.register_forward_hook(note("kwargs"), with_kwargs=True), net.register_forward_pre_hook(note("pre"))]
    handles += [net.register_forward_pre_hook(note("pre early"), prepend=True, with_kwargs=True)]
    handles += [net.register_forward_hook(note("always"), always_call=True)]
    handles += [net.register_forward_hook(note("always kwargs"), always_call=True, with_kwargs=True, prepend=True)]
    net(x, factor=3)
    seen.append(attempt(lambda: net(x, fail=True)))
    for handle in handles:
        handle.remove()
    net(x)
    with net.register_forward_pre_hook(lambda module, args, kwargs: (args, {"factor": 5}), with_kwargs=True):
        seen.append(float(net(x).sum()))
    with net.register_forward_pre_hook(lambda module, args, kwargs: args, with_kwargs=True):
        seen.append(attempt(lambda: net(x)))
    seen.append(float(net(x).sum()))
    with net.register_forward_hook(lambda module, args, kwargs, y: y * len(kwargs), with_kwargs=True):
        seen.append(float(net(x, factor=2).sum()))
    return seen


def hooks_that_raise(m):
    def broken(*_):
        raise ValueError("hook")

    net, seen = m.nn.Identity(), []
    net.register_forward_hook(broken)
    net.register_forward_hook(lambda module, args, y: seen.append("later"), always_call=True)
    seen.append(attempt(lambda: net(m.t([1.0]))))
    other = m.nn.Identity()
    other.register_forward_hook(broken, always_call=True)
    return [*seen, attempt(lambda: other(m.t([1.0])))]


def backward_hooks_before_others(m):
    net, seen = m.nn.Linear(2, 1), []
    net.register_full_backward_hook(lambda *_: seen.append(1))
    net.register_full_backward_hook(lambda *_: seen.append(2), prepend=True)
    x = m.t(np.ones((1, 2), np.float32))
    x.requires_grad_()
    net(x).sum().backward()
    return seen


PROGRAMS = [
    moving,
    looking_up,
    attributes,
    walking,
    switching,
    list_methods,
    sequential_arithmetic,
    dicts,
    parameter_lists,
    texts,
    hooks,
    hooks_that_raise,
    backward_hooks_before_others,
    parameter_dicts,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_a_program_does_the_same(program):
    mine, theirs = program(MINE), program(THEIRS)
    assert str(mine).replace("torch.", "") == str(theirs).replace("torch.", "")


def test_a_hook_that_is_always_called_and_raises_after_an_error_is_a_warning():
    def broken(*_):
        raise ValueError("hook")

    for m in (MINE, THEIRS):
        net = m.nn.Linear(1, 1)
        net.register_forward_hook(broken, always_call=True)
        with pytest.warns(UserWarning, match="always_call"), pytest.raises(Exception, match=r"(?!hook)"):
            net("no tensor")


# --------------------------------------------------------------------------------------------------- PyTorch's own tensors

VALUES = {
    "plain": lambda: torch.arange(6.0).reshape(2, 3),
    "with a gradient": lambda: torch.nn.Parameter(torch.arange(6.0).reshape(2, 3)),
    "of a graph": lambda: torch.arange(6.0, requires_grad=True).reshape(2, 3) * 2,
    "not contiguous": lambda: torch.arange(6.0).reshape(3, 2).T,
    "strided": lambda: torch.arange(12.0).reshape(2, 6)[:, ::2],
    "float64": lambda: torch.arange(6.0, dtype=torch.float64).reshape(2, 3),
    "float16": lambda: torch.arange(6.0, dtype=torch.float16).reshape(2, 3),
    "bfloat16": lambda: torch.arange(6.0, dtype=torch.bfloat16).reshape(2, 3) / 3,
    "bfloat16 with a gradient": lambda: torch.nn.Parameter(torch.arange(6.0, dtype=torch.bfloat16).reshape(2, 3)),
}


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("name", VALUES)
def test_pytorchs_tensors_are_loaded(name, assign):
    net, value = minidl.nn.Linear(3, 2, bias=False), VALUES[name]()
    weight = net.weight
    net.load_state_dict({"weight": value}, assign=assign)
    assert (net.weight is weight) == (not assign)
    assert net.weight.requires_grad and isinstance(net.weight, minidl.nn.Parameter)
    np.testing.assert_array_equal(host(net.weight), value.detach().float().numpy())
    if not assign:
        assert net.weight.dtype == np.float32


def test_a_whole_state_dict_of_pytorch_is_loaded_with_its_0d_count():
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    theirs(torch.randn(5, 3))
    mine = minidl.nn.Sequential(minidl.nn.Linear(3, 4), minidl.nn.BatchNorm1d(4))
    assert mine.load_state_dict(theirs.state_dict()) == ([], [])
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(mine.state_dict()[key], value.numpy())


@pytest.mark.parametrize("value", [lambda: torch.ones(2, 3, device="meta"), lambda: torch.ones(2, 3).to_sparse()])
def test_what_numpy_cannot_read_is_named(value):
    with pytest.raises(
        RuntimeError, match=r"type mismatch for weight: a Tensor or an array that NumPy can read .* got Tensor of torch"
    ):
        minidl.nn.Linear(3, 2, bias=False).load_state_dict({"weight": value()})


def test_assign_puts_the_tensors_in():
    for m in (MINE, THEIRS):
        net = m.nn.BatchNorm1d(2)
        state = {
            key: m.t(np.full(np.shape(value), 3.0)) for key, value in net.state_dict().items() if key != "num_batches_tracked"
        }
        state["weight"] = m.nn.Parameter(state["weight"])
        net.bias.requires_grad_(False)
        net.load_state_dict(state, strict=False, assign=True)
        assert net.weight is state["weight"] and net.running_mean is state["running_mean"]
        assert dtypes(net)[:4] == ["float64"] * 4
        assert isinstance(net.bias, m.nn.Parameter) and net.bias is not state["bias"] and not net.bias.requires_grad
