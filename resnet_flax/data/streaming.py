"""Data sets that do not fit into memory: photographs decoded from the disk, batch by batch, ahead of the step.

What a batch is, is a function of the seed and the step: the order is a permutation drawn from the seed and the epoch;
what is random about an example is drawn from the seed and its place in the stream. So a position is a number, the step;
and neither the number of hosts, nor that of threads or workers, changes what any of them delivers.
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

from resnet_flax.data import augmentation as crops
from resnet_flax.data import decoding, pixels
from resnet_flax.data.images import Images
from resnet_flax.data.photographs import Photo, Photographs
from resnet_flax.data.pixels import Normalization
from resnet_flax.errors import UserError
from resnet_flax.runtime.progress import Progress

Batch = dict[str, np.ndarray]

_SAMPLE = 10_000  # images that statistics of the training set are computed from, at most
_AT_ONCE = 64  # of them in memory
_IN_A_ROW = 100  # broken images after which it is not about images any more


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """How photographs become batches.

    Attributes:
      image_size: the side of what the network sees.
      resize: the shorter side before the crop, of ``crop`` and in evaluation.
      interpolation: a filter of :mod:`resnet_flax.data.decoding`.
      augmentation: ``crop`` (a random one at ``resize``), ``scale`` (at a random scale: the paper's), ``inception``.
      scales: the least and the largest shorter side of ``scale``, both included.
      least_area: of ``inception``, a fraction of the image's.
      flip: whether half of the images are mirrored.
      channels: 3 or 1.
      skip_broken: whether an image that cannot be read is replaced by the next one instead of ending the run.
      may_skip: whether the key ``data.broken`` may say so.
      workers: processes that decode; 0 for threads of this one.
      threads: of each of them; 0 for as many as there are cores, shared among the workers.
    """

    image_size: int
    resize: int
    interpolation: str = "bilinear"
    augmentation: crops.Augmentation = "crop"
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
        """Returns the pipeline by the section ``data`` of a resolved config."""
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
        """The batches of steps ``first`` to ``last - 1``; of each one, those of its ``places`` that are this host's.

        Each has ``images`` [n, H, W, C] uint8, ``labels`` [n] int32 and ``broken`` [n] int64: the number, in
        ``photographs``, of an image that could not be read in that place, or -1.
        """
        return Batches(_Training(self, photographs, batch_size, places, last, seed), first, last)

    def ordered_batches(self, photographs: Photographs, batch_size: int, places: np.ndarray) -> "Batches":
        """Every photograph once, its central crop.

        Each has ``counts`` [n] bool as well: not those that fill up the last batch, nor broken images passed over.
        """
        steps = -(-len(photographs) // batch_size)
        return Batches(_Ordered(self, photographs, batch_size, places, steps), 0, steps)

    def normalization(self, name: str, train: Photographs) -> Normalization:
        """The setting ``data.normalization`` (:func:`resnet_flax.data.pixels.normalization`).

        Statistics of the training set are those of the central squares, of ``resize``, of 10,000 of its images at most,
        always the same ones; images that cannot be read do not count.
        """
        if name not in pixels.STATISTICS:
            blank = Images(self.blank_image[None], np.zeros(1, np.int32))
            return pixels.normalization(name, blank)
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
            raise UserError(f"data.normalization={name!r}: none of {len(some)} training images can be read")
        return statistics.normalization()

    def explain_failure(self, photo: Photo) -> str:
        """Why an image could not be read, in a line; for that it is read once more."""
        try:
            decoding.resize_and_crop(photo, self.resize, self.image_size, self.channels, self.interpolation)
        except UserError as error:
            return str(error)
        return f"{photo}: could not be read, and a moment later it could; is the disk well?"

    @property
    def threads_each(self) -> int:
        """Threads of each worker, or of this process where there are none."""
        return self.threads or -(-_cores() // max(1, self.workers))

    @property
    def blank_image(self) -> np.ndarray:
        """Returns the array that stands where there is no image."""
        return np.zeros((self.image_size, self.image_size, self.channels), np.uint8)

    def crop(self, image: Image.Image, rng: np.random.Generator) -> np.ndarray:
        """A training example of an opened image: uint8 [image_size, image_size, C]."""
        width, height = image.size
        if self.augmentation == "inception":
            box = crops.inception_crop(width, height, self.least_area, rng)
        else:
            low, high = self.scales if self.augmentation == "scale" else (self.resize, self.resize)
            shorter = int(rng.integers(low, high + 1))
            box = crops.scale_crop(width, height, shorter, self.image_size, rng)
        return crops.cut(image, box, self.image_size, self.interpolation, flip=self.flip and bool(rng.integers(2)))


def _cores() -> int:
    """That this process may use: Slurm, containers and taskset give it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Batches:
    """Batches in order, decoded ahead; an iterator that has to be closed."""

    def __init__(self, examples: "_Examples", first: int, last: int) -> None:
        self._examples, self._step, self._last = examples, first, last
        pipeline, count = examples.pipeline, examples.count
        threads = pipeline.threads_each
        source = grain.MapDataset.source(examples).slice(slice(first * count, last * count))
        if pipeline.workers:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # where no command did, Grain would find its own unparsed
            # Whole batches go to the workers by turns: of single examples, what a batch holds would depend on them.
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
        except RuntimeError as error:  # Grain's, where a worker was killed
            raise UserError(
                f"data.workers={self._examples.pipeline.workers}: {error}; was there enough memory, also in /dev/shm, "
                f"through which batches go (docker run --shm-size)?"
            ) from None
        for number in batch["broken"][~batch["read"]]:
            raise UserError(self._explain_failure(int(number)))
        self._step += 1
        return batch

    def _explain_failure(self, number: int) -> str:
        pipeline = self._examples.pipeline
        text = pipeline.explain_failure(self._examples.photographs[number])
        if pipeline.skip_broken:
            return f"{text}; nor can the {_IN_A_ROW - 1} images after it"
        return f"{text}{'; data.broken=skip would pass it over' * pipeline.may_skip}"

    def close(self) -> None:
        """Ends its threads or processes."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None  # what Grain does when it goes fails where Python itself is ending


def _begin_worker(number: int, count: int) -> None:
    """Makes a worker process live exactly as long as the process that started it.

    Signals to stop come to all processes alike, from a terminal or from Slurm: what they mean is that one's matter,
    which may want batches up to its last step. And where that one is killed, nobody else would end its workers.
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
    """A host's examples, batch after batch, by number: what Grain's threads and workers ask for.

    Attributes:
      batch_size: of all hosts together.
      places: [n] of each batch, in [0, batch_size), that are this host's.
      batches: how many there are.
    """

    pipeline: Pipeline
    photographs: Photographs
    batch_size: int
    places: np.ndarray
    batches: int

    @property
    def count(self) -> int:
        """Images of this host in a batch."""
        return len(self.places)

    def __len__(self) -> int:
        return self.batches * self.count

    def _place(self, number: int) -> int:
        """In the stream of all hosts."""
        step, here = divmod(int(number), self.count)
        return step * self.batch_size + int(self.places[here])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)})"  # Grain puts it into its messages


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
    """A permutation of [0, size): 40 ms for ImageNet. (Grain's own shuffle takes the next seed for the next epoch.)"""
    with _permuting:  # or every thread that comes to a new epoch would make it
        return _permutation(seed, epoch, size)


@functools.lru_cache(2)  # where an epoch ends, threads ask for both
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
