"""Hand-written CUDA kernels, and the functions of the plain ones' names that launch them. Nothing here imports CuPy."""

from minidl.kernels.cuda import (
    arithmetic,
    conv2d,
    cross_entropy,
    dropout,
    finite,
    input_step,
    linear,
    local_response_norm,
    max_pool2d,
    relu,
    sgd,
)

KERNELS = (
    arithmetic.matrix_product,
    conv2d.conv2d_forward,
    conv2d.conv2d_backward,
    conv2d.conv2d_relu_forward,
    conv2d.conv2d_relu_backward,
    cross_entropy.cross_entropy_forward,
    cross_entropy.cross_entropy_backward,
    dropout.dropout_forward,
    dropout.dropout_backward,
    finite.note_not_finite,
    input_step.input_step,
    linear.linear_forward,
    linear.linear_backward,
    local_response_norm.local_response_norm_forward,
    local_response_norm.local_response_norm_backward,
    max_pool2d.max_pool2d_forward,
    max_pool2d.max_pool2d_backward,
    relu.relu_forward,
    relu.relu_backward,
    sgd.sgd_update,
    sgd.sgd_update_2012,
)
