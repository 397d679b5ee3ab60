"""Formulations of the convolution and its gradients that are fast on a CPU, and the choice between them by shape.

On a CPU, XLA's gradients of a convolution are slow, above all in a loop body
(https://github.com/jax-ml/jax/issues/12868), and a scanned stage is a loop. So :func:`forward`,
:func:`input_gradient` and :func:`kernel_gradient` choose among

* the gradient of the input as a *forward* convolution of the output's gradient with the kernel flipped in space
  and transposed in channels; for a stride, as one convolution that makes all positions between two at once;
* the gradient of the kernel as matrix products over chunks of the batch whose columns fit the cache, or as a forward
  convolution of transposed arrays;
* convolutions between few channels for two neighbouring positions at once, and those between many, and their kernels'
  gradients, by Winograd's method along the width, with half the multiplications.

``python -m benchmarks.convolution`` measures these choices against others, and compilation.py adds compiler options
without which some of them are slower than XLA's own.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from resnet_flax import processor
from resnet_flax.networks import compilation, xla_convolution
from resnet_flax.networks.xla_convolution import DIMENSIONS

# Elements of what goes into a matrix product and comes out of it, in chunks of the batch: in float32, 3/16 of the
# third-level cache. ResNet-20's step, batch 128, against four times and twice as many, half and a quarter: with 8 MB
# (AVX2) 0.89 and 0.93 of the time; with 32 MB (AVX-512) 0.92 of twice, 0.96 to 1.01 of half, 0.92 to 0.98 of a quarter.
_LARGEST_CHUNK = 3 << 19
CHUNK_ELEMENTS = min(_LARGEST_CHUNK, (processor.shared_cache_bytes() or 16 << 20) * 3 // 64)

# With no more channels or filters than this, products are too thin to be fast: half a row of them is idle.
THIN = 16

# F(4, 3) of Lavin & Gray (arXiv:1509.09308, section 4.3): y = A^T [(G g) * (B^T d)], four outputs of three taps by six
# products instead of twelve. Along one direction alone, rounding errors stay within a few times the direct sum's.
_B = np.array([[4, 0, 0, 0, 0, 0], [0, -4, 4, -2, 2, 4], [-5, -4, -4, -1, -1, 0],
               [0, 1, -1, 2, -2, -5], [1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1]])  # fmt: skip
_G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_A = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [1, -1, 1, -1], [1, 2, 4, 8], [1, -2, 4, -8], [0, 0, 0, 1]])


def forward(x: Array, kernel: Array, stride: int) -> Array:
    """Convolves as :func:`.convolution.convolution` says, in the formulation that is fast for these shapes."""
    _, height, width, _ = x.shape
    size, filters = kernel.shape[0], kernel.shape[-1]
    if min(height, width) < size:
        # As in the last stage on 8x8 digits. XLA's convolution is ten times slower there.
        return matrix_forward(x, kernel, stride)
    # oneDNN needs no pairs: at 32x32x16 it is done in two thirds of their time.
    directly = compilation.traces_for_onednn() and x.dtype == jnp.float32
    if stride == 1 and size > 1 and filters <= THIN and width % 2 == 0 and not directly:
        return paired_forward(x, kernel)
    if suits_winograd(x, kernel, stride, 4 * THIN):
        return winograd_forward(x, kernel)
    return xla_convolution.forward(x, kernel, stride)


def paired_forward(x: Array, kernel: Array) -> Array:
    """Convolves with stride 1, two neighbours along the width at once: twice the filters, a third more to multiply."""
    pad = kernel.shape[0] // 2
    left, right = (jnp.pad(kernel, ((0, 0), (i, 1 - i), (0, 0), (0, 0))) for i in range(2))
    pairs = lax.conv_general_dilated(
        x, jnp.concatenate([left, right], -1), (1, 2), ((pad, pad), (pad, pad)), dimension_numbers=DIMENSIONS
    )
    return pairs.reshape(*x.shape[:3], kernel.shape[-1])


def matrix_forward(x: Array, kernel: Array, stride: int) -> Array:
    """Convolves by one matrix product of the K*K shifts of the images with the kernel."""
    size, _, channels, filters = kernel.shape
    columns = shifts(x, size, stride)  # [N, H', W', K*K*C]
    return jnp.dot(columns, kernel.reshape(size * size * channels, filters))


def suits_winograd(x: Array, kernel: Array, stride: int, channels: int) -> bool:
    """Says whether Winograd's method is used: 3x3, stride 1, enough channels, images that are not too large."""
    size, *between = kernel.shape[1:]
    # Not bfloat16, whose few digits the sums of inputs and of outputs would take.
    exact = kernel.dtype in (jnp.float32, jnp.float64)
    fits = _winograd_elements(x, kernel) <= _LARGEST_CHUNK // 4
    return exact and fits and (size, stride) == (3, 1) and min(between) >= channels


