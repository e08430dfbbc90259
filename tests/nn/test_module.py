"""minidl.nn.module: registration and names, saving and loading, moving, hooks, containers; PyTorch is the oracle for names,
order, texts and backward hooks."""

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import minidl.nn.functional as F
from minidl.device import Device, count_traffic
from minidl.grad_mode import no_grad
from minidl.layout import channels_last, is_channels_last
from minidl.nn import Conv2d, Dropout, Flatten, Identity, Linear, Module, ModuleList, Parameter, ReLU, Sequential
from minidl.tensor import Tensor


class Net(Module):
    """Own parameter, buffers, nested and shared modules: everything that gets a name."""

    def __init__(self):
        super().__init__()
        self.features = Sequential(OrderedDict(conv1=Conv2d(4, 6, 3, groups=2), relu1=ReLU()))
        self.scale = Parameter(np.full((1,), 2.0, np.float32))
        self.heads = ModuleList([Linear(6, 3), Linear(6, 3, bias=False)])
        self.again = self.heads[0]
        self.register_buffer("mean", Tensor(np.arange(4.0, dtype=np.float32)))
        self.register_buffer("count", Tensor(np.array([7])))
        self.register_buffer("scratch", Tensor(np.zeros(2, np.float32)), persistent=False)

    def forward(self, x):
        x = self.features(x)
        return F.linear(F.flatten(x, 1), self.heads[0].weight) * self.scale


KEYS = [
    "scale",
    "mean",
    "count",
    "features.conv1.weight",
    "features.conv1.bias",
    "heads.0.weight",
    "heads.0.bias",
    "heads.1.weight",
    "again.weight",
    "again.bias",
]


class Product(Module):
    """Two tensor inputs and a constant: z = x * y * factor."""

    def forward(self, x, y, factor):
        return x * y * factor


def leaf(*values, device="cpu:0"):
    return Tensor(np.array(values, np.float32), requires_grad=True, device=device)


# --------------------------------------------------------------------------------------------------------- registration


def test_names_and_their_order():
    net = Net()
    parameters = [name for name, _ in net.named_parameters()]
    assert parameters == [key for key in KEYS if key not in ("mean", "count", "again.weight", "again.bias")]
    everywhere = [name for name, _ in net.named_parameters("net", remove_duplicate=False)]
    assert everywhere == [f"net.{key}" for key in KEYS if key not in ("mean", "count")]
    assert [name for name, _ in net.named_parameters(recurse=False)] == ["scale"]
    assert [name for name, _ in net.named_buffers()] == ["mean", "count", "scratch"]
    assert next(net.parameters()) is net.scale
    assert next(net.buffers()) is net.mean
    assert [name for name, _ in net.named_children()] == ["features", "heads", "again"]
    assert list(net.children())[1] is net.heads
    names = ["", "features", "features.conv1", "features.relu1", "heads", "heads.0", "heads.1"]
    assert [name for name, _ in net.named_modules()] == names
    assert [name for name, _ in net.named_modules(remove_duplicate=False)] == [*names, "again"]
    assert len(list(net.modules())) == 7


def test_reassigning_and_deleting():
    net = Net()
    fresh = Parameter(np.ones(1, np.float32))
    net.scale = fresh
    assert dict(net.named_parameters())["scale"] is fresh
    net.scale = None
    assert net.scale is None
    assert "scale" not in net.state_dict()
    net.scale = fresh  # the name was reserved
    assert "scale" in net.state_dict()
    del net.scale
    assert not hasattr(net, "scale")
    net.mean = Tensor([1.0])
    assert dict(net.named_buffers())["mean"] is net.mean
    net.scratch = Tensor([1.0])
    assert "scratch" not in net.state_dict()
    net.heads = None
    assert "heads.0.weight" not in net.state_dict()


def test_a_name_belongs_to_one_kind():
    net = Module()
    net.x = 3
    net.x = Parameter([1.0])
    assert "x" not in net.__dict__
    with pytest.raises(TypeError, match="parameter 'x' must be a Parameter or None, got Linear"):
        net.x = Linear(1, 1)
    del net.x
    net.x = Linear(1, 1)
    assert [name for name, _ in net.named_parameters()] == ["x.weight", "x.bias"]
    net.register_buffer("b", Tensor([1.0]), persistent=False)
    net.b = Parameter([1.0])
    assert "b" in net.state_dict()


