"""How the images of a data set are reached, in memory or on disk (``data.pipeline``), and become a network's input.

The two kinds are an :class:`Access`, whose methods :class:`InMemory` describes; nothing outside this folder asks which
of the two a data set is.
"""

import dataclasses
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from typing import Any, Protocol, TypeVar

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from resnet_flax.config import names_in
from resnet_flax.data import layouts, loaders, pixels
from resnet_flax.data.device_arrays import DeviceSplits, NoteBroken, StreamedBatches, Supply
from resnet_flax.data.folders import decoded_side
from resnet_flax.data.images import Found, Images, S
from resnet_flax.data.layouts import Arrays, Layout
from resnet_flax.data.photographs import Photographs
from resnet_flax.data.pixels import Normalization
from resnet_flax.data.preprocessing import Preprocessing
from resnet_flax.data.streaming import Batch, Batches, Pipeline
from resnet_flax.data.transforms import Transform
from resnet_flax.data.views import VIEWS
from resnet_flax.errors import UserError

_AT_ONCE = 64  # photographs that are decoded together
_MANY = 10_000  # batches, more than are measured
_PASSES = 100  # through a few images, after which they are measured well enough

_S = TypeVar("_S", contravariant=True)  # what holds the images of a split


class ClosableBatches(Iterator[Batch], Protocol):
    """Batches in order; the iterator has to be closed."""

    def close(self) -> None: ...


class Access(Protocol[_S]):
    """How the images of splits of one class are reached; see :class:`InMemory`."""

    @property
    def noun(self) -> str: ...
    @property
    def views(self) -> tuple[str, ...]: ...
    @property
    def fixed(self) -> bool: ...
    @property
    def image_shape(self) -> tuple[int, int, int]: ...
    @property
    def resize(self) -> int: ...
    @staticmethod
    def load(row: Any, data: Mapping[str, Any], testing: bool) -> tuple[Found, "Access[Any]"]: ...
    @staticmethod
    def unread(data: Mapping[str, Any], shape: tuple[int, int, int]) -> "Access[Any]": ...
    def transform(self, normalization: Normalization, dtype: jnp.dtype) -> Transform: ...
    def normalization(self, name: str, train: _S, known: Normalization | None = None) -> Normalization: ...
    def quick_normalization(self, name: str, train: _S) -> Normalization | None: ...
    def ordered_batches(self, split: _S, batch_size: int) -> ClosableBatches: ...
    def mix_classes(self, split: Any) -> Any: ...
    def supply(
        self, splits: Mapping[str, _S], mesh: Mesh, sizes: tuple[int, int], seed: int, note: NoteBroken
    ) -> Supply: ...
    def training_shapes(self, mesh: Mesh, batch_size: int, images: int) -> tuple[Layout, Arrays]: ...
    def identity(self, split: _S) -> bytes | None: ...
    def as_trained(self, preprocessing: Preprocessing) -> "Access[_S]": ...
    def try_decoding(self, split: _S) -> Iterator[tuple[int, list[str]]]: ...
    def decoding_rate(self, train: _S, batch_size: int, seconds: float) -> tuple[float, str] | None: ...