def _winograd_elements(x: Array, kernel: Array) -> int:
    """Counts the elements that an image takes of a chunk."""
    return 6 * x.shape[1] * -(-x.shape[2] // 4) * (3 * kernel.shape[2] + kernel.shape[3])


def winograd_forward(x: Array, kernel: Array) -> Array:
    """Convolves, 3x3 and stride 1, by six products, [n, 3*C] x [3*C, F], of a quarter of the positions each."""
    channels, filters = kernel.shape[2:]
    weights = jnp.einsum("pb,abcf->pacf", _G.astype(kernel.dtype), kernel).reshape(6, 3 * channels, filters)

    def convolve(x: Array) -> Array:
        images, height, width, _ = x.shape
        columns = _shifts_along(_winograd_inputs(x), 3, 2).reshape(6, -1, 3 * channels)
        points = jnp.einsum("pnc,pcf->pnf", columns, weights).reshape(6, images, height, -1, filters)
        y = jnp.stack([_combine(_A[:, j], points) for j in range(4)], axis=3)
        return y.reshape(images, height, -1, filters)[:, :, :width]

    return _in_chunks(convolve, x, _winograd_elements(x, kernel))


def winograd_kernel_gradient(x: Array, kernel: Array, dy: Array) -> Array:
    """Returns the kernel's gradient for :func:`winograd_forward`: six products, [C, n] x [n, 3*F], then G^T."""
    channels, filters = kernel.shape[2:]

    def product(x: Array, dy: Array) -> Array:
        dy = jnp.pad(dy, ((0, 0), (0, 0), (0, -dy.shape[2] % 4), (0, 0)))
        tiles = dy.reshape(*dy.shape[:2], -1, 4, filters)
        points = jnp.stack([_combine(_A[p], [tiles[:, :, :, j] for j in range(4)]) for p in range(6)])
        columns = _shifts_along(points, 3, 2).reshape(6, -1, 3 * filters)
        return jnp.einsum("pnc,pnf->pcf", _winograd_inputs(x).reshape(6, -1, channels), columns)

    gradient = _sum_of_chunks(product, x, dy, _winograd_elements(x, kernel)).reshape(6, channels, 3, filters)
    # A shift of the output by a meets the kernel's entry at the other end, 2-a.
    return jnp.flip(jnp.einsum("pb,pcaf->abcf", _G.astype(kernel.dtype), gradient), 0)


def _winograd_inputs(x: Array) -> Array:
    """Computes B^T d for tiles of six along the width, four apart: [6, N, H, ceil(W / 4), C]."""
    images, height, width, channels = x.shape
    tiles = -(-width // 4)
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 4 * tiles + 3 - width), (0, 0)))
    padded = padded.reshape(images, height, tiles + 1, 4, channels)
    tile = [padded[:, :, i // 4 : i // 4 + tiles, i % 4] for i in range(6)]
    return jnp.stack([_combine(_B[:, p], tile) for p in range(6)])


def _combine(factors: np.ndarray, terms: Sequence[Array] | Array) -> Array:
    """Sums the terms times their factors, without those of factor 0."""
    return sum(factor * term for factor, term in zip(factors.tolist(), terms, strict=True) if factor)


def _in_chunks(function: Callable[[Array], Array], images: Array, elements: int) -> Array:
    """Computes ``function(images)``, [N, ...] -> [N, ...], a chunk at a time; an image takes so many ``elements``."""
    chunks, size = _split(images.shape[0], elements)
    if chunks == 1:
        return function(images)
    chunk = _slicer(images, chunks, size)
    y = lax.map(lambda index: function(chunk(index)), jnp.arange(chunks))
    return y.reshape(-1, *y.shape[2:])[: images.shape[0]]


def _split(count: int, elements: int) -> tuple[int, int]:
    """Returns how many chunks there are, and of how many images each; the last one may have to be filled up."""
    chunks = min(count, math.ceil(count * elements / CHUNK_ELEMENTS))
    size = math.ceil(count / chunks)
    return math.ceil(count / size), size  # of 7 images in chunks of 2 there are 4, though 5 were asked for


def _slicer(images: Array, chunks: int, size: int) -> Callable[[Array | int], Array]:
    """Returns a function that takes a chunk out of [N, ...] by its index; zeros where there are no more images.

    Not a reshape to [chunks, size, ...], for ``lax.scan`` to go over: XLA computes the images a second time in that
    shape, where they are another operation's outcome.
    """
    rest = chunks * size - images.shape[0]
    padded = jnp.pad(images, [(0, rest)] + [(0, 0)] * (images.ndim - 1)) if rest else images
    return lambda index: lax.dynamic_slice_in_dim(padded, index * size, size)


def input_gradient(x: Array, kernel: Array, dy: Array, stride: int) -> Array:
    """Returns the gradient of the images, of the shape of x, from the output's."""
    if kernel.shape[0] == 1:
        return dilate(jnp.dot(dy, kernel[0, 0].T), stride, x.shape[1:3])
    if stride > 1:
        return strided_input_gradient(kernel, dy, stride, x.shape[1:3])
    return forward(dy, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), 1)


def dilate(dy: Array, stride: int, sides: tuple[int, ...]) -> Array:
    """Puts ``stride - 1`` zeros between the positions of dy, so that its sides are those of the input."""
    if stride == 1:
        return dy
    ends = [side - (1 + stride * (n - 1)) for side, n in zip(sides, dy.shape[1:3], strict=True)]
    padding = [(0, 0, 0), (0, ends[0], stride - 1), (0, ends[1], stride - 1), (0, 0, 0)]
    return lax.pad(dy, jnp.zeros((), dy.dtype), padding)


def strided_input_gradient(kernel: Array, dy: Array, stride: int, sides: tuple[int, ...]) -> Array:
    """Returns the input's gradient, without zeros between the positions of the output's.

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
    phases = lax.conv_general_dilated(dy, by_phase, (1, 1), padding, dimension_numbers=DIMENSIONS)
    images, height, width, _ = dy.shape
    phases = phases.reshape(images, height, width, stride, stride, channels).transpose(0, 1, 3, 2, 4, 5)
    return phases.reshape(images, height * stride, width * stride, channels)[:, : sides[0], : sides[1]]


def kernel_gradient(x: Array, kernel: Array, dy: Array, stride: int) -> Array:
    """Returns the gradient of the kernel, [K, K, C, F], from the output's."""
    if kernel.shape[0] == 1:
        total = jnp.promote_types(kernel.dtype, jnp.float32)
        gradient = jnp.einsum("nhwc,nhwf->cf", x[:, ::stride, ::stride], dy, preferred_element_type=total)
        return gradient.astype(kernel.dtype)[None, None]
    if suits_winograd(x, kernel, stride, 2 * THIN):
        return winograd_kernel_gradient(x, kernel, dy)
    if stride == 1 and min(kernel.shape[2:]) > THIN:
        return swapped_kernel_gradient(x, kernel, dy)
    return product_kernel_gradient(x, kernel, dy, stride)


def swapped_kernel_gradient(x: Array, kernel: Array, dy: Array) -> Array:
    """Returns the kernel's gradient for stride 1 by a convolution whose images are x's channels and whose kernel is dy.

    XLA does the same by itself; but in a loop it takes the arrays as they lie, and is a hundred times slower.
    """
    pad = kernel.shape[0] // 2
    x, dy = lax.optimization_barrier((x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3)))
    gradient = lax.conv_general_dilated(
        x, dy, (1, 1), ((pad, pad), (pad, pad)), dimension_numbers=DIMENSIONS,
        preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
    )  # fmt: skip
    return gradient.transpose(1, 2, 0, 3).astype(kernel.dtype)


