"""In a notebook: a watched step, one of its layers or tensors, or any tensor, with the explorer's panels.

    with watch():
        F.cross_entropy(model(images), labels).backward()
    show(model.conv1)

What is shown is an explorer's page in a frame of its own (`srcdoc`): several stand in one notebook, and nothing is loaded.
"""

import math
import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from minidl.kernels import plain_kernels
from minidl.nn import Module
from minidl.study.explorer.explore import SCRIPTS, Page, Seen, explore, network, page_of
from minidl.study.explorer.values import Values
from minidl.study.step.source import SourceLines
from minidl.study.step.summary import summarised
from minidl.tensor import Tensor

HEIGHT = 640  # pixels of a frame
_FILE = "shown.html"
_last: "Watch | None" = None


@dataclass(frozen=True)
class Shown:
    """A page in a frame. A notebook shows it; `save` writes the page as a file of its own.

    height : of the frame, in pixels
    """

    page: Page
    title: str
    height: int = HEIGHT

    def _repr_html_(self) -> str:
        document = self.page.html.replace("&", "&amp;").replace('"', "&quot;")
        title = self.title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
        style = f"width:100%;height:{self.height}px;border:1px solid #8888;border-radius:8px"
        return f'<iframe title="{title}" style="{style}" srcdoc="{document}"></iframe>'

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the page into the folder. See `Page.save`."""
        return self.page.save(folder)


class Watch:
    """A step that was watched: `watch()` makes it."""

    def __init__(self) -> None:
        self._seen: Seen | None = None
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        global _last
        if self._seen is not None:
            raise RuntimeError("watch: this step was watched before; each needs a watch() of its own")
        self._entered.enter_context(plain_kernels())
        lines = self._entered.enter_context(SourceLines())
        self._seen = self._entered.enter_context(Seen(lines, Values()))
        _last = self
        return self

    def __exit__(self, *exc: object) -> None:
        self._entered.close()

    def show(self, what: Module | Tensor | None = None, *, height: int = HEIGHT) -> Shown:
        """A layer that ran in this step, a tensor of it, or, without one, the whole step. See `show`."""
        if what is None:
            return self._shown(None, None, "A step", height)
        shown = self._layer(what, height) if isinstance(what, Module) else self._tensor(what, height)
        if shown is None:
            raise ValueError(f"show: this step knows nothing of the {_named(what)}")
        return shown

    def _layer(self, layer: Module, height: int) -> Shown | None:
        inside = set(layer.modules())
        ops = [i for i, op in enumerate(self._known().ops) if not inside.isdisjoint(op.node.layer.modules)]
        if not ops:
            return None
        name = self._known().records[ops[0]].layer
        return self._shown(ops, f"{ops[0]}.y", name if len(ops) == 1 and name else type(layer).__name__, height)

    def _tensor(self, tensor: Tensor, height: int) -> Shown | None:
        """The op that made it, and those that used it."""
        seen = self._known()
        maker = seen.maker_of(tensor)
        uses = [(n, i) for n, op in enumerate(seen.ops) for i, x in enumerate(op.tensors) if x is tensor]
        if maker is None and not uses:
            return None
        at = f"{maker}.y" if maker is not None else f"{uses[0][0]}.x{uses[0][1]}"
        ops = [*([] if maker is None else [maker]), *(n for n, _ in uses)]
        return self._shown(ops, at, f"Tensor {tuple(tensor.shape)}", height)

    def _known(self) -> Seen:
        if self._seen is None or not self._seen.ops:
            raise ValueError("show: no op ran in this watch()")
        return self._seen

    def _shown(self, ops: Iterable[int] | None, look: str | None, title: str, height: int) -> Shown:
        """The page with the arrays of some ops, or of all; it opens where the array `look` is, "3.y", or at the overview."""
        seen = self._known()
        first = next((x.shape for op in seen.ops for x in op.tensors if x.ndim), ())
        overall = summarised("step", first, [record for record in seen.records if record.layer is not None])
        recipes, texts = seen.values.packed()
        model = next((type(op.node.layer.modules[0]).__name__ for op in seen.ops if op.node.layer.modules), "step")
        data: dict[str, Any] = {
            "model": model,
            "input": list(first),
            "dtype": "float32",
            "notes": [],
            "image": None,
            "loss": _loss(seen),
            **network(seen, overall),
            "checks": None,
            "values": recipes,
            "texts": texts,
        }
        if ops is not None:
            data |= {"partial": title, **_limited(data, ops)}
        if look is not None:
            data["look"] = look
        return Shown(page_of(data, _FILE, "index.html", SCRIPTS, title, im2col=""), title, height)


def watch() -> Watch:
    """A block whose ops are watched, for `show`: forward, and backward if it is called in the block.

        with watch() as step:
            F.cross_entropy(model(images), labels).backward()

    It runs the plain functions of minidl/ops, as `minidl.plain_kernels()` does, and keeps a copy of every array, so it is meant
    for one step on one image, or a few. `show` remembers the last one; `step.show` is of this one.
    """
    return Watch()


def show(
    what: Module | Tensor,
    image: np.ndarray | Tensor | None = None,
    label: int | None = None,
    *,
    height: int = HEIGHT,
) -> Shown:
    """The explorer's panels of a layer or a tensor, in a notebook.

    what   : a layer, or a tensor, of the last step under `watch()`: the layer's ops; the op that made the tensor, and those
             that used it. A tensor that no step knows is shown alone, with its gradient. With an image, a whole model.
    image  : (1, ...), what the model is given: one training step is run on it, and shown whole, as `explore` does
    label  : the class whose cross-entropy is the loss, with an image
    height : of the frame, in pixels

    ValueError: a layer that did not run in the last watched step; height below 1. TypeError: neither a layer nor a tensor, or
    an image for a tensor.
    """
    if not isinstance(what, (Module, Tensor)):
        raise TypeError(f"show: a layer or a tensor is shown, got {type(what).__name__}")
    if height < 1:
        raise ValueError(f"show: height must be at least 1 pixel, got {height}")
    if image is not None:
        if isinstance(what, Tensor):
            raise TypeError("show: an image is for a model, got it with a tensor")
        page = explore(what, image, label)
        return Shown(page, page.data["model"], height)
    found = None
    if _last is not None and _last._seen is not None and _last._seen.ops:
        found = _last._layer(what, height) if isinstance(what, Module) else _last._tensor(what, height)
    if found is not None:
        return found
    if isinstance(what, Module):
        raise ValueError(
            f"show: the {_named(what)} did not run in the last step under minidl.study.watch(); give an image to run one: "
            "show(model, x)"
        )
    return _alone(what, height)


def _named(what: Module | Tensor) -> str:
    return f"tensor {tuple(what.shape)}" if isinstance(what, Tensor) else type(what).__name__


def _loss(seen: Seen) -> dict[str, Any] | None:
    """The last number to which a gradient came, where backward began: its value, its op. None if no gradient came to one."""
    for number, op in reversed(list(enumerate(seen.ops))):
        if op.arriving is not None and math.prod(op.output["shape"]) == 1:
            spread = op.output["distribution"]
            return {"value": None if spread["nonfinite"] else spread["low"], "op": number}
    return None


def _limited(data: dict[str, Any], ops: Iterable[int]) -> dict[str, Any]:
    """The recipes and texts, with nothing left but what the page needs to show the arrays of these ops, and their terms."""
    recipes, needed = data["values"], set[int]()
    waiting = [number for n in ops for number in _arrays(data["ops"][n])]
    if data["of_batch"] and any(n in set(ops) for n, _ in data["of_batch"]["uses"]):
        waiting.append(data["of_batch"]["total"]["values"])
    while waiting:
        number = waiting.pop()
        if number in needed:
            continue
        needed.add(number)
        recipe = recipes[number]
        waiting += recipe.get("of", [])
        if "op" in recipe:
            waiting += _arrays(data["ops"][recipe["op"]], recipe["how"])
    texts: list[str] = []
    kept = []
    for number, recipe in enumerate(recipes):
        if number not in needed:
            kept.append({"how": "left out", "bytes": recipe.get("bytes", 0)})
        elif "text" in recipe:
            kept.append({**recipe, "text": len(texts)})
            texts.append(data["texts"][recipe["text"]])
        else:
            kept.append(recipe)
    return {"values": kept, "texts": texts}


def _arrays(op: dict[str, Any], how: str = "") -> list[int]:
    """The numbers of an op's arrays: those that a recipe of this kind is computed from, or all."""
    blobs = [x["blob"] for x in op["inputs"]] + ([] if how == "forward" else [op["output"], op["arriving"]])
    blobs += [] if how else op["leaving"]
    numbers = [blob[name] for blob in blobs if blob for name in ("values", "blocks", "window") if name in blob]
    about = op["about"]
    numbers += [about["mask"]] if "mask" in about else []
    kept = [] if how else [about[direction] for direction in ("forward", "backward") if direction in about]
    return numbers + [terms[name] for terms in kept for name in ("places", "factors", "rest")]