def test_plain_tensors_are_not_registered():
    net = Module()
    net.x = Tensor([1.0])
    assert net.state_dict() == {}


def test_parameter():
    array = np.ones((2, 3), np.float32)
    parameter = Parameter(array)
    assert parameter.requires_grad
    assert parameter.is_leaf
    assert parameter.data is array
    assert not Parameter(array, requires_grad=False).requires_grad
    assert Parameter(Tensor(array, device="cpu:1")).device is Device("cpu:1")
    assert repr(Parameter([1.0])) == "Parameter containing:\ntensor([1.], requires_grad=True)"


class Early(Module):
    def __init__(self, value):
        self.early = value
        super().__init__()


class Loader(Module):
    weight_decay = 0.1


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: Early(Parameter([1.0])),
            AttributeError,
            "Early: call super().__init__() before assigning parameter 'early'",
        ),
        (
            lambda: Early(Module()),
            AttributeError,
            "Early: call super().__init__() before assigning module 'early'",
        ),
        (lambda: Net().missing, AttributeError, "'Net' object has no attribute 'missing'"),
        (
            lambda: setattr(Net(), "scale", 3.0),
            TypeError,
            "Net: parameter 'scale' must be a Parameter or None, got float",
        ),
        (
            lambda: setattr(Net(), "mean", np.ones(4)),
            TypeError,
            "Net: buffer 'mean' must be a Tensor or None, got ndarray",
        ),
        (
            lambda: setattr(Net(), "heads", [1]),
            TypeError,
            "Net: module 'heads' must be a Module or None, got list",
        ),
        (
            lambda: Module().add_module("a.b", Module()),
            KeyError,
            "Module: the name of a module must be non-empty and without \".\", got 'a.b'",
        ),
        (
            lambda: Module().register_parameter("", None),
            KeyError,
            "Module: the name of a parameter must be non-empty and without \".\", got ''",
        ),
        (
            lambda: setattr(Loader(), "weight_decay", Parameter([1.0])),
            KeyError,
            "Loader: a parameter needs a name of its own, got 'weight_decay', an attribute that already exists",
        ),
        (lambda: Module()(1), NotImplementedError, "Module: forward is missing"),
        (lambda: Net().train("yes"), ValueError, "train: mode must be a bool, got 'yes'"),
        (
            lambda: Net().to(np.int64),
            TypeError,
            "to: dtype must be one of float16, float32, float64, got <class 'numpy.int64'>",
        ),
        (
            lambda: Net().to("gpu:0"),
            RuntimeError,
            "device: a name is cpu, cpu:N, cuda or cuda:N, got 'gpu:0'; cpu:0 and cpu:1 work here",
        ),
        (
            lambda: Net().load_state_dict([1]),
            TypeError,
            "load_state_dict: state_dict must be a mapping, got list",
        ),
        (
            lambda: Sequential(ReLU(), ReLU())[2],
            IndexError,
            "Sequential: index must be in [-2, 1], got 2",
        ),
        (lambda: ModuleList([ReLU()])[-2], IndexError, "ModuleList: index must be in [-1, 0], got -2"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert caught.value.args == (text,)


def test_deepcopy_and_pickle():
    net = Net()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin.scale is not net.scale
        assert twin.again is twin.heads[0]
        for key, value in net.state_dict().items():
            np.testing.assert_array_equal(twin.state_dict()[key], value)
    assert is_channels_last(copy.deepcopy(net).features.conv1.weight.data)


# ------------------------------------------------------------------------------------------------------ saving, loading


def test_state_dict_holds_copies_in_c_order():
    net = Net()
    state = net.state_dict()
    assert list(state) == KEYS
    assert all(type(value) is np.ndarray and value.flags.c_contiguous for value in state.values())
    before = state["features.conv1.weight"].copy()
    for tensor in (*net.parameters(), *net.buffers()):
        tensor.data[...] = 0
    np.testing.assert_array_equal(state["features.conv1.weight"], before)
    np.testing.assert_array_equal(state["mean"], np.arange(4.0))


def test_state_dict_keeps_0d_shapes():
    net = Module()
    net.t = Parameter(np.float32(3))
    assert net.state_dict()["t"].shape == ()


def test_loading_writes_in_place():
    source, net = Net(), Net().to("cpu:1")
    tensors = dict(net._named_state())
    arrays = {name: t.data for name, t in tensors.items()}
    state = source.state_dict()
    state["scale"] = np.array([np.nan])  # float64, and not finite
    state["heads.1.weight"] = Tensor(state["heads.1.weight"])
    assert net.load_state_dict(state) == ([], [])
    for name, tensor in net._named_state():
        assert tensor is tensors[name]
        assert tensor.data is arrays[name]
        assert tensor.device is Device("cpu:1")
        np.testing.assert_array_equal(tensor.data, np.asarray(state[name]))
    assert net.scale.dtype == np.float32
    assert is_channels_last(net.features.conv1.weight.data)


def test_loading_copies_what_it_is_given():
    net, array = Linear(2, 2, bias=False), np.ones((2, 2), np.float32)
    net.load_state_dict({"weight": array})
    array[...] = 5
    np.testing.assert_array_equal(net.weight.data, np.ones((2, 2)))


def broken_state():
    """One of each fault."""
    state = Net().state_dict()
    del state["heads.0.bias"], state["scale"]
    state |= {"extra": np.ones(1), "heads.2.weight": np.ones(1), "features.conv1.weight": np.ones((8, 2, 3, 3))}
    return state | {"heads.1.weight": np.ones((3, 5)), "count": np.array([1.5]), "mean": [0.0] * 4}


def test_every_fault_is_listed_and_nothing_is_changed():
    net = Net()
    before = net.state_dict()
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(broken_state())
    assert str(caught.value) == (
        "Error(s) in loading state_dict for Net:"
        '\n\tMissing key(s) in state_dict: "scale", "heads.0.bias".'
        '\n\tUnexpected key(s) in state_dict: "extra", "heads.2.weight".'
        "\n\ttype mismatch for mean: a Tensor or an array that NumPy can read can be copied, got list."
        "\n\tdtype mismatch for count: copying a param of float64 from checkpoint, the dtype in current model is int64."
        "\n\tsize mismatch for features.conv1.weight: copying a param with shape (8, 2, 3, 3) from checkpoint, "
        "the shape in current model is (6, 2, 3, 3)."
        "\n\tsize mismatch for heads.1.weight: copying a param with shape (3, 5) from checkpoint, "
        "the shape in current model is (3, 6)."
    )
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_not_strict_skips_keys_but_not_sizes():
    net = Linear(2, 1)
    result = net.load_state_dict({"weight": np.ones((1, 2)), "extra": np.ones(1)}, strict=False)
    assert result.missing_keys == ["bias"]
    assert result.unexpected_keys == ["extra"]
    np.testing.assert_array_equal(net.weight.data, [[1, 1]])
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict({"weight": np.ones((2, 2)), "extra": np.ones(1)}, strict=False)
    assert "size mismatch for weight" in str(caught.value)
    assert "extra" not in str(caught.value)


# ----------------------------------------------------------------------------------------------------- moving, switching


def with_gradients(net):
    for parameter in net.parameters():
        parameter.grad = Tensor(np.ones_like(parameter.data))
    return net


def test_to_a_device():
    net = with_gradients(Net())
    tensors = [*net.parameters(), *net.buffers()]
    before = [(t.data, t.grad, None if t.grad is None else t.grad.data) for t in tensors]
    size = sum(data.nbytes + (0 if array is None else array.nbytes) for data, _, array in before)
    with count_traffic() as traffic:
        assert net.to("cpu:1") is net
        net.to(Device("cpu:1"))
    assert traffic == {("cpu:0", "cpu:1"): size}  # the second move has nothing to do
    for tensor, now, (data, grad, array) in zip(tensors, [*net.parameters(), *net.buffers()], before, strict=True):
        assert now is tensor
        assert tensor.device is Device("cpu:1")
        assert not np.shares_memory(tensor.data, data)
        np.testing.assert_array_equal(tensor.data, data)
        if grad is not None:
            assert tensor.grad is grad and grad.device is Device("cpu:1")
            assert not np.shares_memory(grad.data, array)
            np.testing.assert_array_equal(grad.data, array)
    assert is_channels_last(net.features.conv1.weight.data)


@pytest.mark.parametrize("target", [np.float64, "float64", np.dtype("float64")])
def test_to_a_dtype(target):
    net = with_gradients(Net())
    scale = net.scale
    net.to(target)
    assert net.scale is scale
    assert scale.dtype == scale.grad.dtype == net.mean.dtype == np.float64
    assert net.count.dtype == np.int64
    assert is_channels_last(net.features.conv1.weight.data)


def test_float_and_double():
    net = Net()
    assert net.double() is net
    assert net.scale.dtype == np.float64
    assert net.float() is net
    assert net.scale.dtype == np.float32


def test_train_and_eval_reach_every_module():
    net = Net()
    assert all(module.training for module in net.modules())
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    assert net.train() is net
    assert all(module.training for module in net.modules())


def test_zero_grad():
    net = with_gradients(Net())
    arrays = [p.grad for p in net.parameters()]
    net.zero_grad(set_to_none=False)
    assert all(p.grad is array and not array.any() for p, array in zip(net.parameters(), arrays, strict=True))
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net.zero_grad(set_to_none=False)
    assert all(p.grad is None for p in net.parameters())


def test_requires_grad():
    net = Net()
    assert net.features.requires_grad_(False) is net.features
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == [
        "features.conv1.weight",
        "features.conv1.bias",
    ]
    net.requires_grad_()
    assert all(p.requires_grad for p in net.parameters())


def test_apply_visits_children_first():
    seen = []
    net = Sequential(ReLU(), Sequential(Identity()))
    assert net.apply(lambda module: seen.append(type(module).__name__)) is net
    assert seen == ["ReLU", "Identity", "Sequential", "Sequential"]


# --------------------------------------------------------------------------------------------------------- forward hooks


def test_forward_hooks_see_and_replace():
    layer, x = ReLU(), Tensor([-1.0, 2.0])
    seen = []
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append((module, inputs, output)))
    y = layer(x)
    assert seen[0][0] is layer
    assert seen[0][1] == (x,)
    assert seen[0][2] is y
    handle.remove()
    layer(x)
    assert len(seen) == 1
    layer.register_forward_hook(lambda module, inputs, output: output * 10)
    np.testing.assert_array_equal(layer(x).numpy(), [0, 20])


