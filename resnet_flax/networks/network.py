"""A network: stem, stages, head. Which ones there are is said in ``families.py``."""

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
    """The convolution before the first stage."""

    filters: int
    size: int
    stride: int
    pool: bool  # whether a 3x3 max pooling of stride 2 follows


class Network(nn.Module):
    """Stem, stages, global average pooling, one dense layer; and what some families have in place of these.

    Attributes:
      stem: its convolution, with BN and ReLU, or None.
      unit: class of the units.
      stage_units: how many units each stage has.
      stage_filters: channels of each stage's output.
      stage_strides: of each stage, 1 or 2.
      classes: length of the output; 0 for a network without its last layer, whose output is that layer's input.
      layers: how layers are made.
      pools: whether a stage's stride of 2 is a 2x2 max pooling before its first unit, not that unit's own.
      flattens: whether the dense layers see every position, after one more max pooling, not their average.
      last_pointwise: whether a 1x1 convolution, with BN and ReLU, follows the last stage.
      hidden: widths of dense layers with ReLU before the last one.
      dropout: the fraction of features dropped in training: after each hidden layer, or where there is none after
        pooling.
      unroll: whether the compiled program holds every unit, instead of a loop over them where they are many.
      remat: what the backward pass computes again, instead of keeping all that it needs: ``"none"``; each ``"unit"``
        from its input; each ``"stage"`` from its input, and in it each unit from its own, so that units' inputs are
        kept for one stage at a time. (On a CPU, XLA starts on all stages early and keeps as much as with ``"unit"``.)
      frozen: whether training leaves all but the dense layers as they are, BN's running statistics too.
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
          images: [N, H, W, C], any sides and channels.
          train: whether BN uses the batch's statistics (and updates the collection ``batch_stats``).
          intermediates: whether to return, beside the logits, the named intermediates.
          dropout_keys: [N], a random key for each image; needed in training where ``dropout`` is not 0.

        Returns:
          logits [N, classes], at least float32; with ``intermediates`` also a dict of ``stem`` (where there is one),
          ``stage1``, ... ([N, H', W', C'], what the last unit puts out), ``pooled`` [N, C'] and ``logits`` (where
          there are classes).
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
        return lambda x, place: dropout(x, self.dropout, keys, place)

    def _head(self, x: Array, drop: Callable[[Array, int], Array]) -> tuple[Array, Array]:
        """[N, H, W, C] -> the features that pooling gives, and the input of the last dense layer."""
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
    """The type of the mean and the loss, which is never bfloat16."""
    return jnp.promote_types(x.dtype, jnp.float32)


def on_one_device(network: Network) -> Network:
    """Returns the network for a batch that is not split over devices."""
    return network.clone(layers=dataclasses.replace(network.layers, axis_name=None, bn_group=0))


def max_pool_2x2(x: Array) -> Array:
    """2x2 max pooling of stride 2, the last row and column of odd sides on their own (PyTorch's ``ceil_mode``).

    [N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), C].
    """
    # The maximum of four shifts: its gradient is 15 times as fast on a CPU as that of XLA's window reduction, and on
    # a GPU deterministic.
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)), constant_values=-jnp.inf)
    rows = _maximum(x[:, ::2], x[:, 1::2])
    return _maximum(rows[:, :, ::2], rows[:, :, 1::2])


@jax.custom_jvp
def _maximum(a: Array, b: Array) -> Array:
    """``jnp.maximum``, whose gradient compares the two entries with each other; equal ones share it.

    That of ``jnp.maximum`` compares them with their maximum. XLA may compute an entry twice, in two fusions whose
    rounding differs, and then neither is equal to it: the gradient is lost.
    """
    return jnp.maximum(a, b)


@_maximum.defjvp
def _maximum_jvp(entries: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    a, b = entries
    share = jnp.where(a == b, 0.5, a > b).astype(a.dtype)
    return _maximum(a, b), share * tangents[0] + (1 - share) * tangents[1]
