"""How far the gates of a highway network are open (arXiv:1507.06228, section 2)."""

from collections.abc import Mapping
from typing import Any

import jax
from jax import Array

from resnet_flax.analysis.layer_order import layers_in_order
from resnet_flax.networks import Network
from resnet_flax.networks.compilation import jit


def openness(
    network: Network, variables: Mapping[str, Any], images: Array, train: bool = False
) -> list[tuple[str, float]]:
    """Returns each gated layer's name and the mean of its T over images, positions and channels, in the layers' order.

    The gates are measured without dropout. A gate of 0 carries its input unchanged, and a gate of 1 transforms it.

    Args:
      network: A network without a mesh axis (:func:`~.networks.on_one_device`).
      variables: The network's variables.
      images: [N, H, W, C], normalised.
      train: Whether BN uses the batch's statistics.
    """
    variables = {k: v for k, v in variables.items() if k in ("params", "batch_stats")}
    network = network.clone(dropout=0.0, frozen=False)
    look = jit(lambda v, x: network.apply(v, x, train, mutable=["batch_stats", "gates"])[1].get("gates", {}))
    gates = jax.device_get(look(variables, images))
    return [(name, float(value)) for name, value in layers_in_order(gates, "openness")]