def test_forward_pre_hooks_see_and_replace():
    layer, x = ReLU(), Tensor([-1.0, 2.0])
    seen = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append((module, inputs)))
    layer(x)
    assert seen == [(layer, (x,))]
    handle.remove()
    layer.register_forward_pre_hook(lambda module, inputs: inputs[0] * -1)
    layer.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 3,))
    np.testing.assert_array_equal(layer(x).numpy(), [3, 0])
    assert len(seen) == 1


def test_hooks_run_in_order_even_when_their_handles_are_dropped():
    layer, seen = Identity(), []
    for i in range(4):
        layer.register_forward_hook(lambda module, inputs, output, i=i: seen.append(i))
    layer(Tensor([1.0]))
    assert seen == [0, 1, 2, 3]


# -------------------------------------------------------------------------------------------------------- backward hooks


def record(module):
    seen = []
    return seen, module.register_full_backward_hook(lambda m, gin, gout: seen.append((m, gin, gout)))


def test_backward_hook_sees_gradients_of_inputs_and_output():
    product, x, y = Product(), leaf(1, 2), leaf(3, 4)
    seen, handle = record(product)
    (product(x, y, 2) * leaf(5, 6)).sum().backward()
    ((module, (gx, gy, gconstant), (gz,)),) = seen
    assert module is product
    np.testing.assert_array_equal(gz.data, [5, 6])
    np.testing.assert_array_equal(gx.data, [30, 48])
    np.testing.assert_array_equal(gy.data, [10, 24])
    assert gconstant is None
    np.testing.assert_array_equal(x.grad, [30, 48])
    handle.remove()
    product(x, y, 2).sum().backward()
    assert len(seen) == 1


