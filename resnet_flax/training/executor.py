"""Compiles the training steps and evaluations of a run, and runs them on the batches of its data set."""

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
from resnet_flax.training.recipe import Recipe
from resnet_flax.training.setup import RunSetup
from resnet_flax.training.state import State
from resnet_flax.training.step import TrainSteps, make_train_steps


def train_steps(setup: RunSetup, recipe: Recipe, layout: Layout) -> TrainSteps:
    """Builds the training steps of a run for batches in the given layout."""
    c = setup.config
    return make_train_steps(
        setup.network, recipe, layout, setup.transform, c.seed, c.train.batch_size, setup.mesh,
        c.train.label_smoothing, c.train.accumulate, setup.metrics, setup.onednn,
    )  # fmt: skip


class Executor:
    """Runs the training steps and evaluations of a run.

    Attributes:
      held_out: The names of all splits but ``train``.
    """

    def __init__(self, setup: RunSetup, recipe: Recipe, workdir: Path) -> None:
        c, splits = setup.config, setup.dataset.splits
        sizes = c.train.batch_size, c.train.eval_batch_size
        self._supply = setup.dataset.access.supply(splits, setup.mesh, sizes, c.seed, _BrokenImages(workdir).note)
        self._last = c.train.steps
        self._sizes = {name: len(split) for name, split in splits.items()}
        self.held_out = tuple(name for name in splits if name != "train")
        self._evaluated_splits = (*self.held_out, *("train",) * c.train.eval_train)
        self._background = ThreadPoolExecutor(1, "compile")
        self._steps = train_steps(setup, recipe, self._supply.training)
        more = tuple(name for name in setup.metrics if name in metric_functions.OF_EXAMPLES)
        self._evaluate = make_evaluate(
            setup.network, self._supply.evaluation, setup.transform, c.train.eval_batch_size, setup.mesh,
            (*metric_functions.ALWAYS, *more),
        )  # fmt: skip

    def compile(self, like: State) -> None:
        """Starts to compile the steps, then the evaluations, in the background.

        Args:
          like: The shapes, dtypes and shardings of the states to come.
        """
        self._compiling = self._background.submit(
            self._steps.trace(like, self._supply.training_template()).lower().compile
        )
        self._evaluations = {
            split: self._background.submit(
                self._evaluate.compile, like.eval_variables, self._supply.evaluation_template(split)
            )
            for split in self._evaluated_splits
        }

    def begin(self, step: int) -> None:
        """Starts to produce the batches from ``step`` on; returns when the steps are compiled."""
        self._supply.begin(step, self._last)
        self._steps = dataclasses.replace(self._steps, program=self._compiling.result())

    def advance(self, state: State, count: int) -> tuple[State, int]:
        """Takes up to ``count`` steps and waits for them; the state is donated.

        Returns:
          The new state and the number of steps taken.

        Raises:
          UserError: The next batch cannot be made; the state is unchanged.
        """
        done = 0
        for arrays, steps in self._supply.take(count):
            state = self._steps(state, arrays, steps)
            done += steps
        return jax.block_until_ready(state), done

    def evaluate(self, variables: dict[str, Any], split: str) -> Evaluation:
        """Evaluates variables on ``train`` or one of ``held_out``, without augmentation."""
        self._evaluations[split].result()  # a call before its end would compile a second time
        found = self._evaluate(variables, self._supply.evaluation_arrays(split))
        if not found.images:
            raise UserError(f"none of the {self._sizes[split]} images of the split {split} can be read")
        return found

    def close(self) -> None:
        """Stops the background threads."""
        self._background.shutdown(cancel_futures=True)
        self._supply.close()


class _BrokenImages:
    """Records each skipped image once, in a file of the run directory and on stderr."""

    def __init__(self, workdir: Path) -> None:
        self._run, self._process = RunDirectory(workdir), jax.process_index()
        self._known = {line["image"] for line in self._run.broken(self._process)}

    def note(self, split: str, image: str, why: Callable[[], str]) -> None:
        """Records an image unless it is known; :class:`~resnet_flax.data.device_arrays.StreamedBatches` calls it."""
        if image in self._known:
            return
        self._known.add(image)
        reason = why().removeprefix(f"{image}: ")
        path = self._run.note_broken({"image": image, "split": split, "reason": reason}, self._process)
        print(f"{image}: {reason}; skipped, {len(self._known)} so far ({path})", file=sys.stderr)
