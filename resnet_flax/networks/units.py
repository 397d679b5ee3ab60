"""The units that stages are made of: what one step of depth is.

To add one: write its class here, or anywhere, and name it in :data:`UNITS`. ``tests/networks/test_new_unit.py`` does.
"""

from typing import ClassVar

import flax.linen as nn
from jax import Array

from resnet_flax.networks.highway import Gate
from resnet_flax.networks.layers import Layers
from resnet_flax.networks.shortcuts import parameter_free, projects, shortcut


class Unit(nn.Module):
    """The parts that units are made of; a subclass says how they are put together.

    Its ``__call__``, an ``nn.compact`` method, calls :meth:`branch`, :meth:`shortcut` and :meth:`convolve`, whose
    layers become the unit's own: ``conv1``, ``bn1``, ..., ``shortcut_conv``, ``shortcut_bn``.

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

    def branch(self, x: Array, train: bool) -> Array:
        """F(x): the layers of a unit up to its last BN, before the addition and the last ReLU."""
        last = len(self.convolutions())
        for i in range(1, last):
            x = nn.relu(self.convolve(x, train, i))
        return self.convolve(x, train, last, last=True)

    def shortcut(self, x: Array, train: bool) -> Array:
        """Brings x to the shape of the unit's output, by option A, B or C (:func:`.shortcuts.shortcut`)."""
        return shortcut(x, self.filters, self.stride, self.layers, train)

    def convolve(self, x: Array, train: bool, i: int, last: bool = False) -> Array:
        """The unit's i-th convolution, its BN and its probe; i counts from 1.

        Args:
          last: whether the BN is the last of its unit, which ``zero_init_last`` is about.
        """
        filters, size, stride = self.convolutions()[i - 1]
        x = self.layers.convolution(filters, size, stride, name=f"conv{i}")(x)
        x = self.layers.norm(name=f"bn{i}", last=last)(x, train)
        return self.layers.probe(name=probe_name(size, i))(x)

    def convolutions(self) -> list[tuple[int, int, int]]:
        """(filters, size, stride) of each convolution of the unit, in order.

        ``single``: 3x3. ``basic``: 3x3, 3x3. ``bottleneck``: 1x1 to filters / 4, 3x3, 1x1 back to filters
        (arXiv:1512.03385, Fig. 5).
        """
        filters, stride = self.filters, self.stride
        if self.layers.block == "single":
            return [(filters, 3, stride)]
        if self.layers.block == "basic":
            return [(filters, 3, stride), (filters, 3, 1)]
        narrow = filters // 4
        strides = (stride, 1) if self.layers.bottleneck_stride == "first" else (1, stride)
        return [(narrow, 1, strides[0]), (narrow, 3, strides[1]), (filters, 1, 1)]


class PlainUnit(Unit):
    """Stacked layers, nothing else: ``y = relu(F(x))``; the residual unit without its shortcut."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        return nn.relu(self.branch(x, train))


class ResidualUnit(Unit):
    """``y = relu(F(x) + shortcut(x))`` (arXiv:1512.03385, eqs. 1 and 2, Figs. 2 and 5)."""

    can_start_as_identity = True

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        return nn.relu(self.branch(x, train) + self.shortcut(x, train))


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
        for i, (filters, size, stride) in enumerate(self.convolutions(), start=1):
            if i > 1 or not self.follows_activation:
                y = nn.relu(layers.norm(name=f"bn{i}")(y, train))
            activated = y if i == 1 else activated
            y = layers.convolution(filters, size, stride, name=f"conv{i}")(y)
            y = layers.probe(name=probe_name(size, i))(y)
        if projects(x, self.filters, self.stride, layers):
            return y + layers.convolution(self.filters, 1, self.stride, name="shortcut_conv")(activated)
        return y + parameter_free(x, self.filters, self.stride, layers)


class HighwayUnit(Unit):
    """``y = H(x) T(x) + x (1 - T(x))`` in each layer: H the plain unit's layer, T its gate (arXiv:1507.06228, eq. 3).

    T = 1 gives the plain layer and T = 0 the identity. A layer that changes the shape is the plain layer, without a
    gate.

    There is no bottleneck form: its 1x1 layers change dimensions by design, and a gate needs them to stay.
    """

    blocks = ("basic", "single")
    gated = True

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        for i, (filters, size, stride) in enumerate(self.convolutions(), start=1):
            y = nn.relu(self.convolve(x, train, i))
            if stride == 1 and x.shape[-1] == filters:
                t = Gate(filters, size, self.layers, name=f"gate{i}")(x)
                y = y * t + x * (1 - t)
            x = y
        return x


# The name in a config (`model.unit`) and its class.
UNITS: dict[str, type[Unit]] = {
    "plain": PlainUnit,
    "residual": ResidualUnit,
    "preactivation": PreactivationUnit,
    "highway": HighwayUnit,
}


def probe_name(size: int, i: int) -> str:
    """Names the probe behind the i-th convolution: ``response1``; ``pointwise1`` where it is a 1x1."""
    return f"{'pointwise' if size == 1 else 'response'}{i}"
