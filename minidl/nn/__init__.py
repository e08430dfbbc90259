"""Networks: modules that hold parameters, the layers, and how parameters get their first values.

Read module.py first, then layers.py; `functional` has every layer as a function, `init` the initial values.
"""

from minidl.nn import functional, init
from minidl.nn.layers import (
    AvgPool2d,
    Conv2d,
    ConvReLU2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    Identity,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool2d,
    NLLLoss,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
    ZeroPad2d,
)
from minidl.nn.module import Module, ModuleList, Parameter, Sequential

__all__ = [
    "AvgPool2d",
    "Conv2d",
    "ConvReLU2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Identity",
    "Linear",
    "LocalResponseNorm",
    "LogSoftmax",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "ZeroPad2d",
    "functional",
    "init",
]
