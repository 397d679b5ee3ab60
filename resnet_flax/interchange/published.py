"""Facts about published weights that a file's name, or timm's config.json beside it, tells."""

import json
import math
import re
from pathlib import Path
from typing import Any

from resnet_flax.errors import UserError

# torchvision's IMAGENET1K_V2.
_TORCHVISION_2 = ("resnet50-11ad3fa6", "resnet101-cd907fc2", "resnet152-f82ba261")
# timm's names, such as resnet50_a1_0-14fe96d1.pth and resnet50.a1_in1k/model.safetensors, by the recipe in them.
_TIMM = re.compile(r"resnet(\d+)[._](a1h|a[123]|b[12]k|c[12]|d|ra|ram|am|bt|tv2?)(?=[_.\-\d])")
_RECIPES = {
    **dict.fromkeys(("a1", "a2", "a3", "a1h", "b1k", "b2k", "c1", "c2", "d"), (235, 224, "bicubic")),
    **dict.fromkeys(("ra", "ram", "am", "bt"), (256, 224, "bicubic")),
    "tv": (256, 224, "bilinear"),
    "tv2": (232, 224, "bilinear"),
}
_OTHER = re.compile(r"resnet(blur|aa)\d+")  # the same names and shapes, with filters that are no weights
_CACHE = "models--"  # folders of Hugging Face's cache, two above its files


def evaluation_sizes(path: Path) -> tuple[dict[str, Any], str]:
    """How images were brought to size where a file's weights were measured, as config keys, and what tells it.

    Empty where nothing tells.
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
    """Refuses networks that have torchvision's names and compute something else, as far as the file's name tells.

    Raises:
      UserError: it is one.
    """
    beside = _beside(path)
    architecture = beside.get("architecture") if isinstance(beside, dict) else None
    for name in [*_names(path), str(architecture)]:
        if match := _OTHER.search(name):
            raise UserError(
                f"{path}: weights of {match[0]}, which has the names of a ResNet and filters between its layers that "
                f"no network here has"
            )


def _names(path: Path) -> list[str]:
    """The file's name, and those of folders that are named after it."""
    return [path.name, path.parent.name, *(p.name for p in path.parents if p.name.startswith(_CACHE))]


def _beside(path: Path) -> Any:
    """Reads timm's config.json beside a file; None where there is none."""
    place = path.with_name("config.json")
    try:
        if not place.is_file():
            return None
        with open(place, "rb") as file:
            return json.loads(file.read(2**16))
    except (OSError, ValueError, RecursionError):
        return None


def _keys(resize: int, size: int, interpolation: str) -> dict[str, Any]:
    return {"data.resize": resize, "data.image_size": size, "data.interpolation": interpolation}
