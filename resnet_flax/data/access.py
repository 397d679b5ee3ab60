"""How the images of a data set are reached, in memory or on disk (``data.pipeline``), and become a network's input.

The two kinds have the same methods; nothing outside this folder asks which of the two a data set is.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from resnet_flax.data import pixels, sources
from resnet_flax.data.images import Found, Images, Split
from resnet_flax.data.photographs import Photographs
from resnet_flax.data.pixels import Normalization
from resnet_flax.data.preprocessing import Preprocessing
from resnet_flax.data.streaming import Batch, Batches, Pipeline
from resnet_flax.data.supplies import NoteBroken, Resident, Streamed, Supply
from resnet_flax.data.transforms import Transform
from resnet_flax.data.views import VIEWS
from resnet_flax.errors import UserError


class Access(Protocol):
    """How the images of a data set are reached, and become what the network sees.

    Attributes:
      noun: what messages call the images.
      views: names of the views of an image in which it can be evaluated (:mod:`resnet_flax.data.views`).
      fixed: whether images keep the size that they were loaded with, whichever a network wants.
      image_shape: (H, W, C) of what the network sees.
      resize: the side that images are brought to before the crop.
    """

    noun: str
    views: tuple[str, ...]
    fixed: bool

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    @property
    def resize(self) -> int: ...

    def transform(self, normalization: Normalization, dtype: jnp.dtype) -> Transform:
        """Returns the function that prepares a batch's images on the device."""

    def normalization(
        self, name: str, train: Split, known: Normalization | None = None, quick: bool = False
    ) -> Normalization | None:
        """Returns the normalisation of that name (``data.normalization``), by the training images.

        Args:
          known: of the same images, computed before, where it takes long to compute.
          quick: None in place of what takes long.

        Raises:
          UserError: it does not fit the images, or none of them can be read.
        """

    def in_order(self, split: Split, batch_size: int) -> Iterator[Batch]:
        """Yields each image of a split once: ``images`` [n, H, W, C] uint8, ``labels`` [n], and ``counts`` [n] bool.

        Fillers, and broken images that are passed over, do not count.
        """

    def mixed(self, split: Split) -> Split:
        """Returns a split in an order in which the first images are of all classes; always the same."""

    def supply(
        self, splits: Mapping[str, Any], mesh: Mesh, sizes: tuple[int, int], seed: int, note: NoteBroken
    ) -> Supply:
        """Returns what supplies a run's arrays.

        Args:
          sizes: of the batches of training and of evaluation, of all devices together.
          note: see :class:`~resnet_flax.data.supplies.Streamed`.
        """

    def identity(self, split: Split) -> bytes | None:
        """Returns bytes that tell a split's images and their order from others; None where their pixels tell it."""

    def as_trained(self, preprocessing: Preprocessing) -> "Access":
        """Returns the access that prepares images as a trained network's were.

        Raises:
          UserError: the images are of another size.
        """

    def decoding(self, split: Split) -> Iterator[tuple[int, list[str]]]:
        """Decodes photographs; yields how many, and why some of them cannot be read. Nothing of images in memory."""

    def rate(self, train: Split, batch_size: int, seconds: float) -> tuple[float, str] | None:
        """Measures the images that are decoded in a second, and says by what; None where none are."""


_AT_ONCE = 64  # photographs that are decoded together
_MANY = 10_000  # batches, more than are measured


