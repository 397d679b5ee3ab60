"""A stage: its first unit, then the others scanned, so that compile time does not grow with depth."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
from jax import Array

from resnet_flax.networks import probes
from resnet_flax.networks.layers import Layers
from resnet_flax.networks.normalization import SAVED_NAME
from resnet_flax.networks.units import Unit

# A loop over so few units costs more than it saves: on a CPU a training step of ResNet-20 takes 7 % longer with it, and
# as long to compile. Over four units (ResNet-32) it saves 3 s of compiling and costs 3 %.
_UNROLL_AT_MOST = 2
# On a GPU a loop over units stores what each leaves for the backward pass, and every kernel's start counts. For an
# H100, ResNet-110's step starts 3,648 kernels with loops and 1,526 without, which move 14.9 and 9.4 GB; compiling takes
# 47 s in place of 18. (Larger networks would compile for minutes without loops.)
_UNROLL_AT_MOST_ON_GPU = 35


def is_stacked(path: Sequence[Any]) -> bool:
    """Whether a leaf at that path of a tree of variables has a leading axis of units: each slice is a layer of its own.

    Args:
      path: keys as ``jax.tree_util.tree_map_with_path`` gives them.
    """
    return any(getattr(key, "key", None) == "rest" for key in path)


class Stage(nn.Module):
    """``units`` units of the same width; the first may change the shape, the others are alike.

    The first unit's variables are named ``first``. The others are one unit, ``rest``, whose variables have a
    leading axis of length ``units - 1``, whether the loop over them is a loop in the compiled program or is
    unrolled there: a checkpoint fits both.

    Attributes:
      unit: class of the units (see ``units.py``).
      units: how many, at least 1.
      filters: channels of the output.
      stride: of the first unit.
      layers: how layers are made.
      unroll: whether the compiled program holds every unit, instead of a loop over them where they are many.
      remat: whether the backward pass computes each unit again from its input, instead of keeping what it needs of it.
      follows_activation: whether the stage is the network's first: see :class:`~.units.Unit`.
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
            # What stands between convolutions is computed again: that takes less than to store it and read it back.
            kept = jax.checkpoint_policies.save_only_these_names(SAVED_NAME)
            in_loop = nn.remat(apply, prevent_cse=False, policy=kept)
        if self.remat:
            # Outside of a loop, XLA would find that a unit is computed twice, and keep what it knows of the first time.
            apply, in_loop = nn.remat(apply), nn.remat(apply, prevent_cse=unroll)
        x, _ = apply(first, x, None)
        if rest:
            scan = nn.scan(
                in_loop,
                variable_axes=dict.fromkeys(("params", "batch_stats", "intermediates", *probes.COLLECTIONS), 0),
                split_rngs={"params": True},
                length=rest,
                unroll=rest if unroll else 1,
            )
            x, _ = scan(self.unit(self.filters, 1, self.layers, name="rest"), x, None)
        return x
