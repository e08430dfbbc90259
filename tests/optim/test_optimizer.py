"""Groups, gradients, state and loading: what every optimizer shares, tried on SGD and Adam."""

import numpy as np
import pytest

from minidl import nn
from minidl.grad_mode import is_grad_enabled, no_grad
from minidl.optim import SGD, Adadelta, Adagrad, Adam, AdamW, RMSprop
from minidl.optim.optimizer import Optimizer
from minidl.tensor import Tensor

MAKERS = [lambda p: SGD(p, lr=0.1, momentum=0.9), lambda p: SGD(p, lr=0.1, momentum=0.9, rule="2012"), Adam, AdamW]
MAKERS += [lambda p: RMSprop(p, momentum=0.9, centered=True), Adagrad, Adadelta]


def parameter(*shape, dtype=np.float32, seed=0):
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype), requires_grad=True)


def channels_last_parameter(seed=0):
    memory = np.random.default_rng(seed).standard_normal((6, 3, 3, 4)).astype(np.float32)
    return Tensor(memory.transpose(0, 3, 1, 2), requires_grad=True)


def with_gradient(p, seed=1):
    p.grad = Tensor(np.empty_like(p.data))
    p.grad[...] = np.random.default_rng(seed).standard_normal(p.shape)
    return p


def test_options_of_a_group_come_before_the_defaults():
    w, b = parameter(2, 3), parameter(3)
    optimizer = SGD([{"params": w}, {"params": [b], "lr": 0.2, "weight_decay": 0.0}], lr=0.1, weight_decay=0.5)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.2]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.5, 0.0]
    assert optimizer.param_groups[0]["params"] == [w]


def test_each_group_steps_by_its_own_options():
    w, b = Tensor([1.0], requires_grad=True), Tensor([1.0], requires_grad=True)
    w.grad, b.grad = Tensor([1.0]), Tensor([1.0])
    SGD([{"params": [w]}, {"params": [b], "lr": 0.25}], lr=0.5).step()
    assert (w.item(), b.item()) == (0.5, 0.75)


def test_parameters_may_come_from_a_generator():
    optimizer = SGD((p for p in [parameter(2), parameter(3)]), lr=0.1)
    assert [p.shape for p in optimizer.param_groups[0]["params"]] == [(2,), (3,)]


def test_the_given_group_is_not_changed():
    group = {"params": [parameter(2)]}
    SGD([group], lr=0.1)
    assert list(group) == ["params"]


def test_zero_grad():
    p = with_gradient(parameter(2, 3))
    grad = p.grad
    optimizer = SGD([p, parameter(4)])
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is grad and not grad.any()
    optimizer.zero_grad()
    assert p.grad is None


@pytest.mark.parametrize("make", MAKERS)
def test_a_parameter_without_gradient_is_skipped(make):
    p, q = parameter(3), with_gradient(parameter(3))
    before = p.data.copy()
    optimizer = make([p, q])
    optimizer.step()
    assert (p.data == before).all()
    assert list(optimizer.state_dict()["state"]) == [1]


@pytest.mark.parametrize("make", [*MAKERS, lambda p: Adam(p, amsgrad=True)])
def test_step_works_in_place_and_keeps_the_memory_order(make):
    p = with_gradient(channels_last_parameter())
    array, strides = p.data, p.data.strides
    optimizer = make([p])
    optimizer.step()
    assert p.data is array and p.data.strides == strides
    buffers = [v for v in optimizer.state[p].values() if isinstance(v, np.ndarray)]
    assert buffers and all(v.strides == strides for v in buffers)


@pytest.mark.parametrize("make", MAKERS)
def test_a_0d_parameter_is_updated(make):
    p = Tensor(np.array(2.0, np.float32), requires_grad=True)
    p.grad = Tensor(np.array(1.0, np.float32))
    array = p.data
    make([p]).step()
    assert p.data is array and array < 2


