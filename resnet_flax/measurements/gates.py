"""Measures how far the gates of highway networks are open, in the runs of an experiment."""

from collections.abc import Sequence

import jax

from resnet_flax.analysis.gates import openness
from resnet_flax.networks import on_one_device
from resnet_flax.sweeps.cases import Outcome
from resnet_flax.training import fine_tuning, restore
from resnet_flax.training.setup import prepare

Openness = dict[str, dict[str, list[tuple[str, float]]]]
"""Each gated layer's name and the mean of its gate T, by a run's label and a moment such as "after training"."""

_IMAGES = 128  # number of training images


def openness_of_runs(outcomes: Sequence[Outcome]) -> Openness:
    """Measures the gates of each highway network of the first seed, at initialisation and after training."""
    found: Openness = {}
    for outcome in outcomes:
        config = outcome.run.config
        if outcome.failure or config.model.unit != "highway" or config.seed != outcomes[0].run.config.seed:
            continue
        setup = prepare(config)
        network, (images, _) = on_one_device(setup.network), setup.examples(_IMAGES)
        trained = restore.load_variables(setup.network, setup.image_shape, outcome.run.workdir)
        moments = {
            "at initialisation": fine_tuning.variables_at_start(config, setup.network, setup.image_shape),
            "after training": jax.device_get(trained),
        }
        found[outcome.run.label] = {when: openness(network, v, images, train=True) for when, v in moments.items()}
    return found
