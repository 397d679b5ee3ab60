"""The units that stages are made of: what one step of depth is.

To add one: write its class here, or anywhere, and name it in :data:`UNITS`. ``tests/networks/test_new_unit.py`` does.
"""

from typing import ClassVar

import flax.linen as nn
from jax import Array

from resnet_flax.networks.highway import highway_layer
from resnet_flax.networks.layers import Layers
from resnet_flax.networks.shortcuts import parameter_free, projects, shortcut


class Unit(nn.Module):
    """What every unit is given, and what its class may declare; a subclass says what it computes.

    Attributes:
      filters: channels of the output.
      stride: of the unit, 1 or 2.
      layers: how layers are made, and which there are (``block``).
      follows_activation: whether it is the network's first unit, behind the stem's ReLU or on the images themselves.
    """

    filters: int
    stride: int
    layers: Layers
    follows_activation: bool = False

    # A class changes these where they do not hold for it.
    blocks: ClassVar[tuple[str, ...]] = ("basic", "bottleneck", "single")  # that it can be made of
    ends_activated: ClassVar[bool] = True  # if not, one more BN and ReLU follow the network's last unit
    gated: ClassVar[bool] = False  # it has gates, whose bias at the start is `model.gate_bias`
    can_start_as_identity: ClassVar[bool] = False  # it is, and still learns, where its last BN has scale 0

    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        raise NotImplementedError


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
    """``y = F(x) + shortcut(x)``, where BN and ReLU come before each convolution of F (arXiv:1603.05027, Fig. 4e).

    Nothing comes after the addition, so the network's last unit is followed by a BN and a ReLU; and its first unit,
    whose input the stem has activated already, begins with its convolution (the paper's appendix).

    Where the shape changes, option A subsamples and pads x itself, as the identity elsewhere carries x itself: the
    paper does not say of which tensor. A projection (B, C) is a bare 1x1 convolution of the activated x.
    """

    ends_activated = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        layers = self.layers
        y = activated = x
        for i, (filters, size, stride) in enumerate(convolutions(self.filters, self.stride, layers), start=1):
            if i > 1 or not self.follows_activation:
                y = nn.relu(layers.norm(name=f"bn{i}")(y, train))
            activated = y if i == 1 else activated
            y = layers.convolution(filters, size, stride, name=f"conv{i}")(y)
            y = layers.probe(name=probe_name(size, i))(y)
        if projects(x, self.filters, self.stride, layers):
            return y + layers.convolution(self.filters, 1, self.stride, name="shortcut_conv")(activated)
        return y + parameter_free(x, self.filters, self.stride, layers)


class HighwayUnit(Unit):
    """Highway layers, each with its gate, where the plain unit has plain ones (arXiv:1507.06228, eq. 3).

    There is no bottleneck form: its 1x1 layers change dimensions by design, and a gate needs them to stay.
    """

    blocks = ("basic", "single")
    gated = True

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        for i, (filters, size, stride) in enumerate(convolutions(self.filters, self.stride, self.layers), start=1):
            x = highway_layer(x, filters, size, stride, self.layers, train, i)
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
    planned = convolutions(filters, stride, layers)
    for i, (width, size, step) in enumerate(planned, start=1):
        last = i == len(planned)
        x = layers.convolution(width, size, step, name=f"conv{i}")(x)
        x = layers.norm(name=f"bn{i}", last=last)(x, train)
        x = layers.probe(name=probe_name(size, i))(x)
        if not last:
            x = nn.relu(x)
    return x


def convolutions(filters: int, stride: int, layers: Layers) -> list[tuple[int, int, int]]:
    """(filters, size, stride) of each convolution of a unit, in order.

    ``single``: 3x3. ``basic``: 3x3, 3x3. ``bottleneck``: 1x1 to filters / 4, 3x3, 1x1 back to filters
    (arXiv:1512.03385, Fig. 5).
    """
    if layers.block == "single":
        return [(filters, 3, stride)]
    if layers.block == "basic":
        return [(filters, 3, stride), (filters, 3, 1)]
    narrow = filters // 4
    strides = (stride, 1) if layers.bottleneck_stride == "first" else (1, stride)
    return [(narrow, 1, strides[0]), (narrow, 3, strides[1]), (filters, 1, 1)]


def probe_name(size: int, i: int) -> str:
    """Name of the probe behind the i-th convolution: ``response1``; ``pointwise1`` where it is a 1x1."""
    return f"{'pointwise' if size == 1 else 'response'}{i}"
