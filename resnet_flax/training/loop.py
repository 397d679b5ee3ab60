"""A run: from a config and a folder to its last step, over as many stops as it takes."""

import contextlib
import json
import math
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax import memory, sums
from resnet_flax.data.datasets import Data
from resnet_flax.errors import Diverged, Interrupted, UserError
from resnet_flax.networks import build
from resnet_flax.paths import expanded
from resnet_flax.progress import Progress
from resnet_flax.run_files import RunFiles
from resnet_flax.training import fine_tuning, run_images
from resnet_flax.training import optimizer as optimizers
from resnet_flax.training import workdir as folders
from resnet_flax.training.checkpoints import Checkpoints, has_checkpoint
from resnet_flax.training.devices import (
    agree,
    alone,
    check_same,
    raise_together,
    replicated,
)
from resnet_flax.training.feeds import Feed
from resnet_flax.training.metric_functions import in_training, in_words
from resnet_flax.training.metrics import FILE, MetricsLog, NoMetricsLog, put_back, read
from resnet_flax.training.parts import Parts, prepare
from resnet_flax.training.readiness import check_settings
from resnet_flax.training.schedule import learning_rate
from resnet_flax.training.state import State, abstract_state, initial_state
from resnet_flax.training.step import all_finite, forget_sums
from resnet_flax.training.stopping import StopRequest

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
    first = jax.process_index() == 0
    with StopRequest() as stop, contextlib.ExitStack() as held, folders.room_for(workdir):
        parts, weights, refusal = None, None, None
        try:
            config = fine_tuning.adopt(configs.resolve(config), workdir)
            if first:
                held.enter_context(folders.locked(workdir))
            check_settings(config, workdir if first else None, jax.device_count())
            memory.check_training(config, build(config.model, classes=1))
            parts = prepare(config, run_images.known_normalization(workdir, config))
            if first:
                run_images.check(workdir, parts)
            if config.init.weights and not has_checkpoint(workdir):
                weights = fine_tuning.load(config, parts.network, parts.image_shape)
        except Exception as error:
            refusal = error
        raise_together(refusal)
        if (fingerprint := parts.dataset.fingerprint()) is not None:
            check_same(fingerprint, f"{parts.dataset.where}: the photographs")
        held.enter_context(alone(_GOES_ON))
        if folders.is_finished(workdir, config):
            _say(f"{workdir}: finished before, at step {config.train.steps}")
            return (put_back if first else read)(workdir)[-1]
        if first:
            if sums.note_unknown(workdir):
                _say(f"{workdir}: begun by an earlier version without checksums of its files; they have them now")
            folders.write_config(workdir, config)
            run_images.write(workdir, parts)
        return _Run(parts, workdir, stop, weights).go()


