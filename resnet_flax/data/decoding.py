"""Decoding of image files of any kind to upright 8-bit images on a white background, and their resizing and crops."""

import contextlib
import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from resnet_flax.data.images import center, center_offset
from resnet_flax.data.photographs import Bytes, Photo
from resnet_flax.errors import UserError

Readable = Path | Photo | Bytes | Image.Image | np.ndarray  # what can be read as an image

_FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

# The transformation that turns an image upright, by its EXIF orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_photo(path: Readable, channels: int = 3) -> Image.Image:
    """Reads the first image of a file, turns it upright by its EXIF data, and puts it on white where transparent.

    Grey values of 16 bits are divided by 257. For float images, white is the smallest of 1, 255 and 65535 that no
    value exceeds.

    Args:
      path: The image file; or a PIL image or an array uint8 [H, W] or [H, W, C], which are converted in the same way.
      channels: 3 or 1; or 4, which keeps transparency.

    Returns:
      A PIL image of mode RGB, L for one channel, RGBA for four.

    Raises:
      UserError: The file does not exist, is not a whole image, or has more pixels than PIL accepts; the message names
        the file.
    """
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    if isinstance(path, np.ndarray):
        path = from_array(path)
    if isinstance(path, Image.Image):
        return _in_mode(_upright(path), mode)
    try:
        with _without_warnings, path.open("rb") as file, Image.open(file) as image:
            image.load()
            return _in_mode(_upright(image), mode)
    except Exception as error:  # a damaged file makes PIL raise nearly anything
        raise UserError(f"{path}: {_reason(error)}") from None


def resize_and_crop(path: Readable, resize: int, side: int, channels: int, interpolation: str) -> np.ndarray:
    """Reads an image, resizes its shorter side to ``resize`` and takes the central crop, as networks evaluate it.

    Args:
      path: The image.
      resize: The shorter side after resizing, in pixels.
      side: The side of the crop, at most ``resize``.
      channels: 1, 3 or 4.
      interpolation: ``box``, ``bilinear`` or ``bicubic``.

    Returns:
      [side, side, channels] uint8.

    Raises:
      UserError: See :func:`read_photo`; or the image is so narrow that resizing would make it huge.
    """
    image = read_photo(path, channels)
    check_strip(path, image, resize)
    return center(as_array(resize_short(image, resize, interpolation)), side, side)


def square_around_crop(path: Readable, resize: int, side: int, channels: int, interpolation: str) -> np.ndarray:
    """Reads an image, resizes its shorter side to ``resize``, and crops it to a square around its central crop.

    The central crop of ``side`` from the square equals the result of :func:`resize_and_crop` to the pixel. Arguments
    and errors are the same.

    Returns:
      [resize, resize, channels] uint8.
    """
    image = read_photo(path, channels)
    check_strip(path, image, resize)
    array = as_array(resize_short(image, resize, interpolation))
    # Two central crops, one from the other, would round twice and could miss the pixels of resize_and_crop by one.
    top, left = (center_offset(length, side) - center_offset(resize, side) for length in array.shape[:2])
    return array[top : top + resize, left : left + resize]


def check_strip(path: Readable, image: Image.Image, side: int) -> None:
    """Refuses an image so narrow that resizing its shorter side to ``side`` would make it huge.

    Raises:
      UserError: The image is too narrow; the message names its file.
    """
    short, long = sorted(image.size)
    if Image.MAX_IMAGE_PIXELS and side * (side * long // short) > Image.MAX_IMAGE_PIXELS:
        raise UserError(
            f"{_name(path)}: {image.width}x{image.height} pixels are too narrow to resize the shorter side to {side}"
        )


def resize_short(image: Image.Image, side: int, interpolation: str) -> Image.Image:
    """Resizes the shorter side to ``side`` and the longer one in proportion, rounded down, with antialiasing.

    The result equals that of torchvision's ``Resize`` for PIL images, bit for bit.
    """
    short, long = sorted(image.size)
    if short == side:
        return image
    other = int(side * long / short)
    size = (side, other) if image.width <= image.height else (other, side)
    return image.resize(size, resampling(interpolation))


def resampling(interpolation: str) -> Image.Resampling:
    """Returns PIL's filter for a value of ``data.interpolation``."""
    return _FILTERS[interpolation]


def as_array(image: Image.Image) -> np.ndarray:
    """Returns a PIL image of mode RGB, L or RGBA as an array uint8 [H, W, C]."""
    array = np.asarray(image)
    return array if array.ndim == 3 else array[..., None]


def _upright(image: Image.Image) -> Image.Image:
    # ImageOps.exif_transpose would also rewrite the EXIF data, and fail if any other part of them is damaged.
    try:
        method = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # PIL raises many types for damaged EXIF data; the pixels are still good
        method = None
    return image if method is None else image.transpose(method)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Converts an image of any mode to RGB, L or RGBA."""
    if mode == "RGBA" and image.has_transparency_data:
        return image.convert(mode)
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Converts mode I;16, I (mostly 16 bits) or F to L."""
    values = np.asarray(image, np.float64)
    white = 65535
    if image.mode == "F":
        largest = np.max(values, where=np.isfinite(values), initial=0)
        white = next((top for top in (1, 255) if largest <= top), white)
    grey = np.rint(np.nan_to_num(np.clip(values / white, 0, 1)) * 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def from_array(array: np.ndarray) -> Image.Image:
    """Returns an array uint8 [H, W] or [H, W, C], of 1, 3 or 4 channels, as a PIL image.

    Raises:
      UserError: The array has another dtype or shape.
    """
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise UserError(
            f"an image given as an array must be uint8 [H, W] or [H, W, C] with 1, 3 or 4 channels; this one is "
            f"{array.dtype} {list(array.shape)}"
        )
    return Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)


def _name(path: Readable) -> str:
    """Returns the image's name for messages: its path, if it has one."""
    return "an image" if isinstance(path, Image.Image | np.ndarray) else str(path)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of a format that Pillow cannot read"
    if isinstance(error, Image.DecompressionBombError) and Image.MAX_IMAGE_PIXELS is not None:
        return f"more than {2 * Image.MAX_IMAGE_PIXELS} pixels: too large, or a decompression bomb"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {error.strerror}"
    text = str(error).strip() or type(error).__name__
    return f"cannot be read as an image; is the file complete? ({text.splitlines()[0]})"


class _WithoutWarnings(contextlib.AbstractContextManager):
    """Context manager that suppresses warnings of PIL while any thread is inside.

    ``warnings.catch_warnings`` is not safe with threads: each would restore the filters that it found, which another
    thread may have changed. Here the first thread to enter changes the filters, and the last to leave restores them.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._caught.__exit__(None, None, None)


_without_warnings = _WithoutWarnings()
