"""The convolution of these networks, with gradients that are fast on a CPU.

Forward it is XLA's convolution: NHWC images, HWIO kernels, padding ``K // 2`` on both sides (PyTorch's
``padding=K // 2``; Flax's ``SAME`` pads a stride of 2 on one side only, so imported weights would not fit).

Backward it is XLA's own on GPU and TPU. On a CPU, XLA's gradients of a convolution are slow, above all in a
loop body (https://github.com/jax-ml/jax/issues/12868), and a scanned stage is a loop. There we write

* the gradient of the input as a *forward* convolution of the output's gradient (zeros stuffed in for a
  stride) with the kernel flipped in space and transposed in channels;
* the gradient of the kernel as matrix products over chunks of the batch whose columns fit the cache.

``benchmarks/convolution.py`` measures each choice that stands here as a number.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from resnet_flax.networks.initialization import Initializer, zeros

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")

# Elements of the columns that one matrix product of the kernel's gradient reads: 2 to 4 MB of float32 are
# the fastest on CPUs with 1 MB of L2 a core; four times as many halve the rate.
_COLUMN_ELEMENTS = 1 << 19


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolution(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Convolves images with an odd, square kernel, padded by ``K // 2`` on every side.

    Args:
      x: images [N, H, W, C].
      kernel: [K, K, C, F] of the same dtype, K odd.
      stride: of both directions.

    Returns:
      [N, ceil(H / stride), ceil(W / stride), F] of the dtype of ``x``:
      ``y[n, i, j, f] = sum_{a, b, c} x[n, s i + a - K//2, s j + b - K//2, c] kernel[a, b, c, f]``.

    Reverse-mode derivatives of any order; forward mode (``jax.jvp``) is not defined.
    """
    height, width = x.shape[1:3]
    if min(height, width) < kernel.shape[0]:
        # XLA's CPU convolution is ten times slower where the kernel is larger than the image, as in the
        # last stage on 8x8 digits.
        return lax.platform_dependent(
            x, kernel, cpu=partial(_matrix_forward, stride=stride), default=partial(_xla_forward, stride=stride)
        )
    return _xla_forward(x, kernel, stride=stride)


def _convolution_fwd(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return convolution(x, kernel, stride), (x, kernel)


def _convolution_bwd(stride: int, residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    # Two switches, not one: what nobody needs (the images' gradient, at the stem) is then never computed.
    dx = lax.platform_dependent(
        x, kernel, dy,
        cpu=partial(_cpu_input_gradient, stride=stride),
        default=partial(_xla_input_gradient, stride=stride),
    )  # fmt: skip
    dkernel = lax.platform_dependent(
        x, kernel, dy,
        cpu=partial(_cpu_kernel_gradient, stride=stride),
        default=partial(_xla_kernel_gradient, stride=stride),
    )  # fmt: skip
    return dx, dkernel


convolution.defvjp(_convolution_fwd, _convolution_bwd)


def _xla_forward(x: Array, kernel: Array, stride: int) -> Array:
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=_DIMENSIONS
    )


def _xla_input_gradient(x: Array, kernel: Array, dy: Array, stride: int) -> Array:
    return jax.linear_transpose(lambda x: _xla_forward(x, kernel, stride), x)(dy)[0]


def _xla_kernel_gradient(x: Array, kernel: Array, dy: Array, stride: int) -> Array:
    return jax.linear_transpose(lambda kernel: _xla_forward(x, kernel, stride), kernel)(dy)[0]


def _matrix_forward(x: Array, kernel: Array, stride: int) -> Array:
    """The same convolution as one matrix product of the K*K shifts of the images."""
    size, _, channels, filters = kernel.shape
    columns = _shifts(x, size, stride)  # [N, H', W', K*K*C]
    return jnp.dot(columns, kernel.reshape(size * size * channels, filters))


def _cpu_input_gradient(x: Array, kernel: Array, dy: Array, stride: int) -> Array:
    size = kernel.shape[0]
    if size == 1:
        dx = jnp.dot(dy, kernel[0, 0].T)
        return _stuff_zeros(dx, stride, x.shape[1:3])
    dy = _stuff_zeros(dy, stride, x.shape[1:3])  # [N, H, W, F]
    return convolution(dy, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), 1)


