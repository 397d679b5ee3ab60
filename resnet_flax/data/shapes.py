"""Shapes of the data sets that are known by name, for whatever needs a network's input but no images."""

from collections.abc import Mapping
from typing import Any

from resnet_flax.paths import expanded

# Side (None where images differ: data.image_size says), channels, classes (None where only the folder tells).
_KNOWN: dict[str, tuple[int | None, int, int | None]] = {
    "digits": (8, 1, 10),
    "cifar10": (32, 3, 10),
    "cifar100": (32, 3, 100),
    "imagenet2012": (None, 3, 1000),
    "folder": (None, 3, None),
}


def image_shape(data: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """(H, W, C) of what the section ``data`` of a config trains on; None where only the data set itself can tell."""
    side, channels, _ = _KNOWN.get(data["name"], (None, None, None))
    side = data["image_size"] or side
    return (side, side, channels) if side and channels else None


def classes(data: Mapping[str, Any]) -> int | None:
    """How many classes the data set has; None where only it can tell.

    Raises:
      UserError: it is a folder of photographs (``data.folder``), and that cannot be read.
    """
    if data["folder"]:
        from resnet_flax.data.folders import scan

        return len(scan(expanded(data["folder"])).classes)
    return _KNOWN[data["name"]][2] if data["name"] in _KNOWN else None
