"""How the page computes what it does not carry: recipes of arrays, and the terms that stand for a matrix that was left out.

The page's layers.js repeats these ops to the bit, since each of their roundings is IEEE's and their order is minidl's. Another
dtype, another device or another power may round otherwise: then there is no recipe, and the array comes along.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from minidl.device import Array
from minidl.layout import nchw, nhwc
from minidl.ops.conv2d import conv2d_backward
from minidl.ops.relu import relu_backward
from minidl.study.explorer.values import BACKWARD, CARRIED, FORWARD, LargestTerms, largest_terms
from minidl.study.step.trace import OpRecord

_EXACT = ("cat", "pad", "max_pool2d", "relu", "dropout")
_SUMS = 10_000  # elements of a weight's gradient that is worth adding up again


def is_known(node: Any, *names: str) -> bool:
    """Is it minidl's op of one of these names, or of any, and not one of the model's own that is called so?"""
    return type(node).__module__.startswith("minidl.ops.") and (not names or node.name in names)


def forward_recipe(node: Any, settings: Mapping[str, Any], number: int) -> dict[str, Any] | None:
    """Of the output of op `number`."""
    return {"how": "forward", "op": number} if _is_exact(node, settings) else None


def backward_recipe(node: Any, record: OpRecord, place: int, gx: Array, gy: Array) -> dict[str, Any] | None:
    """Of the gradient of an op's input at `place`, among its tensors. Before what the op saved is dropped.

    "worst" of sums: the largest difference between minidl's gradient and the sum of the same products in float64.
    """
    recipe = {"how": "backward", "op": record.number, "input": place}
    if _is_exact(node, record.settings):
        return recipe
    if place != 1 or gx.size < _SUMS or not is_known(node, "linear", "conv2d", "conv2d_relu"):
        return None
    if node.name == "linear" and len(node.saved[0]) == 1:
        return {**recipe, "how": "product"}  # gy[o] * x[k], one rounding
    exact = _weight_gradient(node, node.device.to_host(gy))
    return {**recipe, "how": "sums", "worst": float(np.abs(exact - node.device.to_host(gx)).max())}


def _is_exact(node: Any, settings: Mapping[str, Any]) -> bool:
    if node.device.kind != "cpu" or not all(dtype in (None, np.dtype("f4")) for _, dtype in node._inputs):
        return False
    return is_known(node, *_EXACT) or (is_known(node, "local_response_norm") and settings["beta"] == 0.75)


def _weight_gradient(node: Any, gy: np.ndarray) -> np.ndarray:
    """gw in float64, of the weight's shape."""
    saved = [node.device.to_host(array) for array in node.saved]
    if node.name == "linear":
        x = saved[0]
        return gy.reshape(-1, gy.shape[-1]).T.astype(np.float64) @ x
    *y, x, w = saved
    gy = nhwc(gy)
    gated = relu_backward(gy, y[0]) if y else gy
    wide_gy, wide_x, wide_w = (array.astype(np.float64) for array in (gated, x, w))
    stride, padding, dilation, groups = node.settings
    _, gw, _ = conv2d_backward(wide_gy, wide_x, wide_w, stride, padding, dilation, groups, (False, True, False))
    return np.asarray(nchw(gw))


def kept_terms(node: Any, direction: str, gy: Array | None) -> LargestTerms | None:
    """Of a linear layer with one row of inputs and too large a matrix: of each output, or of each input's gradient."""
    if not is_known(node, "linear") or not node.saved:
        return None
    x, w = node.saved
    if w.size <= CARRIED or len(x) != 1:
        return None
    matrix = node.device.to_host(w)
    if gy is None:
        return largest_terms(matrix, node.device.to_host(x)[0], FORWARD)
    return largest_terms(matrix.T, node.device.to_host(gy).reshape(-1), BACKWARD) if node.needs_grad[0] else None
