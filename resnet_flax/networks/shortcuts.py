"""Shortcuts of a residual unit where its input and output differ in shape: options A, B and C.

"Deep Residual Learning for Image Recognition" (arXiv:1512.03385), section 3.3 and Table 3.
"""

import jax.numpy as jnp
from jax import Array

from resnet_flax.networks.layers import Layers

SHORTCUTS = ("A", "B", "C")


def shortcut(x: Array, filters: int, stride: int, layers: Layers, train: bool) -> Array:
    """Brings x to the shape of the unit's output, as ``layers.shortcut`` says.

    A: every stride-th position, zeros for the channels that are new; no parameters.
    B: a 1x1 convolution and a BN where the shape changes, the identity elsewhere.
    C: a 1x1 convolution and a BN in every unit.

    Called inside a unit's ``__call__``: the projection's layers, ``shortcut_conv`` and ``shortcut_bn``, become
    the unit's.

    Args:
      x: [N, H, W, C].
      filters: channels of the result; for option A at least C.

    Returns:
      [N, ceil(H / stride), ceil(W / stride), filters].
    """
    if projects(x, filters, stride, layers):
        projected = layers.convolution(filters, 1, stride, name="shortcut_conv")(x)
        return layers.norm(name="shortcut_bn")(projected, train)
    return parameter_free(x, filters, stride, layers)


def projects(x: Array, filters: int, stride: int, layers: Layers) -> bool:
    """Whether the option puts a projection here."""
    return layers.shortcut == "C" or (layers.shortcut == "B" and not _same_shape(x, filters, stride))


def parameter_free(x: Array, filters: int, stride: int, layers: Layers) -> Array:
    """The identity, or where the shape changes option A."""
    if _same_shape(x, filters, stride):
        return x
    return subsample_and_pad(x, filters, stride, layers.shortcut_padding)


def _same_shape(x: Array, filters: int, stride: int) -> bool:
    return stride == 1 and x.shape[-1] == filters


def subsample_and_pad(x: Array, filters: int, stride: int, where: str) -> Array:
    """Option A. The new channels go to the ``"end"``, or half of them before and half after (``"both"``)."""
    new = filters - x.shape[-1]
    if new < 0:
        raise ValueError(f"option A cannot narrow {x.shape[-1]} channels to {filters}; choose model.shortcut B or C")
    before = new // 2 if where == "both" else 0
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (before, new - before)))