def _stuff_zeros(dy: Array, stride: int, sides: tuple[int, int]) -> Array:
    """Puts ``stride - 1`` zeros between the positions of dy, so that its sides are those of the input."""
    if stride == 1:
        return dy
    ends = [side - (1 + stride * (n - 1)) for side, n in zip(sides, dy.shape[1:3], strict=True)]
    padding = [(0, 0, 0), (0, ends[0], stride - 1), (0, ends[1], stride - 1), (0, 0, 0)]
    return lax.pad(dy, jnp.zeros((), dy.dtype), padding)


def _cpu_kernel_gradient(x: Array, kernel: Array, dy: Array, stride: int) -> Array:
    """Sums, over chunks of the batch, products of columns that fit the cache.

    For stride 1 the columns are the K*K shifts of the *output's* gradient, [C, n] x [n, K*K*F]: the wide side
    of the product is then the fast one. For a stride they are the shifts of the input, of which only every
    stride-th is needed: [K*K*C, n] x [n, F].
    """
    size, _, channels, filters = kernel.shape
    accumulator = jnp.promote_types(kernel.dtype, jnp.float32)
    if size == 1:
        x = x[:, ::stride, ::stride]
        product = jnp.einsum("nhwc,nhwf->cf", x, dy, preferred_element_type=accumulator)
        return product.astype(kernel.dtype)[None, None]

    of_output = stride == 1
    columns_of, rows = (dy, x) if of_output else (x, dy)
    positions = rows.shape[1] * rows.shape[2]
    width = size * size * columns_of.shape[3]
    chunk = max(1, min(x.shape[0], _COLUMN_ELEMENTS // (positions * width)))
    chunks = -(-x.shape[0] // chunk)
    chunk = -(-x.shape[0] // chunks)
    missing = chunks * chunk - x.shape[0]  # a last chunk is filled up with zeros, which add nothing

    def split(images: Array) -> Array:
        images = jnp.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        return images.reshape(chunks, chunk, *images.shape[1:])

    def add(total: Array, parts: tuple[Array, Array]) -> tuple[Array, None]:
        wide, narrow = parts
        columns = _shifts(wide, size, stride).reshape(-1, width)
        narrow = narrow.reshape(columns.shape[0], -1)
        return total + jnp.dot(narrow.T, columns, preferred_element_type=accumulator), None

    total = jnp.zeros((rows.shape[3], width), accumulator)
    total, _ = lax.scan(add, total, (split(columns_of), split(rows)))
    if of_output:
        # A shift of the output by (a, b) meets the kernel's entry at the other end: (K-1-a, K-1-b).
        dkernel = jnp.flip(total.reshape(channels, size, size, filters), (1, 2)).transpose(1, 2, 0, 3)
    else:
        dkernel = total.reshape(filters, size, size, channels).transpose(1, 2, 3, 0)
    return dkernel.astype(kernel.dtype)


def _shifts(images: Array, size: int, stride: int) -> Array:
    """The size*size shifts of padded images, side by side: [N, H, W, C] -> [N, H', W', size*size*C]."""
    height, width = images.shape[1:3]
    pad = size // 2
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return jnp.concatenate(
        [padded[:, a : a + height : stride, b : b + width : stride] for a in range(size) for b in range(size)], axis=-1
    )


class Convolution(nn.Module):
    """A convolution layer: :func:`convolution` with a kernel [K, K, C, filters], and a bias where it is asked for.

    Attributes:
      filters: channels of the output.
      size: K, odd.
      stride: of both directions.
      kernel_init: draws the kernel.
      dtype: of the computation; the kernel itself is kept in ``param_dtype``.
      use_bias: whether there is a bias, a number for each filter, 0 at the start.
    """

    filters: int
    size: int
    stride: int
    kernel_init: Initializer
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        shape = (self.size, self.size, x.shape[-1], self.filters)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        y = convolution(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
        if self.use_bias:
            y += self.param("bias", zeros, (self.filters,), self.param_dtype).astype(self.dtype)
        return y
