"""A stage: its first unit, then a scan over the others, so that compile time does not grow with depth."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
from jax import Array

from resnet_flax.networks import probes
from resnet_flax.networks.layers import Layers
from resnet_flax.networks.normalization import SAVED_NAME
from resnet_flax.networks.units import Unit

# Up to this many units are unrolled, since a loop over so few costs more than it saves. On a CPU, a loop makes the
# training step of ResNet-20 7 % slower, and compiling takes as long. Over four units (ResNet-32) a loop saves 3 s of
# compiling and costs 3 %.
_UNROLL_AT_MOST = 2
# The limit is higher on a GPU, where every kernel launch costs time, and a loop stores what each unit leaves for the
# backward pass. Compiled for an H100, ResNet-110's step starts 3,648 kernels with loops and 1,526 without, which move
# 14.9 and 9.4 GB; compiling takes 18 and 47 s. (Without loops, larger networks would take minutes to compile.)
_UNROLL_AT_MOST_ON_GPU = 35


def is_stacked(path: Sequence[Any]) -> bool:
    """Tells whether an array of a tree of variables is stacked: each slice of its leading axis belongs to another unit.

    Args:
      path: The array's path in the tree, as ``jax.tree_util.tree_map_with_path`` passes it.
    """
    return any(getattr(key, "key", None) == "rest" for key in path)


class Stage(nn.Module):
    """A sequence of units of the same width; the first may change the shape, the others keep it.

    The variables of the first unit are under ``first``. Those of all others are under ``rest``, stacked along a leading
    axis of length ``units - 1``. They are stacked whether the scan over these units is a loop in the compiled program
    or unrolled, so a checkpoint fits both.

    Attributes:
      unit: Class of the units (``units.py``).
      units: Number of units, at least 1.
      filters: Number of output channels.
      stride: Stride of the first unit.
      layers: Settings that all layers share.
      unroll: Whether to unroll the units instead of scanning over them.
      remat: Whether the backward pass recomputes each unit from its input, instead of storing its intermediate values.
      follows_activation: Whether this is the network's first stage (see :class:`~.units.Unit`).
    """

    unit: type[Unit]
    units: int
    filters: int
    stride: int
    layers: Layers
    unroll: bool = False
    remat: bool = False
    follows_activation: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        first = self.unit(self.filters, self.stride, self.layers, self.follows_activation, name="first")

        def apply(unit: Unit, x: Array, _: Any) -> tuple[Array, None]:
            return unit(x, train), None

        rest = self.units - 1
        unroll = self.unroll or rest <= (_UNROLL_AT_MOST_ON_GPU if self.layers.gpu else _UNROLL_AT_MOST)
        in_loop = apply
        if self.layers.gpu and not unroll:
            # Operations between convolutions are recomputed: this is faster than storing and reading their results.
            policy = jax.checkpoint_policies.save_only_these_names(SAVED_NAME)
            in_loop = nn.remat(apply, prevent_cse=False, policy=policy)
        if self.remat:
            # Outside a loop, XLA's common-subexpression elimination would undo the recomputation.
            apply, in_loop = nn.remat(apply), nn.remat(apply, prevent_cse=unroll)
        x, _ = apply(first, x, None)
        if rest:
            scan = nn.scan(
                in_loop,
                variable_axes=dict.fromkeys(("params", "batch_stats", "intermediates", *probes.COLLECTIONS), 0),
                split_rngs={"params": True, "unit": True},
                length=rest,
                unroll=rest if unroll else 1,
            )
            x, _ = scan(self.unit(self.filters, 1, self.layers, name="rest"), x, None)
        return x
