"""Normalisation of pixels, by constants or by statistics of the training images."""

import dataclasses
from typing import TypeVar

import numpy as np
from jax import Array
from jax.typing import DTypeLike

from resnet_flax.data.images import Images, center

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
STATISTICS = ("pixel_mean", "channel")  # the normalisations that need statistics of the training images
_CAFFE_MEAN = (123.68, 116.779, 103.939)  # for pixels from 0 to 255
_COUNTED_AT_ONCE = 16  # images

_Array = TypeVar("_Array", np.ndarray, Array)


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Pixels divided by 255, minus ``mean``, divided by ``std``; each broadcasts against [H, W, C]."""

    mean: np.ndarray
    std: np.ndarray

    def cropped(self, side: int) -> "Normalization":
        """Returns the normalisation for the central crop of the images."""

        def crop(array: np.ndarray) -> np.ndarray:
            return center(array, side, side) if array.ndim == 3 else array

        return Normalization(crop(self.mean), crop(self.std))

    def __call__(self, images: _Array, dtype: DTypeLike) -> _Array:
        """Normalises images uint8 [..., H, W, C] and returns them in ``dtype``."""
        return (images.astype(dtype) / 255 - self.mean.astype(dtype)) / self.std.astype(dtype)


def normalization(name: str, train: Images) -> Normalization:
    """Returns the normalisation of a value of ``data.normalization``, with statistics of the training images.

    All of them divide by 255 first, unless said otherwise. ``pixel_mean`` subtracts the mean image, without a division
    (arXiv:1512.03385, section 4.2). ``channel`` subtracts each channel's mean and divides by its standard deviation.
    ``imagenet`` does so with the constants of many PyTorch ports. ``caffe`` subtracts the channel means of Caffe's and
    Keras's networks from pixels from 0 to 255, in the order RGB. ``none`` only divides by 255.
    """
    if name not in STATISTICS:
        return constants(name, train.images.shape[-1])
    statistics = PixelStatistics(name)
    statistics.add(train.images)
    return statistics.normalization()


def constants(name: str, channels: int) -> Normalization:
    """Returns a normalisation that is no statistic of images, for images with this number of channels.

    Raises:
      ValueError: It is for another number of channels.
    """
    if name == "none":
        return Normalization(np.zeros(1), np.ones(1))
    if channels != 3:
        raise ValueError(f"data.normalization={name!r} needs images with 3 channels, but these have {channels}")
    if name == "caffe":
        return Normalization(np.asarray(_CAFFE_MEAN) / 255, np.full(1, 1 / 255))
    return Normalization(np.asarray(_IMAGENET_MEAN), np.asarray(_IMAGENET_STD))


class PixelStatistics:
    """Accumulates the statistics of ``pixel_mean`` or ``channel`` over batches of images of one shape."""

    def __init__(self, name: str) -> None:
        self.count, self._name = 0, name
        # pixel_mean: the sum of the images, [H, W, C]. channel: a histogram of the values of each channel, [C, 256].
        self._sums = np.zeros((), np.uint64 if name == "pixel_mean" else np.int64)

    def add(self, images: np.ndarray) -> None:
        """Adds images [N, H, W, C] uint8 to the statistics."""
        # Integer sums do not depend on the order of summation.
        self.count += len(images)
        for first in range(0, len(images), _COUNTED_AT_ONCE):  # bincount casts its input to int64, eight times the size
            part = images[first : first + _COUNTED_AT_ONCE]
            if self._name == "pixel_mean":
                self._sums = self._sums + part.sum(0, dtype=np.uint64)
            else:
                channels = range(part.shape[-1])
                self._sums = self._sums + np.stack([np.bincount(part[..., c].ravel(), minlength=256) for c in channels])

    def normalization(self) -> Normalization:
        """Returns the normalisation by the statistics, in float64."""
        if self._name == "pixel_mean":
            return Normalization(self._sums / (255 * self.count), np.ones(1))
        histogram, values = self._sums, np.arange(256) / 255
        mean = histogram @ values / histogram.sum(1)
        variance = histogram @ values**2 / histogram.sum(1) - mean**2
        return Normalization(mean, np.sqrt(np.maximum(variance, 1e-12)))
