"""Dropout with a random key for each example, so that masks do not depend on the example's batch or device."""

import jax
import jax.numpy as jnp
from jax import Array


def dropout(x: Array, rate: float, keys: Array, layer: int) -> Array:
    """Sets features to zero with probability ``rate`` and divides the others by ``1 - rate`` (arXiv:1207.0580).

    Args:
      x: [N, F].
      rate: The probability, in [0, 1).
      keys: [N], a random key for each example.
      layer: Number of the dropout layer; layers of a network with different numbers draw different masks.

    Returns:
      [N, F] of the dtype of x.
    """

    def bits_of(key: Array) -> Array:
        return jax.random.bits(jax.random.fold_in(key, layer), x.shape[1:], jnp.uint32)

    # Drawing raw bits instead of floats gives the same masks with and without 64-bit types.
    kept = jax.vmap(bits_of)(keys) >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))
    return jnp.where(kept, x / (1 - rate), 0)
