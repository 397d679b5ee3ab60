"""Where a run's batches come from: the device itself, or the disks of the hosts. The loop knows no difference."""

import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from resnet_flax import json_lines
from resnet_flax.data import resident
from resnet_flax.data.images import Dataset
from resnet_flax.data.photographs import PhotoDataset
from resnet_flax.data.streaming import Batch, Batches, Pipeline
from resnet_flax.errors import UserError
from resnet_flax.run_files import BROKEN, RunFiles
from resnet_flax.training.devices import DATA_AXIS, places_of_host, replicated
from resnet_flax.training.evaluation import Evaluation, make_evaluate, make_evaluate_batches
from resnet_flax.training.parts import Parts
from resnet_flax.training.state import State
from resnet_flax.training.step import make_streamed_step, make_train_steps

_AHEAD = 2  # batches that are on their way to the devices while they compute


class Feed(Protocol):
    """Steps and evaluations of a run."""

    held_out: tuple[str, ...]  # the splits that are evaluated

    def begin(self, state: State, step: int) -> None:
        """Compiles, and gets the batches from that step on under way."""

    def advance(self, state: State, count: int) -> tuple[State, int]:
        """That many steps (or fewer: how many they were); the state is donated. Returns when they are done.

        Raises:
          UserError: the next batch cannot be made; the state is as it was.
        """

    def evaluate(self, variables: dict[str, Any], split: str) -> Evaluation:
        """Loss and error of the network's variables on ``train`` or one of ``held_out``, without augmentation."""

    def close(self) -> None:
        """Ends what runs in the background."""


def feed_of(parts: Parts, optimizer: optax.GradientTransformation, workdir: Path) -> Feed:
    """The one for the data set of a run."""
    if isinstance(parts.dataset, PhotoDataset):
        return StreamFeed(parts, optimizer, workdir)
    return ResidentFeed(parts, optimizer)


class ResidentFeed:
    """Of a data set that lies on every device: many steps in one call, and nothing to wait for."""

    def __init__(self, parts: Parts, optimizer: optax.GradientTransformation) -> None:
        c, dataset = parts.config, parts.dataset
        stream = resident.Stream(
            c.seed, c.train.batch_size, c.data.pad, c.data.flip, parts.normalization,
            jnp.promote_types(c.model.param_dtype, jnp.float32), parts.crop,
        )  # fmt: skip
        self._steps = make_train_steps(
            parts.network, optimizer, stream, parts.mesh, c.train.label_smoothing, c.train.accumulate, c.optimizer.ema
        )
        self._evaluate = make_evaluate(
            parts.network, parts.normalization, c.train.eval_batch_size, parts.mesh, crop=parts.crop
        )
        everywhere = replicated(parts.mesh)
        self._data = {name: resident.put(split, everywhere) for name, split in _splits(dataset).items()}
        self.held_out = tuple(name for name in self._data if name != "train")

    def begin(self, state: State, step: int) -> None:
        """See :class:`Feed`."""
        self._compiled = self._steps.compile(state, self._data["train"])

    def advance(self, state: State, count: int) -> tuple[State, int]:
        """See :class:`Feed`."""
        return jax.block_until_ready(self._compiled(state, self._data["train"], count)), count

    def evaluate(self, variables: dict[str, Any], split: str) -> Evaluation:
        """See :class:`Feed`."""
        return self._evaluate(variables["params"], variables["batch_stats"], self._data[split])

    def close(self) -> None:
        """See :class:`Feed`."""


