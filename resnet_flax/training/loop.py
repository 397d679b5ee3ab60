"""Training: from a config and a folder to the last step, over as many stops as it takes."""

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
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runtime.hosts import Hosts
from resnet_flax.runtime.progress import Progress
from resnet_flax.runtime.stopping import StopRequest
from resnet_flax.tracking import table
from resnet_flax.tracking.tracker import TENSORBOARD_ALONE, Tracking
from resnet_flax.training import fine_tuning
from resnet_flax.training.feeds import Feed
from resnet_flax.training.meter import Meter, Pace
from resnet_flax.training.metric_functions import in_words
from resnet_flax.training.parts import Parts, prepare
from resnet_flax.training.readiness import check_images, check_settings, photographs_of
from resnet_flax.training.recipe import Recipe
from resnet_flax.training.run import GOES_ON, Run, size_of
from resnet_flax.training.schedule import without_end
from resnet_flax.training.step import forget_sums


def run(config: ConfigDict, workdir: str | Path, tracking: Tracking = TENSORBOARD_ALONE) -> dict[str, Any]:
    """Trains what the config says, in the folder; goes on where an earlier call was stopped.

    Args:
      config: of the run.
      workdir: the run directory.
      tracking: which trackers get its metrics.

    Returns:
      The last line of the run's metrics.

    Raises:
      UserError: the user's mistake, before anything is compiled.
      Interrupted: SIGTERM or SIGINT came; everything is saved.
      Diverged: the loss is not finite any more; the last good checkpoint is kept.
    """
    directory, hosts = RunDirectory(expanded(workdir)), Hosts()
    with StopRequest() as stop, contextlib.ExitStack() as held, directory.report_full_disk():
        parts, weights = _prepare(config, directory, hosts, held, tracking)
        held.enter_context(hosts.fail_fast(GOES_ON))
        if directory.is_finished(parts.config):
            hosts.say(f"{directory.path}: finished before, at step {parts.config.train.steps}")
            if not hosts.first:
                return directory.repaired_metrics()[0][-1]
            lines = directory.repair_metrics()
            directory.complete_trackers(lines, tracking)
            return lines[-1]
        if hosts.first:
            if directory.note_checksums():
                hosts.say(f"{directory.path}: begun by an earlier version without checksums of its files; they have "
                          f"them now")  # fmt: skip
            directory.write_config(parts.config)
            directory.write_images(parts.preprocessing, photographs_of(parts.dataset))
        return train(parts.config, Run(parts, weights, directory, hosts, stop, tracking))


def _prepare(
    config: ConfigDict, directory: RunDirectory, hosts: Hosts, held: contextlib.ExitStack, tracking: Tracking
) -> tuple[Parts, dict[str, Any] | None]:
    """Builds what the config names, and refuses on all hosts what does not fit on one of them; locks the folder."""
    parts, weights, refusal = None, None, None
    try:
        table.check(tracking.trackers)
        config = fine_tuning.adopt(configs.resolve(config), directory.path)
        if hosts.first:
            held.enter_context(directory.locked())
        check_settings(config, directory if hosts.first else None, jax.device_count())
        memory.check_training(config, build(config.model, classes=1))
        parts = prepare(config, directory.saved_normalization(config))
        if hosts.first:
            check_images(directory, config, parts.dataset, parts.normalization)
        if config.init.weights and not directory.has_checkpoint():
            weights = fine_tuning.load(config, parts.network, parts.image_shape)
    except Exception as error:
        refusal = error
    hosts.raise_together(refusal)
    assert parts is not None, "what failed is raised above"
    if (fingerprint := parts.dataset.fingerprint()) is not None:
        hosts.check_same(fingerprint, f"{parts.dataset.where}: the photographs")
    return parts, weights


def train(config: ConfigDict, run: Run) -> dict[str, Any]:
    """Trains from where the run stands to its last step; returns the last line of metrics."""
    started, parts, steps = time.perf_counter(), run.parts, config.train.steps
    recipe = Recipe(config)
    feed = Feed(parts, recipe, run.path)
    name = f"{configs.name_of(config.model)} on {config.data.name}"
    with run.opened(feed):
        run.say(f"{run.path}: {_images_of(parts.dataset)}")
        if remark := without_end(config):
            run.say(f"{run.path}: {remark}")
        optimizer = recipe.optimizer()
        like = run.abstract_state(optimizer)
        feed.compile(like)
        state = run.restore(optimizer, like)
        step, size = int(state.step), size_of(state)
        with run.logging(step, size):
            feed.begin(step)
            on = f"{jax.device_count()} {jax.devices()[0].device_kind}"
            run.say(
                f"{run.path}: {name}, {size:,} parameters, on {on}; ready after {time.perf_counter() - started:.1f} s"
            )
            meter, pace, shown = Meter(parts, feed, recipe.rate(), state), Pace(), ""
            line: dict[str, Any] = {}
            with Progress(steps, name, "steps", initial=step) as progress:
                while step < steps:
                    count = run.next_call(state, step, min(steps_to_next(step, config.train), pace.steps))
                    with pace:
                        state, count = run.advance(feed, state, step, count)
                        pace.count = count
                    step += count
                    sums = jax.device_get(state.sums)
                    run.check_loss(int(sums["first_bad_step"]))

                    last = step == steps
                    saves = last or step % config.train.checkpoint_every == 0
                    # A checkpoint that may become the best one needs its validation error.
                    evaluates = last or step % config.train.eval_every == 0 or (saves and "validation" in feed.held_out)
                    if evaluates or saves:
                        run.check_parameters(state, step)
                    if evaluates or step % config.train.log_every == 0:
                        line, failure = meter.line(state, step, sums, evaluates)
                        state = forget_sums(state)
                        if failure is not None:
                            run.stop_unevaluated(state, line, failure)
                        line = run.write(line)
                    if saves:
                        run.save(state, step, line.get("validation_error"))
                    if line.get("test_error") is not None:
                        shown = f", test error {line['test_error']:.2%}"
                    progress.update(count, in_words(sums, parts.metrics, config.train.batch_size) + shown)
        run.wait()
        return line


def steps_to_next(step: int, train: ConfigDict) -> int:
    """Steps to the next line of metrics, evaluation or checkpoint, or to the last step."""
    every = (train.log_every, train.eval_every, train.checkpoint_every)
    return min(train.steps, *((step // n + 1) * n for n in every)) - step


def _images_of(dataset: Data) -> str:
    """Which classes were found, and how many images for training and for testing."""
    names, most = dataset.classes, 10
    listed = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
    aside = f", {len(dataset.validation)} set aside for validation" if len(dataset.validation) else ""
    return (
        f"{len(names)} classes ({listed}); {len(dataset.train)} + {len(dataset.test)} images{aside}"
        + f"; {dataset.note}" * bool(dataset.note)
    )
