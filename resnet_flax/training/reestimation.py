"""BN statistics estimated anew after training: a true average over the training set, not a moving one.

So the authors of arXiv:1512.03385 did for the networks they released (github.com/KaimingHe/deep-residual-networks,
"Disclaimer and known issues"): parameters stay, and each BN's mean and variance become the averages of what it sees.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from resnet_flax.data.resident import Normalization, Resident, center
from resnet_flax.errors import UserError
from resnet_flax.networks import Network, on_one_device
from resnet_flax.networks.compilation import jit

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
    seen = _seen_by(network)
    dtype = jnp.promote_types(network.layers.param_dtype, jnp.float32)

    @jit
    def reestimate(params: Any, data: Resident) -> Any:
        batches, rest = divmod(data.images.shape[0], batch_size)

        def seen_in(images: Array) -> Any:
            return seen(params, center(normalization(images, dtype), crop))

        def add(i: Array, totals: Any) -> Any:
            images = lax.dynamic_slice_in_dim(data.images, i * batch_size, batch_size)
            return jax.tree.map(jnp.add, totals, seen_in(images))

        if batches:
            totals = lax.fori_loop(1, batches, add, seen_in(data.images[:batch_size]))
        if rest:
            last = seen_in(data.images[batches * batch_size :])
            totals = jax.tree.map(jnp.add, totals, last) if batches else last
        return jax.tree.map(lambda a: a / data.images.shape[0], totals)

    return reestimate


def reestimate(network: Network, params: Any, normalization: Normalization, batches: Iterable[np.ndarray]) -> Any:
    """The same of images that come in batches, [n, H, W, C] uint8 as the network sees them; n may differ."""
    seen, totals, count = jit(_seen_by(network)), None, 0
    dtype = jnp.promote_types(network.layers.param_dtype, jnp.float32)
    for images in batches:
        found = seen(params, normalization(jnp.asarray(images), dtype))
        totals = found if totals is None else jax.tree.map(jnp.add, totals, found)
        count += len(images)
    if totals is None:
        raise UserError("BN statistics: none of the training images can be read")
    return jax.tree.map(lambda a: a / count, totals)


def _seen_by(network: Network) -> Callable[[Any, Array], Any]:
    """``(params, images) -> batch_stats`` of that batch alone, times its images."""
    alone = on_one_device(network)
    # A frozen network would leave its statistics as they are. With momentum 0, what a BN leaves in them is what it saw
    # last.
    alone = alone.clone(layers=dataclasses.replace(alone.layers, bn_momentum=0.0), dropout=0.0, frozen=False)

    def seen(params: Any, images: Array) -> Any:
        # The running statistics that go in do not matter: only their shapes.
        start = jax.eval_shape(alone.init, jax.random.key(0), images[:1])["batch_stats"]
        start = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), start)
        _, new = alone.apply({"params": params, "batch_stats": start}, images, train=True, mutable=["batch_stats"])
        return jax.tree.map(lambda a: a * images.shape[0], new["batch_stats"])

    return seen
