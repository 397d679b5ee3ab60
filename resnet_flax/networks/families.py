"""The families of networks: their depths, and the stages, widths and strides of each.

* ``cifar`` and ``imagenet``: "Deep Residual Learning for Image Recognition" (arXiv:1512.03385), section 4.2 and
  Table 1.
* ``vgg``: "Very Deep Convolutional Networks for Large-Scale Image Recognition" (arXiv:1409.1556), Table 1, columns A,
  B, D and E. A BN follows each convolution here. The paper is older than BN; ``model.norm="none"`` gives its networks.
* ``highway``: the networks of 19 and 32 layers of "Training Very Deep Networks" (arXiv:1507.06228) on CIFAR-10.

The highway paper specifies: thin and deep stacks of 3x3 layers, as in FitNets; highway layers where the shape stays,
plain layers where it changes; a 1x1 convolution and global average pooling instead of fully connected layers; 2.3M and
1.25M parameters; no BN. The 19 layers are those of the fourth FitNet (arXiv:1412.6550, appendix): 32, 32, 32, 48, 48,
pool, 6 x 80, pool, 6 x 128, pool. The following was chosen here: ReLU instead of the FitNets' maxout; 2x2 max pooling
between the last three stages; a 1x1 convolution that keeps 128 channels. The paper does not describe the 32 layers in
detail. Here their stages have about twice the units of the 19 layers, and 0.55 of their widths, which gives 1.25M
parameters. BN is a setting, as in every family.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from resnet_flax.networks.highway import gate_bias
from resnet_flax.networks.initialization import initializer
from resnet_flax.networks.layers import Layers
from resnet_flax.networks.network import Network, Stem
from resnet_flax.networks.units import UNITS
from resnet_flax.registry import Registry

BLOCKS = ("basic", "bottleneck", "single")
_LAYERS_PER_UNIT = {"basic": 2, "bottleneck": 3, "single": 1}

# Number of units in each stage, by block and depth.
IMAGENET_UNITS: dict[str, dict[int, tuple[int, ...]]] = {
    "basic": {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)},
    "bottleneck": {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)},
}
VGG_UNITS = {"single": {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}}
HIGHWAY_UNITS = {"single": {19: (2, 2, 6, 6), 32: (4, 5, 10, 10)}}


@dataclasses.dataclass(frozen=True)
class Family:
    """Properties that the networks of a family have in common.

    Attributes:
      blocks: Values of ``model.block`` that the family supports.
      filters: Number of filters of the 3x3 convolutions in each stage.
      strides: Stride of each stage.
      other_layers: Number of layers with weights outside the units, such as the stem and the dense layer.
      units: Number of units in each stage, by block and depth; None for three stages of n units each, with any n.
      filters_by_depth: Filters of the depths that do not have those of ``filters``.
      stem: Kernel size and stride of the stem's convolution, and whether max pooling follows; None for no stem.
      convolution_bias: Whether convolutions have a bias beside that of the BN after them.
      pools, flattens, last_pointwise: Attributes of the family's :class:`Network`.
    """

    blocks: tuple[str, ...]
    filters: tuple[int, ...]
    strides: tuple[int, ...]
    other_layers: int
    units: Mapping[str, Mapping[int, tuple[int, ...]]] | None = None
    filters_by_depth: Mapping[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    stem: tuple[int, int, bool] | None = (3, 1, False)
    convolution_bias: bool = False
    pools: bool = False
    flattens: bool = False
    last_pointwise: bool = False


FAMILIES: Registry[Family] = Registry(
    "family of networks",
    {
        "cifar": Family(
            blocks=("basic", "bottleneck"),
            filters=(16, 32, 64),
            strides=(1, 2, 2),
            other_layers=2,  # the stem, the dense layer
        ),
        "imagenet": Family(
            blocks=tuple(IMAGENET_UNITS),
            filters=(64, 128, 256, 512),
            strides=(1, 2, 2, 2),
            other_layers=2,
            units=IMAGENET_UNITS,
            stem=(7, 2, True),
        ),
        "vgg": Family(
            blocks=tuple(VGG_UNITS),
            filters=(64, 128, 256, 512, 512),
            strides=(1, 2, 2, 2, 2),
            other_layers=3,  # the paper's three dense layers, though `model.hidden` may give another number
            units=VGG_UNITS,
            stem=None,
            convolution_bias=True,
            pools=True,
            flattens=True,
        ),
        "highway": Family(
            blocks=tuple(HIGHWAY_UNITS),
            filters=(32, 48, 80, 128),
            strides=(1, 1, 2, 2),
            other_layers=3,  # the stem, the 1x1 convolution, the dense layer
            units=HIGHWAY_UNITS,
            filters_by_depth={32: (20, 28, 44, 70)},
            pools=True,
            last_pointwise=True,
        ),
    },
)


def units_of(family: str, block: str, depth: int) -> tuple[int, ...]:
    """Returns the number of units in each stage of a family's network of the given depth.

    The CIFAR family has three stages of n units: 6n+2 layers (basic) or 9n+2 (bottleneck). The other families have the
    depths in their tables.

    Raises:
      ValueError: The family or the block is unknown, or has no network of that depth. The message names the choices.
    """
    spec = _family(family, block)
    if spec.units is not None:
        depths = spec.units[block]
        if depth not in depths:
            there_are = "; ".join(f"{block}: {', '.join(map(str, by))}" for block, by in spec.units.items())
            form = f"{block} network" if any(depth in by for by in spec.units.values()) else "network"
            small = ""
            if family == "imagenet":
                small = "; for small images, model.family=cifar has 6n+2 layers, such as 20 or 56"
            raise ValueError(f"model.depth={depth} is no {form} of the {family} family, which has {there_are}{small}")
        return depths[depth]
    layers_per_n = 3 * _LAYERS_PER_UNIT[block]  # one more unit in each of the three stages
    n, remainder = divmod(depth - 2, layers_per_n)
    if n < 1 or remainder:
        near = sorted({max(n, 1), max(n, 0) + 1})
        raise ValueError(
            f"model.depth={depth} is no {block} network of the {family} family, which has {layers_per_n}n+2 layers for "
            f"n >= 1: {', '.join(str(layers_per_n * k + 2) for k in (1, 2, 3))}, ...; near {depth}: "
            f"{', '.join(str(layers_per_n * k + 2) for k in near)}"
        )
    return (n, n, n)


def depth_of(family: str, block: str, stage_units: tuple[int, ...]) -> int:
    """Counts the layers with weights: those of the units, and the family's others (the stem, the dense layer, ...)."""
    return sum(stage_units) * _LAYERS_PER_UNIT[block] + _family(family, block).other_layers


