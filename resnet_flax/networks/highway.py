"""Highway layers: a gate for each value decides how much of it is transformed and how much is carried on.

"Training Very Deep Networks" (arXiv:1507.06228), section 2.
"""

import flax.linen as nn
import jax
from jax import Array
from jax.nn import initializers

from resnet_flax.networks import probes
from resnet_flax.networks.convolution import Convolution
from resnet_flax.networks.initialization import Initializer
from resnet_flax.networks.layers import Layers


def highway_layer(x: Array, filters: int, size: int, stride: int, layers: Layers, train: bool, i: int) -> Array:
    """``y = H(x) T(x) + x (1 - T(x))`` (eq. 3), H a convolution, BN and ReLU; T see :class:`Gate`.

    T = 1 gives the plain layer, T = 0 the identity. Where H changes the shape there is no gate, and ``y = H(x)``:
    the paper, too, changes dimensions with plain layers. Called inside a unit's ``__call__``: the layers ``conv{i}``,
    ``bn{i}`` and ``gate{i}`` become the unit's.

    Args:
      x: [N, H, W, C].
      filters: channels of the result.
      size: K of H's kernel, and of the gate's.
      stride: of H.
      i: the layer's number in the unit.

    Returns:
      [N, ceil(H / stride), ceil(W / stride), filters].
    """
    h = layers.convolution(filters, size, stride, name=f"conv{i}")(x)
    h = layers.norm(name=f"bn{i}")(h, train)
    h = nn.relu(layers.probe(name=f"response{i}")(h))
    if stride != 1 or x.shape[-1] != filters:
        return h
    return h_or_x(h, x, Gate(filters, size, layers, name=f"gate{i}")(x))


def h_or_x(h: Array, x: Array, t: Array) -> Array:
    """Eq. 3, with one product less."""
    return x + t * (h - x)


class Gate(nn.Module):
    """``T(x) = sigmoid(W_T x + b_T)``, with H's receptive field and no BN.

    b_T starts below zero, so that a deep network starts by carrying (section 2.2). How W_T starts is not stated in
    that section; here it is as small as a tenth of the network's own initialisation, so that the bias decides how far
    gates are open at the start: with values of order 1, T is about sigmoid(b_T) everywhere.

    Attributes:
      filters: channels of x and of T.
      size: K of the kernel.
      layers: how layers are made; ``gate_bias`` is b_T at the start.
    """

    filters: int
    size: int
    layers: Layers

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> T, [N, H, W, C], in (0, 1); the collection ``gates`` gets its mean as ``openness``."""
        layers = self.layers
        w = Convolution(
            self.filters, self.size, 1, _tenth_of(layers.kernel_init), dtype=layers.dtype,
            param_dtype=layers.param_dtype, name="conv",
        )(x)  # fmt: skip
        bias = self.param("bias", initializers.constant(layers.gate_bias), (self.filters,), layers.param_dtype)
        t = nn.sigmoid(w + bias.astype(layers.dtype))
        if probes.is_asked(self, "gates"):
            probes.record(self, "gates", "openness", probes.mean_over_batch(t, layers.axis_name))
        return t


def _tenth_of(initializer: Initializer) -> Initializer:
    def tenth(key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> Array:
        return 0.1 * initializer(key, shape, dtype)

    return tenth


def gate_bias(depth: int) -> float:
    """b_T at the start by depth: -1, -2, -3 for convolutional networks of about 10, 20, 30 layers and more."""
    return float(-min(max(round(depth / 10), 1), 3))
