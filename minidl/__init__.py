"""minidl: a deep learning framework small enough to read, on NumPy and CuPy. The public names, in teaching order."""

from minidl.tensor import Function, Tensor
from minidl.grad_mode import enable_grad, inference_mode, is_grad_enabled, is_inference_mode_enabled, no_grad, set_grad_enabled
from minidl.anomaly import AnomalyError, detect_anomaly
from minidl.random import Generator, manual_seed
from minidl.device import Device, DeviceError, count_traffic, memory_summary
from minidl.device import get_float32_matmul_precision, set_float32_matmul_precision
from minidl.kernels import im2col_convolutions, plain_kernels
from minidl.parallel import get_num_threads, set_num_threads
from minidl import nn  # before ops, whose files take Module from it
from minidl.ops import operators as _operators  # binds operators and methods onto Tensor

# what is a method is a function too, under PyTorch's name
from minidl.ops.arithmetic import (
    abs_ as abs,
    add,
    clamp,
    cos,
    div,
    exp,
    floor_divide,
    log,
    matmul,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    remainder,
    sin,
    sqrt,
    sub,
)
from minidl.ops.comparison import bitwise_and, bitwise_not, bitwise_or, bitwise_xor, eq, ge, gt, le, lt, ne
from minidl.ops.reduce import (
    all_ as all,
    amax,
    amin,
    any_ as any,
    argmax,
    argmin,
    cumsum,
    max_ as max,
    mean,
    min_ as min,
    norm,
    std,
    sum_ as sum,
    var,
)
from minidl.ops.reshape import (
    cat,
    chunk,
    clone,
    flatten,
    flip,
    permute,
    reshape,
    roll,
    split,
    squeeze,
    stack,
    t,
    transpose,
    unsqueeze,
)
from minidl.ops.select import argsort, gather, masked_fill, nonzero, sort, topk, where
from minidl.ops.relu import relu
from minidl.ops.sigmoid import sigmoid
from minidl.ops.softmax import log_softmax, softmax
from minidl.ops.tanh import tanh
from minidl.create import (
    arange,
    as_tensor,
    empty,
    empty_like,
    eye,
    from_numpy,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    randperm,
    tensor,
    zeros,
    zeros_like,
)
from minidl.serialization import load, save
from minidl.dtypes import promote_types, result_type
from minidl import accelerator, cuda, distributed, utils
from minidl import optim
from minidl.gradcheck import GradcheckError, gradcheck
from minidl.left_out import answer_for as _answer_for

# PyTorch's names for NumPy's dtypes
from numpy import float16, float32, float64, int8, int16, int32, int64, uint8
from numpy import bool_ as bool
from numpy import float16 as half
from numpy import float32 as float
from numpy import float64 as double
from numpy import int32 as int
from numpy import int64 as long

# from here on minidl.device and minidl.tensor are these; the modules are still imported as `from minidl.device import ...`
device = Device
"""`Device` under PyTorch's name."""

__version__ = "0.2.0"

# but for the names of Python's own functions, which a star would hide: abs, all, any, bool, float, int, max, min, pow, sum
__all__ = [
    "Tensor",
    "Function",
    "enable_grad",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "set_grad_enabled",
    "AnomalyError",
    "detect_anomaly",
    "manual_seed",
    "Device",
    "Generator",
    "DeviceError",
    "count_traffic",
    "memory_summary",
    "get_float32_matmul_precision",
    "set_float32_matmul_precision",
    "plain_kernels",
    "im2col_convolutions",
    "get_num_threads",
    "set_num_threads",
    "nn",
    "add",
    "clamp",
    "cos",
    "div",
    "exp",
    "floor_divide",
    "log",
    "matmul",
    "maximum",
    "minimum",
    "mul",
    "neg",
    "remainder",
    "sin",
    "sqrt",
    "sub",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "eq",
    "ge",
    "gt",
    "le",
    "lt",
    "ne",
    "amax",
    "amin",
    "argmax",
    "argmin",
    "cumsum",
    "mean",
    "norm",
    "std",
    "var",
    "cat",
    "chunk",
    "clone",
    "flatten",
    "flip",
    "permute",
    "reshape",
    "roll",
    "split",
    "squeeze",
    "stack",
    "t",
    "transpose",
    "unsqueeze",
    "argsort",
    "gather",
    "masked_fill",
    "nonzero",
    "sort",
    "topk",
    "where",
    "relu",
    "sigmoid",
    "log_softmax",
    "softmax",
    "tanh",
    "arange",
    "as_tensor",
    "empty",
    "empty_like",
    "eye",
    "from_numpy",
    "full",
    "full_like",
    "linspace",
    "ones",
    "ones_like",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "randperm",
    "tensor",
    "zeros",
    "zeros_like",
    "load",
    "save",
    "promote_types",
    "result_type",
    "accelerator",
    "cuda",
    "distributed",
    "utils",
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "half",
    "double",
    "long",
    "device",
    "optim",
    "GradcheckError",
    "gradcheck",
]

_answer_for(__name__)
