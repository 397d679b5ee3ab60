"""Batch normalisation over the global batch, or over groups of it, on any number of devices; and its absence."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

from resnet_flax.networks import paired_sums
from resnet_flax.networks.initialization import Initializer, ones, zeros

FLOAT32 = jnp.dtype("float32")
SAVED_NAME = (
    "normalised"  # name of what a loop over units keeps for its backward pass on a GPU: BN's input and statistics
)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy, arXiv:1502.03167, algorithms 1 and 2).

    In training, images are normalised with the mean and the (biased) variance of their group: the whole
    global batch by default, or ``group`` images that follow one another in it, wherever they lie. The paper's
    CIFAR runs split 128 images over two GPUs, so there ``group`` is 64.

    The running statistics move by ``1 - momentum`` towards the mean over the groups, the variance made unbiased
    (algorithm 2, as PyTorch does). ``momentum`` 0.9 is PyTorch's 0.1.

    Attributes:
      group: images a group; 0 for the global batch. Divides the batch of a device, or is a multiple of it.
      axis_name: the mesh axis that the batch is split over, or None on one device.
      momentum: of the running statistics.
      epsilon: added to the variance.
      dtype: of the output. Statistics are at least float32.
      param_dtype: of scale and bias.
      scale_init: draws the scale; ones, or zeros for the last of a unit where that setting is on.
      gpu: whether both sums of a pass over the images are one reduction (:mod:`.paired_sums`).
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
    """A learned bias for each channel, in the place of BN where there is none (``model.norm="none"``).

    So networks were before BN: its variables are ``bias`` alone, zero at the start, and it has no statistics.

    Attributes:
      dtype: of the output.
      param_dtype: of the bias.
    """

    dtype: jnp.dtype = FLOAT32
    param_dtype: jnp.dtype = FLOAT32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, H, W, C], in training or not."""
        bias = self.param("bias", zeros, (x.shape[-1],), self.param_dtype)
        return (x + bias).astype(self.dtype)


def _moments(x: Array, axes: tuple[int, ...], dtype: jnp.dtype) -> tuple[Array, Array]:
    x = x.astype(dtype)
    # x * x and not its square, whose derivative would keep 2 x for the backward pass beside x.
    return x.mean(axes), (x * x).mean(axes)


def _scale_and_shift(x: Array, multiplier: Array, offset: Array) -> Array:
    return x * multiplier + offset


def _group_statistics(
    x: Array, group: int, axis_name: str | None, moments: Callable[..., tuple[Array, Array]]
) -> tuple[Array, Array, int]:
    """Mean and biased variance of each group, and how many values went into each.

    Returns:
      mean and var, [C] where the images of this device belong to one group, else [groups, C]; and the count.
    """
    images = x.shape[0]
    devices = lax.axis_size(axis_name) if axis_name else 1
    group = group or images * devices
    values = group * x.shape[1] * x.shape[2]
    if group < images:
        if images % group:
            raise ValueError(f"train.bn_group={group} does not divide the {images} images of a device")
        grouped = x.reshape(images // group, group, *x.shape[1:])
        mean, of_squares = moments(grouped, (1, 2, 3))
        return mean, _variance(mean, of_squares), values

    both = jnp.stack(moments(x, (0, 1, 2)))  # [2, C]
    if group > images:
        if group % images or (images * devices) % group:
            raise ValueError(
                f"train.bn_group={group} is no multiple of the {images} images of a device, "
                f"or does not divide the batch of {images * devices}"
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
    # One pass over the images, not two; where the mean is large, rounding could leave less than zero. Not jnp.maximum,
    # whose gradient is lost where XLA computes the difference twice, in two fusions whose rounding differs.
    return nn.relu(mean_of_squares - jnp.square(mean))
