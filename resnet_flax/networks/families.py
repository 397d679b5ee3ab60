"""The families of networks: which depths exist, and what each is made of.

"Deep Residual Learning for Image Recognition" (arXiv:1512.03385), Table 1 (ImageNet) and section 4.2 (CIFAR-10).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from resnet_flax.networks.initialization import initializer, zeros
from resnet_flax.networks.layers import Layers
from resnet_flax.networks.stages import Stage
from resnet_flax.networks.units import UNITS

FAMILIES = ("cifar", "imagenet")
BLOCKS = ("basic", "bottleneck")

# Table 1: units in each of the four stages.
IMAGENET_UNITS: dict[str, dict[int, tuple[int, ...]]] = {
    "basic": {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)},
    "bottleneck": {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)},
}
_STAGE_FILTERS = {"cifar": (16, 32, 64), "imagenet": (64, 128, 256, 512)}
_LAYERS_A_UNIT = {"basic": 2, "bottleneck": 3}


class Network(nn.Module):
    """Stem, stages, global average pooling, one dense layer.

    Attributes:
      family: ``"cifar"`` (3x3 stem; section 4.2) or ``"imagenet"`` (7x7 stem of stride 2, 3x3 max pooling of
        stride 2; Table 1).
      unit: class of the units.
      stage_units: how many units each stage has.
      stage_filters: channels of each stage's output.
      stem_filters: channels of the stem's.
      classes: length of the output.
      layers: how layers are made.
      unroll: whether the compiled program holds every unit, instead of a loop over them.
    """

    family: str
    unit: type[nn.Module]
    stage_units: tuple[int, ...]
    stage_filters: tuple[int, ...]
    stem_filters: int
    classes: int
    layers: Layers
    unroll: bool = False

    @nn.compact
    def __call__(
        self, images: Array, train: bool = False, intermediates: bool = False
    ) -> Array | tuple[Array, dict[str, Array]]:
        """Classifies images.

        Args:
          images: [N, H, W, C], any sides and channels.
          train: whether BN uses the batch's statistics (and updates the collection ``batch_stats``).
          intermediates: whether to return, beside the logits, the named intermediates.

        Returns:
          logits [N, classes], at least float32; with ``intermediates`` also a dict of ``stem``, ``stage1``, ...
          ([N, H', W', C'], after the ReLU), ``pooled`` [N, C'] and ``logits``.
        """
        named: dict[str, Array] = {}
        size, stride = (3, 1) if self.family == "cifar" else (7, 2)
        x = self.layers.convolution(self.stem_filters, size, stride, name="stem_conv")(images)
        x = self.layers.norm(name="stem_bn")(x, train)
        x = nn.relu(self.layers.probe(name="stem_response")(x))
        if self.family == "imagenet":
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        named["stem"] = x
        for i, (units, filters) in enumerate(zip(self.stage_units, self.stage_filters, strict=True), start=1):
            stage = Stage(self.unit, units, filters, 1 if i == 1 else 2, self.layers, self.unroll, name=f"stage{i}")
            x = named[f"stage{i}"] = stage(x, train)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # the mean and the loss are never bfloat16
        named["pooled"] = x.mean((1, 2))
        named["logits"] = nn.Dense(
            self.classes,
            kernel_init=self.layers.kernel_init,
            bias_init=zeros,
            dtype=x.dtype,
            param_dtype=self.layers.param_dtype,
            name="dense",
        )(named["pooled"])
        return (named["logits"], named) if intermediates else named["logits"]


def units_of(family: str, block: str, depth: int) -> tuple[int, ...]:
    """Units in each stage of the network of that depth.

    CIFAR: 6n+2 layers (basic) or 9n+2 (bottleneck), three stages of n units. ImageNet: Table 1.

    Raises:
      ValueError: the family or block is not known, or has no network of that depth; says which there are.
    """
    if family not in FAMILIES:
        raise ValueError(f"model.family={family!r} is not known; choose one of {', '.join(FAMILIES)}")
    if block not in BLOCKS:
        raise ValueError(f"model.block={block!r} is not known; choose one of {', '.join(BLOCKS)}")
    if family == "imagenet":
        depths = IMAGENET_UNITS[block]
        if depth not in depths:
            there_are = "; ".join(f"{block}: {', '.join(map(str, by))}" for block, by in IMAGENET_UNITS.items())
            raise ValueError(f"model.depth={depth} is no {block} network of the imagenet family, which has {there_are}")
        return depths[depth]
    a_unit = 3 * _LAYERS_A_UNIT[block]
    n, remainder = divmod(depth - 2, a_unit)
    if n < 1 or remainder:
        near = sorted({max(n, 1), max(n, 0) + 1})
        raise ValueError(
            f"model.depth={depth} is no {block} network of the cifar family, which has {a_unit}n+2 layers for "
            f"n >= 1: {', '.join(str(a_unit * k + 2) for k in (1, 2, 3))}, ...; near {depth}: "
            f"{', '.join(str(a_unit * k + 2) for k in near)}"
        )
    return (n, n, n)


def depth_of(block: str, stage_units: tuple[int, ...]) -> int:
    """Layers with weights: those of the units, the stem and the dense layer."""
    return sum(stage_units) * _LAYERS_A_UNIT[block] + 2


def build(model: Mapping[str, Any], classes: int, bn_group: int = 0, axis_name: str | None = None) -> Network:
    """The network that the section ``model`` of a config names (``resnet_flax/config.py`` lists its keys).

    Args:
      model: family, unit, block, depth or stage_units, width, shortcut, dtype, ...
      classes: length of the output.
      bn_group: images that a BN normalises together; 0 for the global batch.
      axis_name: the mesh axis that the batch is split over, or None.

    Raises:
      ValueError: what does not fit, and what would.
    """
    family, block = model["family"], model["block"]
    stage_units = tuple(model["stage_units"]) or units_of(family, block, model["depth"])
    filters = _STAGE_FILTERS.get(family, ())
    if len(stage_units) > len(filters) or min(stage_units) < 1:
        raise ValueError(
            f"model.stage_units={stage_units} does not fit the {family} family: 1 to {len(filters)} stages of at "
            f"least one unit"
        )
    if model["unit"] not in UNITS:
        raise ValueError(f"model.unit={model['unit']!r} is not known; choose one of {', '.join(UNITS)}")
    if model["zero_init_last"] and model["unit"] == "plain":
        raise ValueError(
            "model.zero_init_last=True with model.unit='plain': the output of every unit, and every gradient, would "
            "be zero; it fits units with a shortcut"
        )
    if model["zero_init_last"] and model["norm"] == "none":
        raise ValueError("model.zero_init_last=True with model.norm='none': there is no scale to start from zero")
    expansion = 4 if block == "bottleneck" else 1
    width = model["width"]

    def widened(f: int) -> int:
        return max(1, round(f * width)) * expansion

    layers = Layers(
        kernel_init=initializer(model["initialization"]),
        dtype=jnp.dtype(model["dtype"]),
        param_dtype=jnp.dtype(model["param_dtype"]),
        block=block,
        bottleneck_stride=model["bottleneck_stride"],
        shortcut=model["shortcut"],
        shortcut_padding=model["shortcut_padding"],
        zero_init_last=model["zero_init_last"],
        normalization=model["norm"],
        bn_group=bn_group,
        bn_momentum=model["bn_momentum"],
        bn_epsilon=model["bn_epsilon"],
        axis_name=axis_name,
    )
    return Network(
        family=family,
        unit=UNITS[model["unit"]],
        stage_units=stage_units,
        stage_filters=tuple(widened(f) for f in filters[: len(stage_units)]),
        stem_filters=max(1, round(filters[0] * width)),
        classes=classes,
        layers=layers,
        unroll=model["unroll"],
    )
