"""The functions that follow a layer: "relu", "tanh[1.7159,0.6667]".

Source: `layer.py` and `include/neuron.cuh` of the 2012 program; `abstanh` is from cuda-convnet.
"""

import re
from collections.abc import Callable

import minidl.nn.functional as F
from minidl.cfg.sections import Section
from minidl.create import randn
from minidl.tensor import Tensor

Neuron = Callable[[Tensor], Tensor]


def _times(a: float, x: Tensor) -> Tensor:
    return x if a == 1 else a * x


def noisy_relu(x: Tensor) -> Tensor:
    """max(0, r + n), r = max(0, x), n normal with the standard deviation r. In training and in evaluation, as in 2012.

    The gradient passes where the output is above 0, as if the noise were a constant.
    """
    r = F.relu(x)
    return F.relu(r + r.detach() * randn(*r.shape, dtype=r.dtype, device=r.device))


# name: (its numbers, the formula, and as a function of x and of the numbers)
NEURONS: dict[str, tuple[tuple[str, ...], str, Callable[..., Tensor]]] = {
    "ident": ((), "x", lambda x: x),
    "relu": ((), "max(0, x)", F.relu),
    "tanh": (("a", "b"), "a tanh(b x)", lambda x, a, b: _times(a, F.tanh(_times(b, x)))),
    "logistic": ((), "1 / (1 + e^-x)", F.sigmoid),
    "abs": ((), "|x|", lambda x: x.abs()),
    "square": ((), "x^2", lambda x: x * x),
    "sqrt": ((), "sqrt(x)", lambda x: x.sqrt()),
    "softrelu": ((), "log(1 + e^x)", F.softplus),
    "brelu": (("a",), "min(a, max(0, x))", lambda x, a: F.relu(x).clamp(max=a)),
    "abstanh": (("a", "b"), "a |tanh(b x)|", lambda x, a, b: _times(a, F.tanh(_times(b, x)).abs())),
    "linear": (("a", "b"), "a x + b", lambda x, a, b: a * x + b),
    "nrelu": ((), "max(0, max(0, x) + noise)", noisy_relu),
    "drelu": (("a",), "x - a tanh(x / a)", lambda x, a: x - a * F.tanh(x / a)),
}


def read_neuron(section: Section, text: str) -> Neuron:
    """A neuron as it is written -> its function, F.relu itself for "relu". ValueError: unknown, or not its numbers."""
    match = re.fullmatch(r"(\w+)(?:\[(.*)\])?", text.replace(" ", ""))
    if match is None or match[1] not in NEURONS:
        raise section.error("neuron", f"must be one of {', '.join(map(written, NEURONS))}", text)
    names, _, function = NEURONS[match[1]]
    entries = match[2].split(",") if match[2] else []
    if len(entries) != len(names):
        raise section.error("neuron", f"must be {written(match[1])}", text)
    numbers = [section.as_number("neuron", entry) for entry in entries]
    if match[1] == "drelu" and numbers == [0]:
        raise section.error("neuron", "must be drelu[a] with a other than 0", text)
    return (lambda x: function(x, *numbers)) if numbers else function


def written(name: str) -> str:
    """ "tanh" -> "tanh[a,b]"."""
    names = NEURONS[name][0]
    return f"{name}[{','.join(names)}]" if names else name
