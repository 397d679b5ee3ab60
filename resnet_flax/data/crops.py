"""Random crops of photographs on the host, taken before resizing, so that only the crop is resized."""

import math
from typing import Literal, get_args

import numpy as np
from PIL import Image

from resnet_flax.data import decoding

Crop = Literal["crop", "scale", "inception"]
CROPS: tuple[str, ...] = get_args(Crop)

_TRIES = 10  # draws of Inception's crop before the central one is taken
_RATIO = (3 / 4, 4 / 3)  # range of width over height of Inception's crop

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the image


def scale_crop(width: int, height: int, shorter: int, side: int, rng: np.random.Generator) -> Box:
    """Draws a random crop of ``side`` x ``side`` from an image as if resized to the shorter side ``shorter``.

    This is the crop of the paper (section 3.4) and of VGG for one scale S = ``shorter``.

    Args:
      width, height: The size of the image, in pixels.
      shorter: The shorter side after resizing, at least ``side``.
      side: The side of the crop after resizing.
      rng: The random generator.

    Returns:
      The box in the image before resizing; resized to ``side`` x ``side`` it is the crop.
    """
    factor = shorter / min(width, height)
    # Drawn in whole pixels of the resized image, to equal resizing first and cropping then.
    room = (int(width * factor + 1e-6) - side, int(height * factor + 1e-6) - side)
    left, top = (int(rng.integers(0, r + 1)) for r in room)
    return left / factor, top / factor, (left + side) / factor, (top + side) / factor


def inception_crop(width: int, height: int, least_area: float, rng: np.random.Generator) -> Box:
    """Draws a crop of random area and shape (arXiv:1409.4842, section 6), like torchvision's ``RandomResizedCrop``.

    The fraction of the image's area is uniform in [``least_area``, 1], and the logarithm of width over height is
    uniform in [log(3/4), log(4/3)]. If ten draws do not fit into the image, the crop is the central one of the nearest
    allowed shape.
    """
    for _ in range(_TRIES):
        area = width * height * rng.uniform(least_area, 1)
        ratio = math.exp(rng.uniform(*np.log(_RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < _RATIO[0]:
        h = round(width / _RATIO[0])
    elif width / height > _RATIO[1]:
        w = round(height * _RATIO[1])
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def cut(image: Image.Image, box: Box, side: int, interpolation: str, flip: bool = False) -> np.ndarray:
    """Cuts a box out of an image, resizes it with antialiasing, and mirrors it on demand: uint8 [side, side, C]."""
    # Resizing a box takes PIL a third of the time of resizing the whole image first.
    cropped = image.resize((side, side), decoding.resampling(interpolation), box)
    # Mirroring by PIL takes a tenth of the time of NumPy's copy in reversed order.
    return decoding.as_array(cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else cropped)
