"""The properties that all layers of a network share, so that a unit only says which layers it is made of."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from resnet_flax.networks.convolution import Convolution
from resnet_flax.networks.initialization import Initializer, ones, zeros
from resnet_flax.networks.normalization import FLOAT32, BatchNorm, Bias
from resnet_flax.networks.probes import Probe


@dataclasses.dataclass(frozen=True)
class Layers:
    """Makes the layers of a network.

    Attributes:
      kernel_init: draws kernels.
      dtype: of the computation (``model.dtype``).
      param_dtype: of the parameters (``model.param_dtype``).
      block: ``"basic"`` (two 3x3), ``"bottleneck"`` (1x1, 3x3, 1x1) or ``"single"`` (one 3x3).
      bottleneck_stride: a bottleneck's stride is on the ``"first"`` 1x1 (the paper, the review) or on the
        ``"3x3"`` (torchvision).
      shortcut: option ``"A"``, ``"B"`` or ``"C"``.
      shortcut_padding: option A's zero channels: ``"end"`` or ``"both"`` sides.
      zero_init_last: whether the last BN of a unit starts with scale 0.
      convolution_bias: whether convolutions have a bias of their own.
      normalize: whether there is BN; where there is none, each BN's place is taken by a bias.
      gate_bias: of the gates of highway layers, at the start.
      bn_group, bn_momentum, bn_epsilon, axis_name: of :class:`BatchNorm`.
      gpu: whether the program is for GPUs, where the number of kernels and what they read and write bind: see
        :class:`BatchNorm` and :class:`~.stages.Stage`. Variables and results are the same, but for rounding.
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
        """A convolution, to be called on [N, H, W, C]."""
        return Convolution(
            filters, size, stride, self.kernel_init, dtype=self.dtype, param_dtype=self.param_dtype,
            use_bias=self.convolution_bias, name=name,
        )  # fmt: skip

    def norm(self, name: str, last: bool = False) -> BatchNorm | Bias:
        """A batch normalisation, or the bias in its place, to be called on [N, H, W, C] and whether this is training.

        Args:
          name: of the layer.
          last: whether it is the last of its unit, which ``zero_init_last`` is about.
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
        """The identity, to be called on a layer's response [N, H, W, C], where it can be looked at."""
        return Probe(axis_name=self.axis_name, name=name)

    def dense(self, features: int, dtype: jnp.dtype, name: str) -> nn.Dense:
        """A dense layer with bias, computed in ``dtype``, to be called on [N, F]."""
        return nn.Dense(
            features,
            kernel_init=self.kernel_init,
            bias_init=zeros,
            dtype=dtype,
            param_dtype=self.param_dtype,
            name=name,
        )
