"""The forward of softmax with cross-entropy, in place; the mathematics is in minidl/ops/cross_entropy.py.

A product of all elements replaces the plain function's choice of the targets that count. Only where a log-probability is
-infinity does that choice matter: 0 * infinity is NaN, and such rows are summed again.
"""

import numpy as np

from minidl import parallel


def cross_entropy_forward(x: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x, t (R, C) -> losses (R,) and log-probabilities (R, C)."""
    logp = np.empty(x.shape, x.dtype)
    losses = np.empty(len(x), x.dtype)

    def work(first: int, stop: int) -> None:
        rows = slice(first, stop)
        shifted, powers = logp[rows], parallel.scratch("powers", x[rows].shape, x.dtype)
        np.subtract(x[rows], x[rows].max(axis=1, keepdims=True), out=shifted)
        shifted -= np.log(np.exp(shifted, out=powers).sum(axis=1, keepdims=True))
        with np.errstate(invalid="ignore"):
            np.multiply(t[rows], shifted, out=powers).sum(axis=1, out=losses[rows])

    parallel.run(work, len(x), parallel.grain(x.shape[1]))
    np.negative(losses, out=losses)
    unsure = ~np.isfinite(losses)
    if unsure.any():
        losses[unsure] = -(t[unsure] * np.where(t[unsure] == 0, 0, logp[unsure])).sum(axis=1)
    return losses, logp
