"""A run's network as a checkpoint holds it, to evaluate or to look into."""

import dataclasses
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_flax.errors import UserError
from resnet_flax.networks import Network
from resnet_flax.runs.checkpoints import Checkpoints
from resnet_flax.training.devices import data_mesh, replicated
from resnet_flax.training.parts import Parts, prepare
from resnet_flax.training.state import abstract_variables


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run's data set and network as its config names them, and the variables at a step.

    Attributes:
      variables: ``params`` (their moving average where the run keeps one) and ``batch_stats``.
    """

    parts: Parts
    variables: dict[str, Any]


def load(config: ConfigDict, workdir: Path, step: int | None = None) -> Trained:
    """The newest checkpoint of a run, or that of a step.

    Args:
      config: resolved; the run's own, or one with the same network.

    Raises:
      UserError: a checkpoint cannot be read.
    """
    parts = prepare(config)
    return Trained(parts, restore(parts.network, parts.image_shape, workdir, step))


def restore(
    network: Network, image_shape: tuple[int, int, int], workdir: Path, step: int | None = None
) -> dict[str, Any]:
    """The network's variables to evaluate, without a data set: of a network for images of (H, W, C)."""
    like = abstract_variables(network, image_shape, replicated(data_mesh()))
    with Checkpoints(workdir, read_only=True) as checkpoints:
        found = checkpoints.restore_variables(like, step)
    if found is None:
        raise UserError(f"{workdir}: it has no checkpoint")
    return found