def product_kernel_gradient(x: Array, kernel: Array, dy: Array, stride: int) -> Array:
    """Returns the kernel's gradient as a sum, over chunks of the batch, of products of columns that fit the cache.

    For stride 1 the columns are the K shifts of the input along its height, and those of the *output's* gradient along
    its width: [K*C, n] x [n, K*F], a K-th of the copying that K*K shifts of one of them take. For a stride they are the
    K*K shifts of the input, of which only every stride-th is needed: [K*K*C, n] x [n, F].
    """
    size, _, channels, filters = kernel.shape
    left, right = (size * channels, size * filters) if stride == 1 else (size * size * channels, filters)

    def product(x: Array, dy: Array) -> Array:
        if stride == 1:
            x, dy = _concatenated_channels(_shifted(x, size, 1)), _concatenated_channels(_shifted(dy, size, 2))
        else:
            x = _concatenated_channels(_shifted_both_ways(x, size, stride))
        x, dy = x.reshape(-1, left), dy.reshape(-1, right)
        return jnp.dot(x.T, dy, preferred_element_type=jnp.promote_types(kernel.dtype, jnp.float32))

    gradient = _sum_of_chunks(product, x, dy, math.prod(dy.shape[1:3]) * (left + right))
    if stride == 1:
        # A shift of the output by b meets the kernel's entry at the other end, K-1-b.
        gradient = jnp.flip(gradient.reshape(size, channels, size, filters), 2).transpose(0, 2, 1, 3)
    return gradient.reshape(kernel.shape).astype(kernel.dtype)


