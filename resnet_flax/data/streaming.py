"""Streaming of photographs that do not fit into memory: hosts decode them from disk, a few batches ahead of training.

A batch is a function of the seed and the step. The order of an epoch is a permutation drawn from the seed and the
epoch, and the augmentation of an example is drawn from the seed and its place in the stream. So the step alone is the
position to resume from, and the numbers of hosts, workers and threads do not change any batch.
"""

import dataclasses
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import grain
import numpy as np
from absl import flags
from PIL import Image

from resnet_flax.data import crops, decoding, pixels
from resnet_flax.data.photographs import Photo, Photographs
from resnet_flax.data.pixels import Normalization
from resnet_flax.errors import UserError
from resnet_flax.runtime.progress import Progress

Batch = dict[str, np.ndarray]

_SAMPLE = 10_000  # the largest number of training images from which statistics are computed
_AT_ONCE = 64  # of these images in memory
_IN_A_ROW = 100  # unreadable images in a row, which end a run that skips them: the disk is then the problem


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """The settings that turn photographs into batches.

    Attributes:
      image_size: The side of the network's input.
      resize: The shorter side before the crop, with the augmentation ``crop`` and in evaluation.
      interpolation: The resizing filter, one of :mod:`resnet_flax.data.decoding`.
      augmentation: The random crop: ``crop`` at ``resize``, ``scale`` at a random scale (the paper's), or
        ``inception``.
      scales: The smallest and the largest shorter side of ``scale``, both included.
      least_area: The smallest area of an ``inception`` crop, as a fraction of the image.
      flip: Whether each training image is mirrored with probability one half.
      channels: 1, 3 or 4.
      skip_broken: Whether an unreadable image is replaced by the next one in training and left out in evaluation,
        instead of ending the run.
      may_skip: Whether the error for an unreadable image suggests ``data.broken=skip``.
      workers: The number of worker processes that decode; 0 for threads of this process.
      threads: The number of threads of each worker; 0 for as many as cores, shared among the workers.
    """

    image_size: int
    resize: int
    interpolation: str = "bilinear"
    augmentation: crops.Crop = "crop"
    scales: tuple[int, int] = (256, 480)
    least_area: float = 0.08
    flip: bool = True
    channels: int = 3
    skip_broken: bool = False
    workers: int = 0
    threads: int = 0
    may_skip: bool = True

    @staticmethod
    def of(data: Mapping[str, Any]) -> "Pipeline":
        """Returns the pipeline for the section ``data`` of a resolved config."""
        return Pipeline(
            image_size=data["image_size"],
            resize=data["resize"] or data["image_size"],
            interpolation=data["interpolation"],
            augmentation=data["augmentation"],
            scales=tuple(data["scales"]),
            least_area=data["least_area"],
            flip=data["flip"],
            skip_broken=data["broken"] == "skip",
            workers=data["workers"],
            threads=data["threads"],
            may_skip=data["pipeline"] == "stream",
        )

    def train(
        self, photographs: Photographs, seed: int, batch_size: int, places: np.ndarray, first: int, last: int
    ) -> "Batches":
        """Returns this host's part of the training batches of steps ``first`` to ``last - 1``.

        A batch has ``images`` [n, H, W, C] uint8, ``labels`` [n] int32 and ``broken`` [n] int64: the index in
        ``photographs`` of the image of this place if it could not be read, or else -1.

        Args:
          photographs: The training split.
          seed: The seed of the run.
          batch_size: The batch size, over all hosts.
          places: [n], this host's places in [0, batch_size).
          first: The first step.
          last: The step after the last one.
        """
        return Batches(_Training(self, photographs, batch_size, places, last, seed), first, last)

    def ordered_batches(self, photographs: Photographs, batch_size: int, places: np.ndarray) -> "Batches":
        """Returns this host's part of batches that hold the central crop of each photograph once, in order.

        In addition to the arrays of :meth:`train`, a batch has ``counts`` [n] bool, which is False for fillers of the
        last batch and for skipped unreadable images.
        """
        steps = -(-len(photographs) // batch_size)
        return Batches(_Ordered(self, photographs, batch_size, places, steps), 0, steps)

    def normalization(self, name: str, train: Photographs) -> Normalization:
        """Returns the normalisation of a value of ``data.normalization``; see :func:`.pixels.normalization`.

        Statistics are taken over the central squares, of side ``resize``, of at most 10,000 training images, the same
        ones in every run. Unreadable images are left out.
        """
        if name not in pixels.STATISTICS:
            return pixels.constants(name, self.channels)
        some = np.random.RandomState(0).permutation(len(train))[:_SAMPLE]
        square = dataclasses.replace(self, image_size=self.resize, skip_broken=True)
        statistics = pixels.PixelStatistics(name)
        with (
            Progress(len(some), f"{name} of training images", "images") as progress,
            closing(square.ordered_batches(train.take(np.sort(some)), _AT_ONCE, np.arange(_AT_ONCE))) as batches,
        ):
            for batch in batches:
                statistics.add(batch["images"][batch["counts"]])
                progress.update(len(batch["counts"]))
        if not statistics.count:
            raise UserError(f"data.normalization={name!r}: none of the {len(some)} training images can be read")
        return statistics.normalization()

    def explain_failure(self, photo: Photo) -> str:
        """Returns in one line why an image could not be read, for which it reads the image again."""
        try:
            decoding.resize_and_crop(photo, self.resize, self.image_size, self.channels, self.interpolation)
        except UserError as error:
            return str(error)
        return f"{photo}: could not be read at first, but can be read now; does the disk have errors?"

    @property
    def threads_each(self) -> int:
        """The number of threads of each worker, or of this process if there are no workers."""
        return self.threads or -(-_cores() // max(1, self.workers))

    @property
    def blank_image(self) -> np.ndarray:
        """A black image, which stands at places without an image."""
        return np.zeros((self.image_size, self.image_size, self.channels), np.uint8)

    def crop(self, image: Image.Image, rng: np.random.Generator) -> np.ndarray:
        """Draws a random crop of an image, mirrored at random: uint8 [image_size, image_size, C]."""
        width, height = image.size
        if self.augmentation == "inception":
            box = crops.inception_crop(width, height, self.least_area, rng)
        else:
            low, high = self.scales if self.augmentation == "scale" else (self.resize, self.resize)
            shorter = int(rng.integers(low, high + 1))
            box = crops.scale_crop(width, height, shorter, self.image_size, rng)
        return crops.cut(image, box, self.image_size, self.interpolation, flip=self.flip and bool(rng.integers(2)))


def _cores() -> int:
    """Counts the cores that this process may use, which Slurm, containers and taskset limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Batches:
    """Iterator over batches that are decoded ahead; it has to be closed."""

    def __init__(self, examples: "_Examples", first: int, last: int) -> None:
        self._examples, self._step, self._last = examples, first, last
        pipeline, count = examples.pipeline, examples.count
        threads = pipeline.threads_each
        source = grain.MapDataset.source(examples).slice(slice(first * count, last * count))
        if pipeline.workers:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # Grain reads flags, which only commands have parsed
            # Batch first, so that workers take turns by whole batches: the number of workers must not change a batch.
            options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
            batches = source.batch(count).to_iter_dataset(options)
            workers = grain.MultiprocessingOptions(pipeline.workers, per_worker_buffer_size=1)
            batches = batches.mp_prefetch(workers, worker_init_fn=_begin_worker)
        else:
            options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * count)
            batches = source.to_iter_dataset(options).batch(count)
        self._iterator = iter(batches)

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Batch:
        if self._step == self._last:
            raise StopIteration
        try:
            batch = next(self._iterator)
        except RuntimeError as error:  # raised by Grain if a worker was killed
            raise UserError(
                f"data.workers={self._examples.pipeline.workers}: {error}; was there enough memory, also in /dev/shm, "
                f"which workers use to pass batches (docker run --shm-size)?"
            ) from None
        for number in batch["broken"][~batch["read"]]:
            raise UserError(self._explain_failure(int(number)))
        self._step += 1
        return batch

    def _explain_failure(self, number: int) -> str:
        pipeline = self._examples.pipeline
        text = pipeline.explain_failure(self._examples.photographs[number])
        if pipeline.skip_broken:
            return f"{text}; the {_IN_A_ROW - 1} images after it cannot be read either"
        return f"{text}{'; set data.broken=skip to continue without it' * pipeline.may_skip}"

    def close(self) -> None:
        """Stops the threads or worker processes."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None  # Grain's own clean-up fails when the interpreter exits


def _begin_worker(number: int, count: int) -> None:
    """Makes a worker process live exactly as long as its parent process.

    Signals from a terminal or from Slurm reach all processes, but only the parent decides when to stop, as it may need
    batches up to its last step. If the parent is killed, nothing else would end its workers.
    """
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)

    def end_with_parent() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            parent.join()
        os._exit(0)

    threading.Thread(target=end_with_parent, daemon=True).start()


@dataclasses.dataclass(frozen=True)
class _Examples:
    """A host's examples in all batches, by number; the data source from which Grain's threads and workers read.

    Attributes:
      photographs: The photographs of the split.
      batch_size: The batch size, over all hosts.
      places: [n], this host's places in each batch, in [0, batch_size).
      batches: The number of batches.
    """

    pipeline: Pipeline
    photographs: Photographs
    batch_size: int
    places: np.ndarray
    batches: int

    @property
    def count(self) -> int:
        """The number of this host's images in a batch."""
        return len(self.places)

    def __len__(self) -> int:
        return self.batches * self.count

    def _place(self, number: int) -> int:
        """Returns the place of an example in the stream of all hosts."""
        step, here = divmod(int(number), self.count)
        return step * self.batch_size + int(self.places[here])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)})"  # Grain's messages show it


