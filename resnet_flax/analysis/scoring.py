"""Class probabilities of many photographs, averaged over the views of each photograph."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from resnet_flax.data.decoding import Readable
from resnet_flax.data.preprocessing import Preprocessing
from resnet_flax.data.views import View, check_view, views_of
from resnet_flax.errors import Diverged, UserError
from resnet_flax.networks import Network
from resnet_flax.networks.compilation import jit
from resnet_flax.runtime.progress import Progress

_THREADS = 16  # at most this many decode files, one per core
_BATCH_BYTES = 2**26  # limit on the views of a batch, unless a single view is larger
_WAITING_BYTES = 2**28  # limit on the views in batches that are not full yet
_WAITING_FILES = 256  # after this many later files, a file's batch is computed though it is not full

Shape = tuple[int, int, int]


def stream_log_probabilities(
    network: Network,
    variables: dict[str, Any],
    preprocessing: Preprocessing,
    paths: Sequence[Readable],
    view: View = "center",
    batch_size: int = 32,
) -> Generator[np.ndarray | UserError]:
    """Yields the log-probabilities of each photograph: the softmax's average over its views (arXiv:1512.03385, 3.4).

    All computations are in logarithms, so that no class's probability underflows to 0.

    Views of the same shape share batches. Batches of a shape have the same size, padded with zeros, so that the network
    is compiled once per shape. Threads decode the files ahead of the network; memory use does not grow with the number
    of files.

    Args:
      network: A network for a single device.
      variables: ``params`` and ``batch_stats``, with arrays of NumPy or JAX.
      preprocessing: The network's preprocessing of photographs.
      paths: The image files.
      view: The views of each photograph (``resnet_flax/data/views.py``).
      batch_size: Number of views in a batch, at most. For views larger than ``image_size`` it is reduced in proportion.

    Yields:
      For each photograph, in the order of the paths and as soon as it is known, [classes] float64; or the error, if the
      file cannot be read as an image.

    Raises:
      UserError: There is no such view; or it is ``multiscale``, and the network takes images of one size only (VGG's
        dense layers); or the network was trained on images that are not squares.
      Diverged: A photograph's probabilities are not finite. The message names it.
    """
    check_view(view)
    preprocessing.check_square()
    if view == "multiscale" and network.flattens:
        raise UserError("view multiscale: the network's dense layers take images of one size only; choose 10crop")
    variables = jax.device_put(variables, jax.local_devices()[0])
    batches, sums = _Batches(batch_size, preprocessing.image_size, len(paths)), _Sums(network.classes)

    def add(batch: "_Batch") -> None:
        found = np.asarray(_log_softmax(network)(variables, batch.images))[: len(batch.places)]
        for place, row in zip(batch.places, found, strict=True):
            sums.add(place, row)

    def known() -> Iterator[np.ndarray | UserError]:
        for place, row in enumerate(sums.known(), sums.first):
            if not isinstance(row, UserError) and not np.isfinite(row).all():
                raise Diverged(f"{paths[place]}: the network's probabilities are not finite")
            yield row

    read = partial(views_of, preprocessing=preprocessing, view=view)
    with Progress(len(paths), "classifying", "images") as progress, closing(_decoded(paths, read)) as decoded:
        for place, views in decoded:
            sums.begin(place, views)
            for array in [] if isinstance(views, UserError) else views:
                for full in batches.put(place, array):
                    add(full)
            if place - sums.first >= _WAITING_FILES:
                for late in batches.holding(sums.first):
                    add(late)
            progress.update(1)
            yield from known()
        for rest in batches.rest():
            add(rest)
        yield from known()


@cache
def _log_softmax(network: Network) -> Callable[[dict[str, Any], Array | np.ndarray], Array]:
    """Compiles ``(variables, images) -> log-probabilities``, computed in float32 at least."""

    def apply(variables: dict[str, Any], images: Array | np.ndarray) -> Array:
        logits: Any = network.apply(variables, images, train=False)
        return jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))

    return jit(apply)


def _decoded(
    paths: Sequence[Readable], read: Callable[[Readable], list[np.ndarray]]
) -> Generator[tuple[int, list[np.ndarray] | UserError]]:
    """Yields each file's place and its views, in order; threads decode a few files ahead."""

    def attempt(path: Readable) -> list[np.ndarray] | UserError:
        try:
            return read(path)
        except UserError as error:
            return error

    threads = min(_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads)
    try:
        ahead: deque[Future] = deque()
        for place in range(len(paths)):
            while len(ahead) < 2 * threads and place + len(ahead) < len(paths):
                ahead.append(pool.submit(attempt, paths[place + len(ahead)]))
            yield place, ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Sums:
    """Averages the probabilities of a photograph's V views: log p = logsumexp_v(log p_v) - log V."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self.first = 0  # place of the first photograph that was not yielded yet
        self._rows: dict[int, np.ndarray] = {}
        self._unreadable: dict[int, UserError] = {}
        self._views: dict[int, int] = {}  # number of views of a photograph
        self._missing: dict[int, int] = {}  # number of views whose probabilities are not known yet

    def begin(self, place: int, views: list[np.ndarray] | UserError) -> None:
        """Registers a photograph with its views; or with the error, if it cannot be read."""
        if isinstance(views, UserError):
            self._unreadable[place], self._missing[place] = views, 0
            return
        self._rows[place] = np.full(self._classes, -np.inf)
        self._views[place] = self._missing[place] = sum(map(len, views))

    def add(self, place: int, row: np.ndarray) -> None:
        """Adds the log-probabilities of one view to its photograph's sum."""
        with np.errstate(invalid="ignore"):  # NaN is reported later, with the photograph's name
            self._rows[place] = np.logaddexp(self._rows[place], row)
        self._missing[place] -= 1

    def known(self) -> Iterator[np.ndarray | UserError]:
        """Yields the averages that are complete and were not yielded before, in order."""
        while self._missing.get(self.first) == 0:
            del self._missing[self.first]
            if self.first in self._unreadable:
                yield self._unreadable.pop(self.first)
            else:
                yield self._rows.pop(self.first) - np.log(self._views.pop(self.first))
            self.first += 1


