"""Times of networks and layers, measured by turns, so that other work of the machine falls on all of them."""

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
    """Times the training step of each config's network, and the stacks of ``layers.py``.

    Args:
      configs: of the networks.
      image: H, W and C of an image.
      classes: of the data.
      batch: images a step.
      rounds: how often each is measured.
      turn_seconds: a measurement repeats its step for about so long.

    Returns:
      The costs of the networks, and seconds by the name of a stack.
    """
    jax.config.update("jax_enable_compilation_cache", False)  # a cached program would take no time to compile
    work = len(configs) * (1 + rounds) + len(convolution_stacks.STACKS) * (1 + 2 * rounds)
    with Progress(work, "measuring costs", "measurements") as progress:

        def done(name: str) -> None:
            progress.update(1, name)

        compiled = {}
        # Depth after depth of a unit: what else the machine does then does not fall on one depth alone.
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