def test_backward_hook_sees_only_the_module_s_share():
    # x is used outside too, and the output is used twice: grad_input leaves the first out, grad_output has the sum
    layer, x = Identity(), leaf(1, 2)
    seen, _ = record(layer)
    y = layer(x)
    (y * 2 + y * 3 + x * 100).sum().backward()
    ((_, (gx,), (gy,)),) = seen
    np.testing.assert_array_equal(gx.data, [5, 5])
    np.testing.assert_array_equal(gy.data, [5, 5])
    np.testing.assert_array_equal(x.grad, [105, 105])


def test_backward_hook_without_a_gradient_for_the_inputs():
    layer = Linear(2, 1)
    seen, _ = record(layer)
    layer(Tensor([[1.0, 2.0]])).backward()
    ((_, grad_input, (gy,)),) = seen
    assert grad_input == (None,)
    np.testing.assert_array_equal(gy.data, [[1]])


def test_backward_hook_runs_again_with_a_retained_graph():
    product = Product()
    seen, _ = record(product)
    z = product(leaf(1, 2), leaf(3, 4), 1)
    z.backward(np.array([1.0, 1.0]), retain_graph=True)
    z.backward(np.array([10.0, 10.0]))
    assert len(seen) == 2
    for i, factor in enumerate((1, 10)):
        np.testing.assert_array_equal(seen[i][1][0].data, [3 * factor, 4 * factor])
        np.testing.assert_array_equal(seen[i][1][1].data, [1 * factor, 2 * factor])


