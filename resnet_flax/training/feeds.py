"""The compiled steps and evaluations of a run, on the arrays that its data set supplies."""

import sys
from pathlib import Path
from typing import Any

import jax
import optax

from resnet_flax.data.images import Dataset
from resnet_flax.data.photographs import PhotoDataset
from resnet_flax.data.streaming import Batch, Pipeline
from resnet_flax.data.supplies import Resident, Streamed, Supply
from resnet_flax.errors import UserError
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.training.evaluation import Evaluation, make_evaluate
from resnet_flax.training.parts import Parts
from resnet_flax.training.state import State
from resnet_flax.training.step import make_train_steps


class Feed:
    """Steps and evaluations of a run.

    Attributes:
      held_out: the splits that are evaluated.
    """

    def __init__(self, parts: Parts, optimizer: optax.GradientTransformation, workdir: Path) -> None:
        c, splits = parts.config, _splits(parts.dataset)
        self._supply, self._last = _supply_of(parts, splits, workdir), c.train.steps
        self._sizes = {name: len(split) for name, split in splits.items()}
        self.held_out = tuple(name for name in splits if name != "train")
        self._steps = make_train_steps(
            parts.network, optimizer, self._supply.training, parts.transform, c.seed, c.train.batch_size, parts.mesh,
            c.train.label_smoothing, c.train.accumulate, c.optimizer.ema,
        )  # fmt: skip
        self._evaluate = make_evaluate(
            parts.network, self._supply.evaluation, parts.transform, c.train.eval_batch_size, parts.mesh
        )

    def begin(self, state: State, step: int) -> None:
        """Compiles, and gets the batches from that step on under way."""

        def compile_for(arrays: Any) -> None:
            self._steps = self._steps.compile(state, arrays)

        self._supply.begin(step, self._last, compile_for)

    def advance(self, state: State, count: int) -> tuple[State, int]:
        """That many steps (or fewer: how many they were); the state is donated. Returns when they are done.

        Raises:
          UserError: the next batch cannot be made; the state is as it was.
        """
        done = 0
        for arrays, steps in self._supply.take(count):
            state = self._steps(state, arrays, steps)
            done += steps
        return jax.block_until_ready(state), done

    def evaluate(self, variables: dict[str, Any], split: str) -> Evaluation:
        """Loss and error of the network's variables on ``train`` or one of ``held_out``, without augmentation."""
        found = self._evaluate(variables, self._supply.in_order(split))
        if not found.images:
            raise UserError(f"none of the {self._sizes[split]} images of the split {split} can be read")
        return found

    def close(self) -> None:
        """Ends what runs in the background."""
        self._supply.close()


def _supply_of(parts: Parts, splits: dict[str, Any], workdir: Path) -> Supply:
    train = parts.config.train
    sizes = parts.mesh, train.batch_size, train.eval_batch_size
    if not isinstance(parts.dataset, PhotoDataset):
        return Resident(splits, *sizes)
    return Streamed(splits, *sizes, parts.pipeline, parts.config.seed, _Broken(workdir, splits, parts.pipeline).note)


class _Broken:
    """Writes down each image that was passed over, once."""

    def __init__(self, workdir: Path, data: dict[str, Any], pipeline: Pipeline) -> None:
        self._run, self._data, self._pipeline = RunDirectory(workdir), data, pipeline
        self._known = {line["image"] for line in self._run.broken(jax.process_index())}

    def note(self, split: str, batch: Batch) -> None:
        """Takes a batch's ``broken``."""
        for number in batch["broken"][batch["broken"] >= 0]:
            photo = self._data[split][int(number)]
            if str(photo) in self._known:
                continue
            self._known.add(str(photo))
            reason = self._pipeline.complaint(photo).removeprefix(f"{photo}: ")
            path = self._run.note_broken({"image": str(photo), "split": split, "reason": reason}, jax.process_index())
            print(f"{photo}: {reason}; passed over, {len(self._known)} so far ({path})", file=sys.stderr)


def _splits(dataset: Dataset | PhotoDataset) -> dict[str, Any]:
    splits = {"train": dataset.train, "test": dataset.test}
    return splits | ({"validation": dataset.validation} if len(dataset.validation) else {})
