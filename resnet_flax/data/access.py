"""Access to the images of a loaded data set, whether they lie in memory or on disk (``data.pipeline``).

:class:`InMemory` and :class:`OnDisk` implement the same protocol :class:`Access`, so that code outside this folder
treats both alike. The docstrings of :class:`InMemory` describe the methods. :mod:`.loaders` reads the images that are
accessed here, and :mod:`.device_arrays` puts them on the devices.
"""

import dataclasses
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
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

_AT_ONCE = 64  # photographs in a batch of try_decoding
_MANY = 10_000  # more batches than decoding_rate ever measures
_PASSES = 100  # over the training images, after which decoding_rate stops early

_S = TypeVar("_S", contravariant=True)  # Images or Photographs


class ClosableBatches(Iterator[Batch], Protocol):
    """Iterator over batches, which its user has to close."""

    def close(self) -> None: ...


class Access(Protocol[_S]):
    """Protocol of the access to splits of one type; see :class:`InMemory`."""

    @property
    def noun(self) -> str: ...
    @property
    def views(self) -> tuple[str, ...]: ...
    @property
    def fixed_size(self) -> bool: ...
    @property
    def form(self) -> str: ...
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
    def mix_classes(self, split: Any, count: int | None = None) -> Any: ...
    def supply(
        self, splits: Mapping[str, _S], mesh: Mesh, sizes: tuple[int, int], seed: int, note: NoteBroken
    ) -> Supply: ...
    def training_shapes(self, mesh: Mesh, batch_size: int, images: int) -> tuple[Layout, Arrays]: ...
    def as_trained(self, preprocessing: Preprocessing) -> "Access[_S]": ...
    def try_decoding(self, split: _S) -> Iterator[tuple[int, list[str]]]: ...
    def decoding_rate(self, train: _S, batch_size: int, seconds: float) -> tuple[float, str] | None: ...


