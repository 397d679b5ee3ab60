"""The units that stages are made of: plain, residual, pre-activation and highway.

In the docstrings, x is a unit's input, y its output, and F(x) its branch: convolutions with BN, and ReLU between them.

To add a unit, write its class, here or in a file of your own, and register it in :data:`UNITS`.
``tests/networks/test_new_unit.py`` shows an example.
"""

from typing import ClassVar

import flax.linen as nn
from jax import Array

from resnet_flax.networks.highway import Gate
from resnet_flax.networks.layers import Layers
from resnet_flax.networks.shortcuts import parameter_free, projects, shortcut
from resnet_flax.registry import Registry


class Unit(nn.Module):
    """Base class with the parts of a unit; a subclass combines them in its ``__call__``.

    ``__call__`` is an ``nn.compact`` method that combines :meth:`branch` or :meth:`convolve` with :meth:`shortcut`.
    Their layers become the unit's own: ``conv1``, ``bn1``, ..., ``shortcut_conv``, ``shortcut_bn``. The pre-activation
    unit makes its layers itself, because its BN comes before the convolution.

    Attributes:
      filters: Number of output channels.
      stride: Stride of the unit, 1 or 2.
      layers: Settings that all layers share; ``layers.block`` names the unit's convolutions.
      follows_activation: Whether this is the network's first unit. Its input is then the stem's ReLU, or the images if
        there is no stem.
      blocks: Values of ``model.block`` that the class supports.
      ends_activated: Whether the unit ends with a ReLU. Otherwise a BN and a ReLU follow the network's last unit.
      gated: Whether the unit has gates, whose initial bias is ``model.gate_bias``.
      can_start_as_identity: Whether the unit is the identity, and still learns, when the scale of its last BN starts
        at 0.
      is_random: Whether the unit draws random numbers in training. ``self.make_rng("unit")`` is then a key that
        differs from step to step and unit to unit, the same on every device. Elsewhere ``has_rng("unit")`` is False.
    """

    filters: int
    stride: int
    layers: Layers
    follows_activation: bool = False

    # A subclass overrides those that differ.
    blocks: ClassVar[tuple[str, ...]] = ("basic", "bottleneck", "single")
    ends_activated: ClassVar[bool] = True
    gated: ClassVar[bool] = False
    can_start_as_identity: ClassVar[bool] = False
    is_random: ClassVar[bool] = False

    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        raise NotImplementedError

    def branch(self, x: Array, train: bool) -> Array:
        """Computes F(x): the unit's convolutions with BN, and ReLU between them but not after the last BN."""
        last = len(self.convolutions())
        for i in range(1, last):
            x = nn.relu(self.convolve(x, train, i))
        return self.convolve(x, train, last, last=True)

    def shortcut(self, x: Array, train: bool) -> Array:
        """Returns x in the shape of the unit's output, by shortcut option A, B or C (:func:`.shortcuts.shortcut`)."""
        return shortcut(x, self.filters, self.stride, self.layers, train)

    def convolve(self, x: Array, train: bool, i: int, last: bool = False) -> Array:
        """Applies the unit's i-th convolution (i counts from 1), its BN and its probe.

        Args:
          last: Whether this is the unit's last BN; ``zero_init_last`` lets its scale start at 0.
        """
        filters, size, stride = self.convolutions()[i - 1]
        x = self.layers.convolution(filters, size, stride, name=f"conv{i}")(x)
        x = self.layers.norm(name=f"bn{i}", last=last)(x, train)
        return self.layers.probe(name=probe_name(size, i))(x)

    def convolutions(self) -> list[tuple[int, int, int]]:
        """Returns (filters, kernel size, stride) of each convolution of the unit, in order.

        ``single``: one 3x3. ``basic``: two 3x3. ``bottleneck``: a 1x1 that reduces the channels to filters / 4, a 3x3,
        and a 1x1 that restores them (arXiv:1512.03385, Fig. 5: basic on the left, bottleneck on the right).
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
    """Plain unit, ``y = relu(F(x))``: the residual unit without its shortcut (arXiv:1512.03385, Fig. 3, middle)."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        return nn.relu(self.branch(x, train))


class ResidualUnit(Unit):
    """Residual unit, ``y = relu(F(x) + shortcut(x))`` (arXiv:1512.03385, eqs. 1 and 2, Figs. 2 and 5)."""

    can_start_as_identity = True

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        return nn.relu(self.branch(x, train) + self.shortcut(x, train))


class PreactivationUnit(Unit):
    """Pre-activation unit, ``y = F(x) + shortcut(x)``, where F applies BN and ReLU before each convolution.

    This is "full pre-activation" (arXiv:1603.05027, Fig. 4e). Nothing follows the addition, so a BN and a ReLU follow
    the network's last unit. The network's first unit begins with its convolution, since the stem has already activated
    its input (the paper's appendix).

    Where the shape changes, option A subsamples and pads x, not its activation, since the identity carries x elsewhere.
    The paper does not specify this. A projection (options B and C) is a 1x1 convolution of the activated x, without BN.
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
    """Highway unit, ``y = H(x) T(x) + x (1 - T(x))`` in each layer (arXiv:1507.06228, eq. 3).

    H is the plain unit's layer (convolution, BN, ReLU), and T is its gate (:class:`.highway.Gate`). T = 1 gives the
    plain layer, and T = 0 the identity. A layer that changes the shape is the plain layer, without a gate.

    There is no bottleneck form: a gate requires that a layer keeps the shape, and the 1x1 layers of a bottleneck change
    the number of channels by design.
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


# Classes of units by their names in a config (`model.unit`).
UNITS: Registry[type[Unit]] = Registry(
    "unit",
    {"plain": PlainUnit, "residual": ResidualUnit, "preactivation": PreactivationUnit, "highway": HighwayUnit},
)


def probe_name(size: int, i: int) -> str:
    """Names the probe after the i-th convolution: ``responseI``, or ``pointwiseI`` after a 1x1 convolution."""
    return f"{'pointwise' if size == 1 else 'response'}{i}"
