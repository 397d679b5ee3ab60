"""The order of training examples in device memory: a random permutation for each epoch, computed place by place.

A shuffled list of 50,000 indices would have to be made again for each epoch, kept, and checkpointed. A pseudo-random
permutation that can be evaluated at a single place needs none of that: the image at a place of the stream is a function
of the seed and the place. The permutation is a Feistel network on [0, 4^b) for the smallest 4^b >= N, applied again
until the result is below N (cycle walking; Black & Rogaway, "Ciphers with arbitrary finite domains", 2002).
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

_ROUNDS = 8


def stream_indices(key: Array, places: Array, size: int) -> Array:
    """Returns the indices of the images at these places of the endless training stream.

    Every epoch of ``size`` places holds each image once, in its own order. Epochs follow one another without a gap: if
    the batch size does not divide the data set, a batch may hold the end of one epoch and the start of the next.

    Args:
      key: The random key of the stream.
      places: [B] uint32, the places in the stream.
      size: N, the number of images in the data set.

    Returns:
      [B] int32, in [0, N).
    """
    epochs, offsets = places // jnp.uint32(size), places % jnp.uint32(size)

    def index(epoch: Array, offset: Array) -> Array:
        return permute(jax.random.fold_in(key, epoch), offset, size)

    return jax.vmap(index)(epochs, offsets)


def permute(key: Array, offset: Array, size: int) -> Array:
    """Maps an offset (uint32 scalar) to its index (int32) under a pseudo-random permutation of [0, size)."""
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = jnp.uint32((1 << half_bits) - 1)
    round_keys = jax.random.bits(key, (_ROUNDS,), jnp.uint32)

    def encipher(value: Array) -> Array:
        left, right = value >> half_bits, value & mask
        for i in range(_ROUNDS):
            left, right = right, left ^ (_mix(right ^ round_keys[i]) & mask)
        return (left << half_bits) | right

    # The loop ends: `encipher` is a permutation, so the cycle of an offset below `size` returns to it.
    walked = lax.while_loop(lambda v: v >= size, encipher, encipher(offset.astype(jnp.uint32)))
    return walked.astype(jnp.int32)


def _mix(x: Array) -> Array:
    """Applies the finaliser of MurmurHash3: every bit of the result depends on every bit of x."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