def test_a_closure_computes_the_gradients_also_under_no_grad():
    p = Tensor([3.0], requires_grad=True)
    optimizer = SGD([p], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with no_grad():
        loss = optimizer.step(closure)
        assert not is_grad_enabled()
    assert (loss.item(), p.item()) == (9.0, 1.5)
    assert optimizer.step() is None


def test_names_come_with_the_parameters_and_are_saved():
    w, b = parameter(2, 3), parameter(3)
    optimizer = SGD([("w", w), ("b", b)], lr=0.1)
    assert optimizer.param_groups[0]["params"] == [w, b]
    assert optimizer.param_groups[0]["param_names"] == ["w", "b"]
    optimizer.add_param_group({"params": [("c", parameter(1))], "lr": 0.5})
    saved = optimizer.state_dict()
    assert [g["param_names"] for g in saved["param_groups"]] == [["w", "b"], ["c"]]
    resumed = SGD([{"params": [w, b]}, {"params": [parameter(1)]}])
    resumed.load_state_dict(saved)
    assert resumed.state_dict() == saved


def test_names_of_a_module():
    layer = nn.Linear(2, 3)
    assert SGD(layer.named_parameters()).param_groups[0]["param_names"] == ["weight", "bias"]


def test_names_are_for_all_or_none():
    p, q = parameter(2), parameter(3)
    with pytest.raises(ValueError, match=r"with/without names. Some param names are missing, 1 of 2 have one"):
        SGD([("p", p), q])
    with pytest.raises(ValueError, match="cannot add param group with names to the optimizer"):
        SGD([{"params": [p]}, {"params": [("q", q)]}])
    with pytest.raises(ValueError, match="cannot add param group without names to the optimizer"):
        SGD([{"params": [("p", p)]}, {"params": [q]}])


def test_a_rate_that_is_a_tensor_is_read_at_each_step_and_saved_as_a_number():
    p = Tensor([1.0], requires_grad=True)
    rate = Tensor(0.5)
    optimizer = SGD([p], lr=rate)
    for _ in range(2):
        p.grad = Tensor(np.ones(1, np.float32))
        optimizer.step()
        rate.fill_(0.25)
    assert p.item() == 0.25
    saved = optimizer.state_dict()
    assert saved["param_groups"][0]["lr"] == 0.25 and type(saved["param_groups"][0]["lr"]) is float
    saved["param_groups"][0]["lr"] = 0.125
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] is rate and rate.item() == 0.125
    with pytest.raises(ValueError, match=r"SGD: Tensor lr must be 1-element, got the shape \(2,\)"):
        SGD([p], lr=Tensor([0.1, 0.2]))
    with pytest.raises(ValueError, match=r"SGD: Invalid learning rate: lr must be at least 0, got -0.5"):
        SGD([p], lr=Tensor(-0.5))


@pytest.mark.parametrize("kind", [Adam, SGD])
def test_options_of_pytorchs_implementations(kind):
    p = parameter(2)
    for options in ({"foreach": True}, {"fused": True}, {"foreach": False, "fused": False, "differentiable": False}):
        assert "foreach" not in kind([p], **options).param_groups[0]
    with pytest.raises(NotImplementedError, match=r"differentiable=True asks for gradients through the step.*leave it False"):
        kind([p], differentiable=True)
    with pytest.raises(NotImplementedError, match="differentiable=True"):
        kind([{"params": [p], "differentiable": True}])
    with pytest.raises(RuntimeError, match="`fused` and `foreach` cannot be `True` together"):
        kind([p], foreach=True, fused=True)


def test_capturable_is_refused():
    with pytest.raises(NotImplementedError, match="Adam: capturable=True asks for a step inside a CUDA graph"):
        Adam([parameter(2)], capturable=True)


def test_a_saved_group_from_before_an_option_was_there_means_its_default():
    p = parameter(2)
    optimizer = trained(Adam, [p])
    saved = optimizer.state_dict()
    del saved["param_groups"][0]["maximize"]
    resumed = Adam([p], maximize=True)
    resumed.load_state_dict(saved)
    assert resumed.param_groups[0]["maximize"] is False


def test_a_gradient_of_another_shape_stops_the_step_before_anything_changes():
    p, q = with_gradient(parameter(2, 3)), with_gradient(parameter(3, 2))
    q.data = np.zeros((2, 3), np.float32)
    before = p.data.copy()
    with pytest.raises(ValueError, match=r"SGD: the gradient of parameter 1 must have its shape \(2, 3\), got \(3, 2"):
        SGD([p, q], lr=0.1).step()
    assert (p.data == before).all()


# ------------------------------------------------------------------------------------------------------ saving, loading


def trained(make, params, steps=3):
    optimizer = make(params)
    for i in range(steps):
        for p in params:
            with_gradient(p, seed=i)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("make", MAKERS)
def test_continuing_from_saved_state_is_bit_equal(make):
    params = [channels_last_parameter(), parameter(5)]
    optimizer = trained(make, params)
    optimizer.param_groups[0]["lr"] = 0.03
    saved = optimizer.state_dict()
    copies = [Tensor(p.data.copy(order="K"), requires_grad=True) for p in params]
    resumed = make(copies)
    resumed.load_state_dict(saved)
    for o, group in ((optimizer, params), (resumed, copies)):
        for p in group:
            with_gradient(p, seed=9)
        o.step()
    assert all((p.data == q.data).all() for p, q in zip(params, copies, strict=True))


def test_state_dict_has_pytorchs_form_and_copies_arrays():
    p, q = parameter(2), parameter(3)
    optimizer = trained(lambda params: SGD([{"params": [params[0]]}, {"params": [params[1]]}], momentum=0.9), [p, q])
    saved = optimizer.state_dict()
    assert list(saved) == ["state", "param_groups"]
    assert [g["params"] for g in saved["param_groups"]] == [[0], [1]]
    assert list(saved["state"]) == [0, 1] and list(saved["state"][1]) == ["momentum_buffer"]
    assert not np.shares_memory(saved["state"][1]["momentum_buffer"], optimizer.state[q]["momentum_buffer"])


