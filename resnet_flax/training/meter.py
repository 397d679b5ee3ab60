"""The metrics of a run at a step: of training since the line before, and of the splits that are evaluated."""

import time
from typing import Any

import jax
import numpy as np
import optax

from resnet_flax.errors import UserError
from resnet_flax.training.feeds import Feed
from resnet_flax.training.metric_functions import in_training
from resnet_flax.training.parts import Parts
from resnet_flax.training.state import State

_SECONDS_A_CALL = 2.0


class Meter:
    """Measures a run line by line.

    Args:
      parts: what its config names.
      feed: that evaluates.
      rate: the learning rate by step.
      state: at the start; it may have seen steps since the last line.
    """

    def __init__(self, parts: Parts, feed: Feed, rate: optax.Schedule, state: State) -> None:
        self._train, self._images, self._metrics = parts.config.train, len(parts.dataset.train), parts.metrics
        self._feed, self._rate = feed, jax.jit(rate)
        self._since, self._images_before = time.perf_counter(), int(state.sums["images"])

    def line(self, state: State, step: int, sums: Any, evaluates: bool) -> tuple[dict[str, Any], UserError | None]:
        """The metrics at a step, and what kept it from being evaluated.

        Args:
          sums: of the state, on the host; the caller forgets them.
          evaluates: whether the splits that are held out are evaluated.
        """
        seconds = time.perf_counter() - self._since
        images = int(sums["images"])
        line: dict[str, Any] = {
            "step": step,
            "epoch": step * self._train.batch_size / self._images,
            **in_training(sums, self._metrics, self._train.batch_size),
            "learning_rate": float(self._rate(jax.device_put(np.int32(step - 1)))),
            "images_per_second": (images - self._images_before) / seconds,
            "seconds": seconds,
        }
        failure, kinds = None, [(state.eval_variables, "")]
        if state.average is not None:  # an average that is far from the parameters is then seen
            kinds.append((state.variables, "_raw"))
        try:
            for name in self._feed.held_out if evaluates else ():
                for variables, suffix in kinds:
                    result = self._feed.evaluate(variables, name)
                    line |= {f"{name}_{metric}{suffix}": result.mean(metric) for metric in result.sums}
            if evaluates and self._train.eval_train:
                line["train_error_clean"] = self._feed.evaluate(state.eval_variables, "train").error
        except UserError as error:
            failure = error
        self._since, self._images_before = time.perf_counter(), 0
        return line, failure


class Pace:
    """How many steps a call may hold, so that it takes about two seconds; results do not depend on it.

    That is what a signal, or the bar, has to wait for. On a CPU each call finds its memory anew, which makes steps of
    0.4 s a seventh slower in calls of one step than in calls of five.
    """

    def __init__(self) -> None:
        self.steps = self.count = 1  # of the next call, at most; of the one that is measured

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        a_step = (time.perf_counter() - self._start) / self.count
        self.steps = max(1, min(int(_SECONDS_A_CALL / max(a_step, 1e-9)), 4 * self.steps))