@dataclasses.dataclass(frozen=True)
class InMemory:
    """Images that lie in memory, and as a whole on every device.

    Attributes:
      noun: what messages call the images.
      views: names of the views of an image in which it can be evaluated (:mod:`resnet_flax.data.views`).
      fixed_size: whether images keep the size that they were loaded with, whichever a network wants.
      data: the section of a config.
      stored: (H, W, C) of an image as it lies there.
    """

    noun, views, fixed_size = "images", ("center",), True

    data: Mapping[str, Any]
    stored: tuple[int, int, int]

    @staticmethod
    def load(row: Any, data: Mapping[str, Any], testing: bool) -> tuple[Found, "InMemory"]:
        """Reads the images of a data set's row, and checks their shapes; returns them, and how they are reached.

        They must be what the row declares: of photographs on disk, a part of a data set's classes is a data set, too.

        Args:
          testing: whether photographs for testing are enough.
        """
        found = row.images(data)
        for split, given in (("train", found.train), ("test", found.test)):
            if given is not None:
                _check_images(found.where, split, given, found.train.images.shape[1:])
        _check_declared(row, data, found)
        found = loaders.resized(found, data)
        return found, InMemory(data, found.train.images.shape[1:])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of what the network sees."""
        height, width, channels = self.stored
        return (self._crop or height, self._crop or width, channels)

    @property
    def _crop(self) -> int:
        """The side of what is cropped out of the images; 0 where they are taken whole."""
        return self.data["image_size"] if self.data["folder"] or self.data["resize"] else 0

    @property
    def resize(self) -> int:
        """The side that images are brought to before the crop."""
        return self.stored[0]

    def transform(self, normalization: Normalization, dtype: jnp.dtype) -> Transform:
        """Returns the function that prepares a batch's images on the device."""
        more = names_in(self.data["transforms"])
        return Transform(normalization, dtype, self.data["pad"], self.data["flip"], self._crop, augmentations=more)

    def normalization(self, name: str, train: Images, known: Normalization | None = None) -> Normalization:
        """Returns the normalisation of that name (``data.normalization``), by the training images.

        Args:
          known: of the same run, where it takes long to compute. Here it is computed in any case, which shows whether
            the images are those of before.

        Raises:
          UserError: it does not fit the images, or none of them can be read.
        """
        try:
            return pixels.normalization(name, train)
        except ValueError as error:
            raise UserError(str(error)) from None

    def quick_normalization(self, name: str, train: Images) -> Normalization | None:
        """Returns what :meth:`normalization` does; None where that takes long."""
        return self.normalization(name, train)

    def ordered_batches(self, split: Images, batch_size: int) -> Generator[Batch]:
        """Yields each image of a split once: ``images`` [n, H, W, C] uint8, ``labels`` [n], and ``counts`` [n] bool.

        Fillers, and broken images that are passed over, do not count. The iterator has to be closed.
        """
        for first in range(0, len(split), batch_size):
            part = slice(first, first + batch_size)
            labels = split.labels[part]
            yield {"images": split.images[part], "labels": labels, "counts": np.ones(len(labels), bool)}

    def mix_classes(self, split: Images) -> Images:
        """Returns a split in an order in which the first images are of all classes: files have it already."""
        return split

    def supply(
        self, splits: Mapping[str, Images], mesh: Mesh, sizes: tuple[int, int], seed: int, note: NoteBroken
    ) -> Supply:
        """Returns what supplies a run's arrays.

        Args:
          sizes: of the batches of training and of evaluation, of all devices together.
          note: called for each broken image that is passed over.
        """
        return DeviceSplits(splits, mesh, *sizes)

    @staticmethod
    def unread(data: Mapping[str, Any], shape: tuple[int, int, int]) -> "InMemory":
        """Returns the access to images that have not been read.

        Args:
          shape: (H, W, C) of what the network sees.
        """
        side = decoded_side(data) if data["resize"] else shape[0]
        return InMemory(data, (side, side, shape[2]))

    def training_shapes(self, mesh: Mesh, batch_size: int, images: int) -> tuple[Layout, Arrays]:
        """Returns how training batches lie in arrays, and shapes and places of these.

        Args:
          images: of the training split.
        """
        layout = layouts.shuffled(batch_size)
        return layout, layouts.shapes(NamedSharding(mesh, layout.spec), (images,), self.stored)

    def identity(self, split: Images) -> bytes | None:
        """Returns bytes that tell a split's images and their order from others; None where their pixels tell it."""
        return None

    def as_trained(self, preprocessing: Preprocessing) -> "InMemory":
        """Returns the access that prepares images as a trained network's were.

        Raises:
          UserError: the images are of another size.
        """
        if (preprocessing.image_shape, preprocessing.resize) != (self.image_shape, self.resize):
            (h, w, c), (height, width, channels) = self.image_shape, preprocessing.image_shape
            raise UserError(
                f"--config: its images are {h}x{w}x{c}, out of {self.resize} pixels, and the network was trained on "
                f"{height}x{width}x{channels}, out of {preprocessing.resize}; set data.image_size and data.resize"
            )
        return self

    def try_decoding(self, split: Images) -> Iterator[tuple[int, list[str]]]:
        """Decodes photographs; yields how many, and why some of them cannot be read. Nothing of images in memory."""
        return iter(())

    def decoding_rate(self, train: Images, batch_size: int, seconds: float) -> tuple[float, str] | None:
        """Measures the images that are decoded in a second, and says by what; None where none are.

        Args:
          seconds: how long it takes; less where the images are few.
        """
        return None


