"""The gates of highway networks: how much of its input a layer transforms and how much it carries, value by value.

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
    """``T(x) = sigmoid(W_T x + b_T)``, with the receptive field of H and no BN.

    The paper starts b_T below zero, so that a deep network begins by carrying, and leaves open how W_T starts. Here
    W_T is a tenth of a draw of the network's own initialisation: W_T x is then small against b_T, and b_T alone
    decides how far gates are open at the start, T = sigmoid(b_T). Drawn at full size, W_T x is of order 1, and a gate
    meant for T = 0.1 starts at 0.13.

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
        """[N, H, W, C] -> T, [N, H, W, C]; ``gates`` gets ``openness``, its mean over the global batch."""
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
    """b_T at the start: -1, -2, -3 for 10, 20 and 30 layers, of which the nearest is taken (-2 from 15, -3 from 25).

    Beyond 30 layers it stays -3: the paper gives no more.
    """
    return -float(min(max((depth + 5) // 10, 1), 3))