@dataclasses.dataclass(frozen=True, repr=False)
class _Training(_Examples):
    seed: int

    def __getitem__(self, number: int) -> dict[str, np.ndarray | np.generic]:
        place = self._place(number)
        epoch, place_in_epoch = divmod(place, len(self.photographs))
        index, broken = int(_order(self.seed, epoch, len(self.photographs))[place_in_epoch]), -1
        for tries in range(_IN_A_ROW if self.pipeline.skip_broken else 1):
            at = (index + tries) % len(self.photographs)
            try:
                image = decoding.read_photo(self.photographs[at], self.pipeline.channels)
            except UserError:
                broken = index
                continue
            cropped = self.pipeline.crop(image, np.random.default_rng([self.seed, place]))
            return _example(cropped, self.photographs.labels[at], broken=broken)
        return _example(self.pipeline.blank_image, np.int32(0), broken=index, read=False)


_permuting = threading.Lock()


def _order(seed: int, epoch: int, size: int) -> np.ndarray:
    """Returns an epoch's permutation of [0, size), which takes 40 ms for ImageNet.

    Grain's own shuffle is not used: it takes the next seed for the next epoch, so runs of adjacent seeds share orders.
    """
    with _permuting:  # otherwise every thread that reaches a new epoch would compute it
        return _permutation(seed, epoch, size)


@functools.lru_cache(2)  # at the end of an epoch, threads need two of them
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.RandomState([seed, epoch]).permutation(size).astype(np.int32)


@dataclasses.dataclass(frozen=True, repr=False)
class _Ordered(_Examples):
    def __getitem__(self, number: int) -> dict[str, np.ndarray | np.generic]:
        place = self._place(number)
        if place >= len(self.photographs):
            return _example(self.pipeline.blank_image, np.int32(0), counts=False)
        p, label = self.pipeline, self.photographs.labels[place]
        try:
            image = decoding.resize_and_crop(
                self.photographs[place], p.resize, p.image_size, p.channels, p.interpolation
            )
        except UserError:
            return _example(p.blank_image, label, broken=place, read=p.skip_broken, counts=False)
        return _example(image, label)


def _example(
    image: np.ndarray, label: np.int32, broken: int = -1, read: bool = True, counts: bool = True
) -> dict[str, np.ndarray | np.generic]:
    return {
        "images": image, "labels": np.int32(label), "broken": np.int64(broken),
        "read": np.bool_(read), "counts": np.bool_(counts),
    }  # fmt: skip
