"""The order of a training stream: a permutation of the data set for each epoch, computed place by place.

A shuffled list of 50,000 places would have to be made anew at each epoch, kept, and checkpointed. A pseudo-random
permutation that can be asked for one place at a time needs none of that: the image at any place of the stream is
a function of the seed and the place. It is a Feistel network on the smallest 4^b >= N, walked along its cycle
until it is below N (Black & Rogaway, "Ciphers with arbitrary finite domains", 2002).
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

_ROUNDS = 8


def stream_indices(key: Array, places: Array, size: int) -> Array:
    """Which images stand at these places of the endless training stream.

    Every epoch of ``size`` places holds each image once, in an order of its own. Epochs follow one another without
    a gap: where the batch does not divide the data set, a batch may hold the end of one and the start of the next.

    Args:
      key: of the stream.
      places: [B] uint32.
      size: N, images in the data set.

    Returns:
      [B] int32, in [0, N).
    """
    epochs, offsets = places // jnp.uint32(size), places % jnp.uint32(size)

    def index(epoch: Array, offset: Array) -> Array:
        return permute(jax.random.fold_in(key, epoch), offset, size)

    return jax.vmap(index)(epochs, offsets)


def permute(key: Array, offset: Array, size: int) -> Array:
    """Returns the image (int32) of an offset (uint32 scalar) under a pseudo-random permutation of [0, size)."""
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = jnp.uint32((1 << half_bits) - 1)
    round_keys = jax.random.bits(key, (_ROUNDS,), jnp.uint32)

    def encipher(value: Array) -> Array:
        left, right = value >> half_bits, value & mask
        for i in range(_ROUNDS):
            left, right = right, left ^ (_mix(right ^ round_keys[i]) & mask)
        return (left << half_bits) | right

    # Every walk ends: the cycle that starts below `size` comes back there.
    walked = lax.while_loop(lambda v: v >= size, encipher, encipher(offset.astype(jnp.uint32)))
    return walked.astype(jnp.int32)


def _mix(x: Array) -> Array:
    """MurmurHash3's finaliser: every bit of the result depends on every bit of x."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