@dataclasses.dataclass(frozen=True)
class InMemory:
    """Images in host memory, which are copied whole to every device.

    Attributes:
      noun: The word for the images in messages.
      views: The names of the views in which an image can be evaluated (:mod:`resnet_flax.data.views`).
      fixed_size: Whether images keep their loaded size; otherwise they are resized to what a network needs.
      data: The section ``data`` of a config.
      stored: (H, W, C) of a stored image, before any crop.
    """

    noun, views, fixed_size = "images", ("center",), True

    data: Mapping[str, Any]
    stored: tuple[int, int, int]

    @staticmethod
    def load(row: Any, data: Mapping[str, Any], testing: bool) -> tuple[Found, "InMemory"]:
        """Reads the images of a data set and checks their shapes; returns them and the access to them.

        Shapes and classes must be those that the row declares. This holds only in memory: on disk, a folder with a part
        of a data set's classes is a data set, too.

        Args:
          row: The data set's row in the registry.
          data: The section ``data`` of a config.
          testing: Whether a test split is enough, for photographs on disk.
        """
        found = row.images(data)
        _check_found(data["folder"] or data["name"], found, testing)
        for split, given in (("train", found.train), ("test", found.test)):
            if given is not None:
                _check_images(found.where, split, given, found.train.images.shape[1:])
        _check_declared(row, data, found)
        found = loaders.resized(found, data)
        return found, InMemory(data, found.train.images.shape[1:])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the network's input."""
        height, width, channels = self.stored
        return (self._crop or height, self._crop or width, channels)

    @property
    def form(self) -> str:
        """The form of the images, which begins with the word for them; fingerprints depend on it."""
        if self.data["folder"]:
            return "photographs"
        height, width, channels = self.stored
        return f"images {height}x{width}x{channels} {self.data['interpolation']} {self._crop}"

    @property
    def _crop(self) -> int:
        """The side of the crop taken from stored images; 0 if they are used whole."""
        return self.data["image_size"] if self.data["folder"] or self.data["resize"] else 0

    @property
    def resize(self) -> int:
        """The side that images are resized to before the crop."""
        return self.stored[0]

    def transform(self, normalization: Normalization, dtype: jnp.dtype) -> Transform:
        """Returns the transform that normalises and augments a batch on the device."""
        more = names_in(self.data["transforms"])
        return Transform(normalization, dtype, self.data["pad"], self.data["flip"], self._crop, augmentations=more)

    def normalization(self, name: str, train: Images, known: Normalization | None = None) -> Normalization:
        """Returns the normalisation named by ``data.normalization``, with statistics of the training images.

        Args:
          name: The name of the normalisation.
          train: The training split.
          known: The normalisation saved by an earlier start of the run. It saves time on disk. In memory it is ignored:
            computing the statistics again shows whether the images have changed.

        Raises:
          UserError: The normalisation does not fit the images, or none of them can be read.
        """
        try:
            return pixels.normalization(name, train)
        except ValueError as error:
            raise UserError(str(error)) from None

    def quick_normalization(self, name: str, train: Images) -> Normalization | None:
        """Returns the result of :meth:`normalization`, or None if computing it would take long."""
        return self.normalization(name, train)

    def ordered_batches(self, split: Images, batch_size: int) -> Generator[Batch]:
        """Yields the images of a split in order: ``images`` [n, H, W, C] uint8, ``labels`` [n], ``counts`` [n] bool.

        ``counts`` is False for fillers of the last batch and for skipped unreadable images. The iterator has to be
        closed.
        """
        for first in range(0, len(split), batch_size):
            part = slice(first, first + batch_size)
            labels = split.labels[part]
            yield {"images": split.images[part], "labels": labels, "counts": np.ones(len(labels), bool)}

    def mix_classes(self, split: Images, count: int | None = None) -> Images:
        """Returns the first ``count`` images of a split, or all, in an order that mixes its classes.

        Images that lie class by class, like photographs in class folders, are mixed, always in the same way. Images
        whose files mix the classes keep their order.
        """
        if split.photographs is not None or _lie_by_class(split.labels):
            return split.take(_mixed(len(split), count))
        return split if count is None else split.take(np.arange(min(count, len(split))))

    def supply(
        self, splits: Mapping[str, Images], mesh: Mesh, sizes: tuple[int, int], seed: int, note: NoteBroken
    ) -> Supply:
        """Returns the supply of arrays on the devices for a run's steps and evaluations.

        Args:
          splits: The splits by name.
          mesh: The mesh of devices.
          sizes: The batch sizes of training and of evaluation, over all devices.
          seed: The seed of the run.
          note: Called for each unreadable image that is skipped.
        """
        return DeviceSplits(splits, mesh, *sizes)

    @staticmethod
    def unread(data: Mapping[str, Any], shape: tuple[int, int, int]) -> "InMemory":
        """Returns the access for a data set whose images have not been read.

        Args:
          data: The section ``data`` of a config.
          shape: (H, W, C) of the network's input.
        """
        side = decoded_side(data) if data["resize"] else shape[0]
        return InMemory(data, (side, side, shape[2]))

    def training_shapes(self, mesh: Mesh, batch_size: int, images: int) -> tuple[Layout, Arrays]:
        """Returns the layout of training batches, and the shapes and shardings of their arrays.

        Args:
          mesh: The mesh of devices.
          batch_size: The batch size, over all devices.
          images: The number of images in the training split.
        """
        layout = layouts.shuffled(batch_size)
        return layout, layouts.shapes(NamedSharding(mesh, layout.spec), (images,), self.stored)

    def as_trained(self, preprocessing: Preprocessing) -> "InMemory":
        """Returns the access that prepares images like those that a network was trained on.

        Raises:
          UserError: The images have a fixed size, and it is another one.
        """
        if (preprocessing.image_shape, preprocessing.resize) != (self.image_shape, self.resize):
            (h, w, c), (height, width, channels) = self.image_shape, preprocessing.image_shape
            raise UserError(
                f"--config: its images are {h}x{w}x{c}, cropped from {self.resize} pixels, but the network was trained "
                f"on {height}x{width}x{channels}, cropped from {preprocessing.resize}; set data.image_size and "
                f"data.resize to the network's"
            )
        return self

    def try_decoding(self, split: Images) -> Iterator[tuple[int, list[str]]]:
        """Decodes all photographs. Yields their number batch by batch, with a message for each unreadable one.

        Yields nothing for images in memory.
        """
        return iter(())

    def decoding_rate(self, train: Images, batch_size: int, seconds: float) -> tuple[float, str] | None:
        """Measures how many photographs are decoded per second; returns this and the workers and threads in words.

        Returns None for images in memory.

        Args:
          train: The training split.
          batch_size: The batch size.
          seconds: The duration of the measurement, which is shorter for a small split.
        """
        return None


