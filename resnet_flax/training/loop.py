"""The training loop: trains a run to its last step, and resumes it after any number of stops."""

import contextlib
import time
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax import memory
from resnet_flax.data.datasets import Data
from resnet_flax.networks import build
from resnet_flax.paths import expanded
from resnet_flax.runs import resume
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runtime.hosts import Hosts
from resnet_flax.runtime.progress import Progress
from resnet_flax.runtime.stopping import StopRequest
from resnet_flax.tracking import table
from resnet_flax.tracking.tracker import TENSORBOARD_ALONE, Tracking
from resnet_flax.training import fine_tuning
from resnet_flax.training.executor import Executor
from resnet_flax.training.meter import Meter, Pace
from resnet_flax.training.metric_functions import progress_text
from resnet_flax.training.readiness import check_images, check_settings, check_shapes, images_record
from resnet_flax.training.recipe import Recipe
from resnet_flax.training.run import RESUME_HINT, TrainingRun, parameter_count
from resnet_flax.training.schedule import warn_once
from resnet_flax.training.setup import RunSetup, prepare
from resnet_flax.training.step import reset_sums


def run(config: ConfigDict, workdir: str | Path, tracking: Tracking = TENSORBOARD_ALONE) -> dict[str, Any]:
    """Trains a run to its last step; resumes it if an earlier call was stopped.

    Args:
      config: The config of the run; it need not be resolved.
      workdir: The run directory.
      tracking: The trackers that receive the metrics.

    Returns:
      The last line of the run's metrics.

    Raises:
      UserError: The config, the data or the run directory cannot be used.
      Interrupted: SIGTERM or SIGINT was received; everything is saved.
      Diverged: The loss or a parameter is no longer finite; the last good checkpoint is kept.
    """
    directory, hosts = RunDirectory(expanded(workdir)), Hosts()
    with StopRequest() as stop, contextlib.ExitStack() as held, directory.report_full_disk():
        held.callback(memory.return_free)
        setup, weights = _prepare(config, directory, hosts, held, tracking)
        held.enter_context(hosts.fail_fast(RESUME_HINT))
        if hosts.from_first([directory.is_finished(setup.config)])[0]:
            hosts.say(f"{directory.path}: already finished, at step {setup.config.train.steps}")
            if not hosts.first:
                lines = directory.repaired_metrics()[0]
                return lines[-1] if lines else {}  # a network file system may show them later
            for remark in resume.remarks_on_finished(directory, setup.config):
                hosts.say(remark)
            lines = directory.repair_metrics()
            directory.complete_trackers(lines, tracking)
            return lines[-1]
        if hosts.first:
            if directory.note_checksums():
                hosts.say(f"{directory.path}: an earlier version started this run without checksums of its files; they "
                          f"have been added")  # fmt: skip
            directory.write_config(setup.config)
            directory.write_images(setup.preprocessing, images_record(setup.dataset))
        started = TrainingRun(setup, weights, directory, hosts, stop, tracking)
        del weights  # the run releases them once they are on the devices
        return train(setup.config, started)


def _prepare(
    config: ConfigDict, directory: RunDirectory, hosts: Hosts, held: contextlib.ExitStack, tracking: Tracking
) -> tuple[RunSetup, dict[str, Any] | None]:
    """Checks the config, builds its data set and network, and locks the run directory.

    Returns:
      The setup, and the variables to start from; None for random ones.

    Raises:
      UserError: The run cannot start on at least one host; raised on all of them.
    """
    setup, weights, refusal = None, None, None
    try:
        table.check(tracking.trackers)
        config = fine_tuning.adopt(configs.resolve(config), directory.path, hosts.say)
        if hosts.first:
            held.enter_context(directory.locked())
        check_settings(config, directory if hosts.first else None, jax.device_count())
        memory.check_training(config, build(config.model, classes=1))
        setup = prepare(config, directory.saved_normalization(config))
        if hosts.first:
            check_images(directory, config, setup.dataset, setup.normalization)
        if not directory.is_finished(config):
            check_shapes(config, setup.network, setup.image_shape)
        if config.init.weights and not directory.steps():
            weights = fine_tuning.load(config, setup.network, setup.image_shape)
    except Exception as error:
        refusal = error
    hosts.raise_together(refusal)
    assert setup is not None, "every failure is raised above"
    data = setup.dataset
    hosts.check_same(data.fingerprint, f"{data.where}: the {data.access.form.split()[0]}")
    return setup, weights


