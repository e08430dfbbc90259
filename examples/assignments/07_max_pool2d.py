"""Max pooling: y[n,c,i,j] = max over u,v of x[n, c, i*SH + u - PH, j*SW + v - PW].

x (N, C, H, W), y (N, C, OH, OW). kernel (KH, KW), stride (SH, SW), padding (PH, PW). Outside the image there is -inf. Of equal
pixels the first wins, row by row. Windows may overlap.
backward gets gy (N, C, OH, OW), and returns gx (N, C, H, W).

Grade it: python -m minidl.study grade 07_max_pool2d.py
"""

import numpy as np

ASSIGNMENT = "max_pool2d"


def forward(x, kernel, stride, padding):
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=-np.inf)
    oh, ow = (padded.shape[2] - kh) // sh + 1, (padded.shape[3] - kw) // sw + 1
    y, winner = np.empty((*x.shape[:2], oh, ow)), np.empty((*x.shape[:2], oh, ow), int)
    for i, j in np.ndindex(oh, ow):
        window = padded[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw].reshape(*x.shape[:2], kh * kw)
        y[:, :, i, j] = window.max(axis=2)
        winner[:, :, i, j] = window.argmax(axis=2)  # u * KW + v
    return y, (winner, x.shape, kernel, stride, padding)


def backward(gy, saved):
    """gy, and winner (N, C, OH, OW), x's shape, kernel, stride, padding -> gx."""
    raise NotImplementedError("backward")