def test_backward_hook_with_two_outputs():
    class Both(Module):
        def forward(self, x):
            return x * 2, x * 3

    both, x = Both(), leaf(1, 2)
    seen, _ = record(both)
    a, b = both(x)
    (a * 5 + b * 7).sum().backward()
    ((_, (gx,), (ga, gb)),) = seen
    np.testing.assert_array_equal(ga.data, [5, 5])
    np.testing.assert_array_equal(gb.data, [7, 7])
    np.testing.assert_array_equal(gx.data, [31, 31])
    both(x)[1].sum().backward()
    assert seen[1][2][0] is None


def test_backward_hook_across_devices():
    class Move(Module):
        def forward(self, x, y):
            return x.to("cpu:1") * y

    move, x, y = Move(), leaf(1, 2), leaf(3, 4, device="cpu:1")
    seen, _ = record(move)
    move(x, y).sum().backward()
    ((_, (gx, gy), (gz,)),) = seen
    assert [str(g.device) for g in (gx, gy, gz)] == ["cpu:0", "cpu:1", "cpu:1"]
    np.testing.assert_array_equal(gx.data, [3, 4])


def test_backward_hooks_replace_the_gradient_one_after_the_other():
    layer, x = Linear(2, 1, bias=False), leaf(1, 2)
    layer.weight.data[...] = [[3, 4]]
    layer.register_full_backward_hook(lambda m, gin, gout: (gin[0] * 10,))
    layer.register_full_backward_hook(lambda m, gin, gout: gin[0] + 1)
    layer(x).sum().backward()
    np.testing.assert_array_equal(x.grad, [31, 41])
    np.testing.assert_array_equal(layer.weight.grad, [[1, 2]])


@pytest.mark.parametrize(
    ("module", "inputs", "result", "error", "text"),
    [
        (
            Product(),
            (leaf(1), leaf(2), 3),
            (None, None, None),
            RuntimeError,
            "Product's hook can replace grad_input only where 1 input requires a gradient, got 2",
        ),
        (
            Product(),
            (leaf(1), Tensor([2.0]), 3),
            (Tensor([2.0]),),
            RuntimeError,
            "Product's hook must return 3 gradients, got 1",
        ),
        (Identity(), (leaf(1),), (np.ones(1),), TypeError, "Identity's hook must return a Tensor, got ndarray"),
    ],
)
def test_backward_hook_replacements_that_are_refused(module, inputs, result, error, text):
    handle = module.register_full_backward_hook(lambda m, gin, gout: result)
    with pytest.raises(error) as caught:
        module(*inputs).sum().backward()
    assert str(caught.value) == f"register_full_backward_hook: {text}"
    handle.remove()


def test_backward_hook_needs_tensors_as_outputs():
    class Dictionary(Module):
        def forward(self, x):
            return {"x": x}

    net = Dictionary()
    record(net)
    with pytest.raises(TypeError) as caught:
        net(leaf(1))
    assert str(caught.value) == ("register_full_backward_hook: Dictionary must return a Tensor or a tuple of Tensors, got dict")


def test_backward_hook_records_nothing_without_a_graph():
    layer, x = Identity(), leaf(1)
    record(layer)
    with no_grad():
        assert layer(x) is x


# ------------------------------------------------------------------------------------------------------------ containers


def test_sequential():
    first, second, third = Linear(2, 2), ReLU(), Flatten()
    net = Sequential(first, second)
    assert net.append(third) is net
    assert len(net) == 3
    assert list(net) == [first, second, third]
    assert net[0] is first
    assert net[-1] is third
    x = Tensor([[1.0, -2.0]])
    np.testing.assert_array_equal(net(x).data, third(second(first(x))).data)
    net[1] = Identity()
    assert [name for name, _ in net.named_children()] == ["0", "1", "2"]
    np.testing.assert_array_equal(net(x).data, first(x).data)


