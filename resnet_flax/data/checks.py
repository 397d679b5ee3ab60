"""Checks of the config section ``data``, for which no image is read."""

from collections.abc import Mapping
from typing import Any

from resnet_flax.config import in_memory


def check(data: Mapping[str, Any]) -> None:
    """Refuses values of the section ``data`` that contradict each other.

    Raises:
      ValueError: One line with the key, the given value and the allowed values.
    """
    if in_memory(data):
        return
    side, resize, scales = data["image_size"], data["resize"], tuple(data["scales"])
    if not side:
        raise ValueError("data.image_size=0: photographs differ in size; set the side of the crop, such as 224")
    if resize and resize < side:
        raise ValueError(f"data.resize={resize} must be at least data.image_size={side}, or 0")
    if data["pad"]:
        raise ValueError(
            f"data.pad={data['pad']}: streamed images are not padded, as crops come from larger images; set it to 0"
        )
    if data["augmentation"] == "scale" and (len(scales) != 2 or not side <= scales[0] <= scales[1]):
        raise ValueError(
            f"data.scales={scales} must be the smallest and the largest shorter side, in this order and both at least "
            f"data.image_size={side}"
        )
