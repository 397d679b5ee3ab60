"""The sizes that a peer needs to build the same network as ours."""

import dataclasses

from ml_collections import ConfigDict

from resnet_flax.errors import UserError
from resnet_flax.networks import build


@dataclasses.dataclass(frozen=True)
class NetworkSizes:
    """The sizes of a residual network.

    Attributes:
      stage_units: Number of units in each stage.
      filters: Filters of the 3x3 convolutions in each stage; a bottleneck has four times as many output channels.
      bottleneck: Whether a unit is 1x1, 3x3, 1x1; otherwise it is 3x3, 3x3.
      stride_on_3x3: Whether the 3x3 of a bottleneck has the stride; otherwise the first 1x1 has it.
      large_stem: Whether the stem is ImageNet's 7x7 of stride 2 with max pooling; otherwise it is a 3x3.
      projection: Whether shortcuts use option B; otherwise option A.
      classes: Number of logits.
      side: Height and width of the images.
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
    """Returns the sizes of a config's network.

    Raises:
      UserError: The peers do not support this network.
    """
    m = config.model
    if (m.unit, m.norm) != ("residual", "batch") or m.family not in ("cifar", "imagenet") or m.shortcut == "C":
        raise UserError(
            f"the peers are residual networks of the CIFAR and ImageNet families, with BN and option A or B; they do "
            f"not support {m.unit}-{m.depth} of the family {m.family} with option {m.shortcut} and norm {m.norm}"
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