@dataclasses.dataclass(frozen=True)
class OnDisk:
    """Photographs that stay on disk; the hosts decode, crop and mirror them for each batch.

    Attributes:
      noun, views, fixed_size, form, data: See :class:`InMemory`.
      pipeline: The pipeline that makes batches of photographs.
    """

    noun, views, fixed_size, form = "photographs", VIEWS, False, "photographs"

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
        """See :class:`InMemory`. The statistics are taken over the central squares of side ``resize``."""
        return self.pipeline.normalization(name, train) if known is None else known

    def quick_normalization(self, name: str, train: Photographs) -> Normalization | None:
        """See :class:`InMemory`."""
        return None if name in pixels.STATISTICS else self.pipeline.normalization(name, train)

    def ordered_batches(self, split: Photographs, batch_size: int) -> Batches:
        """See :class:`InMemory`."""
        return self.pipeline.ordered_batches(split, batch_size, np.arange(batch_size))

    def mix_classes(self, split: Photographs, count: int | None = None) -> Photographs:
        """See :class:`InMemory`. Photographs on disk are sorted by class."""
        return split.take(_mixed(len(split), count))

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
        """See :class:`InMemory`. The arrays hold one batch, whatever the number of images."""
        layout = layouts.streamed()
        return layout, layouts.shapes(NamedSharding(mesh, layout.spec), (1, batch_size), self.image_shape)

    def as_trained(self, preprocessing: Preprocessing) -> "OnDisk":
        """See :class:`InMemory`. Photographs are resized to the network's size."""
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
        """See :class:`InMemory`. No training runs meanwhile."""
        pipeline = dataclasses.replace(self.pipeline, skip_broken=True)
        with closing(pipeline.train(train, 0, batch_size, np.arange(batch_size), 0, _MANY)) as batches:
            # Not measured: these batches were decoded while the workers were starting.
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


def _lie_by_class(labels: np.ndarray) -> bool:
    """Tells whether neighbours share a class much more often than in a random order."""
    by_chance = np.sum((np.bincount(labels) / max(1, len(labels))) ** 2)
    return bool(np.count_nonzero(labels[1:] == labels[:-1]) > (1 + by_chance) / 2 * len(labels))


def _mixed(length: int, count: int | None) -> np.ndarray:
    """Returns the first ``count`` of the indices in [0, length), or all, always in the same random order."""
    # RandomState is frozen by NumPy: the same permutation in every version.
    return np.random.RandomState(0).permutation(length)[:count]


def whole_batches(access: Access[S], split: S, batch_size: int) -> Generator[np.ndarray]:
    """Yields each image of a split once, in batches [n, H, W, C] uint8 without fillers.

    Batches with skipped unreadable images, and the last batch, may be smaller than ``batch_size``.
    """
    with closing(access.ordered_batches(split, batch_size)) as batches:
        for batch in batches:
            yield batch["images"][batch["counts"]]


def _check_found(name: str, found: Any, testing: bool) -> None:
    """Refuses what a data set of the user's own returned, if it is not two splits of images and the classes' names."""
    if not isinstance(found, Found):
        raise UserError(f"{name}: a data set must return Found(train, test, classes, where), not {found!r:.60}")
    for split, given in (("train", found.train), ("test", found.test)):
        if given is None and split == "test":
            continue
        if not isinstance(given, Images) or not all(isinstance(a, np.ndarray) for a in (given.images, given.labels)):
            raise UserError(f"{name}: {split} must be Images(images, labels) of two NumPy arrays")
        if not len(given) and not testing:
            raise UserError(f"{name}: {split} has no images")
    names = list(found.classes) if isinstance(found.classes, Sequence | np.ndarray) else []
    if len(names) < 2 or not all(isinstance(each, str) for each in names):
        raise UserError(f"{name}: classes must be texts, the names of at least two classes, not {found.classes!r:.60}")


def _check_images(where: str, split: str, given: Images, shape: tuple[int, ...]) -> None:
    """Refuses arrays that are not images of one shape with one label each."""
    images = given.images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3, 4) or images.shape[1:] != shape:
        raise UserError(
            f"{where}: images must be uint8 [N, H, W, C] with 1, 3 or 4 channels, of one shape in all splits; "
            f"{split} has {images.dtype} {images.shape}, and train has images of {shape}"
        )
    if len(images) != len(given.labels):
        raise UserError(f"{where}: {split} has {len(images)} images and {len(given.labels)} labels")


def _check_declared(row: Any, data: Mapping[str, Any], found: Found) -> None:
    """Refuses images that differ from their data set's row, on which other code relies before the images are read."""
    height, width, channels = found.train.images.shape[1:]
    side = None if data["image_size"] or data["resize"] else row.side
    for what, declared, there in (
        ("classes", row.classes, len(found.classes)),
        ("channels", row.channels, channels),
        ("pixels a side", side, height if height == width else f"{height}x{width}"),
    ):
        if declared is not None and there != declared:
            raise UserError(
                f"{found.where}: the images have {there} {what}, but the registry of data sets declares {declared} for "
                f"data.name={data['name']!r}; correct one of the two"
            )
