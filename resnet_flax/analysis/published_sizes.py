"""Published parameters and multiply-adds of networks, from papers and torchvision, matched to configs exactly."""

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
    """A published number of parameters or multiply-adds.

    Attributes:
      name: The network's name in the source.
      quantity: ``"parameters"`` or ``"multiply_adds"`` (for one image; a paper may call them FLOPs).
      value: The number.
      printed: The number as the source prints it, with as many digits.
      source: The source, such as a paper and its table.
    """

    name: str
    quantity: str
    value: int
    printed: str
    source: str


def published(model: Mapping[str, Any], image_shape: tuple[int, int, int], classes: int) -> list[PublishedSize]:
    """Returns the published sizes of a config's network; the list is often empty.

    Args:
      model: Section ``model`` of a resolved config.
      image_shape: (H, W, C).
      classes: Number of classes.
    """
    fields = [field.name for field in dataclasses.fields(PublishedSize)]
    return [
        PublishedSize(**{name: row[name] for name in fields})
        for row in rows()
        if (tuple(row["image"]), row["classes"]) == (image_shape, classes) and _describes(row["model"], model)
    ]


@functools.cache
def rows() -> list[dict[str, Any]]:
    """Reads ``published_sizes.json``, which has one number per row.

    A row's ``model`` describes the networks with this number, by the keys of a config's section ``model``. A list
    allows several values, and a missing key means its default.
    """
    return json.loads((resources.files(__package__) / "published_sizes.json").read_text())


def _describes(row: Mapping[str, Any], model: Mapping[str, Any]) -> bool:
    expected = {**config.base().model, **row}
    for key, value in model.items():
        fitting = expected[key] if isinstance(expected[key], list) else [expected[key]]
        # JSON has lists where a config has tuples.
        if key not in _NO_EFFECT_ON_SIZE and value not in [tuple(v) if isinstance(v, list) else v for v in fitting]:
            return False
    stage_units = tuple(model["stage_units"])
    return not stage_units or stage_units == units_of(model["family"], model["block"], model["depth"])
