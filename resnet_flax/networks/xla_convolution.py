"""XLA's own convolution and its gradients, for NHWC images and HWIO kernels, with padding ``K // 2`` on both sides.

The padding is that of PyTorch's ``padding=K // 2``. For a stride of 2, Flax's ``SAME`` pads one side only, so imported
weights would give other results.
"""

import jax
from jax import Array, lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def forward(x: Array, kernel: Array, stride: int) -> Array:
    """Convolves: [N, H, W, C], [K, K, C, F] -> [N, ceil(H / stride), ceil(W / stride), F]."""
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=DIMENSIONS)


def input_gradient(x: Array, kernel: Array, dy: Array, stride: int) -> Array:
    """Returns the gradient with respect to the images x, from the output's gradient dy."""
    return jax.linear_transpose(lambda x: forward(x, kernel, stride), x)(dy)[0]


def kernel_gradient(x: Array, kernel: Array, dy: Array, stride: int) -> Array:
    """Returns the gradient with respect to the kernel [K, K, C, F], from the output's gradient dy."""
    return jax.linear_transpose(lambda kernel: forward(x, kernel, stride), kernel)(dy)[0]
