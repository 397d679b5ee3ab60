"""Supplies of a run's arrays: a split that lies on the devices, or the disks of the hosts, a few batches ahead."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
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

# Called with a split's name, the name of a broken image that was passed over, and a function that says why, in a line.
NoteBroken = Callable[[str, str, Callable[[], str]], None]

_AHEAD = 2  # batches that are on their way to the devices while they compute


class Supply(Protocol):
    """Supplies arrays to the compiled steps and evaluations of a run.

    Attributes:
      training, evaluation: how batches lie in the arrays.
    """

    training: Layout
    evaluation: Layout

    def training_template(self) -> Arrays:
        """Describes the arrays of training: shapes, dtypes and places."""

    def evaluation_template(self, split: str) -> Arrays:
        """Describes the arrays of an evaluation of a split."""

    def begin(self, step: int, last: int) -> None:
        """Gets the batches from ``step`` to ``last`` under way."""

    def take(self, count: int) -> Iterator[tuple[Arrays, int]]:
        """The next arrays, and how many steps to take with them: ``count`` together, or fewer before a failure.

        Raises:
          UserError: the next batch cannot be made.
        """

    def evaluation_arrays(self, split: str) -> Iterator[Arrays]:
        """The arrays of an evaluation of a split."""

    def close(self) -> None:
        """Ends what runs in the background."""


class DeviceSplits:
    """Supplies whole splits, which lie on every device."""

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
    """Supplies batches of photographs, decoded and sent to the devices while these compute.

    Args:
      seed: of the run.
      note: called for each broken image that is passed over.
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
        self._eval_batch_size, self._share = eval_batch_size, _Share(mesh, batch_size)
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
        self._send()  # decoding begins when the first batch is asked for

    def take(self, count: int) -> Iterator[tuple[Arrays, int]]:
        """See :class:`Supply`."""
        for done in range(count):
            if not self._ahead and not self._send():
                # It came to light after earlier steps were under way: they count, and the next call raises it. Other
                # hosts, where there are any, are in a step that needs this one.
                if done and jax.process_count() == 1:
                    return
                assert self._failure is not None, "no batch is asked for after the last one"
                raise self._failure
            yield self._ahead.popleft(), 1
            while len(self._ahead) < _AHEAD and self._send():
                pass

    def evaluation_arrays(self, split: str) -> Iterator[Arrays]:
        """See :class:`Supply`."""
        share = self._evaluation_share()
        with closing(self._pipeline.ordered_batches(self._splits[split], share.size, share.places)) as batches:
            for batch in batches:
                self._say_broken(split, batch)
                yield share.put({"images": batch["images"], "labels": batch["labels"], "mask": batch["counts"]})

    def close(self) -> None:
        """See :class:`Supply`."""
        if self._batches is not None:
            self._batches.close()

    def _evaluation_share(self) -> "_Share":
        return _Share(self._mesh, layouts.rounded_up(self._eval_batch_size, self._mesh))

    def _send(self) -> bool:
        """Puts the next batch on its way; False where there is none."""
        if self._failure is not None:
            return False
        try:
            batch = next(self._batches or iter(()), None)
        except UserError as error:
            self._failure = error
            return False
        if batch is None:
            return False
        self._say_broken("train", batch)
        self._ahead.append(self._share.put({name: batch[name] for name in ("images", "labels")}))
        return True

    def _say_broken(self, split: str, batch: Batch) -> None:
        for number in batch["broken"][batch["broken"] >= 0]:
            photo = self._splits[split][int(number)]
            self._note(split, str(photo), partial(self._pipeline.explain_failure, photo))


class _Share:
    """The places of a batch of a size that are this host's."""

    def __init__(self, mesh: Mesh, size: int) -> None:
        self.sharding, self.size = NamedSharding(mesh, layouts.streamed().spec), size
        here = self.sharding.addressable_devices_indices_map((1, size)).values()
        self.places = np.unique(np.concatenate([np.arange(size)[index[1]] for index in here if index]))
        self._here = {int(place): here for here, place in enumerate(self.places)}

    def like(self, image: tuple[int, ...]) -> Arrays:
        """Describes the arrays of :meth:`put` for images of a shape."""
        return layouts.shapes(self.sharding, (1, self.size), image)

    def put(self, batch: Batch) -> Arrays:
        """The arrays of all hosts on the devices, [1, size, ...], of whose batch this host has its places."""

        def whole(local: np.ndarray) -> Any:
            # Not jax.make_array_from_process_local_data: it wants the places of a host to follow one another.
            def part(index: tuple[slice, ...] | None) -> np.ndarray:
                assert index is not None, "the mesh has devices of this host"
                start, stop, _ = index[1].indices(self.size)
                return local[None, self._here[start] : self._here[start] + stop - start]

            return jax.make_array_from_callback((1, self.size, *local.shape[1:]), self.sharding, part)

        return {name: whole(local) for name, local in batch.items()}