def test_the_memory_order_of_momentum_survives_c_ordered_storage():
    p = channels_last_parameter()
    saved = trained(MAKERS[0], [p]).state_dict()
    assert saved["state"][0]["momentum_buffer"].strides == p.data.strides
    saved["state"][0]["momentum_buffer"] = np.ascontiguousarray(saved["state"][0]["momentum_buffer"])
    resumed = MAKERS[0]([p])
    resumed.load_state_dict(saved)
    assert resumed.state[p]["momentum_buffer"].strides == p.data.strides
    assert (resumed.state[p]["momentum_buffer"] == saved["state"][0]["momentum_buffer"]).all()


def test_loading_a_fresh_state_forgets_the_momentum():
    p = parameter(3)
    optimizer = trained(MAKERS[0], [p])
    optimizer.load_state_dict(MAKERS[0]([p]).state_dict())
    assert optimizer.state_dict()["state"] == {}


def test_loaded_arrays_are_copies():
    p = parameter(3)
    saved = trained(MAKERS[0], [p]).state_dict()
    resumed = MAKERS[0]([p])
    resumed.load_state_dict(saved)
    assert not np.shares_memory(saved["state"][0]["momentum_buffer"], resumed.state[p]["momentum_buffer"])


def spoil_groups(saved):
    saved["param_groups"].append(saved["param_groups"][0])


def spoil_size(saved):
    saved["param_groups"][0]["params"] = [0]


def spoil_option(saved):
    del saved["param_groups"][0]["momentum"]


def spoil_rate(saved):
    saved["param_groups"][0]["lr"] = -1


def spoil_shape(saved):
    saved["state"][1]["momentum_buffer"] = np.zeros((1, 5), np.float32)


def spoil_name(saved):
    saved["state"][1]["exp_avg"] = np.zeros(5, np.float32)


def spoil_position(saved):
    saved["state"][7] = {}


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (spoil_groups, "different number of parameter groups, the optimizer has 1, got 2"),
        (spoil_size, "doesn't match the size of optimizer's group, group 0 has 2 parameters, got 1"),
        (spoil_option, r"group 0 lacks \['momentum'\]"),
        (spoil_rate, "Invalid learning rate: lr must be at least 0, got -1"),
        (spoil_shape, r"momentum_buffer of parameter 1 must have its shape \(5,\), got \(1, 5\)"),
        (spoil_name, "the state of a parameter is momentum_buffer, got exp_avg for parameter 1"),
        (spoil_position, "loaded state is for 2 parameters, got one for number 7"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_changes(spoil, text):
    params = [parameter(2), parameter(5)]
    optimizer = trained(MAKERS[0], params)
    saved = optimizer.state_dict()
    saved["param_groups"][0]["lr"] = 7.0
    saved["state"][0]["momentum_buffer"] += 1
    spoil(saved)
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=f"^SGD: .*{text}"):
        optimizer.load_state_dict(saved)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for i in (0, 1):
        assert (after["state"][i]["momentum_buffer"] == before["state"][i]["momentum_buffer"]).all()


# --------------------------------------------------------------------------------------------------------------- errors


def test_errors_of_parameters():
    p = parameter(2)
    with pytest.raises(ValueError, match=r"^SGD: optimizer got an empty parameter list, at least 1 parameter is"):
        SGD([])
    with pytest.raises(TypeError, match=r"^SGD: params must be an iterable of Tensors or dicts, got one Tensor"):
        SGD(p)
    with pytest.raises(TypeError, match=r"can only optimize Tensors, but one of the params is int \(number 1 of 2\)"):
        SGD([p, 3])
    with pytest.raises(ValueError, match=r"a parameter may be in a group once, got 2 with 1 distinct"):
        SGD([p, p])
    with pytest.raises(ValueError, match=r"some parameters appear in more than one parameter group \(1 of 2\)"):
        SGD([{"params": [p]}, {"params": [parameter(3), p]}])
    with pytest.raises(TypeError, match="parameters must be in an ordered collection, got a set"):
        SGD([{"params": {p}}])
    with pytest.raises(TypeError, match="param_group must be a dict, got Tensor"):
        SGD([p]).add_param_group(parameter(2))


def test_a_tensor_made_by_an_op_is_refused():
    p = parameter(2)
    p._node = object()  # what an op's output has
    with pytest.raises(ValueError, match=r"can't optimize a non-leaf Tensor \(number 0 of 1, \(2,\)\)"):
        SGD([p])


def test_a_refused_group_is_not_added():
    optimizer = SGD([parameter(2)])
    with pytest.raises(ValueError, match="got -2"):
        optimizer.add_param_group({"params": [parameter(3)], "lr": -2})
    assert len(optimizer.param_groups) == 1


def test_a_subclass_must_say_how_to_check_and_update():
    with pytest.raises(NotImplementedError, match=r"^Optimizer: check_group is missing"):
        Optimizer([parameter(2)], {})

    class Checked(Optimizer):
        def check_group(self, group):
            pass

    with pytest.raises(NotImplementedError, match=r"^Checked: update is missing"):
        Checked([with_gradient(parameter(2))], {}).step()
