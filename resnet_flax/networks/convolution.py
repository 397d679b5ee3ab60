"""The convolution of these networks, with gradients that are fast on a CPU.

Forward it is XLA's convolution: NHWC images, HWIO kernels, padding ``K // 2`` on both sides (PyTorch's
``padding=K // 2``; Flax's ``SAME`` pads a stride of 2 on one side only, so imported weights would not fit).

Backward it is XLA's own on GPU and TPU. On a CPU, XLA's gradients of a convolution are slow, above all in a
loop body (https://github.com/jax-ml/jax/issues/12868), and a scanned stage is a loop. There we write

* the gradient of the input as a *forward* convolution of the output's gradient with the kernel flipped in space
  and transposed in channels; for a stride, as one convolution that makes all positions between two at once;
* the gradient of the kernel as matrix products over chunks of the batch whose columns fit the cache;
* the convolution itself, and so the gradient of the input, as such matrix products, where that is faster.

``python -m benchmarks.convolution`` measures these choices against others.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from resnet_flax.networks.initialization import Initializer, zeros

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")

# Elements of the columns that one matrix product reads, in chunks of the batch: what is fastest on CPUs with 1 MB of
# L2 a core. Twice as many, or half as many, cost 10% to 20%.
_COLUMN_ELEMENTS = 1 << 20

# Below so many channels, where an image alone fills the columns, or a few chunks hold the batch, XLA's own is faster.
_MATRIX_CHANNELS = 32


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
    return lax.platform_dependent(
        x, kernel, cpu=partial(_cpu_forward, stride=stride), default=partial(_xla_forward, stride=stride)
    )


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


def _cpu_forward(x: Array, kernel: Array, stride: int) -> Array:
    size, _, channels, filters = kernel.shape
    images, height, width, _ = x.shape
    if min(height, width) < size:
        # As in the last stage on 8x8 digits. XLA's convolution is ten times slower there.
        return _matrix_forward(x, kernel, stride)
    chunk = _chunk(images, height * width * size * (channels + filters))
    if (size, stride) == (3, 1) and channels >= _MATRIX_CHANNELS and 1 < chunk <= images // 4:
        chunks = x.reshape(images // chunk, chunk, height, width, channels)
        return lax.map(partial(_row_forward, kernel=kernel), chunks).reshape(images, height, width, filters)
    return _xla_forward(x, kernel, stride)


def _matrix_forward(x: Array, kernel: Array, stride: int) -> Array:
    """The same convolution as one matrix product of the K*K shifts of the images."""
    size, _, channels, filters = kernel.shape
    columns = _shifts(x, size, stride)  # [N, H', W', K*K*C]
    return jnp.dot(columns, kernel.reshape(size * size * channels, filters))


def _row_forward(x: Array, kernel: Array) -> Array:
    """The same, stride 1, as a product of K shifts along the height, [n, K*C] x [K*C, K*F]; then K shifts are added."""
    size, _, channels, filters = kernel.shape
    width, pad = x.shape[2], size // 2
    weights = kernel.transpose(0, 2, 1, 3).reshape(size * channels, size * filters)
    y = jnp.dot(_shifts_along(x, size, 1), weights)  # [N, H, W, K*F]
    y = jnp.pad(y, ((0, 0), (0, 0), (pad, pad), (0, 0)))
    return sum(y[:, :, b : b + width, b * filters : (b + 1) * filters] for b in range(size))


def _chunk(images: int, elements: int) -> int:
    """How many images a matrix product takes, each of which fills its columns with ``elements``: divides ``images``."""
    most = max(1, min(images, _COLUMN_ELEMENTS // elements))
    return next(n for n in range(most, 0, -1) if images % n == 0)


def _cpu_input_gradient(x: Array, kernel: Array, dy: Array, stride: int) -> Array:
    size = kernel.shape[0]
    if size == 1:
        return _spread(jnp.dot(dy, kernel[0, 0].T), stride, x.shape[1:3])
    if stride > 1:
        return _strided_input_gradient(kernel, dy, stride, x.shape[1:3])
    return convolution(dy, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), 1)


def _spread(dy: Array, stride: int, sides: tuple[int, int]) -> Array:
    """Puts ``stride - 1`` zeros between the positions of dy, so that its sides are those of the input."""
    if stride == 1:
        return dy
    ends = [side - (1 + stride * (n - 1)) for side, n in zip(sides, dy.shape[1:3], strict=True)]
    padding = [(0, 0, 0), (0, ends[0], stride - 1), (0, ends[1], stride - 1), (0, 0, 0)]
    return lax.pad(dy, jnp.zeros((), dy.dtype), padding)


def _strided_input_gradient(kernel: Array, dy: Array, stride: int, sides: tuple[int, int]) -> Array:
    """The input's gradient without zeros between the positions of the output's.

    Position ``s i + r`` of the input, 0 <= r < s, meets position ``i - d`` of the output at the kernel's entry
    ``s d + r + K//2``. So the kernel, filled up with zeros to whole rows of s entries, is a kernel over d that makes
    all r at once: [N, H', W', F] -> [N, H', W', s * s * C], which are then laid side by side.
    """
    size, _, channels, filters = kernel.shape
    pad = size // 2
    before = -pad % stride
    taps = -(-(size + before) // stride)
    least = -(pad + before) // stride  # d of the first tap
    filled = jnp.pad(kernel, ((before, taps * stride - size - before),) * 2 + ((0, 0), (0, 0)))
    split = filled.reshape(taps, stride, taps, stride, channels, filters)
    by_phase = jnp.flip(split, (0, 2)).transpose(0, 2, 5, 1, 3, 4).reshape(taps, taps, filters, -1)
    padding = ((taps - 1 + least, -least),) * 2
    phases = lax.conv_general_dilated(dy, by_phase, (1, 1), padding, dimension_numbers=_DIMENSIONS)
    images, height, width, _ = dy.shape
    phases = phases.reshape(images, height, width, stride, stride, channels).transpose(0, 1, 3, 2, 4, 5)
    return phases.reshape(images, height * stride, width * stride, channels)[:, : sides[0], : sides[1]]


def _cpu_kernel_gradient(x: Array, kernel: Array, dy: Array, stride: int) -> Array:
    """Sums, over chunks of the batch, products of columns that fit the cache.

    For stride 1 the columns are the K shifts of the input along its height, and those of the *output's* gradient along
    its width: [K*C, n] x [n, K*F], a K-th of the copying that K*K shifts of one of them take. For a stride they are the
    K*K shifts of the input, of which only every stride-th is needed: [K*K*C, n] x [n, F].
    """
    size, _, channels, filters = kernel.shape
    accumulator = jnp.promote_types(kernel.dtype, jnp.float32)
    if size == 1:
        x = x[:, ::stride, ::stride]
        product = jnp.einsum("nhwc,nhwf->cf", x, dy, preferred_element_type=accumulator)
        return product.astype(kernel.dtype)[None, None]

    images, height, width, _ = dy.shape
    left, right = (size * channels, size * filters) if stride == 1 else (size * size * channels, filters)
    chunk = _chunk(images, height * width * (left + right))

    def split(images: Array) -> Array:
        return images.reshape(-1, chunk, *images.shape[1:])

    def add(total: Array, parts: tuple[Array, Array]) -> tuple[Array, None]:
        x, dy = parts
        if stride == 1:
            x, dy = _shifts_along(x, size, 1), _shifts_along(dy, size, 2)
        else:
            x = _shifts(x, size, stride)
        x, dy = x.reshape(-1, left), dy.reshape(-1, right)
        return total + jnp.dot(x.T, dy, preferred_element_type=accumulator), None

    total, _ = lax.scan(add, jnp.zeros((left, right), accumulator), (split(x), split(dy)))
    if stride == 1:
        # A shift of the output by b meets the kernel's entry at the other end, K-1-b.
        total = jnp.flip(total.reshape(size, channels, size, filters), 2).transpose(0, 2, 1, 3)
    return total.reshape(kernel.shape).astype(kernel.dtype)


def _shifts_along(images: Array, size: int, axis: int) -> Array:
    """The ``size`` shifts of padded images along one axis, side by side: [N, H, W, C] -> [N, H, W, size*C]."""
    pad, side = size // 2, images.shape[axis]
    padded = jnp.pad(images, [(pad, pad) if i == axis else (0, 0) for i in range(4)])
    return jnp.concatenate([lax.slice_in_dim(padded, a, a + side, axis=axis) for a in range(size)], axis=-1)


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