class StreamFeed:
    """Of photographs on disk: decoded and sent to the devices while these compute."""

    def __init__(self, parts: Parts, optimizer: optax.GradientTransformation, workdir: Path) -> None:
        c, mesh = parts.config, parts.mesh
        self._config, self._pipeline, self._shape = c, parts.pipeline, parts.image_shape
        normalization = parts.normalization.cropped(c.data.image_size)
        self._step = make_streamed_step(
            parts.network, optimizer, c.seed, normalization, mesh, c.data.colour, c.train.label_smoothing,
            c.train.accumulate, c.optimizer.ema,
        )  # fmt: skip
        self._score = make_evaluate_batches(parts.network, normalization, mesh)
        self._split = NamedSharding(mesh, PartitionSpec(DATA_AXIS))
        self._data = _splits(parts.dataset)
        self.held_out = tuple(name for name in self._data if name != "train")
        self._broken = _Broken(workdir, self._data, self._pipeline)
        self._share = _Share(self._split, c.train.batch_size)
        self._batches: Batches | None = None
        self._ahead: deque[tuple[Array, Array]] = deque()
        self._failure: UserError | None = None

    def begin(self, state: State, step: int) -> None:
        """See :class:`Feed`."""
        train = self._config.train
        self._batches = self._pipeline.train(
            self._data["train"], self._config.seed, train.batch_size, self._share.places, step, train.steps
        )
        shapes = ((train.batch_size, *self._shape), np.uint8), ((train.batch_size,), np.int32)
        images, labels = (jax.ShapeDtypeStruct(*s, sharding=self._split) for s in shapes)
        with ThreadPoolExecutor(1) as background:  # decoding begins when the first batch is asked for
            first = background.submit(self._send)
            self._compiled = self._step.compile(state, images, labels)
            first.result()

    def advance(self, state: State, count: int) -> tuple[State, int]:
        """See :class:`Feed`."""
        for done in range(count):
            if not self._ahead and not self._send():
                # It came to light after earlier steps were under way: they count, and the next call raises it. Other
                # hosts, where there are any, are in a step that needs this one.
                if done and jax.process_count() == 1:
                    return jax.block_until_ready(state), done
                raise self._failure
            state = self._compiled(state, *self._ahead.popleft())
            while len(self._ahead) < _AHEAD and self._send():
                pass
        return jax.block_until_ready(state), count

    def evaluate(self, variables: dict[str, Any], split: str) -> Evaluation:
        """See :class:`Feed`."""
        found = self._score(variables["params"], variables["batch_stats"], self._in_order(split))
        if not found.images:
            raise UserError(f"none of the {len(self._data[split])} images of the split {split} can be read")
        return found

    def close(self) -> None:
        """See :class:`Feed`."""
        if self._batches is not None:
            self._batches.close()

    def _send(self) -> bool:
        """Puts the next batch on its way; False where there is none."""
        if self._failure is not None:
            return False
        try:
            batch = next(self._batches, None)
        except UserError as error:
            self._failure = error
            return False
        if batch is None:
            return False
        self._broken.note("train", batch)
        self._ahead.append(tuple(self._share.put(batch[key]) for key in ("images", "labels")))
        return True

    def _in_order(self, split: str) -> Iterator[tuple[Array, Array, Array]]:
        devices = self._split.mesh.size
        size = -(-self._config.train.eval_batch_size // devices) * devices
        share = _Share(self._split, size)
        with closing(self._pipeline.in_order(self._data[split], size, share.places)) as batches:
            for batch in batches:
                self._broken.note(split, batch)
                yield tuple(share.put(batch[key]) for key in ("images", "labels", "counts"))


class _Share:
    """The places of a batch of that size that are this host's."""

    def __init__(self, split: NamedSharding, size: int) -> None:
        self._split, self._size = split, size
        self.places = places_of_host(split, size)
        self._here = {int(place): here for here, place in enumerate(self.places)}

    def put(self, local: np.ndarray) -> Array:
        """The array of all hosts, on the devices, of which this host has those places."""

        # Not jax.make_array_from_process_local_data: it wants the places of a host to follow one another.
        def part(index: tuple[slice, ...]) -> np.ndarray:
            start, stop, _ = index[0].indices(self._size)
            return local[self._here[start] : self._here[start] + stop - start]

        return jax.make_array_from_callback((self._size, *local.shape[1:]), self._split, part)


class _Broken:
    """Writes down each image that was passed over, once."""

    def __init__(self, workdir: Path, data: dict[str, Any], pipeline: Pipeline) -> None:
        process = jax.process_index()
        self._path = workdir / (BROKEN if not process else BROKEN.replace(".", f"-{process}.", 1))
        self._data, self._pipeline = data, pipeline
        self._known = {line["image"] for line in RunFiles(workdir).broken(self._path.name)}

    def note(self, split: str, batch: Batch) -> None:
        """Takes a batch's ``broken``."""
        for number in batch["broken"][batch["broken"] >= 0]:
            photo = self._data[split][int(number)]
            if str(photo) in self._known:
                continue
            self._known.add(str(photo))
            reason = self._pipeline.complaint(photo).removeprefix(f"{photo}: ")
            json_lines.append(self._path, {"image": str(photo), "split": split, "reason": reason})
            print(f"{photo}: {reason}; passed over, {len(self._known)} so far ({self._path})", file=sys.stderr)


def _splits(dataset: Dataset | PhotoDataset) -> dict[str, Any]:
    splits = {"train": dataset.train, "test": dataset.test}
    return splits | ({"validation": dataset.validation} if len(dataset.validation) else {})
