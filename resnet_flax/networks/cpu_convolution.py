"""Formulations of the convolution and its gradients that are fast on a CPU, chosen by shape.

On a CPU, XLA's gradients of a convolution are slow, above all in a loop body
(https://github.com/jax-ml/jax/issues/12868), and a scanned stage is a loop. Therefore :func:`forward`,
:func:`input_gradient` and :func:`kernel_gradient` choose among these formulations:

* The input's gradient is a *forward* convolution of the output's gradient with the kernel, flipped in space and
  transposed in channels. With a stride, one convolution computes all ``stride * stride`` phases of the positions.
* The kernel's gradient is a sum of matrix products over chunks of the batch that fit the cache, or a forward
  convolution of transposed arrays.
* A convolution with few filters computes two neighbouring positions at once.
* A convolution between many channels, and its kernel's gradient, use Winograd's method along the width, with half the
  multiplications.

``python -m benchmarks.convolution`` measures these choices beside others. Some of them need the compiler options of
compilation.py to be faster than XLA's own convolution.
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

# Most elements (operands and result) of the matrix product of one chunk of the batch. 3 << 19 float32 are 6 MiB, 3/16
# of a third-level cache of 32 MiB; smaller caches get the same share. Twice as many make the step of ResNet-20 at batch
# 128 8% slower with both 8 MB (AVX2) and 32 MB (AVX-512), a quarter 2 to 9% slower with 32 MB.
_LARGEST_CHUNK = 3 << 19
CHUNK_ELEMENTS = min(_LARGEST_CHUNK, (processor.shared_cache_bytes() or 16 << 20) * 3 // 64)

# With at most this many channels or filters, matrix products are too thin to be fast: half of each row is idle.
THIN = 16

# F(4, 3) of Lavin & Gray (arXiv:1509.09308, section 4.3): y = A^T [(G g) * (B^T d)] computes four outputs of three taps
# with six products instead of twelve. It is applied along the width only, which keeps rounding errors within a few
# times those of the direct sum.
_B = np.array([[4, 0, 0, 0, 0, 0], [0, -4, 4, -2, 2, 4], [-5, -4, -4, -1, -1, 0],
               [0, 1, -1, 2, -2, -5], [1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1]])  # fmt: skip
_G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_A = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [1, -1, 1, -1], [1, 2, 4, 8], [1, -2, 4, -8], [0, 0, 0, 1]])


def forward(x: Array, kernel: Array, stride: int) -> Array:
    """Convolves as :func:`.convolution.convolution` defines, in the formulation that is fast for these shapes."""
    _, height, width, _ = x.shape
    size, filters = kernel.shape[0], kernel.shape[-1]
    if min(height, width) < size:
        # This happens in the last stage on 8x8 digits, where XLA's convolution is ten times slower.
        return matrix_forward(x, kernel, stride)
    # oneDNN convolves directly: at 32x32x16 it takes two thirds of the time of paired positions.
    directly = compilation.traces_for_onednn() and x.dtype == jnp.float32
    if stride == 1 and size > 1 and filters <= THIN and width % 2 == 0 and not directly:
        return paired_forward(x, kernel)
    if suits_winograd(x, kernel, stride, 4 * THIN):
        return winograd_forward(x, kernel)
    return xla_convolution.forward(x, kernel, stride)


def paired_forward(x: Array, kernel: Array) -> Array:
    """Convolves with stride 1, computing two neighbours along the width at once, as twice as many filters.

    For a 3x3 kernel this takes a third more multiplications.
    """
    pad = kernel.shape[0] // 2
    left, right = (jnp.pad(kernel, ((0, 0), (i, 1 - i), (0, 0), (0, 0))) for i in range(2))
    pairs = lax.conv_general_dilated(
        x, jnp.concatenate([left, right], -1), (1, 2), ((pad, pad), (pad, pad)), dimension_numbers=DIMENSIONS
    )
    return pairs.reshape(*x.shape[:3], kernel.shape[-1])


def matrix_forward(x: Array, kernel: Array, stride: int) -> Array:
    """Convolves by one matrix product of the K*K shifted images with the kernel."""
    size, _, channels, filters = kernel.shape
    columns = shifts(x, size, stride)  # [N, H', W', K*K*C]
    return jnp.dot(columns, kernel.reshape(size * size * channels, filters))


def suits_winograd(x: Array, kernel: Array, stride: int, channels: int) -> bool:
    """Tells whether to use Winograd's method: 3x3, stride 1, at least ``channels`` channels, images not too large."""
    size, *between = kernel.shape[1:]
    # In bfloat16, the sums of inputs and of outputs would lose its few digits.
    exact = kernel.dtype in (jnp.float32, jnp.float64)
    fits = _winograd_elements(x, kernel) <= _LARGEST_CHUNK // 4
    return exact and fits and (size, stride) == (3, 1) and min(between) >= channels