def test_a_slice_keeps_its_names():
    net = Sequential(*(Linear(1, 1) for _ in range(4)))
    tail = net[2:]
    assert isinstance(tail, Sequential)
    assert [name for name, _ in tail.named_children()] == ["2", "3"]
    assert tail[0] is net[2]
    last = ReLU()
    tail.append(last)
    assert list(tail) == [net[2], net[3], last]


def test_module_list():
    layers = [Linear(1, 1), ReLU(), Identity()]
    modules = ModuleList(layers)
    assert list(modules) == layers
    assert isinstance(modules[1:], ModuleList)
    assert list(modules[1:]) == layers[1:]
    assert [name for name, _ in modules[1:].named_children()] == ["0", "1"]
    modules.append(layers[0])
    assert len(modules) == 4
    with pytest.raises(NotImplementedError, match="ModuleList: forward is missing"):
        modules(1)


# --------------------------------------------------------------------------------------------------------------- PyTorch


def torch_net(torch):
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(OrderedDict(conv1=nn.Conv2d(4, 6, 3, groups=2), relu1=nn.ReLU()))
            self.scale = nn.Parameter(torch.full((1,), 2.0))
            self.heads = nn.ModuleList([nn.Linear(6, 3), nn.Linear(6, 3, bias=False)])
            self.again = self.heads[0]
            self.register_buffer("mean", torch.arange(4.0))
            self.register_buffer("count", torch.tensor([7]))
            self.register_buffer("scratch", torch.zeros(2), persistent=False)

    return Net()


def test_names_are_pytorchs(torch):
    ours, theirs = Net(), torch_net(torch)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for method in ("named_parameters", "named_buffers", "named_modules", "named_children"):
        assert [n for n, _ in getattr(ours, method)()] == [n for n, _ in getattr(theirs, method)()]
    for settings in ({"prefix": "p"}, {"recurse": False}, {"remove_duplicate": False}):
        names = [n for n, _ in ours.named_parameters(**settings)]
        assert names == [n for n, _ in theirs.named_parameters(**settings)]
    assert ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()}) == ([], [])


def test_key_errors_read_as_pytorchs(torch):
    state = Net().state_dict()
    del state["heads.0.bias"], state["scale"]
    state["extra"] = np.ones(1)
    with pytest.raises(RuntimeError) as ours:
        Net().load_state_dict(state)
    with pytest.raises(RuntimeError) as theirs:
        torch_net(torch).load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    assert [line.strip() for line in str(ours.value).split("\n")] == [line.strip() for line in str(theirs.value).split("\n")]


def test_nested_repr_is_pytorchs(torch):

    def build(nn):
        return nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.2)), nn.Sequential())

    import minidl.nn

    assert repr(build(minidl.nn)) == repr(build(torch.nn))


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("needs_x", [True, False])
def test_backward_hook_values_are_pytorchs(needs_x, torch):
    # three layers in float32 with sums of at most 108 products of numbers near 1: 1e-5 is some 20 rounding steps
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 6, 6)).astype(np.float32)
    theirs = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(64, 5))
    ours = Sequential(Conv2d(3, 4, 3), Flatten(), Linear(64, 5))
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    seen: dict[str, list] = {"ours": [], "theirs": []}
    for name, net in (("ours", ours), ("theirs", theirs)):
        for layer in net:
            layer.register_full_backward_hook(lambda m, gin, gout, name=name: seen[name].append((*gin, *gout)))
    (ours(Tensor(channels_last(x), requires_grad=needs_x)) * 2).sum().backward()
    (theirs(torch.tensor(x, requires_grad=needs_x)) * 2).sum().backward()
    assert len(seen["ours"]) == len(seen["theirs"]) == 3
    for our_call, their_call in zip(seen["ours"], seen["theirs"], strict=True):
        for actual, expected in zip(our_call, their_call, strict=True):
            if expected is None:
                assert actual is None
            else:
                np.testing.assert_allclose(actual.data, expected.numpy(), rtol=1e-5, atol=1e-5)


def test_dropout_draws_nothing_new_behind_a_backward_hook():
    # the identity ops around a hooked module change no value: everything or nothing is dropped
    layer, x = Dropout(1.0), leaf(1, 2)
    record(layer)
    y = layer(x)
    np.testing.assert_array_equal(y.data, [0, 0])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [0, 0])
