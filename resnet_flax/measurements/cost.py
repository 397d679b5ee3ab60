"""Measures the costs of networks and of stacks of convolutions, in turns, so that other load affects all of them."""

from collections.abc import Mapping, Sequence

import jax
from ml_collections import ConfigDict

from resnet_flax.config import name_of
from resnet_flax.measurements import convolution_stacks, network_cost, timing
from resnet_flax.runtime.progress import Progress


def measure(
    configs: Sequence[ConfigDict],
    image: tuple[int, int, int],
    classes: int,
    batch: int,
    rounds: int,
    turn_seconds: float,
) -> tuple[list[network_cost.Cost], Mapping[str, timing.Spread]]:
    """Times the training step of each config's network, and the stacks of ``convolution_stacks.py``.

    Args:
      configs: Configs of the networks.
      image: Shape (H, W, C) of an image.
      classes: Number of classes.
      batch: Number of images per step.
      rounds: Number of measurements of each.
      turn_seconds: Approximate duration of a measurement, which repeats its step.

    Returns:
      The costs of the networks; and the seconds of each call, by the names of :func:`.convolution_stacks.name_of`.
    """
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are measured
    work = len(configs) * (1 + rounds) + len(convolution_stacks.STACKS) * (1 + 2 * rounds)
    with Progress(work, "measuring costs", "measurements") as progress:

        def done(name: str) -> None:
            progress.update(1, name)

        compiled = {}
        # Unit by unit, so that other load during compilation does not affect the same depth of all units.
        for c in sorted(configs, key=lambda c: c.model.unit):
            label = name_of(c.model)
            compiled[label] = network_cost.training_call(c, image, classes, batch)
            done(f"compiled {label}")
        labels = [name_of(c.model) for c in configs]
        spreads = timing.time_in_turns({label: compiled[label][0] for label in labels}, rounds, turn_seconds, done)
        costs = [
            network_cost.cost(c, image, classes, batch, compiled[label][1], spreads[label])
            for c, label in zip(configs, labels, strict=True)
        ]
        calls = convolution_stacks.calls(batch, jax.random.key(configs[0].seed), done)
        return costs, timing.time_in_turns(calls, rounds, turn_seconds / 4, done)
