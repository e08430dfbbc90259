"""A page for each layer: small numbers that can be changed, forward and backward, every sum written out.

    page(name)     the document; NAMES has the names. It fetches nothing.
    write(folder)  all of them, and an index

A page computes in JavaScript, by page/<layer>.js on top of page/laboratory.js. Here is what Python has for the same numbers:
`LAYERS[name].numbers(settings, values)` calls minidl's layers in float64. Each page holds it for the numbers that it begins
with, and says whether it agrees; the tests compare all settings. im2col has a page of its own, made by im2col.py.
"""

import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from types import SimpleNamespace
from typing import Any

import numpy as np

import minidl.nn.functional as F
from minidl.ops.avg_pool2d import window_counts
from minidl.ops.batch_norm import batch_norm_forward
from minidl.ops.cross_entropy import mean_divisor, target_rows
from minidl.ops.dropout import dropout_backward, dropout_forward
from minidl.ops.local_response_norm import local_response_norm_forward
from minidl.ops.max_pool2d import max_pool2d_forward
from minidl.ops.softmax import softmax_forward
from minidl.optim import SGD
from minidl.shapes import pool_out_size
from minidl.study.laboratory import im2col
from minidl.tensor import Tensor

_ASSETS = Path(__file__).with_name("page")
_YES_OR_NO = (False, True)
Settings = Mapping[str, Any]
Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Layer:
    """What a page is made of.

    choices : for each setting what it may be, the page's first choice first; values : the given numbers, as many as the largest
    example needs; numbers : settings and values -> all other numbers, by name; scripts : which files of page/ it needs.
    """

    lead: str
    choices: Mapping[str, Sequence[Any]]
    values: dict[str, np.ndarray]
    numbers: Callable[[Settings, Values], dict[str, np.ndarray]]
    scripts: tuple[str, ...]
    source: str
    objective: str = "the sum of gy·y"
    trains: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """What the page begins with."""
        return {name: choices[0] for name, choices in self.choices.items()}


def page(name: str) -> str:
    """A layer's document. KeyError for a name that is not in NAMES."""
    if name == "im2col":
        return im2col.page()
    layer = LAYERS[name]
    numbers = {
        "name": name,
        "source": layer.source,
        "settings": layer.settings,
        "choices": layer.choices,
        "values": {key: value.tolist() for key, value in layer.values.items()},
        "python": {key: value.tolist() for key, value in layer.numbers(layer.settings, layer.values).items()},
    }
    scripts = [_asset(f"{part}.js") for part in ("laboratory", *layer.scripts)]
    return Template(_asset("page.html")).substitute(
        name=html.escape(name),
        lead=layer.lead,
        objective=layer.objective,
        steps=_asset("steps.html") if layer.trains else "",
        style=_asset("laboratory.css"),
        numbers=json.dumps(numbers),
        script="\n".join(scripts),
    )


def index() -> str:
    """The document that leads to all pages."""
    leads = {
        "im2col": "Patches become rows of a matrix, and a convolution one product.",
        **{n: p.lead for n, p in LAYERS.items()},
    }
    entries = "\n".join(f'<dt><a href="{name}.html">{name}</a></dt><dd>{lead}</dd>' for name, lead in leads.items())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>The laboratory</title>\n'
        f"<style>\n{_asset('laboratory.css')}</style>\n</head>\n<body>\n<main>\n<h1>The laboratory</h1>\n"
        '<p class="lead">Layers on numbers so few that all of them can be seen, and changed.</p>\n'
        f"<dl>\n{entries}\n</dl>\n</main>\n</body>\n</html>\n"
    )


def write(folder: Path, name: str | None = None) -> list[Path]:
    """Write the page of this name, or all of them and index.html, into a folder, which is made. -> the files."""
    folder.mkdir(parents=True, exist_ok=True)
    documents = {name: page(name)} if name else {"index": index(), **{each: page(each) for each in NAMES}}
    for each, text in documents.items():
        (folder / f"{each}.html").write_text(text, "utf-8")
    return [folder / f"{each}.html" for each in documents]


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text("utf-8")


# ---------------------------------------------------------------------------------------------------------------- pools