def _sum_of_chunks(function: Callable[[Array, Array], Array], x: Array, dy: Array, elements: int) -> Array:
    """Computes ``function(x, dy)``, a sum over images, a chunk of images at a time."""
    chunks, size = _split(x.shape[0], elements)
    if chunks == 1:
        return function(x, dy)
    chunk, dchunk = _slicer(x, chunks, size), _slicer(dy, chunks, size)
    total = jax.eval_shape(lambda: function(chunk(0), dchunk(0)))
    return lax.fori_loop(
        0, chunks, lambda i, sum: sum + function(chunk(i), dchunk(i)), jnp.zeros(total.shape, total.dtype)
    )


def _shifts_along(images: Array, size: int, axis: int) -> Array:
    """Returns the ``size`` shifts of padded images along one axis, side by side: [..., C] -> [..., size*C]."""
    return jnp.concatenate(_shifted(images, size, axis), axis=-1)


def shifts(images: Array, size: int, stride: int) -> Array:
    """Returns the size*size shifts of padded images, side by side: [N, H, W, C] -> [N, H', W', size*size*C]."""
    return jnp.concatenate(_shifted_both_ways(images, size, stride), axis=-1)


def _shifted(images: Array, size: int, axis: int) -> list[Array]:
    """Returns the ``size`` shifts of padded images along one axis."""
    pad, side = size // 2, images.shape[axis]
    padded = jnp.pad(images, [(pad, pad) if i == axis else (0, 0) for i in range(images.ndim)])
    return [lax.slice_in_dim(padded, a, a + side, axis=axis) for a in range(size)]


def _shifted_both_ways(images: Array, size: int, stride: int) -> list[Array]:
    """Returns the size*size shifts of padded images, every ``stride``-th position of each."""
    height, width = images.shape[1:3]
    pad = size // 2
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return [padded[:, a : a + height : stride, b : b + width : stride] for a in range(size) for b in range(size)]


def _concatenated_channels(arrays: Sequence[Array]) -> Array:
    """Returns ``jnp.concatenate(arrays, axis=-1)`` in one pass over memory.

    XLA fuses what makes the arrays into a concatenation, but not into one along the last axis: there it would write
    them first, and copy them. Winograd's points, which are sums already, gain nothing by it.
    """
    stacked = jnp.stack(arrays, axis=-2)
    return stacked.reshape(*stacked.shape[:-2], -1)
