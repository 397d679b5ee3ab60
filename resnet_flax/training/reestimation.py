"""BN statistics estimated anew after training: a true average over the training set, not a moving one.

So the authors of arXiv:1512.03385 did for the networks they released (github.com/KaimingHe/deep-residual-networks,
"Disclaimer and known issues"): parameters stay, and each BN's mean and variance become the averages of what it sees.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from resnet_flax.data.resident import Normalization, Resident, center
from resnet_flax.networks import Network, on_one_device

Reestimate = Callable[[Any, Resident], Any]


def make_reestimate(network: Network, normalization: Normalization, batch_size: int, crop: int = 0) -> Reestimate:
    """Compiles ``(params, data) -> batch_stats``.

    Every image counts once, without augmentation: batches in the order of the data, normalised with their own
    statistics as in training, each weighing as much as it has images (the last one may be smaller).

    Args:
      network: with or without an axis name; every device computes the whole.
      batch_size: images that a BN normalises together.
      crop: the side of the central crop that the network sees; 0 for whole images.
    """
    alone = on_one_device(network)
    # A frozen network would leave its statistics as they are. With momentum 0, what a BN leaves in them is what it saw
    # last.
    alone = alone.clone(layers=dataclasses.replace(alone.layers, bn_momentum=0.0), dropout=0.0, frozen=False)
    dtype = jnp.promote_types(network.layers.param_dtype, jnp.float32)

    @jax.jit
    def reestimate(params: Any, data: Resident) -> Any:
        images = data.images
        batches, rest = divmod(images.shape[0], batch_size)

        def seen(images: Array) -> Any:
            """The statistics of a batch, as often as it has images."""
            x = center(normalization(images, dtype), crop)
            # The running statistics that go in do not matter: only their shapes.
            start = jax.eval_shape(alone.init, jax.random.key(0), x[:1])["batch_stats"]
            start = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), start)
            _, new = alone.apply({"params": params, "batch_stats": start}, x, train=True, mutable=["batch_stats"])
            return jax.tree.map(lambda a: a * images.shape[0], new["batch_stats"])

        def add(i: Array, totals: Any) -> Any:
            return jax.tree.map(jnp.add, totals, seen(lax.dynamic_slice_in_dim(images, i * batch_size, batch_size)))

        if batches:
            totals = lax.fori_loop(1, batches, add, seen(images[:batch_size]))
        if rest:
            last = seen(images[batches * batch_size :])
            totals = jax.tree.map(jnp.add, totals, last) if batches else last
        return jax.tree.map(lambda a: a / images.shape[0], totals)

    return reestimate
