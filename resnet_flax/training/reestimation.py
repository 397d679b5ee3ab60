"""Re-estimates BN statistics after training, as an average over the training set instead of a moving average.

The authors of arXiv:1512.03385 did this for the networks they released (github.com/KaimingHe/deep-residual-networks,
"Disclaimer and known issues"). Parameters stay as they are; the mean and variance of each BN become averages over the
training images.
"""

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from resnet_flax.data.transforms import Transform
from resnet_flax.errors import UserError
from resnet_flax.networks import Network, on_one_device
from resnet_flax.networks.compilation import jit


def reestimate(network: Network, params: Any, transform: Transform, batches: Iterable[Array | np.ndarray]) -> Any:
    """Returns ``batch_stats`` that are averages of the batch statistics over the given batches, [n, H, W, C] uint8.

    BN normalises each batch by its own statistics, as in training; images are not augmented. Batches are weighted by
    their number of images, because the last one, or one with unreadable images, may be smaller.

    Args:
      network: The network, with or without an axis name; one device computes everything.

    Raises:
      UserError: There are no images.
    """
    weighted_stats = _make_weighted_stats(network)

    @partial(jit, donate_argnums=0)
    def add(totals: Any, params: Any, images: Array) -> Any:
        return jax.tree.map(jnp.add, totals, weighted_stats(params, transform.evaluate(images)))

    totals, count = None, 0
    for images in batches:
        if not len(images):
            continue
        if totals is None:
            shapes = jax.eval_shape(lambda p, i: weighted_stats(p, transform.evaluate(i)), params, images)
            totals = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        totals, count = add(totals, params, images), count + len(images)
    if not count:
        raise UserError("BN statistics: none of the training images can be read")
    return jax.tree.map(lambda a: a / count, totals)


def _make_weighted_stats(network: Network) -> Callable[[Any, Array], Any]:
    """Builds ``(params, images) -> batch statistics``, multiplied by the number of images."""
    single = on_one_device(network)
    # With momentum 0, BN's running statistics become those of the batch. A frozen network would not update them.
    single = single.clone(layers=dataclasses.replace(single.layers, bn_momentum=0.0), dropout=0.0, frozen=False)

    def weighted_stats(params: Any, images: Array) -> Any:
        # With momentum 0 the initial statistics have no effect; only their shapes are needed.
        start = jax.eval_shape(single.init, jax.random.key(0), images[:1])["batch_stats"]
        start = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), start)
        _, new = single.apply({"params": params, "batch_stats": start}, images, train=True, mutable=["batch_stats"])
        return jax.tree.map(lambda a: a * images.shape[0], new["batch_stats"])

    return weighted_stats
