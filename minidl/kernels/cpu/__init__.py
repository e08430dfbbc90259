"""Blocked, threaded NumPy replacements of plain functions: only where a benchmark shows that the plain one loses."""

from minidl.kernels.cpu import (
    avg_pool2d,
    conv2d,
    cross_entropy,
    elementwise,
    input_step,
    linear,
    local_response_norm,
    max_pool2d,
    relu,
    sum_along,
)

KERNELS = (
    avg_pool2d.avg_pool2d_forward,
    avg_pool2d.avg_pool2d_backward,
    conv2d.conv2d_forward,
    conv2d.conv2d_backward,
    conv2d.conv2d_relu_forward,
    conv2d.conv2d_relu_backward,
    cross_entropy.cross_entropy_forward,
    elementwise.apply_elementwise,
    input_step.input_step,
    linear.linear_forward,
    linear.linear_backward,
    local_response_norm.local_response_norm_forward,
    local_response_norm.local_response_norm_backward,
    max_pool2d.max_pool2d_forward,
    max_pool2d.max_pool2d_values,
    max_pool2d.max_pool2d_backward,
    relu.relu_forward,
    relu.relu_backward,
    sum_along.sum_along,
)
