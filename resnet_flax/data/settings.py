"""Checks that the keys of a config's section ``data`` fit each other; no image is read."""

from collections.abc import Mapping
from typing import Any


def check(data: Mapping[str, Any]) -> None:
    """Refuses settings that do not fit each other.

    Raises:
      ValueError: one line: the key, what was given, what would fit.
    """
    if data["pipeline"] != "stream":
        return
    side, resize, scales = data["image_size"], data["resize"], tuple(data["scales"])
    if not side:
        raise ValueError("data.image_size=0: photographs differ in size; set the side of the crop, such as 224")
    if resize and resize < side:
        raise ValueError(f"data.resize={resize} must be at least data.image_size={side}, or 0")
    if data["pad"]:
        raise ValueError(f"data.pad={data['pad']}: streams are not padded; crops are out of larger images")
    if data["augmentation"] == "scale" and (len(scales) != 2 or not side <= scales[0] <= scales[1]):
        raise ValueError(
            f"data.scales={scales} must be the least and the largest shorter side, at least data.image_size={side}"
        )
