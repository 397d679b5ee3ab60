"""The units that stages are made of: what one step of depth is.

A unit is a class that takes ``filters``, ``stride`` and ``layers``, and maps ``(x, train)`` to its output. To
add one: write the class here and name it in :data:`UNITS`.
"""

import flax.linen as nn
from jax import Array

from resnet_flax.networks.highway import highway_layer
from resnet_flax.networks.layers import Layers
from resnet_flax.networks.shortcuts import projection, shortcut


class Unit(nn.Module):
    """What all units have.

    Attributes:
      filters: channels of the output.
      stride: of the unit, 1 or 2.
      layers: how layers are made, whether the unit is ``basic`` or ``bottleneck``, and the shortcut's option.
      follows_activation: whether the unit is the network's first, right after the stem's ReLU.
    """

    filters: int
    stride: int
    layers: Layers
    follows_activation: bool = False

    # Declared by a class whose output has still to be normalised and activated, once, after the network's last unit.
    ends_activated = True
    # Declared by a class whose last BN stands right before an addition: with scale 0 it starts as the identity.
    can_start_as_identity = False
    # The blocks that the unit can be made of (``model.block``).
    blocks = ("basic", "bottleneck")


class PlainUnit(Unit):
    """Stacked layers, nothing else: ``y = relu(F(x))``; the residual unit without its shortcut."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        return nn.relu(stacked_layers(x, self.filters, self.stride, self.layers, train))


class ResidualUnit(Unit):
    """``y = relu(F(x) + shortcut(x))`` (arXiv:1512.03385, eqs. 1 and 2, Figs. 2 and 5)."""

    can_start_as_identity = True

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        residual = stacked_layers(x, self.filters, self.stride, self.layers, train)
        return nn.relu(residual + shortcut(x, self.filters, self.stride, self.layers, train))


class PreactivationUnit(Unit):
    """``y = F(x) + shortcut(x)``, F being BN, ReLU, convolution, twice or thrice (arXiv:1603.05027, eq. 1, Fig. 4e).

    The first BN and ReLU of the network's first unit are the stem's own, before the two paths part; one more BN and
    ReLU follow the last unit (the paper's appendix). A projection (options B and C) is a bare 1x1 convolution of the
    activated input; the identity, and option A, are of the input itself, so that nothing stands in the signal's way.
    """

    ends_activated = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        layers, y = self.layers, x
        for i, (width, size, stride) in enumerate(convolutions(self.filters, self.stride, layers), start=1):
            if i > 1 or not self.follows_activation:
                y = nn.relu(layers.norm(name=f"bn{i}")(y, train))
            if i == 1:
                activated = y
            y = layers.convolution(width, size, stride, name=f"conv{i}")(y)
            y = layers.probe(name=probe_name(size, i))(y)
        if projection(x, self.filters, self.stride, layers):
            # Named as in the other units, but without a BN of its own: the input has just had one.
            return y + layers.convolution(self.filters, 1, self.stride, name="shortcut_conv")(activated)
        return y + shortcut(x, self.filters, self.stride, layers, train)


class HighwayUnit(Unit):
    """Two highway layers, each with its gate: the twin of the plain unit (arXiv:1507.06228, eq. 3).

    A layer that changes the shape is a plain one, without a gate. See :func:`~.highway.highway_layer`.
    """

    blocks = ("basic",)

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        for i, (width, size, stride) in enumerate(convolutions(self.filters, self.stride, self.layers), start=1):
            x = highway_layer(x, width, size, stride, self.layers, train, i)
        return x


# The name in a config (`model.unit`) and its class.
UNITS: dict[str, type[Unit]] = {
    "plain": PlainUnit,
    "residual": ResidualUnit,
    "preactivation": PreactivationUnit,
    "highway": HighwayUnit,
}


def stacked_layers(x: Array, filters: int, stride: int, layers: Layers, train: bool) -> Array:
    """F(x): the layers of a unit up to its last BN, before the addition and the last ReLU.

    Called inside a unit's ``__call__``: the layers ``conv1``, ``bn1``, ... become the unit's.
    """
    made_of = convolutions(filters, stride, layers)
    for i, (width, size, step) in enumerate(made_of, start=1):
        last = i == len(made_of)
        x = layers.convolution(width, size, step, name=f"conv{i}")(x)
        x = layers.norm(name=f"bn{i}", last=last)(x, train)
        x = layers.probe(name=probe_name(size, i))(x)
        if not last:
            x = nn.relu(x)
    return x


def convolutions(filters: int, stride: int, layers: Layers) -> list[tuple[int, int, int]]:
    """Filters, kernel size and stride of a unit's convolutions.

    ``basic``: 3x3, 3x3. ``bottleneck``: 1x1 to filters / 4, 3x3, 1x1 back to filters (arXiv:1512.03385, Fig. 5).
    """
    if layers.block == "basic":
        return [(filters, 3, stride), (filters, 3, 1)]
    narrow = filters // 4
    strides = (stride, 1) if layers.bottleneck_stride == "first" else (1, stride)
    return [(narrow, 1, strides[0]), (narrow, 3, strides[1]), (filters, 1, 1)]


def probe_name(size: int, i: int) -> str:
    """Of the probe on a unit's i-th convolution: those of 3x3 ones can be told apart (see ``probes.py``)."""
    return f"{'response' if size == 3 else 'pointwise'}{i}"
