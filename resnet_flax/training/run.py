"""A run on its way: its directory, hosts and checkpoints; how it is saved, and how it ends before its last step."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jax
import optax

from resnet_flax.errors import Diverged, Interrupted, UserError
from resnet_flax.runs.checkpoints import Checkpoints
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import METRICS
from resnet_flax.runs.metrics import MetricsLog, NoMetricsLog
from resnet_flax.runtime.environment import environment
from resnet_flax.runtime.hosts import Hosts
from resnet_flax.runtime.stopping import StopRequest
from resnet_flax.tracking.tracker import Tracking
from resnet_flax.training.devices import replicated
from resnet_flax.training.feeds import Feed
from resnet_flax.training.parts import Parts
from resnet_flax.training.state import State, abstract_state, initial_state, restored
from resnet_flax.training.step import all_finite

GOES_ON = "Checkpoints are whole: the same command goes on, with as many processes or fewer"


class Run:
    """A run on its way: what all its hosts agree on, and what it leaves behind, from its start to its last step.

    Attributes:
      path: of its directory.
      say: prints a line, once for all hosts.

    Args:
      parts: what its config names.
      weights: variables to start from, in place of random ones.
      directory: where it lies; the first host holds it.
      hosts: that compute it.
      stop: by a signal.
      tracking: which trackers get its metrics.
    """

    def __init__(
        self,
        parts: Parts,
        weights: Mapping[str, Any] | None,
        directory: RunDirectory,
        hosts: Hosts,
        stop: StopRequest,
        tracking: Tracking,
    ) -> None:
        self.parts, self._weights, self.directory, self.hosts, self.stop = parts, weights, directory, hosts, stop
        self.path, self.say, self._last = directory.path, hosts.say, parts.config.train.steps
        self._tracking = tracking
        self._log: MetricsLog | NoMetricsLog = NoMetricsLog()

    @contextlib.contextmanager
    def opened(self, feed: Feed) -> Iterator[None]:
        """Opens the checkpoints; in the end they are on disk, and the feed is closed."""
        keep, validates = self.parts.config.train.keep_checkpoints, "validation" in feed.held_out
        with (
            Checkpoints(self.path, keep, validates) as self._checkpoints,
            contextlib.closing(feed),
            self.hosts.fail_fast(GOES_ON),  # before the checkpoints are closed, which waits for the others
            self.directory.report_full_disk(),
        ):
            yield

    def abstract_state(self, optimizer: optax.GradientTransformation) -> State:
        """Shapes, dtypes and places of the state's arrays."""
        parts = self.parts
        everywhere, ema = replicated(parts.mesh), parts.config.optimizer.ema
        return abstract_state(parts.network, optimizer, parts.image_shape, everywhere, ema, parts.metrics)

    def restore(self, optimizer: optax.GradientTransformation, like: State) -> State:
        """The state of the newest checkpoint; without one, that of step 0.

        Args:
          like: of :meth:`abstract_state`.

        Raises:
          UserError: it is that of the last step, whose metrics are lost; or no checkpoint can be read.
        """
        parts, config = self.parts, self.parts.config
        items = self._checkpoints.restore(like.items, partly=("sums",))
        if items is None:
            state = initial_state(
                parts.network, optimizer, config.seed, parts.image_shape, replicated(parts.mesh), config.optimizer.ema,
                self._weights, parts.metrics,
            )  # fmt: skip
        else:
            state = restored(items, like)
        self._weights = None  # their memory is not needed any more
        step = int(state.step)
        self._checkpoints.move_unreadable_after(step)
        if not step and (reached := self.directory.last_logged_step()) > 0:
            self.say(f"{self.path}: its metrics reach step {reached}, but its checkpoints are gone; it starts anew")
        self.say(f"{self.path}: {'starts' if items is None else 'goes on'} at step {step} of {self._last}")
        if step >= self._last:
            raise UserError(
                f"{self.path} holds the checkpoint of the last step, {step}, but its metrics.jsonl does not reach it; "
                f"to run it anew, move the folder away"
            )
        return state

    @contextlib.contextmanager
    def logging(self, step: int, parameters: int) -> Iterator[MetricsLog | NoMetricsLog]:
        """Records the start, and opens the log of metrics after that step."""
        if not self.hosts.first:
            yield self._log
            return
        data = self.parts.dataset
        computed = environment() | {"onednn": self.parts.onednn}
        changed = self.directory.record_start(step, parameters, len(data.classes), computed, data.note)
        if changed:
            self.say(f"{self.path}: the last bits may differ from an uninterrupted run's: {'; '.join(changed)}")
        with self.directory.metrics_log(step, self._checkpoints.record, self._tracking) as self._log:
            yield self._log

    def next_call(self, state: State, step: int, wanted: int) -> int:
        """How many steps come next, on all hosts; at most as many as the first one wants.

        Raises:
          Interrupted: a signal came, to whichever of them; what was learned is saved.
        """
        stop, count = self.hosts.next_call(self.stop.received is not None, wanted)
        if stop:
            self._leave(state, step)
        return count

    def advance(self, feed: Feed, state: State, step: int, count: int) -> tuple[State, int]:
        """Takes at most that many steps; the state after them, and how many they were.

        Raises:
          UserError: a batch cannot be made; what was learned until then is saved.
        """
        try:
            return feed.advance(state, count)
        except UserError as error:  # of the data: what was learned so far is not lost with them
            if self.hosts.count > 1:
                raise  # the others are in a step that needs this one, and save nothing
            if self.stop.received is not None:
                self._leave(state, step)  # the signal has ended workers that were only starting
            self._stop(state, step, error)

    def save(self, state: State, step: int, validation_error: float | None = None) -> None:
        """Starts to write a checkpoint."""
        self._checkpoints.save(step, state.items, validation_error, self._log.texts)

    def wait(self) -> None:
        """Returns when every checkpoint is on disk."""
        self._checkpoints.wait()

    def write(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Writes a line of metrics, with None for what is not finite, after saying so; returns it.

        The run goes on: it ends only where a parameter is not finite.
        """
        bad = [name for name, value in line.items() if not math.isfinite(value)]
        if bad:
            self.say(
                f"{self.path}: step {line['step']}: not finite: {', '.join(bad)} (null in {METRICS}); training goes on "
                f"while the parameters are finite"
            )
        written = {name: None if name in bad else value for name, value in line.items()}
        self._log.write(written)
        return written

    def stop_unevaluated(self, state: State, line: Mapping[str, Any], failure: UserError) -> NoReturn:
        """A test image cannot be read: what was learned is saved, but for the last step, which is to be evaluated."""
        step = line["step"]
        if step == self._last or self.hosts.count > 1:
            raise failure
        self.write(line)
        self._stop(state, step, failure, ", which was not evaluated")

    def check_loss(self, first_bad_step: int) -> None:
        """Ends a run whose loss was not finite at a step; -1 for none."""
        if first_bad_step >= 0:
            self._diverge(first_bad_step, "the loss is")

    def check_parameters(self, state: State, step: int) -> None:
        """Ends a run with a parameter that is not finite after a step."""
        if not all_finite(state):
            self._diverge(step - 1, "after the update, a parameter is")

    def _stop(self, state: State, step: int, error: UserError, more: str = "") -> NoReturn:
        self.save(state, step)
        self.wait()
        raise UserError(f"{error} (stopped and saved at step {step} of {self._last}{more})") from None

    def _leave(self, state: State, step: int) -> NoReturn:
        if all_finite(state):
            self.save(state, step)
        self.wait()
        if self.hosts.first:
            self.directory.write_interrupted(step)
        raise Interrupted(
            f"{self.path}: stopped by {self.stop.received or 'a signal to another process'} and saved at step {step} "
            f"of {self._last}; the same command goes on from there"
        )

    def _diverge(self, step: int, what: str) -> NoReturn:
        self.wait()
        saved = self._checkpoints.last_saved
        kept = f"the checkpoint of step {saved} is kept" if saved is not None else "there was no checkpoint yet"
        message = f"{self.path}: {what} not finite at step {step}; {kept}. A smaller optimizer.learning_rate may help"
        if self.hosts.first:
            self.directory.write_diverged(step, message)
        raise Diverged(message)


def size_of(state: State) -> int:
    """How many parameters there are."""
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))
