"""Measures a run: training metrics since the last line, evaluations, and the speed of training."""

import time
from typing import Any

import jax
import numpy as np
import optax

from resnet_flax.errors import UserError
from resnet_flax.training.executor import Executor
from resnet_flax.training.metric_functions import training_metrics
from resnet_flax.training.setup import RunSetup
from resnet_flax.training.state import State

_CALL_SECONDS = 2.0


class Meter:
    """Computes the lines of metrics.jsonl.

    Args:
      setup: The setup of the run.
      executor: Evaluates the splits.
      rate: The learning rate as a function of the step.
      state: The state at the start; its sums may already cover some steps since the last line.
    """

    def __init__(self, setup: RunSetup, executor: Executor, rate: optax.Schedule, state: State) -> None:
        self._train, self._images, self._metrics = setup.config.train, len(setup.dataset.train), setup.metrics
        self._executor, self._rate = executor, jax.jit(rate)
        self._since, self._images_before = time.perf_counter(), int(state.sums["images"])

    def line(self, state: State, step: int, sums: Any, evaluates: bool) -> tuple[dict[str, Any], UserError | None]:
        """Computes the line of metrics of a step.

        Args:
          sums: The state's sums, on the host; the caller resets them afterwards.
          evaluates: Whether to evaluate the held-out splits.

        Returns:
          The line, and the error that stopped the evaluation, or None.
        """
        seconds = time.perf_counter() - self._since
        images = int(sums["images"])
        line: dict[str, Any] = {
            "step": step,
            "epoch": step * self._train.batch_size / self._images,
            **training_metrics(sums, self._metrics, self._train.batch_size),
            "learning_rate": float(self._rate(jax.device_put(np.int32(step - 1)))),
            "images_per_second": (images - self._images_before) / seconds,
            "seconds": seconds,
        }
        failure, kinds = None, [(state.eval_variables, "")]
        if state.average is not None:  # shows an average that is far from the parameters
            kinds.append((state.variables, "_raw"))
        try:
            for name in self._executor.held_out if evaluates else ():
                for variables, suffix in kinds:
                    result = self._executor.evaluate(variables, name)
                    line |= {f"{name}_{metric}{suffix}": result.mean(metric) for metric in result.sums}
            if evaluates and self._train.eval_train:
                line["train_error_clean"] = self._executor.evaluate(state.eval_variables, "train").error
        except UserError as error:
            failure = error
        self._since, self._images_before = time.perf_counter(), 0
        return line, failure


class Pace:
    """Chooses the number of steps per call, so that a call takes about two seconds; results do not depend on it.

    Signals and the progress bar have to wait for the end of a call. One step per call would be too few: on a CPU each
    call allocates its memory again, which makes steps of 0.4 s a seventh slower than in calls of five steps.

    Attributes:
      steps: The largest number of steps for the next call.
      count: The number of steps of the call that is being timed.
    """

    def __init__(self) -> None:
        self.steps = self.count = 1

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        step_seconds = (time.perf_counter() - self._start) / self.count
        self.steps = max(1, min(int(_CALL_SECONDS / max(step_seconds, 1e-9)), 4 * self.steps))