@dataclasses.dataclass(frozen=True)
class InMemory:
    """Images that lie in memory, and as a whole on every device.

    Attributes:
      stored: (H, W, C) of an image as it lies there.
      crop: the side of what is cropped out of it; 0 where it is taken whole.
      pad, flip: see :class:`~resnet_flax.data.transforms.Transform`.
    """

    noun, views, fixed = "images", ("center",), True

    stored: tuple[int, int, int]
    crop: int
    pad: int
    flip: bool

    @staticmethod
    def loads(row: Any) -> bool:
        """Whether a data set's row has images to read into memory."""
        return row.images is not None

    @staticmethod
    def load(row: Any, data: Mapping[str, Any], testing: bool) -> Found:
        """Reads the images of a data set's row, and checks their shapes."""
        found = row.images(data)
        for split, given in (("train", found.train), ("test", found.test)):
            if given is not None:
                _check_images(found.where, split, given)
        if found.test is not None and found.test.images.shape[1:] != found.train.images.shape[1:]:
            shapes = " and ".join(str(given.images.shape[1:]) for given in (found.train, found.test))
            raise UserError(f"{found.where}: images for training and for testing are of one shape; they are {shapes}")
        return sources.resized(found, data)

    @staticmethod
    def of(data: Mapping[str, Any], found: Found) -> "InMemory":
        """Returns the access by the section ``data`` of a config."""
        crop = data["image_size"] if data.get("folder") or data.get("resize") else 0
        return InMemory(found.train.images.shape[1:], crop, data.get("pad", 0), data.get("flip", False))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """See :class:`Access`."""
        height, width, channels = self.stored
        return (self.crop or height, self.crop or width, channels)

    @property
    def resize(self) -> int:
        """See :class:`Access`."""
        return self.stored[0]

    def transform(self, normalization: Normalization, dtype: jnp.dtype) -> Transform:
        """See :class:`Access`."""
        return Transform(normalization, dtype, self.pad, self.flip, self.crop)

    def normalization(
        self, name: str, train: Images, known: Normalization | None = None, quick: bool = False
    ) -> Normalization:
        """See :class:`Access`; it is computed in any case, which shows whether the images are those of before."""
        try:
            return pixels.normalization(name, train)
        except ValueError as error:
            raise UserError(str(error)) from None

    def in_order(self, split: Images, batch_size: int) -> Iterator[Batch]:
        """See :class:`Access`; the last batch is smaller."""
        for first in range(0, len(split), batch_size):
            part = slice(first, first + batch_size)
            labels = split.labels[part]
            yield {"images": split.images[part], "labels": labels, "counts": np.ones(len(labels), bool)}

    def mixed(self, split: Images) -> Images:
        """See :class:`Access`; files of such images have them in a random order."""
        return split

    def supply(
        self, splits: Mapping[str, Images], mesh: Mesh, sizes: tuple[int, int], seed: int, note: NoteBroken
    ) -> Supply:
        """See :class:`Access`."""
        return Resident(splits, mesh, *sizes)

    def identity(self, split: Images) -> None:
        """See :class:`Access`."""

    def as_trained(self, preprocessing: Preprocessing) -> "InMemory":
        """See :class:`Access`."""
        if (preprocessing.image_shape, preprocessing.resize) != (self.image_shape, self.resize):
            (h, w, c), (height, width, channels) = self.image_shape, preprocessing.image_shape
            raise UserError(
                f"--config: its images are {h}x{w}x{c}, out of {self.resize} pixels, and the network was trained on "
                f"{height}x{width}x{channels}, out of {preprocessing.resize}; set data.image_size and data.resize"
            )
        return self

    def decoding(self, split: Images) -> Iterator[tuple[int, list[str]]]:
        """See :class:`Access`."""
        yield from ()

    def rate(self, train: Images, batch_size: int, seconds: float) -> None:
        """See :class:`Access`."""