def _cut(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The first numbers along each axis: a page gives as many as its settings need."""
    return values[tuple(slice(n) for n in shape)]


def _max_pool2d(s: Settings, values: Values) -> dict[str, np.ndarray]:
    sides = {name: (s[name],) * 2 for name in ("kernel", "stride", "padding", "dilation")}
    x = Tensor(values["x"][None, None], requires_grad=True)
    y = F.max_pool2d(x, s["kernel"], s["stride"], s["padding"], s["dilation"], s["ceil_mode"])
    _, winner = max_pool2d_forward(values["x"][None, :, :, None], **sides, out=(y.shape[2], y.shape[3]))
    y.backward(_cut(values["gy"], y.shape[2:])[None, None])
    return {"y": y.detach().numpy()[0, 0], "winner": winner[0, :, :, 0], "gx": _gradient(x)[0, 0]}


def _avg_pool2d(s: Settings, values: Values) -> dict[str, np.ndarray]:
    kernel, stride, padding = ((s[name], s[name]) for name in ("kernel", "stride", "padding"))
    x = Tensor(values["x"][None, None], requires_grad=True)
    options = s["ceil_mode"], s["count_include_pad"], s["divisor_override"]
    y = F.avg_pool2d(x, s["kernel"], s["stride"], s["padding"], *options)
    out = pool_out_size("avg_pool2d", x.shape[2:], kernel, stride, padding, (1, 1), s["ceil_mode"])
    counts = window_counts(values["x"][None, :, :, None], out, kernel, stride, padding, *options[1:])
    y.backward(_cut(values["gy"], y.shape[2:])[None, None])
    return {"m": counts[:, :, 0], "y": y.detach().numpy()[0, 0], "gx": _gradient(x)[0, 0]}


def _gradient(x: Tensor) -> np.ndarray:
    assert x.grad is not None
    return x.grad.numpy()


_IMAGE = np.array([(7 * n + 3) % 25.0 for n in range(25)]).reshape(5, 5)  # no two alike: no window has a tie
_GY = np.array([[(5 * i + 3 * j + i * j + 3) % 6 - 2.0 for j in range(8)] for i in range(8)])
_POOL = {"kernel": (3, 1, 2), "stride": (2, 1, 3), "padding": (0, 1)}

# ------------------------------------------------------------------------------------------------------- other layers


def _local_response_norm(s: Settings, values: Values) -> dict[str, np.ndarray]:
    x = Tensor(values["x"].T[:, :, None], requires_grad=True)  # a pixel is an image
    y = F.local_response_norm(x, s["size"], s["alpha"], s["beta"], s["k"])
    _, d = local_response_norm_forward(values["x"].T, s["size"], s["alpha"], s["beta"], s["k"])
    y.backward(values["gy"].T[:, :, None])
    return {"d": d.T, "y": y.detach().numpy()[:, :, 0].T, "gx": _gradient(x)[:, :, 0].T}


def _elementwise(function: Callable[[Tensor], Tensor]) -> Callable[[Settings, Values], dict[str, np.ndarray]]:
    def numbers(s: Settings, values: Values) -> dict[str, np.ndarray]:
        x = Tensor(values["x"][: s["numbers"]], requires_grad=True)
        y = function(x)
        y.backward(values["gy"][: s["numbers"]])
        return {"y": y.detach().numpy(), "gx": _gradient(x)}

    return numbers


def _dropout(s: Settings, values: Values) -> dict[str, np.ndarray]:
    """The mask is that of u, in place of a generator's."""
    x, gy, p = values["x"], values["gy"], s["p"]
    if not s["training"] or p == 0:
        given = Tensor(x, requires_grad=True)
        y = F.dropout(given, p, s["training"], scale_at=s["scale_at"])
        y.backward(gy)
        return {"m": np.ones_like(x), "y": y.detach().numpy(), "gx": _gradient(given)}
    scale = 1 / (1 - p) if s["scale_at"] == "train" and p < 1 else 1.0
    draw: Any = SimpleNamespace(bernoulli=lambda probability, shape: values["u"] < probability)
    y, mask = dropout_forward(x, draw, p, scale)
    return {"m": mask.astype(float), "scale": np.array(scale), "y": y, "gx": dropout_backward(gy, mask, scale)}


def _linear(s: Settings, values: Values) -> dict[str, np.ndarray]:
    n, wide, out = s["examples"], s["in_features"], s["out_features"]
    x, w, b = (
        Tensor(_cut(values[k], shape), requires_grad=True) for k, shape in (("x", (n, wide)), ("w", (out, wide)), ("b", (out,)))
    )
    y = F.linear(x, w, b if s["bias"] else None)
    y.backward(_cut(values["gy"], y.shape))
    found = {"y": y.detach().numpy(), "gx": _gradient(x), "gw": _gradient(w)}
    return {**found, "gb": _gradient(b)} if s["bias"] else found


def _cross_entropy(s: Settings, values: Values) -> dict[str, np.ndarray]:
    ids = values["target"].astype(np.int64)
    weight = values["weight"] if s["weight"] else None
    x = Tensor(values["x"], requires_grad=True)
    options = {"ignore_index": s["ignore_index"], "label_smoothing": s["label_smoothing"]}
    losses = F.cross_entropy(x.detach(), ids, weight, reduction="none", **options)
    loss = F.cross_entropy(x, ids, weight, reduction=s["reduction"], **options)
    loss.backward(values["glosses"] if s["reduction"] == "none" else values["gloss"])
    found = {
        "p": softmax_forward(values["x"], 1),
        "logp": F.log_softmax(x.detach(), 1).numpy(),
        "t": target_rows(ids, values["x"].shape[1], weight, s["ignore_index"], s["label_smoothing"], np.float64),
        "losses": losses.numpy(),
        "gx": _gradient(x),
    }
    if s["reduction"] == "none":
        return found
    if s["reduction"] == "mean":
        found["divisor"] = np.array(mean_divisor(ids, weight, s["ignore_index"]))
    return {**found, "loss": loss.detach().numpy()}


def _batch_norm(s: Settings, values: Values) -> dict[str, np.ndarray]:
    x, w, b = (Tensor(values[name], requires_grad=True) for name in ("x", "w", "b"))
    running_mean, running_var = (Tensor(values[name].copy()) for name in ("running_mean", "running_var"))
    scale, shift = (w, b) if s["affine"] else (None, None)
    y = F.batch_norm(x, running_mean, running_var, scale, shift, s["training"], s["momentum"], s["eps"])
    given_mean, given_var = (None, None) if s["training"] else (values["running_mean"], values["running_var"])
    _, z, inverse, mean, var = batch_norm_forward(values["x"], None, None, given_mean, given_var, s["eps"])
    y.backward(values["gy"])
    found = {"mean": mean, "var": var, "inverse": inverse, "z": z, "y": y.detach().numpy(), "gx": _gradient(x)}
    found |= {"next_mean": running_mean.numpy(), "next_var": running_var.numpy()}
    return {**found, "gw": _gradient(w), "gb": _gradient(b)} if s["affine"] else found


def _sgd(s: Settings, values: Values) -> dict[str, np.ndarray]:
    w = Tensor(values["w"].copy(), requires_grad=True)
    optimizer = SGD([w], s["lr"], s["momentum"], weight_decay=s["weight_decay"], rule=s["rule"])
    found: dict[str, list[np.ndarray]] = {"g": [], "after": [], **({"v": []} if s["momentum"] else {})}
    first = 0.0
    for step in range(8):
        if step == s["lr_drops_after"]:
            optimizer.param_groups[0]["lr"] = s["lr"] / 10
        optimizer.zero_grad()
        loss = (Tensor(values["k"]) * (w - Tensor(values["a"])) ** 2).sum() / 2
        loss.backward()
        first = first if step else loss.item()
        found["g"].append(_gradient(w).copy())
        optimizer.step()
        if s["momentum"]:
            found["v"].append(optimizer.state[w]["momentum_buffer"].copy())
        found["after"].append(w.detach().numpy().copy())
    return {"loss": np.array(first), **{name: np.array(rows) for name, rows in found.items()}}


def _chain(s: Settings, values: Values) -> dict[str, np.ndarray]:
    filters = s["filters"]
    shapes = {"w1": (filters, 3, 3), "b1": (filters,), "w2": (3, 4 * filters), "b2": (3,)}
    w = {name: Tensor(_cut(values[name], shape).copy(), requires_grad=True) for name, shape in shapes.items()}
    a = F.conv2d(Tensor(values["x"][None, None]), w["w1"][:, None], w["b1"])
    r = F.relu(a)
    m = F.max_pool2d(r, 2)
    scores = F.linear(m.reshape(1, -1), w["w2"], w["b2"])
    loss = F.cross_entropy(scores, np.array([s["target"]]))
    loss.backward()
    found = {name: t.detach().numpy() for name, t in (("a", a), ("r", r), ("m", m), ("s", scores), ("loss", loss))}
    found |= {f"g{name}": _gradient(t) for name, t in w.items()}
    SGD(w.values(), s["lr"]).step()
    return {**found, **{f"next_{name}": t.detach().numpy() for name, t in w.items()}}


# ------------------------------------------------------------------------------------------------------------ the pages

_NUMBERS = np.array([-2.0, -0.5, 0.25, 1, 3, -1, 0.75, 2])
_ROWS = np.array([[(7 * i + 3 * j + 2 * i * j + 1) % 5 - 1.5 for j in range(4)] for i in range(4)])
_ELEMENTWISE = {"numbers": (6, 1, 8)}


def _filters() -> np.ndarray:
    return np.array(
        [
            [[0.5, -0.25, 0.25], [0.25, 0.5, -0.5], [-0.25, 0.25, 0.5]],
            [[0.25, 0.5, -0.25], [-0.5, 0.25, 0.25], [0.5, -0.25, 0.5]],
        ]
    )


LAYERS: dict[str, Layer] = {
    "max_pool2d": Layer(
        "The largest pixel of each window goes on; backward, the gradient goes to the pixel that won, and where windows "
        "overlap one pixel may win several.",
        {**_POOL, "dilation": (1, 2), "ceil_mode": _YES_OR_NO},
        {"x": _IMAGE, "gy": _GY},
        _max_pool2d,
        ("max_pool2d",),
        "minidl.ops.max_pool2d",
    ),
    "avg_pool2d": Layer(
        "The mean of each window goes on; backward, each of its pixels gets an equal share of the gradient.",
        {**_POOL, "ceil_mode": _YES_OR_NO, "count_include_pad": (True, False), "divisor_override": (None, 4)},
        {"x": _IMAGE, "gy": _GY},
        _avg_pool2d,
        ("max_pool2d", "avg_pool2d"),
        "minidl.ops.avg_pool2d",
    ),
    "local_response_norm": Layer(
        "Bright neighbours among the channels dim a number; backward, it answers for all whom it dimmed.",
        {"size": (3, 1, 2, 5), "alpha": (1.0, 0.0001), "beta": (0.75, 0.5, 1.0), "k": (1.0, 2.0)},
        {
            "x": np.array([[1.0, 0], [2, 1], [-1, 3], [0.5, 2], [3, -2], [1, 1]]),
            "gy": np.array([[1.0, 2], [-1, 1], [2, 0.5], [1, -1], [0.5, 1], [-2, 3]]),
        },
        _local_response_norm,
        ("local_response_norm",),
        "minidl.ops.local_response_norm",
    ),
    **{
        name: Layer(
            lead,
            _ELEMENTWISE,
            {"x": _NUMBERS, "gy": np.array([1.0, 2, -1, 0.5, 1, 3, -2, 1])},
            _elementwise(function),
            ("elementwise", name),
            f"minidl.ops.{name}",
        )
        for name, function, lead in (
            ("relu", F.relu, "What is below 0 becomes 0, and its gradient stops there."),
            ("tanh", F.tanh, "Every number comes to lie between −1 and 1; far out, little gradient passes."),
            ("sigmoid", F.sigmoid, "Every number comes to lie between 0 and 1; at best a quarter of the gradient passes."),
        )
    },
    "dropout": Layer(
        "In training, units fall silent by chance; backward, the same ones get no gradient.",
        {"p": (0.5, 0.0, 0.25, 1.0), "training": (True, False), "scale_at": ("train", "test")},
        {
            "x": np.array([1.0, -2, 3, 0.5, 2, -1]),
            "u": np.array([0.1, 0.7, 0.4, 0.9, 0.3, 0.6]),
            "gy": np.array([1.0, 2, -1, 0.5, 3, 1]),
        },
        _dropout,
        ("dropout",),
        "minidl.ops.dropout",
    ),
    "linear": Layer(
        "Each output is a weighted sum of all inputs; backward, the same weights carry the gradients home.",
        {"examples": (2, 1, 3), "in_features": (3, 1, 4), "out_features": (2, 1, 3), "bias": (True, False)},
        {"x": _ROWS + 0.5, "w": _ROWS.T.copy(), "b": np.array([1.0, -1, 2]), "gy": _ROWS[::-1].copy()},
        _linear,
        ("linear",),
        "minidl.ops.linear",
    ),
    "cross_entropy": Layer(
        "Softmax makes scores into a distribution, and the loss is how little it expected what was so; backward, what was "
        "believed minus what was so.",
        {"reduction": ("mean", "sum", "none"), "label_smoothing": (0.0, 0.1), "weight": _YES_OR_NO, "ignore_index": (-100, 2)},
        {
            "x": np.array([[2.0, 1, -1, 0], [0, 3, 1, 2], [1, 0, 0.5, -2]]),
            "target": np.array([0.0, 2, 1]),
            "weight": np.array([1.0, 2, 0.5, 1]),
            "gloss": np.array(1.0),
            "glosses": np.array([1.0, 2, -1]),
        },
        _cross_entropy,
        ("cross_entropy",),
        "minidl.ops.cross_entropy",
        "the loss times gloss",
    ),
    "batch_norm": Layer(
        "Each channel gets mean 0 and variance 1 over the batch; backward, a number moves the mean and the variance too.",
        {"training": (True, False), "affine": (True, False), "momentum": (0.1, 0.5), "eps": (1e-5, 0.1)},
        {
            "x": np.array([[1.0, 4], [3, -2], [2, 0], [6, 1]]),
            "w": np.array([2.0, 0.5]),
            "b": np.array([1.0, -1]),
            "running_mean": np.array([0.0, 1]),
            "running_var": np.array([1.0, 4]),
            "gy": np.array([[1.0, 2], [-1, 0.5], [2, 1], [0, -3]]),
        },
        _batch_norm,
        ("batch_norm",),
        "minidl.ops.batch_norm",
    ),
    "SGD": Layer(
        "Momentum by PyTorch's rule and by that of 2012: the same steps until the rate drops; then the one slows at once, the "
        "other coasts on.",
        {
            "rule": ("pytorch", "2012"),
            "lr": (0.1, 0.2),
            "momentum": (0.9, 0.0, 0.5),
            "weight_decay": (0.0, 0.1),
            "lr_drops_after": (4, 8, 2),
        },
        {"w": np.array([4.0, -3]), "a": np.array([1.0, 2]), "k": np.array([1.0, 3])},
        _sgd,
        ("SGD",),
        "minidl.optim.SGD",
        "the loss",
    ),
    "chain": Layer(
        "A net whose every number can be seen: conv2d, relu, max_pool2d, linear and the loss, one step of gradient descent "
        "at a time.",
        {"filters": (2, 1), "target": (1, 0, 2), "lr": (0.05, 0.02)},
        {
            "x": np.array([((7 * n + n // 6) % 11) / 10 for n in range(36)]).reshape(6, 6),
            "w1": _filters(),
            "b1": np.array([0.125, 0.25]),
            "w2": np.array([[(5 * i * i + 3 * j + i * j) % 11 / 8 - 0.625 for j in range(8)] for i in range(3)]),
            "b2": np.zeros(3),
        },
        _chain,
        ("elementwise", "relu", "max_pool2d", "linear", "cross_entropy", "chain"),
        "minidl",
        "the loss",
        trains=True,
    ),
}

NAMES = ("im2col", *LAYERS)
