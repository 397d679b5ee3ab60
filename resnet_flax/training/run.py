"""A run in progress: restores and saves its state, writes its metrics, and ends it early if necessary."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jax
import optax

from resnet_flax import config as configs
from resnet_flax.errors import Diverged, Interrupted, UserError
from resnet_flax.runs import resume
from resnet_flax.runs.checkpoints import Checkpoints
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import METRICS
from resnet_flax.runs.metrics import MetricsLog
from resnet_flax.runtime.environment import environment, shortened
from resnet_flax.runtime.hosts import Hosts
from resnet_flax.runtime.stopping import StopRequest
from resnet_flax.tracking.tracker import Tracking
from resnet_flax.training.devices import replicated
from resnet_flax.training.executor import Executor
from resnet_flax.training.setup import RunSetup
from resnet_flax.training.state import State, abstract_state, initial_state, restored
from resnet_flax.training.step import all_finite

RESUME_HINT = "The checkpoints are intact: the same command resumes the run, with as many processes or fewer"


class TrainingRun:
    """A run in progress, on all its hosts.

    Attributes:
      path: The path of the run directory.
      say: Prints a line on stderr, once for all hosts.

    Args:
      setup: The data set, network and mesh of the run.
      weights: The variables to start from; None for random ones.
      directory: The run directory; the first host has locked it.
      hosts: The processes that compute the run.
      stop: Knows whether a signal asked the run to stop.
      tracking: The trackers that receive the metrics.
    """

    def __init__(
        self,
        setup: RunSetup,
        weights: Mapping[str, Any] | None,
        directory: RunDirectory,
        hosts: Hosts,
        stop: StopRequest,
        tracking: Tracking,
    ) -> None:
        self.setup, self._weights, self.directory, self.hosts, self.stop = setup, weights, directory, hosts, stop
        self.path, self.say, self._last = directory.path, hosts.say, setup.config.train.steps
        self._tracking = tracking
        self._log: MetricsLog | None = None  # None on the hosts other than the first, which write nothing

    @contextlib.contextmanager
    def opened(self, executor: Executor) -> Iterator[None]:
        """Opens the checkpoints; on exit, waits until they are on disk and closes the executor."""
        keep, validates = self.setup.config.train.keep_checkpoints, "validation" in executor.held_out
        with (
            Checkpoints(self.path, keep, validates) as self._checkpoints,
            contextlib.closing(executor),
            self.hosts.fail_fast(RESUME_HINT),  # inside Checkpoints, whose end waits for the other hosts
            self.directory.report_full_disk(),
        ):
            yield

    def abstract_state(self, optimizer: optax.GradientTransformation) -> State:
        """Returns the shapes, dtypes and shardings of the state."""
        setup = self.setup
        sharding, ema = replicated(setup.mesh), setup.config.optimizer.ema
        return abstract_state(setup.network, optimizer, setup.image_shape, sharding, ema, setup.metrics)

    def restore(self, optimizer: optax.GradientTransformation, like: State) -> State:
        """Returns the state of the newest checkpoint, or the initial state if there is none.

        Args:
          like: The result of :meth:`abstract_state`.

        Raises:
          UserError: No checkpoint can be read, or the newest one is of the last step but its metrics are lost.
        """
        setup, config = self.setup, self.setup.config
        items = self._checkpoints.restore(like.items, partly=("sums",))
        if items is None:
            state = initial_state(
                setup.network, optimizer, config.seed, setup.image_shape, replicated(setup.mesh), config.optimizer.ema,
                self._weights, setup.metrics,
            )  # fmt: skip
        else:
            state = restored(items, like)
        self._weights = None  # frees their memory
        step = int(state.step)
        self._checkpoints.move_unreadable_after(step)
        if not step and (reached := self.directory.last_logged_step()) > 0:
            self.say(
                f"{self.path}: its metrics reach step {reached}, but no checkpoint is complete; restarting at step 0"
            )
        self.say(f"{self.path}: {'starting' if items is None else 'resuming'} at step {step} of {self._last}")
        if step >= self._last:
            raise UserError(
                f"{self.path} holds the checkpoint of the last step, {step}, but its metrics.jsonl does not reach it; "
                f"to restart the run, move the folder away"
            )
        return state

    @contextlib.contextmanager
    def logging(self, step: int, parameters: int) -> Iterator[None]:
        """Records this start of the run, and opens the log for the metrics after ``step``."""
        if not self.hosts.first:
            yield
            return
        data = self.setup.dataset
        computed, code = environment() | {"onednn": self.setup.onednn}, configs.checksums(self.setup.config)
        for remark in resume.remarks(self.directory, self.setup.config) if step else ():
            self.say(remark)
        changed = self.directory.record_start(step, parameters, len(data.classes), computed, shortened(data.note), code)
        if step and jax.default_backend() == "gpu":
            changed.append("computed on a GPU")
        if changed:
            self.say(f"{self.path}: the last bits may differ from an uninterrupted run's: {'; '.join(changed)}")
        with self.directory.metrics_log(step, self._checkpoints.record, self._tracking) as self._log:
            yield

    def next_call(self, state: State, step: int, wanted: int) -> int:
        """Returns the number of steps of the next call, the same on all hosts; at most what the first host wants.

        Raises:
          Interrupted: A host received a signal; the state is saved.
        """
        stop, count = self.hosts.next_call(self.stop.received is not None, wanted)
        if stop:
            self._interrupt(state, step)
        return count

    def advance(self, executor: Executor, state: State, step: int, count: int) -> tuple[State, int]:
        """Takes at most ``count`` steps; returns the new state and the number of steps taken.

        Raises:
          UserError: A batch cannot be made; the state before it is saved, unless there are several hosts.
        """
        try:
            return executor.advance(state, count)
        except UserError as error:
            if self.hosts.count > 1:
                raise  # the other hosts wait in a step for this one, so the state cannot be saved
            if self.stop.received is not None:
                self._interrupt(state, step)  # the error is probably that the signal ended a worker process
            self._stop_on_error(state, step, error)

    def save(self, state: State, step: int, validation_error: float | None = None) -> None:
        """Starts to write a checkpoint in the background."""
        self._checkpoints.save(step, state.items, validation_error, self._log.texts if self._log else ())

    def wait(self) -> None:
        """Returns when every checkpoint is on disk."""
        self._checkpoints.wait()

    def write(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Writes a line of metrics and returns it as written: values that are not finite are reported and become None.

        Such a value does not end the run; only the training loss or a parameter that is not finite does.
        """
        bad = [name for name, value in line.items() if not math.isfinite(value)]
        if bad:
            self.say(
                f"{self.path}: step {line['step']}: not finite: {', '.join(bad)} (null in {METRICS}); training "
                f"continues while the parameters are finite"
            )
        written = {name: None if name in bad else value for name, value in line.items()}
        if self._log:
            self._log.write(written)
        return written

    def stop_unevaluated(self, state: State, line: Mapping[str, Any], failure: UserError) -> NoReturn:
        """Ends a run whose evaluation failed; saves it, except at the last step, which a resume has to evaluate."""
        step = line["step"]
        if step == self._last or self.hosts.count > 1:
            raise failure
        self.write(line)
        self._stop_on_error(state, step, failure, ", which was not evaluated")

    def check_loss(self, first_bad_step: int) -> None:
        """Ends the run if its loss was not finite; ``first_bad_step`` is -1 if it always was."""
        if first_bad_step >= 0:
            self._diverge(first_bad_step, "the loss is")

    def check_parameters(self, state: State, step: int) -> None:
        """Ends the run if a parameter or running statistic is not finite after ``step`` steps."""
        if not all_finite(state):
            self._diverge(step - 1, "after the update, a parameter is")

    def _stop_on_error(self, state: State, step: int, error: UserError, more: str = "") -> NoReturn:
        self.save(state, step)
        self.wait()
        raise UserError(f"{error} (stopped and saved at step {step} of {self._last}{more})") from None

    def _interrupt(self, state: State, step: int) -> NoReturn:
        finite = all_finite(state)
        if finite:
            self.save(state, step)
        self.wait()
        if self.hosts.first:
            self.directory.write_interrupted(self._checkpoints.last_saved or 0)
        by = self.stop.received or "a signal to another process"
        if finite:
            raise Interrupted(
                f"{self.path}: stopped by {by} and saved at step {step} of {self._last}; the same command resumes it"
            )
        raise Interrupted(
            f"{self.path}: stopped by {by} at step {step} of {self._last}, and not saved there, because a parameter is "
            f"not finite; {self._kept()}; the same command resumes from there"
        )

    def _diverge(self, step: int, what: str) -> NoReturn:
        self.wait()
        message = (
            f"{self.path}: {what} not finite at step {step}; {self._kept()}. A smaller optimizer.learning_rate may help"
        )
        if self.hosts.first:
            self.directory.write_diverged(step, message)
        raise Diverged(message)

    def _kept(self) -> str:
        saved = self._checkpoints.last_saved
        return "there was no checkpoint yet" if saved is None else f"the checkpoint of step {saved} is kept"


def parameter_count(state: State) -> int:
    """Returns the number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))