@dataclasses.dataclass(frozen=True)
class OnDisk:
    """Photographs that stay on disk, and are decoded and cropped on the hosts as they go.

    Attributes:
      pipeline: how they become batches.
      colour: see :class:`~resnet_flax.data.transforms.Transform`.
    """

    noun, views, fixed = "photographs", VIEWS, False

    pipeline: Pipeline
    colour: float = 0.0

    @staticmethod
    def loads(row: Any) -> bool:
        """Whether a data set's row has photographs on disk."""
        return row.photographs is not None

    @staticmethod
    def load(row: Any, data: Mapping[str, Any], testing: bool) -> Found:
        """Finds the photographs of a data set's row."""
        return row.photographs(data, testing)

    @staticmethod
    def of(data: Mapping[str, Any], found: Found) -> "OnDisk":
        """Returns the access by the section ``data`` of a config."""
        return OnDisk(Pipeline.of(data), data["colour"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """See :class:`Access`."""
        return (self.pipeline.image_size, self.pipeline.image_size, self.pipeline.channels)

    @property
    def resize(self) -> int:
        """See :class:`Access`."""
        return self.pipeline.resize

    def transform(self, normalization: Normalization, dtype: jnp.dtype) -> Transform:
        """See :class:`Access`; the hosts have cropped and mirrored the images."""
        return Transform(normalization.cropped(self.pipeline.image_size), dtype, colour=self.colour)

    def normalization(
        self, name: str, train: Photographs, known: Normalization | None = None, quick: bool = False
    ) -> Normalization | None:
        """See :class:`Access`; statistics are those of the central squares of ``resize``."""
        if known is not None:
            return known
        return None if quick and name in pixels.OF_DATA else self.pipeline.normalization(name, train)

    def in_order(self, split: Photographs, batch_size: int) -> Batches:
        """See :class:`Access`; it has to be closed."""
        return self.pipeline.in_order(split, batch_size, np.arange(batch_size))

    def mixed(self, split: Photographs) -> Photographs:
        """See :class:`Access`: photographs lie class by class."""
        return split.take(np.random.RandomState(0).permutation(len(split)))

    def supply(
        self, splits: Mapping[str, Photographs], mesh: Mesh, sizes: tuple[int, int], seed: int, note: NoteBroken
    ) -> Supply:
        """See :class:`Access`."""
        return Streamed(splits, mesh, *sizes, self.pipeline, seed, note)

    def identity(self, split: Photographs) -> bytes:
        """See :class:`Access`."""
        return split.source.identity() + split.numbers.tobytes()

    def as_trained(self, preprocessing: Preprocessing) -> "OnDisk":
        """See :class:`Access`; photographs are brought to the network's size."""
        preprocessing.check_square()
        sizes = {name: getattr(preprocessing, name) for name in ("image_size", "resize", "channels", "interpolation")}
        return dataclasses.replace(self, pipeline=dataclasses.replace(self.pipeline, **sizes))

    def decoding(self, split: Photographs) -> Iterator[tuple[int, list[str]]]:
        """See :class:`Access`."""
        pipeline = dataclasses.replace(self.pipeline, skip_broken=True)
        with closing(pipeline.in_order(split, _AT_ONCE, np.arange(_AT_ONCE))) as batches:
            for batch in batches:
                broken = batch["broken"][batch["broken"] >= 0]
                yield int(batch["counts"].sum()) + len(broken), [pipeline.complaint(split[int(n)]) for n in broken]

    def rate(self, train: Photographs, batch_size: int, seconds: float) -> tuple[float, str]:
        """See :class:`Access`; with nobody else to feed."""
        pipeline = dataclasses.replace(self.pipeline, skip_broken=True)
        with closing(pipeline.train(train, 0, batch_size, np.arange(batch_size), 0, _MANY)) as batches:
            # What was begun while workers were starting comes at once.
            for _ in range(1 + pipeline.workers * (pipeline.threads_each + 2)):
                next(batches)
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                next(batches)
                count += batch_size
            found = count / (time.perf_counter() - start)
        by = f"{pipeline.workers} workers with " * bool(pipeline.workers) + f"{pipeline.threads_each} threads"
        return found, by


ACCESS: dict[str, Any] = {"resident": InMemory, "stream": OnDisk}  # by data.pipeline


def whole_batches(access: Access, split: Split, batch_size: int) -> Iterator[np.ndarray]:
    """Yields each image of a split once, in batches [n, H, W, C] uint8 without fillers.

    The last batch may be smaller, and so is one with broken images that are passed over.
    """
    with closing(access.in_order(split, batch_size)) as batches:
        for batch in batches:
            yield batch["images"][batch["counts"]]


def _check_images(where: str, split: str, given: Images) -> None:
    """Refuses arrays that are not images of one shape, each with a label."""
    images = given.images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3, 4):
        raise UserError(
            f"{where}: images of {split} must be uint8 [N, H, W, C] with 1, 3 or 4 channels; they are "
            f"{images.dtype} {images.shape}"
        )
    if len(images) != len(given.labels):
        raise UserError(f"{where}: {split} has {len(images)} images and {len(given.labels)} labels")
