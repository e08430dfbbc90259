"""What the optimizers share: parameter groups, state for each parameter, and their saving and loading.

A *group* is a dict: `params`, the list of its tensors, and one entry for each option (`lr`, `momentum`, ...). Options
that a group does not name come from the optimizer's arguments, so one line is enough to spare the biases weight decay:

    SGD([{"params": weights}, {"params": biases, "weight_decay": 0}], lr=0.01, momentum=0.9, weight_decay=5e-4)

Parameters may come with names, `SGD(model.named_parameters())`; a group keeps them as `param_names`. A rate may be a tensor of
one element, which the schedules of lr_scheduler then change in place.

PyTorch's optimizers have options that choose among implementations of the same rule. `foreach` and `fused` change nothing
here: each update runs in blocks or kernels anyway. `capturable` and `differentiable` ask for what minidl does not have, CUDA
graphs and gradients through a step, and are refused.

*State* is what a rule remembers of a parameter between steps, for instance its velocity: arrays with the shape, dtype
and memory order of the parameter, on its device, made on its first step.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar, overload

import numpy as np

from minidl import changes
from minidl.device import Array
from minidl.grad_mode import enable_grad, no_grad
from minidl.tensor import Tensor, clear_grads

T = TypeVar("T")


def set_option(group: dict[str, Any], name: str, value: float) -> None:
    """Change an option of a group. A Tensor is changed in place, so that whoever holds it sees the new value."""
    if isinstance(group[name], Tensor):
        with no_grad():
            group[name].fill_(value)
    else:
        group[name] = value


def _plain(option: Any) -> Any:
    """An option with the numbers of tensors in their place."""
    if isinstance(option, tuple):
        return tuple(map(_plain, option))
    return option.item() if isinstance(option, Tensor) and option.numel() == 1 else option


class Optimizer:
    """Base of the optimizers. A subclass checks options in `check_group` and updates one parameter in `update`.

    Attributes: `param_groups`, a list of group dicts, in which options may be changed at any time; `state`,
    {parameter: {name: array or number}}; `defaults`, the options of groups that do not name them.
    """

    buffer_names: ClassVar[tuple[str, ...]]  # the arrays that `state` may hold for a parameter
    number_names: ClassVar[tuple[str, ...]] = ()  # the plain numbers that it may hold
    absent_options: ClassVar[dict[str, Any]] = {}  # what a saved group means that lacks an option, as an older one or PyTorch's

    def __init__(
        self,
        params: Iterable[Any],
        defaults: dict[str, Any],
        *,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        """foreach, capturable, differentiable, fused : PyTorch's choices of an implementation, see above.

        RuntimeError: foreach with fused. NotImplementedError: capturable, differentiable.
        """
        if foreach and fused:
            raise RuntimeError(f"{self.name}: `fused` and `foreach` cannot be `True` together")
        self._refuse_options({"capturable": capturable, "differentiable": differentiable})
        self.check_group(defaults)
        if isinstance(params, Tensor):
            kind = type(params).__name__
            raise TypeError(f"{self.name}: params must be an iterable of Tensors or dicts, got one {kind}")
        groups = list(params)
        if not groups:
            raise ValueError(f"{self.name}: optimizer got an empty parameter list, at least 1 parameter is needed")
        self.defaults = defaults
        self.has_stepped = False  # what a schedule asks, which must not go first
        self.param_groups: list[dict[str, Any]] = []
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    @property
    def name(self) -> str:
        """The class's, for errors."""
        return type(self).__name__

    def check_group(self, group: dict[str, Any]) -> None:
        """ValueError if an option of the group is out of range."""
        raise NotImplementedError(f"{self.name}: check_group is missing")

    def check_at_least_0(self, group: dict[str, Any], *names: str) -> None:
        """ValueError if an option of the group is below 0, or a tensor of more than one element."""
        for name in names:
            value = group[name]
            if isinstance(value, Tensor) and value.numel() != 1:
                raise ValueError(f"{self.name}: Tensor {name} must be 1-element, got the shape {value.shape}")
            if not value >= 0:
                kind = {"lr": "learning rate", "eps": "epsilon value"}.get(name, f"{name} value")
                raise ValueError(f"{self.name}: Invalid {kind}: {name} must be at least 0, got {_plain(value)}")

    def _refuse_options(self, options: dict[str, Any]) -> None:
        reasons = {
            "capturable": "asks for a step inside a CUDA graph, and minidl captures none",
            "differentiable": "asks for gradients through the step, and minidl's updates work on arrays and record nothing",
        }
        for name, reason in reasons.items():
            if options.get(name):
                raise NotImplementedError(f"{self.name}: {name}=True {reason}; leave it False")

    def update(self, p: Tensor, gradient: Array, group: dict[str, Any]) -> None:
        """Change p.data in place, following the gradient, p.grad's array. Called with p's device active."""
        raise NotImplementedError(f"{self.name}: update is missing")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Optimize the tensors of one more group, for instance layers that are thawed later.

        param_group : {"params": a tensor, or a list of tensors or of (name, tensor), and any options}. The dict is copied.

        TypeError: not a dict, a set (it has no order to save by), something that is not a Tensor.
        ValueError: a tensor made by an op, one that is in a group already, an option out of range, names for some only.
        NotImplementedError: capturable, differentiable.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"{self.name}: param_group must be a dict, got {type(param_group).__name__}")
        self._refuse_options(param_group)
        params, names = self._split_names(param_group["params"])
        self._check_params(params)
        group = {**self.defaults, **param_group, "params": params, **({"param_names": names} if names else {})}
        self.check_group(group)
        if any(("param_names" in group) != ("param_names" in other) for other in self.param_groups):
            raise ValueError(
                f"{self.name}: all optimizer param groups should be with/without names. cannot add param group "
                f"{'with' if names else 'without'} names to the optimizer"
            )
        self.param_groups.append(group)

    def _split_names(self, params: Any) -> tuple[list[Any], list[str]]:
        """A tensor, or tensors, or pairs of names and tensors -> the tensors, and the names if there are any."""
        if isinstance(params, set):
            raise TypeError(f"{self.name}: parameters must be in an ordered collection, got a set; use a list")
        given = [params] if isinstance(params, Tensor) else list(params)
        names = [p[0] for p in given if isinstance(p, tuple)]
        if names and len(names) < len(given):
            raise ValueError(
                f"{self.name}: all optimizer params should be with/without names. Some param names are missing, "
                f"{len(names)} of {len(given)} have one"
            )
        return [p[1] if isinstance(p, tuple) else p for p in given], names

    def _check_params(self, params: list[Any]) -> None:
        for i, p in enumerate(params):
            if not isinstance(p, Tensor):
                raise TypeError(
                    f"{self.name}: optimizer can only optimize Tensors, but one of the params is {type(p).__name__} "
                    f"(number {i} of {len(params)})"
                )
            if not p.is_leaf:
                raise ValueError(f"{self.name}: can't optimize a non-leaf Tensor (number {i} of {len(params)}, {p.shape})")
        if len(set(params)) < len(params):
            raise ValueError(
                f"{self.name}: a parameter may be in a group once, got {len(params)} with {len(set(params))} distinct"
            )
        shared = len(set(params) & set(self._params()))
        if shared:
            raise ValueError(
                f"{self.name}: some parameters appear in more than one parameter group ({shared} of {len(params)})"
            )

    def _params(self) -> list[Tensor]:
        """Every parameter, in the order by which state is saved."""
        return [p for group in self.param_groups for p in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients: `.grad` becomes None, or zeros if set_to_none is False."""
        clear_grads(self._params(), set_to_none)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], T]) -> T: ...
    def step(self, closure: Callable[[], T] | None = None) -> T | None:
        """Update every parameter that has a gradient.

        closure : called first, with graphs recorded also under `no_grad`; it computes the gradients, and step returns what it
                  returns, the loss.

        ValueError, and nothing is changed, if a gradient does not have its parameter's shape.
        """
        self.has_stepped = True
        result = None
        if closure is not None:
            with enable_grad():
                result = closure()
        for i, p in enumerate(self._params()):
            grad = p.grad
            if grad is not None and grad.shape != p.shape:
                raise ValueError(f"{self.name}: the gradient of parameter {i} must have its shape {p.shape}, got {grad.shape}")
        for group in self.param_groups:
            for p in group["params"]:
                grad = p.grad
                if grad is not None:
                    with p.device.active():
                        self.update(p, grad.data, group)
                    changes.note(p.data, f"{self.name}.step")
        return result

    def buffer(self, p: Tensor, name: str, first: float = 0) -> Array:
        """The array `name` of p's state: the first time full of `first`, in p's memory order."""
        state = self.state[p]
        if name not in state:
            state[name] = p.device.xp.full_like(p.data, first)
        return state[name]

    def count_step(self, p: Tensor) -> int:
        """The number of p's present step, 1, 2, ...; for rules that have `step` among their numbers."""
        state = self.state[p]
        state["step"] = int(state.get("step", 0)) + 1
        return state["step"]

    # --------------------------------------------------------------------------------------------- saving and loading

    def state_dict(self) -> dict[str, Any]:
        """{"state": {position of a parameter: {name: host array or number}}, "param_groups": [options and positions]}.

        As in PyTorch, parameters are named by their position, and `params` of a group is the list of positions. Arrays
        are copies, and an option that is a tensor is saved as its number.
        """
        position = {p: i for i, p in enumerate(self._params())}
        state = {
            i: {name: p.device.to_host(v) if name in self.buffer_names else v for name, v in self.state[p].items()}
            for p, i in position.items()
            if p in self.state
        }
        groups = [
            {**{name: _plain(value) for name, value in group.items()}, "params": [position[p] for p in group["params"]]}
            for group in self.param_groups
        ]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned: the options of every group, and the state of every parameter.

        Arrays are copied to the parameter's device, dtype and memory order; they may be PyTorch's. ValueError, and nothing is
        changed, if the number of groups, their sizes, the options or a shape do not fit.
        """
        saved = state_dict["param_groups"]
        self._check_groups(saved)
        positions = [i for group in saved for i in group["params"]]
        params = dict(zip(positions, self._params(), strict=True))
        for i, entries in state_dict["state"].items():
            self._check_state(i, entries, params)
        for group, new in zip(self.param_groups, saved, strict=True):
            for name, value in {**self.absent_options, **new, "params": group["params"]}.items():
                if isinstance(group.get(name), Tensor):
                    set_option(group, name, float(value))
                else:
                    group[name] = value.item() if hasattr(value, "item") else value
        self.has_stepped = True
        self.state.clear()
        for i, entries in state_dict["state"].items():
            self.state[params[i]] = {name: self._restored(params[i], name, value) for name, value in entries.items()}

    def _check_groups(self, saved: list[dict[str, Any]]) -> None:
        if len(saved) != len(self.param_groups):
            raise ValueError(
                f"{self.name}: loaded state dict has a different number of parameter groups, the optimizer has "
                f"{len(self.param_groups)}, got {len(saved)}"
            )
        for i, (group, new) in enumerate(zip(self.param_groups, saved, strict=True)):
            if len(new["params"]) != len(group["params"]):
                raise ValueError(
                    f"{self.name}: loaded state dict contains a parameter group that doesn't match the size of "
                    f"optimizer's group, group {i} has {len(group['params'])} parameters, got {len(new['params'])}"
                )
            missing = [name for name in self.defaults if name not in new and name not in self.absent_options]
            if missing:
                raise ValueError(
                    f"{self.name}: a loaded group needs the options {list(self.defaults)}, group {i} lacks {missing}"
                )
            self.check_group({**self.absent_options, **new})

    def _check_state(self, i: int, entries: dict[str, Any], params: dict[int, Tensor]) -> None:
        if i not in params:
            raise ValueError(f"{self.name}: loaded state is for {len(params)} parameters, got one for number {i}")
        known = self.buffer_names + self.number_names
        for name, value in entries.items():
            if name not in known:
                raise ValueError(f"{self.name}: the state of a parameter is {', '.join(known)}, got {name} for parameter {i}")
            if name in self.buffer_names and np.shape(value) != params[i].shape:
                raise ValueError(
                    f"{self.name}: {name} of parameter {i} must have its shape {params[i].shape}, got {np.shape(value)}"
                )

    def _restored(self, p: Tensor, name: str, value: Any) -> Any:
        if name not in self.buffer_names:
            return int(value)
        with p.device.active():
            array = p.device.xp.empty_like(p.data)
            array[...] = p.device.asarray(np.asarray(value))
        return array