def _alone(tensor: Tensor, height: int) -> Shown:
    """A tensor of which it is not known how it was made."""
    seen = Seen(SourceLines(), Values())
    blob = seen.blob(tensor.data, tensor.device, "filters" if tensor.is_leaf and tensor.ndim == 4 else "activation")
    gradient = None if tensor.grad is None else seen.blob(tensor.grad.data, tensor.device, "gradient")
    op = {
        "op": "tensor",
        "minidl": True,
        "layer": None,
        "is_layer": False,
        "device": str(tensor.device),
        "settings": {},
        "inputs": [],
        "output": blob,
        "arriving": gradient,
        "leaving": [],
        "saved": [],
        "about": {"numbers": []},
        "saved_bytes": 0,
        "freed_after": None,
        "crossing": {"forward": [], "backward": []},
        "formulas": [],
        "source": {"forward": [], "backward": []},
        "lane": 0,
    }
    overall = summarised("tensor", tensor.shape, [])
    recipes, texts = seen.values.packed()
    directions = ["forward", *(["backward"] if gradient else [])]
    station = {"title": "tensor", "id": "tensor", "ops": [0], **dict.fromkeys(overall.totals, 0)}
    data: dict[str, Any] = {
        "model": "Tensor",
        "input": list(tensor.shape),
        "dtype": str(tensor.dtype),
        "notes": [],
        "image": None,
        "loss": None,
        **network(seen, overall),
        "lanes": [{"name": str(tensor.device), "devices": [str(tensor.device)]}],
        "stations": [station],
        "ops": [op],
        "events": [[0, direction] for direction in directions],
        "checks": None,
        "values": recipes,
        "texts": texts,
        "look": "0.y",
    }
    title = f"Tensor {tuple(tensor.shape)}"
    return Shown(page_of(data, _FILE, "index.html", SCRIPTS, title, im2col=""), title, height)