def _family(family: str, block: str) -> Family:
    if family not in FAMILIES:
        raise ValueError(f"model.family={family!r} is not known; choose one of {', '.join(FAMILIES)}")
    if block not in BLOCKS:
        raise ValueError(f"model.block={block!r} is not known; choose one of {', '.join(BLOCKS)}")
    blocks = FAMILIES[family].blocks
    if block not in blocks:
        raise ValueError(f"model.block={block!r} does not fit the {family} family; choose {' or '.join(blocks)}")
    return FAMILIES[family]


def build(model: Mapping[str, Any], classes: int, bn_group: int = 0, axis_name: str | None = None) -> Network:
    """Builds the network that the section ``model`` of a config describes.

    Args:
      model: The config's section, whose keys ``resnet_flax/config/table.py`` lists: family, unit, block, depth, ...
      classes: Number of logits.
      bn_group: Number of images that BN normalises together; 0 for the global batch.
      axis_name: The mesh axis over which the batch is sharded; None on a single device.

    Raises:
      ValueError: Values do not fit together. The message names them, and values that would fit.
    """
    spec = _family(model["family"], model["block"])
    _check_unit(model)
    stage_units = tuple(model["stage_units"]) or units_of(model["family"], model["block"], model["depth"])
    stages = len(stage_units)
    if stages > len(spec.filters) or min(stage_units) < 1:
        raise ValueError(
            f"model.stage_units={stage_units} does not fit the {model['family']} family: 1 to {len(spec.filters)} "
            f"stages of at least one unit"
        )
    expansion = 4 if model["block"] == "bottleneck" else 1
    filters = [max(1, round(f * model["width"])) for f in _stage_filters(model, spec, stages)]
    return Network(
        stem=None if spec.stem is None else Stem(filters[0], *spec.stem),
        unit=UNITS[model["unit"]],
        stage_units=stage_units,
        stage_filters=tuple(f * expansion for f in filters),
        stage_strides=spec.strides[:stages],
        classes=classes,
        layers=_layers(model, spec, bn_group, axis_name),
        pools=spec.pools,
        flattens=spec.flattens,
        last_pointwise=spec.last_pointwise,
        hidden=tuple(model["hidden"]),
        dropout=model["dropout"],
        unroll=model["unroll"],
        remat=model["remat"],
    )


