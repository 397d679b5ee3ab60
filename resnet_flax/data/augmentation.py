"""Random crops of photographs, taken before resizing, so that only what is seen is resized."""

import math
from typing import Literal, get_args

import numpy as np
from PIL import Image

from resnet_flax.data import decoding

Augmentation = Literal["crop", "scale", "inception"]
AUGMENTATIONS: tuple[str, ...] = get_args(Augmentation)

_TRIES = 10  # of Inception's crop, before the central one
_RATIO = (3 / 4, 4 / 3)  # width over height of Inception's crop

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the image


def scale_crop(width: int, height: int, shorter: int, side: int, rng: np.random.Generator) -> Box:
    """Draws the place of a random crop of ``side`` in an image whose shorter side is brought to ``shorter``.

    The paper's (section 3.4), its scale given: as VGG's, with S = ``shorter``.

    Args:
      width, height: of the image, in pixels.
      shorter: at least ``side``.

    Returns:
      the crop in the image as it is, which resized to ``side`` x ``side`` is that crop.
    """
    factor = shorter / min(width, height)
    # Whole pixels of the resized image, as if it had been made.
    room = (int(width * factor + 1e-6) - side, int(height * factor + 1e-6) - side)
    left, top = (int(rng.integers(0, r + 1)) for r in room)
    return left / factor, top / factor, (left + side) / factor, (top + side) / factor


def inception_crop(width: int, height: int, least_area: float, rng: np.random.Generator) -> Box:
    """A crop of random area and shape (arXiv:1409.4842, section 6), as torchvision's ``RandomResizedCrop`` draws it.

    The area is uniform in [``least_area``, 1] of the image's, the logarithm of width over height uniform between
    those of 3/4 and 4/3. Where ten draws do not fit into the image, the central crop of the nearest allowed shape.
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
    """A crop resized with antialiasing, mirrored if so wanted: uint8 [side, side, C]."""
    # Of a box, PIL resizes only what is inside it: a third of the time of resizing the whole image first.
    cropped = image.resize((side, side), decoding.resampling(interpolation), box)
    # By PIL: a tenth of the time of NumPy's copy in reversed order.
    return decoding.as_array(cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else cropped)