class _Run:
    """The loop of one run, and what it carries from call to call."""

    def __init__(self, parts: Parts, workdir: Path, stop: StopRequest, weights: dict[str, Any] | None) -> None:
        self.parts, self.workdir, self.stop, self.weights = parts, workdir, stop, weights
        self.config, self.train = parts.config, parts.config.train
        rate = learning_rate(self.config.optimizer, self.config.schedule)
        self.rate, self.optimizer = jax.jit(rate), optimizers.build(self.config.optimizer, rate)
        self.feed = Feed(parts, self.optimizer, workdir)
        self.validates = "validation" in self.feed.held_out
        self.state: State | None = None

    def go(self) -> dict[str, Any]:
        started = time.perf_counter()
        with (
            Checkpoints(self.workdir, self.train.keep_checkpoints, self.validates) as self.checkpoints,
            contextlib.closing(self.feed),
            alone(_GOES_ON),  # before the checkpoints are closed, which waits for the others
            folders.room_for(self.workdir),
        ):
            _say(f"{self.workdir}: {_images_of(self.parts.dataset)}")
            step = self._restore_or_initialize()
            if step >= self.train.steps:
                raise UserError(
                    f"{self.workdir} holds the checkpoint of the last step, {step}, but its metrics.jsonl does not "
                    f"reach it; to run it anew, move the folder away"
                )
            size = sum(leaf.size for leaf in jax.tree.leaves(self.state.params))
            if jax.process_index() == 0:
                data = self.parts.dataset
                elsewhere = folders.record_start(self.workdir, step, size, len(data.classes), data.note)
                if elsewhere:
                    _say(
                        f"{self.workdir}: the last bits may differ from an uninterrupted run's: {'; '.join(elsewhere)}"
                    )
            with self._log(step) as self.log:
                self.feed.begin(self.state, step)
                _say(
                    f"{self.workdir}: {self._name()}, {size:,} parameters, on {jax.device_count()} "
                    f"{jax.devices()[0].device_kind}; ready after {time.perf_counter() - started:.1f} s"
                )
                return self._loop(step)

    def _restore_or_initialize(self) -> int:
        """Sets the state; returns its step."""
        what = self.parts.network, self.optimizer
        shape, everywhere = self.parts.image_shape, replicated(self.parts.mesh)
        ema, metrics = self.config.optimizer.ema, self.parts.metrics
        self.state = self.checkpoints.restore(abstract_state(*what, shape, everywhere, ema, metrics))
        verb = "starts" if self.state is None else "goes on"
        if self.state is None:
            self.state = initial_state(*what, self.config.seed, shape, everywhere, ema, self.weights, metrics)
        self.weights = None  # their memory is not needed any more
        step = int(self.state.step)
        self.checkpoints.set_aside_after(step)
        if not step and (reached := RunFiles(self.workdir).reached()) > 0:
            _say(f"{self.workdir}: its metrics reach step {reached}, but its checkpoints are gone; it starts anew")
        _say(f"{self.workdir}: {verb} at step {step} of {self.train.steps}")
        return step

    def _name(self) -> str:
        return f"{configs.name_of(self.config.model)} on {self.config.data.name}"

    def _log(self, step: int) -> MetricsLog | NoMetricsLog:
        if jax.process_index() > 0:
            return NoMetricsLog()
        return MetricsLog(self.workdir, step, self.checkpoints.record)

    def _save(self, step: int, validation_error: float | None = None) -> None:
        self.checkpoints.save(step, self.state, validation_error, self.log.texts)

    def _loop(self, step: int) -> dict[str, Any]:
        train, line, test_error = self.train, {}, None
        pace = _Pace()
        with Progress(train.steps, self._name(), "steps", initial=step) as progress:
            self.since, self.since_images = time.perf_counter(), int(self.state.sums["images"])
            while step < train.steps:
                boundary = min(_next(step, n) for n in (train.log_every, train.eval_every, train.checkpoint_every))
                wanted = min(boundary, train.steps) - step
                leave, count = agree(self.stop.received is not None, min(wanted, pace.steps))
                if leave:
                    self._leave(step)
                with pace:
                    count = pace.count = self._advance(step, count)
                step += count
                sums = jax.device_get(self.state.sums)
                if sums["first_bad_step"] >= 0:
                    self._diverge(int(sums["first_bad_step"]), "the loss is")

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
                test = f", test error {test_error:.2%}" if test_error is not None else ""
                progress.update(count, in_words(sums, self.parts.metrics, self.train.batch_size) + test)
        self.checkpoints.wait()
        return line

    def _line(self, step: int, sums: Any, evaluates: bool) -> tuple[dict[str, Any], UserError | None]:
        """The metrics at a step, and what kept it from being evaluated; what training has shown is forgotten then."""
        seconds = time.perf_counter() - self.since
        images = int(sums["images"])
        line: dict[str, Any] = {
            "step": step,
            "epoch": step * self.train.batch_size / len(self.parts.dataset.train),
            **in_training(sums, self.parts.metrics, self.train.batch_size),
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
                    line |= {f"{name}_{metric}{suffix}": result.mean(metric) for metric in result.sums}
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
            _say(
                f"{self.workdir}: step {step}: not finite: {', '.join(bad)} (null in {FILE}); training goes on while "
                f"the parameters are finite"
            )
        return {name: None if name in bad else value for name, value in line.items()}

    def _stop_unevaluated(self, step: int, line: dict[str, Any], failure: UserError) -> NoReturn:
        """A test image cannot be read: what was learned is saved, but for the last step, which is to be evaluated."""
        if step == self.train.steps or jax.process_count() > 1:
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
            if jax.process_count() > 1:
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
        if jax.process_index() == 0:
            sums.write(self.workdir / folders.INTERRUPTED, json.dumps({"step": step}) + "\n")
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
        if jax.process_index() == 0:
            sums.write(self.workdir / folders.DIVERGED, json.dumps({"step": step, "message": message}))
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


def _images_of(dataset: Data) -> str:
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


def _say(line: str) -> None:
    if jax.process_index() == 0:
        print(line, file=sys.stderr, flush=True)
