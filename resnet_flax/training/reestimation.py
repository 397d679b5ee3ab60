"""BN statistics estimated anew after training: a true average over the training set, not a moving one.

So the authors of arXiv:1512.03385 did for the networks they released (github.com/KaimingHe/deep-residual-networks,
"Disclaimer and known issues"): parameters stay, and each BN's mean and variance become the averages of what it sees.
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
    """Returns the ``batch_stats`` that average what BN sees in these batches, [n, H, W, C] uint8.

    Images are normalised with their batch's own statistics, as in training, and not augmented. A batch weighs as much
    as it has images: the last one, or one with broken images, may be smaller, and is computed at its own size.

    Args:
      network: with or without an axis name; one device computes the whole.

    Raises:
      UserError: there is no image.
    """
    seen = _seen_by(network)

    @partial(jit, donate_argnums=0)
    def add(totals: Any, params: Any, images: Array) -> Any:
        return jax.tree.map(jnp.add, totals, seen(params, transform.evaluate(images)))

    totals, count = None, 0
    for images in batches:
        if not len(images):
            continue
        if totals is None:
            shapes = jax.eval_shape(lambda p, i: seen(p, transform.evaluate(i)), params, images)
            totals = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        totals, count = add(totals, params, images), count + len(images)
    if not count:
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
