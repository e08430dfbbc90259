"""What SGD and Adam share: parameter groups, state for each parameter, and their saving and loading.

A *group* is a dict: `params`, the list of its tensors, and one entry for each option (`lr`, `momentum`, ...). Options
that a group does not name come from the optimizer's arguments, so one line is enough to spare the biases weight decay:

    SGD([{"params": weights}, {"params": biases, "weight_decay": 0}], lr=0.01, momentum=0.9, weight_decay=5e-4)

*State* is what a rule remembers of a parameter between steps, for instance its velocity: arrays with the shape, dtype
and memory order of the parameter, on its device, made on its first step.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from minidl import changes
from minidl.device import Array
from minidl.tensor import Tensor, clear_grads, no_grad


def set_option(group: dict[str, Any], name: str, value: float) -> None:
    """Change an option of a group. A Tensor is changed in place, so that whoever holds it sees the new value."""
    if isinstance(group[name], Tensor):
        with no_grad():
            group[name].fill_(value)
    else:
        group[name] = value


class Optimizer:
    """Base of the optimizers. A subclass checks options in `check_group` and updates one parameter in `update`.

    Attributes: `param_groups`, a list of group dicts, in which options may be changed at any time; `state`,
    {parameter: {name: array or number}}; `defaults`, the options of groups that do not name them.
    """

    buffer_names: ClassVar[tuple[str, ...]]  # the arrays that `state` may hold for a parameter
    number_names: ClassVar[tuple[str, ...]] = ()  # the plain numbers that it may hold

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.check_group(defaults)
        if isinstance(params, Tensor):
            kind = type(params).__name__
            raise TypeError(f"{self.name}: params must be an iterable of Tensors or dicts, got one {kind}")
        groups = list(params)
        if not groups:
            raise ValueError(f"{self.name}: optimizer got an empty parameter list, at least 1 parameter is needed")
        self.defaults = defaults
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

    def update(self, p: Tensor, group: dict[str, Any]) -> None:
        """Change p.data in place, following p.grad. Called with p's device active."""
        raise NotImplementedError(f"{self.name}: update is missing")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Optimize the tensors of one more group, for instance layers that are thawed later.

        param_group : {"params": a tensor or a list of tensors, and any options}. The dict is copied.

        TypeError: not a dict, a set (it has no order to save by), something that is not a Tensor.
        ValueError: a tensor made by an op, one that is in a group already, an option out of range.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"{self.name}: param_group must be a dict, got {type(param_group).__name__}")
        params = self._checked_params(param_group["params"])
        group = {**self.defaults, **param_group, "params": params}
        self.check_group(group)
        self.param_groups.append(group)

    def _checked_params(self, params: Any) -> list[Tensor]:
        if isinstance(params, set):
            raise TypeError(f"{self.name}: parameters must be in an ordered collection, got a set; use a list")
        params = [params] if isinstance(params, Tensor) else list(params)
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
        return params

    def _params(self) -> list[Tensor]:
        """Every parameter, in the order by which state is saved."""
        return [p for group in self.param_groups for p in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients: `.grad` becomes None, or zeros if set_to_none is False."""
        clear_grads(self._params(), set_to_none)

    def step(self) -> None:
        """Update every parameter that has a gradient.

        ValueError, and nothing is changed, if a gradient does not have its parameter's shape.
        """
        for i, p in enumerate(self._params()):
            if p.grad is not None and p.grad.shape != p.shape:
                raise ValueError(
                    f"{self.name}: the gradient of parameter {i} must have its shape {p.shape}, got {p.grad.shape}"
                )
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    with p.device.active():
                        self.update(p, group)
                    changes.note(p.data, f"{self.name}.step")

    def buffer(self, p: Tensor, name: str) -> Array:
        """The array `name` of p's state: zeros, in p's memory order, the first time."""
        state = self.state[p]
        if name not in state:
            state[name] = p.device.xp.zeros_like(p.data)
        return state[name]

    # --------------------------------------------------------------------------------------------- saving and loading

    def state_dict(self) -> dict[str, Any]:
        """{"state": {position of a parameter: {name: host array or number}}, "param_groups": [options and positions]}.

        As in PyTorch, parameters are named by their position, and `params` of a group is the list of positions. Arrays
        are copies.
        """
        position = {p: i for i, p in enumerate(self._params())}
        state = {
            i: {name: p.device.to_host(v) if name in self.buffer_names else v for name, v in self.state[p].items()}
            for p, i in position.items()
            if p in self.state
        }
        groups = [{**group, "params": [position[p] for p in group["params"]]} for group in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned: the options of every group, and the state of every parameter.

        Arrays are copied to the parameter's device, dtype and memory order. ValueError, and nothing is changed, if the
        number of groups, their sizes, the options or a shape do not fit.
        """
        saved = state_dict["param_groups"]
        self._check_groups(saved)
        positions = [i for group in saved for i in group["params"]]
        params = dict(zip(positions, self._params(), strict=True))
        for i, entries in state_dict["state"].items():
            self._check_state(i, entries, params)
        for group, new in zip(self.param_groups, saved, strict=True):
            group.update({name: value for name, value in new.items() if name != "params"})
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
            missing = [name for name in self.defaults if name not in new]
            if missing:
                raise ValueError(
                    f"{self.name}: a loaded group needs the options {list(self.defaults)}, group {i} lacks {missing}"
                )
            self.check_group(new)

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
            return value
        with p.device.active():
            array = p.device.xp.empty_like(p.data)
            array[...] = p.device.asarray(np.asarray(value))
        return array