def _check_unit(model: Mapping[str, Any]) -> None:
    name, block = model["unit"], model["block"]
    if name not in UNITS:
        raise ValueError(f"model.unit={name!r} is not known; choose one of {', '.join(UNITS)}")
    if block not in UNITS[name].blocks:
        raise ValueError(
            f"model.unit={name!r} has no {block} form; choose model.block {' or '.join(UNITS[name].blocks)}"
        )
    if model["zero_init_last"] and not UNITS[name].can_start_as_identity:
        fitting = ", ".join(other for other in UNITS if UNITS[other].can_start_as_identity)
        raise ValueError(
            f"model.zero_init_last=True with model.unit={name!r}: the layers after a unit's last BN would have no "
            f"gradient and never learn; it fits {fitting}"
        )
    if model["zero_init_last"] and model["shortcut"] == "A" and UNITS[name].ends_activated:
        raise ValueError(
            "model.zero_init_last=True with model.shortcut='A': the channels that a stage adds would start at 0, where "
            "the ReLU after the addition has no gradient, so they would never learn; choose model.shortcut B or C"
        )
    if model["zero_init_last"] and model["norm"] == "none":
        raise ValueError(
            "model.zero_init_last=True with model.norm='none': without BN there is no scale that could start at 0"
        )


def _stage_filters(model: Mapping[str, Any], spec: Family, stages: int) -> tuple[int, ...]:
    given = tuple(model["stage_filters"])
    if given and len(given) != stages:
        raise ValueError(
            f"model.stage_filters={given} has filters for {len(given)} stages, but the network has {stages}"
        )
    if given:
        return given
    named = None if model["stage_units"] else spec.filters_by_depth.get(model["depth"])
    return (named or spec.filters)[:stages]


def _gate_bias(model: Mapping[str, Any]) -> float:
    if model["gate_bias"] is not None:
        return model["gate_bias"]
    stage_units = tuple(model["stage_units"])
    return gate_bias(depth_of(model["family"], model["block"], stage_units) if stage_units else model["depth"])


def _layers(model: Mapping[str, Any], spec: Family, bn_group: int, axis_name: str | None) -> Layers:
    return Layers(
        kernel_init=initializer(model["initialization"]),
        dtype=jnp.dtype(model["dtype"]),
        param_dtype=jnp.dtype(model["param_dtype"]),
        block=model["block"],
        bottleneck_stride=model["bottleneck_stride"],
        shortcut=model["shortcut"],
        shortcut_padding=model["shortcut_padding"],
        zero_init_last=model["zero_init_last"],
        # Without BN, the bias in a BN's place is the convolution's bias.
        convolution_bias=spec.convolution_bias and model["norm"] == "batch",
        normalize=model["norm"] == "batch",
        gate_bias=_gate_bias(model),
        bn_group=bn_group,
        bn_momentum=model["bn_momentum"],
        bn_epsilon=model["bn_epsilon"],
        axis_name=axis_name,
    )
