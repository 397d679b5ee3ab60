"""Measures the propagation of signals and gradients in networks, at initialisation and after training."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax import model
from resnet_flax.analysis import propagation
from resnet_flax.interchange import weights
from resnet_flax.interchange.files import Weights
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
    setup = prepare(run.config)
    variables = jax.device_get(restore.load_variables(setup.network, setup.image_shape, run.workdir))
    return propagation.measure(on_one_device(setup.network), variables, *setup.examples(images))


def of_weights(file: Weights, overrides: Mapping[str, Any], images: int) -> Measured:
    """Measures the network in an exported file, on ``images`` training images of the data set that the file names.

    Args:
      file: A file of ``resnet_flax.export``.
      overrides: Config values by dotted key. Those of the section ``data`` say where the images are now.
      images: The number of images.
    """
    config = weights.config_of(file, None, frozenset())
    config.update_from_flattened_dict({key: value for key, value in overrides.items() if key.startswith("data.")})
    net = model.from_loaded(file, configs.resolve(config))
    known = net.preprocessing.normalization  # statistics of all images of its training, whatever data.subset is now
    examples = dataclasses.replace(prepare(net.config, known), normalization=known).examples(images)
    return Measured(net.config, "after training", propagation.measure(net.network, net.variables, *examples))


def measure(
    untrained: Sequence[PlannedRun],
    outcomes: Sequence[Outcome],
    files: Sequence[Weights],
    overrides: Mapping[str, Any],
    images: int,
) -> list[Measured]:
    """Measures networks at initialisation and after training.

    Args:
      untrained: Runs whose networks are measured at initialisation.
      outcomes: Outcomes of runs; those of the first seed are measured after training.
      files: Exported files, measured as trained networks (:func:`of_weights`).
      overrides: Config values by dotted key, for the files.
      images: The number of training images to measure on.
    """
    trained_runs = [o for o in outcomes if o.run.config.seed == outcomes[0].run.config.seed]
    found = []
    count = len(untrained) + len(trained_runs) + len(files)
    with Progress(count, "measuring propagation", "networks") as progress:
        for run in untrained:
            found.append(Measured(run.config, "at initialisation", at_initialization(run.config, images)))
            progress.update(1)
        for outcome in trained_runs:
            seen = None if outcome.failure else after_training(outcome.run, images)
            found.append(Measured(outcome.run.config, "after training", seen, outcome.failure))
            progress.update(1)
        for file in files:
            found.append(of_weights(file, overrides, images))
            progress.update(1)
    return found
