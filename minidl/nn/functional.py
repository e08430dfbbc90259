"""Every layer as a function, under PyTorch's names: `import minidl.nn.functional as F`."""

from minidl.ops.avg_pool2d import avg_pool2d
from minidl.ops.conv2d import conv2d
from minidl.ops.conv2d_relu import conv2d_relu
from minidl.ops.cross_entropy import cross_entropy, nll_loss
from minidl.ops.dropout import dropout
from minidl.ops.linear import linear
from minidl.ops.local_response_norm import local_response_norm
from minidl.ops.max_pool2d import max_pool2d
from minidl.ops.relu import relu
from minidl.ops.reshape import cat, flatten, pad
from minidl.ops.sigmoid import sigmoid
from minidl.ops.softmax import log_softmax, softmax
from minidl.ops.tanh import tanh

__all__ = [
    "avg_pool2d",
    "cat",
    "conv2d",
    "conv2d_relu",
    "cross_entropy",
    "dropout",
    "flatten",
    "linear",
    "local_response_norm",
    "log_softmax",
    "max_pool2d",
    "nll_loss",
    "pad",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]
