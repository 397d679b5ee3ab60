"""Data sets that live on the device: order, crop, flip and mean subtraction happen inside the compiled step."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from resnet_flax.data.images import Images, center_offset
from resnet_flax.data.order import stream_indices

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
OF_DATA = ("pixel_mean", "channel")  # normalizations that are statistics of the training images
_CAFFE_MEAN = (123.68, 116.779, 103.939)  # of pixels from 0 to 255
_COUNTED_AT_ONCE = 16  # images


@flax.struct.dataclass
class Resident:
    """A split on the device.

    Attributes:
      images: [N, H, W, C] uint8.
      labels: [N] int32.
    """

    images: Array
    labels: Array


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

    def __call__(self, images: Array, dtype: jnp.dtype) -> Array:
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
        self._sums: np.ndarray | int = (
            0  # of pixel_mean: [H, W, C]; of channel: how often each value is there, [C, 256]
        )

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


@dataclasses.dataclass(frozen=True)
class Stream:
    """The training stream: what the batch of a step is, as a function of the seed and the step.

    Attributes:
      seed: of the run; an integer, or a uint32 scalar.
      batch_size: images a step, of all devices together.
      pad: zeros on each side before the random crop; 0 for none.
      flip: whether half of the images are mirrored.
      normalization: of pixels; comes before the padding, so zeros are the mean's place.
      dtype: of the images that come out.
      crop: the side of a random crop out of the padded images; 0 for that of the images themselves.
    """

    seed: int | Array
    batch_size: int
    pad: int
    flip: bool
    normalization: Normalization
    dtype: jnp.dtype
    crop: int = 0

    def batch(self, data: Resident, step: Array, first: Array, count: int) -> tuple[Array, Array]:
        """Images and labels at the places ``first`` ... ``first + count - 1`` of a step's global batch.

        Returns:
          images [count, H, W, C] of ``dtype`` (H and W are ``crop`` where that is set), and labels [count] int32.
        """
        in_batch = first.astype(jnp.uint32) + jnp.arange(count, dtype=jnp.uint32)
        places = step.astype(jnp.uint32) * jnp.uint32(self.batch_size) + in_batch
        indices = stream_indices(stream_key(self.seed, "order"), places, data.labels.shape[0])
        images = self.normalization(data.images[indices], self.dtype)
        keys = example_keys(self.seed, "augmentation", step, first, count)
        return jax.vmap(self._augment)(images, keys), data.labels[indices]

    def _augment(self, image: Array, key: Array) -> Array:
        """Pad and crop, then flip (section 4.2): [H, W, C] -> [H, W, C], or [crop, crop, C]."""
        # Integers drawn from raw bits: the same with and without 64-bit types.
        bits = jax.random.bits(key, (3,), jnp.uint32)
        if self.pad or self.crop:
            padded = jnp.pad(image, ((self.pad, self.pad), (self.pad, self.pad), (0, 0)))
            shape, places = image.shape, jnp.uint32(2 * self.pad + 1)
            if self.crop:
                shape, places = self._cropped(padded.shape)
            top, left = (bits[:2] % places).astype(jnp.int32)
            image = jax.lax.dynamic_slice(padded, (top, left, jnp.int32(0)), shape)
        if self.flip:
            image = jnp.where(bits[2] & 1, image[:, ::-1], image)
        return image

    def _cropped(self, padded: tuple[int, int, int]) -> tuple[tuple[int, int, int], Array]:
        """The shape of a crop out of a padded image of that shape, and its vertical and horizontal places."""
        height, width, channels = padded
        if self.crop > min(height, width):
            raise ValueError(f"a crop of {self.crop} is larger than the padded images, {height}x{width}")
        places = jnp.asarray([height - self.crop + 1, width - self.crop + 1], jnp.uint32)
        return (self.crop, self.crop, channels), places


def center(images: Array, side: int) -> Array:
    """The central crop, where torchvision takes it: [N, H, W, C] -> [N, side, side, C]; a side of 0 leaves all."""
    height, width = images.shape[1:3]
    if side in (0, height) and side in (0, width):
        return images
    if side > min(height, width):
        raise ValueError(f"a crop of {side} is larger than the images, {height}x{width}")
    top, left = center_offset(height, side), center_offset(width, side)
    return images[:, top : top + side, left : left + side]


def stream_key(seed: int | Array, name: str) -> Array:
    """The key of a named stream of random numbers: ``fold_in(key(seed), name)``; the seed in [0, 2**32)."""
    # A hash of our own: Python's differs from process to process.
    code = 0
    for byte in name.encode():
        code = (code * 31 + byte) % 2**32
    return jax.random.fold_in(jax.random.key(seed), code)


def example_keys(seed: int | Array, name: str, step: Array, first: Array, count: int) -> Array:
    """A key for each of ``count`` places, from ``first`` on, of a step's global batch: [count].

    Args:
      name: of the stream of random numbers.
    """
    in_batch = first.astype(jnp.uint32) + jnp.arange(count, dtype=jnp.uint32)
    of_step = jax.random.fold_in(stream_key(seed, name), step)
    return jax.vmap(jax.random.fold_in, (None, 0))(of_step, in_batch)


def put(data: Images, sharding: jax.sharding.Sharding) -> Resident:
    """Copies a split to every device of a (replicated) sharding, those of other hosts included."""

    def everywhere(array: np.ndarray) -> Any:
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return Resident(everywhere(data.images), everywhere(data.labels))
