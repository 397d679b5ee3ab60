"""The normalisation of pixels, by constants or by statistics of the training images."""

import dataclasses
from typing import TypeVar

import numpy as np
from jax import Array
from jax.typing import DTypeLike

from resnet_flax.data.images import Images, center

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
STATISTICS = ("pixel_mean", "channel")  # normalizations that are statistics of the training images
_CAFFE_MEAN = (123.68, 116.779, 103.939)  # of pixels from 0 to 255
_COUNTED_AT_ONCE = 16  # images

_Array = TypeVar("_Array", np.ndarray, Array)


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Pixels divided by 255, minus ``mean``, divided by ``std``; each broadcasts against [H, W, C]."""

    mean: np.ndarray
    std: np.ndarray

    def cropped(self, side: int) -> "Normalization":
        """For the central crop of the images it is for."""

        def crop(array: np.ndarray) -> np.ndarray:
            return np.asarray(center(array[None], side)[0]) if array.ndim == 3 else array

        return Normalization(crop(self.mean), crop(self.std))

    def __call__(self, images: _Array, dtype: DTypeLike) -> _Array:
        """uint8 [..., H, W, C] -> dtype."""
        return (images.astype(dtype) / 255 - self.mean.astype(dtype)) / self.std.astype(dtype)


def normalization(name: str, train: Images) -> Normalization:
    """The setting ``data.normalization``, its statistics those of the training split.

    ``pixel_mean``: minus the mean image, no division (arXiv:1512.03385, section 4.2). ``channel``: minus each
    channel's mean, divided by its standard deviation. ``imagenet``: the constants many PyTorch ports use.
    ``caffe``: pixels from 0 to 255 less the channels' means that Caffe's and Keras's networks use, in the order RGB.
    ``none``: only the division by 255.
    """
    channels = train.images.shape[-1]
    if name == "none":
        return Normalization(np.zeros(1), np.ones(1))
    if name in ("imagenet", "caffe"):
        if channels != 3:
            raise ValueError(f"data.normalization={name!r} is for 3 channels; the images have {channels}")
        if name == "caffe":
            return Normalization(np.asarray(_CAFFE_MEAN) / 255, np.full(1, 1 / 255))
        return Normalization(np.asarray(_IMAGENET_MEAN), np.asarray(_IMAGENET_STD))
    statistics = PixelStatistics(name)
    statistics.add(train.images)
    return statistics.normalization()


class PixelStatistics:
    """The statistics of ``pixel_mean`` or ``channel``, of images of one shape that come in parts."""

    def __init__(self, name: str) -> None:
        self.count, self._name = 0, name
        # Of pixel_mean: [H, W, C]; of channel: how often each value is there, [C, 256].
        self._sums = np.zeros((), np.uint64 if name == "pixel_mean" else np.int64)

    def add(self, images: np.ndarray) -> None:
        """Takes [N, H, W, C] uint8."""
        # Sums of integers: the same bits whatever the order of summation.
        self.count += len(images)
        for first in range(0, len(images), _COUNTED_AT_ONCE):  # NumPy casts what it counts to eight times its size
            part = images[first : first + _COUNTED_AT_ONCE]
            if self._name == "pixel_mean":
                self._sums = self._sums + part.sum(0, dtype=np.uint64)
            else:
                channels = range(part.shape[-1])
                self._sums = self._sums + np.stack([np.bincount(part[..., c].ravel(), minlength=256) for c in channels])

    def normalization(self) -> Normalization:
        """The normalization by these statistics, in float64."""
        if self._name == "pixel_mean":
            return Normalization(self._sums / (255 * self.count), np.ones(1))
        histogram, values = self._sums, np.arange(256) / 255
        mean = histogram @ values / histogram.sum(1)
        variance = histogram @ values**2 / histogram.sum(1) - mean**2
        return Normalization(mean, np.sqrt(np.maximum(variance, 1e-12)))
