"""A layer file and a parameter file -> a module, and the settings of its optimiser."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import minidl.nn.functional as F
from minidl.cfg.layers import Cost, Data, Layer, Setting, Shape, WeightLayer, read_layer
from minidl.cfg.sections import FilePath, Overrides, Sections, override, read_sections
from minidl.device import Device
from minidl.nn.module import Module, Parameter
from minidl.optim.optimizer import Optimizer, set_option
from minidl.tensor import Tensor

Images = np.ndarray | Tensor | Sequence[Tensor]


class Network(Module):
    """The layers of a file as modules under their names, `network.conv1`; they run in the file's order, each on its device."""

    def __init__(self, layers: Mapping[str, Layer], cost: Cost, image_shape: Shape) -> None:
        super().__init__()
        self._image_shape = image_shape
        self._images = [name for name, layer in layers.items() if isinstance(layer, Data) and layer.index == 0]
        self._order = [name for name in layers if name not in (*self._images, *cost.inputs, cost.name)]
        for name in self._order:
            self.add_module(name, layers[name])
        last = {name: reader for reader in self._order for name in layers[reader].inputs}
        self._read_last = {reader: [name for name, other in last.items() if other == reader] for reader in self._order}
        self._image_devices = {layers[r].device for r in self._order if set(layers[r].inputs) & set(self._images)}

    def forward(self, images: Images) -> Tensor:
        """Scores (N, classes) on the cost's device, of which the softmax would make probabilities.

        images : (N, 3, side, side), pixels of 0 to 255 minus the mean: an array, a tensor, or a tensor for each device.

        An output that layers of another device read is copied there once. ValueError: images of another shape.
        """
        outputs = dict.fromkeys(self._images, self._on_devices(images))
        for name in self._order:
            layer: Layer = getattr(self, name)
            y = layer(*(_on(outputs[read], layer.device) for read in layer.inputs))
            outputs[name] = {layer.device: y}
            for read in self._read_last[name]:
                del outputs[read]  # in evaluation nobody else holds it
        return F.flatten(y, 1)

    def _on_devices(self, images: Images) -> dict[Device, Tensor]:
        if isinstance(images, np.ndarray):
            dtype = next((p.dtype for p in self.parameters()), images.dtype)
            there = [Tensor(images, device=device, dtype=dtype) for device in self._image_devices]
        else:
            there = [images] if isinstance(images, Tensor) else list(images)
        for x in there:
            if x.ndim != 4 or x.shape[1:] != self._image_shape:
                raise ValueError(f"images must be {('N', *self._image_shape)}, got {x.shape}")
        return {x.device: x for x in there}


def _on(copies: dict[Device, Tensor], device: Device) -> Tensor:
    """An output on a device, where the copy stays for others that read it."""
    if device not in copies:
        copies[device] = next(iter(copies.values())).to(device)
    return copies[device]


class Net:
    """What `read` gives.

    module : the network, on its devices, in float32; `module(images)` gives scores.
    topk   : how many guesses the cost's second error counts.
    epochs : from which epochs on the parameter files count, [0] for one file.
    """

    def __init__(self, layers: Mapping[str, Layer], cost: Cost, params: Mapping[int, Sections], image_shape: Shape) -> None:
        self.module, self.cost = Network(layers, cost, image_shape), cost
        self.epochs = list(params)
        self._params = params
        self._with_params = [layer for layer in layers.values() if layer.has_params]
        for epoch in reversed(self.epochs):  # so that all are checked now
            self.set_epoch(epoch)

    @property
    def coeff(self) -> float:
        return self.cost.coeff

    @property
    def topk(self) -> int:
        return self.cost.topk

    def loss(self, scores: Tensor, labels: np.ndarray | Tensor) -> Tensor:
        """The cost: the mean cross-entropy of the scores (N, classes) and the labels (N,), times its coeff."""
        loss = F.cross_entropy(scores, labels)
        return loss if self.coeff == 1 else loss * self.coeff

    def groups(self) -> list[dict[str, Any]]:
        """A group for each weight and bias, in the file's order, for SGD with rule="2012".

        It is v <- mom v - eps (wc w + g), w <- w + v, with eps as the learning rate and wc as the decay.

        A weight that several layers share is trained by the settings of the layer that it belongs to.
        """
        return [
            {"params": [parameter], "lr": rate, "momentum": momentum, "weight_decay": decay}
            for layer in self._with_params
            if isinstance(layer, WeightLayer)
            for parameter, rate, momentum, decay in _settings(layer)
        ]

    def set_epoch(self, epoch: int, optimizer: Optimizer | None = None) -> None:
        """Take the parameters of the file that counts in this epoch: norms, dropout and cost, and the optimiser's groups.

        optimizer : made from `groups()`.
        """
        sections = self._params[max(first for first in self.epochs if first <= epoch)]
        for layer in self._with_params:
            layer.read_params(sections[layer.name])
            sections[layer.name].done()
        if optimizer is not None:
            for group, wanted in zip(optimizer.param_groups, self.groups(), strict=True):
                for name in ("lr", "momentum", "weight_decay"):
                    set_option(group, name, wanted[name])


