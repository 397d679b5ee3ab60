"""Supplies, which put the images of a run on the devices: whole splits once, or batch by batch from disk.

A supply is made by a data set's access (:mod:`.access`) and read by the training loop and the evaluation.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import cached_property, partial
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from resnet_flax.data import layouts
from resnet_flax.data.images import Images
from resnet_flax.data.layouts import Arrays, Layout
from resnet_flax.data.photographs import Photographs
from resnet_flax.data.streaming import Batch, Batches, Pipeline
from resnet_flax.errors import UserError

# Called with the split and the name of a skipped unreadable image, and a function that returns the reason in one line.
NoteBroken = Callable[[str, str, Callable[[], str]], None]

_AHEAD = 2  # batches that are sent to the devices while these compute


class Supply(Protocol):
    """Protocol of the supply of arrays to the compiled steps and evaluations of a run.

    Attributes:
      training, evaluation: The layouts by which batches are found in the arrays.
    """

    training: Layout
    evaluation: Layout

    def training_template(self) -> Arrays:
        """Returns arrays or structs with the shapes, dtypes and shardings of the training arrays, to compile for."""

    def evaluation_template(self, split: str) -> Arrays:
        """Returns the same for the arrays of an evaluation of a split."""

    def begin(self, step: int, last: int) -> None:
        """Starts to prepare the batches of steps ``step`` to ``last - 1``."""

    def take(self, count: int) -> Iterator[tuple[Arrays, int]]:
        """Yields the next arrays, each with the number of steps to take on them.

        The numbers add up to ``count``, or to less if a later batch cannot be made; the next call then raises.

        Raises:
          UserError: The next batch cannot be made.
        """

    def evaluation_arrays(self, split: str) -> Iterator[Arrays]:
        """Yields the arrays of an evaluation of a split."""

    def close(self) -> None:
        """Stops the background threads and processes."""


class DeviceSplits:
    """Supply of whole splits, which are copied to every device once."""

    def __init__(self, splits: Mapping[str, Images], mesh: Mesh, batch_size: int, eval_batch_size: int) -> None:
        self.training = layouts.shuffled(batch_size)
        everywhere = NamedSharding(mesh, self.training.spec)
        self._arrays = {name: layouts.put(split, everywhere) for name, split in splits.items()}
        self.evaluation = layouts.ordered(layouts.rounded_up(eval_batch_size, mesh))

    def training_template(self) -> Arrays:
        """See :class:`Supply`."""
        return self._arrays["train"]

    def evaluation_template(self, split: str) -> Arrays:
        """See :class:`Supply`."""
        return self._arrays[split]

    def begin(self, step: int, last: int) -> None:
        """See :class:`Supply`."""

    def take(self, count: int) -> Iterator[tuple[Arrays, int]]:
        """See :class:`Supply`."""
        yield self._arrays["train"], count

    def evaluation_arrays(self, split: str) -> Iterator[Arrays]:
        """See :class:`Supply`."""
        yield self._arrays[split]

    def close(self) -> None:
        """See :class:`Supply`."""


class StreamedBatches:
    """Supply of batches of photographs, which are decoded and sent to the devices while these compute.

    Args:
      splits: The splits by name.
      mesh: The mesh of devices.
      batch_size: The batch size of training, over all devices.
      eval_batch_size: The batch size of evaluation, over all devices, which is rounded up to a multiple of them.
      pipeline: The pipeline that decodes batches on this host.
      seed: The seed of the run.
      note: Called for each unreadable image that is skipped.
    """

    training = evaluation = layouts.streamed()

    def __init__(
        self,
        splits: Mapping[str, Photographs],
        mesh: Mesh,
        batch_size: int,
        eval_batch_size: int,
        pipeline: Pipeline,
        seed: int,
        note: NoteBroken,
    ) -> None:
        self._splits, self._mesh, self._pipeline, self._seed, self._note = splits, mesh, pipeline, seed, note
        self._batch_size, self._eval_batch_size = batch_size, eval_batch_size
        self._batches: Batches | None = None
        self._ahead: deque[Arrays] = deque()
        self._failure: UserError | None = None

    def training_template(self) -> Arrays:
        """See :class:`Supply`."""
        return self._share.like(self._pipeline.blank_image.shape)

    def evaluation_template(self, split: str) -> Arrays:
        """See :class:`Supply`."""
        share = self._evaluation_share()
        mask = jax.ShapeDtypeStruct((1, share.size), np.bool_, sharding=share.sharding)
        return share.like(self._pipeline.blank_image.shape) | {"mask": mask}

    def begin(self, step: int, last: int) -> None:
        """See :class:`Supply`."""
        share = self._share
        self._batches = self._pipeline.train(self._splits["train"], self._seed, share.size, share.places, step, last)
        self._send()  # the first request starts the decoding

    def take(self, count: int) -> Iterator[tuple[Arrays, int]]:
        """See :class:`Supply`."""
        for done in range(count):
            if not self._ahead and not self._send():
                # If earlier steps of this call succeeded, end here so that they are kept; the next call raises. With
                # several hosts raise at once: the others are already in a step that needs this host.
                if done and jax.process_count() == 1:
                    return
                assert self._failure is not None, "take was called after the last batch"
                raise self._failure
            yield self._ahead.popleft(), 1
            while len(self._ahead) < _AHEAD and self._send():
                pass

    def evaluation_arrays(self, split: str) -> Iterator[Arrays]:
        """See :class:`Supply`."""
        share = self._evaluation_share()
        with closing(self._pipeline.ordered_batches(self._splits[split], share.size, share.places)) as batches:
            for batch in batches:
                self._note_broken(split, batch)
                yield share.put({"images": batch["images"], "labels": batch["labels"], "mask": batch["counts"]})

    def close(self) -> None:
        """See :class:`Supply`."""
        if self._batches is not None:
            self._batches.close()

    @cached_property
    def _share(self) -> "_Share":
        # Only training needs it: an evaluation's batch size need not be a multiple of the number of devices.
        return _Share(self._mesh, self._batch_size)

    def _evaluation_share(self) -> "_Share":
        return _Share(self._mesh, layouts.rounded_up(self._eval_batch_size, self._mesh))

    def _send(self) -> bool:
        """Sends the next batch to the devices; returns False if there is none."""
        if self._failure is not None:
            return False
        try:
            batch = next(self._batches or iter(()), None)
        except UserError as error:
            self._failure = error
            return False
        if batch is None:
            return False
        self._note_broken("train", batch)
        self._ahead.append(self._share.put({name: batch[name] for name in ("images", "labels")}))
        return True

    def _note_broken(self, split: str, batch: Batch) -> None:
        for number in batch["broken"][batch["broken"] >= 0]:
            photo = self._splits[split][int(number)]
            self._note(split, str(photo), partial(self._pipeline.explain_failure, photo))


class _Share:
    """This host's share of a global batch: the places (indices in the batch) of its devices."""

    def __init__(self, mesh: Mesh, size: int) -> None:
        self.sharding, self.size = NamedSharding(mesh, layouts.streamed().spec), size
        here = self.sharding.addressable_devices_indices_map((1, size)).values()
        self.places = np.unique(np.concatenate([np.arange(size)[index[1]] for index in here if index]))
        self._here = {int(place): here for here, place in enumerate(self.places)}

    def like(self, image: tuple[int, ...]) -> Arrays:
        """Returns the shapes and shardings of the arrays that :meth:`put` makes for images of a shape."""
        return layouts.shapes(self.sharding, (1, self.size), image)

    def put(self, batch: Batch) -> Arrays:
        """Makes global arrays [1, size, ...] over all hosts; ``batch`` holds the examples at this host's places."""

        def whole(local: np.ndarray) -> Any:
            # jax.make_array_from_process_local_data would need the places of a host to be contiguous.
            def part(index: tuple[slice, ...] | None) -> np.ndarray:
                assert index is not None, "the mesh has devices of this host"
                start, stop, _ = index[1].indices(self.size)
                return local[None, self._here[start] : self._here[start] + stop - start]

            return jax.make_array_from_callback((1, self.size, *local.shape[1:]), self.sharding, part)

        return {name: whole(local) for name, local in batch.items()}
