"""A run: from a config and a folder to its last step, over as many stops as it takes."""

import contextlib
import math
import time
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax import memory
from resnet_flax.data.images import Dataset
from resnet_flax.data.photographs import PhotoDataset
from resnet_flax.errors import Diverged, Interrupted, UserError
from resnet_flax.networks import build
from resnet_flax.paths import expanded
from resnet_flax.runs.checkpoints import Checkpoints
from resnet_flax.runs.directory import METRICS, RunDirectory
from resnet_flax.runs.metrics import MetricsLog, NoMetricsLog
from resnet_flax.runtime.environment import environment
from resnet_flax.runtime.hosts import Hosts
from resnet_flax.runtime.progress import Progress
from resnet_flax.runtime.stopping import StopRequest
from resnet_flax.training import fine_tuning
from resnet_flax.training import optimizer as optimizers
from resnet_flax.training.devices import replicated
from resnet_flax.training.feeds import Feed
from resnet_flax.training.parts import Parts, prepare
from resnet_flax.training.readiness import check_images, check_settings, photographs_of
from resnet_flax.training.schedule import learning_rate
from resnet_flax.training.state import State, abstract_state, initial_state, restored
from resnet_flax.training.step import all_finite, forget_sums

_GOES_ON = "Checkpoints are whole: the same command goes on, with as many processes or fewer"

# One call of the compiled steps takes about this long: what a signal, or the bar, has to wait for. On a CPU each call
# finds its memory anew, which makes steps of 0.4 s a seventh slower in calls of one step than in calls of five.
_SECONDS_A_CALL = 2.0


