"""Facts about published weights that follow from a file's name, or from timm's config.json beside it."""

import json
import math
import re
from pathlib import Path
from typing import Any

from resnet_flax.errors import UserError

# File names of torchvision's IMAGENET1K_V2.
_TORCHVISION_2 = ("resnet50-11ad3fa6", "resnet101-cd907fc2", "resnet152-f82ba261")
# timm's names contain the recipe: resnet50_a1_0-14fe96d1.pth, resnet50.a1_in1k/model.safetensors.
_TIMM = re.compile(r"resnet(\d+)[._](a1h|a[123]|b[12]k|c[12]|d|ra|ram|am|bt|tv2?)(?=[_.\-\d])")
_RECIPES = {
    **dict.fromkeys(("a1", "a2", "a3", "a1h", "b1k", "b2k", "c1", "c2", "d"), (235, 224, "bicubic")),
    **dict.fromkeys(("ra", "ram", "am", "bt"), (256, 224, "bicubic")),
    "tv": (256, 224, "bilinear"),
    "tv2": (232, 224, "bilinear"),
}
_OTHER = re.compile(r"resnet(blur|aa)\d+")  # tensors like a ResNet's, but with fixed filters between the layers
_CACHE = "models--"  # prefix of folders in Hugging Face's cache, two levels above the files


def evaluation_sizes(path: Path) -> tuple[dict[str, Any], str]:
    """Finds the image size at which a file's weights were evaluated by their authors.

    Returns:
      The config keys for that size and the source of this information; both are empty if it is unknown.
    """
    if found := _beside(path):
        try:
            given = found["pretrained_cfg"]
            size, interpolation = given["input_size"][-1], given["interpolation"]
            resize = math.floor(size / given["crop_pct"])
            if type(size) is int and 0 < size <= resize < 2**16 and interpolation in ("bilinear", "bicubic"):
                return _keys(resize, size, interpolation), "config.json beside it"
        except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError, OverflowError):
            pass
    for name in _names(path):
        if name.startswith(_TORCHVISION_2):
            return _keys(232, 224, "bilinear"), "its name"
        if match := _TIMM.search(name):
            short = match[2] == "a1h" and match[1] == "50"
            return _keys(*((224, 224, "bicubic") if short else _RECIPES[match[2]])), "its name"
    return {}, ""


def check_architecture(path: Path) -> None:
    """Refuses a file of a network that has torchvision's tensor names but computes something else.

    The file's name or timm's config.json reveals such a network.

    Raises:
      UserError: The file is of such a network.
    """
    beside = _beside(path)
    architecture = beside.get("architecture") if isinstance(beside, dict) else None
    for name in [*_names(path), str(architecture)]:
        if match := _OTHER.search(name):
            raise UserError(
                f"{path}: weights of {match[0]}, which has the names of a ResNet and filters between its layers that "
                f"no network here has; choose the weights of another network"
            )


def _names(path: Path) -> list[str]:
    """Lists names that may identify the weights: of the file, its folder, and its folder in Hugging Face's cache."""
    return [path.name, path.parent.name, *(p.name for p in path.parents if p.name.startswith(_CACHE))]


def _beside(path: Path) -> Any:
    """Reads timm's config.json in the folder of a file; returns None if there is none."""
    config = path.with_name("config.json")
    try:
        if not config.is_file():
            return None
        with open(config, "rb") as file:
            return json.loads(file.read(2**16))
    except (OSError, ValueError, RecursionError):
        return None


def _keys(resize: int, size: int, interpolation: str) -> dict[str, Any]:
    return {"data.resize": resize, "data.image_size": size, "data.interpolation": interpolation}
