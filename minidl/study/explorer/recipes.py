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
from minidl.parallel import slabs
from minidl.study.explorer.values import BACKWARD, CARRIED, FORWARD, LargestTerms, largest_terms
from minidl.study.step.arrays import is_known
from minidl.study.step.trace import OpRecord

_EXACT = ("cat", "max_pool2d", "relu", "dropout")
_SUMS = 10_000  # elements of a weight's gradient that is worth adding up again


def forward_recipe(node: Any, settings: Mapping[str, Any], number: int) -> dict[str, Any] | None:
    """Of the output of op `number`."""
    return {"how": "forward", "op": number} if _is_exact(node, settings) else None


def backward_recipe(node: Any, record: OpRecord, place: int, gx: Array, gy: Array) -> dict[str, Any] | None:
    """Of the gradient of an op's input at `place`, among its tensors. Before what the op saved is dropped. Of a convolution's
    input it is for that of the image alone, which no step needs: others come along.

    "worst" of sums: the largest difference between minidl's gradient and the sum of the same products in float64.
    """
    recipe = {"how": "backward", "op": record.number, "input": place}
    if _is_exact(node, record.settings):
        return recipe
    summed = (is_known(node, "linear") and place == 1) or (is_known(node, "conv2d", "conv2d_relu") and place in (0, 1))
    if gx.size < _SUMS or not summed or (place == 0 and node.needs_grad[0]):
        return None
    if node.name == "linear" and len(node.saved[0]) == 1:
        return {**recipe, "how": "product"}  # gy[o] * x[k], one rounding
    exact = _gradient(node, node.device.to_host(gy), place)
    return {**recipe, "how": "sums", "worst": float(np.abs(exact - node.device.to_host(gx)).max())}


def _is_exact(node: Any, settings: Mapping[str, Any]) -> bool:
    if node.device.kind != "cpu" or not all(dtype is None or dtype == np.float32 for _, dtype in node._inputs):
        return False
    if is_known(node, "pad"):
        return bool(settings["value"] == 0)
    return is_known(node, *_EXACT) or (is_known(node, "local_response_norm") and settings["beta"] == 0.75)


def _gradient(node: Any, gy: np.ndarray, place: int) -> np.ndarray:
    """gx (0) or gw (1) in float64, of its input's shape."""
    saved = [node.device.to_host(array) for array in node.saved]
    if node.name == "linear":
        x = saved[0]
        return gy.reshape(-1, gy.shape[-1]).T.astype(np.float64) @ x
    *y, x, w = saved
    gy = nhwc(gy)
    gated = relu_backward(gy, y[0]) if y else gy
    wide_gy, wide_x, wide_w = (array.astype(np.float64) for array in (gated, x, w))
    stride, padding, dilation, groups = node.settings
    asked = (place == 0, place == 1, False)
    found = conv2d_backward(wide_gy, wide_x, wide_w, stride, padding, dilation, groups, asked)[place]
    return np.asarray(nchw(found))


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


def nudged(node: Any, gx: Array, gy: Array, chosen: int = 4) -> list[dict[str, Any]]:
    """Of a linear layer whose weights do not come along: numeric slopes of gy * y at the inputs with the largest gradients.

    The input is moved by eps up and down, and both times all outputs are computed, in float64. As the page has them:
    {"input", "index", "numeric", "analytic", "eps", "outputs"}; [] for another op.
    """
    if not is_known(node, "linear") or not node.saved:
        return []
    x, w = (node.device.to_host(array) for array in node.saved)
    if w.size <= CARRIED or len(x) != 1:
        return []
    gradients, gy = node.device.to_host(gx).reshape(-1), node.device.to_host(gy).reshape(-1)
    places = np.argsort(-np.abs(gradients), kind="stable")[:chosen]
    steps = 1e-4 * np.maximum(np.abs(x[0, places].astype(np.float64)), 1e-2)
    inputs = np.repeat(x.astype(np.float64), 2 * len(places), axis=0)
    for row, (place, eps) in enumerate(zip(places, steps, strict=True)):
        inputs[2 * row, place] += eps
        inputs[2 * row + 1, place] -= eps
    losses = np.zeros(len(inputs))
    for rows in slabs(0, len(w), max(1, CARRIED // w.shape[1])):
        losses += inputs @ w[rows].T.astype(np.float64) @ gy[rows]
    slopes = (losses[::2] - losses[1::2]) / (2 * steps)
    return [
        {
            "input": 0,
            "index": [0, int(k)],
            "numeric": float(s),
            "analytic": float(gradients[k]),
            "eps": float(e),
            "outputs": len(w),
        }
        for k, s, e in zip(places, slopes, steps, strict=True)
    ]