def run(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains what the config says, in the folder; goes on where an earlier call was stopped.

    Returns:
      The last line of the run's metrics.

    Raises:
      UserError: the user's mistake, before anything is compiled.
      Interrupted: SIGTERM or SIGINT came; everything is saved.
      Diverged: the loss is not finite any more; the last good checkpoint is kept.
    """
    workdir = expanded(workdir)
    folder, hosts = RunDirectory(workdir), Hosts()
    with StopRequest() as stop, contextlib.ExitStack() as held, folder.report_full_disk():
        parts, weights, refusal = None, None, None
        try:
            config = fine_tuning.adopt(configs.resolve(config), workdir)
            if hosts.first:
                held.enter_context(folder.locked())
            check_settings(config, folder if hosts.first else None, jax.device_count())
            memory.check_training(config, build(config.model, classes=1))
            parts = prepare(config, folder.known_normalization(config))
            if hosts.first:
                check_images(folder, parts)
            if config.init.weights and not folder.has_checkpoint():
                weights = fine_tuning.load(config, parts.network, parts.image_shape)
        except Exception as error:
            refusal = error
        hosts.raise_together(refusal)
        if isinstance(parts.dataset, PhotoDataset):
            hosts.check_same(parts.dataset.fingerprint(), f"{parts.dataset.where}: the photographs")
        held.enter_context(hosts.fail_fast(_GOES_ON))
        if folder.is_finished(config):
            hosts.say(f"{workdir}: finished before, at step {config.train.steps}")
            return (folder.put_back() if hosts.first else folder.mended()[0])[-1]
        if hosts.first:
            if folder.note_checksums():
                hosts.say(f"{workdir}: begun by an earlier version without checksums of its files; they have them now")
            folder.write_config(config)
            folder.write_images(parts.preprocessing, photographs_of(parts))
        return _Run(parts, folder, hosts, stop, weights).go()


class _Run:
    """The loop of one run, and what it carries from call to call."""

    def __init__(
        self, parts: Parts, folder: RunDirectory, hosts: Hosts, stop: StopRequest, weights: dict[str, Any] | None
    ) -> None:
        self.parts, self.folder, self.stop, self.weights = parts, folder, stop, weights
        self.workdir, self.hosts, self.say = folder.path, hosts, hosts.say
        self.config, self.train = parts.config, parts.config.train
        rate = learning_rate(self.config.optimizer, self.config.schedule)
        self.rate, self.optimizer = jax.jit(rate), optimizers.build(self.config.optimizer, rate)
        self.feed = Feed(parts, self.optimizer, self.workdir)
        self.validates = "validation" in self.feed.held_out
        self.state: State | None = None

    def go(self) -> dict[str, Any]:
        started = time.perf_counter()
        with (
            Checkpoints(self.workdir, self.train.keep_checkpoints, self.validates) as self.checkpoints,
            contextlib.closing(self.feed),
            self.hosts.fail_fast(_GOES_ON),  # before the checkpoints are closed, which waits for the others
            self.folder.report_full_disk(),
        ):
            self.say(f"{self.workdir}: {_images_of(self.parts.dataset)}")
            step = self._restore_or_initialize()
            if step >= self.train.steps:
                raise UserError(
                    f"{self.workdir} holds the checkpoint of the last step, {step}, but its metrics.jsonl does not "
                    f"reach it; to run it anew, move the folder away"
                )
            size = sum(leaf.size for leaf in jax.tree.leaves(self.state.params))
            if self.hosts.first:
                data = self.parts.dataset
                elsewhere = self.folder.record_start(step, size, len(data.classes), environment(), data.note)
                if elsewhere:
                    self.say(
                        f"{self.workdir}: the last bits may differ from an uninterrupted run's: {'; '.join(elsewhere)}"
                    )
            with self._log(step) as self.log:
                self.feed.begin(self.state, step)
                self.say(
                    f"{self.workdir}: {self._name()}, {size:,} parameters, on {jax.device_count()} "
                    f"{jax.devices()[0].device_kind}; ready after {time.perf_counter() - started:.1f} s"
                )
                return self._loop(step)

    def _restore_or_initialize(self) -> int:
        """Sets the state; returns its step."""
        what = self.parts.network, self.optimizer
        shape, everywhere = self.parts.image_shape, replicated(self.parts.mesh)
        ema = self.config.optimizer.ema
        like = abstract_state(*what, shape, everywhere, ema)
        items = self.checkpoints.restore(like.items, partly=("sums",))
        verb = "starts" if items is None else "goes on"
        if items is not None:
            self.state = restored(items, like)
        else:
            self.state = initial_state(*what, self.config.seed, shape, everywhere, ema, self.weights)
        self.weights = None  # their memory is not needed any more
        step = int(self.state.step)
        self.checkpoints.set_aside_after(step)
        if not step and (reached := self.folder.reached()) > 0:
            self.say(f"{self.workdir}: its metrics reach step {reached}, but its checkpoints are gone; it starts anew")
        self.say(f"{self.workdir}: {verb} at step {step} of {self.train.steps}")
        return step

    def _name(self) -> str:
        return f"{configs.name_of(self.config.model)} on {self.config.data.name}"

    def _log(self, step: int) -> MetricsLog | NoMetricsLog:
        if not self.hosts.first:
            return NoMetricsLog()
        return self.folder.metrics_log(step, self.checkpoints.record)

    def _save(self, step: int, validation_error: float | None = None) -> None:
        self.checkpoints.save(step, self.state.items, validation_error, self.log.texts)

    def _loop(self, step: int) -> dict[str, Any]:
        train, line, test_error = self.train, {}, None
        pace = _Pace()
        with Progress(train.steps, self._name(), "steps", initial=step) as progress:
            self.since, self.since_images = time.perf_counter(), int(self.state.sums.images)
            while step < train.steps:
                boundary = min(_next(step, n) for n in (train.log_every, train.eval_every, train.checkpoint_every))
                wanted = min(boundary, train.steps) - step
                leave, count = self.hosts.next_call(self.stop.received is not None, min(wanted, pace.steps))
                if leave:
                    self._leave(step)
                with pace:
                    count = pace.count = self._advance(step, count)
                step += count
                sums = jax.device_get(self.state.sums)
                if sums.first_bad_step >= 0:
                    self._diverge(int(sums.first_bad_step), "the loss is")

                last = step == train.steps
                saves = last or step % train.checkpoint_every == 0
                # A checkpoint that may become the best one needs its validation error.
                evaluates = last or step % train.eval_every == 0 or (saves and self.validates)
                if (evaluates or saves) and not bool(all_finite(self.state)):
                    self._diverge(step - 1, "after the update, a parameter is")
                if evaluates or step % train.log_every == 0:
                    line, failure = self._line(step, sums, evaluates)
                    if failure is not None:
                        self._stop_unevaluated(step, line, failure)
                    line = self._said(step, line)
                    self.log.write(line)
                    test_error = line.get("test_error", test_error)
                if saves:
                    self._save(step, line.get("validation_error"))
                note = f"training error {sums.errors / sums.images:.2%}"
                progress.update(count, note + (f", test error {test_error:.2%}" if test_error is not None else ""))
        self.checkpoints.wait()
        return line

    def _line(self, step: int, sums: Any, evaluates: bool) -> tuple[dict[str, Any], UserError | None]:
        """The metrics at a step, and what kept it from being evaluated; what training has shown is forgotten then."""
        seconds = time.perf_counter() - self.since
        images = int(sums.images)
        line: dict[str, Any] = {
            "step": step,
            "epoch": step * self.train.batch_size / len(self.parts.dataset.train),
            "train_loss": float(sums.loss) / images,
            "train_error": int(sums.errors) / images,
            "learning_rate": float(self.rate(jax.device_put(np.int32(step - 1)))),
            "images_per_second": (images - self.since_images) / seconds,
            "seconds": seconds,
        }
        failure, kinds = None, [(self.state.eval_variables, "")]
        if self.state.average is not None:  # an average that is far from the parameters is then seen
            kinds.append((self.state.variables, "_raw"))
        try:
            for name in self.feed.held_out if evaluates else ():
                for variables, suffix in kinds:
                    result = self.feed.evaluate(variables, name)
                    line |= {f"{name}_loss{suffix}": result.loss, f"{name}_error{suffix}": result.error}
            if evaluates and self.train.eval_train:
                line["train_error_clean"] = self.feed.evaluate(self.state.eval_variables, "train").error
        except UserError as error:
            failure = error
        self.state = forget_sums(self.state)
        self.since, self.since_images = time.perf_counter(), 0
        return line, failure

    def _said(self, step: int, line: dict[str, Any]) -> dict[str, Any]:
        """The line with None for what is not finite, after saying so; a run ends only where a parameter is not."""
        bad = [name for name, value in line.items() if not math.isfinite(value)]
        if bad:
            self.say(
                f"{self.workdir}: step {step}: not finite: {', '.join(bad)} (null in {METRICS}); training goes on "
                f"while the parameters are finite"
            )
        return {name: None if name in bad else value for name, value in line.items()}

    def _stop_unevaluated(self, step: int, line: dict[str, Any], failure: UserError) -> NoReturn:
        """A test image cannot be read: what was learned is saved, but for the last step, which is to be evaluated."""
        if step == self.train.steps or self.hosts.count > 1:
            raise failure
        self.log.write(self._said(step, line))
        self._save(step)
        self.checkpoints.wait()
        raise UserError(f"{failure} (stopped and saved at step {step} of {self.train.steps}, which was not evaluated)")

    def _advance(self, step: int, count: int) -> int:
        """Takes at most that many steps; returns how many they were."""
        try:
            self.state, count = self.feed.advance(self.state, count)
        except UserError as error:  # of the data: what was learned so far is not lost with them
            if self.hosts.count > 1:
                raise  # the others are in a step that needs this one, and save nothing
            if self.stop.received is not None:
                self._leave(step)  # the signal has ended workers that were only starting
            self._save(step)
            self.checkpoints.wait()
            raise UserError(f"{error} (stopped and saved at step {step} of {self.train.steps})") from None
        return count

    def _leave(self, step: int) -> None:
        if bool(all_finite(self.state)):
            self._save(step)
        self.checkpoints.wait()
        if self.hosts.first:
            self.folder.write_interrupted(step)
        raise Interrupted(
            f"{self.workdir}: stopped by {self.stop.received or 'a signal to another process'} and saved at step {step}"
            f" of {self.train.steps}; the same command goes on from there"
        )

    def _diverge(self, step: int, what: str) -> None:
        self.checkpoints.wait()
        saved = self.checkpoints.last_saved
        kept = f"the checkpoint of step {saved} is kept" if saved is not None else "there was no checkpoint yet"
        message = (
            f"{self.workdir}: {what} not finite at step {step}; {kept}. A smaller optimizer.learning_rate may help"
        )
        if self.hosts.first:
            self.folder.write_diverged(step, message)
        raise Diverged(message)


class _Pace:
    """How many steps a call may hold, so that it takes about two seconds; results do not depend on it."""

    def __init__(self) -> None:
        self.steps = self.count = 1  # of the next call, at most; of the one that is measured

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        a_step = (time.perf_counter() - self._start) / self.count
        self.steps = max(1, min(int(_SECONDS_A_CALL / max(a_step, 1e-9)), 4 * self.steps))


def _images_of(dataset: Dataset | PhotoDataset) -> str:
    """Which classes were found, and how many images for training and for testing."""
    names, most = dataset.classes, 10
    listed = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
    aside = f", {len(dataset.validation)} set aside for validation" if len(dataset.validation) else ""
    return (
        f"{len(names)} classes ({listed}); {len(dataset.train)} + {len(dataset.test)} images{aside}"
        + f"; {dataset.note}" * bool(dataset.note)
    )


def _next(step: int, every: int) -> int:
    """The first multiple of ``every`` after the step."""
    return (step // every + 1) * every
