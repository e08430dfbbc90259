"""minidl: a deep learning framework small enough to read, on NumPy and CuPy. The public names, in teaching order."""

from minidl.tensor import Function, Tensor, is_grad_enabled, no_grad
from minidl.anomaly import AnomalyError, detect_anomaly
from minidl.random import manual_seed
from minidl.device import Device, DeviceError, count_traffic, memory_summary
from minidl.device import get_float32_matmul_precision, set_float32_matmul_precision
from minidl.kernels import plain_kernels
from minidl.parallel import get_num_threads, set_num_threads
from minidl import nn  # before ops, whose files take Module from it
from minidl.ops import operators as _operators  # binds operators and methods onto Tensor
from minidl.create import ones, rand, randn, zeros
from minidl import optim
from minidl.gradcheck import GradcheckError, gradcheck

__version__ = "0.2.0"

__all__ = [
    "Tensor",
    "Function",
    "is_grad_enabled",
    "no_grad",
    "AnomalyError",
    "detect_anomaly",
    "manual_seed",
    "Device",
    "DeviceError",
    "count_traffic",
    "memory_summary",
    "get_float32_matmul_precision",
    "set_float32_matmul_precision",
    "plain_kernels",
    "get_num_threads",
    "set_num_threads",
    "nn",
    "ones",
    "rand",
    "randn",
    "zeros",
    "optim",
    "GradcheckError",
    "gradcheck",
]