@dataclasses.dataclass(frozen=True)
class OnDisk:
    """Photographs that stay on disk, and are decoded, cropped and mirrored on the hosts as they go.

    Attributes:
      noun, views, fixed_size, data: see :class:`InMemory`.
      pipeline: how photographs become batches.
    """

    noun, views, fixed_size = "photographs", VIEWS, False

    data: Mapping[str, Any]
    pipeline: Pipeline

    @staticmethod
    def load(row: Any, data: Mapping[str, Any], testing: bool) -> tuple[Found, "OnDisk"]:
        """See :class:`InMemory`."""
        return row.photographs(data, testing), OnDisk(data, Pipeline.of(data))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """See :class:`InMemory`."""
        return (self.pipeline.image_size, self.pipeline.image_size, self.pipeline.channels)

    @property
    def resize(self) -> int:
        """See :class:`InMemory`."""
        return self.pipeline.resize

    def transform(self, normalization: Normalization, dtype: jnp.dtype) -> Transform:
        """See :class:`InMemory`."""
        cropped, more = normalization.cropped(self.pipeline.image_size), names_in(self.data["transforms"])
        return Transform(cropped, dtype, colour=self.data["colour"], augmentations=more)

    def normalization(self, name: str, train: Photographs, known: Normalization | None = None) -> Normalization:
        """See :class:`InMemory`; statistics are those of the central squares of ``resize``."""
        return self.pipeline.normalization(name, train) if known is None else known

    def quick_normalization(self, name: str, train: Photographs) -> Normalization | None:
        """See :class:`InMemory`."""
        return None if name in pixels.STATISTICS else self.pipeline.normalization(name, train)

    def ordered_batches(self, split: Photographs, batch_size: int) -> Batches:
        """See :class:`InMemory`."""
        return self.pipeline.ordered_batches(split, batch_size, np.arange(batch_size))

    def mix_classes(self, split: Photographs) -> Photographs:
        """See :class:`InMemory`: photographs lie class by class."""
        return split.take(np.random.RandomState(0).permutation(len(split)))

    def supply(
        self, splits: Mapping[str, Photographs], mesh: Mesh, sizes: tuple[int, int], seed: int, note: NoteBroken
    ) -> Supply:
        """See :class:`InMemory`."""
        return StreamedBatches(splits, mesh, *sizes, self.pipeline, seed, note)

    @staticmethod
    def unread(data: Mapping[str, Any], shape: tuple[int, int, int]) -> "OnDisk":
        """See :class:`InMemory`."""
        return OnDisk(data, Pipeline.of(data))

    def training_shapes(self, mesh: Mesh, batch_size: int, images: int) -> tuple[Layout, Arrays]:
        """See :class:`InMemory`; whatever the number of images, one batch at a time."""
        layout = layouts.streamed()
        return layout, layouts.shapes(NamedSharding(mesh, layout.spec), (1, batch_size), self.image_shape)

    def identity(self, split: Photographs) -> bytes:
        """See :class:`InMemory`."""
        return split.source.identity() + split.numbers.tobytes()

    def as_trained(self, preprocessing: Preprocessing) -> "OnDisk":
        """See :class:`InMemory`; photographs are brought to the network's size."""
        preprocessing.check_square()
        sizes = {name: getattr(preprocessing, name) for name in ("image_size", "resize", "channels", "interpolation")}
        return dataclasses.replace(self, pipeline=dataclasses.replace(self.pipeline, **sizes))

    def try_decoding(self, split: Photographs) -> Iterator[tuple[int, list[str]]]:
        """See :class:`InMemory`."""
        pipeline = dataclasses.replace(self.pipeline, skip_broken=True)
        with closing(pipeline.ordered_batches(split, _AT_ONCE, np.arange(_AT_ONCE))) as batches:
            for batch in batches:
                broken = batch["broken"][batch["broken"] >= 0]
                yield (
                    int(batch["counts"].sum()) + len(broken),
                    [pipeline.explain_failure(split[int(n)]) for n in broken],
                )

    def decoding_rate(self, train: Photographs, batch_size: int, seconds: float) -> tuple[float, str]:
        """See :class:`InMemory`; with nobody else to feed."""
        pipeline = dataclasses.replace(self.pipeline, skip_broken=True)
        with closing(pipeline.train(train, 0, batch_size, np.arange(batch_size), 0, _MANY)) as batches:
            # What was begun while workers were starting comes at once.
            for _ in range(1 + pipeline.workers * (pipeline.threads_each + 2)):
                next(batches)
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < seconds and count < _PASSES * len(train):
                next(batches)
                count += batch_size
            found = count / (time.perf_counter() - start)
        by = f"{pipeline.workers} workers with " * bool(pipeline.workers) + f"{pipeline.threads_each} threads"
        return found, by


ACCESS: dict[str, type[Access[Any]]] = {"resident": InMemory, "stream": OnDisk}  # by data.pipeline


def whole_batches(access: Access[S], split: S, batch_size: int) -> Generator[np.ndarray]:
    """Yields each image of a split once, in batches [n, H, W, C] uint8 without fillers.

    The last batch may be smaller, and so is one with broken images that are passed over.
    """
    with closing(access.ordered_batches(split, batch_size)) as batches:
        for batch in batches:
            yield batch["images"][batch["counts"]]


def _check_images(where: str, split: str, given: Images, shape: tuple[int, ...]) -> None:
    """Refuses arrays that are not images of one shape, each with a label."""
    images = given.images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3, 4) or images.shape[1:] != shape:
        raise UserError(
            f"{where}: images must be uint8 [N, H, W, C] with 1, 3 or 4 channels, of one shape in all splits; those of "
            f"{split} are {images.dtype} {images.shape}, those of train are of {shape}"
        )
    if len(images) != len(given.labels):
        raise UserError(f"{where}: {split} has {len(images)} images and {len(given.labels)} labels")


def _check_declared(row: Any, data: Mapping[str, Any], found: Found) -> None:
    """Refuses images that are not as their data set's row says: other code has built on that before they are read."""
    height, width, channels = found.train.images.shape[1:]
    side = None if data["image_size"] or data["resize"] else row.side
    for what, declared, there in (
        ("classes", row.classes, len(found.classes)),
        ("channels", row.channels, channels),
        ("pixels a side", side, height if height == width else f"{height}x{width}"),
    ):
        if declared is not None and there != declared:
            raise UserError(
                f"{found.where}: images with {there} {what}, and the registry of data sets says {declared} for "
                f"data.name={data['name']!r}; correct one of the two"
            )
