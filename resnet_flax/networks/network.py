"""A network: stem, stages, head. ``families.py`` defines the networks of the papers."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from resnet_flax.networks.dropout import dropout
from resnet_flax.networks.layers import Layers
from resnet_flax.networks.stages import Stage
from resnet_flax.networks.units import Unit


class Stem(NamedTuple):
    """The convolution before the first stage.

    Attributes:
      filters: Number of output channels.
      size: Kernel size K of the KxK convolution.
      stride: Stride of the convolution.
      pool: Whether a 3x3 max pooling with stride 2 follows.
    """

    filters: int
    size: int
    stride: int
    pool: bool


class Network(nn.Module):
    """Stem, stages of units, global average pooling and a dense layer; some families replace or add parts.

    Attributes:
      stem: The stem's convolution, followed by BN and ReLU; None for no stem.
      unit: Class of the units (``units.py``).
      stage_units: Number of units in each stage.
      stage_filters: Number of output channels of each stage.
      stage_strides: Stride of each stage, 1 or 2.
      classes: Number of logits. With 0 the last dense layer is left out, and the network returns its input.
      layers: Settings that all layers share.
      pools: Whether a stage of stride 2 begins with a 2x2 max pooling, instead of a first unit of stride 2.
      flattens: Whether the dense layers take all positions, flattened after one more max pooling, instead of their
        average.
      last_pointwise: Whether a 1x1 convolution, with BN and ReLU, follows the last stage.
      hidden: Widths of the dense layers, each with ReLU, before the last one.
      dropout: The fraction of features dropped in training: after each hidden layer, or after pooling where there is
        no hidden layer.
      unroll: Whether to unroll the units of a stage instead of scanning over them.
      remat: What the backward pass recomputes instead of storing. ``"none"``: nothing. ``"unit"``: each unit from its
        input. ``"stage"``: each stage from its input, and within it each unit from its own, so that the inputs of
        units are stored for one stage at a time. (On a CPU, XLA starts recomputing all stages early, so that
        ``"stage"`` stores as much as ``"unit"``.)
      frozen: Whether training changes the dense layers only; BN's running statistics stay as they are, too.
    """

    stem: Stem | None
    unit: type[Unit]
    stage_units: tuple[int, ...]
    stage_filters: tuple[int, ...]
    stage_strides: tuple[int, ...]
    classes: int
    layers: Layers
    pools: bool = False
    flattens: bool = False
    last_pointwise: bool = False
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    unroll: bool = False
    remat: str = "none"
    frozen: bool = False

    @nn.compact
    def __call__(
        self, images: Array, train: bool = False, intermediates: bool = False, dropout_keys: Array | None = None
    ) -> Array | tuple[Array, dict[str, Array]]:
        """Classifies images.

        Args:
          images: [N, H, W, C], of any height, width and number of channels.
          train: Whether BN uses the batch's statistics (and updates the collection ``batch_stats``).
          intermediates: Whether to return the named intermediate outputs beside the logits.
          dropout_keys: [N], a random key for each image; required in training where ``dropout`` is not 0.

        Returns:
          Logits [N, classes], at least float32. With ``intermediates`` also a dict with the outputs of ``stem`` (if the
          network has one) and of ``stage1``, ..., each [N, H', W', C'], ``pooled`` [N, C'], and ``logits`` (if the
          network has classes).
        """
        named: dict[str, Array] = {}
        drop = self._dropout(train, dropout_keys)
        train = train and not self.frozen
        x = images.astype(self.layers.dtype)

        def apply(stage: Stage, x: Array) -> Array:
            return stage(x, train)

        apply = nn.remat(apply) if self.remat == "stage" else apply
        if self.stem is not None:
            x = named["stem"] = self._stem(self.stem, x, train)
        for i, (units, filters, stride) in enumerate(
            zip(self.stage_units, self.stage_filters, self.stage_strides, strict=True), start=1
        ):
            if self.pools and stride == 2:
                x, stride = max_pool_2x2(x), 1
            stage = Stage(
                self.unit, units, filters, stride, self.layers, self.unroll, self.remat != "none", i == 1,
                name=f"stage{i}",
            )  # fmt: skip
            x = named[f"stage{i}"] = apply(stage, x)
        if not self.unit.ends_activated:
            x = nn.relu(self.layers.norm(name="final_bn")(x, train))
        if self.last_pointwise:
            x = self._last_pointwise(x, train)
        x = lax.stop_gradient(x) if self.frozen else x
        named["pooled"], x = self._head(x, drop)
        if self.classes:
            x = named["logits"] = self.layers.dense(self.classes, _at_least_float32(x), name="dense")(x)
        return (x, named) if intermediates else x

    def _stem(self, stem: Stem, x: Array, train: bool) -> Array:
        x = self.layers.convolution(stem.filters, stem.size, stem.stride, name="stem_conv")(x)
        x = self.layers.norm(name="stem_bn")(x, train)
        x = nn.relu(self.layers.probe(name="stem_response")(x))
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1))) if stem.pool else x

    def _last_pointwise(self, x: Array, train: bool) -> Array:
        x = self.layers.convolution(self.stage_filters[-1], 1, 1, name="last_conv")(x)
        x = self.layers.norm(name="last_conv_bn")(x, train)
        return nn.relu(self.layers.probe(name="last_pointwise")(x))

    def _dropout(self, train: bool, keys: Array | None) -> Callable[[Array, int], Array]:
        if not train or self.dropout == 0:
            return lambda x, _: x
        if keys is None:
            raise ValueError(f"model.dropout={self.dropout}: training needs dropout_keys, a random key for each image")
        return lambda x, layer: dropout(x, self.dropout, keys, layer)

    def _head(self, x: Array, drop: Callable[[Array, int], Array]) -> tuple[Array, Array]:
        """[N, H, W, C] -> the pooled features, and the input of the last dense layer."""
        if self.flattens:
            x = max_pool_2x2(x)
            x = x.reshape(x.shape[0], -1)
        else:
            x = x.astype(_at_least_float32(x)).mean((1, 2))
        pooled = x
        if not self.hidden:
            x = drop(x, 0)
        for i, width in enumerate(self.hidden, start=1):
            x = drop(nn.relu(self.layers.dense(width, self.layers.dtype, name=f"hidden{i}")(x)), i)
        return pooled, x


def _at_least_float32(x: Array) -> jnp.dtype:
    """Returns the dtype for averages and logits: that of x, but never a type narrower than float32."""
    return jnp.promote_types(x.dtype, jnp.float32)


def on_one_device(network: Network) -> Network:
    """Returns a copy of the network for a batch on a single device, without a mesh axis and BN groups."""
    return network.clone(layers=dataclasses.replace(network.layers, axis_name=None, bn_group=0))


def max_pool_2x2(x: Array) -> Array:
    """Applies 2x2 max pooling with stride 2, and rounds odd sides up (PyTorch's ``ceil_mode=True``).

    [N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), C].
    """
    # Computed as the maximum of four shifts. Its gradient is 15 times as fast on a CPU as the gradient of XLA's window
    # reduction, and deterministic on a GPU.
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)), constant_values=-jnp.inf)
    rows = _maximum(x[:, ::2], x[:, 1::2])
    return _maximum(rows[:, :, ::2], rows[:, :, 1::2])


@jax.custom_jvp
def _maximum(a: Array, b: Array) -> Array:
    """Computes ``jnp.maximum`` with a gradient that compares the two entries with each other; equal ones share it.

    The gradient of ``jnp.maximum`` compares each entry with the maximum. XLA may compute an entry twice, in two fusions
    that round differently. Then neither entry equals the maximum, and the gradient is lost.
    """
    return jnp.maximum(a, b)


@_maximum.defjvp
def _maximum_jvp(entries: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    a, b = entries
    share = jnp.where(a == b, 0.5, a > b).astype(a.dtype)
    return _maximum(a, b), share * tangents[0] + (1 - share) * tangents[1]