def _winograd_elements(x: Array, kernel: Array) -> int:
    """Counts the elements that one image adds to a chunk."""
    return 6 * x.shape[1] * -(-x.shape[2] // 4) * (3 * kernel.shape[2] + kernel.shape[3])


def winograd_forward(x: Array, kernel: Array) -> Array:
    """Convolves with a 3x3 kernel and stride 1 by six products [n, 3*C] x [3*C, F], n a quarter of the positions."""
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
    """Returns the kernel's gradient of :func:`winograd_forward`, by six products [C, n] x [n, 3*F] and then G^T."""
    channels, filters = kernel.shape[2:]

    def product(x: Array, dy: Array) -> Array:
        dy = jnp.pad(dy, ((0, 0), (0, 0), (0, -dy.shape[2] % 4), (0, 0)))
        tiles = dy.reshape(*dy.shape[:2], -1, 4, filters)
        points = jnp.stack([_combine(_A[p], [tiles[:, :, :, j] for j in range(4)]) for p in range(6)])
        columns = _shifts_along(points, 3, 2).reshape(6, -1, 3 * filters)
        return jnp.einsum("pnc,pnf->pcf", _winograd_inputs(x).reshape(6, -1, channels), columns)

    gradient = _sum_of_chunks(product, x, dy, _winograd_elements(x, kernel)).reshape(6, channels, 3, filters)
    # Shift a of the output's gradient belongs to the kernel's entry 2 - a.
    return jnp.flip(jnp.einsum("pb,pcaf->abcf", _G.astype(kernel.dtype), gradient), 0)


def _winograd_inputs(x: Array) -> Array:
    """Computes B^T d for tiles of six positions, every four positions along the width: [6, N, H, ceil(W / 4), C]."""
    images, height, width, channels = x.shape
    tiles = -(-width // 4)
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 4 * tiles + 3 - width), (0, 0)))
    padded = padded.reshape(images, height, tiles + 1, 4, channels)
    tile = [padded[:, :, i // 4 : i // 4 + tiles, i % 4] for i in range(6)]
    return jnp.stack([_combine(_B[:, p], tile) for p in range(6)])


def _combine(factors: np.ndarray, terms: Sequence[Array] | Array) -> Array:
    """Sums the terms times their factors, and skips terms whose factor is 0."""
    return sum(factor * term for factor, term in zip(factors.tolist(), terms, strict=True) if factor)


def _in_chunks(function: Callable[[Array], Array], images: Array, elements: int) -> Array:
    """Computes ``function(images)``, [N, ...] -> [N, ...], chunk by chunk; each image adds ``elements`` to a chunk."""
    chunks, size = _split(images.shape[0], elements)
    if chunks == 1:
        return function(images)
    chunk = _slicer(images, chunks, size)
    y = lax.map(lambda index: function(chunk(index)), jnp.arange(chunks))
    return y.reshape(-1, *y.shape[2:])[: images.shape[0]]


def _split(count: int, elements: int) -> tuple[int, int]:
    """Returns the number of chunks, and of images in each; the last chunk may have to be padded."""
    chunks = min(count, math.ceil(count * elements / CHUNK_ELEMENTS))
    size = math.ceil(count / chunks)
    return math.ceil(count / size), size  # 7 images for 5 chunks give chunks of 2, of which 4 suffice


def _slicer(images: Array, chunks: int, size: int) -> Callable[[Array | int], Array]:
    """Returns a function that slices a chunk out of [N, ...] by its index, padded with zeros after the last image.

    Reshaping the images to [chunks, size, ...] and scanning over the chunks would be slower: if the images are the
    result of another operation, XLA computes that operation a second time in the new shape.
    """
    rest = chunks * size - images.shape[0]
    padded = jnp.pad(images, [(0, rest)] + [(0, 0)] * (images.ndim - 1)) if rest else images
    return lambda index: lax.dynamic_slice_in_dim(padded, index * size, size)


def input_gradient(x: Array, kernel: Array, dy: Array, stride: int) -> Array:
    """Returns the gradient with respect to the images x, from the output's gradient dy."""
    if kernel.shape[0] == 1:
        return dilate(jnp.dot(dy, kernel[0, 0].T), stride, x.shape[1:3])
    if stride > 1:
        return strided_input_gradient(kernel, dy, stride, x.shape[1:3])
    return forward(dy, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), 1)


def dilate(dy: Array, stride: int, sides: tuple[int, ...]) -> Array:
    """Puts ``stride - 1`` zeros between the positions of dy, so that it has the input's sides (height, width)."""
    if stride == 1:
        return dy
    ends = [side - (1 + stride * (n - 1)) for side, n in zip(sides, dy.shape[1:3], strict=True)]
    padding = [(0, 0, 0), (0, ends[0], stride - 1), (0, ends[1], stride - 1), (0, 0, 0)]
    return lax.pad(dy, jnp.zeros((), dy.dtype), padding)


def strided_input_gradient(kernel: Array, dy: Array, stride: int, sides: tuple[int, ...]) -> Array:
    """Returns the input's gradient for a stride s, without inserting zeros into the output's gradient.

    Position ``s i + r`` of the input, 0 <= r < s, contributes to position ``i - d`` of the output through the kernel's
    entry ``s d + r + K//2``. So the kernel, padded with zeros to a multiple of s entries, is a kernel over d that
    computes all phases r at once: [N, H', W', F] -> [N, H', W', s * s * C]. The phases are then interleaved.
    """
    size, _, channels, filters = kernel.shape
    pad = size // 2
    before = -pad % stride
    taps = -(-(size + before) // stride)
    least = -(pad + before) // stride  # the first tap's d
    filled = jnp.pad(kernel, ((before, taps * stride - size - before),) * 2 + ((0, 0), (0, 0)))
    split = filled.reshape(taps, stride, taps, stride, channels, filters)
    by_phase = jnp.flip(split, (0, 2)).transpose(0, 2, 5, 1, 3, 4).reshape(taps, taps, filters, -1)
    padding = ((taps - 1 + least, -least),) * 2
    phases = lax.conv_general_dilated(dy, by_phase, (1, 1), padding, dimension_numbers=DIMENSIONS)
    images, height, width, _ = dy.shape
    phases = phases.reshape(images, height, width, stride, stride, channels).transpose(0, 1, 3, 2, 4, 5)
    return phases.reshape(images, height * stride, width * stride, channels)[:, : sides[0], : sides[1]]


def kernel_gradient(x: Array, kernel: Array, dy: Array, stride: int) -> Array:
    """Returns the gradient with respect to the kernel [K, K, C, F], from the output's gradient dy."""
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
    """Returns the kernel's gradient for stride 1, by convolving the channels of x with dy as the kernel.

    XLA does the same on its own, but in a loop it does not transpose the arrays first, and is a hundred times slower.
    """
    pad = kernel.shape[0] // 2
    x, dy = lax.optimization_barrier((x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3)))
    gradient = lax.conv_general_dilated(
        x, dy, (1, 1), ((pad, pad), (pad, pad)), dimension_numbers=DIMENSIONS,
        preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
    )  # fmt: skip
    return gradient.transpose(1, 2, 0, 3).astype(kernel.dtype)


def product_kernel_gradient(x: Array, kernel: Array, dy: Array, stride: int) -> Array:
    """Returns the kernel's gradient as a sum of matrix products over chunks of the batch that fit the cache.

    For stride 1 the factors are the K shifts of the input along the height, and the K shifts of the *output's* gradient
    along the width: [K*C, n] x [n, K*F]. This copies 1/K of the elements that K*K shifts of one array would take. For a
    larger stride they are the K*K shifts of the input, at every stride-th position, and the output's gradient:
    [K*K*C, n] x [n, F].
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
        # Shift b of the output's gradient belongs to the kernel's entry K - 1 - b.
        gradient = jnp.flip(gradient.reshape(size, channels, size, filters), 2).transpose(0, 2, 1, 3)
    return gradient.reshape(kernel.shape).astype(kernel.dtype)


def _sum_of_chunks(function: Callable[[Array, Array], Array], x: Array, dy: Array, elements: int) -> Array:
    """Computes ``function(x, dy)``, a sum over images, chunk by chunk; each image adds ``elements`` to a chunk."""
    chunks, size = _split(x.shape[0], elements)
    if chunks == 1:
        return function(x, dy)
    chunk, dchunk = _slicer(x, chunks, size), _slicer(dy, chunks, size)
    total = jax.eval_shape(lambda: function(chunk(0), dchunk(0)))
    return lax.fori_loop(
        0, chunks, lambda i, sum: sum + function(chunk(i), dchunk(i)), jnp.zeros(total.shape, total.dtype)
    )


def _shifts_along(images: Array, size: int, axis: int) -> Array:
    """Concatenates the ``size`` shifts of padded images along one axis: [..., C] -> [..., size*C]."""
    return jnp.concatenate(_shifted(images, size, axis), axis=-1)


def shifts(images: Array, size: int, stride: int) -> Array:
    """Concatenates the size*size shifts of padded images: [N, H, W, C] -> [N, H', W', size*size*C]."""
    return jnp.concatenate(_shifted_both_ways(images, size, stride), axis=-1)


def _shifted(images: Array, size: int, axis: int) -> list[Array]:
    """Returns the ``size`` shifts of padded images along one axis."""
    pad, side = size // 2, images.shape[axis]
    padded = jnp.pad(images, [(pad, pad) if i == axis else (0, 0) for i in range(images.ndim)])
    return [lax.slice_in_dim(padded, a, a + side, axis=axis) for a in range(size)]


def _shifted_both_ways(images: Array, size: int, stride: int) -> list[Array]:
    """Returns the size*size shifts of padded images, each at every ``stride``-th position."""
    height, width = images.shape[1:3]
    pad = size // 2
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return [padded[:, a : a + height : stride, b : b + width : stride] for a in range(size) for b in range(size)]


def _concatenated_channels(arrays: Sequence[Array]) -> Array:
    """Computes ``jnp.concatenate(arrays, axis=-1)`` in one pass over memory.

    XLA fuses the operations that compute the arrays into a concatenation, except along the last axis. There it would
    write the arrays first, and then copy them. Winograd's points are sums, and would gain nothing from this.
    """
    stacked = jnp.stack(arrays, axis=-2)
    return stacked.reshape(*stacked.shape[:-2], -1)