def _settings(layer: WeightLayer) -> list[tuple[Parameter, float, float, float]]:
    """Of the layer's own weights, and of its bias, which never decays."""
    own = [source is None for source in layer.sources]
    weights = [w for w in zip(layer.weights, layer.rates, layer.momenta, layer.decays, own, strict=True) if w[-1]]
    return [*(w[:-1] for w in weights), (layer.bias, layer.bias_rate, layer.bias_momentum, 0.0)]


def read(
    layers: FilePath,
    params: FilePath | Sequence[FilePath],
    *,
    image_size: int = 32,
    devices: str | Device | Sequence[str | Device] = ("cpu:0", "cpu:1"),
    overrides: Overrides | None = None,
) -> Net:
    """Read a layer file and its parameter files.

    params     : one file, or several: the first, then "EPOCH:FILE" for each that counts from a later epoch on.
    image_size : the side of the images, which have 3 channels; no file says it.
    devices    : what gpu=0, gpu=1, ... are; a single one takes everything.
    overrides  : {layer: {key: value}} changes keys before they are read, of all parameter files alike. None for a value takes
                 the key out, None for a layer the layer, and those that read it read its input.

    Weights are drawn from minidl's default generator in the file's order.

    ValueError names the file, the section, the key and the rule. FileNotFoundError: no such file.
    """
    sections, files = read_sections(layers), _parameter_files(params)
    for name, changes in (overrides or {}).items():
        override(name, changes, sections, list(files.values()))
    names = [devices] if isinstance(devices, (str, Device)) else devices
    setting = Setting((3, image_size, image_size), [Device(name) for name in names])
    found: dict[str, Layer] = {}
    for name, section in sections.items():
        found[name] = read_layer(section, found, setting)
        if hasattr(Module, name) or "." in name:
            raise ValueError(f"{section.file} [{name}]: a layer needs a name without a dot that no attribute of a module has")
    cost = _the_cost(os.fspath(layers), found)
    for later in files.values():
        _check_sections(later, found)
    return Net(found, cost, files, setting.image_shape)


def _parameter_files(params: FilePath | Sequence[FilePath]) -> dict[int, Sections]:
    """{0: the first file, and each epoch from which on another counts}."""
    first, *later = [params] if isinstance(params, (str, os.PathLike)) else params
    files = {0: read_sections(first)}
    for entry in later:
        epoch, colon, path = os.fspath(entry).partition(":")
        if not colon or not epoch.isdecimal() or int(epoch) <= max(files):
            raise ValueError(
                f"a later parameter file must be EPOCH:FILE, with an epoch above {max(files)}, got {os.fspath(entry)}"
            )
        files[int(epoch)] = read_sections(path)
    return files


def _the_cost(file: str, layers: Mapping[str, Layer]) -> Cost:
    """ValueError unless there is one, and each layer's output is read."""
    costs = [layer for layer in layers.values() if isinstance(layer, Cost)]
    if len(costs) != 1:
        raise ValueError(f"{file}: must have one layer of type cost.logreg, got {len(costs)}")
    read = {name for layer in layers.values() for name in layer.inputs}
    for name, layer in layers.items():
        if name not in read and layer is not costs[0]:
            raise ValueError(f"{file} [{name}]: must be read by another layer, as only a cost is the end")
    return costs[0]


def _check_sections(params: Sections, layers: Mapping[str, Layer]) -> None:
    """ValueError unless each layer with parameters has its section, and no other."""
    file = next(iter(params.values())).file if params else "the parameter file"
    for name, layer in layers.items():
        if layer.has_params and name not in params:
            raise ValueError(f"{file} [{name}]: is missing, a layer of type {layer.type} takes parameters")
    for name in params:
        if name not in layers or not layers[name].has_params:
            what = (
                "there is no such layer" if name not in layers else f"a layer of type {layers[name].type} takes no parameters"
            )
            raise ValueError(f"{file} [{name}]: {what}")
