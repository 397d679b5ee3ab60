"""The units that stages are made of: what one step of depth is.

A unit is a class that takes ``filters``, ``stride`` and ``layers``, and maps ``(x, train)`` to its output. To
add one (pre-activation, highway, ...): write the class here and name it in :data:`UNITS`.
"""

import flax.linen as nn
from jax import Array

from resnet_flax.networks.layers import Layers
from resnet_flax.networks.shortcuts import shortcut


class PlainUnit(nn.Module):
    """Stacked layers, nothing else: ``y = relu(F(x))``; the residual unit without its shortcut.

    Attributes:
      filters: channels of the output.
      stride: of the unit, 1 or 2.
      layers: how layers are made, and whether F is ``basic`` or ``bottleneck``.
    """

    filters: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        return nn.relu(stacked_layers(x, self.filters, self.stride, self.layers, train))


class ResidualUnit(nn.Module):
    """``y = relu(F(x) + shortcut(x))`` (arXiv:1512.03385, eqs. 1 and 2, Figs. 2 and 5).

    Attributes:
      filters: channels of the output.
      stride: of the unit, 1 or 2.
      layers: how layers are made, whether F is ``basic`` or ``bottleneck``, and the shortcut's option.
    """

    filters: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        residual = stacked_layers(x, self.filters, self.stride, self.layers, train)
        return nn.relu(residual + shortcut(x, self.filters, self.stride, self.layers, train))


# The name in a config (`model.unit`) and its class.
UNITS: dict[str, type[nn.Module]] = {
    "plain": PlainUnit,
    "residual": ResidualUnit,
}


def stacked_layers(x: Array, filters: int, stride: int, layers: Layers, train: bool) -> Array:
    """F(x): the layers of a unit up to its last BN, before the addition and the last ReLU.

    ``basic``: 3x3, 3x3. ``bottleneck``: 1x1 to filters / 4, 3x3, 1x1 back to filters (Fig. 5). Called inside a
    unit's ``__call__``: the layers ``conv1``, ``bn1``, ... become the unit's.
    """
    if layers.block == "basic":
        convolutions = [(filters, 3, stride), (filters, 3, 1)]
    else:
        narrow = filters // 4
        strides = (stride, 1) if layers.bottleneck_stride == "first" else (1, stride)
        convolutions = [(narrow, 1, strides[0]), (narrow, 3, strides[1]), (filters, 1, 1)]
    for i, (width, size, step) in enumerate(convolutions, start=1):
        last = i == len(convolutions)
        x = layers.convolution(width, size, step, name=f"conv{i}")(x)
        x = layers.norm(name=f"bn{i}", last=last)(x, train)
        x = layers.probe(name=f"{'response' if size == 3 else 'pointwise'}{i}")(x)
        if not last:
            x = nn.relu(x)
    return x
