"""The views of a photograph that a network's answers are averaged over in testing (arXiv:1512.03385, section 3.4).

``center`` is the one crop of most published errors, ``10crop`` the standard 10-crop testing that the paper compares by
(its Tables 2 and 3; AlexNet's, its [21]), ``multiscale`` the fully convolutional form of its best results (Tables 4
and 5).
"""

from typing import Literal, get_args

import numpy as np

from resnet_flax.data import decoding
from resnet_flax.data.decoding import Readable
from resnet_flax.data.pixels import Normalization
from resnet_flax.data.preprocessing import IMAGENET_CROP, Preprocessing

View = Literal["center", "10crop", "multiscale"]
VIEWS: tuple[str, ...] = get_args(View)

SCALES = (224, 256, 384, 480, 640)  # section 3.4, for networks trained on 224x224
_MULTIPLE = 32  # of the sides of whole images; see multiscale


def views_of(path: Readable, preprocessing: Preprocessing, view: View) -> list[np.ndarray]:
    """The views of the image in a file, as arrays [V, H, W, C] float32; those of one shape in one array.

    Raises:
      UserError: the file cannot be read as an image; it names the file.
    """
    if view == "multiscale":
        return multiscale(path, preprocessing)
    return [(ten_crops if view == "10crop" else center)(path, preprocessing)]


def center(path: Readable, preprocessing: Preprocessing) -> np.ndarray:
    """The central crop of the normalised central square.

    Returns:
      [1, image_size, image_size, C] float32.

    Raises:
      UserError: the file cannot be read as an image; it names the file.
    """
    side = preprocessing.image_size
    return decoding.center_crop(_square(path, preprocessing), side, side)[None]


def ten_crops(path: Readable, preprocessing: Preprocessing) -> np.ndarray:
    """The crops at the four corners of the normalised central square, and its central one; then their mirror images.

    Corners in reading order: top left, top right, bottom left, bottom right.

    Returns:
      [10, image_size, image_size, C] float32.

    Raises:
      UserError: the file cannot be read as an image; it names the file.
    """
    side, square = preprocessing.image_size, _square(path, preprocessing)
    far = len(square) - side
    corners = [square[top : top + side, left : left + side] for top in (0, far) for left in (0, far)]
    crops = np.stack([*corners, decoding.center_crop(square, side, side)])
    return np.concatenate([crops, crops[:, :, ::-1]])


def multiscale(path: Readable, preprocessing: Preprocessing, scales: tuple[int, ...] = SCALES) -> list[np.ndarray]:
    """The whole image at several scales, for a network applied in a fully convolutional form.

    The shorter side is brought to each scale; for a network of another ``image_size`` than 224 to
    ``round(scale * image_size / 224)``. Each side is then cropped at the centre to a multiple of 32 (a side below 32
    stays): photographs are of any shape, and a network is compiled for each that comes. A mean that is an image has no
    meaning at other scales; its average over positions takes its place.

    Args:
      scales: shorter sides, in pixels.

    Returns:
      an array [1, H, W, C] float32 for each scale.

    Raises:
      UserError: the file cannot be read as an image, or is so narrow that resizing would make it huge; it names the
        file.
    """
    image = decoding.read_photo(path, preprocessing.channels)
    sides = [max(1, round(scale * preprocessing.image_size / IMAGENET_CROP)) for scale in scales]
    decoding.check_strip(path, image, max(sides))
    normalization = _without_positions(preprocessing.normalization)
    views = []
    for side in sides:
        array = decoding.as_array(decoding.resize_short(image, side, preprocessing.interpolation))
        height, width = (max(s - s % _MULTIPLE, min(s, _MULTIPLE)) for s in array.shape[:2])
        views.append(normalization(decoding.center_crop(array, height, width), np.float32)[None])
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
