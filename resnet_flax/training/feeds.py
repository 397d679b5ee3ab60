"""The compiled steps and evaluations of a run, on the arrays that its data set supplies."""

import dataclasses
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from resnet_flax.data.layouts import Layout
from resnet_flax.errors import UserError
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.training import metric_functions
from resnet_flax.training.evaluation import Evaluation, make_evaluate
from resnet_flax.training.parts import Parts
from resnet_flax.training.recipe import Recipe
from resnet_flax.training.state import State
from resnet_flax.training.step import TrainSteps, make_train_steps


def train_steps(parts: Parts, recipe: Recipe, layout: Layout) -> TrainSteps:
    """Builds the training steps of a run, on batches that lie as the layout says."""
    c = parts.config
    return make_train_steps(
        parts.network, recipe, layout, parts.transform, c.seed, c.train.batch_size, parts.mesh,
        c.train.label_smoothing, c.train.accumulate, parts.metrics, parts.onednn,
    )  # fmt: skip


class Feed:
    """Steps and evaluations of a run.

    Attributes:
      held_out: the splits that are evaluated.
    """

    def __init__(self, parts: Parts, recipe: Recipe, workdir: Path) -> None:
        c, splits = parts.config, parts.dataset.splits
        sizes = c.train.batch_size, c.train.eval_batch_size
        self._supply = parts.dataset.access.supply(splits, parts.mesh, sizes, c.seed, _Broken(workdir).note)
        self._last = c.train.steps
        self._sizes = {name: len(split) for name, split in splits.items()}
        self.held_out = tuple(name for name in splits if name != "train")
        self._evaluated = (*self.held_out, *("train",) * c.train.eval_train)
        self._background = ThreadPoolExecutor(1, "compile")
        self._steps = train_steps(parts, recipe, self._supply.training)
        more = tuple(name for name in parts.metrics if name in metric_functions.OF_EXAMPLES)
        self._evaluate = make_evaluate(
            parts.network, self._supply.evaluation, parts.transform, c.train.eval_batch_size, parts.mesh,
            (*metric_functions.ALWAYS, *more),
        )  # fmt: skip

    def compile(self, like: State) -> None:
        """Begins to compile, in the background, for states like this one: the steps, and then the evaluations."""
        self._compiling = self._background.submit(
            self._steps.trace(like, self._supply.training_template()).lower().compile
        )
        self._evaluations = {
            split: self._background.submit(
                self._evaluate.compile, like.eval_variables, self._supply.evaluation_template(split)
            )
            for split in self._evaluated
        }

    def begin(self, step: int) -> None:
        """Gets the batches from that step on under way; returns when all is ready."""
        self._supply.begin(step, self._last)
        self._steps = dataclasses.replace(self._steps, program=self._compiling.result())

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
        self._evaluations[split].result()  # else it would be compiled twice
        found = self._evaluate(variables, self._supply.evaluation_arrays(split))
        if not found.images:
            raise UserError(f"none of the {self._sizes[split]} images of the split {split} can be read")
        return found

    def close(self) -> None:
        """Ends what runs in the background."""
        self._background.shutdown(cancel_futures=True)
        self._supply.close()


class _Broken:
    """Writes down each image that was passed over, once."""

    def __init__(self, workdir: Path) -> None:
        self._run, self._process = RunDirectory(workdir), jax.process_index()
        self._known = {line["image"] for line in self._run.broken(self._process)}

    def note(self, split: str, image: str, why: Callable[[], str]) -> None:
        """See :class:`~resnet_flax.data.device_arrays.StreamedBatches`."""
        if image in self._known:
            return
        self._known.add(image)
        reason = why().removeprefix(f"{image}: ")
        path = self._run.note_broken({"image": image, "split": split, "reason": reason}, self._process)
        print(f"{image}: {reason}; passed over, {len(self._known)} so far ({path})", file=sys.stderr)
