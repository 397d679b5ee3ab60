"""Shortcuts of residual units, by options A, B and C: how they bring a unit's input to the shape of its output.

"Deep Residual Learning for Image Recognition" (arXiv:1512.03385), section 3.3 and Table 3.
"""

import jax.numpy as jnp
from jax import Array

from resnet_flax.networks.layers import Layers

SHORTCUTS = ("A", "B", "C")


def shortcut(x: Array, filters: int, stride: int, layers: Layers, train: bool) -> Array:
    """Returns x in the shape of the unit's output, by the option that ``layers.shortcut`` names.

    * A: the identity; where the shape changes, every stride-th position, with zeros for the new channels. It has no
      parameters.
    * B: the identity; where the shape changes, a 1x1 convolution and a BN (a projection, eq. 2).
    * C: a 1x1 convolution and a BN in every unit.

    It must be called inside a unit's ``__call__``: the layers of a projection, ``shortcut_conv`` and ``shortcut_bn``,
    become the unit's own.

    Args:
      x: [N, H, W, C].
      filters: Number of channels of the result; at least C for option A.

    Returns:
      [N, ceil(H / stride), ceil(W / stride), filters].
    """
    if projects(x, filters, stride, layers):
        projected = layers.convolution(filters, 1, stride, name="shortcut_conv")(x)
        return layers.norm(name="shortcut_bn")(projected, train)
    return parameter_free(x, filters, stride, layers)


def projects(x: Array, filters: int, stride: int, layers: Layers) -> bool:
    """Tells whether the shortcut at this place is a projection (a 1x1 convolution)."""
    return layers.shortcut == "C" or (layers.shortcut == "B" and not _same_shape(x, filters, stride))


def parameter_free(x: Array, filters: int, stride: int, layers: Layers) -> Array:
    """Returns x itself, or option A of x where the shape changes."""
    if _same_shape(x, filters, stride):
        return x
    return subsample_and_pad(x, filters, stride, layers.shortcut_padding)


def _same_shape(x: Array, filters: int, stride: int) -> bool:
    return stride == 1 and x.shape[-1] == filters


def subsample_and_pad(x: Array, filters: int, stride: int, where: str) -> Array:
    """Applies option A: takes every stride-th position of x, and pads its channels with zeros to ``filters``.

    Args:
      where: ``"end"`` puts the new channels after those of x, ``"both"`` half of them before and half after.

    Raises:
      ValueError: x has more than ``filters`` channels.
    """
    new = filters - x.shape[-1]
    if new < 0:
        raise ValueError(f"option A cannot narrow {x.shape[-1]} channels to {filters}; choose model.shortcut B or C")
    before = new // 2 if where == "both" else 0
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (before, new - before)))
