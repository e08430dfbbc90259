"""Why an op keeps what it keeps: a sentence for each array that it saves for backward.

The table stands here rather than in minidl/ops, where an op saves what its backward formula names and the formula is at hand. A
test compares its names with what every op's source saves and reads back, so neither can change alone.
"""

import ast
import inspect
import textwrap

from minidl.study.source import find_op
from minidl.tensor import Function

# op -> name of each saved array, in the order of `ctx.save` -> why
_REASONS: dict[str, dict[str, str]] = {
    "conv2d": {
        "x": "gw = col^T @ gy needs x's patches: x is kept and they are gathered again, as they take many times its memory.",
        "w": "gx = col2im(gy @ w^T) needs the weights; they are the parameter's own memory, so this costs nothing.",
    },
    "conv2d_relu": {
        "y": "The ReLU's part needs to know where its output is 0: no gradient passes there.",
        "x": "gw = col^T @ g needs x's patches: x is kept and they are gathered again, as they take many times its memory.",
        "w": "gx = col2im(g @ w^T) needs the weights; they are the parameter's own memory, so this costs nothing.",
    },
    "max_pool2d": {
        "argmax": "gy goes to the pixel that won its window: which of the window's elements that was takes one byte, x none.",
    },
    "avg_pool2d": {
        "counts": "Every pixel gets gy divided by the number of pixels in the window, which differs at the edges.",
    },
    "local_response_norm": {
        "x": "x stands in both terms of gx: it is the numerator, and its squares made the denominator.",
        "d": "gx needs d to the power -beta and -beta - 1; to add up the windows of squares again would take longer.",
    },
    "relu": {"y": "gx is gy where y > 0: the output tells all, and the next layer keeps it anyway, so it is kept once."},
    "sigmoid": {"y": "The slope is y * (1 - y), from the output alone: x need not be kept, nor e^-x computed again."},
    "tanh": {"y": "The slope is 1 - y^2, from the output alone: x need not be kept, nor tanh computed again."},
    "dropout": {"mask": "The gradient must pass the very units that the forward let through; the mask takes one byte a unit."},
    "linear": {
        "x": "gw = gy^T @ x: a weight's gradient is the product of what came in and what came back.",
        "w": "gx = gy @ w needs the weights; they are the parameter's own memory, so this costs nothing.",
    },
    "softmax": {"y": "gx = y * (gy - sum of gy * y): the probabilities are all that backward needs, x is not."},
    "log_softmax": {"y": "gx = gy - e^y * sum of gy, and e^y is the softmax: x is not needed."},
    "nll_loss": {"t": "gx = -gloss * t: the target, as a weight for each class, is the gradient but for sign and scale."},
    "cross_entropy": {
        "logp": "gx = gloss * (softmax(x) - t) for targets that sum to 1: softmax(x) is e^logp, which cannot overflow.",
        "t": "gx = gloss * (softmax(x) - t) for targets that sum to 1: t is what the scores should have said.",
    },
    "mul": {
        "x": "gy = gz * x: each factor's gradient is the other factor. Kept only if y needs a gradient.",
        "y": "gx = gz * y: each factor's gradient is the other factor. Kept only if x needs a gradient.",
    },
    "div": {
        "y": "gx = gz / y, and gy = -gz * z / y.",
        "z": "gy = -gz * z / y: with the quotient kept, x need not be. Kept only if y needs a gradient.",
    },
    "pow": {
        "x": "gx = gz * p * x^(p-1), and gp = gz * z * ln x.",
        "p": "gx = gz * p * x^(p-1): the exponent is a factor, and one less the new exponent.",
        "z": "gp = gz * z * ln x: the power is not computed again. Kept only if p needs a gradient.",
    },
    "exp": {"y": "gx = gy * y: the exponential is its own slope."},
    "log": {"x": "gx = gy / x."},
    "sqrt": {"y": "gx = gy / (2 y), from the output alone: x need not be kept."},
    "abs": {"sign": "gx = gy * sign(x): the slope is 1, -1, or 0 where x is 0."},
    "matmul": {
        "x": "gy = x^T @ gz: the right factor's gradient needs the left one.",
        "y": "gx = gz @ y^T: the left factor's gradient needs the right one.",
    },
    "amax": {
        "x": "The winners are where x equals y; tied ones share the gradient.",
        "y": "The winners are where x equals y; tied ones share the gradient.",
    },
    "max": {"index": "gy goes to the one element that won, so its position is all that backward needs."},
}


def saved_because(op: str | type[Function]) -> dict[str, str]:
    """Each array that the op, given by name or class, saves -> why its backward needs it, in the order of `ctx.save`.

    {} if it saves nothing. The arrays of an op that is not minidl's have the names that its backward unpacks `ctx.saved` into,
    and "" for a reason. ValueError: no op of this name.
    """
    cls = find_op(op) if isinstance(op, str) else op
    if cls.__module__.startswith("minidl.ops."):
        return dict(_REASONS.get(cls.name, {}))
    return dict.fromkeys(_unpacked_names(cls), "")


def _unpacked_names(cls: type[Function]) -> list[str]:
    """The names on the left of `x, w = ctx.saved` in an op's backward; [] if there is no such line, or no source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls.backward)))
    except (OSError, TypeError, SyntaxError):
        return []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute) and node.value.attr == "saved":
            return [name.id for name in ast.walk(node.targets[0]) if isinstance(name, ast.Name)]
    return []