def train(config: ConfigDict, run: TrainingRun) -> dict[str, Any]:
    """Trains from the newest checkpoint, or from step 0, to the last step; returns the last line of metrics."""
    started, setup, steps = time.perf_counter(), run.setup, config.train.steps
    recipe = Recipe(config)
    executor = Executor(setup, recipe, run.path)
    name = f"{configs.name_of(config.model)} on {config.data.name}"
    with run.opened(executor):
        run.say(f"{run.path}: {_data_summary(setup.dataset)}")
        warn_once(config, run.say)
        optimizer = recipe.optimizer()
        like = run.abstract_state(optimizer)
        executor.compile(like)
        run.say(f"{run.path}: compiling, which takes longest the first time; later starts read the cache")
        state = run.restore(optimizer, like)
        step, parameters = int(state.step), parameter_count(state)
        with run.logging(step, parameters):
            executor.begin(step)
            devices = f"{jax.device_count()} {jax.devices()[0].device_kind}"
            seconds = time.perf_counter() - started
            run.say(f"{run.path}: {name}, {parameters:,} parameters, on {devices}; ready after {seconds:.1f} s")
            meter, pace, shown = Meter(setup, executor, recipe.rate(recipe.numbers), state), Pace(), ""
            line: dict[str, Any] = {}
            with Progress(steps, name, "steps", initial=step) as progress:
                while step < steps:
                    count = run.next_call(state, step, min(steps_to_next(step, config.train), pace.steps))
                    with pace:
                        state, count = run.advance(executor, state, step, count)
                        pace.count = count
                    step += count
                    sums = jax.device_get(state.sums)
                    run.check_loss(int(sums["first_bad_step"]))

                    last = step == steps
                    saves = last or step % config.train.checkpoint_every == 0
                    # The checkpoint with the lowest validation error is kept, so each one needs its error.
                    validates = saves and "validation" in executor.held_out
                    evaluates = last or step % config.train.eval_every == 0 or validates
                    if evaluates or saves:
                        run.check_parameters(state, step)
                    if evaluates or step % config.train.log_every == 0:
                        line, failure = meter.line(state, step, sums, evaluates)
                        state = reset_sums(state)
                        if failure is not None:
                            run.stop_unevaluated(state, line, failure)
                        line = run.write(line)
                    if saves:
                        run.save(state, step, line.get("validation_error"))
                    if line.get("test_error") is not None:
                        shown = f", test error {line['test_error']:.2%}"
                    progress.update(count, progress_text(sums, setup.metrics, config.train.batch_size) + shown)
        run.wait()
        return line


def steps_to_next(step: int, train: ConfigDict) -> int:
    """Returns the number of steps to the next line of metrics, evaluation, checkpoint or the end of the run."""
    every = (train.log_every, train.eval_every, train.checkpoint_every)
    return min(train.steps, *((step // n + 1) * n for n in every)) - step


def _data_summary(dataset: Data) -> str:
    """Summarises a data set in a line: its classes, and the number of training and test images."""
    names, most = dataset.classes, 10
    listed = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
    aside = f", {len(dataset.validation)} set aside for validation" if len(dataset.validation) else ""
    note = f"; {dataset.note}" if dataset.note else ""
    return f"{len(names)} classes ({listed}); {len(dataset.train)} + {len(dataset.test)} images{aside}{note}"
