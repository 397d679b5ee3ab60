"""Gates of highway networks, which decide for each value how much of a layer's input is transformed or carried.

"Training Very Deep Networks" (arXiv:1507.06228), section 2.
"""

import flax.linen as nn
import jax
from jax import Array
from jax.nn import initializers

from resnet_flax.networks import probes
from resnet_flax.networks.convolution import Convolution
from resnet_flax.networks.layers import Layers


class Gate(nn.Module):
    """Transform gate ``T(x) = sigmoid(W_T x + b_T)``, where W_T is a convolution of the size of H's, without BN.

    The paper initialises b_T below zero, so that a deep network begins by carrying its input, and does not specify how
    W_T is initialised. Here W_T is a tenth of a draw from the network's own initializer. W_T x is then small compared
    with b_T, which alone decides how far gates are open at the start: T = sigmoid(b_T). At full size W_T x would be of
    order 1, and a gate meant to start at T = 0.1 would start at 0.13.

    Attributes:
      filters: Number of channels of x and of T.
      size: Kernel size K.
      layers: Settings that all layers share; ``gate_bias`` is the initial b_T.
    """

    filters: int
    size: int
    layers: Layers

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> T [N, H, W, C]; records its mean over the global batch as ``openness`` in ``gates``."""
        layers = self.layers

        def tenth(key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> Array:
            return 0.1 * layers.kernel_init(key, shape, dtype)

        convolution = Convolution(
            self.filters, self.size, 1, tenth, dtype=layers.dtype, param_dtype=layers.param_dtype, name="conv"
        )
        bias = self.param("bias", initializers.constant(layers.gate_bias), (self.filters,), layers.param_dtype)
        t = nn.sigmoid(convolution(x) + bias.astype(layers.dtype))
        if probes.is_requested(self, "gates"):
            probes.record(self, "gates", "openness", probes.mean_over_batch(t, layers.axis_name))
        return t


def gate_bias(depth: int) -> float:
    """Returns the default initial b_T of a network: the paper's -1, -2 and -3 for 10, 20 and 30 layers.

    Depths between these take the value of the nearest (-2 from 15 layers, -3 from 25). Deeper networks take -3, too,
    since the paper gives no further values.
    """
    return -float(min(max((depth + 5) // 10, 1), 3))
