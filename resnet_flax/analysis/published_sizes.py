"""The sizes that papers and torchvision publish, for the networks that are theirs to the last setting."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from resnet_flax import config
from resnet_flax.networks import units_of

# Keys of the section `model` that change neither parameters nor multiply-adds.
_NO_EFFECT_ON_SIZE = {
    "stage_units", "initialization", "gate_bias", "zero_init_last", "dropout", "shortcut_padding", "bn_momentum",
    "bn_epsilon", "dtype", "param_dtype", "unroll", "remat",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PublishedSize:
    """A published number.

    Attributes:
      name: of the network, there.
      quantity: ``"parameters"`` or ``"multiply_adds"`` (of one image; a paper may call them FLOPs).
      value: the number.
      printed: as printed, to as many digits.
      source: where.
    """

    name: str
    quantity: str
    value: int
    printed: str
    source: str


def published(model: Mapping[str, Any], image_shape: tuple[int, int, int], classes: int) -> list[PublishedSize]:
    """Returns what is published about the network of a resolved config's section ``model``; often nothing.

    Args:
      model: of a resolved config: its depth is that of its stages.
      image_shape: (H, W, C).
      classes: length of the output.
    """
    fields = [field.name for field in dataclasses.fields(PublishedSize)]
    return [
        PublishedSize(**{name: row[name] for name in fields})
        for row in rows()
        if (tuple(row["image"]), row["classes"]) == (image_shape, classes) and _describes(row["model"], model)
    ]


@functools.cache
def rows() -> list[dict[str, Any]]:
    """``published_sizes.json``: a number a row, and which networks it is of: values of ``model``'s keys, or lists of
    them; keys that are not there have their defaults.
    """
    return json.loads((resources.files(__package__) / "published_sizes.json").read_text())


def _describes(row: Mapping[str, Any], model: Mapping[str, Any]) -> bool:
    expected = {**config.base().model, **row}
    for key, value in model.items():
        fitting = expected[key] if isinstance(expected[key], list) else [expected[key]]
        # What is a tuple in a config is a list in JSON.
        if key not in _NO_EFFECT_ON_SIZE and value not in [tuple(v) if isinstance(v, list) else v for v in fitting]:
            return False
    stage_units = tuple(model["stage_units"])
    return not stage_units or stage_units == units_of(model["family"], model["block"], model["depth"])