class _Batch:
    """Views of one shape, and the places of the photographs to which they belong."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.views: list[np.ndarray] = []
        self.places: list[int] = []

    @property
    def images(self) -> np.ndarray:
        """The views [size, H, W, C], padded with zeros after the last one."""
        images = np.zeros((self.size, *self.views[0].shape), np.float32)
        images[: len(self.views)] = self.views
        return images


class _Batches:
    """Gathers views into batches, one at a time for each shape."""

    def __init__(self, batch_size: int, image_size: int, photographs: int) -> None:
        self._batch_size, self._pixels, self._photographs = batch_size, image_size**2, photographs
        self._waiting: dict[Shape, _Batch] = {}
        self._held = 0  # bytes of the waiting views

    def put(self, place: int, views: np.ndarray) -> Iterator[_Batch]:
        """Adds views [V, H, W, C] of a photograph, and yields the batches that should be computed now."""
        shape = views.shape[1:]
        for image in views:
            batch = self._waiting.setdefault(shape, _Batch(self._size(len(views), image)))
            batch.views.append(image)
            batch.places.append(place)
            self._held += image.nbytes
            if len(batch.views) == batch.size:
                yield self._take(shape)
        # With many shapes, the fullest batches are computed early to bound the memory.
        while self._held > _WAITING_BYTES:
            yield self._take(max(self._waiting, key=lambda s: len(self._waiting[s].views) / self._waiting[s].size))

    def holding(self, place: int) -> Iterator[_Batch]:
        """Yields the batches in which views of a photograph wait."""
        for shape in [s for s, batch in self._waiting.items() if place in batch.places]:
            yield self._take(shape)

    def rest(self) -> Iterator[_Batch]:
        """Yields the batches that did not become full."""
        for shape in list(self._waiting):
            yield self._take(shape)

    def _take(self, shape: Shape) -> _Batch:
        batch = self._waiting.pop(shape)
        self._held -= sum(view.nbytes for view in batch.views)
        return batch

    def _size(self, views: int, image: np.ndarray) -> int:
        """Returns a batch's number of images: at most the pixels of ``batch_size`` centre crops, and _BATCH_BYTES."""
        room = min(self._batch_size * self._pixels // (image.shape[0] * image.shape[1]), _BATCH_BYTES // image.nbytes)
        return max(1, min(self._batch_size, room, self._photographs * views))
