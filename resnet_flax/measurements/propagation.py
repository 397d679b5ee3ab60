"""Measures the propagation of signals and gradients in networks, at initialisation and after training."""

from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from resnet_flax.analysis import propagation
from resnet_flax.networks import on_one_device
from resnet_flax.reporting.propagation import Measured
from resnet_flax.runtime.progress import Progress
from resnet_flax.sweeps.cases import Outcome, PlannedRun
from resnet_flax.training import fine_tuning, restore
from resnet_flax.training.setup import prepare


def at_initialization(config: ConfigDict, images: int) -> propagation.Propagation:
    """Measures a config's network at initialisation, on ``images`` of its training images."""
    setup = prepare(config)
    variables = fine_tuning.variables_at_start(config, setup.network, setup.image_shape)
    return propagation.measure(on_one_device(setup.network), variables, *setup.examples(images))


def after_training(run: PlannedRun, images: int) -> propagation.Propagation:
    """Measures the network of a finished run, on ``images`` of its training images."""
    found = restore.load_run(run.config, run.workdir)
    variables = jax.device_get(found.variables)
    return propagation.measure(on_one_device(found.setup.network), variables, *found.setup.examples(images))


def deviations_after_training(run: PlannedRun, images: int) -> list[float]:
    """Returns the standard deviation of each 3x3 layer's response in a finished run's network, in their order."""
    return [value for _, value in after_training(run, images).responses]


def measure(untrained: Sequence[PlannedRun], outcomes: Sequence[Outcome], images: int) -> list[Measured]:
    """Measures the networks of ``untrained`` at initialisation, and the outcomes of the same seed after training."""
    seed = untrained[0].config.seed
    trained_runs = [o for o in outcomes if o.run.config.seed == seed]
    found = []
    with Progress(len(untrained) + len(trained_runs), "measuring propagation", "networks") as progress:
        for run in untrained:
            found.append(Measured(run.config, "at initialisation", at_initialization(run.config, images)))
            progress.update(1)
        for outcome in trained_runs:
            seen = None if outcome.failure else after_training(outcome.run, images)
            found.append(Measured(outcome.run.config, "after training", seen, outcome.failure))
            progress.update(1)
    return found
