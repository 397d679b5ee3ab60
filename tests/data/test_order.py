"""Tests of the order of a training stream, which is a permutation in each epoch, for any size."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_flax.data import order as module

stream_indices = jax.jit(module.stream_indices, static_argnums=2)


@settings(max_examples=12)
@given(st.integers(1, 700), st.integers(0, 2**31))
def test_every_epoch_holds_each_image_once(size, seed):
    places = np.arange(3 * size, dtype=np.uint32)
    epochs = np.asarray(stream_indices(jax.random.key(seed), jnp.asarray(places), size)).reshape(3, size)
    np.testing.assert_array_equal(np.sort(epochs, 1), np.tile(np.arange(size), (3, 1)))


@settings(max_examples=10)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20), st.integers(1, 60_000))
def test_an_index_does_not_depend_on_the_other_places_asked_for(places, size):
    key = jax.random.key(7)
    together = stream_indices(key, jnp.asarray(places, jnp.uint32), size)
    alone = [stream_indices(key, jnp.asarray([p], jnp.uint32), size)[0] for p in places]
    np.testing.assert_array_equal(together, alone)


def test_orders_differ_between_epochs_and_between_seeds():
    def order(seed, epoch):
        places = jnp.arange(1000, dtype=jnp.uint32) + 1000 * epoch
        return np.asarray(stream_indices(jax.random.key(seed), places, 1000))

    for other in (order(0, 1), order(1, 0)):
        assert (order(0, 0) == other).sum() < 10  # 1 is expected of two random permutations


def test_the_order_is_random_enough():
    """The place of image 0 over many epochs is uniform by a chi-squared test (16 cells, 15 degrees of freedom)."""
    size, epochs = 256, 2000
    places = jnp.arange(size * epochs, dtype=jnp.uint32)
    order = np.asarray(stream_indices(jax.random.key(3), places, size))
    where = np.argmin(order.reshape(epochs, size), 1)
    counts = np.bincount(where // 16, minlength=16)
    assert ((counts - epochs / 16) ** 2 / (epochs / 16)).sum() < 37.7  # exceeded once in 1,000 by chance
    # Neighbours are not correlated: a lag-1 correlation of 2,000 * 255 pairs has a deviation of 0.0014.
    first, second = order.reshape(epochs, size)[:, :-1].ravel(), order.reshape(epochs, size)[:, 1:].ravel()
    assert abs(np.corrcoef(first, second)[0, 1] + 1 / (size - 1)) < 0.006


def test_orders_are_the_same_with_64_bit_types():
    places = jnp.arange(50, dtype=jnp.uint32)
    plain = np.asarray(stream_indices(jax.random.key(0), places, 37))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(plain, stream_indices(jax.random.key(0), jnp.asarray(places), 37))
