"""Photographs from files, of every kind that people have: as they would look on a white page, upright, in 8 bits."""

import contextlib
import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from resnet_flax.data.images import center_offset
from resnet_flax.data.photographs import Bytes, Photo
from resnet_flax.errors import UserError

Readable = Path | Photo | Bytes | Image.Image | np.ndarray  # what can be read as an image

_FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

# What brings an image upright, by its EXIF orientation.
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
    """The image in a file (of several, the first), turned upright as its EXIF data say, on white where transparent.

    Grey values of 16 bits are divided by 257; of those that are floats, up to 1, 255 or 65535 counts as white,
    whichever is the least that holds them all.

    Args:
      path: of the file; or an image of PIL's, or an array uint8 [H, W] or [H, W, C], to be taken likewise.
      channels: 3 or 1; or 4, which leaves transparency as it is.

    Returns:
      a PIL image of mode RGB, L for one channel, RGBA for four.

    Raises:
      UserError: no such file, no image, not a whole one, or more pixels than PIL takes for honest; it names the file.
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
    """An image file as networks see it: its shorter side brought to ``resize``, then the central crop.

    Args:
      resize: pixels.
      side: of the crop, at most ``resize``.
      channels: 3 or 1.
      interpolation: ``box``, ``bilinear`` or ``bicubic``.

    Returns:
      [side, side, channels] uint8.

    Raises:
      UserError: see :func:`read_photo`; or the image is so narrow that resizing would make it huge.
    """
    image = read_photo(path, channels)
    check_strip(path, image, resize)
    return center_crop(as_array(resize_short(image, resize, interpolation)), side, side)


def square_around_crop(path: Readable, resize: int, side: int, channels: int, interpolation: str) -> np.ndarray:
    """An image whose shorter side is brought to ``resize``, cropped to a square about its central crop of ``side``.

    The central crop of the square is, to the pixel, that of the whole image, :func:`resize_and_crop`'s.

    Args, Raises: see :func:`resize_and_crop`.

    Returns:
      [resize, resize, channels] uint8.
    """
    image = read_photo(path, channels)
    check_strip(path, image, resize)
    array = as_array(resize_short(image, resize, interpolation))
    # Two central crops, one out of the other, would be rounded twice.
    top, left = (center_offset(length, side) - center_offset(resize, side) for length in array.shape[:2])
    return array[top : top + resize, left : left + resize]


def check_strip(path: Readable, image: Image.Image, side: int) -> None:
    """Refuses an image so narrow that, its shorter side brought to ``side``, it would be huge.

    Raises:
      UserError: it is; it names the file.
    """
    short, long = sorted(image.size)
    if Image.MAX_IMAGE_PIXELS and side * (side * long // short) > Image.MAX_IMAGE_PIXELS:
        raise UserError(
            f"{_name(path)}: {image.width}x{image.height} pixels are too narrow a strip to be resized to {side}"
        )


def resize_short(image: Image.Image, side: int, interpolation: str) -> Image.Image:
    """Brings the shorter side to ``side``, the longer one in proportion and rounded down, with antialiasing.

    As torchvision's ``Resize`` does with PIL images, to the bit.
    """
    short, long = sorted(image.size)
    if short == side:
        return image
    other = int(side * long / short)
    size = (side, other) if image.width <= image.height else (other, side)
    return image.resize(size, resampling(interpolation))


def resampling(interpolation: str) -> Image.Resampling:
    """PIL's filter for a setting ``data.interpolation``."""
    return _FILTERS[interpolation]


def as_array(image: Image.Image) -> np.ndarray:
    """A PIL image of mode RGB, L or RGBA as uint8 [H, W, C]."""
    array = np.asarray(image)
    return array if array.ndim == 3 else array[..., None]


def center_crop(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """[H, W, C] -> [height, width, C], where torchvision's ``CenterCrop`` takes it.

    Raises:
      ValueError: the crop is larger than the array.
    """
    room = array.shape[0] - height, array.shape[1] - width
    if min(room) < 0:
        raise ValueError(f"a crop of {height}x{width} is larger than the {array.shape[0]}x{array.shape[1]} pixels")
    top, left = center_offset(array.shape[0], height), center_offset(array.shape[1], width)
    return array[top : top + height, left : left + width]


def _upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it writes the EXIF data anew, too, and fails where they are damaged elsewhere.
    try:
        method = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # whatever damaged EXIF data make PIL raise; the pixels are whole
        method = None
    return image if method is None else image.transpose(method)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """An image of any mode as RGB, L or RGBA."""
    if mode == "RGBA" and image.has_transparency_data:
        return image.convert(mode)
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    """I;16, I (16 bits, mostly) or F -> L."""
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
    """An array uint8 [H, W] or [H, W, C], of 1, 3 or 4 channels, as an image of PIL's.

    Raises:
      UserError: it is another.
    """
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise UserError(
            f"an image as an array must be uint8 [H, W] or [H, W, C] with 1, 3 or 4 channels; this one is "
            f"{array.dtype} {list(array.shape)}"
        )
    return Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)


def _name(path: Readable) -> str:
    """Names the image in messages: by its path, where it has one."""
    return "an image" if isinstance(path, Image.Image | np.ndarray) else str(path)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of a kind that Pillow cannot read"
    if isinstance(error, Image.DecompressionBombError) and Image.MAX_IMAGE_PIXELS is not None:
        return f"more than {2 * Image.MAX_IMAGE_PIXELS} pixels: too large, or made to exhaust memory"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {error.strerror}"
    text = str(error).strip() or type(error).__name__
    return f"cannot be read as an image, is it whole? ({text.splitlines()[0]})"


class _WithoutWarnings(contextlib.AbstractContextManager):
    """No warnings of PIL while any thread is inside.

    ``warnings.catch_warnings`` alone restores what was there when its thread came in, which another thread may have
    changed: after the first one in and the last one out, the filters are as before.
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
