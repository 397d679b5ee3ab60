"""Batch normalisation over the global batch or groups of it, on any number of devices; and a bias as its substitute."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from jax.nn.initializers import ones, zeros

from resnet_flax.networks import paired_sums
from resnet_flax.networks.initialization import Initializer

FLOAT32 = jnp.dtype("float32")
# On a GPU, a loop over units saves only arrays of this name for its backward pass: the inputs and statistics of BNs.
SAVED_NAME = "normalised"


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy, arXiv:1502.03167, algorithms 1 and 2).

    In training, images are normalised with the mean and the (biased) variance of their group. A group is the global
    batch by default, or ``group`` consecutive images of it, on one device or several. The CIFAR runs of
    arXiv:1512.03385 split 128 images over two GPUs, which corresponds to a ``group`` of 64.

    The running statistics move by ``1 - momentum`` towards the mean over the groups. They use the unbiased variance
    (algorithm 2; PyTorch does the same). A ``momentum`` of 0.9 is 0.1 in PyTorch.

    Attributes:
      group: Number of images in a group; 0 for the global batch. It must divide a device's share of the batch, or be a
        multiple of it.
      axis_name: The mesh axis over which the batch is sharded; None on a single device.
      momentum: Decay factor of the running statistics.
      epsilon: Number added to the variance.
      dtype: Type of the output. Statistics are at least float32.
      param_dtype: Type of scale and bias.
      scale_init: Initializer of the scale: ones, or zeros for a unit's last BN with ``zero_init_last``.
      gpu: Whether to compute both sums of a pass over the images in one reduction (``paired_sums.py``).
    """

    group: int = 0
    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: jnp.dtype = FLOAT32
    param_dtype: jnp.dtype = FLOAT32
    scale_init: Initializer = ones
    gpu: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, H, W, C]; updates the collection ``batch_stats`` in training."""
        channels = (x.shape[-1],)
        statistics_dtype = jnp.promote_types(self.param_dtype, jnp.float32)
        scale = self.param("scale", self.scale_init, channels, self.param_dtype)
        bias = self.param("bias", zeros, channels, self.param_dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, statistics_dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, statistics_dtype)

        if not train:
            mean, var = running_mean.value, running_var.value
        else:
            x = self._mark_saved(x)
            moments = partial(paired_sums.moments if self.gpu else _moments, dtype=statistics_dtype)
            mean, var, count = _group_statistics(x, self.group, self.axis_name, moments)
            mean, var = self._mark_saved(mean), self._mark_saved(var)
            if not self.is_initializing():
                unbiased = var * (count / max(count - 1, 1))
                for running, value in ((running_mean, mean), (running_var, unbiased)):
                    value = value.reshape(-1, *channels).mean(0)
                    running.value = self.momentum * running.value + (1 - self.momentum) * lax.stop_gradient(value)

        multiplier = scale * lax.rsqrt(var + self.epsilon)  # [C] or [groups, C]
        offset = bias - mean * multiplier
        scale_and_shift = paired_sums.scale_and_shift if self.gpu else _scale_and_shift
        if multiplier.ndim == 2:
            groups = multiplier.shape[0]
            grouped = x.reshape(groups, x.shape[0] // groups, *x.shape[1:])
            y = scale_and_shift(grouped, multiplier[:, None, None, None], offset[:, None, None, None])
            return y.reshape(x.shape).astype(self.dtype)
        if self.gpu:
            multiplier, offset = multiplier[None, None, None], offset[None, None, None]
        return scale_and_shift(x, multiplier, offset).astype(self.dtype)

    def _mark_saved(self, x: Array) -> Array:
        return checkpoint_name(x, SAVED_NAME) if self.gpu else x


class Bias(nn.Module):
    """A learned bias for each channel, in place of a BN (``model.norm="none"``), as in networks before BN.

    Its only variable is ``bias``, which starts at zero; it has no statistics.

    Attributes:
      dtype: Type of the output.
      param_dtype: Type of the bias.
    """

    dtype: jnp.dtype = FLOAT32
    param_dtype: jnp.dtype = FLOAT32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, H, W, C]; the same in training and evaluation."""
        bias = self.param("bias", zeros, (x.shape[-1],), self.param_dtype)
        return (x + bias).astype(self.dtype)


def _moments(x: Array, axes: tuple[int, ...], dtype: jnp.dtype) -> tuple[Array, Array]:
    x = x.astype(dtype)
    # x * x instead of jnp.square(x), whose derivative would store 2 x for the backward pass beside x.
    return x.mean(axes), (x * x).mean(axes)


def _scale_and_shift(x: Array, multiplier: Array, offset: Array) -> Array:
    return x * multiplier + offset


def _group_statistics(
    x: Array, group: int, axis_name: str | None, moments: Callable[..., tuple[Array, Array]]
) -> tuple[Array, Array, int]:
    """Computes the mean and the biased variance of each group.

    Returns:
      The mean and the variance, [C] if all images of this device belong to one group, else [groups, C]; and the number
      of values in a group (of each channel).
    """
    images = x.shape[0]
    devices = lax.axis_size(axis_name) if axis_name else 1
    group = group or images * devices
    values = group * x.shape[1] * x.shape[2]
    if group < images:
        if images % group:
            raise ValueError(f"train.bn_group={group} does not divide the {images} images of each device")
        grouped = x.reshape(images // group, group, *x.shape[1:])
        mean, of_squares = moments(grouped, (1, 2, 3))
        return mean, _variance(mean, of_squares), values

    both = jnp.stack(moments(x, (0, 1, 2)))  # [2, C]
    if group > images:
        if group % images or (images * devices) % group:
            raise ValueError(
                f"train.bn_group={group} must be a multiple of the {images} images of each device, "
                f"and divide the batch of {images * devices}"
            )
        if group == images * devices:
            both = lax.pmean(both, axis_name)
        else:
            members = group // images
            everyone = lax.all_gather(both, axis_name)  # [devices, 2, C]
            groups = everyone.reshape(-1, members, *both.shape).mean(1)
            both = groups[lax.axis_index(axis_name) // members]
    mean, of_squares = both
    return mean, _variance(mean, of_squares), values


def _variance(mean: Array, mean_of_squares: Array) -> Array:
    # The difference takes one pass over the images instead of two, but rounding can make it negative if the mean is
    # large. jnp.maximum(difference, 0) would lose the gradient where XLA computes the difference twice, in two fusions
    # that round differently; relu does not.
    return nn.relu(mean_of_squares - jnp.square(mean))
