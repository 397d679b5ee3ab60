"""Settings that all layers of a network share, so that units need not pass them on to each layer."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax.nn.initializers import ones, zeros

from resnet_flax.networks.convolution import Convolution
from resnet_flax.networks.initialization import Initializer
from resnet_flax.networks.normalization import FLOAT32, BatchNorm, Bias
from resnet_flax.networks.probes import Probe


@dataclasses.dataclass(frozen=True)
class Layers:
    """Builds the layers of a network from settings that they share.

    Attributes:
      kernel_init: Initializer of the kernels.
      dtype: Type of the computation (``model.dtype``).
      param_dtype: Type of the parameters (``model.param_dtype``).
      block: Convolutions of a unit: ``"basic"`` (3x3, 3x3), ``"bottleneck"`` (1x1, 3x3, 1x1) or ``"single"`` (3x3).
      bottleneck_stride: The convolution that has a bottleneck's stride: the ``"first"`` 1x1 (arXiv:1512.03385) or the
        ``"3x3"`` (torchvision).
      shortcut: Shortcut option ``"A"``, ``"B"`` or ``"C"`` (``shortcuts.py``).
      shortcut_padding: The side on which option A adds zero channels: ``"end"``, or ``"both"`` sides.
      zero_init_last: Whether the scale of a unit's last BN starts at 0.
      convolution_bias: Whether convolutions have a bias beside that of the BN after them.
      normalize: Whether the network has BN. If not, a bias takes the place of each BN.
      gate_bias: Initial bias of the gates of highway units.
      bn_group, bn_momentum, bn_epsilon, axis_name: Attributes of each :class:`BatchNorm`.
      gpu: Whether the program is compiled for GPUs, whose speed is limited by the number of kernels and by memory
        traffic. It changes how :class:`BatchNorm` and :class:`~.stages.Stage` compute; variables stay the same, and
        results differ by rounding only.
    """

    kernel_init: Initializer
    dtype: jnp.dtype = FLOAT32
    param_dtype: jnp.dtype = FLOAT32
    block: str = "basic"
    bottleneck_stride: str = "first"
    shortcut: str = "A"
    shortcut_padding: str = "end"
    zero_init_last: bool = False
    convolution_bias: bool = False
    normalize: bool = True
    gate_bias: float = -1.0
    bn_group: int = 0
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5
    axis_name: str | None = None
    gpu: bool = False

    def convolution(self, filters: int, size: int, stride: int, name: str) -> Convolution:
        """Returns a convolution, to be called on [N, H, W, C]."""
        return Convolution(
            filters, size, stride, self.kernel_init, dtype=self.dtype, param_dtype=self.param_dtype,
            use_bias=self.convolution_bias, name=name,
        )  # fmt: skip

    def norm(self, name: str, last: bool = False) -> BatchNorm | Bias:
        """Returns a batch normalisation, or the bias in its place, to be called on ``(x [N, H, W, C], train)``.

        Args:
          name: The layer's name.
          last: Whether this is the unit's last BN, whose scale starts at 0 with ``zero_init_last``.
        """
        if not self.normalize:
            return Bias(dtype=self.dtype, param_dtype=self.param_dtype, name=name)
        return BatchNorm(
            group=self.bn_group,
            axis_name=self.axis_name,
            momentum=self.bn_momentum,
            epsilon=self.bn_epsilon,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            scale_init=zeros if last and self.zero_init_last else ones,
            gpu=self.gpu,
            name=name,
        )

    def probe(self, name: str) -> Probe:
        """Returns a probe (the identity), to be called on a layer's response [N, H, W, C] to make it observable."""
        return Probe(axis_name=self.axis_name, name=name)

    def dense(self, features: int, dtype: jnp.dtype, name: str) -> nn.Dense:
        """Returns a dense layer with bias, computed in ``dtype``, to be called on [N, F]."""
        return nn.Dense(
            features,
            kernel_init=self.kernel_init,
            bias_init=zeros,
            dtype=dtype,
            param_dtype=self.param_dtype,
            name=name,
        )
