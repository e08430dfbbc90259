"""A run's steps side by side: the filters, activations and gradients of convolutions, on the same image.

    steps_page([("step 0", model0), ("step 50", model50)], image, label).save("look")     writes look/steps.html

Each network runs one training step on the image, with the same dropout masks. The page is one file, as the explorer's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidl.device import Array, Device
from minidl.kernels import plain_kernels
from minidl.nn import Module
from minidl.observer import Observer
from minidl.study.explorer.explore import Page, page_of
from minidl.study.explorer.pictures import limit
from minidl.study.explorer.values import Values
from minidl.study.models import batch_for, left_as_it_was, loss_of
from minidl.tensor import Tensor

FILE = "steps.html"
_MAPS = 16  # of each activation, and filters of each layer
_CHANNELS = 8  # of each filter


@dataclass
class _Watch(Observer):
    """What each convolution of a step met and made: (layer, what it is, kind of picture, array)."""

    seen: list[tuple[str, str, str, np.ndarray]] = field(default_factory=list)
    _layers: dict[Any, str] = field(default_factory=dict)

    def forward_ends(self, node: Any, inputs: Sequence[Any], settings: Mapping[str, Any], out: Tensor) -> None:
        if node.weighted and out.ndim == 4:
            name = self._layers[node] = node.layer.name() or node.name
            weight = _host(inputs[1].data, node.device)
            few = weight[:_MAPS] if weight.shape[1] > 3 else weight
            self.seen.append((name, "filters", "filters", few[:, :_CHANNELS] if weight.shape[1] > 3 else few))
            self.seen.append((name, "output y", "activation", _host(out.data, node.device)[:, :_MAPS]))

    def backward_begins(self, node: Any, gy: Array) -> None:
        if node in self._layers:
            self.seen.append((self._layers[node], "gradient gy", "gradient", _host(gy, node.device)[:, :_MAPS]))

    def backward_ends(self, node: Any, gy: Array, gradients: Sequence[Array | None]) -> None:
        if node in self._layers and gradients[1] is not None:
            few = _host(gradients[1], node.device)[:_MAPS, :_CHANNELS]
            self.seen.append((self._layers[node], "gradient of filters", "weight gradient", few))


def _host(array: Array, device: Device) -> np.ndarray:
    return np.array(device.to_host(array), copy=True)


def steps_page(
    networks: Sequence[tuple[str, Module]],
    image: np.ndarray,
    label: int | None = None,
    *,
    notes: Sequence[str] = (),
) -> Page:
    """The page of networks by their names, e.g. "step 50", on one image (1, ...).

    label : the class of the image; by default the one that the last network's scores favour.

    ValueError: no network, a network without a convolution, or what `explore` refuses.
    """
    if not networks:
        raise ValueError("steps_page: at least 1 network is needed, got 0")
    values = Values()
    columns: list[dict[str, Any]] = []
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    if label is None:
        scores = _host(networks[-1][1](batch_for(networks[-1][1], image)).data, Device("cpu:0"))
        label = int(scores[0].argmax())
    for name, model in networks:
        x = batch_for(model, image)
        with left_as_it_was(model), plain_kernels(), _Watch() as watch:
            model.zero_grad()
            model.train()
            loss, _ = loss_of(model(x), label)
            loss.backward()
        if not watch.seen:
            raise ValueError(f"steps_page: the network must have a convolution, got {type(model).__name__}")
        columns.append({"name": name, "loss": loss.item()})
        for layer, what, kind, array in watch.seen:
            row = rows.setdefault((layer, what), {"layer": layer, "what": what, "blobs": []})
            row["blobs"].append(
                {"shape": list(array.shape), "kind": kind, "limit": limit(array), "values": values.add(array)}
                | {"signed": bool((array < 0).any())}
            )
    recipes, texts = values.packed()
    layers = list(dict.fromkeys(layer for layer, _ in rows))
    data = {
        "notes": list(notes),
        "label": label,
        "columns": columns,
        "rows": sorted(rows.values(), key=lambda row: layers.index(row["layer"])),
        "ops": [],
        "stations": [],
        "lanes": [],
        "values": recipes,
        "texts": texts,
    }
    return page_of(data, FILE, "steps.html", ("tensors", "words", "picture", "steps"), "A run's steps side by side")
