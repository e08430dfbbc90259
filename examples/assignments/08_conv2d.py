"""Convolution: y[n,o,i,j] = b[o] + sum over c,u,v of x[n, c, i*SH + u - PH, j*SW + v - PW] * w[o,c,u,v].

x (N, C, H, W), w (O, C, KH, KW), b (O,), y (N, O, OH, OW). stride (SH, SW), padding (PH, PW) with zeros.
backward gets gy (N, O, OH, OW), and returns gx, gw, gb, of the shapes of x, w, b.

Grade it: python -m minidl.study grade 08_conv2d.py
"""

import numpy as np

ASSIGNMENT = "conv2d"


def forward(x, w, b, stride, padding):
    (kh, kw), (sh, sw), (ph, pw) = w.shape[2:], stride, padding
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    oh, ow = (padded.shape[2] - kh) // sh + 1, (padded.shape[3] - kw) // sw + 1
    y = np.empty((len(x), len(w), oh, ow))
    for i, j in np.ndindex(oh, ow):
        window = padded[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw]
        y[:, :, i, j] = np.einsum("ncuv,ocuv->no", window, w) + b
    return y, (x, w, stride, padding)


def backward(gy, saved):
    """gy (N, O, OH, OW), and x, w, stride, padding -> gx, gw, gb."""
    raise NotImplementedError("backward")
