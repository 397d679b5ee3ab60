"""A run's network as a checkpoint holds it, to evaluate or to look into."""

import dataclasses
from pathlib import Path

from ml_collections import ConfigDict

from resnet_flax.networks import Network
from resnet_flax.training import optimizer
from resnet_flax.training.checkpoints import Checkpoints
from resnet_flax.training.devices import data_mesh, replicated
from resnet_flax.training.parts import Parts, prepare
from resnet_flax.training.state import State, abstract_state


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a config names, and the state of its run at a step."""

    parts: Parts
    state: State

    @property
    def variables(self) -> dict:
        """Of the network: ``params`` (their moving average where the run keeps one) and ``batch_stats``."""
        return self.state.evaluated


def load(config: ConfigDict, workdir: Path, step: int | None = None) -> Trained:
    """The newest checkpoint of a run, or that of a step.

    Args:
      config: resolved; the run's own, or one with the same network and optimizer.

    Raises:
      UserError: a checkpoint cannot be read.
    """
    parts = prepare(config)
    return Trained(parts, restore(parts, workdir, step))


def restore(parts: Parts, workdir: Path, step: int | None = None) -> State:
    """The state alone, where the parts are there already."""
    return restore_state(parts.config, parts.network, parts.image_shape, workdir, step)


def restore_state(
    config: ConfigDict, network: Network, image_shape: tuple[int, int, int], workdir: Path, step: int | None = None
) -> State:
    """The same without a data set: of a network that the config names, for images of (H, W, C)."""
    sgd = optimizer.build(config.optimizer, lambda step: 0.0)
    like = abstract_state(network, sgd, image_shape, replicated(data_mesh()))
    with Checkpoints(workdir, read_only=True) as checkpoints:
        return checkpoints.restore(like, step)
