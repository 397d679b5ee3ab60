"""The views of a photograph over which a network's predictions are averaged in testing (arXiv:1512.03385, section 3.4).

``center`` is the single central crop of most published errors. ``10crop`` is AlexNet's standard 10-crop testing (the
paper's [21]), with which the paper compares networks (its Tables 2 and 3). ``multiscale`` is the fully convolutional
form at several scales that gave the paper's best results (its Tables 4 and 5).
"""

from typing import Literal, get_args

import numpy as np

from resnet_flax.data import decoding, images
from resnet_flax.data.decoding import Readable
from resnet_flax.data.pixels import Normalization
from resnet_flax.data.preprocessing import IMAGENET_CROP, Preprocessing
from resnet_flax.errors import UserError

View = Literal["center", "10crop", "multiscale"]
VIEWS: tuple[str, ...] = get_args(View)

SCALES = (224, 256, 384, 480, 640)  # section 3.4, for networks trained on 224x224
_MULTIPLE = 32  # sides of whole images are cropped to a multiple of it; see multiscale


def check_view(view: str) -> None:
    """Refuses a view that is none of :data:`VIEWS`.

    Raises:
      UserError: There is no such view.
    """
    if view not in VIEWS:
        raise UserError(f"view={view!r} must be one of {', '.join(VIEWS)}")


def views_of(path: Readable, preprocessing: Preprocessing, view: View) -> list[np.ndarray]:
    """Returns the views of an image as arrays [V, H, W, C] float32, one array for each shape.

    Raises:
      UserError: The file cannot be read as an image; the message names it.
    """
    if view == "multiscale":
        return multiscale(path, preprocessing)
    return [(ten_crops if view == "10crop" else center)(path, preprocessing)]


def center(path: Readable, preprocessing: Preprocessing) -> np.ndarray:
    """Returns the central crop of the normalised central square.

    Returns:
      [1, image_size, image_size, C] float32.

    Raises:
      UserError: The file cannot be read as an image; the message names it.
    """
    side = preprocessing.image_size
    return images.center(_square(path, preprocessing), side, side)[None]


def ten_crops(path: Readable, preprocessing: Preprocessing) -> np.ndarray:
    """Returns the four corner crops and the central crop of the normalised central square, then their mirror images.

    The corners come in the order top left, top right, bottom left, bottom right.

    Returns:
      [10, image_size, image_size, C] float32.

    Raises:
      UserError: The file cannot be read as an image; the message names it.
    """
    side, square = preprocessing.image_size, _square(path, preprocessing)
    far = len(square) - side
    corners = [square[top : top + side, left : left + side] for top in (0, far) for left in (0, far)]
    crops = np.stack([*corners, images.center(square, side, side)])
    return np.concatenate([crops, crops[:, :, ::-1]])


def multiscale(path: Readable, preprocessing: Preprocessing, scales: tuple[int, ...] = SCALES) -> list[np.ndarray]:
    """Returns the whole image at several scales, for a network that is applied fully convolutionally.

    The shorter side is resized to each scale, or to ``round(scale * image_size / 224)`` for a network whose
    ``image_size`` is not 224. Each side is then cropped at the centre to a multiple of 32, unless it is below 32. This
    limits the number of shapes, for each of which the network is compiled. A mean that is an image has no meaning at
    other scales, so its average over positions is used instead.

    Args:
      path: The image.
      preprocessing: The preprocessing of the network.
      scales: The shorter sides for a network of 224 pixels.

    Returns:
      An array [1, H, W, C] float32 for each scale.

    Raises:
      UserError: The file cannot be read as an image, or is so narrow that resizing would make it huge; the message
        names the file.
    """
    image = decoding.read_photo(path, preprocessing.channels)
    sides = [max(1, round(scale * preprocessing.image_size / IMAGENET_CROP)) for scale in scales]
    decoding.check_strip(path, image, max(sides))
    normalization = _without_positions(preprocessing.normalization)
    views = []
    for side in sides:
        array = decoding.as_array(decoding.resize_short(image, side, preprocessing.interpolation))
        height, width = (max(s - s % _MULTIPLE, min(s, _MULTIPLE)) for s in array.shape[:2])
        views.append(normalization(images.center(array, height, width), np.float32)[None])
    return views


def _square(path: Readable, preprocessing: Preprocessing) -> np.ndarray:
    p = preprocessing
    return p.normalization(
        decoding.square_around_crop(path, p.resize, p.image_size, p.channels, p.interpolation), np.float32
    )


def _without_positions(normalization: Normalization) -> Normalization:
    def average(array: np.ndarray) -> np.ndarray:
        return array.mean((0, 1)) if array.ndim == 3 else array

    return Normalization(average(normalization.mean), average(normalization.std))
