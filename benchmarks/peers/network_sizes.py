"""Sizes that a peer has to know of a network of ours to build the same; no code."""

import dataclasses

from ml_collections import ConfigDict

from resnet_flax.errors import UserError
from resnet_flax.networks import build


@dataclasses.dataclass(frozen=True)
class NetworkSizes:
    """A residual network as a list of sizes.

    Attributes:
      stage_units: units of each stage.
      filters: of each stage's 3x3 convolutions; a bottleneck puts out four times as many.
      bottleneck: whether a unit is 1x1, 3x3, 1x1, else 3x3, 3x3.
      stride_on_3x3: where a bottleneck's stride is, else on the first 1x1.
      large_stem: 7x7 of stride 2 and max pooling (ImageNet's), else 3x3.
      projection: option B, else option A.
      classes: of the output.
      side: of the images.
    """

    stage_units: tuple[int, ...]
    filters: tuple[int, ...]
    bottleneck: bool
    stride_on_3x3: bool
    large_stem: bool
    projection: bool
    classes: int
    side: int


def sizes_of(config: ConfigDict, classes: int, side: int) -> NetworkSizes:
    """The layout of a config's network.

    Raises:
      UserError: the peers do not have that network.
    """
    m = config.model
    if (m.unit, m.norm) != ("residual", "batch") or m.family not in ("cifar", "imagenet") or m.shortcut == "C":
        raise UserError(
            f"the peers are residual networks of the CIFAR and ImageNet families, with BN and option A or B; "
            f"this is {m.family} {m.unit}-{m.depth} with option {m.shortcut} and norm {m.norm}"
        )
    network = build(m, classes)
    bottleneck = m.block == "bottleneck"
    return NetworkSizes(
        stage_units=network.stage_units,
        filters=tuple(f // (4 if bottleneck else 1) for f in network.stage_filters),
        bottleneck=bottleneck,
        stride_on_3x3=m.bottleneck_stride == "3x3",
        large_stem=network.stem.pool,
        projection=m.shortcut == "B",
        classes=classes,
        side=side,
    )
